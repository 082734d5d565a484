import re
from dataclasses import astuple, replace

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import torch

from sklearn_cls._data.features import Features
from sklearn_cls._data.readers import ArrayReader, ListReader
from sklearn_cls._data.scaler import fit_scaler
from sklearn_cls._data.sequences import CHUNK_BYTES, Sequences
from sklearn_cls._data.validation import check_sequences, read_sequences
from tests.helpers import bumps, small

RNG = np.random.default_rng(0)


def check(X, features=None, **kwargs):
    return check_sequences(X, "Classifier", features, **kwargs)[0]


def features_of(X):
    return check_sequences(X, "Classifier")[1]


def standardized(X):
    sequences = read_sequences(X)
    return replace(sequences, scaler=fit_scaler(sequences, np.arange(len(sequences))))


def padded(X):
    sequences = check(X)
    return sequences.pad(np.arange(len(sequences)))


# Forms of X.


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64, np.uint8, bool])
def test_every_real_dtype_becomes_float32(dtype):
    X = RNG.integers(0, 2, size=(4, 5, 3)).astype(dtype)
    for form in (X, list(X)):
        assert padded(form).dtype == np.float32
        assert np.array_equal(padded(form), X)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.half, torch.int32])
def test_tensors_of_every_dtype_become_float32(dtype):
    X = RNG.integers(0, 2, size=(4, 5, 3))
    tensor = torch.from_numpy(X).to(dtype)
    for form in (tensor, list(tensor)):
        assert np.array_equal(padded(form), X)
    assert np.array_equal(padded(torch.from_numpy(X).float().requires_grad_()), X)


def test_a_2d_array_holds_univariate_sequences():
    X = RNG.normal(size=(4, 5)).astype(np.float32)
    for form in (X, X.tolist(), pd.DataFrame(X), pl.DataFrame(X)):
        assert check(form).n_features == features_of(form).n_features == 1
        assert features_of(form).n_features_in == 5
        assert np.array_equal(padded(form)[:, :, 0], X)
        assert np.array_equal(read_sequences(form).pad(np.arange(4))[:, :, 0], X)


def test_n_features_in_is_the_number_of_features_per_step_for_3d_arrays_and_lists():
    X = RNG.normal(size=(4, 5, 3)).astype(np.float32)
    for form in (X, list(X), X.tolist()):
        assert check(form).n_features == features_of(form).n_features_in == 3
        assert np.array_equal(padded(form), X)


@pytest.mark.parametrize("container", [list, tuple])
def test_lists_hold_sequences_of_unequal_length(container):
    X = [RNG.normal(size=(t, 2)).astype(np.float32) for t in (3, 1, 5)]
    sequences = check(container(X))
    assert (len(sequences), sequences.n_steps) == (3, 5)
    assert sequences.lengths.tolist() == [3, 1, 5]
    x = sequences.pad(np.arange(3))
    assert x.shape == (3, 5, 2)
    for given, got in zip(X, x, strict=True):
        assert np.array_equal(got[: len(given)], given)
        assert np.isnan(got[len(given) :]).all()
    assert np.array_equal(sequences.pad(np.array([1, 0]))[1], X[0])


def test_arrays_of_objects_series_nested_lists_and_frames_can_hold_sequences():
    X = [RNG.normal(size=t) for t in (3, 1, 5)]
    objects = np.empty(3, dtype=object)
    objects[:] = X
    expected = padded(X)
    assert expected.shape == (3, 5, 1)
    nested = [x.tolist() for x in X]
    mixed = [X[0], *nested[1:]]
    series = [pd.Series(x) for x in X]
    for form in (objects, nested, mixed, series, pd.Series(X), pl.Series(nested)):
        assert np.array_equal(padded(form), expected, equal_nan=True)
    frames = [pd.DataFrame({"a": x, "b": x}) for x in X]
    assert padded(frames).shape == (3, 5, 2)


