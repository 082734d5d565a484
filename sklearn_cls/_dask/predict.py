"""Lazy predictions of dask collections, partition by partition."""

from copy import copy

import dask
import numpy as np
import sklearn

from sklearn_cls._dask.partitions import delayed_partitions, known_sizes
from sklearn_cls._data.dask_collections import check_collection, is_array
from sklearn_cls._data.errors import errors_name_part
from sklearn_cls._data.features import check_n_features, column_names
from sklearn_cls._data.lazy_arrays import check_dimensions


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
    check_collection(X)
    model, name = estimator._fitted_model(), type(estimator).__name__
    shape, dtype = _shape_and_dtype(model, method, X)
    # A task of the graph: each worker gets it once, and all of its threads share it.
    shared = dask.delayed(_for_workers(estimator), pure=False)
    if hasattr(X, "map_partitions") and method != "cls_attention":
        if hasattr(X, "columns"):
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
    if np.isnan(sizes).any():
        names = [f"partition {i} of X" for i in range(len(parts))]
    else:
        ends = np.cumsum(sizes)
        names = [f"X[{end - n}:{end}]" for n, end in zip(sizes, ends, strict=True)]
    function = dask.delayed(_predicted, pure=False)
    results = [
        da.from_delayed(
            function(part, shared, method, shape, dtype, name), (size, *shape), dtype,
            meta=np.empty((0,) * (1 + len(shape)), dtype=dtype),
        )
        for part, size, name in zip(parts, sizes, names, strict=True)
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
        model.check_has_token()
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
    check_dimensions(X.shape)
    if X.ndim == 2 and features.fitted_on_2d:
        check_n_features(X.shape[1], features.n_features_in, name)
    else:
        check_n_features(X.shape[2] if X.ndim == 3 else 1, features.n_features, name)


def _predicted(part, estimator, method, shape, dtype, name):
    """Return the result for a partition, which errors call `name`."""
    if len(part) == 0:
        return np.empty((0, *shape), dtype=dtype)
    where = f"{name}, whose sequences are counted from its first one"
    with errors_name_part(where), sklearn.config_context(transform_output="default"):
        return getattr(estimator, method)(part)


def _predicted_frame(part, estimator, method, shape, dtype):
    """Return the result for a partition as a frame or a series with its index."""
    first, *_, last = [*part.index[:1], *part.index[-1:]] or [None, None]
    name = f"the partition of X with the index from {first!r} to {last!r}"
    return _frame(_predicted(part, estimator, method, shape, dtype, name), part, estimator, method)


def _frame(result, part, estimator, method):
    """Return a result as a frame or a series of pandas, with the index of the partition."""
    import pandas as pd

    if method == "predict":
        return pd.Series(result, index=part.index)
    names = estimator.get_feature_names_out() if method == "transform" else estimator.classes_
    return pd.DataFrame(result, index=part.index, columns=names)
