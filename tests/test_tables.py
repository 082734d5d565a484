"""Data frames with sequences in their cells, lists of data frames, and sequences of text."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls._data.columns import CLOCK, CODE, NUMBER
from sklearn_cls._data.validation import check_sequences
from tests.helpers import small

RNG = np.random.default_rng(0)
LENGTHS = [3, 5, 4]
NUMBERS = [RNG.normal(size=n) for n in LENGTHS]
OTHERS = [RNG.normal(size=n) for n in LENGTHS]
CODES = [list("abc"), list("bbaca"), list("caab")]
TIMES = [pd.date_range("2024-01-01", periods=n, freq="s") for n in LENGTHS]
AGES = [30.0, 40.0, 50.0]
STEPS = pd.DataFrame({"id": np.repeat([0, 1, 2], LENGTHS), "x": np.concatenate(NUMBERS)})


def check(X, features=None, **kwargs):
    return check_sequences(X, "Classifier", features, **kwargs)


def padded(X, features=None, **kwargs):
    sequences, _ = check(X, features, **kwargs)
    return sequences.pad(np.arange(len(sequences)))


def expected(*columns):
    """Return sequences of unequal lengths as a padded array."""
    x = np.full((3, 5, len(columns)), np.nan, dtype=np.float32)
    for j, column in enumerate(columns):
        for i, values in enumerate(column):
            x[i, : LENGTHS[i], j] = values
    return x


CODE_INPUTS = [["abc".index(code) + 1 for code in codes] for codes in CODES]
ARROW_LISTS = pd.ArrowDtype(pa.list_(pa.float64()))


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"x": NUMBERS, "y": [y.tolist() for y in OTHERS], "age": AGES}),
        pd.DataFrame({"x": [pd.Series(x) for x in NUMBERS], "y": OTHERS, "age": AGES}),
        pd.DataFrame(
            {
                "x": pd.array([x.tolist() for x in NUMBERS], dtype=ARROW_LISTS),
                "y": pd.array([y.tolist() for y in OTHERS], dtype=ARROW_LISTS),
                "age": pd.array(AGES, dtype="Float64"),
            },
            index=[7, 7, 9],
        ),
        pl.DataFrame({"x": NUMBERS, "y": OTHERS, "age": AGES}),
        pa.table({"x": NUMBERS, "y": OTHERS, "age": AGES}),
        pa.concat_tables(
            pa.table({"x": NUMBERS[i:j], "y": OTHERS[i:j], "age": AGES[i:j]})
            for i, j in ((0, 1), (1, 3))
        ),
    ],
    ids=["lists", "series", "arrow-backed", "polars", "pyarrow", "chunks"],
)
def test_a_frame_has_a_row_for_each_sequence_and_scalars_for_all_of_its_steps(frame):
    _, features = check(frame)
    assert np.array_equal(padded(frame), expected(NUMBERS, OTHERS, AGES), equal_nan=True)
    assert features.feature_names_in.tolist() == ["x", "y", "age"]
    assert features.n_features_in == 3
    assert features.kinds is None


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"when": TIMES, "x": NUMBERS, "code": CODES, "site": ["A", "B", None]}),
        pl.DataFrame(
            {
                "when": [t.to_pydatetime().tolist() for t in TIMES],
                "x": NUMBERS,
                "code": CODES,
                "site": ["A", "B", None],
            }
        ),
        pa.table(
            {
                "when": [t.to_pydatetime() for t in TIMES],
                "x": NUMBERS,
                "code": CODES,
                "site": ["A", "B", None],
            }
        ),
        [
            pd.DataFrame({"when": t, "x": x, "code": pd.Categorical(c), "site": s})
            for t, x, c, s in zip(TIMES, NUMBERS, CODES, ["A", "B", None], strict=True)
        ],
    ],
    ids=["pandas", "polars", "pyarrow", "list of frames"],
)
def test_numbers_come_first_then_the_clock_then_the_codes(frame):
    sequences, features = check(frame)
    x = padded(frame)
    assert features.kinds == (CLOCK, NUMBER, CODE, CODE)
    assert features.n_features_in == 4
    assert features.n_categories == sequences.n_categories == (3, 2)
    assert np.array_equal(x[..., :1], expected(NUMBERS), equal_nan=True)
    assert x[0, :3, 1].tolist() == [1, 1, 1]  # seconds
    sites = [[1], [2], [np.nan]]
    assert np.array_equal(x[..., 6:], expected(CODE_INPUTS, sites), equal_nan=True)
    assert sequences.has_gaps.tolist() == [False, False, False]
    assert len(features.input_names) == sequences.n_features == 8
    assert features.input_names[0] == "feature 'x'"
    assert features.input_names[1].endswith("of feature 'when'")


@pytest.mark.parametrize(
    "X",
    [
        CODES,
        ["".join(codes) for codes in CODES],
        ["".join(codes).encode() for codes in CODES],
        np.array(["".join(codes) for codes in CODES]),
        pd.Series(["".join(codes) for codes in CODES]),
        pl.Series(["".join(codes) for codes in CODES]),
        pd.DataFrame({"word": ["".join(codes) for codes in CODES]}),
        pd.DataFrame({"code": CODES}),
        pl.DataFrame({"code": CODES}).with_columns(pl.col("code").cast(pl.List(pl.Categorical))),
        pa.table({"code": pa.array(CODES, pa.list_(pa.dictionary(pa.int32(), pa.string())))}),
        [pd.DataFrame({"code": pd.Categorical(codes)}) for codes in CODES],
        [np.array(codes) for codes in CODES],
        [pd.Series(codes, dtype="category") for codes in CODES],
    ],
    ids=lambda X: type(X).__name__,
)
def test_codes_are_numbered_in_their_order(X):
    _, features = check(X)
    assert np.array_equal(padded(X), expected(CODE_INPUTS), equal_nan=True)
    assert features.n_categories == (3,)
    assert features.kinds == (CODE,)


@pytest.mark.parametrize(
    "X",
    [
        np.array([list("abc"), list("cab")]),
        np.array([list("abc"), list("cab")], dtype=object),
        pd.DataFrame([list("abc"), list("cab")]).add_prefix("t"),
        pd.DataFrame([list("abc"), list("cab")]).add_prefix("t").astype("category"),
        pl.DataFrame([list("abc"), list("cab")], orient="row"),
    ],
    ids=["text", "objects", "pandas", "categories", "polars"],
)
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_a_2d_x_of_text_holds_univariate_codes(X):
    _, features = check(X)
    assert padded(X)[..., 0].tolist() == [[1, 2, 3], [3, 1, 2]]
    assert (features.n_features_in, features.n_features) == (3, 1)
    with pytest.raises(ValueError, match="2 features, but Classifier is expecting 3"):
        check(np.array([["a", "b"]]), features)
    assert padded(["ca"], features)[0, :, 0].tolist() == [3, 1]


def test_unseen_codes_are_0_and_missing_codes_nan():
    _, features = check(CODES)
    x = padded([["a", "z", None, "c"], ["b"]], features)
    assert np.array_equal(x[0, :, 0], [1, 0, np.nan, 3], equal_nan=True)


@pytest.mark.parametrize("categorical_features", [[1], [-1], [False, True], np.array([1])])
def test_numbers_can_be_named_as_codes(categorical_features):
    X = np.stack([np.arange(12.0).reshape(3, 4), RNG.integers(5, 8, size=(3, 4))], axis=2)
    X[0, 1, 1], X[1, 2, 1] = np.nan, 6
    sequences, features = check(X, categorical_features=categorical_features)
    assert features.kinds == (NUMBER, CODE)
    for form in (X, list(X), [pd.DataFrame(x, columns=["a", "b"]) for x in X]):
        x = padded(form, categorical_features=categorical_features)
        assert np.array_equal(x[..., 0], X[..., 0])
        assert np.array_equal(x[..., 1] + 4, X[..., 1], equal_nan=True)
    x = padded(np.add(X[:1], [0, 100]), features)
    assert np.nan_to_num(x[..., 1]).max() == 0
    frames = [pd.DataFrame(x, columns=["a", "b"]) for x in X]
    assert check(frames, categorical_features=["b"])[1].kinds == (NUMBER, CODE)
    steps = next(sequences.steps(np.arange(3)))
    assert np.array_equal(steps, padded(X, features).reshape(-1, 2), equal_nan=True)


@pytest.mark.parametrize(
    ("categorical_features", "message"),
    [
        ([2], r"categorical_features=\[2\] has 2, but X has 2 features"),
        (["c"], r"has 'c', but the features of X have the names \['a', 'b'\]"),
        ([True], "is a mask of 1 features, but X has 2"),
        ([[0, 1]], "must be 1-D"),
        ([0.5], "has 0.5, but X has 2 features"),
    ],
)
def test_errors_about_categorical_features_name_them(categorical_features, message):
    frames = [pd.DataFrame({"a": [1.0, 2], "b": [3.0, 4]})] * 2
    with pytest.raises(ValueError, match=message):
        check(frames, categorical_features=categorical_features)


@pytest.mark.parametrize("form", [np.array, list, "frame"], ids=["array", "list", "frame"])
def test_large_integers_are_different_codes(form):
    ids = 2**60 + np.arange(6).reshape(2, 3, 1)  # float64 rounds them to the same number
    X = pd.DataFrame({"id": list(ids[..., 0])}) if form == "frame" else form(ids)
    sequences, features = check(X, categorical_features=[0])
    assert features.vocabularies[0].categories.tolist() == ids.reshape(-1).tolist()
    assert sequences.pad(np.arange(2))[..., 0].tolist() == [[1, 2, 3], [4, 5, 6]]
    unseen = check(form(ids + 1) if form != "frame" else X.map(lambda x: x + 1), features=features)
    assert unseen[0].pad(np.arange(2))[..., 0].tolist() == [[2, 3, 4], [5, 6, 0]]


def test_text_that_categorical_features_does_not_name_is_refused():
    X = pd.DataFrame({"x": NUMBERS, "code": CODES, "flag": [[True] * n for n in LENGTHS]})
    with pytest.raises(ValueError, match=r"feature 'code', which categorical_features does not"):
        check(X, categorical_features=[])
    assert check(X, categorical_features=["code"])[1].kinds == (NUMBER, CODE, NUMBER)


def test_cells_with_two_dimensions_are_sequences_of_several_features():
    arrays = [np.stack([x, y], axis=1) for x, y in zip(NUMBERS, OTHERS, strict=True)]
    for X in (
        pd.Series(arrays),
        pd.DataFrame({"s": arrays}),
        pl.Series([x.tolist() for x in arrays]),
        pl.DataFrame({"s": [x.tolist() for x in arrays]}),
        [np.array([*x, None], dtype=object)[:-1] for x in arrays],
    ):
        assert np.array_equal(padded(X), expected(NUMBERS, OTHERS), equal_nan=True)


def test_the_fields_of_a_struct_are_features():
    structs = [
        [{"x": x, "code": c} for x, c in zip(*pair, strict=True)]
        for pair in zip(NUMBERS, CODES, strict=True)
    ]
    for X in (pl.DataFrame({"s": structs}), pa.table({"s": structs})):
        sequences, features = check(X)
        assert (features.n_features_in, sequences.n_features) == (1, 2)
        assert np.array_equal(padded(X, features), expected(NUMBERS, CODE_INPUTS), equal_nan=True)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (pd.DataFrame({"x": NUMBERS, "y": OTHERS[::-1]}), r"4 steps in column 'y' of row 0, but 3"),
        (pd.DataFrame({"x": [[1.0], []]}), r"X\[1\] has no steps"),
        (pl.DataFrame({"x": [[1.0], None]}), r"X\[1\] has no steps"),
        (["ab", ""], r"X\[1\] has no steps"),
        (["ab", None], r"X\[1\] is missing \(None\)"),
        (pd.DataFrame({"x": [[1.0], "a", 3]}), "row 1 of column 'x' of X is a str"),
        (pd.DataFrame({"x": [[1.0], ["a"]]}), "column 'x' of X has values of type float, str"),
        (pd.DataFrame({"x": [[1.0], [np.inf]]}), r"X\[1\] contains infinity"),
        (pd.DataFrame({"x": [[1.0], [np.nan]]}), r"X\[1\] has no steps .*are NaN"),
        (
            pd.DataFrame({"x": NUMBERS, "born": pd.to_datetime(["2020"] * 3)}),
            "column 'born' of X has one date for each sequence",
        ),
        (pd.DataFrame({"a": ["x", "y"], "b": [1.0, 2]}), "'a' of X holds text .*from_long"),
        (TIMES, "X holds dates or durations"),
        ([list(t) for t in TIMES], "encode text or dates as numbers"),
        ([pd.Series(t) for t in TIMES], "pass a data frame, in which a column of times"),
        (
            STEPS.assign(t=range(12)).set_index(["id", "t"]),
            r"MultiIndex \['id', 't'\]: it is a long table.*from_long\(.*id='id'\)",
        ),
    ],
)
def test_errors_name_the_row_and_the_column(X, message):
    with pytest.raises(ValueError, match=message):
        check(X)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ((x for x in NUMBERS), r"is a generator, .* pass list\(X\)"),
        ({"a": NUMBERS}, "X is a dict; stack its features"),
        ([{"a": x} for x in NUMBERS], r"X\[0\] is a dict; stack"),
        (pl.DataFrame({"x": [1.0]}).lazy(), r"LazyFrame, .* pass X\.collect\(\)"),
    ],
    ids=["generator", "dict", "list of dicts", "lazy frame"],
)
def test_errors_about_other_containers_say_what_to_pass(X, message):
    with pytest.raises(TypeError, match=message):
        check(X)


def test_columns_must_have_the_names_the_order_and_the_kinds_of_fit():
    X = pd.DataFrame({"x": NUMBERS, "code": CODES})
    _, features = check(X)
    with pytest.raises(ValueError, match="feature names"):
        check(X[["code", "x"]], features)
    with pytest.raises(ValueError, match="feature names"):
        check(X.rename(columns={"x": "z"}), features)
    with pytest.raises(ValueError, match=r"numbers in feature 'code', but its categories in fit"):
        check(X.assign(code=NUMBERS), features)
    with pytest.raises(ValueError, match="text or categories in feature 'x', which held numbers"):
        check(X.assign(x=CODES), features)
    with (
        pytest.warns(UserWarning, match="does not have valid feature names"),
        pytest.raises(ValueError, match="array of numbers, but feature 'code' held text"),
    ):
        check([np.stack([x, x], axis=1) for x in NUMBERS], features)


def test_more_codes_than_the_limit_share_an_input_with_a_warning(monkeypatch):
    monkeypatch.setattr("sklearn_cls._data.codes.MAX_CATEGORIES", 2)
    X = [list("aaab"), list("abcd")]
    with pytest.warns(UserWarning, match="4 different codes in feature 0. The 2 most frequent"):
        _, features = check(X)
    assert features.vocabularies[0].categories.tolist() == ["a", "b"]
    assert padded(X, features)[1, :, 0].tolist() == [1, 2, 0, 0]


def events(n=60, seed=0):
    """Return a frame of events, whose second code decides the class, and the classes."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    lengths = rng.integers(5, 9, size=n)
    codes = [
        ["in", ["buy", "read"][c], *rng.choice(["go", "out"], k)]
        for c, k in zip(y, lengths, strict=True)
    ]
    frame = pd.DataFrame(
        {
            "code": codes,
            "amount": [rng.normal(size=k + 2) for k in lengths],
            "age": rng.normal(size=n),
        }
    )
    return frame, y