def test_missing_values_of_pandas_are_nan():
    frames = [pd.DataFrame({"a": [1, None, 3]}, dtype="Int64") for _ in range(2)]
    for form in (frames, pd.concat(frames, axis=1).T):
        assert np.array_equal(padded(form)[0, :, 0], [1, np.nan, 3], equal_nan=True)


def test_steps_that_are_all_nan_at_the_end_are_padding():
    X = RNG.normal(size=(3, 6, 2))
    X[0, 4:] = X[1, 2] = X[2, 5, 0] = np.nan
    for form in (X, list(X)):
        sequences = check(form)
        assert sequences.lengths.tolist() == [4, 6, 6]
        assert sequences.has_gaps.tolist() == [False, True, True]
        assert sequences.has_gaps.dtype == bool
        assert sequences.pad(np.array([0])).shape == (1, 4, 2)
        assert sequences.n_steps == 6


def test_a_memory_map_keeps_its_dtype_and_is_not_read_into_memory(tmp_path):
    X = RNG.normal(size=(50, 6, 2))
    X[3, 4:] = X[7, 1, 0] = np.nan
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    sequences = check(mapped)
    assert sequences.reader.values.dtype == np.float64
    assert np.shares_memory(sequences.reader.values, mapped)
    assert np.flatnonzero(sequences.has_gaps).tolist() == [7]
    assert sequences.lengths[3] == 4
    indices = np.array([7, 3])
    x = sequences.pad(indices)
    assert x.dtype == np.float32
    assert np.array_equal(x, X[indices].astype(np.float32), equal_nan=True)
    assert np.shares_memory(check(mapped.reshape(50, 12)).reader.values, mapped)


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", "<f2", "<i8", "<u8", "u1", "g"])
def test_arrays_of_any_dtype_are_not_copied(dtype):
    X = RNG.integers(0, 9, size=(4, 5, 2)).astype(dtype)
    assert np.shares_memory(check(X).reader.values, X)
    assert np.shares_memory(check(X[:, ::-1, ::-1]).reader.values, X)
    assert np.shares_memory(check(X[:, :, 0]).reader.values, X)
    items = [x[: 3 + i % 2] for i, x in enumerate(X)]
    sequences = check(items)
    assert all(map(np.shares_memory, sequences.reader.values, items))
    assert sequences.dtype == np.dtype(dtype).newbyteorder("=")


def test_a_sequence_that_spans_several_chunks_is_checked(monkeypatch):
    monkeypatch.setattr("sklearn_cls._data.sequences.CHUNK_BYTES", 10 * 2 * 8)
    X = RNG.normal(size=(4, 35, 2))
    X[0, 31:] = X[1, 12, 1] = X[1, 15:] = np.nan
    X[2, 5:] = np.nan
    for form in (X, list(X)):
        sequences = check(form)
        assert sequences.lengths.tolist() == [31, 15, 5, 35]
        assert sequences.has_gaps.tolist() == [False, True, False, False]
    X[3, 22, 0] = np.inf
    for form in (X, list(X)):
        with pytest.raises(ValueError, match=r"X\[3\] contains infinity"):
            check(form)


def test_the_data_of_the_user_are_not_changed():
    X, y = bumps()
    lists, before = list(X), X.copy()
    small().fit(X, y).predict(X)
    small().fit(lists, y).predict(lists)
    assert np.array_equal(X, before)
    X.flags.writeable = False
    small().fit(X, y).predict(X)


# Passes over the data.


def test_chunks_hold_about_chunk_bytes():
    values = np.broadcast_to(np.float64(0), (10_000, 100, 50))
    sequences = Sequences(ArrayReader(values), np.full(10_000, 100), np.zeros(10_000, bool))
    for form in (sequences, replace(sequences, reader=ListReader(list(values)))):
        steps = next(form.steps(np.arange(10_000)))
        assert CHUNK_BYTES * 0.98 < steps.nbytes <= CHUNK_BYTES
    chunk = next(sequences.chunks(np.arange(10_000)))
    assert CHUNK_BYTES * 0.98 < 2 * chunk.nbytes <= CHUNK_BYTES


