"""The fingerprint of a fit: what two fits must have in common for one to resume the other."""

import hashlib
from dataclasses import astuple

import numpy as np

from sklearn_cls._data.scaler import exact_parts
from sklearn_cls._torch.processes import ONE_PROCESS

IGNORED_PARAMS = {"callbacks", "class_weight", "device", "n_jobs", "verbose", "warm_start"}


def fit_fingerprint(estimator, data, valid, groups, classes, vocabularies, device, warm_start_net):
    """Return what two fits must have in common for one to resume the other."""
    params = estimator.get_params(deep=False)
    described = {k: describe(v) for k, v in params.items() if k not in IGNORED_PARAMS}
    # The sequences hold numbers of categories, which other categories may have, too.
    categories = [np.array(repr(v.categories.tolist())) for v in vocabularies]
    weights = [] if warm_start_net is None else learned_arrays(warm_start_net)
    return {
        **described,
        "device": device.split(":")[0],
        "X": sha256([*categories, *digests(data)]),
        "y": f"{classes.tolist()} {sha256([data.y, data.indices])}",
        "sample_weight": sha256([data.weights]),
        "X_val": sha256([] if valid is None else [*digests(valid), valid.y, valid.weights]),
        "groups": sha256([] if groups is None or not estimator.early_stopping else [groups]),
        # After an interruption, the estimator holds partly trained weights, so the stored hash of
        # the weights that the fit started from is used.
        "warm_start": getattr(warm_start_net, "resumed_from", None) or sha256(weights),
    }


def digests(data):
    """Return the lengths and digests of the sequences of a dataset, of each partition."""
    sequences, indices = data.sequences, data.indices
    parts = {0: indices}
    if sequences.processes is not ONE_PROCESS:
        parts = {
            number: indices[positions]
            for number, _, positions, _ in sequences.reader.by_partition(indices)
        }
    known = {number: sha256(numbers(sequences, part)) for number, part in parts.items()}
    shape = np.array([sequences.n_features, *data.lengths])
    return [shape, np.array(list(sequences.processes.merge(known).values()))]


def numbers(sequences, indices):
    """Yield the numbers in some sequences, in the same form for every form of X."""
    for steps in sequences.steps(indices):
        high, rest = exact_parts(steps)
        yield high.astype(np.float64, copy=False)
        if np.any(rest):
            yield rest


def learned_arrays(net):
    """Return what a net has learned, as arrays: the weights and the statistics of X."""
    weights = net.module_.state_dict().values()
    return [*(value.cpu().numpy() for value in weights), *astuple(net.scaler)]


def check_fingerprint(path, saved, expected):
    """Raise ValueError if the fingerprints differ, naming the first parameter that does."""
    for name, value in expected.items():
        if saved.get(name) != value:
            difference = {
                "X": "in which X is different",
                "y": "in which y is different",
                "sample_weight": "in which sample_weight or class_weight is different",
                "X_val": "in which X_val, y_val or sample_weight_val is different",
                "groups": "in which groups are different",
                "warm_start": "which started from different weights (warm_start=True)",
            }.get(name, f"in which {name} is {saved.get(name)}, not {value}")
            raise ValueError(
                f"checkpoint={path!r} belongs to another fit, {difference}. Undo this change to "
                "resume that fit, or delete the file to start a new one."
            )


def describe(value):
    """Return a parameter as text that is the same in every process."""
    if isinstance(value, np.random.RandomState):
        return "a RandomState"
    return repr(value.item() if isinstance(value, np.generic) else value)


def sha256(arrays):
    """Return the SHA-256 digest of the numbers in some arrays, one after the other."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def check_same_fit(estimator, data, classes, processes):
    """Raise an error unless all processes that share X fit it with the same parameters."""
    if processes.size == 1 or data.sequences.processes is not ONE_PROCESS:
        return
    sample = data.take(np.sort(data.sequences.sample(np.arange(len(data)))))
    own = {
        "n_sequences": str(len(data)),
        **fit_fingerprint(estimator, sample, None, None, classes, (), "", None),
        "y": sha256([data.y]),
        "sample_weight": sha256([data.weights]),
    }
    first, *others = processes.gather(own)
    for rank, other in enumerate(others, start=1):
        for name, value in first.items():
            if other[name] != value:
                raise ValueError(
                    f"{name} is different in the processes with the ranks 0 and {rank}. Pass the "
                    "same data and the same parameters in all processes."
                )
