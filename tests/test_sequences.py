import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import torch

from sklearn_cls._data.sequences import CHUNK_BYTES, Sequences, check_sequences, read_sequences
from tests.helpers import bumps, small

RNG = np.random.default_rng(0)


def check(X, estimator=None, reset=True, **kwargs):
    return check_sequences(estimator or small(), X, reset=reset, **kwargs)


def padded(X):
    sequences = check(X)
    return sequences.pad(np.arange(len(sequences)))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64, np.uint8, bool])
def test_every_real_dtype_becomes_float32(dtype):
    X = RNG.integers(0, 2, size=(4, 5, 3)).astype(dtype)
    assert padded(X).dtype == np.float32
    assert np.array_equal(padded(X), X)
    assert np.array_equal(padded(list(X)), X)


def test_a_2d_array_is_univariate_sequences():
    X = RNG.normal(size=(4, 5)).astype(np.float32)
    assert np.array_equal(padded(X)[:, :, 0], X)
    assert np.array_equal(padded(X.tolist())[:, :, 0], X)
    assert np.array_equal(padded(pd.DataFrame(X))[:, :, 0], X)
    estimator = small()
    check(X, estimator)
    assert estimator.n_features_in_ == 5


def test_a_3d_array_and_a_list_have_the_features_of_a_step():
    X = RNG.normal(size=(4, 5, 3))
    for form in (X, list(X), X.tolist()):
        estimator = small()
        assert check(form, estimator).n_features == estimator.n_features_in_ == 3


@pytest.mark.parametrize("container", [list, tuple])
def test_lists_hold_sequences_of_unequal_length(container):
    X = [RNG.normal(size=(t, 2)).astype(np.float32) for t in (3, 1, 5)]
    x = padded(container(X))
    assert x.shape == (3, 5, 2)
    for given, got in zip(X, x, strict=True):
        assert np.array_equal(got[: len(given)], given)
        assert np.isnan(got[len(given) :]).all()


def test_arrays_of_objects_nested_lists_and_frames_hold_sequences_too():
    X = [RNG.normal(size=(t,)) for t in (3, 1, 5)]
    objects = np.empty(3, dtype=object)
    objects[:] = X
    expected = padded(X)
    assert expected.shape == (3, 5, 1)
    for form in (objects, [x.tolist() for x in X], [pd.Series(x) for x in X]):
        assert np.array_equal(padded(form), expected, equal_nan=True)
    frames = [pd.DataFrame({"a": x, "b": x}) for x in X]
    assert padded(frames).shape == (3, 5, 2)


def test_series_of_arrays_and_frames_with_missing_values_of_their_own_are_read():
    X = [RNG.normal(size=(t, 2)).astype(np.float32) for t in (3, 1, 5)]
    assert np.array_equal(padded(pd.Series(X)), padded(X), equal_nan=True)
    frames = [pd.DataFrame({"a": [1, None, 3]}, dtype="Int64") for _ in range(2)]
    assert np.array_equal(padded(frames)[0, :, 0], [1, np.nan, 3], equal_nan=True)


def test_steps_that_are_all_nan_at_the_end_are_padding():
    X = RNG.normal(size=(3, 6, 2))
    X[0, 4:] = X[1, 2] = X[2, 5, 0] = np.nan
    for form in (X, list(X)):
        sequences = check(form)
        assert sequences.lengths.tolist() == [4, 6, 6]
        assert sequences.has_gaps.tolist() == [False, True, True]
        assert sequences.pad(np.array([0])).shape == (1, 4, 2)


def test_padding_alone_is_not_missing():
    X = RNG.normal(size=(3, 6, 2))
    X[0, 4:] = np.nan
    assert not check(X).has_gaps.any()
    assert not check(list(X)).has_gaps.any()


def test_a_memory_map_keeps_its_dtype_and_is_read_by_rows(tmp_path):
    X = RNG.normal(size=(50, 6, 2))
    X[3, 4:] = X[7, 1, 0] = np.nan
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    sequences = check(mapped)
    assert sequences.values.dtype == np.float64
    assert np.shares_memory(sequences.values, mapped)
    assert np.flatnonzero(sequences.has_gaps).tolist() == [7]
    assert sequences.lengths[3] == 4
    rows = np.array([7, 3])
    assert np.array_equal(sequences.pad(rows), X[rows].astype(np.float32), equal_nan=True)
    flat = np.load(tmp_path / "X.npy", mmap_mode="r").reshape(50, 12)
    assert np.shares_memory(check(flat).values, flat)


def test_what_crosses_a_chunk_is_read_alike(monkeypatch):
    X = RNG.normal(size=(37, 6, 2))
    X[5, 3:] = X[30, 2:] = X[31, 1, 1] = np.nan
    whole = check(X)
    statistics = whole.mean_and_std(np.arange(37))
    monkeypatch.setattr("sklearn_cls._data.sequences.CHUNK_BYTES", 5 * 6 * 2 * 4)
    assert len(list(whole.chunks(np.arange(37)))) == 8
    chunked = check(X)
    assert np.array_equal(chunked.lengths, whole.lengths)
    assert np.flatnonzero(chunked.has_gaps).tolist() == [31]
    for a, b in zip(chunked.mean_and_std(np.arange(37)), statistics, strict=True):
        assert np.allclose(a, b)


