"""What data frames and series of pandas, polars and pyarrow have in common."""

from sklearn_cls._data.columns import library_of

LIBRARIES = ("pandas", "polars", "pyarrow")


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


def as_list(series):
    """Return the cells of a series as a list; nested ones of polars and pyarrow as nested lists."""
    library = library_of(series)
    if library == "polars":
        return series.to_list()
    return series.to_pylist() if library == "pyarrow" else list(series)
