"""Reading of sequences from data frames, and of sequences of text.

- A data frame of pandas, polars or pyarrow has a row for each sequence. The cells of a column are
  the values of one feature at all steps, or a single value for the whole sequence.
- A list of data frames has a frame for each sequence, with a row for each step.
- A sequence of codes may be a string, a character for each step, or an array or list of strings.

All of them become a `Table`, which has a `Column` for each feature.

Shapes: n sequences, T steps, F features, S steps of several sequences.
"""

import re
import reprlib
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import compress

import numpy as np

from sklearn_cls._data.columns import (
    CLOCK,
    NUMBER,
    column_from_array,
    column_from_series,
    is_missing_value,
    library_of,
)

# Names of columns whose values identify a sequence or where it comes from.
ID_NAME = re.compile(
    r"(.*[_. -])?(case|encounter|id|ids|participant|patient|person|recording|session|sequence|"
    r"subject|uid|user|uuid|visit)([_. -]?(id|no|nr|num|number|key))?",
    re.IGNORECASE,
)
STEPS, TEXT, SCALAR = "steps", "text", "scalar"  # what the cells of a column are
LIBRARIES = ("pandas", "polars", "pyarrow")


@dataclass(frozen=True)
class Table:
    """The columns of n sequences.

    Attributes
    ----------
    columns : list of Column
        A feature at the steps of all sequences, one sequence after the other; or, if there are only
        n values, one for each sequence.
    offsets : ndarray of int, (n + 1,)
        Where each sequence begins, and the total number of steps.
    names : list of str or None
        The names of the columns.
    is_2d : bool
        Whether X was 2-D, so that its columns were the steps of a single feature.
    """

    columns: list
    offsets: np.ndarray
    names: list | None = None
    is_2d: bool = False


def read_table(X):
    """Return X as a `Table`; or, if it is an array of numbers or a list of such arrays, as that."""
    if isinstance(X, np.ndarray):
        return _from_array(X) if X.dtype.kind in "OSU" else X
    if is_frame(X):
        reject_multi_index(X)
        return _from_frame(X)
    if is_series(X):
        reject_multi_index(X)
        return _from_series(X)
    return _from_items(X) if isinstance(X, list | tuple) and len(X) else X


def reject_multi_index(X):
    """Raise an error for a frame or series of pandas with a row for each step."""
    if getattr(getattr(X, "index", None), "nlevels", 1) > 1:
        names = [name if name is not None else f"level_{i}" for i, name in enumerate(X.index.names)]
        raise ValueError(
            f"X has a MultiIndex {names}: it is a long table, with a row for each step. Convert it "
            f"to a row for each sequence: sklearn_cls.datasets.from_long(X.reset_index(), "
            f"id={names[0]!r}).data."
        )


def reject_long_table(frame, names, series):
    """Raise an error for a 2-D frame with a column or an index that identifies sequences.

    The evidence is a name such as "id" or "patient_id", and that values are repeated.
    """
    index = getattr(frame, "index", None)
    if getattr(index, "name", None) is not None and _identifies(index.name, index):
        name, remove = index.name, "X.reset_index(drop=True)"
        raise _long_table_error(name, "X.reset_index()", f"the index {name!r}", remove)
    for name, column in zip(names, series, strict=True):
        if _identifies(name, column):
            raise _long_table_error(name, "X", f"a column {name!r}", f"X without {name!r}")


def _identifies(name, values):
    """Return whether the name of a column is that of an identifier, and its values are repeated."""
    return (
        ID_NAME.fullmatch(str(name)) is not None
        and len(values) > 1
        and len(values.unique()) < len(values)
    )


def _long_table_error(name, frame, where, remove):
    return ValueError(
        f"X has {where} with repeated values, but no lists in its cells. If X is a long table, "
        "with a row for each step, convert it to a row for each sequence: "
        f"sklearn_cls.datasets.from_long({frame}, id={name!r}).data. If each row is a sequence, "
        f"whose steps are the columns, pass {remove}."
    )


