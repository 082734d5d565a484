"""Long tables, with a row for each step, become data frames with a row for each sequence."""

from itertools import pairwise

import numpy as np
from sklearn.utils import Bunch

N_NAMED = 5  # sequences that a message names


def from_long(frame, id=None, time=None, labels=None, groups=None, columns=None):
    """Convert a table with a row for each step to a data frame with a row for each sequence.

    Parameters
    ----------
    frame : DataFrame of pandas or polars, or table of pyarrow
        The long table.

    id : str or list of str, default=None
        The column, or columns, that say which sequence a row belongs to. None is "subject_id", as
        in the MEDS format of medical events, together with `time="time"`.

    time : str, default=None
        The column by which the steps of a sequence are sorted. None keeps their order. If it holds
        dates, durations or floats, it is also the first feature; dates and durations are the clock
        of the sequences. Integers only say in which order the steps are.

    labels : str, dict or pandas.Series, default=None
        The column of the class labels, with the same label in all rows of a sequence; or the label
        of each id.

    groups : str, dict or pandas.Series, default=None
        The groups for cross-validation, such as persons, in the same form as the labels.

    columns : list of str, default=None
        The features. None takes all columns that are not named by other parameters.

    Returns
    -------
    bunch : Bunch
        With these attributes:

        - data: data frame of the same library, with a row for each sequence, in the order in which
          they first appear. A cell has the values of a feature at all steps.
        - target: ndarray of shape (n_sequences,), or None without `labels`
        - groups: ndarray of shape (n_sequences,), or None
        - ids: ndarray of shape (n_sequences,), or (n_sequences, n_columns) for several

    Raises
    ------
    ValueError
        If a column does not exist, an id or a time is missing, two steps of a sequence have the
        same time, a label is not the same in all rows of a sequence, or the label of an id is
        missing.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_cls.datasets import from_long
    >>> steps = pd.DataFrame({
    ...     "person": ["A", "A", "B", "B", "B"], "step": [1, 0, 0, 1, 2],
    ...     "speed": [1.5, 1.0, 7.0, 8.0, 9.0], "mode": ["walk", "walk", "bus", "bus", "bus"],
    ... })
    >>> bunch = from_long(steps, id="person", time="step", labels="mode")
    >>> [x.tolist() for x in bunch.data["speed"]]
    [[1.0, 1.5], [7.0, 8.0, 9.0]]
    >>> bunch.target.tolist(), bunch.ids.tolist()
    (['walk', 'bus'], ['A', 'B'])
    """
    import narwhals as nw

    table = nw.from_native(frame, eager_only=True)
    if id is None:
        if not {"subject_id", "time"} <= set(table.columns):
            raise ValueError(
                f"id is None, but the columns are {table.columns}; name the column that says which "
                "sequence a row belongs to."
            )
        id, time = "subject_id", "time"
    ids = [id] if isinstance(id, str) else list(id)
    names = [*ids, *(name for name in (time, labels, groups) if isinstance(name, str))]
    _check_columns(table, [*names, *(columns or [])])
    if columns is None:
        columns = [name for name in table.columns if name not in names]
    sequence, first = _sequences(table, ids)
    order = _order(table, time, sequence, first, ids)
    sequence = sequence[order]
    offsets = np.flatnonzero(np.diff(sequence, prepend=-1))
    if time is not None and time not in columns and not table[time].dtype.is_integer():
        columns = [time, *columns]
    id_values = np.stack([table[name].to_numpy()[first] for name in ids], axis=1)
    id_values = id_values[:, 0] if len(ids) == 1 else id_values

    def per_sequence(given, name):
        if given is None:
            return None
        if isinstance(given, str):
            values = table[given].to_numpy()
            return _constant(values[order], sequence, offsets, id_values, given)
        return _looked_up(given, id_values, name)

    return Bunch(
        data=_nested(table.select(columns)[order], offsets, sequence),
        target=per_sequence(labels, "labels"),
        groups=per_sequence(groups, "groups"),
        ids=id_values,
    )


