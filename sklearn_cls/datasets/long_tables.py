"""Long tables, with a row for each step, become data frames with a row for each sequence.

Shapes: R rows of the long table, n sequences.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.utils import Bunch

from sklearn_cls._data.columns import CODE, column_from_series
from sklearn_cls._data.tables import offsets_of
from sklearn_cls.datasets.nesting import nested
from sklearn_cls.datasets.stacked_tables import check_remaining_columns, unstack

N_NAMED = 5  # ids or columns that a message names

# The names of columns in known formats, whose columns need not be named.
MEDS = {"id": "subject_id", "time": "time"}
FORMATS = [
    MEDS,
    {"id": "column_id", "time": "column_sort", "kind": "column_kind", "value": "column_value"},
    {"id": "id", "time": "time", "kind": "kind", "value": "value"},
]


def from_long(
    frame, id=None, time=None, labels=None, groups=None, columns=None, *,
    kind=None, value=None, duplicates="auto", **tsfresh,
):  # fmt: skip
    """Convert a table with a row for each step to a data frame with a row for each sequence.

    Parameters
    ----------
    frame : DataFrame of pandas or polars, table of pyarrow, or other data frame
        The long table: a data frame that narwhals can read. Lazy ones, such as a relation of duckdb
        or a LazyFrame of polars, are computed. The levels of a MultiIndex are columns, too.

    id : str or list of str, default=None
        The column, or columns, that say which sequence a row belongs to. If it is None, the columns
        of known formats are recognized by their names:

        - MEDS, a format of medical events: "subject_id", "time", "code" and "numeric_value"
        - the tables of tsfresh: "id", "time", "kind" and "value", or "column_id", "column_sort",
          "column_kind" and "column_value"

    time : str, default=None
        The column by which the steps of a sequence are sorted. None keeps their order. If it holds
        dates, durations or floats, it is also the first feature; dates and durations are the clock
        of the sequences. Integers only say in which order the steps are, unless `columns` has the
        column.

    labels : str, dict, pandas.Series or data frame, default=None
        The column of the class labels, with the same label in all rows of a sequence; or the label
        of each id: by a dict, by a series with the ids in its index, or by a data frame with the
        columns of `id` and a column of labels.

    groups : str, dict, pandas.Series or data frame, default=None
        The groups for cross-validation, such as persons, in the same form as the labels.

    columns : list of str, default=None
        The features. None takes all columns that are not named by other parameters.

    kind, value : str, default=None
        The columns of a stacked table, with a row for each number: the name of the feature, and the
        number. Each kind becomes a feature, in sorted order; a kind without a number at a time is
        missing there. Without `time`, the first numbers of all kinds are the first step, and so on.
        `columns` may name kinds that do not occur, so that a small table has the same features as a
        large one.

    duplicates : {"auto", "raise", "keep"}, default="auto"
        Whether steps of a sequence with the same time are an error, or keep their order. "auto" is
        "keep" for a table in the MEDS format, whose events may be simultaneous, and "raise" for all
        others.

    **tsfresh : str
        `column_id`, `column_sort`, `column_kind` and `column_value` are what tsfresh calls `id`,
        `time`, `kind` and `value`.

    Returns
    -------
    bunch : Bunch
        With these attributes:

        - data: data frame with a row for each sequence, in the order in which they first appear. A
          cell has the values of a feature at all steps. It is of the library of `frame`, or of
          pyarrow, if that is not pandas or polars.
        - target: ndarray of shape (n_sequences,), or None without `labels`
        - groups: ndarray of shape (n_sequences,), or None
        - ids: ndarray of shape (n_sequences,), or (n_sequences, n_columns) for several
        - feature_names: list of str

    Raises
    ------
    ValueError
        If a column does not exist, an id or a time is missing, two steps of a sequence have the
        same time, a label is not the same in all rows of a sequence, or the label of an id is
        missing.
    TypeError
        If `frame` is not a data frame.

    Notes
    -----
    The cells of a pandas data frame are arrays; those of categories and of dtypes that NumPy lacks
    are lists of pyarrow, if it is installed.

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
    given = _with_names_of_tsfresh({"id": id, "time": time, "kind": kind, "value": value}, tsfresh)
    named = [*_as_list(given["id"]), given["time"], labels, groups]
    table = _as_table(frame, [name for name in named if isinstance(name, str)])
    roles = _roles(table, given, columns, duplicates)
    others = [name for name in (labels, groups) if isinstance(name, str)]
    _check_columns(table, [*roles.names, *others])
    sequence, first = _sequences(table, roles.ids)  # (R,), (n,)
    ids = [table[name].to_numpy()[first] for name in roles.ids]
    steps, lengths = _steps(table, roles, sequence, others, columns)
    return Bunch(
        data=nested(steps, offsets_of(lengths)),
        target=_per_sequence(labels, "labels", table, roles.ids, sequence, first),
        groups=_per_sequence(groups, "groups", table, roles.ids, sequence, first),
        ids=ids[0] if len(ids) == 1 else _as_rows(ids),
        feature_names=steps.columns,
    )