def test_a_sequence_larger_than_a_chunk_is_a_chunk_of_its_own(monkeypatch):
    monkeypatch.setattr("sklearn_cls._data.sequences.CHUNK_BYTES", 1)
    sequences = check(RNG.normal(size=(3, 4, 2)))
    assert [len(chunk) for chunk in sequences.chunks(np.arange(3))] == [1, 1, 1]


def test_lengths_gaps_and_statistics_do_not_depend_on_the_size_of_chunks(monkeypatch):
    X = RNG.normal(size=(37, 6, 2))
    X[5, 3:] = X[30, 2:] = X[31, 1, 1] = np.nan
    whole = check(X)
    expected = astuple(fit_scaler(whole, np.arange(37)))
    assert np.flatnonzero(whole.lengths < 6).tolist() == [5, 30]
    assert np.flatnonzero(whole.has_gaps).tolist() == [31]
    for n_steps, n_chunks in ((30, 8), (4, 72)):
        monkeypatch.setattr("sklearn_cls._data.sequences.CHUNK_BYTES", n_steps * 2 * 8)
        assert len(list(whole.steps(np.arange(37)))) == n_chunks
        for form in (X, list(X)):
            chunked = check(form)
            assert np.array_equal(chunked.lengths, whole.lengths)
            assert np.array_equal(chunked.has_gaps, whole.has_gaps)
            for a, b in zip(astuple(fit_scaler(chunked, np.arange(37))), expected, strict=True):
                assert np.allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("kind", ["infinite", "missing"])
def test_errors_give_the_index_of_the_sequence_in_x(kind, monkeypatch):
    monkeypatch.setattr("sklearn_cls._data.sequences.CHUNK_BYTES", 5 * 6 * 2 * 8)
    X = RNG.normal(size=(37, 6, 2))
    X[31] = np.inf if kind == "infinite" else np.nan
    with pytest.raises(ValueError, match=r"X\[31\]"):
        check(X)


# Features with scales that differ between sequences.


def test_scales_differ_if_many_sequences_hardly_vary():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 30, 2))

    def differ(X):
        return standardized(X).scales_differ(np.arange(50))

    assert not differ(X)
    assert not differ(X * [1e-6, 1e6] + [5, -1e6])  # Features may have any scale.
    X[:5, :, 0] *= 1e-3
    assert not differ(X)
    X[5, :, 0] *= 1e-3  # more than 10 %
    assert differ(X) is True
    assert differ([x[: 20 + i % 10] for i, x in enumerate(X)])
    X[:10, 3:6, 0] = np.nan
    assert differ(X)
    X[:6, :, 0] = 0.1  # A feature that is constant within a sequence does not count.
    assert not differ(X)


@pytest.mark.filterwarnings("ignore:X varies in feature 0 within many sequences")
@pytest.mark.parametrize(("factor", "expected"), [(0.02, False), (0.005, True), (1e-7, False)])
def test_a_std_below_one_percent_counts_unless_it_is_rounding_error(factor, expected):
    X = np.random.default_rng(0).normal(size=(50, 400, 1))
    X[:10] *= factor
    assert standardized(X).scales_differ(np.arange(50)) == expected


@pytest.mark.parametrize("n_steps", [50, 2000])
@pytest.mark.parametrize(("mean", "std"), [(40, 10), (2000, 5), (1, 0.3)])
def test_scales_do_not_differ_if_each_sequence_is_constant(n_steps, mean, std):
    values = np.random.default_rng(0).normal(mean, std, size=(200, 1, 1))
    X = np.repeat(values, n_steps, axis=1)
    assert not standardized(X).scales_differ(np.arange(200))


def test_scales_do_not_differ_if_sequences_have_a_single_value():
    X = np.where(np.arange(50) % 2, 1, -1)[:, np.newaxis, np.newaxis] * np.ones((1, 2, 1))
    X[:20, 0], X[:20, 1] = 1e-3, np.nan
    X[20:, 1] *= -1
    assert not standardized(X).scales_differ(np.arange(50))