def _check_columns(table, names):
    """Raise ValueError for names that are not columns."""
    unknown = [name for name in names if name not in table.columns]
    if unknown:
        raise ValueError(f"frame has no column {unknown[0]!r}, but {table.columns}.")
    if len(table) == 0:
        raise ValueError("frame has no rows.")


def _sequences(table, ids):
    """Return the number of the sequence of each row, and the first row of each sequence."""
    number = np.zeros(len(table), dtype=np.int64)
    for name in ids:
        if table[name].null_count():
            row = int(table[name].is_null().to_numpy().argmax())
            raise ValueError(f"frame has no id in row {row} of column {name!r}; remove such rows.")
        _, codes = np.unique(table[name].to_numpy(), return_inverse=True)
        number = number * (codes.max() + 1) + codes
        _, number = np.unique(number, return_inverse=True)
    _, first = np.unique(number, return_index=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[number], np.sort(first)


def _order(table, time, sequence, first, ids):
    """Return the rows in the order of the sequences, sorted by time within each."""
    if time is None:
        return np.argsort(sequence, kind="stable")
    if table[time].null_count():
        row = int(table[time].is_null().to_numpy().argmax())
        raise ValueError(f"frame has no time in row {row} of column {time!r}; remove such rows.")
    times = table[time].to_numpy()
    order = np.lexsort((times, sequence))
    is_twice = (np.diff(sequence[order]) == 0) & (times[order][1:] == times[order][:-1])
    if is_twice.any():
        row = order[int(is_twice.argmax())]
        names = [table[name].to_numpy()[row] for name in ids]
        raise ValueError(
            f"{int(is_twice.sum())} rows have the same id and the same time as another one, such "
            f"as {', '.join(map(str, names))} at {times[row]}. Remove duplicates, or use time=None "
            "to keep the order of the rows."
        )
    return order


def _constant(values, sequence, offsets, ids, name):
    """Return the value of each sequence, which all of its rows must have."""
    chosen = values[offsets]
    is_equal = (values == chosen[sequence]) | ((values != values) & (chosen != chosen)[sequence])
    if not np.all(is_equal):
        i = sequence[int(np.argmin(is_equal))]
        raise ValueError(
            f"column {name!r} has several values in the rows of {ids[i]!r}; it must have the same "
            "value in all rows of a sequence."
        )
    return chosen


def _looked_up(given, ids, name):
    """Return the value of each id in a dict or a series of pandas."""
    items = dict(given.items())
    keys = [tuple(key) if isinstance(key, list) else key for key in ids.tolist()]
    missing = [key for key in keys if key not in items]
    if missing:
        raise ValueError(
            f"{name} has no value for {len(missing)} ids, such as {missing[:N_NAMED]}; add them, "
            "or remove their rows from frame."
        )
    return np.array([items[key] for key in keys])


def _nested(table, offsets, sequence):
    """Return a frame with a row for each sequence, in the library of the sorted table."""
    frame = table.to_native()
    library = type(frame).__module__.partition(".")[0]
    if library == "polars":
        import polars as pl

        number = pl.Series("", sequence)
        return frame.group_by(number, maintain_order=True).agg(pl.all()).drop("")
    bounds = [*offsets.tolist(), len(frame)]
    if library == "pyarrow":
        import pyarrow as pa

        columns = [column.combine_chunks() for column in frame.columns]
        bounds = pa.array(bounds, pa.int64())
        lists = [pa.LargeListArray.from_arrays(bounds, column) for column in columns]
        return pa.table(dict(zip(frame.column_names, lists, strict=True)))
    import pandas as pd

    cells = {}
    for name in frame.columns:
        column = frame[name]
        values = column.to_numpy() if column.dtype.kind in "biuf" else column.array
        cells[name] = [values[start:stop] for start, stop in pairwise(bounds)]
    return pd.DataFrame({name: pd.Series(cell, dtype=object) for name, cell in cells.items()})
