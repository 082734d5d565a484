"""What the user gave, as checked float32 sequences: every complaint about X is made here.

Shapes: n sequences, T steps, F features.
"""

import re
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from sklearn.utils.validation import check_array, validate_data

from sklearn_cls._compat import check_feature_names

CHUNK_BYTES = 8 * 2**20  # of float32: what a pass over the data holds at a time
SCALE_SAMPLE = 1000  # sequences


@dataclass(frozen=True)
class Sequences:
    """Checked sequences, read batch by batch.

    Attributes
    ----------
    values : ndarray (n, T, F) or list of n float32 arrays (T_i, F)
        A memory map keeps its dtype and stays on disk; any other array is float32.
    lengths : ndarray of int, (n,)
        Steps of each sequence; what an array holds after them is NaN.
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
        """F."""
        return self.values[0].shape[-1]

    @property
    def n_steps(self):
        """Steps of the array, or of the longest sequence of a list."""
        return self.values.shape[1] if isinstance(self.values, np.ndarray) else max(self.lengths)

    def pad(self, rows):
        """Return the sequences `rows` as one float32 array (B, T, F), NaN after their ends."""
        n_steps = self.lengths[rows].max()
        if isinstance(self.values, np.ndarray):
            # Indexing by an array copies: what is done to a batch never reaches the caller's.
            with np.errstate(over="ignore"):  # of a memory map, whose infinities are refused
                return np.asarray(self.values[rows, :n_steps], dtype=np.float32)
        batch = np.full((len(rows), n_steps, self.n_features), np.nan, dtype=np.float32)
        for sequence, i in zip(batch, rows, strict=True):
            sequence[: self.lengths[i]] = self.values[i]
        return batch

    def mean_and_std(self, rows):
        """Return the mean and deviation of each feature over `rows`, float32 (F,) each.

        Summed in float64, one chunk at a time; 0 and 1 for a feature without values, deviation 1
        for one that does not vary.
        """
        n, mean, squares = (np.zeros(self.n_features) for _ in range(3))
        for chunk in self.chunks(rows):
            chunk = chunk.reshape(-1, self.n_features)
            known = ~np.isnan(chunk)
            n_new = known.sum(0)
            mean_new = chunk.sum(0, where=known, dtype=np.float64) / np.maximum(n_new, 1)
            with np.errstate(over="ignore"):  # of values further apart than float32 reaches
                deviation = np.where(known, chunk - mean_new.astype(np.float32), 0)
            # Chan et al. (1979): no difference of large sums, so an offset costs no digits.
            total, shift = np.maximum(n + n_new, 1), (mean_new - mean) * (n_new > 0)
            squares += np.einsum("ij,ij->j", deviation, deviation, dtype=np.float64)
            squares += shift**2 * n * n_new / total
            mean += shift * n_new / total
            n += n_new
        deviation = np.sqrt(squares / np.maximum(n, 1))
        # Rounding leaves a constant feature with a deviation of about a unit in the last place.
        # What float32 rounds to 0 would be divided by.
        float32 = np.finfo(np.float32)
        is_constant = deviation <= np.maximum(float32.eps * np.abs(mean), float32.tiny)
        deviation = np.where(is_constant, 1, np.minimum(deviation, float32.max))
        return mean.astype(np.float32), deviation.astype(np.float32)

    def scales_differ(self, rows):
        """Return whether some feature varies a hundred times less in many sequences than in all.

        Judged by `SCALE_SAMPLE` of `rows` at most. Sequences in which it is constant, but for
        rounding, do not count.
        """
        if len(rows) > SCALE_SAMPLE:  # at random: rows may come in turns
            rows = np.random.default_rng(0).choice(rows, SCALE_SAMPLE, replace=False)
        _, overall = self.mean_and_std(rows)
        n_small = np.zeros(self.n_features)
        for chunk in self.chunks(rows):
            chunk = chunk.astype(np.float64)
            known = ~np.isnan(chunk)
            n = np.maximum(known.sum(1, keepdims=True), 1)
            mean = chunk.sum(1, where=known, keepdims=True) / n  # (B, 1, F)
            centred = np.where(known, chunk - mean, 0)
            deviation = np.sqrt((centred**2).sum(1) / n[:, 0])  # (B, F)
            rounding = np.maximum(1e-6 * overall, np.finfo(np.float32).eps * np.abs(mean[:, 0]))
            n_small += ((deviation > rounding) & (deviation < 0.01 * overall)).sum(0)
        return bool((n_small > 0.1 * len(rows)).any())

    def chunks(self, rows):
        """Yield the sequences `rows` as padded arrays of at most about `CHUNK_BYTES`."""
        n_rows = max(1, CHUNK_BYTES // (4 * self.n_features * int(self.lengths.max())))
        for start in range(0, len(rows), n_rows):
            yield self.pad(rows[start : start + n_rows])


def check_sequences(estimator, X, *, reset, max_length=None):
    """Check X and return it as `Sequences`.

    With `reset`, as in `fit`, `estimator` learns its number of features and their names;
    otherwise X must agree with them. A 2-D X (n, T) is n univariate sequences: then
    `n_features_in_` is T, as scikit-learn counts columns, and otherwise F. `max_length` is
    what learned positions reach to.
    """
    with errors_name_argument("X"):
        refuse_masked(X)
        if _is_2d(X):
            sequences = _from_array(_check_2d(estimator, X, reset)[:, :, np.newaxis])
        else:
            sequences = read_sequences(X)
            _check_n_features(estimator, sequences.n_features, reset)
    if max_length is not None and sequences.lengths.max() > max_length:
        i = int(sequences.lengths.argmax())
        raise ValueError(
            f"X[{i}] has {sequences.lengths[i]} steps, but positions='learned' knows the first "
            f"{max_length} only; fit with positions='sinusoidal' or 'rope', or cut X."
        )
    return sequences


def refuse_masked(values):
    """Refuse a masked array: NumPy reads what is beneath the mask."""
    if np.ma.is_masked(values):
        raise ValueError("masked values would be read as what is beneath; fill them, in X by NaN.")


@contextmanager
def errors_name_argument(argument):
    """Make whatever is wrong with `argument` a ValueError or TypeError that names it.

    Scikit-learn's and NumPy's messages don't always, and a caller has several arguments.
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


