"""Tables that are easy to get wrong are read as they are meant, or refused with what to type."""

import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from sklearn_cls._data.columns import CLOCK, CODE, NUMBER
from sklearn_cls._data.validation import check_sequences
from tests.helpers import small

RNG = np.random.default_rng(0)
LENGTHS = [3, 5, 4, 3]
A = [RNG.normal(size=n) for n in LENGTHS]
B = [RNG.normal(size=n) for n in LENGTHS]
LETTERS = [list("abcab")[:n] for n in LENGTHS]
TIMES = [pd.date_range("2024-01-01", periods=n, freq="s") for n in LENGTHS]
FRAME = pd.DataFrame({"a": A, "b": B})
POLARS = pl.DataFrame({"a": [x.tolist() for x in A], "b": [x.tolist() for x in B]})
ARROW = POLARS.to_arrow()
LONG = pd.DataFrame({"x": np.arange(15.0), "t": [t for n in LENGTHS for t in range(n)]})
IDS = np.repeat(np.arange(4), LENGTHS)
LABELS = np.array([0, 1, 0, 1])


def check(X, features=None, **kwargs):
    return check_sequences(X, "Classifier", features, **kwargs)


def padded(X, features=None):
    sequences, _ = check(X, features)
    return sequences.pad(np.arange(len(sequences)))


def kinds(X):
    return check(X)[1].kinds


# The same sequences in other forms


def awkward(frame):
    return pytest.importorskip("awkward").Array(frame.map(list).to_dict("records"))


@pytest.mark.parametrize(
    "X",
    [
        FRAME.map(list),
        FRAME.map(tuple),
        FRAME.map(pd.Series),
        FRAME.map(pl.Series),
        FRAME.map(lambda x: pd.Series(x, index=np.arange(len(x))[::-1])),
        FRAME.map(lambda x: [Decimal(repr(value)) for value in x.tolist()]),
        pd.DataFrame({"a": [A[0], *map(list, A[1:])], "b": [*B[:3], pd.Series(B[3])]}),
        FRAME.set_index(pd.Index(["w", "z", "y", "y"])),
        ARROW.to_pandas(types_mapper=pd.ArrowDtype),
        pa.concat_tables([ARROW[:1], ARROW[1:]]),
        pa.concat_tables([ARROW, ARROW]).combine_chunks()[4:],
        ARROW.cast(pa.schema([(name, pa.large_list(pa.float64())) for name in "ab"])),
        ARROW.to_batches()[0],
    ],
    ids=[
        "lists", "tuples", "series", "polars series", "index of series", "decimals", "mixed cells",
        "index of rows", "arrow types", "chunks", "slice", "large lists", "record batch",
    ],
)  # fmt: skip
def test_the_same_sequences_give_the_same_batches(X):
    assert np.array_equal(padded(X), padded(POLARS), equal_nan=True)
    assert check(X)[1].feature_names_in.tolist() == ["a", "b"]


def test_awkward_arrays_are_read_with_and_without_fields():
    records = awkward(FRAME)
    assert np.array_equal(padded(records), padded(FRAME), equal_nan=True)
    assert check(records)[1].feature_names_in.tolist() == ["a", "b"]
    assert np.array_equal(padded(records["a"]), padded(FRAME[["a"]]), equal_nan=True)


@pytest.mark.parametrize(
    "X",
    [
        pl.Series([*"ab", "ba", "c"]),
        pa.array([*"ab", "ba", "c"]),
        pa.chunked_array([["a", "b"], ["ba", "c"]]),
        pd.Series([*"ab", "ba", "c"], dtype="string"),
        pl.DataFrame({"dna": [*"ab", "ba", "c"]}),
        pa.table({"dna": [*"ab", "ba", "c"]}),
    ],
    ids=["polars", "arrow", "arrow chunks", "pandas", "polars frame", "arrow table"],
)
def test_text_of_every_library_is_a_code_for_each_character(X):
    assert np.array_equal(padded(X), padded([*"ab", "ba", "c"]), equal_nan=True)


