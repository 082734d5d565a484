"""Dask collections of sequences: which objects they are, and their partitions."""

import numpy as np

from sklearn_cls._data.dask_collections import is_dask, is_delayed_list


def is_array(X):
    """Return whether X is an array of dask."""
    return is_dask(X) and hasattr(X, "chunks")


def delayed_partitions(X):
    """Return the partitions of a collection as delayed objects, in order.

    That of an array is a chunk of sequences, with all of their steps and features.
    """
    if is_delayed_list(X):
        return list(X)
    if is_array(X):
        X = X.rechunk(dict.fromkeys(range(1, X.ndim), -1))
        return X.to_delayed().reshape(-1).tolist()
    return list(X.to_delayed())


def known_sizes(X):
    """Return the number of sequences of each partition, or None if it is unknown."""
    if is_array(X) and not np.isnan(X.chunks[0]).any():
        return tuple(map(int, X.chunks[0]))
    return None
