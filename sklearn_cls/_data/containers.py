"""Objects that are not sequences, and which errors say how to convert."""

import reprlib
from collections import deque
from collections.abc import Iterator, Set
from os import PathLike

import numpy as np
from sklearn.utils import Bunch
from torch.utils.data import DataLoader, IterableDataset

from sklearn_cls._data.columns import library_of

CONTAINERS = {"datasets", "h5py", "xarray", "zarr"}  # libraries of containers of named arrays


def reject_other_containers(X):
    """Raise an error for objects from which no array can be made, saying what to pass instead."""
    name = type(X).__name__
    if isinstance(X, np.ndarray):
        return
    if X is None:
        raise ValueError("X is None; pass an array, a list of arrays or a data frame.")
    if isinstance(X, str | PathLike):
        raise TypeError(
            f"X is a path, {reprlib.repr(X)}; read the file first. A Parquet file is read in parts "
            "if you pass pyarrow.dataset.dataset(path)."
        )
    if hasattr(X, "keys") and library_of(X) in CONTAINERS:
        key = next(iter(X.keys()), "name")
        raise TypeError(f"X is a {name}, which holds several arrays; pass one of them: X[{key!r}].")
    if isinstance(X, DataLoader):
        raise TypeError("X is a DataLoader, which makes batches of its own; pass X.dataset.")
    if isinstance(X, Bunch) and "data" in X:
        raise TypeError("X is a Bunch; pass its parts: fit(bunch.data, bunch.target).")
    if isinstance(X, dict) and not hasattr(X, "shape"):  # A sparse matrix may be a dict.
        raise TypeError(
            "X is a dict; stack its features into an array: np.stack(list(X.values()), axis=-1)."
        )
    if isinstance(X, IterableDataset):
        raise TypeError(f"X is an IterableDataset ({name}), which has no order; pass list(X).")
    if name == "RecordBatchReader":
        raise TypeError(f"X is a {name}, which can be read only once; pass X.read_all().")
    if isinstance(X, Iterator):
        raise TypeError(f"X is a {name}, which can be read only once; pass list(X).")
    if isinstance(X, deque | Set):
        raise TypeError(f"X is a {name}; pass list(X), a list of arrays.")
    if name == "LazyFrame" or library_of(X) == "duckdb":
        collect = "X.pl()" if library_of(X) == "duckdb" else "X.collect()"
        raise TypeError(f"X is a {name}, which has not been computed yet; pass {collect}.")
    if name == "PackedSequence":
        raise TypeError(
            "X is a PackedSequence; pass a list of arrays: [x.numpy() for x in "
            "torch.nn.utils.rnn.unpack_sequence(X)]."
        )
    if name == "TensorDataset":
        raise TypeError("X is a TensorDataset; pass its tensors: fit(dataset.tensors[0], y).")


def reject_masked(values):
    """Raise an error for a masked array: NumPy would use the values under the mask."""
    if np.ma.is_masked(values):
        raise ValueError(
            "masked arrays are not supported; fill the masked values first, in X with NaN: "
            "X.filled(np.nan)."
        )
