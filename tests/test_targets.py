import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from sklearn_cls._data.split import split_for_validation
from sklearn_cls._data.targets import check_labels, check_targets, class_weights
from sklearn_cls._data.validation import read_sequences
from tests.helpers import labeled_ones, small

SIX = np.array([0, 1, 0, 1, 1, 1])


def sequences(n):
    return read_sequences(np.arange(float(n))[:, np.newaxis, np.newaxis])


def check(y, sample_weight=None, classes=None, n=None, class_weight=None, **kwargs):
    """Return the classes and the dataset of n sequences."""
    n = len(y) if n is None else n
    estimator = small(class_weight=class_weight)
    return check_targets(estimator, sequences(n), y, sample_weight, classes, **kwargs)


# Labels.


@pytest.mark.parametrize(
    "labels",
    [
        [3, 7, 10**12],
        ["a", "b", "\u00e9"],
        [-1.0, 0.0, 5.0],
        np.array(["x", "y", "zz"], dtype=object),
        np.array(["2020-01-01", "2021-01-01", "2022-01-01"], dtype="datetime64[D]"),
        np.array([1, 2, 255], dtype=np.uint8),
    ],
    ids=lambda labels: str(np.asarray(labels).dtype),
)
def test_codes_are_indices_of_the_sorted_labels(labels):
    labels = np.asarray(labels)
    classes, data = check(labels[[2, 0, 1, 0]])
    assert classes.dtype == labels.dtype
    assert classes.tolist() == labels.tolist()
    assert data.y.tolist() == [2, 0, 1, 0]
    assert data.indices.tolist() == [0, 1, 2, 3]


TEXT = ["b", "a", "b", "a"]


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (pd.Series([1, 0, 1, 0], dtype="Int64"), "i"),
        (pd.Series([1, 0, 1, 0], dtype="category"), "i"),
        (np.array([1, 0, 1, 0], dtype=object), "i"),
        (pl.Series([1, 0, 1, 0]), "i"),
        (pa.array([1, 0, 1, 0]), "i"),
        (pd.Series([True, False, True, False], dtype="boolean"), "b"),
        (np.array([True, False, True, False], dtype=object), "b"),
        (pd.Series(TEXT, dtype="string"), "O"),
        (pd.Series(TEXT, dtype="category"), "O"),
        (pl.Series(TEXT, dtype=pl.Categorical), "O"),
        (pa.array(TEXT).dictionary_encode(), "O"),
        (TEXT, "U"),
    ],
)
def test_labels_keep_their_kind(labels, kind):
    classes, data = check(labels)
    assert classes.dtype.kind == kind
    assert classes.tolist() == np.unique(np.asarray(labels)).tolist()
    assert data.y.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(
    "labels",
    [
        ["a", None, "b", "a"],
        ["a", np.nan, "b", "a"],
        [0, np.nan, 1, 0],
        np.array([0, None, 1, 0], dtype=object),
        pd.Series(["a", pd.NA, "b", "a"], dtype="string"),
        pd.Series(["a", None, "b", "a"], dtype="category"),
        pd.Series([0, None, 1, 0], dtype="Int64"),
        pd.Series([True, None, False, True], dtype="boolean"),
        pd.Series(pd.to_datetime(["2020", None, "2021", "2020"])),
        pl.Series(["a", None, "b", "a"]),
        pl.Series([0, None, 1, 0]),
        pa.array(["a", None, "b", "a"]),
        pa.array([0, None, 1, 0]),
    ],
)
def test_a_missing_label_of_any_kind_is_refused_by_its_index(labels):
    with pytest.raises(
        ValueError, match=r"^y contains NaN .*: y\[1\] is missing .*Remove the sequences"
    ):
        check(labels)
    with pytest.raises(ValueError, match=r"y\[0\] is missing \(None\), as are 2 others"):
        check([None, "a", None, None])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.eye(2)[[0, 1, 0, 1]], r"got an array of shape \(4, 2\) .*pass y\.argmax\(axis=1\)"),
        (["a", 1, "b", 2], r"of type int, str, such as 'b' and 2; .*y\.astype\(str\)"),
        (pd.cut(pd.Series([1, 2, 3, 4]), 2), r"of type Interval.*y\.astype\(str\)"),
    ],
)
def test_errors_about_labels_say_how_to_convert_them(labels, message):
    with pytest.raises(ValueError, match=message):
        check(labels)


def test_minus_one_is_a_class():
    classes, data = check([-1, 1, -1, 1])
    assert (classes.tolist(), data.y.tolist()) == ([-1, 1], [0, 1, 0, 1])