def test_scales_differ_does_not_depend_on_the_order_of_sequences():
    X = np.random.default_rng(0).normal(size=(10_000, 5, 1))
    X[np.arange(10_000) % 10 > 0] *= 1e-3
    for order in (np.arange(10_000), np.random.default_rng(1).permutation(10_000)):
        assert standardized(X).scales_differ(order)


def test_scales_differ_uses_a_sample_of_the_given_sequences(monkeypatch):
    monkeypatch.setattr("sklearn_cls._data.sequences.MAX_SAMPLE", 40)
    X = np.random.default_rng(0).normal(size=(400, 30, 1))
    X[:200:2] *= 1e-3
    sequences = standardized(X)
    assert sequences.scales_differ(np.arange(200))
    assert not sequences.scales_differ(np.arange(200, 400))


# Errors.


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
        (pd.DataFrame({"a": pd.to_datetime(["2020"])}), ValueError, "'a' of X holds dates"),
        (np.zeros((4, 0, 2)), ValueError, r"X\[0\] has no steps \(shape \(0, 2\)\)"),
        (np.zeros((4, 5, 0)), ValueError, r"X\[0\] has no steps \(shape \(5, 0\)\)"),
        (
            [np.zeros((3, 2)), np.zeros((0, 2))],
            ValueError,
            r"X\[1\] has no steps .* Remove this",
        ),
        ([np.zeros((3, 0))], ValueError, r"X\[0\] has no steps \(shape \(3, 0\)\)"),
        ([np.zeros(3), np.zeros(0)], ValueError, r"X\[1\] has no steps \(shape \(0,\)\)"),
        (
            np.full((4, 5, 2), np.nan),
            ValueError,
            r"X\[0\] has no steps \(all of its values are NaN\)",
        ),
        ([np.zeros(2), np.full(2, np.nan)], ValueError, r"X\[1\] has no steps .*all of its values"),
        (
            [np.zeros((3, 2)), np.zeros((2, 4))],
            ValueError,
            r"X\[1\] has 4 features, but X\[0\] has 2",
        ),
        (
            [np.zeros((2, 3)), np.zeros((2, 4))],
            ValueError,
            r"X\[1\] has shape \(2, 4\), .*from_channels_first\(X\)",
        ),
        (with_value(np.inf), ValueError, r"X\[2\] contains infinity"),
        (list(with_value(-np.inf)), ValueError, r"X\[2\] contains infinity"),
        (
            [*with_value(0, (4, 5, 2)), np.full((5, 2), -np.inf)],
            ValueError,
            r"X\[4\] contains infinity",
        ),
        (with_value(np.inf, (4, 5)), ValueError, r"X\[2\] contains infinity"),
        ([np.zeros(2), np.array(["a"])], ValueError, "X has values of type float, str"),
        (np.zeros((4, 5), dtype=complex), ValueError, "Complex data not supported: X .* features"),
        ([np.zeros(2), np.zeros(2, complex)], ValueError, r"X\[1\].* Complex data not supported"),
        (np.zeros((4, 5), dtype="datetime64[s]"), ValueError, "X has dtype datetime64"),
        (sp.csr_array(np.eye(4)), TypeError, "[Ss]parse"),
        (np.zeros((4, 5, 2, 2)), ValueError, r"X has 4 dimensions .*n_sequences, n_steps"),
        ([np.zeros((2, 2, 2))] * 3, ValueError, r"X\[0\] has shape \(2, 2, 2\)"),
        (np.zeros(4), ValueError, "Reshape your data"),
        (pd.Series(np.zeros(4)), ValueError, "X has one dimension .*pass \\[X\\]"),
        (np.float64(3), ValueError, "scalar|Reshape|2D array"),
        ("text", TypeError, "X is a path.*pyarrow.dataset.dataset"),
        (None, ValueError, "X is None; pass an array"),
        (np.ma.masked_equal(np.eye(4), 1), ValueError, r"^masked arrays .*X\.filled\(np\.nan\)"),
        ([np.ma.masked_equal(np.ones((2, 2)), 1)] * 4, ValueError, r"X\[0\] .* masked arrays"),
    ],
)
def test_errors_say_what_is_wrong_with_x(X, error, message):
    with pytest.raises(error, match=message):
        check(X)


