import numpy as np
import pandas as pd
import polars as pl
import pytest

from sklearn_cls.datasets import from_channels_first
from tests.helpers import small


def test_from_channels_first_transposes_without_a_copy():
    X = np.arange(24).reshape(2, 3, 4)
    steps_first = from_channels_first(X)
    assert np.shares_memory(steps_first, X)
    np.testing.assert_array_equal(steps_first[1], X[1].T)
    for x, channels_first in zip(from_channels_first(list(X)), X, strict=True):
        np.testing.assert_array_equal(x, channels_first.T)


def test_array_and_list_with_channels_first_give_the_same_predictions(fitted, data):
    X, _ = data
    channels_first = np.ascontiguousarray(X.transpose(0, 2, 1))
    expected = fitted.predict_proba(X)
    for form in (channels_first, list(channels_first)):
        probabilities = fitted.predict_proba(from_channels_first(form))
        np.testing.assert_allclose(probabilities, expected, atol=1e-6)


def test_sequences_without_channels_are_returned_without_a_copy():
    X = np.arange(12).reshape(3, 4)
    assert np.shares_memory(from_channels_first(X), X)
    assert from_channels_first(X).shape == (3, 4)
    for x, expected in zip(from_channels_first(list(X)), X, strict=True):
        assert np.shares_memory(x, X)
        np.testing.assert_array_equal(x, expected)
    wide = pd.DataFrame(X)
    assert from_channels_first(wide) is wide


def panel(index=range):
    """Return three sequences of two channels, (n_channels, n_steps_i), and their time indices."""
    lengths = (4, 5, 4)
    return [np.arange(2.0 * n).reshape(2, n) for n in lengths], [index(n) for n in lengths]


def nested(sequences, indices):
    columns = {
        name: [pd.Series(x[j], index) for x, index in zip(sequences, indices, strict=True)]
        for j, name in enumerate("ab")
    }
    return pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in columns.items()})


def multi_index(sequences, indices, columns):
    frames = [
        pd.DataFrame(x.T, index, columns=columns)
        for x, index in zip(sequences, indices, strict=True)
    ]
    return pd.concat(frames, keys=[9, 5, 7], names=["case", None])


def dates(n):
    return pd.date_range("2024-01-01", periods=n, freq="h")


def periods(n):
    return pd.period_range("2024-01", periods=n, freq="M")


@pytest.mark.parametrize("columns", [["a", "b"], [0, 1]])
def test_rows_of_a_multi_index_become_a_row_for_each_sequence_in_their_order(columns):
    sequences, indices = panel()
    data = from_channels_first(multi_index(sequences, indices, columns))
    assert list(data) == [str(name) for name in columns]
    for i, x in enumerate(sequences):
        np.testing.assert_array_equal(np.stack(data.iloc[i]), x)


def test_frames_of_series_are_returned():
    X = nested(*panel())
    assert from_channels_first(X) is X


@pytest.mark.parametrize("index", [dates, periods])
def test_dates_of_an_index_are_a_clock(index):
    sequences, indices = panel(index)
    expected = indices[1].to_timestamp() if index is periods else indices[1]
    for X in (nested(sequences, indices), multi_index(sequences, indices, ["a", "b"])):
        data = from_channels_first(X)
        assert list(data) == ["time", "a", "b"]
        np.testing.assert_array_equal(data["time"].iloc[1], expected)
        np.testing.assert_array_equal(data["b"].iloc[1], sequences[1][1])
        assert small(max_epochs=1).fit(data, [0, 1, 0]).feature_names_in_[0] == "time"


def test_frames_of_aeon_are_transposed_and_those_of_sktime_are_not():
    sequences, _ = panel()
    ours = [pd.DataFrame(x.T, columns=["a", "b"]) for x in sequences]
    for form in (ours, [pd.DataFrame(x) for x in sequences]):
        for x, expected in zip(from_channels_first(form), sequences, strict=True):
            np.testing.assert_array_equal(x, expected.T)
    assert from_channels_first(ours)[0] is ours[0]


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.zeros(4), ValueError, r"X has shape \(4,\), but must be \(n_sequences, n_channels, n_"),
        (np.zeros((1, 2, 3, 4)), ValueError, r"X has shape \(1, 2, 3, 4\)"),
        ([np.zeros((1, 2, 3))], ValueError, r"X\[0\] has shape \(1, 2, 3\), but every sequence"),
        ({"a": [1]}, TypeError, "X is a dict, which is no container of aeon or sktime"),
        ([{"target": [1.0]}], TypeError, r"X\[0\] is a dict, which is no container"),
        (pl.DataFrame({"a": [1]}), TypeError, r"X is a data frame of polars, .* from_long\(X, id="),
        (
            pd.DataFrame(columns=["case_id", "dim_id", "reading_id", "value"]),
            ValueError,
            r"'pd-long'; use from_long\(X, id='case_id', time='reading_id', kind='dim_id'",
        ),
        (
            pd.DataFrame({"v": [1]}, pd.MultiIndex.from_tuples([(0, 0, 0)], names=["g", "s", "t"])),
            ValueError,
            r"use from_long\(X.reset_index\(\), id=\['g', 's'\], time='t'\)",
        ),
    ],
)
def test_errors_about_other_containers_say_what_to_convert(X, error, message):
    with pytest.raises(error, match=message):
        from_channels_first(X)