def as_arrow_table(X):
    """Return arrays of awkward, arrays of pyarrow and record batches in the form of a data frame.

    Those with fields become a table, others a chunked array. All else is returned as it is.
    """
    library, name = library_of(X), type(X).__name__
    if library == "awkward":
        import awkward as ak

        X = ak.to_arrow(X, extensionarray=False)
    elif library != "pyarrow" or name in ("ChunkedArray", "Table"):
        return X
    import pyarrow as pa

    if isinstance(X, pa.RecordBatch):
        return pa.Table.from_batches([X])
    if isinstance(X, pa.StructArray):
        return pa.Table.from_struct_array(X)
    return pa.chunked_array([X]) if isinstance(X, pa.Array) else X


def is_frame(X):
    """Return whether X is a data frame of pandas or polars, or a table of pyarrow."""
    return library_of(X) in LIBRARIES and len(getattr(X, "shape", ())) == 2


def is_series(X):
    """Return whether X is a series of pandas or polars, or an array of pyarrow."""
    return library_of(X) in LIBRARIES and not is_frame(X) and hasattr(X, "__len__")


def names_of(frame):
    """Return the names of the columns of a data frame."""
    return list(getattr(frame, "column_names", frame.columns))


def series_of(frame):
    """Return the columns of a data frame, as series or arrays of its library."""
    library, n = library_of(frame), frame.shape[1]
    if library == "pandas":
        return [frame.iloc[:, j] for j in range(n)]
    return [frame.to_series(j) if library == "polars" else frame.column(j) for j in range(n)]


def _from_frame(frame):
    """Return a data frame as a table; as it is if it is a 2-D array of numbers."""
    names, series = names_of(frame), series_of(frame)
    contents = [_content(s) for s in series]
    if STEPS not in contents:
        return _from_2d_frame(frame, names, series, contents)
    if len(names) == 1:
        return _from_nested_series(series[0], names[0])
    return _from_columns(names, series, contents)


def _from_columns(names, series, contents):
    """Return columns, of which at least one has sequences in its cells, as a table.

    A column is a series or an array of objects.
    """
    columns, all_names, lengths, first = [], [], None, None
    for s, name, content in zip(series, names, contents, strict=True):
        if content == STEPS:
            if (flat := flatten(s, name)) is None:
                raise ValueError(
                    f"column {name!r} of X has cells with two dimensions, beside other columns; "
                    "make each feature a column, or pass a list of arrays of shape (steps, "
                    "features)."
                )
            parts, n_steps = flat
            if lengths is None:
                lengths, first = n_steps, name
            _check_equal(n_steps, lengths, name, first)
        else:
            column = column_from_series(s, f"column {name!r} of X")
            if column.kind == CLOCK:
                raise ValueError(
                    f"column {name!r} of X has one date for each sequence, but only a column whose "
                    "cells have a time for each step can be a clock. Pass a number instead, such "
                    "as an age, or leave the column out."
                )
            parts = {name: column}
        columns += parts.values()
        all_names += parts
    return Table(columns, offsets_of(lengths), all_names)


def _check_equal(n_steps, expected, name, first):
    """Raise an error unless two columns have cells of the same lengths."""
    if not np.array_equal(n_steps, expected):
        i = int((n_steps != expected).argmax())
        if 0 in (n_steps[i], expected[i]):
            missing, other = (first, name) if n_steps[i] else (name, first)
            raise ValueError(
                f"column {missing!r} of X is empty or missing in row {i}, but column {other!r} is "
                "not. If the values are unknown, use a list of NaN; otherwise remove this sequence "
                "and its label."
            )
        raise ValueError(
            f"X has {n_steps[i]} steps in column {name!r} of row {i}, but {expected[i]} in column "
            f"{first!r}; all sequences of a row must have the same length."
        )


def offsets_of(lengths):
    """Return where each sequence begins, and the total number of steps, (n + 1,)."""
    return np.concatenate([[0], np.cumsum(lengths)])


