"""The cells of a column: sequences, of which the values of all rows are put together, or values.

Shapes: T steps, F features.
"""

import numpy as np

from sklearn_cls._data.columns import (
    column_from_array,
    column_from_series,
    is_missing_value,
    library_of,
)
from sklearn_cls._data.frames import is_frame

STEPS, TEXT, SCALAR = "steps", "text", "scalar"  # what the cells of a column are


def content_of(series):
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
        return flatten_objects(list(series), name, where)
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


def flatten_objects(cells, name, where):
    """Return the items of cells that are lists, arrays or series, and their lengths."""
    if all(library_of(cell) == "pandas" and not is_frame(cell) for cell in cells):
        import pandas as pd

        lengths = np.array([len(cell) for cell in cells])
        flat = pd.concat([pd.Series(cell) for cell in cells], ignore_index=True)
        return {name: column_from_series(flat, where)}, lengths
    arrays = [_as_cell(cell, i, where) for i, cell in enumerate(cells)]
    if any(array.ndim > 1 or holds_arrays(array) for array in arrays):
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
    if array.ndim == 1 and array.size and holds_arrays(array):
        rows = [np.asarray(row) for row in array]
        if len({row.shape for row in rows}) == 1:
            return np.stack(rows)
    return array


def holds_arrays(array):
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