def test_mean_and_deviation_are_numpys_without_what_is_missing():
    X = [RNG.normal(1e4, [1, 50, 0, 3], size=(t, 4)) for t in (3, 1, 500)]
    X[2][7, 0] = np.nan
    X[0][:, 3] = X[1][:, 3] = X[2][:, 3] = np.nan
    mean, deviation = check(X).mean_and_std(np.arange(3))
    steps = np.concatenate(X).astype(np.float32).astype(np.float64)
    assert np.allclose(mean[:3], np.nanmean(steps[:, :3], 0))
    assert np.allclose(deviation[:2], np.nanstd(steps[:, :2], 0))
    assert deviation[2] == 1  # constant
    assert (mean[3], deviation[3]) == (0, 1)  # never there


def test_scales_differ_where_many_sequences_hardly_vary():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 30, 2))
    rows = np.arange(50)

    def differ(X):
        return read_sequences(X).use_instance_norm(rows)

    assert not differ(X)
    assert not differ(X * [1e-6, 1e6] + [5, -1e6])  # scales of features
    X[:4, :, 0] *= 1e-3  # few sequences
    assert not differ(X)
    X[:10, :, 0] *= 1e-3
    assert differ(X)
    assert differ([x[: 20 + i % 10] for i, x in enumerate(X)])
    X[:10, 3:6, 0] = np.nan
    assert differ(X)
    X[:25, :, 0] = 0.1  # rarely used: constant says nothing about scale
    assert not differ(X)


@pytest.mark.parametrize("n_steps", [50, 2000])
@pytest.mark.parametrize(("centre", "spread"), [(40, 10), (2000, 5), (1, 0.3)])
def test_scales_do_not_differ_in_what_is_constant_in_each_sequence(n_steps, centre, spread):
    values = np.random.default_rng(0).normal(centre, spread, size=(200, 1, 1))
    X = np.repeat(values, n_steps, axis=1)
    assert not read_sequences(X).use_instance_norm(np.arange(200))


def test_whether_scales_differ_does_not_depend_on_the_order_of_rows():
    X = np.random.default_rng(0).normal(size=(10_000, 5, 1))
    X[np.arange(10_000) % 10 > 0] *= 1e-3
    for order in (np.arange(10_000), np.random.default_rng(1).permutation(10_000)):
        assert read_sequences(X).use_instance_norm(order)


def test_many_huge_fill_values_are_no_overflow():
    X, y = bumps()
    X[:5, :15, 1] = 9.97e36
    small(max_epochs=2).fit(X, y)


def test_chunks_hold_about_what_they_may():
    values = np.broadcast_to(np.float32(0), (10_000, 100, 50))
    sequences = Sequences(values, np.full(10_000, 100), np.zeros(10_000, bool))
    chunk = next(sequences.chunks(np.arange(10_000)))
    assert CHUNK_BYTES / 2 < chunk.nbytes <= CHUNK_BYTES


def test_the_callers_data_are_not_changed():
    X, y = bumps()
    lists, before = list(X), X.copy()
    small().fit(X, y).predict(X)
    small().fit(lists, y).predict(lists)
    assert np.array_equal(X, before)
    X.flags.writeable = False
    small().fit(X, y).predict(X)


def with_value(value, shape=(4, 5, 2)):
    X = np.zeros(shape)
    X[2].flat[1] = value
    return X


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.zeros((0, 5, 2)), ValueError, "0 sample"),
        (np.zeros((0, 5)), ValueError, "0 sample"),
        ([], ValueError, "X is empty: 0 sample"),
        ((), ValueError, "X is empty: 0 sample"),
        (pd.DataFrame({"a": pd.to_datetime(["2020"])}), ValueError, "X has dtype datetime64"),
        (np.zeros((4, 0, 2)), ValueError, r"X\[0\] has no steps \(shape \(0, 2\)\)"),
        (np.zeros((4, 5, 0)), ValueError, "no steps|features"),
        ([np.zeros((3, 2)), np.zeros((0, 2))], ValueError, r"X\[1\] has no steps .* Drop it"),
        ([np.zeros(3), np.zeros(0)], ValueError, r"X\[1\] has no steps"),
        (
            np.full((4, 5, 2), np.nan),
            ValueError,
            r"X\[0\] has no steps .*all of its values are NaN",
        ),
        ([np.zeros(2), np.full(2, np.nan)], ValueError, r"X\[1\] has no steps .*all of its values"),
        (
            [np.zeros((3, 2)), np.zeros((3, 4))],
            ValueError,
            r"X\[1\] has 4 features, but X\[0\] has 2",
        ),
        (with_value(np.inf), ValueError, r"X\[2\] contains infinity"),
        (with_value(1e300), ValueError, r"X\[2\] contains infinity or a value too large"),
        (list(with_value(-np.inf)), ValueError, r"X\[2\] contains infinity"),
        (list(with_value(1e300)), ValueError, r"X\[2\] contains infinity"),
        (with_value(np.inf, (4, 5)), ValueError, r"X\[2\] contains infinity"),
        (np.full((4, 5, 2), "a"), ValueError, "X has dtype <U1; .*encode text"),
        (np.full((4, 5), "a", dtype=object), ValueError, "X must hold numbers: .*'a'"),
        ([np.zeros(2), np.array(["a"])], ValueError, r"X\[1\] .*encode text"),
        ([["a", "b"], ["c"]], ValueError, r"X\[0\] .*encode text"),
        (np.zeros((4, 5), dtype=complex), ValueError, "Complex data not supported: .*two features"),
        ([np.zeros(2), np.zeros(2, complex)], ValueError, r"X\[1\].* Complex data not supported"),
        (np.zeros((4, 5), dtype="datetime64[s]"), ValueError, "X has dtype datetime64"),
        (sp.csr_array(np.eye(4)), TypeError, "[Ss]parse"),
        (np.zeros((4, 5, 2, 2)), ValueError, r"X has 4 dimensions .*n_sequences, n_steps"),
        ([np.zeros((2, 2, 2))] * 3, ValueError, r"X\[0\] has shape \(2, 2, 2\)"),
        (np.zeros(4), ValueError, "Reshape your data"),
        (pd.Series(np.zeros(4)), ValueError, "2-dimensional container"),
        (np.float64(3), ValueError, "scalar|Reshape|2D array"),
        ("text", ValueError, "dtype|scalar|numbers"),
        (None, (ValueError, TypeError), "NoneType|scalar|numbers|float"),
    ],
)
def test_wrong_data_are_named(X, error, message):
    with pytest.raises(error, match=message):
        check(X)