def _content(series):
    """Return what the cells of a series, or of an array of objects, are: STEPS, TEXT or SCALAR."""
    import narwhals as nw

    is_array = isinstance(series, np.ndarray)
    dtype = nw.Object if is_array else nw.from_native(series, series_only=True).dtype
    if dtype in (nw.List, nw.Array):
        return STEPS
    if dtype == nw.String:
        return TEXT
    if dtype != nw.Object:
        return SCALAR
    cell = next((cell for cell in series if not is_missing_value(cell)), None)
    if isinstance(cell, str | bytes):
        return TEXT
    return STEPS if hasattr(cell, "__len__") else SCALAR


def _from_series(series):
    """Return a series as a table, or as a list of arrays if its cells are 2-D."""
    content = _content(series)
    if content == TEXT:
        return _from_strings(_as_list(series))
    return _from_nested_series(series) if content == STEPS else series


def _from_nested_series(series, name=None):
    """Return a series whose cells are sequences, the only column of X, as a table.

    If the cells are arrays (T, F) or lists of steps, return a list of arrays.
    """
    if _has_frames(series):
        return _from_items(list(series))
    parts = flatten(series, name)
    if parts is None:
        return _from_items([as_array(cell) for cell in _as_list(series)])
    columns, lengths = parts
    names = None if name is None else list(columns)
    return Table(list(columns.values()), offsets_of(lengths), names)


def _as_list(series):
    """Return the cells of a series as a list; nested ones of polars and pyarrow as nested lists."""
    library = library_of(series)
    if library == "polars":
        return series.to_list()
    return series.to_pylist() if library == "pyarrow" else list(series)


def _has_frames(series):
    """Return whether the cells of a series are data frames."""
    return library_of(series) == "pandas" and len(series) > 0 and is_frame(series.iloc[0])


def flatten(series, name):
    """Return the columns in the cells of a series by their names, and the lengths of the cells.

    There is one column, or one for each field of a struct. If the cells are 2-D, return None.
    """
    import narwhals as nw

    where = "X" if name is None else f"column {name!r} of X"
    if (
        isinstance(series, np.ndarray)
        or nw.from_native(series, series_only=True).dtype == nw.Object
    ):
        return _flatten_objects(list(series), name, where)
    flat, lengths = _flatten_lists(series)
    inner = nw.from_native(flat, series_only=True).dtype
    if inner in (nw.List, nw.Array):
        return None
    if inner == nw.Struct:
        fields = nw.from_native(flat, series_only=True).struct
        names = [field.name for field in inner.fields]
        return {
            n: column_from_series(fields.field(n).to_native(), f"field {n!r} of {where}")
            for n in names
        }, lengths
    return {name: column_from_series(flat, where)}, lengths


def _flatten_lists(series):
    """Return the items of all lists of a series, and the lengths of the lists."""
    if library_of(series) == "polars":
        import polars as pl

        if isinstance(series.dtype, pl.Array):
            series = series.arr.to_list()
        lengths = series.list.len().fill_null(0)
        return series.filter(lengths > 0).explode(), lengths.to_numpy().astype(np.int64)
    import pyarrow as pa
    import pyarrow.compute as pc

    if library_of(series) == "pandas":
        series = pa.chunked_array([pa.array(series)])
    lengths = pc.list_value_length(series).fill_null(0).to_numpy().astype(np.int64)
    return pc.list_flatten(series), lengths


def _flatten_objects(cells, name, where):
    """Return the items of cells that are lists, arrays or series, and their lengths."""
    if all(library_of(cell) == "pandas" and not is_frame(cell) for cell in cells):
        import pandas as pd

        lengths = np.array([len(cell) for cell in cells])
        flat = pd.concat([pd.Series(cell) for cell in cells], ignore_index=True)
        return {name: column_from_series(flat, where)}, lengths
    arrays = [_as_cell(cell, i, where) for i, cell in enumerate(cells)]
    if any(array.ndim > 1 or _holds_arrays(array) for array in arrays):
        return None
    column = column_from_array(concatenate(arrays), where)
    return {name: column}, np.array([len(array) for array in arrays])


def _as_cell(cell, i, where):
    """Return the cell of a row as an array."""
    if is_missing_value(cell):
        return np.empty(0)
    if isinstance(cell, dict) or not hasattr(cell, "__len__") or isinstance(cell, str | bytes):
        raise ValueError(
            f"row {i} of {where} is a {type(cell).__name__}, but other rows are sequences; every "
            "cell must be a list or an array."
        )
    return as_array(cell)


