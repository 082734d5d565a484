"""Data for which predictions could be wrong without a word: units, dead features, column orders."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.helpers import bumps, small

METHODS = ("predict", "predict_proba", "transform", "cls_attention")
X, Y = bumps(80)
X = X.astype(np.float64)
X_TEST, Y_TEST = bumps(80, seed=1)
X_TEST = X_TEST.astype(np.float64)


@pytest.fixture(scope="module")
def fitted():
    return small(augment=False).fit(X, Y)


def moved(values, factor, offset):
    with np.errstate(all="ignore"):
        return factor * values + offset


def assert_same_predictions(clf, one, other):
    for method in METHODS:
        assert np.array_equal(getattr(clf, method)(one), getattr(clf, method)(other)), method


# Units and origins.


@pytest.mark.parametrize(
    ("factor", "offset", "tolerance"),
    [
        (1, 1.76e9, 1e-4), (1, -1.76e12, 1e-2), (1e4, 2.0**53, 1e-2), (-1e-300, 0, 1e-4),
        (1e300, 1e304, 1e-4), (1e-310, 0, 1e-4),
    ],
)  # fmt: skip
def test_an_affine_map_of_the_values_does_not_change_predictions(factor, offset, tolerance, fitted):
    clf = small(augment=False).fit(moved(X, factor, offset), Y)
    expected = small(augment=False).fit(-X, Y) if factor < 0 else fitted
    found = clf.predict_proba(moved(X_TEST, factor, offset))
    expected = expected.predict_proba(-X_TEST if factor < 0 else X_TEST)
    assert np.abs(found - expected).max() < tolerance


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
@pytest.mark.parametrize("offset", [2**40, 2**62 + 1])
def test_integers_with_a_large_offset_give_the_predictions_of_small_ones(dtype, offset):
    numbers, numbers_test = (np.round(100 * x).astype(np.int64) + 1000 for x in (X, X_TEST))
    small_ones = small(augment=False).fit(numbers, Y)
    large_ones = small(augment=False).fit(numbers.astype(dtype) + dtype(offset), Y)
    assert np.array_equal(
        large_ones.predict_proba(numbers_test.astype(dtype) + dtype(offset)),
        small_ones.predict_proba(numbers_test),
    )


def test_half_precision_gives_the_predictions_of_the_same_numbers_in_double_precision():
    clf = small(augment=False).fit(X.astype(np.float16), Y)
    same = small(augment=False).fit(X.astype(np.float16).astype(np.float64), Y)
    half = X_TEST.astype(np.float16)
    assert np.array_equal(clf.predict_proba(half), same.predict_proba(half.astype(np.float64)))


signed = st.tuples(st.sampled_from([-1, 1]), st.floats(-320, 307)).map(
    lambda pair: pair[0] * 10.0 ** pair[1]
)


@pytest.mark.slow
@settings(deadline=None, max_examples=20)
@example([1e-318, 1e300], [0.0, 0.0])
@example([1e-318, 1e-5], [1e-300, -1e300])
@example([1.0, -1e-300], [1e300, 1.7e9])
@example([1.0, 1.0], [3e15, 1e16])
@example([1e307, 1.0], [-1e308, 0.0])
@given(
    st.lists(signed, min_size=2, max_size=2),
    st.lists(signed | st.just(0.0), min_size=2, max_size=2),
)
def test_accuracy_does_not_depend_on_unit_and_origin_or_the_feature_is_named(factors, offsets):
    train, test = moved(X, factors, offsets), moved(X_TEST, factors, offsets)
    if not (np.isfinite(train).all() and np.isfinite(test).all()):
        return
    if (train[..., 0] == train[0, 0, 0]).all():
        return  # float64 has lost everything before the fit.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            said, score = "", small(augment=False).fit(train, Y).score(test, Y_TEST)
        except ValueError as error:
            said, score = str(error), 0.0
    said += " ".join(str(warning.message) for warning in caught)
    assert score > 0.9 or "only in feature 0" in said or "learn from: feature 0" in said


# Inputs that did not vary in fit.


@pytest.mark.parametrize("params", [{}, {"embedding": "linear"}, {"standardize": False}])
@pytest.mark.parametrize("value", [0.0, -3.7, 1e300, np.nan, 1.7e9])
@pytest.mark.parametrize("later", [1.0, -1e200, np.nan])
def test_a_feature_that_did_not_vary_in_fit_changes_no_prediction(value, later, params):
    train, test, changed = X.copy(), X_TEST.copy(), X_TEST.copy()
    train[..., 1] = test[..., 1] = value
    changed[..., 1] = later * X_TEST[..., 1]
    clf = small(augment=False, max_epochs=1, **params).fit(train, Y)
    assert_same_predictions(clf, test, changed)


@pytest.mark.parametrize("embedding", ["linear", "conv"])
def test_gaps_change_no_prediction_beyond_the_mean_if_the_feature_had_none_in_fit(embedding):
    train, gaps, means = X.copy(), X_TEST.copy(), X_TEST.copy()
    train[:, 3, 0] = np.nan  # There are missing-value indicators, of which one is never used.
    gaps[:, 5:9, 1] = np.nan
    means[:, 5:9, 1] = train[..., 1].mean()
    clf = small(embedding=embedding, max_epochs=2).fit(train, Y)
    for method in METHODS:
        found, expected = getattr(clf, method)(gaps), getattr(clf, method)(means)
        assert np.allclose(found, expected, atol=1e-6), method


@pytest.mark.filterwarnings("ignore:X varies in feature 1 within many sequences")
@pytest.mark.parametrize("variation", [0.0, 1e-9])
@pytest.mark.parametrize("embedding", ["linear", "conv"])
def test_an_instance_normalized_input_that_was_constant_in_fit_changes_nothing(
    embedding, variation
):
    rng = np.random.default_rng(0)
    train, test = X * np.logspace(-3, 2, len(X))[:, np.newaxis, np.newaxis], X_TEST.copy()
    train[..., 1] = rng.normal(size=(len(X), 1)) + variation * X[..., 1]
    clf = small(embedding=embedding, augment=False, max_epochs=2).fit(train, Y)
    module = clf.module_.embedding
    assert module.use_instance_norm
    # The inputs are two values and two instance-normalized values; only the fourth is affected.
    weight = module.project.weight if embedding == "linear" else module.convolutions.convs[0].weight
    assert (weight[:, 3] == 0).all()
    assert (weight[:, 2] != 0).all()
    assert np.isfinite(clf.predict_proba(test)).all()


@pytest.mark.parametrize("embedding", ["linear", "conv"])
def test_steps_beyond_the_reach_of_fit_have_no_random_weights(embedding):
    # A sequence of 4 steps fits into the first half of a patch, and is one token.
    clf = small(embedding=embedding, patch_size=8, augment=False, max_epochs=2)
    clf.fit(X[:, 8:12], Y)
    weight = clf.module_.embedding.project.weight
    if embedding == "linear":
        assert (weight[:, :8] != 0).all()
        assert (weight[:, 8:] == 0).all()
    else:
        first, second = (conv.weight for conv in clf.module_.embedding.convolutions.convs)
        assert (first != 0).any(0).any(0).nonzero().ravel().tolist() == [11, 12, 13, 14]
        assert (second != 0).any(0).any(0).nonzero().ravel().tolist() == [2]


def test_indicators_that_are_first_used_by_a_later_part_are_learned():
    gaps = X.copy()
    gaps[:, 3, 0] = np.nan
    later = X.copy()
    later[Y == 1, 4, 1] = np.nan
    clf = small(lr=1e-2).partial_fit(gaps, Y, classes=[0, 1])
    assert (clf.module_.embedding.convolutions.convs[0].weight[:, 3] == 0).all()
    clf.partial_fit(later, Y)
    assert (clf.module_.embedding.convolutions.convs[0].weight[:, 3] != 0).any()


# Damaged networks.


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_network_that_computes_nan_raises_instead_of_predicting_the_first_class(method, value):
    clf = small(max_epochs=1).fit(X, Y)
    with torch.no_grad():
        clf.module_.head.bias[1] = value
        clf.module_.embedding.project.bias[0] = value
    with pytest.raises(RuntimeError, match=r"NaN or infinity for X\[0\]: its weights are damaged"):
        getattr(clf, method)(X_TEST)


@pytest.mark.parametrize("outlier", [1e8, 9.97e36, 1e300])
def test_an_outlier_beside_which_the_other_values_are_lost_gives_a_warning(outlier):
    values = X.copy()
    values[3, 5, 1] = outlier
    with pytest.warns(UserWarning, match="X varies in feature 1 within many sequences by less"):
        small(max_epochs=1).fit(values, Y)


def test_sequences_of_far_smaller_scales_than_others_give_a_warning():
    values = X * np.logspace(-20, 20, len(X))[:, np.newaxis, np.newaxis]
    with pytest.warns(UserWarning, match="X varies in feature 0, feature 1 within many sequences"):
        small(max_epochs=1).fit(list(values), Y)


def test_rounding_errors_of_a_feature_that_is_constant_within_each_sequence_give_no_warning():
    values = X.copy()
    values[:, :, 1] = (
        np.cumsum(np.full(X.shape[:2], 0.1), 1) * 1e-13 + np.arange(len(X))[:, np.newaxis]
    )
    small(max_epochs=1).fit(values, Y)


# Names of columns.


def frames(values, columns=("acc", "gyr"), kind=pd.DataFrame):
    names = ["acc", "gyr"]
    if kind is pd.DataFrame:
        return [pd.DataFrame(x, columns=names)[list(columns)] for x in values]
    return [pl.DataFrame(x, schema=names).select(columns) for x in values]


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame])
@pytest.mark.parametrize("container", [list, tuple, pd.Series])
def test_columns_of_the_frames_in_a_list_are_learned_and_compared(kind, container):
    clf = small(max_epochs=1).fit(container(frames(X, kind=kind)), Y)
    assert clf.feature_names_in_.tolist() == ["acc", "gyr"]
    clf.predict(container(frames(X_TEST, kind=kind)))
    swapped = container(frames(X_TEST, ("gyr", "acc"), kind))
    with pytest.raises(ValueError, match=r"^X\[0\]: The feature names should match"):
        clf.predict(swapped)
    mixed = [*frames(X_TEST[:2], kind=kind), *swapped]
    with pytest.raises(ValueError, match=r"^X\[2\]: The feature names should match"):
        clf.predict(mixed)
    with pytest.raises(ValueError, match=r"X\[2\] has the feature names \['gyr', 'acc'\], but X"):
        clf.fit(mixed, np.arange(82) % 2)


def test_only_a_few_of_many_columns_are_named():
    many = [pd.DataFrame(np.eye(100)).add_prefix(name) for name in ("acc", "gyr")] * 2
    with pytest.raises(ValueError, match=r"^X\[1\] has the feature names .* X\[0\] has") as error:
        small().fit(many, [0, 1, 0, 1])
    assert len(str(error.value)) < 1000


def test_renamed_columns_are_refused_by_name():
    clf = small(max_epochs=1).fit(frames(X), Y)
    renamed = [x.rename(columns={"acc": "temp"}) for x in frames(X_TEST)]
    with pytest.raises(ValueError, match="unseen at fit time:\n- temp\n"):
        clf.predict(renamed)


def test_lists_without_names_give_the_warnings_of_scikit_learn(fitted):
    named = small(max_epochs=1).fit(frames(X), Y)
    for form in (X_TEST, list(X_TEST), X_TEST.tolist()):
        with pytest.warns(UserWarning, match="X does not have valid feature names, but CLSTrans"):
            named.predict(form)
    with pytest.warns(UserWarning, match="X has feature names, but CLSTransformerClassifier was"):
        fitted.predict(frames(X_TEST))
    with pytest.raises(ValueError, match=r"X\[1\] has the feature names None, but X\[0\] has"):
        fitted.fit([frames(X)[0], *X[1:]], Y)


def test_series_and_numbered_columns_have_no_names():
    for form in ([pd.Series(x[:, 0], name="acc") for x in X], [pd.DataFrame(x) for x in X]):
        clf = small(max_epochs=1).fit(form, Y)
        assert not hasattr(clf, "feature_names_in_")
        clf.predict(form)


def test_names_of_columns_are_saved(tmp_path):
    clf = small(max_epochs=1).fit(frames(X), Y)
    clf.save(tmp_path / "model")
    loaded = type(clf).load(tmp_path / "model")
    assert loaded.feature_names_in_.tolist() == ["acc", "gyr"]
    with pytest.raises(ValueError, match=r"X\[0\]: The feature names"):
        loaded.predict(frames(X_TEST, ("gyr", "acc")))


# Settings of NumPy.


@pytest.mark.parametrize("scale", [1e-60, 1e-318, 1e300, 1.0])
@pytest.mark.parametrize("params", [{}, {"early_stopping": True, "max_epochs": 3}])
def test_nothing_raises_where_numpy_raises_floating_point_errors(scale, params, tmp_path):
    values = moved(X, scale, 0.0)
    values[::3, 4, 0] = np.nan
    weight = np.logspace(-320, 0, len(X))
    with np.errstate(all="raise"):
        clf = small(max_epochs=1).set_params(**params).fit(values, Y, sample_weight=weight)
        clf.fit(values, Y, checkpoint=tmp_path / "checkpoint")
        clf.partial_fit(list(values), Y, sample_weight=weight)
        assert np.geterr() == dict.fromkeys(np.geterr(), "raise")
        for method in METHODS:
            for form in (values, list(values), values.astype(np.longdouble)):
                assert len(getattr(clf, method)(form)) == len(X)
        clf.score(values, Y, sample_weight=weight)
        clf.save(tmp_path / "model")
        assert_same_predictions(type(clf).load(tmp_path / "model"), values, values)