class NoArray:
    def __array__(self, *args, **kwargs):
        raise RuntimeError("not now")


class OutOfMemory:
    def __array__(self, *args, **kwargs):
        raise MemoryError


@pytest.mark.parametrize(
    ("X", "error"),
    [
        ([[10**400, 1.0]] * 4, ValueError),
        ([[10**400], [1.0, 2.0]] * 2, ValueError),
        (NoArray(), ValueError),
        ([NoArray()] * 4, ValueError),
        (torch.eye(4).to_sparse(), TypeError),
        (3.0, ValueError),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_error_in_reading_x_is_a_value_or_type_error_that_names_it(X, error):
    with pytest.raises(error, match=r"\bX\b") as caught:
        small(max_epochs=1).fit(X, [0, 1, 0, 1])
    assert type(caught.value) is error


def test_a_memory_error_is_raised_unchanged():
    with pytest.raises(MemoryError):
        check(OutOfMemory())


def test_the_number_of_features_must_be_the_same_as_in_fit():
    features = features_of(np.zeros((4, 5, 3)))
    assert features == Features(3)
    assert len(check(np.zeros((2, 9, 3)), features)) == 2
    assert len(check([np.zeros((7, 3))], features)) == 1
    message = "X has 2 features, but Classifier is expecting 3 features"
    with pytest.raises(ValueError, match=message):
        check(np.zeros((4, 5, 2)), features)
    with pytest.raises(ValueError, match=re.escape("pass (n_sequences, n_steps, 3)")):
        check(np.zeros((5, 3)), features)


def test_after_a_2d_fit_arrays_need_the_same_columns_but_lists_may_have_any_length():
    features = features_of(np.zeros((4, 5)))
    with pytest.raises(ValueError, match=r"X has 6 features, but .* expecting 5 features"):
        check(np.zeros((4, 6)), features)
    assert check(np.zeros((4, 6, 1)), features).lengths.tolist() == [6] * 4
    assert check([np.zeros(9)], features).lengths.tolist() == [9]
    with pytest.raises(ValueError, match=r"X has 2 features, but .* expecting 1 features"):
        check(np.zeros((4, 5, 2)), features)


def test_after_a_fit_on_univariate_lists_2d_arrays_may_have_any_number_of_columns():
    features = features_of([np.zeros(3), np.zeros(4)])
    assert check(np.zeros((2, 9)), features).lengths.tolist() == [9, 9]
    assert check(np.zeros((2, 5)), features).lengths.tolist() == [5, 5]


def test_column_names_must_be_those_of_fit():
    frame = pd.DataFrame(np.zeros((4, 2)), columns=["a", "b"])
    features = features_of(frame)
    assert features.feature_names_in.tolist() == ["a", "b"]
    assert check_sequences(frame, "Classifier", features)[1] is features
    with pytest.raises(ValueError, match="feature names should match"):
        check(frame[["b", "a"]], features)
    with pytest.warns(UserWarning, match="but Classifier was fitted with feature names"):
        check(frame.to_numpy(), features)
    with pytest.warns(UserWarning, match="but Classifier was fitted without feature names"):
        check(frame, features_of(frame.to_numpy()))


def test_learned_positions_limit_the_length():
    assert len(check([np.zeros(3), np.zeros(8)], max_length=8)) == 2
    message = r"X\[1\] has 9 steps, but positions='learned' .* only the first 8; .* shorten X\[1\]"
    with pytest.raises(ValueError, match=message):
        check([np.zeros(3), np.zeros(9)], max_length=8)
