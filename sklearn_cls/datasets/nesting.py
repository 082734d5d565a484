"""Data frames with a sequence in each cell, from tables with a row for each step."""

from itertools import pairwise

import numpy as np


def nested(table, offsets):
    """Return a data frame with a row for each sequence.

    Parameters
    ----------
    table : narwhals.DataFrame
        The steps of all sequences, one sequence after the other.
    offsets : ndarray of int, (n + 1,)
        Where each sequence begins, and the total number of steps.
    """
    library = str(table.implementation)
    if library == "polars":
        return _nested_polars(table, offsets)
    if library == "pandas":
        return _nested_pandas(table.to_native(), offsets)
    return _nested_pyarrow(table.to_arrow(), offsets)


def _nested_polars(table, offsets):
    import narwhals as nw
    import polars as pl

    name = nw.generate_temporary_column_name(8, table.columns)
    number = pl.Series(name, np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)))
    return table.to_native().group_by(number, maintain_order=True).agg(pl.all()).drop(name)


def _nested_pyarrow(table, offsets):
    import pyarrow as pa

    columns = [column.combine_chunks() for column in table.unify_dictionaries().columns]
    lists = [_lists(column, offsets) for column in columns]
    return pa.table(dict(zip(table.column_names, lists, strict=True)))


def _lists(values, offsets):
    """Return an array of pyarrow as one of lists."""
    import pyarrow as pa

    is_large = offsets[-1] > np.iinfo(np.int32).max
    cls, dtype = (pa.LargeListArray, pa.int64()) if is_large else (pa.ListArray, pa.int32())
    return cls.from_arrays(pa.array(offsets, dtype), values)


def _nested_pandas(frame, offsets):
    import pandas as pd

    return pd.DataFrame({name: _cells(frame[name], offsets) for name in frame.columns})


def _cells(column, offsets):
    """Return a series with the values of a sequence in each cell.

    The cells are arrays of NumPy, or lists of pyarrow for dtypes that NumPy lacks, in which
    categories stay categories.
    """
    import pandas as pd

    if column.dtype.kind in "biufmM" and isinstance(column.dtype, np.dtype):
        values = column.to_numpy()
    elif column.dtype == object:
        values = column.to_numpy()
    elif isinstance(column.dtype, pd.StringDtype):
        # Equal strings are the same object, which saves memory.
        codes, items = pd.factorize(column)
        values = np.append(np.asarray(items, dtype=object), [None])[codes]
    else:
        try:
            import pyarrow as pa
        except ImportError:
            values = column.array
        else:
            array = pa.array(column)
            if isinstance(array, pa.ChunkedArray):
                array = array.unify_dictionaries().combine_chunks()
            lists = _lists(array, offsets)
            return pd.Series(lists, dtype=pd.ArrowDtype(lists.type))
    cells = [values[start:stop] for start, stop in pairwise(offsets.tolist())]
    return pd.Series(cells, dtype=object)