@pytest.mark.parametrize(
    "codes",
    [
        [pd.Categorical(x, categories=list("cba")) for x in LETTERS],
        [pd.Series(x, dtype="category") for x in LETTERS],
        [np.array(x) for x in LETTERS],
        pd.Series(pl.Series(LETTERS).cast(pl.List(pl.Enum(list("zcba")))).to_arrow().to_pylist()),
    ],
    ids=["categorical", "series of categories", "text array", "enum"],
)
def test_the_order_of_categories_does_not_matter(codes):
    fitted = FRAME.assign(c=LETTERS)
    features = check(fitted)[1]
    assert features.vocabularies[0].categories.tolist() == ["a", "b", "c"]
    batch = padded(FRAME.assign(c=codes), features)
    assert np.array_equal(batch, padded(fitted, features), equal_nan=True)


def test_chunks_of_arrow_may_have_different_dictionaries():
    chunks = [pa.array(list("ab")).dictionary_encode(), pa.array(list("ba")).dictionary_encode()]
    X = ARROW.append_column("c", pa.chunked_array(chunks))
    plain = ARROW.append_column("c", pa.array(list("abba")))
    assert np.array_equal(padded(X), padded(plain), equal_nan=True)


@pytest.mark.parametrize(
    "times",
    [
        [x.tz_localize("Europe/Berlin") for x in TIMES],
        [x.to_pydatetime().tolist() for x in TIMES],
        [x.to_numpy().astype("M8[ms]" if i % 2 else "M8[us]") for i, x in enumerate(TIMES)],
        [x - x[0] for x in TIMES],
        [(x - x[0]).to_pytimedelta().tolist() for x in TIMES],
    ],
    ids=["time zone", "datetime", "units", "durations", "timedelta"],
)
def test_times_of_every_type_are_the_same_clock(times):
    fitted = FRAME.assign(t=TIMES)
    features = check(fitted)[1]
    batch = padded(FRAME.assign(t=times), features)
    assert np.array_equal(batch, padded(fitted, features), equal_nan=True)


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pd.array([1, None, 2, 3], dtype="Int64"), NUMBER),
        (pd.array([1.5, None, 2, 3], dtype="Float32"), NUMBER),
        (pd.array([True, None, False, True], dtype="boolean"), CODE),
        (pd.array(["u", None, "v", "v"], dtype="string"), CODE),
        (pd.Categorical(["u", None, "v", "v"]), CODE),
        ([Decimal("1.5"), None, Decimal("2.5"), Decimal("3.5")], NUMBER),
        ([[None, *x[1:]] for x in LETTERS], CODE),
        ([[None, *(x[1:] > 0).tolist()] for x in A], CODE),
        ([[None, *x[1:].tolist()] for x in A], NUMBER),
        ([x.where(np.arange(len(x)) != 1) for x in TIMES], CLOCK),
    ],
    ids=[
        "Int64", "Float32", "boolean", "string", "category", "decimal", "lists of codes",
        "lists of booleans", "lists of numbers", "lists of times",
    ],
)  # fmt: skip
def test_columns_with_missing_values_keep_their_kind(column, kind):
    X = FRAME.assign(c=column)
    assert (kinds(X) or (NUMBER,) * 3)[2] == kind
    small(max_epochs=1).fit(X, LABELS).predict(X)


# Long tables and single sequences


@pytest.mark.parametrize(
    "name", ["id", "ID", "patient_id", "Subject", "case", "session-id", "user", "person_no", "uuid"]
)
@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_a_long_table_is_refused_by_the_column_of_its_ids(name, library):
    X = LONG.assign(**{name: IDS})
    X = {"pandas": X, "polars": pl.DataFrame(X), "pyarrow": pa.Table.from_pandas(X)}[library]
    message = rf"X has a column '{name}' .*datasets.from_long\(X, id='{name}'\).data"
    with pytest.raises(ValueError, match=message):
        small().fit(X, IDS % 2)


def test_a_long_table_is_refused_by_its_index():
    X = LONG.set_index(pd.Index(IDS, name="subject"))
    with pytest.raises(ValueError, match=r"from_long\(X.reset_index\(\), id='subject'\)"):
        small().fit(X, IDS % 2)


@pytest.mark.parametrize("name", ["idle", "video", "width", "humid", "wind", "suited", "t0", "0"])
def test_columns_that_are_steps_are_not_taken_for_ids(name):
    X = LONG.assign(**{name: IDS})
    assert small(max_epochs=1).fit(X, IDS % 2).n_features_in_ == 3


