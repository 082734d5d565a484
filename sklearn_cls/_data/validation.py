"""Validation of X: arrays, data frames and lists become `Sequences`.

Arrays are not copied, whatever their dtype. Almost every error about X is raised here or in
`containers`; `fit_scaler` raises those about the values of a feature in all training data.

Shapes: n sequences, T steps, F features.
"""

import reprlib

import numpy as np
import torch
from sklearn.utils.validation import check_array
from torch.utils.data import Dataset

from sklearn_cls._data.columns import library_of
from sklearn_cls._data.containers import reject_masked, reject_other_containers
from sklearn_cls._data.dask_collections import read_here
from sklearn_cls._data.encoding import encode_array, encode_table, learn_array, learn_tables
from sklearn_cls._data.errors import errors_name_argument, errors_name_batch, errors_name_partition
from sklearn_cls._data.features import (
    Features,
    check_n_features,
    column_names,
    column_names_of_items,
    n_features_message,
)
from sklearn_cls._data.frames import as_arrow_table, is_frame, names_of
from sklearn_cls._data.lazy_arrays import decoded_array, is_lazy_array
from sklearn_cls._data.partitions import Partitions, joined
from sklearn_cls._data.readers import ArrayReader, ListReader
from sklearn_cls._data.sequences import (
    Sequences,
    empty_sequence_error,
    infinity_error,
    steps_per_chunk,
)
from sklearn_cls._data.stored_sequences import stored_sequences
from sklearn_cls._data.table_batches import TableBatches, table_batches
from sklearn_cls._data.tables import Table, read_table
from sklearn_cls._data.temporary_arrays import BLOCK_BYTES
from sklearn_cls._data.warning_filters import FILTERS_LOCK

EMPTY = "X is empty: 0 sample(s), and at least one sequence is required."
NUMPY_FLOATS = {torch.float16, torch.float32, torch.float64}


def check_sequences(
    X, estimator, features=None, max_length=None, categorical_features="from_dtype"
):
    """Check X and return it as `Sequences`, and its `Features`.

    `estimator` is the name of the class, for error messages. X must agree with `features`, unless
    they are None, as in the first fit. A 2-D X (n, T) is n univariate sequences; its
    `n_features_in_` is T, because scikit-learn counts columns. For any other X, it is F.
    `max_length` is the maximum number of steps that learned positions cover.
    `categorical_features` is the parameter of the estimator, used in the first fit.
    """
    with errors_name_argument("X"), np.errstate(all="ignore"):
        X = read_here(X)
        if isinstance(X, Partitions):
            sequences, seen = _check_partitions(X, estimator, features, categorical_features)
        else:
            X, read = _read(X)
            check = _check_table if isinstance(read, Table | TableBatches) else _check_array
            sequences, seen = check(X, read, estimator, features, categorical_features)
    if max_length is not None and sequences.lengths.max() > max_length:
        i = int(sequences.lengths.argmax())
        raise ValueError(
            f"X[{i}] has {sequences.lengths[i]} steps, but positions='learned' covers only the "
            f"first {max_length}; fit with positions='sinusoidal' or 'rope', or shorten X[{i}]."
        )
    return sequences, seen


def _read(X):
    """Return X, and what has been read from it.

    That is a `Table`, `TableBatches`, or an array or a list of arrays of numbers.
    """
    reject_masked(X)
    reject_other_containers(X)
    X = as_arrow_table(as_numpy(X))
    if isinstance(X, list | tuple) and len(X) == 0:
        raise ValueError(EMPTY)
    if library_of(X) == "dask":  # Threads that compute X may need the lock, as predictions do.
        return X, decoded_array(X)
    with FILTERS_LOCK:  # Libraries of data frames may change the filters.
        batches = table_batches(X)
        if batches is not None:
            return X, batches
        return X, decoded_array(X) if is_lazy_array(X) else read_table(X)


