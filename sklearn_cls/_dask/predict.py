"""Lazy predictions of dask collections, partition by partition."""

from copy import copy

import dask
import numpy as np
import sklearn

from sklearn_cls._dask.collections import delayed_partitions, is_array, known_sizes
from sklearn_cls._data.features import check_n_features, column_names
from sklearn_cls._data.table_batches import errors_name_batch


def predict_lazily(estimator, method, X):
    """Return what a method of a fitted estimator returns for a collection, without computing it.

    Parameters
    ----------
    estimator : CLSTransformerClassifier
    method : str
        Name of a method that returns an array with a row for each sequence.
    X : dask collection or list of delayed partitions

    Returns
    -------
    result : dask.array.Array, dask.dataframe.DataFrame or dask.dataframe.Series
        A frame or a series, with the index of X, if X is a frame.
    """
    model, name = estimator._fitted_model(), type(estimator).__name__
    shape, dtype = _shape_and_dtype(model, method, X)
    # A task of the graph: each worker gets it once, and all of its threads share it.
    shared = dask.delayed(_for_workers(estimator), pure=False)
    if hasattr(X, "columns") and method != "cls_attention":
        column_names(X._meta, name, model.features)
        meta = _frame(np.empty((0, *shape), dtype=dtype), X._meta, estimator, method)
        return X.map_partitions(_predicted_frame, shared, method, shape, dtype, meta=meta)
    if is_array(X):
        _check_shape(X, model.features, name)
    return _array(X, shared, method, shape, dtype)


def _array(X, shared, method, shape, dtype):
    """Return the results for all partitions as an array."""
    import dask.array as da

    parts = delayed_partitions(X)
    sizes = known_sizes(X) or [np.nan] * len(parts)
    starts = np.cumsum([0, *sizes[:-1]])
    function = dask.delayed(_predicted, pure=False)
    results = [
        da.from_delayed(
            function(part, shared, method, shape, dtype, start), (size, *shape), dtype,
            meta=np.empty((0,) * (1 + len(shape)), dtype=dtype),
        )
        for part, size, start in zip(parts, sizes, starts, strict=True)
    ]  # fmt: skip
    return da.concatenate(results, allow_unknown_chunksizes=True)


def _for_workers(estimator):
    """Return a copy of the estimator whose methods return arrays."""
    estimator = copy(estimator)
    vars(estimator).pop("_sklearn_output_config", None)
    return estimator


def _shape_and_dtype(model, method, X):
    """Return the shape of the result of a sequence, and its dtype."""
    module = model.module
    if method == "predict":
        return (), model.classes.dtype
    if method == "transform":
        return module.norm.normalized_shape, np.dtype(np.float32)
    if method == "cls_attention":
        if not is_array(X):
            raise TypeError(
                "cls_attention needs an array of dask, in which all sequences have the "
                "same number of steps; pass its partitions one by one."
            )
        n_blocks = 1 if module.pooling == "attention" else len(module.blocks)
        return (n_blocks, module.blocks[0].n_heads, X.shape[1]), np.dtype(np.float32)
    return (len(model.classes),), np.dtype(np.float32)


def _check_shape(X, features, name):
    """Raise an error if an array has other features than that of `fit`."""
    if X.ndim == 3:
        check_n_features(X.shape[2], features.n_features, name)
    elif X.ndim == 2 and features.fitted_on_2d:
        check_n_features(X.shape[1], features.n_features_in, name)


def _predicted(part, estimator, method, shape, dtype, start=np.nan):
    """Return the result for a partition, whose first sequence has the number `start`, or NaN."""
    if len(part) == 0:
        return np.empty((0, *shape), dtype=dtype)
    first = 0 if np.isnan(start) else int(start)
    with errors_name_batch(first, len(part)), sklearn.config_context(transform_output="default"):
        return getattr(estimator, method)(part)


def _predicted_frame(part, estimator, method, shape, dtype):
    """Return the result for a partition as a frame or a series with its index."""
    return _frame(_predicted(part, estimator, method, shape, dtype), part, estimator, method)


def _frame(result, part, estimator, method):
    """Return a result as a frame or a series of pandas, with the index of the partition."""
    import pandas as pd

    if method == "predict":
        return pd.Series(result, index=part.index)
    names = estimator.get_feature_names_out() if method == "transform" else estimator.classes_
    return pd.DataFrame(result, index=part.index, columns=names)