def read_sequences(X):
    """Return an array (n, T, F) or a list of arrays as `Sequences`."""
    if _is_list_of_sequences(X):
        return _from_list(X)
    X = _check_numeric(check_array, X, allow_nd=True)
    return _from_array(X if X.ndim == 3 else X[:, :, np.newaxis])


def _is_2d(X):
    """Whether X is neither a list of sequences nor of 3 or more dimensions."""
    if isinstance(X, list | tuple) and len(X) == 0:
        raise ValueError("X is empty: 0 sample(s), and at least one sequence is required.")
    if _is_list_of_sequences(X):
        return False
    return (X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim) < 3


def _is_list_of_sequences(X):
    """Whether X is a list, or an array or series of objects, of arrays; not lists of numbers."""
    if len(getattr(X, "shape", ())) == 1:  # NumPy's, or a series of pandas or polars
        X = np.asarray(X)
        return X.ndim == 1 and X.dtype == object and any(map(_has_length, X))
    if not isinstance(X, list | tuple):
        return False
    if any(hasattr(x, "shape") for x in X):
        return any(len(x.shape) > 0 for x in X if hasattr(x, "shape"))
    try:
        np.shape(X)
    except ValueError:  # nested lists of unequal lengths
        return True
    return False


def _has_length(x):
    return isinstance(x, list | tuple) or len(getattr(x, "shape", ())) > 0


def _from_list(X):
    """Return `Sequences` of arrays (T_i, F) or (T_i,)."""
    values = []
    for i, x in enumerate(X):
        try:
            with np.errstate(over="ignore"):
                x = _as_float32(x, f"X[{i}]")
        except (TypeError, ValueError) as error:
            raise type(error)(f"X[{i}] is not an array of numbers: {error}") from error
        if x.ndim not in (1, 2):
            raise ValueError(
                f"X[{i}] has shape {x.shape}; each sequence of a list must be an array of shape "
                "(steps, features), or (steps,) if there is one feature."
            )
        x = x.reshape(len(x), -1) if len(x) else x
        if x.size == 0:
            raise _empty_sequence_error(i, x.shape)
        if values and x.shape[1] != values[0].shape[1]:
            raise ValueError(
                f"X[{i}] has {x.shape[1]} features, but X[0] has {values[0].shape[1]}; every "
                "sequence must be (steps, features) with the same features."
            )
        if np.isinf(x).any():
            raise _infinity_error(i)
        n_steps = _n_steps(x[np.newaxis])[0]
        if n_steps == 0:
            raise _empty_sequence_error(i, x.shape, all_missing=True)
        values.append(x[:n_steps])
    has_gaps = np.array([np.isnan(x).any() for x in values])
    return Sequences(values, np.array([len(x) for x in values]), has_gaps)


def _as_float32(x, name):
    refuse_masked(x)
    x = np.asarray(x) if not hasattr(x, "dtypes") else x
    if hasattr(x, "dtypes") or x.dtype == object:  # frames may have missing values of their own
        return check_array(x, dtype=np.float32, ensure_all_finite=False, ensure_2d=False)
    _refuse_dtype(name, x.dtype)
    return x.astype(np.float32, copy=False)


