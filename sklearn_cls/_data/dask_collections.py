"""Collections of Dask, which is not imported unless there is one."""

import numpy as np

from sklearn_cls._data.columns import library_of
from sklearn_cls._data.partitions import Partitions
from sklearn_cls._torch.processes import ONE_PROCESS


def is_dask(X):
    """Return whether X is a collection of dask, or a list of delayed partitions."""
    if is_delayed_list(X):
        return True
    return library_of(X) == "dask" and hasattr(X, "__dask_graph__")


def is_array(X):
    """Return whether X is an array of dask."""
    return is_dask(X) and hasattr(X, "chunks")


def is_delayed_list(X):
    """Return whether X is a list of delayed partitions."""
    is_list = isinstance(X, list | tuple) and len(X) > 0
    return is_list and all(library_of(x) == "dask" and hasattr(x, "dask") for x in X)


def check_collection(X):
    """Raise TypeError if X is a collection of something else than sequences."""
    name = type(X).__name__
    if not is_delayed_list(X) and library_of(X) == "dask" and not hasattr(type(X), "ndim"):
        partitions = "[X]" if hasattr(X, "key") else "X.to_delayed()"
        raise TypeError(
            f"X is a {name} of dask; pass an array, a dataframe or a list of delayed partitions: "
            f"{partitions}."
        )


def computed(values):
    """Return the values of a collection that has one for each sequence; others as they are."""
    if is_delayed_list(values):
        return np.concatenate([np.asarray(part.compute()) for part in values])
    return values.compute() if is_dask(values) else values


def read_here(X):
    """Return a collection in a form that this process reads; arrays are read in parts later."""
    if is_delayed_list(X):
        parts = (part.compute() for part in X)
        return Partitions(dict(enumerate(part for part in parts if len(part))), ONE_PROCESS)
    if not is_dask(X):
        return X
    check_collection(X)
    return X if is_array(X) else X.compute()