def test_booleans_and_columns_are_labels():
    assert check([True, False])[0].tolist() == [False, True]
    with pytest.warns(UserWarning, match="column-vector y was passed"):
        assert check(np.array([["a"], ["b"]]))[1].y.tolist() == [0, 1]


def test_many_unique_classes_give_a_warning_for_y_only():
    labels = np.arange(30)
    assert check_labels(labels, "classes").tolist() == labels.tolist()
    with pytest.warns(UserWarning, match="number of unique classes"):
        check_labels(labels, "y")


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0.5, 1.2], ValueError, "Unknown label type: continuous"),
        ([np.nan, 1.0], ValueError, "contains NaN"),
        ([[0, 1], [1, 0]], ValueError, "1d array"),
        ([b"a", b"b"], TypeError, "bytes is not supported"),
        (np.ma.masked_equal([0, 1], 1), ValueError, "masked arrays are not supported; fill"),
        ([None, "b"], ValueError, r"\[0\] is missing \(None\)"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["y", "classes"])
def test_errors_about_labels_name_their_argument(labels, error, message, name):
    with pytest.raises(error, match=rf"\b{name}\b.*{message}|{message}.*\b{name}\b"):
        check_labels(labels, name)


def test_y_is_required_and_must_be_as_long_as_x():
    with pytest.raises(ValueError, match="requires y to be passed, but the target y is None"):
        check(None, n=2)
    with pytest.raises(ValueError, match=r"y: .*inconsistent numbers of samples: \[3, 2\]"):
        check([0, 1], n=3)


# Classes.


def test_given_classes_may_include_classes_that_are_not_in_y():
    classes, data = check(["b", "c", "b"], classes=["c", "a", "b"])
    assert classes.tolist() == ["a", "b", "c"]
    assert data.y.tolist() == [1, 2, 1]


def test_labels_that_are_not_in_the_given_classes_raise():
    with pytest.raises(ValueError, match=r"y has classes \[5\], but .* are \[0, 1\]; pass all"):
        check([0, 5, 0], classes=[0, 1])
    with pytest.raises(ValueError, match=r"y has classes \['0', '1'\], but .* are \[0, 1\]"):
        check(["0", "1"], classes=[0, 1])
    with pytest.raises(ValueError, match=r"classes\[1\] is missing"):
        check([0, 1], classes=[0, np.nan])
    with pytest.raises(ValueError, match=r"^y: Unknown label type"):
        check([0, 0.5], classes=[0, 1])


def test_fewer_than_two_classes_with_positive_weight_raise():
    message = r"^Only 1 class of y has positive weight, but at least 2 are needed; .*: \[0\]\.$"
    with pytest.raises(ValueError, match=message):
        check([0, 0])
    with pytest.raises(ValueError, match=r"Only 1 class of y .* 2 are needed.* \[0, 1\]"):
        check([0, 1], [1, 0])
    with pytest.raises(ValueError, match=r"Only 1 class of y .* 2 are needed.* \[0, 1\]"):
        check([0, 1], class_weight={1: 0})
    with pytest.raises(ValueError, match=r"No class of y has positive weight, .* 2 are needed"):
        check([0, 1], class_weight={0: 0, 1: 0})


def test_a_part_of_the_data_may_have_a_single_class():
    classes, data = check([1, 1], classes=[0, 1], is_part=True)
    assert classes.tolist() == [0, 1]
    assert data.y.tolist() == [1, 1]
    with pytest.raises(ValueError, match=r"Only 1 class of y has positive weight, .* 2 are needed"):
        check([1, 1], is_part=True)
    with pytest.raises(ValueError, match=r"No class of y has positive weight, .* 1 is needed"):
        check([1, 1], classes=[0, 1], is_part=True, class_weight={1: 0})


LABELS = np.array([f"a {'very ' * 50}long label, number {i}" for i in range(500)])
OTHERS = np.array([f"another {label}" for label in LABELS])


def continue_with_other_classes():
    X = np.arange(1000.0).reshape(500, 2, 1)
    clf = small(max_epochs=1).partial_fit(X, LABELS, classes=LABELS)
    clf.partial_fit(X, LABELS, classes=OTHERS)


@pytest.mark.parametrize(
    "function",
    [
        lambda: check(LABELS, classes=OTHERS),
        lambda: check(LABELS, class_weight=dict.fromkeys(OTHERS, 1.0)),
        lambda: check(LABELS, np.eye(500)[0]),
        lambda: split_for_validation(labeled_ones([1] * 500, range(500)), 0.1, 0),
        continue_with_other_classes,
    ],
    ids=["y", "class_weight", "sample_weight", "early_stopping", "classes"],
)
@pytest.mark.filterwarnings("ignore:The number of unique classes")
def test_messages_are_short_with_many_classes(function):
    with pytest.raises(ValueError, match=r"class") as error:
        function()
    assert len(str(error.value)) < 2000


