"""Standardization: numbers of any real dtype become float32 inputs of the network.

Means are subtracted in float64, before the result is rounded to float32, so that neither a large
offset nor a very small or large scale costs precision.

Shapes: S steps of several sequences, F features.
"""

import warnings
from dataclasses import dataclass
from functools import reduce

import numpy as np

MAX_INPUT = 1e9  # its square, summed over a layer, is finite in float32
# A standard deviation below 2 units in the last place of the largest value is rounding error.
MIN_STD_ULPS = 2
# Beyond these, differences may overflow float64, and inverses are infinite.
HUGE, TINY = 2.0**1000, 2.0**-1000
MAX_SMALL_SIZE = 2**12  # elements; for smaller arrays, tiling takes longer than it saves
N_NAMED = 5  # features that a message names
# Default fits learn from inputs with a standard deviation from 1e-8 to 1e8 and a mean of up to 1000
# standard deviations, those with linear embedding from far fewer.
MAX_STD_RATIO, MAX_MEAN = 1e4, 100
# The variation of a feature within a sequence is lost in float32, which has a relative precision of
# 6e-8, if its range there is below `LOST_RANGE` standard deviations. A range below
# `MAX_ROUNDING_ULPS` units in the last place may be rounding error of X, and is not counted.
LOST_RANGE, MAX_ROUNDING_ULPS = 1e-5, 1000
MAX_LOST_FRACTION = 0.1  # of the sequences
MAX_ELEMENTS = 2**17  # of a sequence


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of each feature, float64 (F,) each.

    Attributes
    ----------
    mean, mean_rest : ndarray
        Their exact sum is the mean. `mean_rest` matters for integers beyond 2**53.
    std : ndarray
        Standard deviation; infinite for a feature that does not vary, whose inputs are always 0,
        and NaN for a feature without values, whose inputs are always missing.
    """

    mean: np.ndarray
    mean_rest: np.ndarray
    std: np.ndarray

    @classmethod
    def identity(cls, n_features):
        """Return a scaler that changes no feature."""
        return cls(np.zeros(n_features), np.zeros(n_features), np.ones(n_features))

    def __post_init__(self):
        """Compute mean, its rest, 1 / std and a power of 2 (F,) by which numbers are multiplied.

        The power of 2 keeps differences of huge numbers, and 1 / std of tiny ones, finite. It is
        None if it is 1 for all features.
        """
        std = np.where(np.isfinite(self.std), self.std, 1.0)
        factor = np.where(np.maximum(np.abs(self.mean), std) > HUGE, 0.25, 1.0)
        factor = np.where(std < TINY, HUGE, factor)
        with np.errstate(all="ignore"):
            inverse = 1 / (self.std * factor)
            mean, rest = self.mean * factor, self.mean_rest * factor
        constants = mean, rest, inverse, factor if (factor != 1).any() else None
        # They are computed now, because threads share the object.
        object.__setattr__(self, "constants", constants)

    def __call__(self, values):
        """Return standardized and clipped values (..., F), float32."""
        mean, rest, inverse, factor = self.constants
        shape, values_rest = values.shape, None
        with np.errstate(all="ignore"):
            if is_wide(values.dtype):
                values, values_rest = exact_parts(values)
            if factor is not None:
                values = values * factor
            if len(mean) > 1 and values.size > MAX_SMALL_SIZE:
                # Broadcasting a short last axis would take several times as long.
                n_steps, values = shape[-2], values.reshape(*shape[:-2], -1)  # (..., T * F)
                mean, inverse = np.tile(mean, n_steps), np.tile(inverse, n_steps)
            z = np.subtract(values, mean, dtype=np.float64)
            if values_rest is not None:
                difference = values_rest * (1.0 if factor is None else factor) - rest
                z += difference.reshape(z.shape)
            z *= inverse
            z = z.astype(np.float32).reshape(shape)
            # Clipping keeps extreme fill values such as 1e20 finite in every layer.
            return np.clip(z, -MAX_INPUT, MAX_INPUT, out=z)


def is_wide(dtype):
    """Return whether numbers of a dtype may have more digits than float64."""
    return (dtype.kind in "iu" and dtype.itemsize == 8) or (
        dtype.kind == "f" and dtype.itemsize > 8
    )


def exact_parts(values):
    """Return float64 values, and what they lack; only `is_wide` dtypes lack something."""
    if not is_wide(values.dtype):
        return values, 0.0  # converted to float64 by the next operation
    if values.dtype.kind == "f":
        high = values.astype(np.float64)
        return high, (values - high).astype(np.float64)
    # The largest float64 that fits into the dtype: a larger one could not be converted back.
    largest = np.nextafter(2.0 ** (63 if values.dtype.kind == "i" else 64), 0)
    high = np.minimum(values.astype(np.float64), largest)
    rest = values - high.astype(values.dtype)  # The subtraction of integers is exact.
    return high, rest.view(np.int64).astype(np.float64)


def fit_scaler(sequences, indices, standardize=True, names=None, previous=None):
    """Return the `Scaler` of some sequences; without `standardize`, it changes no values that vary.

    A feature that does not vary is ignored: it gets an infinite standard deviation, so that its
    values do not change predictions either. This is so without `standardize`, too. Codes are never
    changed.

    Parameters
    ----------
    sequences : Sequences
    indices : ndarray of int
        Sequences of the training data.
    standardize : bool
        Parameter of the estimator.
    names : list of str or None
        What messages call the features.
    previous : Scaler or None
        The scaler of an earlier fit from which training continues. It is returned as it is.

    Raises
    ------
    ValueError
        If there is nothing to learn from, or if `standardize` is False and float32 cannot hold the
        values.

    Warns
    -----
    UserWarning
        If a feature varies by rounding only, if one varies that `previous` ignores, if the mean or
        the standard deviation of an input of the network is extreme, or if a feature varies too
        little within many sequences, compared with its variation over all of them.
    """
    if previous is not None:
        _compare_with_previous(previous, sequences, indices, names)
        return previous
    with np.errstate(all="ignore"):
        n, low, high = _count_and_range(sequences, indices)
        mean, mean_rest, std = _mean_and_std(sequences, indices, n, low, high)
        is_constant = low == high
        is_rounded = ~is_constant & (std < _rounding(low, high)) & ~sequences.is_code
    is_code = sequences.is_code
    is_live = ~is_constant & ~is_rounded & (n > 0)
    if is_rounded.any():
        warnings.warn(
            f"X varies by rounding only in {feature_list(is_rounded, names)}: its standard "
            f"deviation is below {MIN_STD_ULPS} units in the last place of {low.dtype}. It is "
            "ignored, now and at prediction time. If it carries information, subtract its offset "
            f"before converting it to {low.dtype}.",
            UserWarning,
            stacklevel=2,
        )
    if standardize:
        _warn_of_lost_sequences(sequences, indices, std, is_live, names)
    n_steps = sequences.lengths[indices]
    has_missing = (n > 0) & (n < n_steps.sum())
    if not (is_live | has_missing).any() and n_steps.min() == n_steps.max():
        raise ValueError(
            f"X has nothing to learn from: {feature_list(~is_live, names)} does not vary, no value "
            "is missing, and all sequences have the same length. Pass features that vary."
        )
    if not standardize:
        is_number = is_live & ~is_code
        _check_float32(low, high, std, is_number, names)
        if (is_extreme := is_number & _is_extreme(mean, std, std)).any():
            warnings.warn(
                f"X may be impossible to learn from with standardize=False: the mean of "
                f"{feature_list(is_extreme, names)} is more than {MAX_MEAN} standard deviations "
                f"from 0, or the standard deviation is not between {1 / MAX_STD_RATIO:.0e} and "
                f"{MAX_STD_RATIO:.0e}. Set standardize=True.",
                UserWarning,
                stacklevel=2,
            )
        mean, mean_rest, std = np.zeros_like(mean), np.zeros_like(mean), np.ones_like(std)
    std = np.where(is_live, std, np.where(n > 0, np.inf, np.nan))
    std = np.where(is_code, 1.0, std)
    is_shifted = is_live & ~is_code
    return Scaler(np.where(is_shifted, mean, 0.0), np.where(is_shifted, mean_rest, 0.0), std)


def _compare_with_previous(scaler, sequences, indices, names):
    """Warn about features that `scaler`, which is that of the first fit, does not fit.

    They vary, but did not in the first fit, and therefore are ignored, or they have another scale.
    """
    with np.errstate(all="ignore"):
        n, low, high = _count_and_range(sequences, indices)
        mean, _, std = _mean_and_std(sequences, indices, n, low, high)
        is_live, is_known = (low < high) & ~sequences.is_code, np.isfinite(scaler.std)
        is_ignored = is_live & ~is_known
        # A part of the data may be constant.
        mean, std = (mean - scaler.mean) / scaler.std, np.where(is_live, std / scaler.std, 1.0)
        is_extreme = is_known & ~sequences.is_code & _is_extreme(mean, std, np.maximum(std, 1))
    if is_ignored.any():
        warnings.warn(
            f"X varies in {feature_list(is_ignored, names)}, but training ignores it, because it "
            "did not vary, or by rounding only, in the first call of fit or partial_fit. Call fit "
            "with warm_start=False, or pass data in which it varies to the first call.",
            UserWarning,
            stacklevel=2,
        )
    if is_extreme.any():
        warnings.warn(
            f"X has another unit or offset than in the first call of fit or partial_fit, by whose "
            f"statistics it is standardized: in {feature_list(is_extreme, names)}, the mean is "
            f"more than {MAX_MEAN} standard deviations away, or the standard deviation differs by "
            f"a factor of more than {MAX_STD_RATIO:.0e}. Convert X to the unit of the first call, "
            "or call fit with warm_start=False.",
            UserWarning,
            stacklevel=2,
        )


def _is_extreme(mean, std, unit):
    """Return for which features training may fail; `unit` is what the mean is compared with."""
    is_far = np.abs(mean) > MAX_MEAN * unit
    return is_far | (std < 1 / MAX_STD_RATIO) | (std > MAX_STD_RATIO)


def _warn_of_lost_sequences(sequences, indices, std, is_live, names):
    """Warn of numbers that vary within many sequences, but so little that float32 loses it.

    Short times are not lost, because their logarithms are inputs, too.
    """
    indices = sequences.sample(indices)
    n_lost = np.zeros(sequences.n_features)
    with np.errstate(all="ignore"):
        for i in sequences.held(indices):
            # The first steps are enough, as a long sequence may not fit in memory.
            n_steps = min(sequences.lengths[i], max(1, MAX_ELEMENTS // sequences.n_features))
            low, high = _range(sequences.reader.part(i, 0, n_steps))
            spread = np.subtract(high, low, dtype=np.float64)
            n_lost += (spread > MAX_ROUNDING_ULPS * _rounding(low, high)) & (
                spread < LOST_RANGE * std
            )
    n_lost = sum(sequences.processes.gather(n_lost))
    is_lost = is_live & sequences.is_number & (n_lost > MAX_LOST_FRACTION * len(indices))
    if is_lost.any():
        warnings.warn(
            f"X varies in {feature_list(is_lost, names)} within many sequences by less than "
            f"{LOST_RANGE:.0e} of its standard deviation over all sequences, which is lost in "
            "float32. Replace outliers by NaN, or divide each sequence by its own scale.",
            UserWarning,
            stacklevel=2,
        )


def _count_and_range(sequences, indices):
    """Return number of values, minimum and maximum of each feature, in the dtype of X."""
    found = None
    for steps in sequences.steps(indices):  # (S, F)
        part = (~np.isnan(steps)).sum(0), *_range(steps)
        found = part if found is None else _joined_ranges(found, part)
    return reduce(_joined_ranges, filter(None, sequences.processes.gather(found)))


def _joined_ranges(part, other):
    """Return number of values, minimum and maximum of each feature in two parts of the data."""
    (n, low, high), (n_other, low_other, high_other) = part, other
    return n + n_other, np.fmin(low, low_other), np.fmax(high, high_other)


def _range(steps):
    """Return minimum and maximum of each feature (F,), ignoring NaN."""
    return np.fmin.reduce(steps, 0), np.fmax.reduce(steps, 0)


def _mean_and_std(sequences, indices, n, low, high):
    """Return mean, its rest and standard deviation, given the count and the range of each feature.

    The sums are of differences from the minimum, in units of a power of 2 near the largest value,
    so that no number overflows or underflows, and no offset costs precision.
    """
    (low, low_rest), (high, _) = exact_parts(low), exact_parts(high)
    largest = np.maximum(np.abs(low), np.abs(high), dtype=np.float64)
    unit = np.ldexp(1.0, np.frexp(np.where(largest > 0, largest, 1.0))[1] - 1)  # (F,)
    low, low_rest = low / unit, low_rest / unit
    total, squares = np.zeros(sequences.n_features), np.zeros(sequences.n_features)
    for steps in sequences.steps(indices):
        values, rest = exact_parts(steps)
        values = values / unit - low + (rest / unit - low_rest)  # (S, F)
        np.nan_to_num(values, copy=False)
        total += values.sum(0)
        squares += np.einsum("ij,ij->j", values, values)
    total, squares = map(sum, zip(*sequences.processes.gather((total, squares)), strict=True))
    n = np.maximum(n, 1)
    mean = total / n
    std = np.sqrt(np.maximum(squares / n - mean**2, 0))
    # The sum of `low` and `mean` in two parts (Knuth's two-sum).
    high = low + mean
    part = high - low
    rest = (low - (high - part)) + (mean - part) + low_rest
    return high * unit, rest * unit, std * unit


def _rounding(low, high):
    """Return the largest standard deviation that is rounding error of values in a range, (F,).

    Integers have no rounding error.
    """
    if low.dtype.kind != "f":
        return np.zeros(len(low))
    # The spacing of the largest float is infinite.
    largest = np.minimum(np.maximum(np.abs(low), np.abs(high)), np.finfo(low.dtype).max / 2)
    spacing = np.spacing(largest).astype(np.float64)
    # Standard deviations are float64, which cannot hold all numbers of longer dtypes.
    return MIN_STD_ULPS * np.maximum(spacing, np.finfo(np.float64).smallest_subnormal)


def _check_float32(low, high, std, is_live, names):
    """Raise ValueError if float32 cannot hold the features; needed if X is not standardized."""
    with np.errstate(all="ignore"):
        low, high = exact_parts(low)[0], exact_parts(high)[0]
        is_lost = is_live & (std < _rounding(low.astype(np.float32), high.astype(np.float32)))
        is_clipped = is_live & (np.maximum(np.abs(low), np.abs(high)) > MAX_INPUT)
    for is_bad, why in (
        (is_clipped, f"has values beyond {MAX_INPUT:.0e}, which are too large for the network"),
        (is_lost, "varies less than float32, in which the network computes, can represent"),
    ):
        if is_bad.any():
            raise ValueError(
                f"X cannot be used with standardize=False: {feature_list(is_bad, names)} {why}; "
                "set standardize=True."
            )


def feature_list(is_member, names=None):
    """Return what a message calls some features; by default their numbers."""
    members = [f"feature {i}" if names is None else names[i] for i in np.flatnonzero(is_member)]
    n_more = len(members) - N_NAMED
    return ", ".join(members[:N_NAMED]) + (f" and {n_more} more" if n_more > 0 else "")
