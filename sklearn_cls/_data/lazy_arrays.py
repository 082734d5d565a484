"""Arrays that are not in memory, such as those of zarr, h5py and dask, are decoded in parts.

Shapes: n sequences, T steps, F features.
"""

import shutil
from math import isnan, prod

import numpy as np

from sklearn_cls._data.columns import library_of
from sklearn_cls._data.temporary_arrays import (
    BLOCK_BYTES,
    TemporaryArray,
    disk_error,
    temporary_folder,
)

# A part consists of whole chunks, so that each is decoded once, unless a chunk is larger than this.
MAX_CHUNK_BYTES = 2**27
IN_MEMORY_LIBRARIES = {
    "awkward",
    "datasets",
    "narwhals",
    "numpy",
    "pandas",
    "polars",
    "pyarrow",
    "scipy",
}
IN_MEMORY_ATTRIBUTES = ("__array_interface__", "__cuda_array_interface__", "__dlpack__", "columns")


def is_lazy_array(X):
    """Return whether X has a shape and can be indexed, but is not in memory."""
    return (
        not isinstance(X, np.ndarray | memoryview)
        and hasattr(X, "shape")
        and hasattr(X, "__getitem__")
        and library_of(X) not in IN_MEMORY_LIBRARIES
        and not any(hasattr(X, name) for name in IN_MEMORY_ATTRIBUTES)
    )


def decoded_array(X):
    """Return a lazy array as an array that is mapped into memory, or in it if X is small."""
    shape, dtype = _checked_shape(X), _checked_dtype(X)
    n_bytes = dtype.itemsize * prod(shape)
    if n_bytes <= BLOCK_BYTES or _is_view(X):
        return _read(X, slice(0, shape[0]), dtype)
    folder = temporary_folder()
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise disk_error(folder, f"it takes {n_bytes / 1e9:.1f} GB, and {free / 1e9:.1f} are free")
    with TemporaryArray(dtype, shape[1:]) as array:
        for rows in _parts(X, shape, dtype.itemsize):
            array.append(_read(X, rows, dtype))
        return array.close()


def _is_view(X):
    """Return whether X is a labeled array of xarray whose values are in memory."""
    if library_of(X) != "xarray" or X.chunks is not None:
        return False
    return np.shares_memory(X[:1].to_numpy(), X[:1].to_numpy())


def _read(X, rows, dtype):
    """Return some sequences of X as an ndarray; masked values, as of netCDF files, become NaN."""
    values = X[rows]
    if np.ma.is_masked(values):
        if dtype.kind != "f":
            raise ValueError(
                f"X has masked values and dtype {dtype}, which has no NaN for them. Convert X to "
                "floats, and replace the masked values by NaN."
            )
        values = values.filled(np.nan)
    return np.asarray(values, dtype=dtype)


def _checked_shape(X):
    """Return the shape of a lazy array, of 2 or 3 dimensions."""
    shape = tuple(X.shape or ())  # None in an empty dataset of HDF5
    if any(isnan(n) for n in shape):
        raise ValueError(
            f"X has an unknown shape {shape}; call X.compute_chunk_sizes() before fit."
        )
    check_dimensions(shape)
    if 0 in shape:
        raise ValueError(f"X is empty: it has shape {shape}, and at least one step is required.")
    return shape


def check_dimensions(shape):
    """Raise an error unless an array of this shape has 2 or 3 dimensions."""
    if len(shape) not in (2, 3):
        raise ValueError(
            f"X has {len(shape)} dimensions (shape {shape}); pass an array of shape (n_sequences, "
            "n_steps, n_features) or (n_sequences, n_steps)."
        )


def _checked_dtype(X):
    """Return the dtype of a lazy array of real numbers."""
    try:
        dtype = np.dtype(X.dtype)
    except (AttributeError, TypeError):
        dtype = np.asarray(X[0:1]).dtype
    if dtype.kind not in "biuf":
        raise ValueError(
            f"X has dtype {dtype}, but an array that is not in memory must hold real numbers. If "
            "it fits into memory, pass np.asarray(X)."
        )
    return dtype


def _parts(X, shape, itemsize):
    """Yield slices of the first axis, in order.

    A part consists of whole chunks, and takes about `BLOCK_BYTES` unless a chunk is larger.
    """
    row_bytes = itemsize * prod(shape[1:])
    n_rows, n_chunk = BLOCK_BYTES // row_bytes, _chunk_length(X)
    if n_chunk * row_bytes <= MAX_CHUNK_BYTES:
        n_rows = n_chunk * (n_rows // n_chunk)
        n_rows = max(n_rows, n_chunk)
    n_rows = max(n_rows, 1)
    for start in range(0, shape[0], n_rows):
        yield slice(start, min(start + n_rows, shape[0]))


def _chunk_length(X):
    """Return how many sequences a chunk of X has; 1 if that is unknown."""
    chunks = getattr(X, "chunks", None)
    return int(np.max(chunks[0])) if chunks else 1
