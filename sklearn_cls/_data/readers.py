"""Readers of the values of sequences, one for each form in which they are stored.

A reader returns values in the dtype in which they are stored, and leaves out the steps after the
length of a sequence, except that `ArrayReader.pad` keeps the padding of the array.

Shapes: n or B sequences, T steps, F features, S steps of several sequences.
"""

from functools import cached_property

import numpy as np


class ArrayReader:
    """Reads an array (n, T, F) of real numbers, in which shorter sequences are padded with NaN."""

    def __init__(self, values):
        self.values = values
        self.dtype = values.dtype
        _, self.n_steps, self.n_features = values.shape

    def pad(self, indices, lengths, convert):
        """Return some sequences, converted by `convert`, as an array (B, T, F) padded with NaN.

        `lengths` are those of the sequences at `indices`.
        """
        return convert(self.values[indices, : lengths.max()])

    def part(self, i, start, stop):
        """Return steps of sequence `i`, (S, F)."""
        return np.asarray(self.values[i, start:stop])

    def steps(self, indices, lengths, n_max):
        """Yield all steps of some sequences as arrays (S, F) of about `n_max` steps."""
        shortest, n_steps = lengths.min(), int(lengths.max())
        n_sequences = max(1, n_max // n_steps)
        for i in range(0, len(indices), n_sequences):
            rows = slice(i, i + n_sequences)
            for start in range(0, n_steps, n_max):
                stop = min(start + n_max, n_steps)
                part = np.asarray(self.values[indices[rows], start:stop])
                if stop > shortest:
                    part = part[np.arange(start, stop) < lengths[rows, np.newaxis]]
                if part.size:
                    yield part.reshape(-1, self.n_features)


class Reader:
    """Base class of the readers of sequences that are stored without padding."""

    def pad(self, indices, lengths, convert):
        """Return some sequences, converted by `convert`, as an array (B, T, F) padded with NaN.

        `lengths` are those of the sequences at `indices`.
        """
        steps, n_steps = convert(self.read(indices, lengths)), lengths.max()  # (S, F)
        if len(steps) == len(indices) * n_steps:
            return steps.reshape(len(indices), n_steps, -1)
        batch = np.full((len(indices), n_steps, steps.shape[1]), np.nan, dtype=steps.dtype)
        batch[np.arange(n_steps) < lengths[:, np.newaxis]] = steps
        return batch

    def steps(self, indices, lengths, n_max):
        """Yield all steps of some sequences as arrays (S, F) of at most `n_max` steps."""
        first, n_steps = 0, 0  # of the sequences that have not been yielded yet
        for last, length in enumerate(lengths.tolist()):
            if n_steps + length > n_max and last > first:
                yield self.read(indices[first:last], lengths[first:last])
                first, n_steps = last, 0
            if length > n_max:
                for start in range(0, length, n_max):
                    yield self.part(indices[last], start, min(start + n_max, length))
                first = last + 1
            else:
                n_steps += length
        if first < len(indices):
            yield self.read(indices[first:], lengths[first:])


class ListReader(Reader):
    """Reads a list of n arrays (T_i, F)."""

    def __init__(self, values):
        self.values = values
        self.n_features = values[0].shape[1]
        self.n_steps = max(map(len, values))

    @cached_property
    def dtype(self):
        """The dtype to which the arrays are promoted."""
        return np.result_type(*{x.dtype for x in self.values})

    def read(self, indices, lengths):
        """Return the steps of some sequences, (S, F)."""
        parts = [self.values[i][:n] for i, n in zip(indices, lengths, strict=True)]
        return np.concatenate(parts, dtype=self.dtype)

    def part(self, i, start, stop):
        """Return steps of sequence `i`, (S, F)."""
        return self.values[i][start:stop]


class FlatReader(Reader):
    """Reads an array (S, F) of the steps of all sequences, one sequence after the other.

    Parameters
    ----------
    values : ndarray (S, F)
    offsets : ndarray of int, (n + 1,)
        Where each sequence begins, and the total number of steps.
    """

    def __init__(self, values, offsets):
        self.values, self.offsets = values, offsets
        self.n_features, self.dtype = values.shape[1], values.dtype
        self.n_steps = int(np.diff(offsets).max())

    def read(self, indices, lengths):
        """Return the steps of some sequences, (S, F)."""
        return self.values[step_numbers(self.offsets[indices], lengths)]

    def part(self, i, start, stop):
        """Return steps of sequence `i`, (S, F)."""
        return self.values[self.offsets[i] + start : self.offsets[i] + stop]


class ColumnReader(Reader):
    """Reads features that are stored as one array each.

    Parameters
    ----------
    columns : list of F ndarrays
        The values of a feature at the steps of all sequences, one sequence after the other; or one
        value for each sequence, which is repeated at all of its steps.
    offsets : ndarray of int, (n + 1,)
        Where each sequence begins, and the total number of steps.
    """

    def __init__(self, columns, offsets):
        self.columns, self.offsets = columns, offsets
        self.n_features = len(columns)
        self.n_steps = int(np.diff(offsets).max())
        self.dtype = np.result_type(*{column.dtype for column in columns})

    def read(self, indices, lengths):
        """Return the steps of some sequences, (S, F)."""
        rows = step_numbers(self.offsets[indices], lengths)
        steps = np.empty((len(rows), self.n_features), dtype=self.dtype)
        for j, column in enumerate(self.columns):
            is_constant = len(column) < self.offsets[-1]
            steps[:, j] = np.repeat(column[indices], lengths) if is_constant else column[rows]
        return steps

    def part(self, i, start, stop):
        """Return steps of sequence `i`, (S, F)."""
        first = self.offsets[i]
        steps = np.empty((stop - start, self.n_features), dtype=self.dtype)
        for j, column in enumerate(self.columns):
            is_constant = len(column) < self.offsets[-1]
            steps[:, j] = column[i] if is_constant else column[first + start : first + stop]
        return steps


def step_numbers(starts, lengths):
    """Return the numbers of the steps of some sequences that begin at the steps `starts`, (S,)."""
    ends = lengths.cumsum()
    return np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1])