def test_a_column_of_unique_ids_is_no_long_table():
    assert check(LONG.assign(id=np.arange(15)))[1].n_features_in == 3


@pytest.mark.parametrize(
    ("X", "n_labels", "message"),
    [
        (np.ones((5, 8)), 8, r"\[5, 8\]. X has 5 sequences of 8 steps; .* pass X.T"),
        (np.ones((5, 8, 2)), 8, r"5 sequences of 8 steps; .* pass np.swapaxes\(X, 0, 1\)"),
        (np.ones((5, 2, 8)), 8, r"X has 8 features; .* pass np.moveaxis\(X, -1, 0\)"),
        (np.ones((40, 3)), 8, r"If X is a long table, .*from_long.* single sequence, pass \[X\]"),
        (A, 15, r"y has a label for each step"),
        (FRAME, 15, r"y has a label for each step, .*from_long\(frame, id="),
        (A, 3, r"samples: \[4, 3\]$"),
    ],
    ids=["transposed", "swapped", "features first", "long", "steps", "steps of a frame", "other"],
)
def test_an_error_about_the_number_of_labels_says_what_it_proves(X, n_labels, message):
    with pytest.raises(ValueError, match=rf"^y: Found input variables with .*{message}"):
        small().fit(X, np.arange(n_labels) % 2)


def test_frames_with_a_row_for_each_feature_are_refused():
    frames = [pd.DataFrame({"a": a, "b": b}) for a, b in zip(A, B, strict=True)]
    message = r"rows of the data frames in X are named \['a', 'b'\].*pass \[x.T for x in X\]"
    with pytest.raises(ValueError, match=message):
        small().fit([x.T for x in frames], LABELS)
    clf = small(max_epochs=1).fit(frames, LABELS)
    with pytest.raises(ValueError, match=message):
        clf.predict([x.T for x in frames])
    dated = [x.set_index(t) for x, t in zip(frames, TIMES, strict=True)]
    assert np.array_equal(clf.predict_proba(dated), clf.predict_proba(frames))


def test_a_single_sequence_is_refused_at_prediction():
    frames = [pd.DataFrame({"a": a, "b": b}) for a, b in zip(A, B, strict=True)]
    clf = small(max_epochs=1).fit(frames, LABELS)
    with pytest.raises(ValueError, match=r"column for each feature, .* pass \[X\]"):
        clf.predict(frames[0])
    clf = small(max_epochs=1).fit(A, LABELS)
    for X in (A[0].reshape(-1, 1), pd.DataFrame({"x": A[0]})):
        with pytest.raises(ValueError, match=r"sequences of a single step.*pass \[X\]"):
            clf.predict(X)


def test_features_before_steps_are_refused_at_prediction():
    X = RNG.normal(size=(10, 7, 2))
    clf = small(max_epochs=1).fit(X, np.arange(10) % 2)
    with pytest.raises(ValueError, match=r"expecting 2 features.*from_channels_first\(X\)"):
        clf.predict(X.swapaxes(1, 2))


@pytest.mark.parametrize("missing", [None, np.nan])
def test_large_whole_numbers_that_were_rounded_are_no_codes(missing):
    codes = [[2**60 + i % 3 for i in range(n)] for n in LENGTHS]
    rounded = FRAME.assign(c=[[missing, *codes[0][1:]], *codes[1:]])
    clf = small(max_epochs=1, categorical_features=["c"])
    with pytest.raises(ValueError, match=r"codes in feature 'c' .* beyond 2\*\*53.*as text"):
        clf.fit(rounded, LABELS)
    clf.fit(FRAME.assign(c=codes), LABELS)
    with pytest.raises(ValueError, match=r"codes in feature 'c' .* beyond 2\*\*53"):
        clf.predict(rounded)


def test_large_whole_numbers_beside_missing_ones_are_the_same_numbers_in_every_container():
    times = [[None, *(1_760_000_000_000_000_001 + np.arange(1, n)).tolist()] for n in LENGTHS]
    X = pl.DataFrame({"a": times, "age": [None, 2**60, 1, 2]}).to_arrow()
    expected = padded(pd.DataFrame({"a": times, "age": [np.nan, 2**60, 1, 2]}))
    for same in (X, pl.from_arrow(X), X.to_pandas(types_mapper=pd.ArrowDtype)):
        assert np.array_equal(padded(same), expected, equal_nan=True)