def _check_table(X, read, estimator, features, categorical_features):
    """Return the sequences and the features of X, a table or batches of it that have been read."""
    tables = [read] if isinstance(read, Table) else read
    first = next(iter(tables), None)
    if first is None:
        raise ValueError(EMPTY)
    if isinstance(read, TableBatches):
        X = None if first.names is None else read.header
    seen = _features_of_table(X, first, estimator, features)
    if features is None:
        seen = learn_tables(tables, seen, categorical_features)
    if isinstance(read, Table):
        return encode_table(read, seen), seen
    return stored_sequences(_encoded(read, seen)), seen


def _check_array(X, read, estimator, features, categorical_features):
    """Return the sequences and the features of X, an array or a list of arrays of numbers."""
    sequences, seen = _check_numbers(read, estimator, features)
    if features is None:
        seen = learn_array(sequences, seen, categorical_features)
    return encode_array(sequences, seen), seen


def _check_partitions(X, estimator, features, categorical_features):
    """Return the sequences and the features of all partitions of X."""
    read, numbers, seen = {}, {}, features
    for number, part in X.values.items():
        with errors_name_partition(number):
            part, read[number] = _read(part)
            if isinstance(read[number], Table):
                seen = _features_of_table(part, read[number], estimator, seen)
            else:
                numbers[number], seen = _check_numbers(read[number], estimator, seen)
    kinds = {Table if isinstance(part, Table) else np.ndarray for part in read.values()}
    # A process may hold no partition of a validation set.
    if _check_same_features(X.processes.gather((seen, kinds))) is not Table:
        if features is None:
            seen = learn_array(joined(numbers, X.processes), seen, categorical_features)
        return joined({k: encode_array(v, seen) for k, v in numbers.items()}, X.processes), seen
    if features is None:
        seen = learn_tables(read.values(), seen, categorical_features, X.processes)
    parts = {}
    for number, table in read.items():
        with errors_name_partition(number):
            parts[number] = encode_table(table, seen)
    return joined(parts, X.processes), seen


def _check_same_features(gathered):
    """Return the kind of all partitions: `Table` or ndarray.

    `gathered` has the features that each process has seen, and the kinds of its partitions.

    Raises
    ------
    ValueError
        Unless all partitions are of one kind, with the same features.
    """
    described = {
        (seen.n_features_in, None if seen.names is None else (*seen.names,), kind)
        for seen, kinds in gathered
        for kind in kinds
    }
    if len(described) > 1:
        raise ValueError(
            "X has partitions of different kinds, or with different numbers or names of features: "
            f"{reprlib.repr(sorted(described, key=str))}. All partitions need the same columns in "
            "the same order."
        )
    ((*_, kind),) = described
    return kind


def _encoded(batches, features):
    """Yield the sequences of each batch of a table."""
    first = 0
    for table in batches:
        n = len(table.offsets) - 1
        with errors_name_batch(first, n):
            sequences = encode_table(table, features)
        yield sequences
        first += n


def _features_of_table(X, table, estimator, features):
    """Return the features of a table, after comparing them with those of `fit`.

    `table` has been read from X or from its first batch.
    """
    is_new = features is None
    n_columns = int(table.offsets[1]) if table.is_2d else len(table.columns)
    names = None
    if is_frame(X):
        n_columns = X.shape[1]  # The fields of a struct are features, too.
        if is_new or features.fitted_on_2d == table.is_2d:
            names = column_names(X, estimator, features)
    elif table.names is not None:
        names = column_names_of_items(X, estimator, features)
    else:
        column_names(None, estimator, features)
    if is_new:
        return Features(n_columns, names, table.is_2d)
    if table.is_2d and features.fitted_on_2d:
        check_n_features(n_columns, features.n_features_in, estimator)
    else:
        check_n_features(len(table.columns), features.n_features, estimator)
    return features


