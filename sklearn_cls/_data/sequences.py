"""Validation of X: arrays, data frames and lists become float32 sequences.

Memory maps stay on disk and are read batch by batch. Every error about X is raised here.

Shapes: n or B sequences, T steps, F features.
"""

import re
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from sklearn.utils.validation import check_array

from sklearn_cls._data.features import Features, check_n_features, column_names
from sklearn_cls._data.warning_filters import FILTERS_LOCK

# Bytes of float32 data held in memory at a time while all sequences are read.
CHUNK_BYTES = 8 * 2**20
# Scales differ if, in more than 10 % of the sequences, the standard deviation of some feature is
# below 1 % of the overall standard deviation. Below 1e-6 of it, the variation is rounding error.
SMALL_STD_FRACTION, SMALL_STD, RELATIVE_ROUNDING = 0.1, 0.01, 1e-6
MAX_SCALE_SEQUENCES = 1000  # maximum number to compare, so that the check stays fast
FLOAT32 = np.finfo(np.float32)


@dataclass(frozen=True)
class Sequences:
    """Checked sequences, which are padded batch by batch.

    Attributes
    ----------
    values : ndarray (n, T, F) or list of n float32 arrays (T_i, F)
        A memory map keeps its dtype and stays on disk; any other array is float32.
    lengths : ndarray of int, (n,)
        Number of steps of each sequence. In an array, all later steps are NaN.
    has_gaps : ndarray of bool, (n,)
        Whether a value is missing within the sequence.
    """

    values: np.ndarray | list
    lengths: np.ndarray
    has_gaps: np.ndarray

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

    def pad(self, indices):
        """Return some sequences as a float32 array (B, T, F), padded with NaN."""
        n_steps = self.lengths[indices].max()
        if isinstance(self.values, np.ndarray):
            # Indexing with an array copies, so that changing a batch never changes the user's X.
            return np.asarray(self.values[indices, :n_steps], dtype=np.float32)
        batch = np.full((len(indices), n_steps, self.n_features), np.nan, dtype=np.float32)
        for sequence, i in zip(batch, indices, strict=True):
            sequence[: self.lengths[i]] = self.values[i]
        return batch

    def chunks(self, indices):
        """Yield some sequences as padded arrays of about `CHUNK_BYTES` at most."""
        n_sequences = max(1, CHUNK_BYTES // (4 * self.n_features * int(self.lengths.max())))
        for start in range(0, len(indices), n_sequences):
            yield self.pad(indices[start : start + n_sequences])

    def mean_and_std(self, indices):
        """Return mean and standard deviation of each feature of some sequences, float32 (F,) each.

        The standard deviation of a constant feature is 1. A feature without values has mean 0 and
        standard deviation 1.
        """
        n, mean, squares = (np.zeros(self.n_features) for _ in range(3))
        for chunk in self.chunks(indices):
            chunk = chunk.reshape(-1, self.n_features)
            is_known = ~np.isnan(chunk)
            n_new = is_known.sum(0)
            mean_new = chunk.sum(0, where=is_known, dtype=np.float64) / np.maximum(n_new, 1)
            with np.errstate(over="ignore"):  # The result is clipped to float32 below.
                centered = np.where(is_known, chunk - mean_new.astype(np.float32), 0)
            # The pairwise update of Chan et al. (1979) subtracts no large sums from each other, so
            # that a large offset costs no precision.
            total, shift = np.maximum(n + n_new, 1), mean_new - mean
            squares += np.einsum("ij,ij->j", centered, centered, dtype=np.float64)
            squares += shift**2 * n * n_new / total
            mean += shift * n_new / total
            n += n_new
        std = np.sqrt(squares / np.maximum(n, 1))
        # Rounding gives a constant feature a standard deviation near the spacing of float32.
        # A value that rounds to 0 in float32 must not become a divisor.
        is_constant = std <= np.maximum(FLOAT32.eps * np.abs(mean), FLOAT32.tiny)
        std = np.where(is_constant, 1, np.minimum(std, FLOAT32.max))
        return mean.astype(np.float32), std.astype(np.float32)

    def scales_differ(self, indices):
        """Return whether some feature varies far less within many sequences than over all of them.

        The estimator then uses instance norm. Sequences in which the feature is constant, up to
        rounding, do not count.
        """
        if len(indices) > MAX_SCALE_SEQUENCES:  # A random sample, because X may be sorted.
            rng = np.random.default_rng(0)
            indices = rng.choice(indices, MAX_SCALE_SEQUENCES, replace=False)
        _, overall = self.mean_and_std(indices)
        n_small = np.zeros(self.n_features)
        for chunk in self.chunks(indices):
            chunk = chunk.astype(np.float64)
            is_known = ~np.isnan(chunk)
            n = np.maximum(is_known.sum(1, keepdims=True), 1)
            mean = chunk.sum(1, where=is_known, keepdims=True) / n  # (B, 1, F)
            centered = np.where(is_known, chunk - mean, 0)
            std = np.sqrt((centered**2).sum(1) / n[:, 0])  # (B, F)
            rounding = np.maximum(RELATIVE_ROUNDING * overall, FLOAT32.eps * np.abs(mean[:, 0]))
            n_small += ((std > rounding) & (std < SMALL_STD * overall)).sum(0)
        return bool((n_small > SMALL_STD_FRACTION * len(indices)).any())


def check_sequences(X, estimator, features=None, max_length=None):
    """Check X and return it as `Sequences`, and its `Features`.

    `estimator` is the name of the class, for error messages. X must agree with `features`, unless
    they are None, as in the first fit. A 2-D X (n, T) is n univariate sequences; its
    `n_features_in_` is T, because scikit-learn counts columns. For any other X, it is F.
    `max_length` is the maximum number of steps that learned positions cover.
    """
    # Values that overflow float32 become infinite here, and infinity raises an error.
    with errors_name_argument("X"), np.errstate(over="ignore"):
        reject_masked(X)
        if isinstance(X, list | tuple) and len(X) == 0:
            raise ValueError("X is empty: 0 sample(s), and at least one sequence is required.")
        if _is_2d(X):
            values, seen = _check_2d(X, estimator, features)
            sequences = _from_array(values[:, :, np.newaxis])
        else:
            sequences = read_sequences(X)
            seen = features or Features(sequences.n_features)
            check_n_features(sequences.n_features, seen.n_features, estimator)
    if max_length is not None and sequences.lengths.max() > max_length:
        i = int(sequences.lengths.argmax())
        raise ValueError(
            f"X[{i}] has {sequences.lengths[i]} steps, but positions='learned' covers only the "
            f"first {max_length}; fit with positions='sinusoidal' or 'rope', or shorten X[{i}]."
        )
    return sequences, seen


@contextmanager
def errors_name_argument(argument):
    """Turn every error about `argument` into a ValueError or TypeError that names it.

    The messages of scikit-learn and NumPy do not always say which argument is wrong.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        if type(error) is kind and re.search(rf"\b{argument}\b", str(error)):
            raise
        raise kind(f"{argument}: {error}") from error


def reject_masked(values):
    """Raise an error for a masked array: NumPy would use the values under the mask."""
    if np.ma.is_masked(values):
        raise ValueError(
            "masked arrays are not supported; fill the masked values first, in X with NaN: "
            "X.filled(np.nan)."
        )


def _is_2d(X):
    """Return whether X has at most 2 dimensions and is not a list of sequences."""
    if _is_list_of_sequences(X):
        return False
    return (X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim) < 3


def _is_list_of_sequences(X):
    """Return whether X is a list, array or series of arrays, not nested lists of numbers."""
    if len(getattr(X, "shape", ())) == 1:  # an object array, or a Series of pandas or polars
        X = np.asarray(X)
        return X.ndim == 1 and X.dtype == object and any(map(_has_length, X))
    if not isinstance(X, list | tuple):
        return False
    if any(hasattr(x, "shape") for x in X):
        return any(len(x.shape) > 0 for x in X if hasattr(x, "shape"))
    try:
        np.shape(X)
    except ValueError:  # NumPy cannot convert nested lists of unequal lengths.
        return True
    return False


def _has_length(x):
    return isinstance(x, list | tuple) or len(getattr(x, "shape", ())) > 0


def _check_2d(X, estimator, features):
    """Check a 2-D X as scikit-learn does; return it as an array (n, T), and its features."""
    # After a fit on univariate sequences of another form, their number of steps may differ.
    has_columns = features is None or features.fitted_on_2d
    names = column_names(X, estimator, features) if has_columns else None
    X = _check_numeric(X, input_name="X", estimator=estimator)
    if has_columns:
        seen = features or Features(X.shape[1], names, fitted_on_2d=True)
        check_n_features(X.shape[1], seen.n_features_in, estimator)
        return X, seen
    if features.n_features != 1:
        raise ValueError(
            f"X has shape {X.shape}, which means univariate sequences, but this {estimator} was "
            f"fitted with {features.n_features} features; pass (n_sequences, n_steps, "
            f"{features.n_features}), which is X[np.newaxis] for a single sequence."
        )
    return X, features


def _check_numeric(X, **kwargs):
    """Return X as an array of real numbers: float32, but a memory map keeps its dtype.

    `**kwargs` are parameters of scikit-learn's `check_array`.
    """
    dtype = None if isinstance(X, np.memmap) else np.float32
    if _is_numeric_array(X):
        X = np.asarray(X, dtype=dtype)
    else:
        with FILTERS_LOCK:
            is_frame = hasattr(X, "dtypes") and getattr(X, "ndim", None) == 2  # of pandas
            for known in X.dtypes if is_frame else [getattr(X, "dtype", None)]:
                if isinstance(known, np.dtype):
                    _check_dtype(known, "X")
            X = check_array(X, dtype=dtype, ensure_all_finite=False, **kwargs)
    if X.ndim > 3:
        raise ValueError(
            f"X has {X.ndim} dimensions (shape {X.shape}); pass (n_sequences, n_steps, "
            "n_features), for images X.reshape(len(X), n_rows, -1)."
        )
    return X


def _is_numeric_array(X):
    """Return whether X is an array in which `check_array` would find no error."""
    return (
        isinstance(X, np.ndarray)
        and not isinstance(X, np.matrix)
        and X.dtype.kind in "biuf"
        and X.ndim >= 2
        and X.size > 0
    )


def _check_dtype(dtype, name):
    """Raise an error for complex numbers, text and dates, which NumPy would partly convert."""
    if dtype.kind == "c":
        raise ValueError(
            f"Complex data not supported: {name} has dtype {dtype}; pass real and imaginary parts "
            "as two features."
        )
    if dtype.kind not in "biufO":
        raise ValueError(
            f"{name} has dtype {dtype}; sequences must be real numbers: encode text or dates "
            "as numbers."
        )


def read_sequences(X):
    """Return an array (n, T, F), or (n, T), or a list of arrays as `Sequences`."""
    if _is_list_of_sequences(X):
        return _from_list(X)
    X = _check_numeric(X, allow_nd=True)
    return _from_array(X if X.ndim == 3 else X[:, :, np.newaxis])


def _from_list(X):
    """Return arrays (T_i, F) or (T_i,) as `Sequences`."""
    values = []
    for i, x in enumerate(X):
        x = _from_list_item(x, i)
        if values and x.shape[1] != values[0].shape[1]:
            raise ValueError(
                f"X[{i}] has {x.shape[1]} features, but X[0] has {values[0].shape[1]}; every "
                "sequence must have shape (steps, features), with the same number of features."
            )
        values.append(x)
    has_gaps = np.array([np.isnan(x).any() for x in values])
    return Sequences(values, np.array([len(x) for x in values]), has_gaps)


def _from_list_item(x, i):
    """Return sequence `i` of a list as a float32 array (T_i, F), without padding at its end."""
    try:
        x = _as_float32(x, f"X[{i}]")
    except (TypeError, ValueError) as error:
        raise type(error)(f"X[{i}] is not an array of numbers: {error}") from error
    if x.ndim not in (1, 2):
        raise ValueError(
            f"X[{i}] has shape {x.shape}; each sequence of a list must be an array of shape "
            "(steps, features), or (steps,) for a single feature."
        )
    if x.size == 0:
        raise _empty_sequence_error(i, x.shape)
    x = x.reshape(len(x), -1)
    if np.isinf(x).any():
        raise _infinity_error(i)
    n_steps = _count_steps(x[np.newaxis])[0]
    if n_steps == 0:
        raise _empty_sequence_error(i, x.shape, all_missing=True)
    return x[:n_steps]


def _as_float32(x, name):
    """Return an array of numbers as float32, without a copy if it is float32 already."""
    reject_masked(x)
    is_frame = hasattr(type(x), "dtypes")  # or a pandas Series
    x = x if is_frame else np.asarray(x)
    if is_frame or x.dtype == object:  # These may hold missing values other than NaN.
        with FILTERS_LOCK:
            return check_array(x, dtype=np.float32, ensure_all_finite=False, ensure_2d=False)
    _check_dtype(x.dtype, name)
    return x.astype(np.float32, copy=False)


def _empty_sequence_error(i, shape, all_missing=False):
    why = "all of its values are NaN" if all_missing else f"shape {shape}"
    return ValueError(
        f"X[{i}] has no steps ({why}); every sequence needs at least one. Remove this sequence and "
        "its label."
    )


def _infinity_error(i):
    return ValueError(
        f"X[{i}] contains infinity or a value too large for float32; replace it with NaN if it "
        "is missing, or rescale X."
    )


def _count_steps(x):
    """Return the lengths (n,) of x (n, T, F) without the steps at the end that are all NaN."""
    is_known = ~np.isnan(x).all(2)  # (n, T)
    return np.where(is_known.any(1), x.shape[1] - is_known[:, ::-1].argmax(1), 0)


def _from_array(values):
    """Return an array (n, T, F) as `Sequences`, after one pass over it in chunks."""
    n, n_steps, n_features = values.shape
    if n_steps == 0 or n_features == 0:
        raise _empty_sequence_error(0, values.shape[1:])
    lengths, has_gaps = np.full(n, n_steps), np.zeros(n, dtype=bool)
    sequences, start = Sequences(values, lengths, has_gaps), 0
    for chunk in sequences.chunks(np.arange(n)):
        stop = start + len(chunk)
        if not np.isfinite(chunk).all():
            is_infinite = np.isinf(chunk).any((1, 2))
            if is_infinite.any():
                raise _infinity_error(start + int(is_infinite.argmax()))
            chunk_lengths = _count_steps(chunk)
            if not chunk_lengths.all():
                i = start + int(chunk_lengths.argmin())
                raise _empty_sequence_error(i, values.shape[1:], all_missing=True)
            is_padding = np.arange(n_steps) >= chunk_lengths[:, np.newaxis]
            lengths[start:stop] = chunk_lengths
            has_gaps[start:stop] = (np.isnan(chunk).any(2) & ~is_padding).any(1)
        start = stop
    return sequences
