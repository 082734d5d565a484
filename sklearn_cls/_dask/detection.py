"""Whether an argument is a collection of Dask, without importing Dask."""

import sys

from sklearn_cls._data.columns import library_of


def is_dask(X):
    """Return whether X is a collection of dask, or a list of delayed partitions."""
    if isinstance(X, list | tuple):
        return len(X) > 0 and all(type(x).__name__ == "Delayed" and is_dask(x) for x in X)
    return library_of(X) == "dask" and hasattr(X, "__dask_graph__")


def current_client(X):
    """Return the current client of Dask if X is a collection of dask, otherwise None."""
    distributed = sys.modules.get("distributed")  # A program that has a client has imported it.
    if distributed is None or not is_dask(X):
        return None
    try:
        return distributed.default_client()
    except ValueError:
        return None