# Cells and columns that cannot be right


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a": [None, *A[1:]]}, r"column 'a' of X is empty or missing in row 0"),
        ({"b": [*B[:3], []]}, r"column 'b' of X is empty or missing in row 3"),
        ({"a": [A[0][:2], *A[1:]]}, r"2 steps in column 'a'|3 steps in column 'b' of row 0, but 2"),
        ({"a": [1.0, *A[1:]]}, r"column 'a' of X .* every cell must be a list or an array"),
        ({"a": [*A[:3], "abc"]}, r"row 3 of column 'a' of X is a str"),
        ({"a": [x + 1j for x in A]}, r"column 'a' of X has dtype complex128"),
        ({"t": TIMES, "u": TIMES}, r"times in feature 't' and feature 'u'"),
        ({"t": [x.astype(str).tolist() for x in TIMES]}, r"dates as text in feature 't'"),
        ({"t": [x[::-1] for x in TIMES]}, r"X\[0\] in feature 't' decrease"),
        (
            {"t": [x.tz_localize("UTC" if i else None).tolist() for i, x in enumerate(TIMES)]},
            r"column 't' of X has times with and without a time zone",
        ),
        ({"t": [x.to_period("s") for x in TIMES]}, r"column 't' of X has dtype period"),
        ({"t": [[datetime.time(1)] * n for n in LENGTHS]}, r"column 't' .* type time"),
        ({"d": pd.Timestamp("2024-01-01")}, r"column 'd' of X has one date for each sequence"),
        ({"d": pd.interval_range(0, 4)}, r"column 'd' of X has dtype interval"),
        ({"d": [1j] * 4}, r"column 'd' of X has dtype complex128"),
        ({"d": [{"k": 1}] * 4}, r"row 0 of column 'd' of X is a dict"),
    ],
    ids=[
        "None", "empty", "lengths", "single value", "text", "complex", "two clocks", "date text",
        "backwards", "zones", "periods", "times of day", "date", "interval", "complex value",
        "dict",
    ],
)  # fmt: skip
def test_errors_name_the_column(changes, message):
    with pytest.raises(ValueError, match=message):
        small().fit(FRAME.assign(**changes), LABELS)


def test_dates_as_text_may_be_codes_if_the_parameter_says_so():
    X = FRAME.assign(day=[["2024-01-01", "2024-01-02", "2024-01-01"][:n] + ["2024-01-02"] * (n - 3)
                          for n in LENGTHS])  # fmt: skip
    clf = small(max_epochs=1, categorical_features=["day"]).fit(X, LABELS)
    assert clf.predict(X).shape == (4,)


@pytest.mark.parametrize(
    ("fitted", "X", "message"),
    [
        (["ab", "ba"] * 2, [b"ab"], r"X has bytes in feature 0, but its categories in fit were"),
        ([b"ab", b"ba"] * 2, ["ab"], r"X has text in feature 0"),
        (FRAME.assign(c=LETTERS), FRAME.assign(c=A), r"X has numbers in feature 'c'"),
        (
            FRAME.assign(t=TIMES),
            FRAME.assign(t=A),
            r"X has numbers in feature 't', which held times",
        ),
        (
            FRAME.assign(t=TIMES),
            FRAME.assign(t=LETTERS),
            r"X has text or categories in feature 't'",
        ),
        (FRAME, FRAME.assign(b=LETTERS), r"X has text or categories in feature 'b'"),
    ],
    ids=["bytes", "text", "numbers", "numbers for times", "codes for times", "codes for numbers"],
)
def test_other_kinds_than_in_fit_are_refused(fitted, X, message):
    clf = small(max_epochs=1).fit(fitted, LABELS)
    with pytest.raises(ValueError, match=message):
        clf.predict(X)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (ARROW.to_reader(), r"RecordBatchReader, .*pass X.read_all\(\)"),
        (POLARS.lazy(), r"LazyFrame, .*pass X.collect\(\)"),
        (iter(A), r"can be read only once; pass list\(X\)"),
    ],
    ids=["reader", "lazy frame", "iterator"],
)
def test_objects_that_are_read_once_or_later_are_refused(X, message):
    with pytest.raises(TypeError, match=message):
        small().fit(X, LABELS)
