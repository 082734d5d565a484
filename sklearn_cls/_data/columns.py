"""The values of one feature at all steps: numbers, codes or the time stamps of a clock.

Shapes: S steps of several sequences, K distinct codes.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from numbers import Real

import numpy as np

NUMBER, CODE, CLOCK = "number", "code", "clock"
MISSING_TYPES = {"NoneType", "NAType", "NaTType"}  # NaTType and NAType are those of pandas


@dataclass(frozen=True)
class Column:
    """The values of one feature.

    Attributes
    ----------
    kind : {"number", "code", "clock"}
    values : ndarray (S,)
        Numbers of any real dtype, NaN if missing; or positions in `codes`, -1 if missing; or
        time stamps as datetime64 or timedelta64.
    codes : ndarray (K,) of object or None
        The distinct codes of a code column, in any order.
    """

    kind: str
    values: np.ndarray
    codes: np.ndarray | None = None

    def as_codes(self):
        """Return a column of numbers as codes."""
        if self.kind == CODE:
            return self
        is_known = ~np.isnan(self.values)
        codes, positions = np.unique(self.values[is_known], return_inverse=True)
        values = np.full(len(self.values), -1)
        values[is_known] = positions
        return Column(CODE, values, codes.astype(object))

    def counts(self):
        """Return the codes that occur, and how often each does."""
        counts = np.bincount(self.values[self.values >= 0], minlength=len(self.codes))
        return self.codes[counts > 0], counts[counts > 0]

    @property
    def holds_numbers(self):
        """Whether all codes are numbers or booleans; True for other columns, too."""
        return self.codes is None or all(isinstance(code, Real) for code in self.codes)

    @property
    def holds_bytes(self):
        """Whether all codes are bytes."""
        return len(self.codes) > 0 and all(isinstance(code, bytes) for code in self.codes)

    def as_numbers(self):
        """Return a code column whose codes are numbers as a column of numbers."""
        numbers = np.append(self.codes.astype(np.float64), np.nan)
        return Column(NUMBER, numbers[self.values])


def library_of(X):
    """Return the name of the package that defines the class of X."""
    return type(X).__module__.partition(".")[0]


def column_from_series(series, name):
    """Return a series of pandas or polars, a chunked array of pyarrow or an array as a `Column`.

    `name` is what error messages call it.
    """
    import narwhals as nw

    if isinstance(series, np.ndarray):
        return column_from_array(series, name)
    series = nw.from_native(series, series_only=True)
    dtype = series.dtype
    if series.null_count() == len(series):
        return Column(NUMBER, np.full(len(series), np.nan))
    if dtype.is_numeric():
        if dtype.is_decimal():
            series = series.cast(nw.Float64)
        if not series.null_count():
            return column_from_array(series.to_numpy(), name)
        # Arrow refuses to cast integers beyond 2**53, which NumPy rounds.
        values = series.fill_null(0).to_numpy().astype(np.float64)
        return Column(NUMBER, np.where(series.is_null().to_numpy(), np.nan, values))
    if dtype in (nw.Categorical, nw.Enum, nw.String, nw.Boolean):
        return _code_column(series.to_native())
    if dtype in (nw.Datetime, nw.Date, nw.Duration):
        if dtype == nw.Datetime and dtype.time_zone is not None:
            series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return column_from_array(series.to_numpy(), name)
    if dtype == nw.Object:
        return column_from_array(np.asarray(series.to_native(), dtype=object), name)
    dtype = getattr(series.to_native(), "dtype", dtype)  # narwhals calls some of them unknown.
    raise ValueError(
        f"{name} has dtype {dtype}; pass numbers, text, categories, or times with a date."
    )


def _code_column(series):
    """Return a series of text, categories or booleans as a column of codes."""
    library = library_of(series)
    if library == "polars":
        codes = series.unique().drop_nulls().sort().to_list()
        values = series.rank("dense").fill_null(0).to_numpy().astype(np.int64) - 1
    elif library == "pandas":
        import pandas as pd

        values, codes = pd.factorize(series)
        codes = codes.tolist()
    else:  # pyarrow
        array = series.combine_chunks()
        if not hasattr(array, "dictionary"):
            array = array.dictionary_encode()
        codes = array.dictionary.to_pylist()
        values = array.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return Column(CODE, values, as_objects(codes))


def column_from_array(values, name):
    """Return an array (S,) as a `Column`; booleans and text are codes."""
    kind = values.dtype.kind
    if kind in "iuf":
        return Column(NUMBER, values)
    if kind in "bUS":
        codes, positions = np.unique(values, return_inverse=True)
        return Column(CODE, positions.reshape(-1), as_objects(codes.tolist()))
    if kind in "mM":
        return Column(CLOCK, values)
    if kind == "O":
        return _column_from_objects(values, name)
    raise ValueError(f"{name} has dtype {values.dtype}; pass numbers, text, categories or times.")


def _column_from_objects(values, name):
    """Return an array of Python objects as a `Column`, by the types of the known values."""
    is_missing = np.array([is_missing_value(value) for value in values], dtype=bool)
    known = values[~is_missing]
    types = {type(value) for value in known}
    if not types:
        return Column(NUMBER, np.full(len(values), np.nan))
    if all(issubclass(t, str | bytes | bool | np.bool_) for t in types):
        codes = {}
        positions = np.full(len(values), -1)
        positions[~is_missing] = [codes.setdefault(value, len(codes)) for value in known]
        return Column(CODE, positions, as_objects(list(codes)))
    if all(issubclass(t, datetime | date | np.datetime64) for t in types):
        return Column(CLOCK, _as_times(values, is_missing, name))
    if all(issubclass(t, timedelta | np.timedelta64) for t in types):
        return Column(CLOCK, np.where(is_missing, None, values).astype("timedelta64[ns]"))
    if all(issubclass(t, Real) or t.__name__ == "Decimal" for t in types):
        return Column(NUMBER, np.where(is_missing, np.nan, values).astype(np.float64))
    names = sorted(t.__name__ for t in types)
    if any(hasattr(t, "__len__") and not issubclass(t, str | bytes) for t in types):
        raise ValueError(
            f"{name} has values of type {', '.join(names)}; every cell must be a list or an array, "
            "or every cell a single value."
        )
    raise ValueError(
        f"{name} has values of type {', '.join(names)}; pass either numbers, or text, or times."
    )


def _as_times(values, is_missing, name):
    """Return dates and times as datetime64, those with a time zone in UTC."""
    times = np.full(len(values), "NaT", dtype="datetime64[ns]")
    has_zone = {getattr(time, "tzinfo", None) is not None for time in values[~is_missing]}
    if len(has_zone) > 1:
        raise ValueError(
            f"{name} has times with and without a time zone; give all of them one, for example by "
            "pandas.to_datetime(times, utc=True)."
        )
    for i in np.flatnonzero(~is_missing):
        time = values[i]
        if True in has_zone:
            time = time.replace(tzinfo=None) - time.utcoffset()
        times[i] = np.datetime64(time)
    return times


def is_missing_value(value):
    """Return whether a Python object stands for a missing value."""
    return type(value).__name__ in MISSING_TYPES or (
        isinstance(value, float | np.datetime64 | np.timedelta64) and value != value
    )


def as_objects(items):
    """Return a list as an array of objects (K,), whatever its items are."""
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array