def _check_numbers(X, estimator, features):
    """Return an array or a list of arrays of numbers as `Sequences`, and its features."""
    if len(getattr(X, "shape", ())) == 1 and not _is_list_of_sequences(X):
        raise ValueError(
            f"X has one dimension (shape {X.shape}). For a single sequence, pass [X], or "
            "X[np.newaxis] if X is an array. Reshape your data by X.reshape(-1, 1) only if every "
            "sequence has a single step."
        )
    if _is_2d(X):
        values, seen = _check_2d(X, estimator, features)
        return _from_array(values[:, :, np.newaxis]), seen
    sequences = read_sequences(X)
    names = column_names_of_items(X, estimator, features)
    seen = features or Features(sequences.n_features, names)
    n, expected = sequences.n_features, seen.n_features
    if n != expected == sequences.n_steps and len(np.unique(sequences.lengths)) == 1:
        raise ValueError(
            f"{n_features_message(n, expected, estimator)} Its sequences have {expected} steps: if "
            "the features come first, pass sklearn_cls.datasets.from_channels_first(X)."
        )
    check_n_features(n, expected, estimator)
    return sequences, seen


def as_numpy(x):
    """Return a tensor as an array, of float32 if NumPy lacks its dtype; anything else as it is."""
    if not isinstance(x, torch.Tensor):
        return x
    x = x.detach().cpu()
    return (x.float() if x.dtype.is_floating_point and x.dtype not in NUMPY_FLOATS else x).numpy()


def _is_2d(X):
    """Return whether X has at most 2 dimensions and is not a list of sequences."""
    if isinstance(X, Dataset) or _is_list_of_sequences(X):
        return False
    return (X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim) < 3


def _is_list_of_sequences(X):
    """Return whether X is a list, array or series of arrays, not nested lists of numbers."""
    if len(getattr(X, "shape", ())) == 1:  # an object array, or a Series of pandas or polars
        X = np.asarray(X)
        return X.ndim == 1 and X.dtype == object and any(map(_has_length, X))
    if not isinstance(X, list | tuple):
        return False
    if any(hasattr(x, "shape") for x in X):
        return any(len(x.shape) > 0 for x in X if hasattr(x, "shape"))
    try:
        np.shape(X)
    except ValueError:  # NumPy cannot convert nested lists of unequal lengths.
        return True
    return False


def _has_length(x):
    return isinstance(x, list | tuple) or len(getattr(x, "shape", ())) > 0


def _check_2d(X, estimator, features):
    """Check a 2-D X as scikit-learn does; return it as an array (n, T), and its features."""
    _reject_one_sequence(X, features)
    # After a fit on univariate sequences of another form, their number of steps may differ.
    has_columns = features is None or features.fitted_on_2d
    names = column_names(X if has_columns else None, estimator, features)
    X = _check_numeric(X, input_name="X", estimator=estimator)
    if has_columns:
        seen = features or Features(X.shape[1], names, fitted_on_2d=True)
        check_n_features(X.shape[1], seen.n_features_in, estimator)
        return X, seen
    if features.n_features != 1:
        raise ValueError(
            f"X has shape {X.shape}, which means univariate sequences, but this {estimator} was "
            f"fitted with {features.n_features} features; pass (n_sequences, n_steps, "
            f"{features.n_features}), which is X[np.newaxis] for a single sequence."
        )
    return X, features


def _reject_one_sequence(X, features):
    """Raise an error if a 2-D X is a single sequence (T, F), after `fit` on other containers."""
    if features is None or features.fitted_on_2d:
        return
    if features.names is not None and is_frame(X) and names_of(X) == list(features.names):
        raise ValueError(
            "X is a data frame with a column for each feature, which is a single sequence; pass "
            "[X]. If it has the steps of several sequences, convert it by "
            "sklearn_cls.datasets.from_long."
        )
    if features.n_features == 1 and X.shape[1] == 1 < X.shape[0]:
        raise ValueError(
            f"X has shape {X.shape}, which means sequences of a single step. For a single "
            f"sequence of {X.shape[0]} steps, pass [X]; otherwise pass an array of shape "
            "(n_sequences, 1, 1)."
        )