@dataclass(frozen=True)
class Roles:
    """What the columns of a long table are.

    Attributes
    ----------
    ids : list of str
    time, kind, value : str or None
    keeps_duplicates : bool
        Whether steps of a sequence may have the same time.
    """

    ids: list
    time: str | None
    kind: str | None
    value: str | None
    keeps_duplicates: bool

    @property
    def names(self):
        """The names of these columns."""
        return [*self.ids, *(n for n in (self.time, self.kind, self.value) if n is not None)]


def _roles(table, given, columns, duplicates):
    """Return what the columns are: as the parameters say, or as in a known format."""
    if duplicates not in ("auto", "raise", "keep"):
        raise ValueError(f"duplicates must be one of 'auto', 'raise', 'keep', got {duplicates!r}.")
    is_recognized = given["id"] is None
    if is_recognized:
        given = _recognized(table, given, columns)
    id, time, kind, value = given.values()
    if (kind is None) != (value is None):
        raise ValueError(
            f"kind={kind!r} and value={value!r}: a stacked table has both columns; name both."
        )
    has_events = is_recognized and id == MEDS["id"]
    keeps_duplicates = duplicates == "keep" or (duplicates == "auto" and has_events)
    return Roles(_as_list(id), time, kind, value, keeps_duplicates)


def _as_list(names):
    return [names] if isinstance(names, str) else list(names or [])


def _with_names_of_tsfresh(given, tsfresh):
    """Return the names of columns, some of which may be given by tsfresh's parameters."""
    names = {"column_id": "id", "column_sort": "time", "column_kind": "kind",
             "column_value": "value"}  # fmt: skip
    for name, column in tsfresh.items():
        if name not in names:
            raise TypeError(f"from_long() got an unexpected keyword argument {name!r}")
        if given[names[name]] is not None:
            raise TypeError(f"{name} and {names[name]} are the same parameter; pass one of them.")
        given[names[name]] = column
    return given


def _as_table(frame, names):
    """Return a data frame as one of narwhals, with the levels of the index that are named."""
    import narwhals as nw

    index_names = getattr(getattr(frame, "index", None), "names", [])
    if any(name in index_names for name in names):
        frame = frame.reset_index()
    if getattr(getattr(frame, "index", None), "nlevels", 1) > 1:
        raise ValueError(
            f"frame has a MultiIndex {list(index_names)}; name the level that says which sequence "
            f"a row belongs to, as in id={(index_names[0] or 'level_0')!r}, after "
            "frame.reset_index() if it has no name."
        )
    try:
        table = nw.from_native(frame)
    except TypeError as error:
        hint = "pd.DataFrame(frame)"
        if isinstance(frame, dict) and any(hasattr(item, "columns") for item in frame.values()):
            hint = "pd.concat(frame, names=['kind']).reset_index('kind')"
        raise TypeError(
            f"frame is a {type(frame).__name__}; pass a data frame of pandas, polars or pyarrow, "
            f"such as {hint}."
        ) from error
    except nw.exceptions.DuplicateError as error:
        raise ValueError(f"frame has several columns with the same name. {error}") from error
    if isinstance(table, nw.LazyFrame):
        table = table.collect()
    for name in table.columns:
        if not isinstance(name, str):
            raise ValueError(
                f"frame has the column name {name!r}, which is not a str; pass "
                "frame.rename(columns=str)."
            )
    return table


def _recognized(table, given, columns):
    """Return the names of the columns of a known format."""
    for names in FORMATS:
        if names["id"] in table.columns and (names is not MEDS or names["time"] in table.columns):
            known = {role: names.get(role) for role in given}
            roles = {
                role: given[role] or (name if name in table.columns else None)
                for role, name in known.items()
            }
            is_stacked = roles["kind"] and roles["value"]
            if given["kind"] is None and (not is_stacked or columns is not None):
                roles |= {"kind": None, "value": None}  # a table that has columns of these names
            return roles
    raise ValueError(
        f"id is None, but the columns are {table.columns}; name the column that says which "
        f"sequence a row belongs to, as in id={table.columns[0]!r}."
    )