def test_frames_of_three_libraries_have_equal_predictions_and_work_in_searches(tmp_path):
    X, y = events()
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    clf = small(max_epochs=40).fit(X_train, y_train)
    assert clf.score(X_test, y_test) > 0.9
    assert clf.feature_names_in_.tolist() == ["code", "amount", "age"]
    probabilities = clf.predict_proba(X_test)
    lists = {name: X_test[name].tolist() for name in X_test}
    for form in (pl.DataFrame(lists), pa.table(lists)):
        assert np.array_equal(clf.predict_proba(form), probabilities)
    clf.save(tmp_path / "model")
    loaded = CLSTransformerClassifier.load(tmp_path / "model")
    assert np.array_equal(loaded.predict_proba(X_test), probabilities)
    search = GridSearchCV(small(max_epochs=2), {"depth": [1, 2]}, cv=2).fit(X, y)
    assert search.predict(X).shape == (60,)
    for frame in (pl.DataFrame(lists), X_test):
        small(max_epochs=1).fit(frame, y_test)


@pytest.mark.parametrize("output", ["default", "pandas"])
def test_a_column_transformer_scales_some_columns_and_passes_sequences_on(output):
    X, y = events()
    frame = X[["amount", "code", "age"]]
    transformer = ColumnTransformer(
        [("scale", StandardScaler(), ["age"]), ("keep", "passthrough", ["amount", "code"])],
        verbose_feature_names_out=False,
    ).set_output(transform=output)
    scaled = frame[["age", "amount", "code"]].assign(
        age=(frame["age"] - frame["age"].mean()) / frame["age"].std(ddof=0)
    )
    pipeline = make_pipeline(transformer, small(max_epochs=2)).fit(frame, y)
    expected = small(max_epochs=2).fit(scaled, y).predict_proba(scaled)
    assert np.allclose(pipeline.predict_proba(frame), expected, atol=1e-5)


def test_names_out_of_a_column_transformer():
    X, y = events()
    frame = pd.DataFrame({"s": X["amount"], "age": X["age"]})
    transformer = ColumnTransformer(
        [("s", small(max_epochs=1), "s"), ("n", "passthrough", ["age"])]
    )
    out = transformer.fit(frame, y).set_output(transform="pandas").transform(frame)
    assert len(transformer.get_feature_names_out()) == out.shape[1] == 17
