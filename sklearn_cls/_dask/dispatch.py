"""Whether a call of the estimator is for Dask, which is not imported unless it is."""

import sys
from functools import wraps

from sklearn_cls._data.dask_collections import is_dask


def current_client(X):
    """Return the current client of a Dask cluster if X is a collection, otherwise None."""
    distributed = sys.modules.get("distributed")  # a program with a client has imported it
    if distributed is None or not is_dask(X):
        return None
    try:
        return distributed.default_client()
    except ValueError:
        return None


def lazy_for_dask(method):
    """Return a method that computes nothing yet if X is a collection of dask."""

    @wraps(method)
    def wrapper(self, X):
        if not is_dask(X):
            return method(self, X)
        from sklearn_cls._dask.predict import predict_lazily

        return predict_lazily(self, method.__name__, X)

    return wrapper