def _check_columns(table, names, what="frame"):
    """Raise ValueError for names that are not columns; `what` is the name of the table."""
    unknown = [name for name in names if name not in table.columns]
    if unknown:
        raise ValueError(f"{what} has no column {unknown[0]!r}, but {table.columns}.")
    if len(table) == 0:
        raise ValueError(f"{what} has no rows.")


def _sequences(table, ids):
    """Return the number of the sequence of each row, (R,), and their first rows, (n,)."""
    number = np.zeros(len(table), dtype=np.int64)
    for name in ids:
        series = table[name]
        if series.dtype.is_decimal():  # Floats do not tell large ids apart.
            import narwhals as nw

            series = series.cast(nw.String)
        column = column_from_series(series, f"column {name!r} of frame")
        _check_not_missing(table, column, name, "id")
        values = column.values
        if column.kind != CODE:
            _, values = np.unique(values, return_inverse=True)
        number = number * (int(values.max()) + 1) + values
        if len(ids) > 1:
            _, number = np.unique(number, return_inverse=True)
    first = np.full(int(number.max()) + 1, -1)
    first[number[::-1]] = np.arange(len(number))[::-1]  # Of equal indices, the last one counts.
    by_appearance = np.argsort(np.where(first < 0, len(number), first))  # codes that do not occur
    rank = np.empty(len(first), dtype=np.int64)
    rank[by_appearance] = np.arange(len(first))
    return rank[number], first[by_appearance[: np.count_nonzero(first >= 0)]]


def _times(table, time):
    """Return the times of all rows as an array of numbers, dates or durations, (R,)."""
    column = column_from_series(table[time], f"column {time!r} of frame")
    _check_not_missing(table, column, time, "time")
    if column.kind == CODE:
        raise ValueError(
            f"column {time!r} of frame holds text or categories, not times; convert it, "
            f"as by pd.to_datetime(frame[{time!r}])."
        )
    return column.values


def _check_not_missing(table, column, name, what):
    """Raise ValueError if an id or a time is missing."""
    values = column.values
    if column.kind == CODE:
        is_missing = values < 0
    else:
        is_missing = np.isnat(values) if values.dtype.kind in "mM" else values != values
    if is_missing.any():
        keep = {
            "pandas": f"frame.dropna(subset=[{name!r}])",
            "polars": f"frame.drop_nulls({name!r})",
        }.get(str(table.implementation), f"frame.filter(pc.is_valid(frame[{name!r}]))")
        raise ValueError(
            f"frame has no {what} in row {int(is_missing.argmax())} of column {name!r}, and in "
            f"{int(is_missing.sum())} rows in all; remove them by {keep}, or fill them."
        )


def _steps(table, roles, sequence, others, columns):
    """Return the features of all steps, one sequence after the other, and their lengths, (n,).

    `others` are the names of columns that are not features.
    """
    import narwhals as nw

    time, names = roles.time, [*roles.names, *others]
    columns = None if columns is None else _as_list(columns)
    times = None if time is None else _times(table, time)  # (R,)
    has_time = time is not None and not table[time].dtype.is_integer()
    if roles.kind is not None:
        check_remaining_columns(table, names, roles.kind)
        steps, rows = unstack(table, sequence, times, roles.kind, roles.value, columns)
        if has_time:
            steps = nw.concat([table.select(time)[rows], steps], how="horizontal")
        return steps, np.bincount(sequence[rows])
    columns = [n for n in table.columns if n not in names] if columns is None else columns
    _check_columns(table, columns)
    if has_time and time not in columns:
        columns = [time, *columns]
    if not columns:
        raise ValueError(f"frame has no features, only the columns {table.columns}.")
    order = _order(sequence, times)
    if times is not None and not roles.keeps_duplicates:
        _check_no_duplicates(table, sequence, times, order, roles)
    steps = table.select(columns)
    return steps if order is None else steps[order], np.bincount(sequence)


