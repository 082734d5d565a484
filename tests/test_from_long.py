import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from sklearn_cls._data.columns import CLOCK, CODE, NUMBER
from sklearn_cls._data.validation import check_sequences
from sklearn_cls.datasets import from_long
from tests.helpers import small


def table(n_sequences=30, seed=0):
    """Return a long table in a random order, and the labels by id."""
    rng = np.random.default_rng(seed)
    parts, labels = [], {}
    for i in range(n_sequences):
        n = rng.integers(4, 9)
        labels[f"p{i}"] = ["low", "high"][i % 2]
        parts.append(
            pd.DataFrame(
                {
                    "person": f"p{i}",
                    "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(n), unit="h"),
                    "value": np.arange(n) + 100.0 * (i % 2),
                    "event": pd.Categorical(rng.choice(["a", "b"], n)),
                    "label": labels[f"p{i}"],
                    "clinic": f"c{i // 10}",
                }
            )
        )
    return pd.concat(parts).sample(frac=1, random_state=seed), labels


FORMS = {
    "pandas": lambda frame: frame,
    "polars": pl.from_pandas,
    "pyarrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
}


@pytest.mark.parametrize("library", FORMS)
def test_a_long_table_becomes_a_row_for_each_sequence_sorted_by_time(library):
    frame, labels = table()
    bunch = from_long(
        FORMS[library](frame), id="person", time="when", labels="label", groups="clinic"
    )
    assert type(bunch.data).__module__.startswith(library)
    assert bunch.data.shape == (30, 3)
    assert bunch.ids.tolist() == frame["person"].unique().tolist()
    assert bunch.target.tolist() == [labels[i] for i in bunch.ids]
    assert bunch.groups.tolist() == [f"c{int(i[1:]) // 10}" for i in bunch.ids]
    for values, label in zip(list(bunch.data["value"]), bunch.target, strict=True):
        values = values.as_py() if library == "pyarrow" else values
        assert np.array_equal(values, np.arange(len(values)) + 100 * (label == "high"))
    _, features = check_sequences(bunch.data, "Classifier")
    assert features.kinds == (CLOCK, NUMBER, CODE)
    assert small(max_epochs=20).fit(bunch.data, bunch.target).score(bunch.data, bunch.target) == 1


def test_all_libraries_give_equal_sequences():
    frame, _ = table()
    data = [from_long(form(frame), id="person", time="when").data for form in FORMS.values()]
    padded = []
    for X in data:
        sequences, _ = check_sequences(X, "Classifier")
        padded.append(sequences.pad(np.arange(30)))
    assert np.array_equal(padded[0], padded[1], equal_nan=True)
    assert np.array_equal(padded[0], padded[2], equal_nan=True)


def test_labels_and_groups_may_be_given_by_id():
    frame, labels = table()
    by_row = pd.DataFrame({"person": list(labels), "mode": list(labels.values())})
    tables = (by_row, by_row.set_index("person"), pl.from_pandas(by_row))
    for given in (labels, pd.Series(labels), *tables):
        bunch = from_long(frame, id="person", time="when", labels=given, columns=["value"])
        assert bunch.target.tolist() == [labels[i] for i in bunch.ids]
        assert list(bunch.data) == ["when", "value"]
        assert bunch.groups is None
    del labels["p3"]
    with pytest.raises(ValueError, match=r"labels has no value for 1 of 30 ids, such as \['p3'\]"):
        from_long(frame, id="person", labels=labels)


def test_several_columns_may_be_the_id():
    frame = pd.DataFrame({"a": [0, 0, 1, 1], "b": ["x", "y", "x", "x"], "v": [1.0, 2, 3, 4]})
    bunch = from_long(frame, id=["a", "b"])
    assert bunch.ids.tolist() == [[0, "x"], [0, "y"], [1, "x"]]
    assert [v.tolist() for v in bunch.data["v"]] == [[1], [2], [3, 4]]
    given = {(0, "x"): "p", (0, "y"): "q", (1, "x"): "r"}
    assert from_long(frame, id=["a", "b"], labels=given).target.tolist() == ["p", "q", "r"]


