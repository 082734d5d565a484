import warnings
from dataclasses import astuple, replace
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from sklearn_cls._data.scaler import MAX_INPUT, Scaler, fit_scaler
from sklearn_cls._data.validation import read_sequences
from tests.helpers import bumps, small

RNG = np.random.default_rng(0)


def fit(X, indices=None, **kwargs):
    sequences = read_sequences(X)
    return fit_scaler(
        sequences, np.arange(len(sequences)) if indices is None else indices, **kwargs
    )


def standardized(X, **kwargs):
    """Return X, standardized by its own statistics, as the network receives it."""
    sequences = replace(read_sequences(X), scaler=fit(X, **kwargs))
    return sequences.pad(np.arange(len(sequences)))


def exact(scaler, i=0):
    """Return the mean of a feature as a fraction."""
    return Fraction(float(scaler.mean[i])) + Fraction(float(scaler.mean_rest[i]))


# Precision.


def test_mean_and_std_equal_nanmean_and_nanstd():
    X = [RNG.normal(1e4, [1, 50, 0, 3], size=(t, 4)) for t in (3, 1, 500)]
    X[2][7, 0] = np.nan
    X[0][:, 3] = X[1][:, 3] = X[2][:, 3] = np.nan
    scaler = fit(X)
    steps = np.concatenate(X)
    assert [part.dtype for part in astuple(scaler)] == [np.float64] * 3
    assert np.allclose(scaler.mean[:2], np.nanmean(steps[:, :2], 0), rtol=1e-14)
    assert np.allclose(scaler.std[:2], np.nanstd(steps[:, :2], 0), rtol=1e-10)
    assert scaler.std[2] == np.inf  # constant
    assert np.isnan(scaler.std[3])  # without values


def test_mean_and_std_are_computed_from_the_given_sequences():
    X = RNG.normal(size=(20, 5, 1)) * np.arange(1, 21)[:, np.newaxis, np.newaxis]
    scaler = fit(X, np.arange(15, 20))
    assert np.allclose([scaler.mean[0], scaler.std[0]], [X[15:].mean(), X[15:].std()])


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.longdouble])
@pytest.mark.parametrize("offset", [0, 2**53 + 1, 2**60 + 7, 2**63 - 1000])
def test_numbers_beyond_2_to_the_53_are_standardized_exactly(dtype, offset):
    small_numbers = RNG.integers(0, 900, size=(20, 30, 2))
    X = small_numbers.astype(dtype) + dtype(offset)
    if dtype is np.longdouble and np.finfo(dtype).nmant < 62:
        pytest.skip("long double is float64 here")
    scaler = fit(X)
    expected = Fraction(int(small_numbers[..., 0].sum()), 600) + offset
    assert abs(float(exact(scaler) - expected)) < 1e-9
    for form in (X, list(X)):
        assert np.array_equal(standardized(form), standardized(small_numbers.astype(float)))


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_the_whole_range_of_64_bit_integers_is_standardized(dtype):
    info = np.iinfo(dtype)
    X = np.array([info.min, info.max, info.min, info.max], dtype=dtype).reshape(2, 2, 1)
    assert np.array_equal(standardized(X).ravel(), [-1, 1, -1, 1])


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f8", ">i4", "i1", "u1", "i8", ">u8", "?"])
def test_inputs_do_not_depend_on_the_dtype(dtype):
    X = RNG.integers(0, 2, size=(6, 5, 3))
    given = X.astype(dtype)
    given.flags.writeable = False
    assert np.array_equal(standardized(given), standardized(X.astype(float)))
    assert np.array_equal(standardized(list(given)), standardized(X.astype(float)))


def test_memory_maps_are_standardized_like_arrays(tmp_path):
    X = 1.7e9 + RNG.normal(size=(30, 6, 2))
    np.save(tmp_path / "X.npy", X)
    assert np.array_equal(standardized(np.load(tmp_path / "X.npy", mmap_mode="r")), standardized(X))


