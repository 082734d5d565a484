"""Generated sequences, and readers of other formats."""

import numpy as np
import pytest

from sklearn_cls import datasets
from sklearn_cls.datasets.examples import RULES
from tests.helpers import small

HEADER = "# a comment\n@problemName Made\n@timeStamps false\n@classLabel true a b\n\n@data\n"


@pytest.fixture
def ts(tmp_path):
    """Return a function that writes a .ts file and returns its path."""

    def write(data, header=HEADER, encoding="utf-8"):
        path = tmp_path / "made.ts"
        path.write_text(header + data, encoding=encoding)
        return path

    return write


def test_digits_are_sequences_of_image_rows():
    X, y = datasets.load_digit_sequences()
    assert X.shape == (1797, 8, 8)
    assert X.dtype == np.float32
    assert X.max() == 16
    np.testing.assert_array_equal(np.unique(y), np.arange(10))


def test_ts_with_equal_lengths_returns_an_array_with_steps_before_features(ts):
    X, y = datasets.load_ts(ts("1,2,3:4,5,6:a\n7,8,9:10,11,12:b\n"))
    assert X.dtype == np.float32
    np.testing.assert_array_equal(X[0], [[1, 4], [2, 5], [3, 6]])
    np.testing.assert_array_equal(X[1], [[7, 10], [8, 11], [9, 12]])
    assert y.tolist() == ["a", "b"]


def test_ts_with_unequal_lengths_returns_a_list(ts):
    X, y = datasets.load_ts(ts("1,2,3:a\n4:b\n5,6:a\n"))
    assert [x.shape for x in X] == [(3, 1), (1, 1), (2, 1)]
    assert y.tolist() == ["a", "b", "a"]


@pytest.mark.parametrize("word", ["?", "NaN", "nan", " ? "])
def test_missing_values_of_ts_are_nan(ts, word):
    X, _ = datasets.load_ts(ts(f"1,{word},3:a\n"))
    np.testing.assert_array_equal(X[0], [[1], [np.nan], [3]])


def test_ts_may_have_windows_line_endings_and_a_byte_order_mark(ts):
    path = ts("1,2:a\n\n# between\n3,4:b\n")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    X, y = datasets.load_ts(str(path))
    np.testing.assert_array_equal(X[:, :, 0], [[1, 2], [3, 4]])
    assert y.tolist() == ["a", "b"]


def test_ts_may_have_comments_in_latin_1(ts):
    X, _ = datasets.load_ts(ts("1,2:a\n", header="# Schäfer\n" + HEADER, encoding="latin-1"))
    assert X.shape == (1, 2, 1)


def test_ts_without_labels_returns_none_for_y(ts):
    X, y = datasets.load_ts(ts("1,2:3,4\n", header="@classLabel false\n@data\n"))
    assert X.shape == (1, 2, 2)
    assert y is None


def test_ts_flags_are_case_insensitive(ts):
    X, y = datasets.load_ts(
        ts("1:a\n0:b\n", header="@timeStamps False\n@classLabel TRUE a b\n@data\n")
    )
    assert X.shape == (2, 1, 1)
    assert y.tolist() == ["a", "b"]