class CountedLabel(str):
    """A label that counts how often it is compared."""

    __slots__ = ()
    n_comparisons = 0

    def __eq__(self, other):
        CountedLabel.n_comparisons += 1
        return str(self) == other

    __hash__ = str.__hash__


def test_comparisons_of_labels_grow_linearly_with_the_number_of_classes():
    def count(n_classes):
        CountedLabel.n_comparisons = 0
        labels = [CountedLabel(i) for i in range(n_classes)]
        check(
            np.array(2 * labels, dtype=object),
            classes=np.array(labels, dtype=object),
            class_weight=dict.fromkeys(map(CountedLabel, range(n_classes)), 2.0),
        )
        return CountedLabel.n_comparisons

    assert 0 < count(1000) <= 12 * count(100)


# Weights.


def test_weights_are_1_by_default():
    data = check(SIX)[1]
    assert data.weights.tolist() == [1] * 6
    assert data.weights.dtype == np.float32


def test_weights_have_mean_1_and_sequences_with_weight_0_are_left_out():
    data = check(SIX, [1, 0, 3, 2, 0, 2])[1]
    assert data.indices.tolist() == [0, 2, 3, 5]
    assert data.y.tolist() == [0, 0, 1, 1]
    assert data.weights.tolist() == [0.5, 1.5, 1, 1]


def test_weights_of_a_part_of_the_data_are_not_scaled():
    assert check(SIX, [1, 0, 3, 2, 0, 2], is_part=True)[1].weights.tolist() == [1, 3, 2, 2]
    data = check(SIX, [1, 0, 3, 2, 0, 2], is_part=True, class_weight={1: 5})[1]
    assert data.weights.tolist() == [1, 3, 10, 10]


def test_class_weights_multiply_sample_weights():
    data = check(SIX, [1, 1, 1, 1, 1, 0], class_weight={0: 2, 1: 4})[1]
    assert np.allclose(data.weights, np.array([2, 4, 2, 4, 4]) / 3.2)
    data = check(SIX, class_weight={0: 0.0, 1: 1}, classes=[0, 1, 2], is_part=True)[1]
    assert data.indices.tolist() == [1, 3, 4, 5]
    assert data.weights.tolist() == [1, 1, 1, 1]


def test_balanced_weights_count_the_sequences_with_positive_weight():
    data = check(SIX, [1, 1, 1, 1, 0, 1], class_weight="balanced")[1]
    assert np.allclose(data.weights, np.array([5 / 4, 5 / 6, 5 / 4, 5 / 6, 5 / 6]))
    weights = class_weights("balanced", np.array([0, 0, 2]), np.arange(4))
    assert np.allclose(weights, [3 / 8, 3 / 4, 3 / 4, 3 / 4])


def test_class_weights_are_1_by_default():
    assert class_weights(None, SIX, np.array(["a", "b"])).tolist() == [1, 1]
    assert class_weights({"b": 3}, SIX, np.array(["a", "b"])).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ({0: 1, 7: 2}, r"class_weight has classes \[7\], but y has the classes \[0, 1\]"),
        ({1: -1}, "class_weight values must be finite and non-negative, got -1 for class 1"),
        ({1: np.inf}, "class_weight values must be finite .* got inf for class 1"),
        ({1: 10**400}, "class_weight values must be finite .* got 10+ for class 1"),
        ({0: "x"}, "class_weight values must be .* got 'x' for class 0"),
    ],
)
def test_errors_about_class_weight_name_the_class(class_weight, message):
    with pytest.raises(ValueError, match=message):
        check(SIX, class_weight=class_weight)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([-1, 1], "Negative values .* `sample_weight`"),
        ([1, np.nan], "sample_weight contains NaN"),
        ([1, 1, 1], "sample_weight.shape"),
        (["a", "b"], "sample_weight: could not convert"),
        (np.ma.masked_equal([1.0, 2.0], 2), "sample_weight: masked arrays"),
        (pd.Series([pd.NA, 1]), "sample_weight"),
    ],
    ids=str,
)
def test_errors_about_sample_weight_name_it(weight, message):
    with pytest.raises((ValueError, TypeError), match=message):
        check([0, 1], weight)


def test_very_large_weights_are_scaled_or_raise():
    assert check([0, 1, 1], np.full(3, 1e308))[1].weights.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match=r"sample_weight, .* too large for float32"):
        check([0, 1, 1], np.full(3, 1e39), is_part=True)