def test_tables_and_series_of_labels_must_say_whose_they_are():
    frame, labels = table()
    by_row = pd.DataFrame({"person": list(labels), "mode": list(labels.values())})
    with pytest.raises(ValueError, match=r"labels has several values for the id 'p0'.*'low'"):
        from_long(frame, id="person", labels=pd.concat([by_row, by_row.assign(mode="x")]))
    with pytest.raises(ValueError, match=r"must have \['person', 'groups'\]: the id, and one"):
        from_long(frame, id="person", groups=by_row.assign(age=1))
    with pytest.raises(ValueError, match=r"labels has no column 'person', but \['who', 'mode'\]"):
        from_long(frame, id="person", labels=by_row.rename(columns={"person": "who"}))
    for given in (by_row["mode"].to_numpy(), list(labels), pl.Series(list(labels))):
        with pytest.raises(TypeError, match=r"labels is a .*, which does not say whose they are"):
            from_long(frame, id="person", labels=given)


def test_a_lazy_table_of_labels_is_computed_without_a_warning():
    frame, labels = table()
    by_row = pl.LazyFrame({"person": list(labels), "mode": list(labels.values())})
    expected = from_long(frame, id="person", labels=labels).target
    assert from_long(frame, id="person", labels=by_row).target.tolist() == expected.tolist()


def test_a_bunch_in_place_of_its_data_is_an_error():
    frame, _ = table()
    bunch = from_long(frame, id="person", time="when", labels="label")
    with pytest.raises(TypeError, match=r"X is a Bunch; .* fit\(bunch\.data, bunch\.target\)"):
        small().fit(bunch, bunch.target)


@pytest.mark.parametrize("library", FORMS)
def test_missing_labels_are_named(library):
    frame, _ = table()
    frame = frame.assign(label=frame["label"].where(frame["person"] != "p4", None))
    with pytest.raises(ValueError, match=r"labels has no value for 1 of 30 ids, such as \['p4'\]"):
        from_long(FORMS[library](frame), id="person", labels="label")


def test_lazy_frames_are_computed_and_the_levels_of_an_index_are_columns():
    frame, labels = table()
    expected = from_long(frame, id="person", time="when", labels="label").data["value"]
    lazy = from_long(pl.from_pandas(frame).lazy(), id="person", time="when", labels="label")
    assert lazy.data["value"].to_list() == [cell.tolist() for cell in expected]
    indexed = from_long(
        frame.set_index(["person", "when"]), id="person", time="when", labels=labels
    )
    assert [cell.tolist() for cell in indexed.data["value"]] == [cell.tolist() for cell in expected]


@pytest.mark.parametrize(
    ("frame", "error", "message"),
    [
        (np.zeros((3, 2)), TypeError, r"frame is a ndarray; .* such as pd.DataFrame\(frame\)"),
        ({"a": [1]}, TypeError, r"frame is a dict; .* such as pd.DataFrame\(frame\)"),
        ({"a": pd.DataFrame({"id": [1]})}, TypeError, r"pd\.concat\(frame, names=\['kind'\]\)"),
        (pd.DataFrame([[1, 2]]), ValueError, r"column name 0, .* frame.rename\(columns=str\)"),
        (pd.DataFrame([[1, 2]], columns=["id", "id"]), ValueError, "columns with the same name"),
        (pd.DataFrame({"v": [1.0]}, pd.MultiIndex.from_tuples([(0, 0)])), ValueError, "MultiIndex"),
        (pd.DataFrame({"id": [1]}), ValueError, r"frame has no features, only .*\['id'\]"),
    ],
)
def test_what_is_not_a_long_table_is_refused(frame, error, message):
    with pytest.raises(error, match=message):
        from_long(frame, id="id")


def test_ids_may_be_large_decimals():
    ids = pa.array([2**60, 2**60 + 1, 2**60], pa.decimal128(38, 0))
    bunch = from_long(pa.table({"id": ids, "v": [1.0, 2.0, 3.0]}), id="id")
    assert bunch.data["v"].to_pylist() == [[1, 3], [2]]