def as_array(cell):
    """Return a sequence as an array; one of rows, which is what parquet files give, as 2-D."""
    array = np.asarray(cell)
    if array.ndim == 1 and array.size and _holds_arrays(array):
        rows = [np.asarray(row) for row in array]
        if len({row.shape for row in rows}) == 1:
            return np.stack(rows)
    return array


def _holds_arrays(array):
    """Return whether an array of objects holds sequences."""
    return array.dtype == object and any(
        hasattr(item, "__len__") and not isinstance(item, str | bytes | dict) for item in array
    )


def concatenate(arrays):
    """Return arrays of any kind as one, of objects if numbers are mixed with text."""
    kinds = {array.dtype.kind for array in arrays if array.size}
    if len(kinds) > 1 and not kinds <= set("iuf"):
        arrays = [array.astype(object) for array in arrays]
    return np.concatenate([array for array in arrays if array.size] or arrays)


def _from_2d_frame(frame, names, series, contents):
    """Return a frame whose columns are steps as a table of codes; as it is if it holds numbers."""
    import narwhals as nw

    reject_long_table(frame, names, series)
    dtypes = [nw.from_native(s, series_only=True).dtype for s in series]
    times = [n for n, t in zip(names, dtypes, strict=True) if t.is_temporal()]
    if times:
        raise ValueError(
            f"Column {times[0]!r} of X holds dates. A data frame without lists in its cells is an "
            "array (n_sequences, n_steps) of real numbers: encode text or dates as numbers. If X "
            "has a row for each step, convert it by sklearn_cls.datasets.from_long; the times of "
            "the steps are then a clock."
        )
    is_code = [
        content == TEXT or dtype in (nw.Categorical, nw.Enum)
        for dtype, content in zip(dtypes, contents, strict=True)
    ]
    if not any(is_code):
        return frame
    if len(names) == 1:
        return _from_strings(_as_list(series[0]))
    where = [f"column {name!r} of X" for name in names]
    if not all(is_code):
        codes = map(column_from_series, compress(series, is_code), compress(where, is_code))
        if all(column.holds_numbers for column in codes):
            return frame
        code, other = (names[is_code.index(value)] for value in (True, False))
        raise ValueError(
            f"Column {code!r} of X holds text or categories, and column {other!r} numbers. A data "
            "frame without lists in its cells is an array (n_sequences, n_steps) of a single "
            "feature. If X has a row for each step, convert it by "
            "sklearn_cls.datasets.from_long(X, id=...); if it has no steps, use another classifier."
        )
    columns = list(map(column_from_series, series, where))
    values = np.stack([np.append(c.codes, [None])[c.values] for c in columns], axis=1)
    n_sequences, n_steps = values.shape
    column = column_from_array(values.reshape(-1), "X")
    return Table([column], n_steps * np.arange(n_sequences + 1), names, is_2d=True)


def _from_array(X):
    """Return an array of text or objects as a table, or as it is if it holds numbers."""
    if X.ndim == 1 and X.size:
        return _from_items(list(X))
    if X.ndim == 2 and _holds_arrays(X.reshape(-1)):  # A ColumnTransformer makes such arrays.
        names, columns = range(X.shape[1]), list(X.T)
        table = _from_columns(names, columns, [_content(column) for column in columns])
        return replace(table, names=None)
    if X.ndim not in (2, 3) or X.size == 0 or (X.dtype == object and not _holds_text(X)):
        return X
    n_sequences, n_steps = X.shape[:2]
    values = X.reshape(n_sequences * n_steps, -1)  # (S, F)
    columns = [column_from_array(column, f"feature {j} of X") for j, column in enumerate(values.T)]
    return Table(columns, n_steps * np.arange(n_sequences + 1), is_2d=X.ndim == 2)


def _holds_text(array):
    return any(isinstance(value, str | bytes) for value in array.flat)


