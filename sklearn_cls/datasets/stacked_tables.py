"""Stacked tables, with a row for each number, become tables with a row for each step.

Shapes: R rows of the stacked table, S steps, K kinds.
"""

import numpy as np

from sklearn_cls._data.columns import CODE, NUMBER, column_from_series


def check_remaining_columns(table, names, kind):
    """Raise ValueError if a stacked table has other columns, which would be left out."""
    others = [name for name in table.columns if name not in names]
    if others:
        raise ValueError(
            f"frame is a stacked table, in which column {kind!r} has the names of the features, "
            f"but it also has the columns {others}. Remove them, as by frame.drop(columns="
            f"{others}); or, if {kind!r} is a feature itself, name the features: columns=[...]."
        )


def unstack(table, sequence, times, kind, value, columns):
    """Return a table with a row for each step and a column for each kind, and rows of the steps.

    Parameters
    ----------
    table : narwhals.DataFrame
    sequence : ndarray of int, (R,)
        The number of the sequence of each row.
    times : ndarray (R,) or None
        The time of each row; if it is None, the numbers of a kind are at the steps 0, 1, ...
    kind, value : str
        Names of columns.
    columns : list of str or None
        The kinds to return; None is all kinds.

    Returns
    -------
    steps : narwhals.DataFrame
        The numbers of each kind, NaN where a kind has none.
    rows : ndarray of int, (S,)
        A row of the stacked table for each step.
    """
    import narwhals as nw

    kinds, numbers = _read(table, kind, value)
    if times is None:
        times = _count_within(sequence, kinds.values)
    order = np.lexsort((kinds.values, times, sequence))
    codes, times, sequence = kinds.values[order], times[order], sequence[order]
    is_same_step = (sequence[1:] == sequence[:-1]) & (times[1:] == times[:-1])
    is_twice = is_same_step & (codes[1:] == codes[:-1])
    if is_twice.any():
        i = int(is_twice.argmax())
        raise ValueError(
            f"frame has several numbers of the kind {kinds.codes[codes[i]]!r} at {times[i]} in a "
            f"sequence, such as in rows {order[i]} and {order[i + 1]}, and {int(is_twice.sum())} "
            "such rows in all; keep one of them, or their mean."
        )
    is_first = np.concatenate([[True], ~is_same_step])
    step = np.cumsum(is_first) - 1
    names = [str(code) for code in kinds.codes]
    columns = sorted(names[code] for code in np.unique(codes)) if columns is None else columns
    if not set(columns) & set(names):
        raise ValueError(f"none of columns={list(columns)} is a kind; the kinds are {names}.")
    position = {name: j for j, name in enumerate(columns)}
    column_of_kind = np.array([position.get(name, -1) for name in names])[codes]
    wide = np.full((len(columns), step[-1] + 1), np.nan)  # (K, S)
    is_chosen = column_of_kind >= 0
    wide[column_of_kind[is_chosen], step[is_chosen]] = numbers[order][is_chosen]
    backend = table.implementation
    steps = nw.from_dict(dict(zip(columns, wide, strict=True)), backend=backend)
    return steps, order[is_first]


def _read(table, kind, value):
    """Return the columns of kinds, as codes, and of numbers, an array (R,)."""
    kinds = column_from_series(table[kind], f"column {kind!r} of frame").as_codes()
    numbers = column_from_series(table[value], f"column {value!r} of frame")
    if (kinds.values < 0).any():
        row = int((kinds.values < 0).argmax())
        raise ValueError(f"frame has no kind in row {row} of column {kind!r}; remove such rows.")
    if numbers.kind == CODE and numbers.holds_numbers:
        numbers = numbers.as_numbers()
    if numbers.kind != NUMBER:
        raise ValueError(
            f"column {value!r} of frame has dtype {table[value].dtype}, but the values of a "
            f"stacked table must be numbers. If {kind!r} has names of events, name the features: "
            f"columns=[{kind!r}, {value!r}]."
        )
    return kinds, numbers.values


def _count_within(sequence, codes):
    """Return how many rows of the same sequence and kind are before each row, (R,)."""
    order = np.lexsort((codes, sequence))
    is_first = np.concatenate(
        [[True], (np.diff(sequence[order]) != 0) | (np.diff(codes[order]) != 0)]
    )
    starts = np.flatnonzero(is_first)
    counts = np.arange(len(order)) - starts[np.cumsum(is_first) - 1]
    result = np.empty(len(order), dtype=np.int64)
    result[order] = counts
    return result
