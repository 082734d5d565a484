"""Which worker trains on which partitions of the arguments of `fit`."""

import dask
import distributed
import numpy as np

from sklearn_cls._dask.partitions import delayed_partitions, known_sizes
from sklearn_cls._data.dask_collections import check_collection, computed, is_array, is_dask

# Arguments of `fit` that have a value for each sequence of the first one.
TRAINING = ("X", "y", "sample_weight", "groups")
VALIDATION = ("X_val", "y_val", "sample_weight_val")


def assign(client, workers, arguments):
    """Return the workers of a fit in the order of their ranks, and the arguments of each.

    Each process gets consecutive partitions with about the same number of sequences, so that the
    result does not depend on where they were computed. Partitions that have not been computed are
    computed in the worker that trains on them; others are copied to it, unless they are there.

    Returns
    -------
    workers : list of str
        Addresses; at most one for each partition of X.
    whole : dict
        Arguments that are the same in all processes; arrays are futures.
    by_rank : list of dict of dict
        For each process, its partitions of the other arguments, as futures by their numbers.
    """
    check_collection(arguments["X"])
    names = (*TRAINING, *VALIDATION)
    whole = {k: v for k, v in arguments.items() if k not in names and v is not None}
    parts, sizes = _partitions(client, arguments, TRAINING)
    numbers = np.flatnonzero(sizes)
    blocks = consecutive_blocks(sizes[numbers], min(len(workers), len(numbers)))
    blocks = [numbers[block] for block in blocks]
    workers = _matched(client, workers, parts["X"], blocks)
    by_rank = _computed(client, parts, blocks, workers)
    parts, sizes = _partitions(client, arguments, VALIDATION)
    if parts:
        blocks = np.array_split(np.flatnonzero(sizes), len(workers))
        for own, values in zip(by_rank, _computed(client, parts, blocks, workers), strict=True):
            own.update(values)
    for name in names:
        if arguments.get(name) is not None and name not in by_rank[0]:
            value = [computed(arguments[name])]
            (whole[name],) = client.scatter(value, workers=workers, broadcast=True, hash=False)
    return workers, whole, by_rank


def consecutive_blocks(sizes, n_blocks):
    """Divide partitions into blocks of consecutive ones; return their positions as arrays.

    No block is empty, and all have about the same number of sequences; `sizes` are those of the
    partitions.
    """
    middles = np.cumsum(sizes) - sizes / 2
    ends = np.searchsorted(middles, np.sum(sizes) * np.arange(1, n_blocks) / n_blocks)
    for i in range(n_blocks - 1):
        ends[i] = np.clip(ends[i], 1 if i == 0 else ends[i - 1] + 1, len(sizes) - n_blocks + 1 + i)
    return np.split(np.arange(len(sizes)), ends)


def _partitions(client, arguments, names):
    """Return the partitions of those arguments that have some, and their numbers of sequences.

    There are none unless the first of the `names` is a collection. Each partition is a delayed
    object, or a future if it had to be computed to know its size.
    """
    given = {name: arguments.get(name) for name in names if is_dask(arguments.get(name))}
    if names[0] not in given:
        return {}, None
    sizes = known_sizes(given[names[0]])
    parts = {}
    for name, value in given.items():
        if sizes is not None and is_array(value) and known_sizes(value) is not None:
            value = _rechunked(value, sizes, name, names[0])
        parts[name] = delayed_partitions(value)
    for name, values in parts.items():
        if len(values) != len(parts[names[0]]):
            raise ValueError(
                f"{name} has {len(values)} partitions, but {names[0]} has {len(parts[names[0]])}; "
                "pass collections with the same partitions."
            )
    if sizes is None:
        parts[names[0]] = client.compute(parts[names[0]])
        sizes = client.gather(client.map(len, parts[names[0]], pure=False))
    if not any(sizes):
        raise ValueError(f"{names[0]} is empty: all of its partitions are.")
    return parts, np.array(sizes)


def _rechunked(array, sizes, name, first):
    """Return an array with chunks of `sizes` along its first axis."""
    if array.shape[0] != sum(sizes):
        raise ValueError(f"{name} has {array.shape[0]} items, but {first} has {sum(sizes)}.")
    return array.rechunk({0: sizes})


def _matched(client, workers, partitions, blocks):
    """Return the worker of each block: if possible, the one that holds most of its partitions."""
    holders = client.who_has(distributed.futures_of(partitions))
    holders = {str(key): set(addresses) for key, addresses in holders.items()}
    left, matched = list(workers), []
    for block in blocks:
        held = [holders.get(str(partitions[i].key), set()) for i in block]
        matched.append(max(left, key=lambda worker: sum(worker in each for each in held)))
        left.remove(matched[-1])
    return matched


def _computed(client, parts, blocks, workers):
    """Return the partitions of each worker as dicts of futures, by their numbers."""
    by_rank = []
    for block, worker in zip(blocks, workers, strict=True):
        own = {}
        for name, values in parts.items():
            # Tasks of their own, which can be cancelled: others may use the partitions, too.
            copies = [dask.delayed(_unchanged, pure=False)(values[i]) for i in block]
            futures = client.compute(copies, workers=[worker])
            own[name] = dict(zip(block.tolist(), futures, strict=True))
        by_rank.append(own)
    return by_rank


def _unchanged(partition):
    return partition