def test_simultaneous_steps_keep_their_order_if_asked_for():
    frame = pd.DataFrame({"id": 1, "time": [5, 5, 4], "v": [1, 2, 3]})
    with pytest.raises(ValueError, match=r"such as 1 at 5\. Remove .* pass duplicates='keep'"):
        from_long(frame, id="id", time="time")
    bunch = from_long(frame, id="id", time="time", duplicates="keep")
    assert bunch.data["v"][0].tolist() == [3, 1, 2]
    with pytest.raises(ValueError, match="duplicates must be one of 'auto', 'raise', 'keep', got"):
        from_long(frame, id="id", duplicates="drop")


@pytest.mark.parametrize("library", FORMS)
def test_categories_text_and_missing_values_survive(library):
    frame = pd.DataFrame(
        {
            "id": [0, 0, 1],
            "size": pd.Categorical(["S", None, "L"]),
            "text": pd.Series(["a", None, "b"], dtype="str"),
            "is_on": pd.array([True, None, False], dtype="boolean"),
            "count": pd.array([1, None, 3], dtype="Int64"),
            "at": pd.date_range("2024-01-01", periods=3, tz="Europe/Berlin"),
        }
    )
    data = from_long(FORMS[library](frame), id="id").data
    _, features = check_sequences(data, "Classifier")
    assert features.kinds == ((CODE,) * 3 + (NUMBER, CLOCK))
    categories = [vocabulary.categories.tolist() for vocabulary in features.vocabularies]
    assert categories == [["L", "S"], ["a", "b"], [False, True]]


@pytest.mark.parametrize("library", ["pandas", "pyarrow"])  # Categories of polars are text.
def test_numbers_that_are_categories_stay_categories(library):
    frame = FORMS[library](pd.DataFrame({"id": [0, 0, 1], "size": pd.Categorical([10, None, 30])}))
    _, features = check_sequences(from_long(frame, id="id").data, "Classifier")
    assert features.vocabularies[0].categories.tolist() == [10, 30]


def stacked():
    """Return a stacked table of tsfresh, in which two kinds are measured at different times."""
    frame = pd.DataFrame(
        [(7, 2, "b", 5.0), (7, 1, "a", 1.0), (7, 2, "a", 2.0), (3, 1, "a", 8.0), (3, 9, "b", 9.0)],
        columns=["id", "time", "kind", "value"],
    )
    return frame.assign(label=["x", "x", "x", "y", "y"])


def equal_cells(data, expected):
    return all(
        np.array_equal(cell.as_py() if hasattr(cell, "as_py") else cell, values, equal_nan=True)
        for name, cells in expected.items()
        for cell, values in zip(data[name], cells, strict=True)
    )


@pytest.mark.parametrize("library", FORMS)
def test_a_stacked_table_has_a_feature_for_each_kind(library):
    frame = FORMS[library](stacked())
    bunch = from_long(frame, labels="label")
    nan = np.nan
    assert bunch.feature_names == ["a", "b"]
    assert bunch.ids.tolist() == [7, 3]
    assert bunch.target.tolist() == ["x", "y"]
    assert equal_cells(bunch.data, {"a": [[1, 2], [8, nan]], "b": [[nan, 5], [nan, 9]]})
    names = {"column_id": "id", "column_sort": "time", "column_kind": "kind"}
    same = from_long(frame, labels="label", column_value="value", **names)
    assert equal_cells(same.data, {"a": [[1, 2], [8, nan]], "b": [[nan, 5], [nan, 9]]})
    two = from_long(frame, labels="label", kind="kind", value="value", columns=["b", "c"])
    assert equal_cells(two.data, {"b": [[nan, 5], [nan, 9]], "c": [[nan, nan], [nan, nan]]})


def test_a_stacked_table_without_times_counts_the_numbers_of_each_kind():
    frame = stacked().drop(columns=["time", "label"])
    bunch = from_long(frame, id="id", kind="kind", value="value")
    assert equal_cells(bunch.data, {"a": [[1, 2], [8]], "b": [[5, np.nan], [9]]})


def test_the_dates_of_a_stacked_table_are_a_clock():
    frame = stacked().assign(time=pd.to_datetime([2, 1, 2, 1, 9], unit="D"))
    data = from_long(frame, labels="label").data
    assert list(data) == ["time", "a", "b"]
    assert [len(cell) for cell in data["time"]] == [2, 2]