def _check_numeric(X, **kwargs):
    """Return X as an array of real numbers, without a copy if it is one.

    `**kwargs` are parameters of scikit-learn's `check_array`.
    """
    if _is_numeric_array(X):
        X = np.asarray(X)
    else:
        with FILTERS_LOCK:
            for dtype in _dtypes(X):
                if isinstance(dtype, np.dtype):
                    _check_dtype(dtype, "X")
            dtype = np.float64 if _may_hold_other_missing_values(X) else None
            X = check_array(X, dtype=dtype, ensure_all_finite=False, **kwargs)
    if X.ndim > 3:
        raise ValueError(
            f"X has {X.ndim} dimensions (shape {X.shape}); pass (n_sequences, n_steps, "
            "n_features), for images X.reshape(len(X), n_rows, -1)."
        )
    return _as_real(X)


def _dtypes(X):
    """Return the dtypes of the columns of a pandas data frame, or that of X."""
    is_frame = hasattr(X, "dtypes") and getattr(X, "ndim", None) == 2
    return list(X.dtypes) if is_frame else [getattr(X, "dtype", None)]


def _may_hold_other_missing_values(X):
    """Return whether X has objects, or a dtype of pandas, and may hold None or pandas.NA."""
    return any(
        getattr(dtype, "kind", None) == "O" or hasattr(dtype, "construct_array_type")
        for dtype in _dtypes(X)
    )


def _is_numeric_array(X):
    """Return whether X is an array that `check_array` would return unchanged."""
    return (
        isinstance(X, np.ndarray)
        and not isinstance(X, np.matrix)
        and X.dtype.kind in "biuf"
        and X.ndim >= 2
        and X.size > 0
    )


def _as_real(values):
    """Return an array as real numbers, without a copy if they are."""
    if values.dtype.kind not in "biuf":
        return values.astype(np.float64)
    return values.view(np.uint8) if values.dtype.kind == "b" else values


def _check_dtype(dtype, name):
    """Raise an error for complex numbers, text and dates, which NumPy would partly convert."""
    if dtype.kind == "c":
        raise ValueError(
            f"Complex data not supported: {name} has dtype {dtype}; pass real and imaginary parts "
            "as two features."
        )
    if dtype.kind not in "biufO":
        raise ValueError(
            f"{name} has dtype {dtype}; sequences must be real numbers: encode text or dates "
            "as numbers."
        )


def read_sequences(X):
    """Return an array (n, T, F), or (n, T), or a list of arrays as `Sequences`."""
    if isinstance(X, Dataset):
        return stored_sequences(_from_items(X))
    if _is_list_of_sequences(X):
        return _from_list(X)
    X = _check_numeric(X, allow_nd=True)
    return _from_array(X if X.ndim == 3 else X[:, :, np.newaxis])


def _from_items(dataset):
    """Yield the sequences of a map-style dataset of PyTorch, about `BLOCK_BYTES` at a time."""
    items, n_bytes = [], 0
    for i in range(len(dataset)):
        x = dataset[i]
        if isinstance(x, tuple | dict):
            raise TypeError(
                f"X[{i}] is a {type(x).__name__}, but a dataset must return the array (steps, "
                "features) of a sequence. If it also returns labels, pass [x for x, _ in X] and "
                "[y for _, y in X]."
            )
        items.append(as_numpy(x))
        n_bytes += np.asarray(items[-1]).nbytes
        if n_bytes >= BLOCK_BYTES or i == len(dataset) - 1:
            yield _from_list(items, i + 1 - len(items))
            items, n_bytes = [], 0


def _from_list(X, first=0):
    """Return arrays (T_i, F) or (T_i,) as `Sequences`.

    `first` is the number of the first sequence.
    """
    values, has_gaps = [], []
    for i, x in enumerate(X, first):
        x, x_has_gaps = _from_list_item(x, i)
        if values and x.shape[1] != values[0].shape[1]:
            if len({len(x) for x in X}) == 1:
                raise ValueError(
                    f"X[{i}] has shape {x.shape}, but X[{first}] has {values[0].shape}: if the "
                    "features come first, pass sklearn_cls.datasets.from_channels_first(X)."
                )
            raise ValueError(
                f"X[{i}] has {x.shape[1]} features, but X[{first}] has {values[0].shape[1]}; every "
                "sequence must have shape (steps, features), with the same number of features."
            )
        values.append(x)
        has_gaps.append(x_has_gaps)
    lengths = np.array([len(x) for x in values])
    return Sequences(ListReader(values), lengths, np.array(has_gaps))


