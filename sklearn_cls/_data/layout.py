"""Tables whose rows or columns are not what they must be: refused, with what to type instead."""

import re
import reprlib

# Names of columns whose values identify a sequence or where it comes from.
ID_NAME = re.compile(
    r"(.*[_. -])?(case|encounter|id|ids|participant|patient|person|recording|session|sequence|"
    r"subject|uid|user|uuid|visit)([_. -]?(id|no|nr|num|number|key))?",
    re.IGNORECASE,
)


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


def reject_transposed(frames):
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