def test_features_must_be_those_of_fit():
    estimator = small()
    check(np.zeros((4, 5, 3)), estimator)
    assert len(check(np.zeros((2, 9, 3)), estimator, reset=False)) == 2
    assert len(check([np.zeros((7, 3))], estimator, reset=False)) == 1
    with pytest.raises(ValueError, match=r"X has 2 features, but .* expecting 3 features"):
        check(np.zeros((4, 5, 2)), estimator, reset=False)
    with pytest.raises(ValueError, match=re.escape("pass (n_sequences, n_steps, 3)")):
        check(np.zeros((5, 3)), estimator, reset=False)


def test_a_table_keeps_its_columns_and_takes_sequences_of_any_length():
    estimator = small()
    check(np.zeros((4, 5)), estimator)
    with pytest.raises(ValueError, match=r"X has 6 features, but .* expecting 5 features"):
        check(np.zeros((4, 6)), estimator, reset=False)
    assert check(np.zeros((4, 6, 1)), estimator, reset=False).lengths.tolist() == [6] * 4
    assert check([np.zeros(9)], estimator, reset=False).lengths.tolist() == [9]
    with pytest.raises(ValueError, match=r"X has 2 features, but .* expecting 1 features"):
        check(np.zeros((4, 5, 2)), estimator, reset=False)


def test_univariate_lists_take_tables_of_any_width():
    estimator = small()
    check([np.zeros(3), np.zeros(4)], estimator)
    assert check(np.zeros((2, 9)), estimator, reset=False).lengths.tolist() == [9, 9]


def test_learned_positions_have_an_end():
    with pytest.raises(ValueError, match=r"X\[1\] has 9 steps, but positions='learned' .* 8 only"):
        check([np.zeros(3), np.zeros(9)], max_length=8)


class NoArray:
    def __array__(self, *args, **kwargs):
        raise RuntimeError("not now")


@pytest.mark.parametrize(
    ("X", "error"),
    [
        (np.ma.masked_equal(np.eye(4), 1), ValueError),  # NumPy reads what is beneath the mask
        ([np.ma.masked_equal(np.ones((2, 2)), 1)] * 4, ValueError),
        ([[10**400, 1.0]] * 4, ValueError),
        ([[10**400], [1.0, 2.0]] * 2, ValueError),
        (NoArray(), ValueError),
        ([NoArray()] * 4, ValueError),
        (torch.ones(4, 2, requires_grad=True), ValueError),
        (torch.ones(4, 2, dtype=torch.bfloat16), TypeError),
        (sp.csr_array(np.eye(4)), TypeError),
        (3.0, ValueError),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_is_wrong_with_x_is_a_value_or_type_error_that_names_it(X, error):
    with pytest.raises(error, match=r"\bX\b") as caught:
        small(max_epochs=1).fit(X, [0, 1, 0, 1])
    assert type(caught.value) is error


def test_series_of_polars_hold_sequences_too():
    sequences = read_sequences(pl.Series([[1.0], [2.0, 3.0]]))
    assert sequences.lengths.tolist() == [1, 2]


@pytest.mark.parametrize("scale", [1e-45, 1e-38, 1e38])
def test_sequences_at_the_ends_of_float32_are_learnt_from(scale):
    X = np.random.default_rng(0).choice([-3.0, 0.0, 3.0], size=(20, 5, 1)) * scale
    clf = small(max_epochs=2).fit(X, np.arange(20) % 2)
    assert np.isfinite(clf.predict_proba(X)).all()
