"""The partitions of Dask collections of sequences."""

import numpy as np

from sklearn_cls._data.dask_collections import is_array, is_delayed_list


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