def _from_items(X):
    """Return a list of sequences as a table, or as a list of arrays if they are numbers."""
    if all(isinstance(x, str | bytes) or is_missing_value(x) for x in X):
        return _from_strings(X)
    if all(map(is_frame, X)):
        return _from_frames(X)
    if any(isinstance(x, dict) for x in X):
        i = next(i for i, x in enumerate(X) if isinstance(x, dict))
        raise TypeError(
            f"X[{i}] is a dict; stack its features into an array: [np.stack(list(x.values()), "
            "axis=-1) for x in X]."
        )
    if not any(map(_may_hold_codes, X)):
        return X
    if all(map(is_series, X)) and library_of(X[0]) == "pandas":
        columns, lengths = _flatten_objects(X, None, "X")
        table = Table(list(columns.values()), offsets_of(lengths))
        return X if table.columns[0].kind == NUMBER else table
    items = [as_array(x) for x in X]
    if any(x.ndim not in (1, 2) or (x.size and _holds_arrays(x.reshape(-1))) for x in items):
        return X
    matrices = [x.reshape(len(x), -1) for x in items]
    if len({x.shape[1] for x in matrices if x.size}) != 1:
        return items
    values = concatenate(matrices)  # (S, F)
    if values.dtype == object and not any(map(_is_code_or_time, values.flat)):
        return items
    columns = [column_from_array(c, f"feature {j} of X") for j, c in enumerate(values.T)]
    is_number = all(column.kind == NUMBER for column in columns)
    return items if is_number else Table(columns, offsets_of([len(x) for x in items]))


def _may_hold_codes(x):
    """Return whether a sequence may be other than an array of numbers."""
    if isinstance(x, np.ndarray):
        return x.dtype.kind in "OSU"
    if isinstance(x, list | tuple):
        while isinstance(x, list | tuple):
            x = next((item for item in x if not is_missing_value(item)), None)
        return _is_code_or_time(x) or isinstance(x, np.ndarray)
    return is_series(x)


def _is_code_or_time(value):
    return isinstance(value, str | bytes | date | timedelta | np.datetime64 | np.timedelta64)


def _from_frames(frames):
    """Return a list of data frames, one for each sequence, as a table."""
    library, names = library_of(frames[0]), names_of(frames[0])
    if library == "pandas":
        _reject_transposed(frames)
    if any(library_of(frame) != library or names_of(frame) != names for frame in frames):
        return frames  # reported by `column_names_of_items`
    if library == "pandas":
        import pandas as pd

        whole = pd.concat(frames, ignore_index=True)
    elif library == "polars":
        import polars as pl

        whole = pl.concat(frames, how="vertical_relaxed")
    else:
        import pyarrow as pa

        whole = pa.concat_tables(frames, promote_options="permissive")
    columns = [
        column_from_series(s, f"column {n!r} of X")
        for s, n in zip(series_of(whole), names, strict=True)
    ]
    return Table(columns, offsets_of([len(frame) for frame in frames]), names)


def _reject_transposed(frames):
    """Raise an error for frames of pandas whose rows are named like features, and columns not."""
    first = frames[0]
    if (
        all(isinstance(name, str) for name in first.index)
        and not any(isinstance(name, str) for name in first.columns)
        and all(first.index.equals(getattr(frame, "index", None)) for frame in frames)
    ):
        raise ValueError(
            f"The rows of the data frames in X are named {reprlib.repr(list(first.index))}, as "
            "features are, but the columns must be the features: pass [x.T for x in X]."
        )


def _from_strings(strings):
    """Return a list of strings as a table: a character is the code of a step."""
    for i, string in enumerate(strings):
        if is_missing_value(string):
            raise ValueError(f"X[{i}] is missing ({string!r}); remove this sequence and its label.")
    if all(isinstance(string, str) for string in strings):
        characters = np.frombuffer("".join(strings).encode("utf-32-le"), dtype="<U1")
    else:
        strings = [s if isinstance(s, bytes) else s.encode() for s in strings]
        characters = np.frombuffer(b"".join(strings), dtype="S1")
    column = column_from_array(characters, "X")
    return Table([column], offsets_of([len(string) for string in strings]))
