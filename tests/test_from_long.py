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
    for given in (labels, pd.Series(labels)):
        bunch = from_long(frame, id="person", time="when", labels=given, columns=["value"])
        assert bunch.target.tolist() == [labels[i] for i in bunch.ids]
        assert list(bunch.data) == ["when", "value"]
        assert bunch.groups is None
    del labels["p3"]
    with pytest.raises(ValueError, match=r"labels has no value for 1 ids, such as \['p3'\]"):
        from_long(frame, id="person", labels=labels)


def test_several_columns_may_be_the_id():
    frame = pd.DataFrame({"a": [0, 0, 1, 1], "b": ["x", "y", "x", "x"], "v": [1.0, 2, 3, 4]})
    bunch = from_long(frame, id=["a", "b"])
    assert bunch.ids.tolist() == [[0, "x"], [0, "y"], [1, "x"]]
    assert [v.tolist() for v in bunch.data["v"]] == [[1], [2], [3, 4]]
    given = {(0, "x"): "p", (0, "y"): "q", (1, "x"): "r"}
    assert from_long(frame, id=["a", "b"], labels=given).target.tolist() == ["p", "q", "r"]


def test_the_columns_of_meds_are_recognized():
    frame = pl.DataFrame(
        {
            "subject_id": [7, 7, 5],
            "time": pd.to_datetime(["2024-01-02", "2024-01-01", "2024-01-01"]),
            "code": ["LAB", "VISIT", "VISIT"],
            "numeric_value": [1.5, None, None],
        }
    )
    bunch = from_long(frame)
    assert bunch.ids.tolist() == [7, 5]
    assert bunch.data.columns == ["time", "code", "numeric_value"]
    assert bunch.data["code"].to_list() == [["VISIT", "LAB"], ["VISIT"]]


def test_integer_times_only_sort_the_steps_and_floats_are_a_feature():
    frame = pd.DataFrame({"id": [0, 0], "t": [1, 0], "v": [2.0, 3.0]})
    assert list(from_long(frame, id="id", time="t").data) == ["v"]
    assert list(from_long(frame.astype({"t": float}), id="id", time="t").data) == ["t", "v"]
    assert from_long(frame, id="id", time="t").data["v"][0].tolist() == [3, 2]
    assert from_long(frame, id="id").data["v"][0].tolist() == [2, 3]


@pytest.mark.parametrize(
    ("change", "kwargs", "message"),
    [
        ({}, {"id": "who"}, "frame has no column 'who', but"),
        ({}, {}, "id is None, but the columns are .*name the column"),
        ({"person": [None, "p1", "p1"]}, {"id": "person"}, "no id in row 0 of column 'person'"),
        ({"when": [0.5, None, 1]}, {"id": "person", "time": "when"}, "no time in row 1 of"),
        ({"when": [0, 0, 0]}, {"id": "person", "time": "when"}, "1 rows have .*such as p1 at 0"),
        ({"label": list("aab")}, {"id": "person", "labels": "label"}, "'label' has several .*'p1'"),
    ],
)
@pytest.mark.parametrize("library", FORMS)
def test_errors_name_the_column_and_an_example(library, change, kwargs, message):
    frame = pd.DataFrame(
        {"person": ["p0", "p1", "p1"], "when": [0, 0, 1], "v": [1.0, 2, 3], "label": list("aab")}
    ).assign(**change)
    with pytest.raises(ValueError, match=message):
        from_long(FORMS[library](frame), **kwargs)