def _from_array(values):
    """Return `Sequences` of an array (n, T, F), reading it chunk by chunk."""
    n, n_steps, n_features = values.shape
    if n_steps == 0 or n_features == 0:
        raise _empty_sequence_error(0, values.shape[1:])
    lengths, has_gaps = np.full(n, n_steps), np.zeros(n, dtype=bool)
    sequences, start = Sequences(values, lengths, has_gaps), 0
    for chunk in sequences.chunks(np.arange(n)):
        if not np.isfinite(chunk).all():
            if np.isinf(chunk).any():
                raise _infinity_error(start + int(np.isinf(chunk).any((1, 2)).argmax()))
            of_chunk = _n_steps(chunk)
            if not of_chunk.all():
                raise _empty_sequence_error(
                    start + int(of_chunk.argmin()), values.shape[1:], all_missing=True
                )
            lengths[start : start + len(chunk)] = of_chunk
            is_step = np.arange(n_steps) < of_chunk[:, np.newaxis]
            gaps = np.isnan(chunk).any(2) & is_step
            has_gaps[start : start + len(chunk)] = gaps.any(1)
        start += len(chunk)
    return sequences


def _n_steps(x):
    """Steps of x (n, T, F) without the all-NaN steps at the end of each sequence: (n,)."""
    is_known = ~np.isnan(x).all(2)  # (n, T)
    return np.where(is_known.any(1), x.shape[1] - is_known[:, ::-1].argmax(1), 0)


def _check_2d(estimator, X, reset):
    """Check a 2-D X with scikit-learn's own checks: (n, T)."""
    if reset:
        X = _check_numeric(validate_data, estimator, X, reset=True)
        estimator._fitted_on_2d = True
        return X
    if estimator._fitted_on_2d:
        return _check_numeric(validate_data, estimator, X, reset=False)
    X = _check_numeric(check_array, X, estimator=estimator)
    if estimator.n_features_in_ != 1:
        raise ValueError(
            f"X has shape {X.shape}, which is univariate sequences, but this "
            f"{type(estimator).__name__} was fitted on {estimator.n_features_in_} features a "
            f"step; pass (n_sequences, n_steps, {estimator.n_features_in_}), for one sequence "
            "X[np.newaxis]."
        )
    return X


def _check_n_features(estimator, n_features, reset):
    """Check the features of 3-D arrays and lists, which scikit-learn's own check miscounts."""
    if reset:
        check_feature_names(estimator, None, reset=True)
        estimator.n_features_in_, estimator._fitted_on_2d = n_features, False
        return
    expected = 1 if estimator._fitted_on_2d else estimator.n_features_in_
    if n_features != expected:
        raise ValueError(
            f"X has {n_features} features, but {type(estimator).__name__} is expecting "
            f"{expected} features as input."
        )


def _check_numeric(check, *args, **kwargs):
    """Call scikit-learn's `check` on X, leaving a memory map as it is."""
    X = args[-1]
    is_frame = hasattr(X, "dtypes") and getattr(X, "ndim", 2) == 2
    for dtype in X.dtypes if is_frame else [getattr(X, "dtype", None)]:
        if isinstance(dtype, np.dtype):
            _refuse_dtype("X", dtype)
    is_mapped = isinstance(X, np.memmap)
    try:
        with np.errstate(over="ignore"):  # what overflows float32 is refused as infinite
            X = check(
                *args,
                dtype=None if is_mapped else np.float32,
                ensure_all_finite=False,
                **kwargs,
            )
    except ValueError as error:
        if "could not convert" in str(error):
            raise ValueError(f"X must hold numbers: {error}; encode or drop it.") from error
        raise
    if X.ndim > 3:
        raise ValueError(
            f"X has {X.ndim} dimensions (shape {X.shape}); pass (n_sequences, n_steps, "
            "n_features), for images X.reshape(len(X), n_rows, -1)."
        )
    return X


def _refuse_dtype(name, dtype):
    if dtype.kind == "c":
        raise ValueError(
            f"Complex data not supported: {name} has dtype {dtype}; pass real and imaginary parts "
            "as two features."
        )
    if dtype.kind not in "biufO":
        raise ValueError(
            f"{name} has dtype {dtype}; sequences must be real numbers: encode text or dates."
        )


def _empty_sequence_error(i, shape, all_missing=False):
    why = "all of its values are NaN" if all_missing else f"shape {shape}"
    return ValueError(f"X[{i}] has no steps ({why}); every sequence needs at least one. Drop it.")


def _infinity_error(i):
    return ValueError(
        f"X[{i}] contains infinity or a value too large for float32; replace it with NaN if it "
        "is missing, or rescale X."
    )