@settings(deadline=None, max_examples=200)
@given(
    st.floats(-320, 307), st.floats(0, 11), st.sampled_from([-1, 1]), st.sampled_from([-1, 0, 1])
)
def test_inputs_do_not_depend_on_unit_and_origin(log_scale, log_offset, sign, side):
    X = np.random.default_rng(0).uniform(-1, 1, size=(8, 10, 1))
    with np.errstate(all="ignore"):
        scale = np.float64(10) ** log_scale
        offset = side * min(10**log_offset * scale, 1e308)
        moved = sign * scale * X + offset
    lost = np.spacing(np.abs(moved).max()) / scale  # rounding error of the data themselves
    assert np.abs(standardized(moved) - sign * standardized(X)).max() < 1e-6 + 4 * lost
    event(f"scale 1e{log_scale // 100:.0f}xx")


def test_the_largest_and_the_smallest_numbers_are_standardized():
    X = RNG.choice([-1.0, 0.0, 1.0], size=(20, 5, 2))
    largest, smallest = np.finfo(float).max, 100 * np.finfo(float).smallest_subnormal
    for scale in ([largest, smallest], [smallest, largest], [largest, 1]):
        assert np.allclose(standardized(X * scale), standardized(X), atol=1e-2)


def test_extreme_inputs_are_clipped():
    scaler = fit(RNG.normal(size=(4, 50, 1)))
    values = np.array([[1e300], [-1e300], [1.0], [np.nan]])
    assert scaler(values)[[0, 1, 3], 0].tolist()[:2] == [MAX_INPUT, -MAX_INPUT]
    assert np.isnan(scaler(values)[3])
    assert scaler(values).dtype == np.float32


def test_many_huge_fill_values_do_not_overflow():
    X, y = bumps()
    X[:5, :15, 1] = 9.97e36  # a fill value of NetCDF files
    with pytest.warns(UserWarning, match="X varies in feature 1 within many sequences by less"):
        clf = small(max_epochs=2).fit(X, y)
    assert np.isfinite(clf.predict_proba(X)).all()


# Features that do not vary.


@pytest.mark.parametrize("value", [1.0, np.nan])
@pytest.mark.parametrize("continue_with", ["partial_fit", "fit"])
def test_training_that_continues_warns_of_features_that_did_not_vary_in_the_first_call(
    value, continue_with
):
    X, y = bumps()
    constant = X.copy()
    constant[..., 1] = value
    clf = small(max_epochs=1, warm_start=True).partial_fit(constant, y)
    getattr(clf, continue_with)(constant + 1, y)
    with pytest.warns(UserWarning, match="X varies in feature 1, but training ignores it"):
        getattr(clf, continue_with)(X, y)
    assert np.array_equal(clf.predict_proba(X), clf.predict_proba(constant))
    clf.set_params(warm_start=False).fit(X, y)
    getattr(clf, continue_with)(X, y)


@pytest.mark.parametrize("continue_with", ["partial_fit", "fit"])
@pytest.mark.parametrize(
    ("factor", "offset"), [(1, 1e3), (1, -1e30), (1e-6, 0), (1e6, 0), (1e30, 1e30)]
)
def test_training_that_continues_warns_of_another_unit_or_offset(factor, offset, continue_with):
    X, y = bumps()
    clf = small(max_epochs=1, warm_start=True).partial_fit(X, y)
    train = getattr(clf, continue_with)
    later = X.copy()
    later[..., 1] = factor * X[..., 1] + offset
    with pytest.warns(UserWarning, match="another unit or offset .*: in feature 1, the mean"):
        train(later, y)
    later[..., 1] = 3 * X[..., 1] + 7
    train(later, y)
    later[..., 1] = 0
    train(later, y)


@pytest.mark.parametrize("value", [0.0, 0.1, -7e300, 5e-324, 1.7e9])
@pytest.mark.parametrize("standardize", [True, False])
def test_a_constant_feature_is_0_whatever_its_later_values(value, standardize):
    X = RNG.normal(size=(4, 5, 2))
    X[..., 1] = value
    scaler = fit(X, standardize=standardize)
    later = np.array([[1.0, v] for v in (value, 1e308, -1e308, 3.0, 5e-324)])
    assert (scaler(later)[:, 1] == 0).all()
    assert (scaler(later)[:, 0] != 0).all()


