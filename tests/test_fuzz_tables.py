"""Random tables: every container gives the same predictions, and what is wrong is refused by name.

By default, the same 200 examples are drawn each time; FUZZ_EXAMPLES=2000 draws 2000 new ones.
"""

import os
import re
import tempfile
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from sklearn_cls import CLSTransformerClassifier

fuzz = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", 200)) // 2,  # for each of the two tests
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    database=None,
    deadline=timedelta(seconds=20),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TINY = {
    "d_model": 8, "n_heads": 2, "dim_feedforward": 8, "depth": 1, "max_epochs": 1, "n_jobs": 1,
    "random_state": 0,
}  # fmt: skip
CODES = {"text": ["a", "b", "\u00e9", "a word"], "booleans": [True, False]}


@st.composite
def tables(draw):
    """Draw the columns of a table: {name: (kind, is_steps, cells)}.

    The cells are lists of values of equal lengths, or single values.
    """
    n = draw(st.integers(4, 7))
    lengths = draw(st.lists(st.integers(1, 5), min_size=n, max_size=n))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    kinds = ["number", *draw(st.lists(st.sampled_from(["number", *CODES]), max_size=3))]
    if draw(st.booleans()):
        kinds.append("clock")
    names = draw(
        st.lists(
            st.text("abcxyz \u00e9_", min_size=1, max_size=6).map(str.strip).filter(bool),
            min_size=len(kinds), max_size=len(kinds), unique=True,
        )
    )  # fmt: skip
    has_missing = draw(st.booleans())
    table = {}
    for i in draw(st.permutations(range(len(kinds)))):
        kind = kinds[i]
        is_steps = i == 0 or kind == "clock" or draw(st.booleans())
        sizes = lengths if is_steps else [1] * n
        cells = [values(rng, kind, size, has_missing and i > 0) for size in sizes]
        table[names[i]] = (kind, is_steps, cells if is_steps else [cell[0] for cell in cells])
    return table


def values(rng, kind, n, has_missing):
    """Return n random values of a kind, some of which are None if `has_missing`."""
    if kind == "number":
        result = rng.normal(3, 100, size=n).tolist()
    elif kind == "clock":
        gaps = np.round(10.0 ** rng.uniform(-2, 6, size=n) * 1000).astype("m8[ms]")
        return (np.datetime64("2024-01-01", "ms") + gaps.cumsum()).tolist()
    else:
        result = [CODES[kind][i] for i in rng.integers(len(CODES[kind]), size=n)]
    return [None if has_missing and rng.random() < 0.2 else value for value in result]


def as_arrow(table):
    types = {"number": pa.float64(), "text": pa.string(), "booleans": pa.bool_(),
             "clock": pa.timestamp("ms")}  # fmt: skip
    columns = {}
    for name, (kind, is_steps, cells) in table.items():
        columns[name] = pa.array(cells, pa.list_(types[kind]) if is_steps else types[kind])
    return pa.table(columns)


def as_pandas(table):
    return pd.DataFrame({name: objects(cells) for name, (_, _, cells) in table.items()})


def objects(cells):
    array = np.empty(len(cells), dtype=object)
    array[:] = cells
    return pd.Series(array).infer_objects()


def as_frames(table, library):
    """Return a list of data frames, one for each sequence; single values are repeated."""
    n = len(next(iter(table.values()))[2])
    whole, frames = as_arrow(table), []
    for i in range(n):
        n_steps = max(len(cells[i]) for _, is_steps, cells in table.values() if is_steps)
        columns = {}
        for name, (_, is_steps, cells) in table.items():
            kind = whole.schema.field(name).type
            values = cells[i] if is_steps else [cells[i]] * n_steps
            columns[name] = pa.array(values, kind.value_type if is_steps else kind)
        frame = pa.table(columns)
        frames.append({"pandas": frame.to_pandas, "polars": lambda f=frame: pl.from_arrow(f),
                       "pyarrow": lambda f=frame: f}[library]())  # fmt: skip
    return frames


