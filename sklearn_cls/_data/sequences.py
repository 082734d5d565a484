"""Checked sequences, which are read, standardized and padded batch by batch.

Memory maps stay on disk, and other arrays remain those of the caller.

Shapes: n or B sequences, T steps, F features, S steps of several sequences.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sklearn_cls._data.scaler import Scaler

# Size of a chunk, in bytes of float64: all sequences are read in chunks.
CHUNK_BYTES = 2**20
# Scales differ if, in more than 10 % of the sequences, the standard deviation of some feature is
# below 1 % of the overall standard deviation. Below 1e-6 of it, the variation is rounding error.
SMALL_STD_FRACTION, SMALL_STD, RELATIVE_ROUNDING = 0.1, 0.01, 1e-6
MAX_SAMPLE = 1000  # maximum number of sequences to look at, so that checks stay fast
FLOAT32 = np.finfo(np.float32)


@dataclass(frozen=True)
class Sequences:
    """Checked sequences, which are padded batch by batch.

    Attributes
    ----------
    values : ndarray (n, T, F) or list of n arrays (T_i, F)
        Real numbers of any dtype.
    lengths : ndarray of int, (n,)
        Number of steps of each sequence. In an array, all later steps are NaN.
    has_gaps : ndarray of bool, (n,)
        Whether a value is missing within the sequence.
    scaler : Scaler or None
        Standardizes the batches; None leaves them as they are.
    """

    values: np.ndarray | list
    lengths: np.ndarray
    has_gaps: np.ndarray
    scaler: Scaler | None = None

    def __len__(self):
        return len(self.lengths)

    @property
    def n_features(self):
        """Number of features F."""
        return self.values[0].shape[-1]

    @property
    def n_steps(self):
        """Number of steps of the array, or of the longest sequence of a list."""
        return self.values.shape[1] if isinstance(self.values, np.ndarray) else max(self.lengths)

    @cached_property
    def dtype(self):
        """The dtype of the array, or the one to which the arrays of a list are promoted."""
        if isinstance(self.values, np.ndarray):
            return self.values.dtype
        return np.result_type(*{x.dtype for x in self.values})

    def pad(self, indices):
        """Return some sequences, standardized, as a float32 array (B, T, F) padded with NaN."""
        lengths = self.lengths[indices]
        n_steps = lengths.max()
        if isinstance(self.values, np.ndarray):
            return self._scaled(self.values[indices, :n_steps])
        steps = self._scaled(np.concatenate([self.values[i] for i in indices]))  # (S, F)
        if len(steps) == len(indices) * n_steps:
            return steps.reshape(len(indices), n_steps, -1)
        batch = np.full((len(indices), n_steps, self.n_features), np.nan, dtype=np.float32)
        batch[np.arange(n_steps) < lengths[:, np.newaxis]] = steps
        return batch

    def _scaled(self, values):
        if self.scaler is not None:
            return self.scaler(values)
        with np.errstate(all="ignore"):
            return np.asarray(values, dtype=np.float32)

    def chunks(self, indices):
        """Yield some sequences as padded arrays of about `CHUNK_BYTES` at most."""
        n_sequences = max(1, CHUNK_BYTES // (8 * self.n_features * int(self.lengths.max())))
        for start in range(0, len(indices), n_sequences):
            yield self.pad(indices[start : start + n_sequences])

    def steps(self, indices):
        """Yield all steps of some sequences, as arrays (S, F) of `dtype`, not standardized.

        Each takes about `CHUNK_BYTES` as float64, so that one sequence may span several. Padding is
        left out.
        """
        n_max = steps_per_chunk(self.n_features)
        if isinstance(self.values, np.ndarray):
            shortest, n_steps = self.lengths[indices].min(), int(self.lengths[indices].max())
            n_sequences = max(1, n_max // n_steps)
            for i in range(0, len(indices), n_sequences):
                for start in range(0, n_steps, n_max):
                    stop = min(start + n_max, n_steps)
                    rows = indices[i : i + n_sequences]
                    part = np.asarray(self.values[rows, start:stop])
                    if stop > shortest:
                        part = part[np.arange(start, stop) < self.lengths[rows, np.newaxis]]
                    if part.size:
                        yield part.reshape(-1, self.n_features)
            return
        parts, n_steps = [], 0
        for i in indices:
            for start in range(0, len(self.values[i]), n_max):
                part = self.values[i][start : start + n_max]
                if n_steps + len(part) > n_max:
                    yield np.concatenate(parts, dtype=self.dtype)
                    parts, n_steps = [], 0
                parts.append(part)
                n_steps += len(part)
        yield np.concatenate(parts, dtype=self.dtype)

    def sample(self, indices):
        """Return up to `MAX_SAMPLE` of the indices: at random, because X may be sorted."""
        if len(indices) <= MAX_SAMPLE:
            return indices
        return np.random.default_rng(0).choice(indices, MAX_SAMPLE, replace=False)

    def scales_differ(self, indices):
        """Return whether some feature varies far less within many sequences than over all of them.

        The estimator then uses instance norm. Sequences in which the feature is constant, up to
        rounding, do not count. The sequences must be standardized.
        """
        indices = self.sample(indices)
        n_small = np.zeros(self.n_features)
        with np.errstate(all="ignore"):
            mean_in_stds = self.scaler.mean / self.scaler.std
            precision = np.finfo(self.dtype).eps if self.dtype.kind == "f" else 0.0
            for chunk in self.chunks(indices):
                chunk = chunk.astype(np.float64)
                is_known = ~np.isnan(chunk)
                n = np.maximum(is_known.sum(1, keepdims=True), 1)
                mean = chunk.sum(1, where=is_known, keepdims=True) / n  # (B, 1, F)
                centered = np.where(is_known, chunk - mean, 0)
                std = np.sqrt((centered**2).sum(1) / n[:, 0])  # (B, F)
                mean = mean[:, 0]
                rounding = np.maximum(
                    np.maximum(RELATIVE_ROUNDING, FLOAT32.eps * np.abs(mean)),
                    precision * np.abs(mean + mean_in_stds),
                )
                n_small += ((std > rounding) & (std < SMALL_STD)).sum(0)
        return bool((n_small > SMALL_STD_FRACTION * len(indices)).any())


def steps_per_chunk(n_features):
    """Return how many steps take about `CHUNK_BYTES` as float64."""
    return max(1, CHUNK_BYTES // (8 * n_features))
