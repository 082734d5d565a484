"""Sequences in partitions, of which each process of a fit holds some.

The sequences are numbered in the order of the partitions, wherever these are. All processes know
the lengths of all sequences, but read the values of their own partitions only.

Shapes: n or B sequences, T steps, F features, S steps of several sequences.
"""

from dataclasses import dataclass, replace

import numpy as np

from sklearn_cls._torch.processes import Processes


@dataclass(frozen=True)
class Partitions:
    """The partitions of X, or of a validation set, that this process holds.

    Attributes
    ----------
    values : dict of int to object
        Each partition by its number: an array, a data frame, or another form of X.
    processes : Processes
        All processes of the fit. Together they hold each partition once.
    """

    values: dict
    processes: Processes


class PartitionReader:
    """Reads the sequences of the partitions that this process holds.

    Parameters
    ----------
    readers : dict of int to reader
        The reader of each partition that this process holds.
    sizes : list of int
        Number of sequences in each of all partitions.
    n_features, n_steps : int
        Number of features, and of steps of the longest sequence of all partitions.
    dtype : dtype
        To which the values of all partitions are promoted.
    """

    def __init__(self, readers, sizes, *, n_features, n_steps, dtype):
        self.readers, self.dtype = readers, dtype
        self.n_features, self.n_steps = n_features, n_steps
        self.ends = np.cumsum(sizes)
        self.starts = self.ends - sizes

    def is_held(self, indices):
        """Return which of some sequences this process holds, (n,)."""
        return np.isin(self.partition_of(indices), list(self.readers))

    def partition_of(self, indices):
        """Return the number of the partition of each sequence, (n,)."""
        return np.searchsorted(self.ends, indices, side="right")

    def by_partition(self, indices):
        """Yield the partitions of some sequences that this process holds.

        For each, that is its number, its reader, and of its sequences the positions in `indices`
        and the numbers within the partition.
        """
        partitions = self.partition_of(indices)
        for number in np.unique(partitions).tolist():
            if number in self.readers:
                positions = np.flatnonzero(partitions == number)
                own = indices[positions] - self.starts[number]
                yield number, self.readers[number], positions, own

    def pad(self, indices, lengths, convert):
        """Return some sequences, converted by `convert`, as an array (B, T, F) padded with NaN."""
        if not self.is_held(indices).all():
            raise RuntimeError(
                "In a fit in several processes, each holds a part of the sequences, but something, "
                "such as a callback that makes predictions, has read others. Leave it out."
            )
        parts = [
            (positions, reader.pad(own, lengths[positions], convert))
            for _, reader, positions, own in self.by_partition(indices)
        ]
        if len(parts) == 1:
            return parts[0][1]
        batch = np.full((len(indices), lengths.max(), self.n_features), np.nan, dtype=np.float32)
        for positions, part in parts:
            batch[positions, : part.shape[1]] = part
        return batch

    def part(self, i, start, stop):
        """Return steps of sequence `i`, (S, F)."""
        number = int(self.partition_of(i))
        return self.readers[number].part(i - self.starts[number], start, stop)

    def steps(self, indices, lengths, n_max):
        """Yield all steps of those of some sequences that this process holds, as arrays (S, F)."""
        for _, reader, positions, own in self.by_partition(indices):
            yield from reader.steps(own, lengths[positions], n_max)


def joined(parts, processes):
    """Return the sequences of all partitions as one.

    Parameters
    ----------
    parts : dict of int to Sequences
        Those of the partitions that this process holds, which may be none.
    processes : Processes
    """
    described = processes.merge(
        {number: replace(part, reader=Description(part.reader)) for number, part in parts.items()}
    )
    sizes = [len(described.get(number, ())) for number in range(max(described) + 1)]
    described = list(described.values())
    first = described[0]
    return replace(
        first,
        reader=PartitionReader(
            {number: part.reader for number, part in parts.items()},
            sizes,
            n_features=first.n_features,
            n_steps=max(part.n_steps for part in described),
            dtype=np.result_type(*{part.dtype for part in described}),
        ),
        lengths=np.concatenate([part.lengths for part in described]),
        has_gaps=np.concatenate([part.has_gaps for part in described]),
        processes=processes,
    )


class Description:
    """The attributes of the reader of a partition, without its values."""

    def __init__(self, reader):
        self.n_features, self.n_steps, self.dtype = reader.n_features, reader.n_steps, reader.dtype