def test_a_feature_without_values_is_missing_whatever_its_later_values():
    X = RNG.normal(size=(4, 5, 2))
    X[..., 1] = np.nan
    assert np.isnan(fit(X)(RNG.normal(size=(3, 2)))[:, 1]).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_feature_that_varies_by_rounding_only_gives_a_warning_and_is_0(dtype):
    X = RNG.normal(size=(4, 5, 3)).astype(dtype)
    X[..., 1] = dtype(1000)
    X[0, 0, 1] = np.nextafter(dtype(1000), dtype(2000))
    with pytest.warns(UserWarning, match=f"only in feature 1: .* converting it to {X.dtype}"):
        scaler = fit(X)
    assert scaler.std[1] == np.inf
    with pytest.warns(UserWarning, match="only in feature 'b'"):
        fit(X, names=["feature 'a'", "feature 'b'", "feature 'c'"])


@pytest.mark.skipif(np.finfo(np.longdouble).minexp > -1400, reason="it is double here")
def test_a_feature_too_small_for_double_precision_gives_a_warning_and_is_0():
    X = RNG.normal(size=(4, 5, 2)).astype(np.longdouble)
    X[..., 1] *= np.longdouble("1e-400")
    with pytest.warns(UserWarning, match="by rounding only in feature 1"):
        scaler = fit(X)
    assert (scaler(X)[..., 1] == 0).all()


def test_integers_that_hardly_vary_are_not_rounding_errors():
    X = RNG.integers(0, 2, size=(4, 5, 1)) + 2**61
    assert np.unique(standardized(X)).size == 2


def test_many_features_are_named_by_the_first_five():
    X = np.full((4, 5, 9), 1000.0)
    X[0, 0] = np.nextafter(1000, 2000)
    X[..., 0] = RNG.normal(size=(4, 5))
    with pytest.warns(UserWarning, match="feature 1, .* feature 5 and 3 more: "):
        fit(X)


@pytest.mark.parametrize("value", [3.0, 0.0])
def test_data_without_anything_to_learn_from_are_refused(value):
    X = np.full((4, 5, 2), value)
    with pytest.raises(ValueError, match="nothing to learn from: feature 0, feature 1 does not"):
        fit(X)
    with pytest.raises(ValueError, match="nothing to learn from: feature 'a', feature 'b' does"):
        small().fit([pd.DataFrame(x, columns=["a", "b"]) for x in X], [0, 1, 0, 1])
    fit([x[: 3 + i] for i, x in enumerate(X)])  # The lengths differ.
    X[0, 0, 0] = np.nan
    fit(X)
    X[..., 0] = np.nan
    with pytest.raises(ValueError, match="nothing to learn from"):
        fit(X)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (1.7e9 + RNG.normal(size=(4, 5, 1)), "feature 0 has values beyond 1e.09"),
        (1e8 + RNG.normal(size=(4, 5, 1)), "feature 0 varies less than float32"),
        (1e-60 * RNG.normal(size=(4, 5, 1)), "feature 0 varies less than float32"),
        (1e300 * RNG.normal(size=(4, 5, 1)), "feature 0 has values beyond"),
        (RNG.integers(0, 2, size=(4, 5, 1)) + 2**27, "feature 0 varies less than float32"),
    ],
)
def test_without_standardization_what_float32_cannot_hold_is_refused(X, message):
    with pytest.raises(ValueError, match=message + ".*; set standardize=True"):
        fit(X, standardize=False)
    with pytest.raises(ValueError, match=r"'temp' .*; set standardize=True"):
        fit(X, standardize=False, names=["feature 'temp'"])
    assert np.abs(standardized(X)).max() < 10


@pytest.mark.parametrize(("factor", "offset"), [(1, 1e4), (-1e-3, 1), (1e-20, 0), (1e5, 0)])
def test_without_standardization_an_extreme_unit_or_offset_gives_a_warning(factor, offset):
    X = RNG.normal(size=(4, 5, 2))
    X[..., 1] = factor * X[..., 1] + offset
    with pytest.warns(UserWarning, match="standardize=False: the mean of feature 1 is more than"):
        fit(X, standardize=False)
    X[..., 1] = 5  # a constant feature
    fit(X, standardize=False)


def test_without_standardization_values_are_not_changed():
    X = RNG.normal(3, 5, size=(4, 5, 2))
    assert np.array_equal(standardized(X, standardize=False), X.astype(np.float32))
    assert np.array_equal(Scaler.identity(2)(X), X.astype(np.float32))


def test_ordinary_data_give_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(RNG.normal(size=(4, 5, 2)))