def test_ts_may_have_labels_in_latin_1(ts):
    _, y = datasets.load_ts(
        ts("1:ä\n0:ö\n", header="@classLabel true ä ö\n@data\n", encoding="latin-1")
    )
    assert y.tolist() == ["ä", "ö"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("1,2:a\n1,x:a\n", r"made\.ts, line 8: feature 0: .*'x'; write \? for"),
        ("1,2:a\n1,,2:a\n", r"line 8: feature 0: .*''; write \?"),
        ("1,2:a\n\n1,2:c\n", r"line 9: label 'c' is not declared by @classLabel \(a, b\)"),
        ("1,2\n", r"line 7: '1,2' must end in a colon and a label"),
        ("1,2:3:a\n", r"line 7: feature 1 has 1 values, but feature 0 has 2"),
        ("1,2:3,4:a\n1,2:a\n", r"line 8: 1 features, but the previous sequences have 2"),
        ("1,2:\n", r"line 7: no label after the last colon"),
        ("", "no sequences after @data"),
    ],
)
def test_malformed_ts_line_raises_with_the_line_number(ts, data, message):
    with pytest.raises(ValueError, match=message):
        datasets.load_ts(ts(data))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("@timeStamps true\n@data\n", "line 1: time stamps are not supported"),
        ("@targetLabel true\n@data\n", "line 1: the targets are numbers"),
        ("@classLabel\n@data\n", "line 1: '@classLabel' has neither true nor false"),
        (
            "# x\n1,2:a\n",
            "line 2: expected a header line that starts with @ before @data, got '1,2:a'",
        ),
        ("@classLabel true a\n", "the file has no line @data"),
    ],
)
def test_invalid_ts_header_raises(ts, header, message):
    with pytest.raises(ValueError, match=message):
        datasets.load_ts(ts("", header=header))


def test_missing_ts_file_raises_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        datasets.load_ts(tmp_path / "none.ts")


def test_sequences_of_ts_can_be_fitted(ts):
    rng = np.random.default_rng(0)
    lines = [
        f"{','.join(map('{:.2f}'.format, rng.normal(3 * i % 2, 1, 5 + i % 3)))}:{'ab'[i % 2]}\n"
        for i in range(20)
    ]
    X, y = datasets.load_ts(ts("".join(lines)))
    assert small().fit(X, y).predict(X).shape == (20,)


@pytest.mark.parametrize("rule", RULES)
def test_generated_sequences_have_four_classes_and_are_repeatable(rule):
    X, y = datasets.make_sequences(rule, 400, n_steps=12, random_state=0)
    assert X.shape[:2] == (400, 12)
    assert X.dtype == np.float32
    assert np.bincount(y).min() > 70
    X_again, y_again = datasets.make_sequences(rule, 400, n_steps=12, random_state=0)
    np.testing.assert_array_equal(X, X_again)
    np.testing.assert_array_equal(y, y_again)


def test_marked_step_determines_the_class_and_other_steps_are_noise():
    X, y = datasets.make_sequences("marked", 2000, random_state=0)
    assert (X[..., 0].sum(1) == 1).all()
    indices, steps = np.arange(2000), X[..., 0].argmax(1)
    signs = X[indices, steps, 1:] > 0
    np.testing.assert_array_equal(signs @ (2, 1), y)
    others = X[X[..., 0] == 0][:, 1:].reshape(2000, 23, 2)
    assert np.abs([others[y == k].mean((0, 1)) for k in range(4)]).max() < 0.05


def test_means_over_steps_determine_the_class_of_spread_sequences():
    X, y = datasets.make_sequences("spread", 2000, random_state=0)
    signs = X.mean(1) > 0
    assert 0.93 < np.mean(signs @ (2, 1) == y) < 0.97  # each sign is correct with p = 0.975
    assert np.mean((X[:, 0] > 0) @ (2, 1) == y) < 0.5  # a single step is not enough


def test_order_of_peaks_determines_the_class_and_their_positions_do_not():
    X, y = datasets.make_sequences("order", 2000, random_state=0)
    steps = X.argmax(1)  # step of each peak, (B, F)
    bits = np.c_[steps[:, 1] < steps[:, 0], steps[:, 3] < steps[:, 2]]
    assert np.mean(bits @ (2, 1) == y) > 0.99  # rarely, noise is higher than a peak
    assert np.abs(np.corrcoef(steps[:, 0] + steps[:, 1], y)[0, 1]) < 0.06


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"rule": "first"}, "rule must be one of 'marked', 'spread', 'order', got 'first'"),
        ({"rule": "order", "n_steps": 1}, "n_steps must be at least 2, got 1"),
    ],
)
def test_invalid_parameters_of_generated_sequences_raise(params, message):
    with pytest.raises(ValueError, match=message):
        datasets.make_sequences(**params)