def as_file(table, open_file):
    with tempfile.NamedTemporaryFile(suffix=".parquet", delete=False) as file:
        path = Path(file.name)
    pq.write_table(as_arrow(table), path, row_group_size=3)
    try:
        return open_file(path)
    finally:
        path.unlink()  # An open file can still be read.


CONTAINERS = {
    "pandas": as_pandas,
    "pandas, Arrow types": lambda table: as_arrow(table).to_pandas(types_mapper=pd.ArrowDtype),
    "pandas, arrays": lambda table: as_arrow(table).to_pandas(),
    "polars": lambda table: pl.from_arrow(as_arrow(table)),
    "pyarrow": as_arrow,
    "pyarrow, chunks": lambda table: pa.concat_tables([as_arrow(table)[:2], as_arrow(table)[2:]]),
    "record batch": lambda table: as_arrow(table).combine_chunks().to_batches()[0],
    "frames of pandas": lambda table: as_frames(table, "pandas"),
    "frames of polars": lambda table: as_frames(table, "polars"),
    "frames of pyarrow": lambda table: as_frames(table, "pyarrow"),
    "Parquet file": lambda table: as_file(
        table, lambda path: pq.ParquetFile(path, memory_map=True)
    ),
}


def without(table, name):
    return {other: column for other, column in table.items() if other != name}


def renamed(table, name):
    return {f"{n} 2" if n == name else n: column for n, column in table.items()}


def moved(table, name):
    return {**without(table, name), name: table[name]}


def of_another_kind(table, name):
    kind, is_steps, cells = table[name]
    value = 1.5 if kind in ("text", "clock") else "new"
    cells = [[value] * len(cell) for cell in cells] if is_steps else [value] * len(cells)
    return {**table, name: ("number" if value == 1.5 else "text", is_steps, cells)}


def longer(table, name):
    kind, is_steps, cells = table[name]
    return {**table, name: (kind, is_steps, [[*cells[0], cells[0][-1]], *cells[1:]])}


@fuzz
@given(table=tables(), data=st.data())
def test_every_container_gives_the_same_predictions(table, data):
    forms = data.draw(st.lists(st.sampled_from(sorted(CONTAINERS)), min_size=2, max_size=3))
    for form in forms:
        event(form)
    y = np.arange(len(next(iter(table.values()))[2])) % 2
    clf = CLSTransformerClassifier(**TINY).fit(CONTAINERS[forms[0]](table), y)
    assert clf.feature_names_in_.tolist() == list(table)
    expected = clf.predict_proba(CONTAINERS[forms[0]](table))
    assert np.isfinite(expected).all()
    for form in forms[1:]:
        assert np.array_equal(clf.predict_proba(CONTAINERS[form](table)), expected), form


@fuzz
@given(table=tables(), data=st.data())
def test_what_is_wrong_is_refused_by_the_name_of_the_column(table, data):
    name = data.draw(st.sampled_from(sorted(table)))
    changes = [renamed, of_another_kind]
    if len(table) > 1:
        changes += [without]
        changes += [moved] if list(table)[-1] != name else []
        n_steps_columns = sum(is_steps for _, is_steps, _ in table.values())
        changes += [longer] if table[name][1] and n_steps_columns > 1 else []
    change = data.draw(st.sampled_from(changes))
    form = data.draw(st.sampled_from(sorted(set(CONTAINERS) - {"frames of pyarrow"})))
    event(change.__name__)
    y = np.arange(len(next(iter(table.values()))[2])) % 2
    clf = CLSTransformerClassifier(**TINY).fit(as_arrow(table), y)
    before = clf.predict_proba(as_arrow(table))
    if change is longer and form.startswith("frames"):
        form = "polars"  # The columns of a frame always have equal lengths.
    with pytest.raises((ValueError, TypeError)) as info:
        clf.predict(CONTAINERS[form](change(table, name)))
    message = str(info.value)
    may_be_about = [name, "feature names", "in the same order", "features, but"]
    assert any(re.search(re.escape(words), message) for words in may_be_about), message
    assert np.array_equal(clf.predict_proba(as_arrow(table)), before)