def test_the_kinds_of_a_table_of_events_may_be_a_feature():
    bunch = from_long(stacked(), labels="label", columns=["kind", "value"], duplicates="keep")
    assert bunch.feature_names == ["kind", "value"]
    assert [list(cell) for cell in bunch.data["kind"]][1] == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "kwargs", "message"),
    [
        ({}, {"id": "id", "kind": "kind"}, "kind='kind' and value=None: .* name both"),
        ({}, {}, r"also has the columns \['label'\]\. Remove them"),
        ({"time": 1}, {"labels": "label"}, "several numbers of the kind 'a' at 1 .* rows 1 and 2"),
        ({"value": "x"}, {"labels": "label"}, "'value' .* must be numbers.*columns=.'kind', 'va"),
        ({"kind": ["a", None] + ["b"] * 3}, {"labels": "label"}, "no kind in row 1 of column 'kin"),
        (
            {},
            {"labels": "label", "kind": "kind", "value": "value", "columns": ["c"]},
            "none of col",
        ),
    ],
)
def test_what_is_wrong_in_a_stacked_table_is_named(change, kwargs, message):
    with pytest.raises(ValueError, match=message):
        from_long(stacked().assign(**change), **kwargs)


def test_names_of_parameters_are_checked():
    with pytest.raises(TypeError, match="unexpected keyword argument 'column_ids'"):
        from_long(stacked(), column_ids="id")
    with pytest.raises(TypeError, match="column_id and id are the same parameter"):
        from_long(stacked(), id="id", column_id="id")


def test_the_columns_of_meds_are_recognized():
    frame = pl.DataFrame(
        {
            "subject_id": [7, 7, 5, 7],
            "time": pd.to_datetime(["2024-01-02", "2024-01-01", "2024-01-01", "2024-01-02"]),
            "code": ["LAB", "VISIT", "VISIT", "HR"],  # simultaneous events keep their order
            "numeric_value": [1.5, None, None, 80.0],
        }
    )
    bunch = from_long(frame)
    assert bunch.ids.tolist() == [7, 5]
    assert bunch.data.columns == ["time", "code", "numeric_value"]
    assert bunch.data["code"].to_list() == [["VISIT", "LAB", "HR"], ["VISIT"]]


def test_integer_times_only_sort_the_steps_and_floats_are_a_feature():
    frame = pd.DataFrame({"id": [0, 0], "t": [1, 0], "v": [2.0, 3.0]})
    assert list(from_long(frame, id="id", time="t").data) == ["v"]
    assert list(from_long(frame.astype({"t": float}), id="id", time="t").data) == ["t", "v"]
    assert from_long(frame, id="id", time="t").data["v"][0].tolist() == [3, 2]
    assert from_long(frame, id="id").data["v"][0].tolist() == [2, 3]
    assert from_long(frame, id="id", time="t", columns=["t"]).data["t"][0].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("change", "kwargs", "message"),
    [
        ({}, {"id": "who"}, "frame has no column 'who', but"),
        ({}, {}, "id is None, but the columns are .*name the column"),
        ({"person": [None, "p1", "p1"]}, {"id": "person"}, "no id in row 0 of column 'person'"),
        ({"when": [0.5, None, 1]}, {"id": "person", "time": "when"}, "no time in row 1 of"),
        ({"when": list("abc")}, {"id": "person", "time": "when"}, "'when' .* text .*to_datetime"),
        ({"when": [0, 0, 0]}, {"id": "person", "time": "when"}, "1 rows have .*such as p1 at 0"),
        (
            {"label": list("aab")},
            {"id": "person", "labels": "label"},
            "'label' has several .*'p1', such as 'a' and 'b'",
        ),
    ],
)
@pytest.mark.parametrize("library", FORMS)
def test_errors_name_the_column_and_an_example(library, change, kwargs, message):
    frame = pd.DataFrame(
        {"person": ["p0", "p1", "p1"], "when": [0, 0, 1], "v": [1.0, 2, 3], "label": list("aab")}
    ).assign(**change)
    with pytest.raises(ValueError, match=message):
        from_long(FORMS[library](frame), **kwargs)