def _from_list_item(x, i):
    """Return sequence `i` of a list as an array (T_i, F) without padding, and if it has gaps."""
    try:
        x = _as_array(x, f"X[{i}]")
    except (TypeError, ValueError) as error:
        raise type(error)(f"X[{i}] is not an array of numbers: {error}") from error
    if x.ndim not in (1, 2):
        raise ValueError(
            f"X[{i}] has shape {x.shape}; each sequence of a list must be an array of shape "
            "(steps, features), or (steps,) for a single feature."
        )
    if x.size == 0:
        raise empty_sequence_error(i, x.shape)
    x = x.reshape(len(x), -1)
    lengths, has_gaps = _lengths_and_gaps(x[np.newaxis], i)
    return x[: lengths[0]], has_gaps[0]


def _as_array(x, name):
    """Return an item of a list as an array of real numbers, without a copy if it is one."""
    reject_masked(x)
    x = as_numpy(x)
    is_frame = hasattr(type(x), "dtypes")  # or a pandas Series
    x = x if is_frame else np.asarray(x)
    if is_frame or x.dtype == object:  # These may hold missing values other than NaN.
        with FILTERS_LOCK:
            dtype = np.float64 if _may_hold_other_missing_values(x) else None
            x = check_array(x, dtype=dtype, ensure_all_finite=False, ensure_2d=False)
    _check_dtype(x.dtype, name)
    return _as_real(x)


def _lengths_and_gaps(values, first=0):
    """Return the lengths of the sequences in an array (n, T, F), and which of them have gaps.

    The array is read in parts of about `CHUNK_BYTES`. `first` is the number of the first sequence.
    """
    n, n_steps, n_features = values.shape
    lengths, has_gaps = np.full(n, n_steps), np.zeros(n, dtype=bool)
    if values.dtype.kind != "f":  # Integers are never missing.
        return lengths, has_gaps
    n_max = steps_per_chunk(n_features)
    n_sequences = max(1, n_max // n_steps)
    for i in range(0, n, n_sequences):
        part = values[i : i + n_sequences]
        known_until, missing_from = np.zeros(len(part), dtype=int), np.full(len(part), n_steps)
        for start in range(0, n_steps, n_max):
            steps = part[:, start : start + n_max]
            stop = start + steps.shape[1]
            if steps.itemsize > 8:  # What float64 cannot hold becomes infinite.
                steps = steps.astype(np.float64)
            if np.isfinite(steps).all():
                known_until[:] = stop
                continue
            if np.isinf(steps).any():
                raise infinity_error(first + i + int(np.isinf(steps).any((1, 2)).argmax()))
            is_missing = np.isnan(steps)
            is_known, has_missing = ~is_missing.all(2), is_missing.any(2)  # (n, T)
            last = np.where(is_known.any(1), stop - is_known[:, ::-1].argmax(1), 0)
            np.maximum(known_until, last, out=known_until)
            from_here = np.where(has_missing.any(1), start + has_missing.argmax(1), n_steps)
            np.minimum(missing_from, from_here, out=missing_from)
        if not known_until.all():
            raise empty_sequence_error(
                first + i + int(known_until.argmin()), part.shape[1:], all_missing=True
            )
        lengths[i : i + n_sequences] = known_until
        has_gaps[i : i + n_sequences] = missing_from < known_until
    return lengths, has_gaps


def _from_array(values):
    """Return an array (n, T, F) as `Sequences`."""
    if 0 in values.shape[1:]:
        raise empty_sequence_error(0, values.shape[1:])
    return Sequences(ArrayReader(values), *_lengths_and_gaps(values))
