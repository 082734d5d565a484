"""Sequences in the containers of aeon and sktime, some of which put channels before steps.

Shapes: n sequences, C channels, T steps.
"""

import numpy as np

from sklearn_cls.datasets.long_tables import from_long

# The columns of sktime's type "pd-long", in its documentation and as its converter writes them.
PD_LONG = [
    ["case_id", "reading_id", "dim_id", "value"],
    ["instances", "timepoints", "variable", "value"],
]


def from_channels_first(X):
    """Convert sequences in a container of aeon or sktime.

    Their arrays have channels before steps; those of scikit-learn and of this package have steps
    before features.

    Parameters
    ----------
    X : array, list or pandas.DataFrame
        Sequences of one of these types:

        - "numpy3D", an array of shape (n_sequences, n_channels, n_steps)
        - "numpyflat" or "numpy2D", an array of shape (n_sequences, n_steps)
        - "np-list", a list of arrays of shape (n_channels, n_steps_i) or (n_steps_i,)
        - "df-list", a list of data frames with a row for each channel, as in aeon. Those of sktime
          have a row for each step; a frame whose column names are text is one of sktime.
        - "nested_univ", a data frame with a series in each cell
        - "pd-multiindex", a data frame with a row for each step, whose index has two levels: the
          sequence and the time
        - "pd-wide", a data frame of numbers of shape (n_sequences, n_steps)

    Returns
    -------
    X : ndarray, list or pandas.DataFrame
        Sequences for `fit`. An array has shape (n_sequences, n_steps, n_channels) or
        (n_sequences, n_steps), and the items of a list have shape (n_steps_i, n_channels) or
        (n_steps_i,). These are views of the input, without a copy. "df-list" becomes a list of data
        frames with a row for each step, "nested_univ" and "pd-multiindex" a data frame with a row
        for each sequence, with a column "time" if the index has dates.

    Raises
    ------
    ValueError
        If X has another shape, or is of another type of sktime, such as a hierarchical index.
    TypeError
        If X is none of these containers.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_cls.datasets import from_channels_first
    >>> from_channels_first(np.zeros((10, 3, 50))).shape
    (10, 50, 3)
    >>> [x.shape for x in from_channels_first([np.zeros((3, 50)), np.zeros((3, 40))])]
    [(50, 3), (40, 3)]
    """
    if hasattr(X, "columns"):
        return _from_frame(X)
    if not hasattr(X, "shape") and hasattr(X, "__getitem__") and not isinstance(X, str | dict):
        return [_from_item(x, i) for i, x in enumerate(X)]
    X = _as_array(X, "X")
    if X.ndim not in (2, 3):
        raise ValueError(
            f"X has shape {X.shape}, but must be (n_sequences, n_channels, n_steps), (n_sequences, "
            "n_steps), or a list of (n_channels, n_steps)."
        )
    return X if X.ndim == 2 else X.transpose(0, 2, 1)


def _as_array(X, name):
    """Return X as an array of numbers or text; raise TypeError if it holds other objects."""
    array = np.asarray(X)
    if array.ndim == 0 or array.dtype == object:
        raise TypeError(
            f"{name} is a {type(X).__name__}, which is no container of aeon or sktime that can be "
            "converted; convert it by sktime.datatypes.convert_to(X, 'nested_univ') or "
            "aeon.utils.conversion.convert_collection(X, 'np-list')."
        )
    return array


def _from_item(x, i):
    """Return sequence `i` of a list with steps before channels."""
    if hasattr(x, "columns"):
        is_steps_first = all(isinstance(name, str) for name in x.columns)
        return x if is_steps_first else x.T
    x = _as_array(x, f"X[{i}]")
    if x.ndim not in (1, 2):
        raise ValueError(
            f"X[{i}] has shape {x.shape}, but every sequence of a list must have shape "
            "(n_channels, n_steps), or (n_steps,) for one channel."
        )
    return x.T


def _from_frame(X):
    """Return a data frame of pandas for `fit`."""
    library = type(X).__module__.partition(".")[0]
    if library != "pandas":
        raise TypeError(
            f"X is a data frame of {library}, but those of aeon and "
            "sktime are of pandas. If it has a row for each step, use from_long(X, id=...); if it "
            "has lists in its cells, it needs no conversion."
        )
    if X.index.nlevels == 2:
        return _from_multi_index(X)
    if X.index.nlevels > 2:
        raise ValueError(
            f"X has an index with {X.index.nlevels} levels, {list(X.index.names)}; a hierarchy of "
            "series is not supported. If the last level is the time, and a label belongs to each "
            f"sequence, use from_long(X.reset_index(), id={list(X.index.names[:-1])}, "
            f"time={X.index.names[-1]!r}).data."
        )
    for id, time, kind, value in PD_LONG:
        if set(X.columns) == {id, time, kind, value}:
            raise ValueError(
                f"X has a row for each number, type 'pd-long'; use from_long(X, id={id!r}, "
                f"time={time!r}, kind={kind!r}, value={value!r}).data."
            )
    is_nested = X.shape[0] and X.shape[1] and hasattr(X.iloc[0, 0], "index")
    return _with_clock(X) if is_nested else X


def _with_clock(X):
    """Return a frame of series with the dates in the index of the first ones as a column."""
    import pandas as pd

    index = _as_dates(X.iloc[0, 0].index)
    if not _is_dates(index) or "time" in X.columns:
        return X
    cells = [_as_dates(series.index).to_numpy() for series in X.iloc[:, 0]]
    clock = pd.DataFrame({"time": pd.Series(cells, index=X.index, dtype=object)})
    return pd.concat([clock, X], axis=1)


def _from_multi_index(X):
    """Return a frame of the type "pd-multiindex" as one with a row for each sequence."""
    frame = X.set_axis([str(name) for name in X.columns], axis=1)
    times = _as_dates(X.index.get_level_values(1))
    id, time = _free_name("id", frame), _free_name("time", frame)
    frame = frame.reset_index(drop=True)
    frame.insert(0, time, times)
    frame.insert(0, id, X.index.get_level_values(0))
    columns = [str(name) for name in X.columns]
    return from_long(frame, id=id, time=time, columns=columns).data


def _free_name(name, frame):
    """Return a name that no column has."""
    return name if name not in frame.columns else _free_name(f"{name}_", frame)


def _as_dates(index):
    """Return an index of periods as the times when they start, or another index as it is."""
    return index.to_timestamp() if hasattr(index, "to_timestamp") else index


def _is_dates(index):
    return index.dtype.kind in "mM"
