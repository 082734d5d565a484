"""The values of the steps that a figure shows: numbers, codes as text, and times."""

import numpy as np
import pytest

from sklearn_cls._data.step_values import step_values
from sklearn_cls._data.validation import check_sequences


def values_of(X_fit, X, names=None, **params):
    """Return the StepValues of X after the features of X_fit have been learned."""
    _, features = check_sequences(X_fit, "Estimator", **params)
    sequences, _ = check_sequences(X, "Estimator", features)
    return step_values(sequences, features, names)


def test_numbers_are_those_of_x_without_padding():
    X = np.arange(12.0).reshape(2, 3, 2)
    X[0, 1, 0] = X[1, 2] = np.nan
    for given in (X, [X[0], X[1, :2]]):
        values = values_of(X, given)
        assert np.array_equal(values.numbers[0], X[0], equal_nan=True)
        assert np.array_equal(values.numbers[1], X[1, :2])
        assert values.codes == [[], []]
        assert values.times is values.number_names is values.code_names is None


def test_codes_are_text_and_unknown_ones_question_marks():
    assert values_of(["ACA", "CC"], ["CAT"]).codes == [[["C", "A", "?"]]]
    assert values_of([[b"A", b"C"]], [[b"C", b"T"]]).codes == [[["C", "?"]]]
    X = np.array([[[0.0], [1.5], [np.nan], [2.0]]])
    values = values_of(X, X[:, [3, 1, 2, 0]], categorical_features=[0])
    assert values.codes == [[["2", "1.5", None, "0"]]]
    assert values.numbers[0].shape == (4, 0)


def test_columns_of_a_frame_are_sorted_by_kind_and_named():
    pd = pytest.importorskip("pandas")
    start = np.datetime64("2024-02-28T23:00:00")
    X = pd.DataFrame(
        {
            "event": [["in", None, "out"], ["out", "in"]],
            "time": [
                start + np.array([0, 90, 3600]).astype("m8[s]"),
                [start, np.datetime64("NaT")],
            ],
            "level": [[1.0, 2.0, np.nan], [4.0, 5.0]],
            "age": [30, 40],
        }
    )
    values = values_of(X, X)
    assert values.number_names == ["level", "age"]
    assert np.array_equal(values.numbers[1], [[4, 40], [5, 40]])
    assert values.code_names == ["event"]
    assert values.codes == [[["in", None, "out"]], [["out", "in"]]]
    assert values.times[0].tolist() == [0, 90, 3600]
    assert np.array_equal(values.times[1], [0, np.nan], equal_nan=True)
    values = values_of(X, X, names=["a", "b", "c", "d"])
    assert (values.number_names, values.code_names) == (["c", "d"], ["a"])
    with pytest.raises(ValueError, match=r"feature_names .* each of the 4 features, got 1"):
        values_of(X, X, names=["a"])
