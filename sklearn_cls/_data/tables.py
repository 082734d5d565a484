"""Reading of sequences from data frames, and of sequences of text.

- A data frame of pandas, polars or pyarrow has a row for each sequence. The cells of a column are
  the values of one feature at all steps, or a single value for the whole sequence.
- A list of data frames has a frame for each sequence, with a row for each step.
- A sequence of codes may be a string, a character for each step, or an array or list of strings.

All of them become a `Table`, which has a `Column` for each feature.

Shapes: n sequences, T steps, F features, S steps of several sequences.
"""

from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import compress

import numpy as np

from sklearn_cls._data.cells import (
    STEPS,
    TEXT,
    as_array,
    concatenate,
    content_of,
    flatten,
    flatten_objects,
    holds_arrays,
)
from sklearn_cls._data.columns import (
    CLOCK,
    NUMBER,
    column_from_array,
    column_from_series,
    is_missing_value,
    library_of,
)
from sklearn_cls._data.frames import as_list, is_frame, is_series, names_of, series_of
from sklearn_cls._data.layout import reject_long_table, reject_multi_index, reject_transposed


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


def _from_frame(frame):
    """Return a data frame as a table; as it is if it is a 2-D array of numbers."""
    names, series = names_of(frame), series_of(frame)
    contents = [content_of(s) for s in series]
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


def _from_series(series):
    """Return a series as a table, or as a list of arrays if its cells are 2-D."""
    content = content_of(series)
    if content == TEXT:
        return _from_strings(as_list(series))
    return _from_nested_series(series) if content == STEPS else series


def _from_nested_series(series, name=None):
    """Return a series whose cells are sequences, the only column of X, as a table.

    If the cells are arrays (T, F) or lists of steps, return a list of arrays.
    """
    if _has_frames(series):
        return _from_items(list(series))
    parts = flatten(series, name)
    if parts is None:
        return _from_items([as_array(cell) for cell in as_list(series)])
    columns, lengths = parts
    names = None if name is None else list(columns)
    return Table(list(columns.values()), offsets_of(lengths), names)


def _has_frames(series):
    """Return whether the cells of a series are data frames."""
    return library_of(series) == "pandas" and len(series) > 0 and is_frame(series.iloc[0])


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
        return _from_strings(as_list(series[0]))
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
    if X.ndim == 2 and holds_arrays(X.reshape(-1)):  # A ColumnTransformer makes such arrays.
        names, columns = range(X.shape[1]), list(X.T)
        table = _from_columns(names, columns, [content_of(column) for column in columns])
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
        columns, lengths = flatten_objects(X, None, "X")
        table = Table(list(columns.values()), offsets_of(lengths))
        return X if table.columns[0].kind == NUMBER else table
    items = [as_array(x) for x in X]
    if any(x.ndim not in (1, 2) or (x.size and holds_arrays(x.reshape(-1))) for x in items):
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
        reject_transposed(frames)
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