def _order(sequence, times):
    """Return the rows in the order of the sequences and of time, or None if they are."""
    is_after = np.diff(sequence)
    if (is_after >= 0).all() and (
        times is None or ((is_after > 0) | (times[1:] >= times[:-1])).all()
    ):
        return None
    return np.argsort(sequence, kind="stable") if times is None else np.lexsort((times, sequence))


def _check_no_duplicates(table, sequence, times, order, roles):
    """Raise ValueError if two steps of a sequence have the same time."""
    if order is not None:
        sequence, times = sequence[order], times[order]
    is_twice = (sequence[1:] == sequence[:-1]) & (times[1:] == times[:-1])
    if is_twice.any():
        row = int(is_twice.argmax())
        row = row if order is None else order[row]
        example = _values(table, [*roles.ids, roles.time], row)
        raise ValueError(
            f"{int(is_twice.sum())} rows have the same id and the same time as another one, such "
            f"as {', '.join(map(str, example[:-1]))} at {example[-1]}. Remove duplicates; or, if "
            "these are several sequences, name all columns that tell them apart, id=[...]; or, if "
            "these are simultaneous events, pass duplicates='keep'."
        )


def _per_sequence(given, name, table, ids, sequence, first):
    """Return the label or group of each sequence, (n,); `name` is that of the parameter."""
    if given is None:
        return None
    if isinstance(given, str):
        values = table[given].to_numpy()[first]
        codes = column_from_series(table[given], f"column {given!r} of frame").as_codes().values
        is_equal = codes == codes[first][sequence]
        if not is_equal.all():
            row = int(is_equal.argmin())
            several = [_values(table, [given], r)[0] for r in (first[sequence[row]], row)]
            raise ValueError(
                f"column {given!r} has several values in the rows of {_key(table, ids, row)!r}, "
                f"such as {several[0]!r} and {several[1]!r}; it must have the same value in all "
                "rows of a sequence."
            )
        missing = [_key(table, ids, row) for row in first[codes[first] < 0][:N_NAMED].tolist()]
        n_missing = int(np.count_nonzero(codes[first] < 0))
    else:
        items = _by_id(given, ids, name)
        rows = table.select(ids)[first].rows()
        keys = rows if len(ids) > 1 else [row[0] for row in rows]
        missing = [key for key in keys if _is_missing(items.get(key))]
        n_missing = len(missing)
        values = np.array([items.get(key) for key in keys]) if not missing else None
    if n_missing:
        raise ValueError(
            f"{name} has no value for {n_missing} of {len(first)} ids, such as "
            f"{missing[:N_NAMED]}; add them, or remove the rows of these ids from frame."
        )
    return values


def _values(table, names, row):
    """Return the values of some columns in a row."""
    return tuple(table[name].item(int(row)) for name in names)


def _key(table, ids, row):
    """Return the id of a row, a tuple if there are several columns."""
    key = _values(table, ids, row)
    return key if len(ids) > 1 else key[0]


def _is_missing(value):
    return value is None or type(value).__name__ in ("NAType", "NaTType") or value != value


def _by_id(given, ids, name):
    """Return the values of a dict, a series of pandas or a data frame by their ids."""
    index = getattr(given, "index", None)
    if isinstance(given, dict):
        return given
    if hasattr(type(given), "columns"):  # The columns of a LazyFrame itself would warn.
        table = _as_table(given, ids)
        _check_columns(table, ids, name)
        others = [column for column in table.columns if column not in ids]
        if len(others) != 1:
            raise ValueError(
                f"{name} is a data frame with the columns {table.columns}, but must have "
                f"{[*ids, name]}: the id, and one other column."
            )
        keys = table.select(ids).rows()
        keys, values = [k if len(ids) > 1 else k[0] for k in keys], table[others[0]].to_list()
    elif hasattr(index, "nlevels"):
        keys, values = index.tolist(), given.tolist()
    else:
        raise TypeError(
            f"{name} is a {type(given).__name__}, which does not say whose they are; pass the name "
            "of a column, or dict(zip(ids, values))."
        )
    items = {}
    for key, value in zip(keys, values, strict=True):
        if items.setdefault(key, value) != value:
            raise ValueError(
                f"{name} has several values for the id {key!r}, such as {items[key]!r} and "
                f"{value!r}; keep one of them."
            )
    return items


def _as_rows(columns):
    """Return the columns of ids as an array (n, n_columns), of objects if their dtypes differ."""
    if len({column.dtype for column in columns}) > 1:
        columns = [column.astype(object) for column in columns]
    return np.stack(columns, axis=1)
