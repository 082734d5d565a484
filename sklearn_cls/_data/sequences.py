"""Checked sequences, which are read, standardized and padded batch by batch.

Memory maps stay on disk, and other arrays remain those of the caller.

Shapes: n or B sequences, T steps, F features, S steps of several sequences.
"""

from dataclasses import dataclass

import numpy as np

from sklearn_cls._data.readers import ArrayReader, ColumnReader, ListReader
from sklearn_cls._data.scaler import Scaler
from sklearn_cls._torch.processes import ONE_PROCESS, Processes

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
    reader : ArrayReader, ListReader or ColumnReader
        Reads the values, which are real numbers of any dtype.
    lengths : ndarray of int, (n,)
        Number of steps of each sequence. In an array, all later steps are NaN.
    has_gaps : ndarray of bool, (n,)
        Whether a value is missing within the sequence.
    scaler : Scaler or None
        Standardizes the batches; None leaves them as they are.
    n_categories : tuple of int
        Number of categories of each code feature. These features are the last ones.
    n_clock_inputs : int
        Number of features that have been computed from the clock. They precede the codes.
    processes : Processes
        The processes that hold the values, each those of some sequences. The other attributes
        describe all sequences.
    """

    reader: ArrayReader | ListReader | ColumnReader
    lengths: np.ndarray
    has_gaps: np.ndarray
    scaler: Scaler | None = None
    n_categories: tuple = ()
    n_clock_inputs: int = 0
    processes: Processes = ONE_PROCESS

    def __len__(self):
        return len(self.lengths)

    @property
    def n_features(self):
        """Number of features F."""
        return self.reader.n_features

    @property
    def n_steps(self):
        """Number of steps of the array, or of the longest sequence."""
        return self.reader.n_steps

    @property
    def dtype(self):
        """The dtype of the values."""
        return self.reader.dtype

    @property
    def is_code(self):
        """Which features are codes, (F,)."""
        return np.arange(self.n_features) >= self.n_features - len(self.n_categories)

    @property
    def has_clock(self):
        """Whether features have been computed from the times of the steps."""
        return self.n_clock_inputs > 0

    @property
    def is_number(self):
        """Which features are numbers of X, (F,): neither codes, nor computed from the clock."""
        n_numbers = self.n_features - len(self.n_categories) - self.n_clock_inputs
        return np.arange(self.n_features) < n_numbers

    def is_held(self, indices):
        """Return which of some sequences this process can read, (n,)."""
        if self.processes is ONE_PROCESS:
            return np.ones(len(indices), dtype=bool)
        return self.reader.is_held(indices)

    def held(self, indices):
        """Return those of some sequences that this process can read."""
        return indices[self.is_held(indices)]

    def pad(self, indices):
        """Return some sequences, standardized, as a float32 array (B, T, F) padded with NaN."""
        return self.reader.pad(indices, self.lengths[indices], self._scaled)

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
        left out, and so are sequences that other processes hold.
        """
        n_max = steps_per_chunk(self.n_features)
        yield from self.reader.steps(indices, self.lengths[indices], n_max)

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
            for chunk in self.chunks(self.held(indices)):
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
        n_small = sum(self.processes.gather(n_small))
        n_small[self.is_code] = 0
        return bool((n_small > SMALL_STD_FRACTION * len(indices)).any())


def steps_per_chunk(n_features):
    """Return how many steps take about `CHUNK_BYTES` as float64."""
    return max(1, CHUNK_BYTES // (8 * n_features))


def empty_sequence_error(i, shape=(0,), all_missing=False):
    """Return the error that sequence `i` has no steps."""
    why = "all of its values are NaN" if all_missing else f"shape {shape}"
    return ValueError(
        f"X[{i}] has no steps ({why}); every sequence needs at least one. Remove this sequence and "
        "its label."
    )


def infinity_error(i):
    """Return the error that a value of sequence `i` is infinite."""
    return ValueError(
        f"X[{i}] contains infinity; replace it with NaN if it is missing: X[~np.isfinite(X)] = "
        "np.nan."
    )
