"""Validation of y, `sample_weight`, `class_weight`, `classes` and `groups`.

Almost all errors about them are raised here; `partial_fit` itself rejects "balanced" class weights.

Shapes: n sequences, K classes.
"""

import sys
from numbers import Integral, Real
from reprlib import Repr

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, check_consistent_length, column_or_1d

from sklearn_cls._compat import check_sample_weight
from sklearn_cls._data.batches import SequenceDataset
from sklearn_cls._data.columns import as_objects, is_missing_value
from sklearn_cls._data.containers import reject_masked
from sklearn_cls._data.dask_collections import computed
from sklearn_cls._data.errors import errors_name_argument
from sklearn_cls._data.readers import ArrayReader
from sklearn_cls._data.sequences import FLOAT32
from sklearn_cls._data.warning_filters import FILTERS_LOCK

SWAPPED, MOVED = "np.swapaxes(X, 0, 1)", "np.moveaxis(X, -1, 0)"  # as (n, T, F)
FEW_LABELS = Repr()  # shows the first labels of a list, so that messages stay short
FEW_LABELS.maxlist, FEW_LABELS.maxstring = 10, 60


@np.errstate(all="ignore")  # Weights may underflow.
def check_targets(estimator, sequences, y, sample_weight, classes=None, *, is_part=False):
    """Return the classes and the dataset of the sequences with positive weight.

    `classes` are all possible classes, by default those in y. `is_part` means that y is one part of
    the data, as in `partial_fit`: then it may have a single class, and the weights are not divided
    by their mean, because the mean of all parts is unknown.
    """
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target "
            "y is None."
        )
    y = _check_y(sequences, y)
    classes, codes = _encode(
        estimator,
        y,
        y if classes is None else check_labels(classes, "classes"),
        "pass all classes to the first call of partial_fit, or call fit with warm_start=False",
    )
    weights = _check_sample_weight(sample_weight, codes)
    indices = np.flatnonzero(weights)
    by_class = class_weights(estimator.class_weight, codes[indices], classes)
    weights = weights[indices] * by_class[codes[indices]]
    indices, weights = indices[weights > 0], weights[weights > 0]
    _check_n_classes(classes, codes[indices], minimum=1 if is_part else 2)
    weights = _scale_weights(weights, is_part)
    return classes, SequenceDataset(sequences, indices, codes[indices], weights)


def check_validation_targets(estimator, sequences, y, sample_weight, classes, train):
    """Return the validation dataset of the sequences with positive weight, sorted by length.

    `train` is the dataset of training: the class weights are those of its classes.
    """
    y = _check_y(sequences, y)
    _, codes = _encode(estimator, y, classes, "remove the sequences of other classes from X")
    weights = _check_sample_weight(sample_weight, codes)
    weights = weights * class_weights(estimator.class_weight, train.y, classes)[codes]
    indices = np.flatnonzero(weights > 0)
    if len(indices) == 0:
        raise ValueError(
            "All sequences of X have weight 0; check y, sample_weight and class_weight."
        )
    weights = _scale_weights(weights[indices], is_part=False)
    return SequenceDataset(sequences, indices, codes[indices], weights).sorted_by_length()


def check_groups(groups, sequences):
    """Return the group of each sequence as whole numbers, (n,)."""
    with errors_name_argument("groups"):
        groups = computed(groups)
        with FILTERS_LOCK:
            reject_masked(groups)
            groups = column_or_1d(_as_array(groups, "groups"))
            check_consistent_length(sequences, groups)
            return np.unique(groups, return_inverse=True)[1]


def _check_y(sequences, y):
    """Return y as a 1-D array with a label for each sequence."""
    y = check_labels(y, "y")
    try:
        check_consistent_length(sequences, y)
    except ValueError as error:
        advice = _advice_on_length(sequences, len(y))
        raise ValueError(f"y: {error}{'. ' if advice else ''}{advice}") from error
    return y


def _advice_on_length(sequences, n_labels):
    """Return what to do if X and y have different lengths, as far as their lengths prove it."""
    n, n_steps, n_features = len(sequences), sequences.n_steps, sequences.n_features
    if n_labels == sequences.lengths.sum() > n:
        return (
            "y has a label for each step, but a sequence has one label; convert a long table by "
            "sklearn_cls.datasets.from_long(frame, id=..., labels=...)."
        )
    if not isinstance(sequences.reader, ArrayReader):
        return ""
    if n_labels == n_steps:
        if n_features == 1:
            return (
                f"X has {n} sequences of {n_steps} steps; if its rows are the steps, pass X.T. If "
                "it is a long table, convert it by sklearn_cls.datasets.from_long(X, id=...)."
            )
        return f"X has {n} sequences of {n_steps} steps; if its axes are swapped, pass {SWAPPED}."
    if n_labels == n_features > 1:
        return f"X has {n_features} features; if its axes are swapped, pass {MOVED}."
    if n > n_labels and n_features == 1:
        return (
            "If X is a long table, with a row for each step, convert it by "
            "sklearn_cls.datasets.from_long(X, id=...); if it is a single sequence, pass [X]."
        )
    return ""


def _check_sample_weight(sample_weight, codes):
    """Return the weight of each sequence as float64; 1 if `sample_weight` is None."""
    with errors_name_argument("sample_weight"):
        weights = computed(sample_weight)
        with FILTERS_LOCK:
            reject_masked(weights)
            return check_sample_weight(weights, codes, dtype=np.float64, ensure_non_negative=True)


def check_labels(labels, name):
    """Return class labels as a 1-D array."""
    with errors_name_argument(name):
        labels = computed(labels)
        with FILTERS_LOCK:
            reject_masked(labels)
            labels = column_or_1d(_as_array(labels, name), warn=True)
            assert_all_finite(labels, input_name=name)
            # `classes` lists each class once. scikit-learn warns that so many unique values look
            # like regression targets, so every label is passed twice.
            check_classification_targets(labels if name == "y" else np.repeat(labels, 2))
        return labels


def _as_array(labels, name):
    """Return labels as an array of their own kind, after checking that none is missing."""
    array = np.asarray(labels)
    if isinstance(labels, list | tuple) and array.ndim == 1 and array.dtype.kind in "OUS":
        objects = as_objects(labels)  # NumPy converts a missing label among text to text.
    elif array.ndim == 2 and array.shape[1] > 1:
        raise ValueError(
            f"{name} should be a 1d array, got an array of shape {array.shape} instead; if it is "
            f"one-hot encoded, pass {name}.argmax(axis=1)."
        )
    elif array.dtype.kind == "O":
        objects = array
    else:
        if array.dtype.kind in "fmM":
            is_missing = np.isnan(array) if array.dtype.kind == "f" else np.isnat(array)
            _reject_missing(array, is_missing, name)
        return array
    flat = objects.reshape(-1)
    _reject_missing(flat, np.array([is_missing_value(label) for label in flat], dtype=bool), name)
    types = {type(label) for label in flat}
    if types and all(issubclass(t, bool | np.bool_) for t in types):
        return objects.astype(bool)
    if types and all(issubclass(t, Integral) and not issubclass(t, bool) for t in types):
        return np.array(objects.tolist())  # int64, or object if a label is too large
    kinds = {"text" if issubclass(t, str) else t.__name__ for t in types}
    if len(kinds) > 1 or not all(issubclass(t, str | bytes | float) for t in types):
        examples = {type(label): label for label in flat}.values()
        raise ValueError(
            f"{name} has labels of type {', '.join(sorted(t.__name__ for t in types))}, such as "
            f"{' and '.join(repr(label) for label in list(examples)[:2])}; convert them to text: "
            f"{name}.astype(str)."
        )
    return array


def _reject_missing(labels, is_missing, name):
    """Raise an error if labels are missing."""
    if is_missing.any():
        i, n = int(is_missing.argmax()), int(is_missing.sum())
        others = f", as are {n - 1} others" if n > 1 else ""
        raise ValueError(
            f"{name} contains NaN or another missing value: {name}[{i}] is missing "
            f"({labels.tolist()[i]!r}){others}. Remove the sequences for which it is missing."
        )


def check_same_classes(classes, known):
    """Raise an error if `classes` of a later call to `partial_fit` are not those of the first."""
    if classes is None:
        return
    classes = np.unique(check_labels(classes, "classes"))
    if not np.array_equal(classes, known):
        raise ValueError(
            f"classes={list_labels(classes)} differ from those of the first call to partial_fit, "
            f"{list_labels(known)}; omit them in later calls."
        )


def _encode(estimator, y, labels, advice):
    """Return the sorted classes in `labels` (K,) and the class codes of y (n,).

    `advice` is what the error about classes that are not in `labels` says.
    """
    # Imported lazily: this import takes as long as that of the rest of the package.
    from sklearn.preprocessing import LabelEncoder

    with errors_name_argument("y"), FILTERS_LOCK:
        encoder = LabelEncoder().fit(labels)
        known = set(encoder.classes_)
        unknown = [label for label in np.unique(y) if label not in known]
        if unknown:
            raise ValueError(
                f"y has classes {list_labels(np.array(unknown))}, but the classes of this "
                f"{type(estimator).__name__} are {list_labels(encoder.classes_)}; {advice}."
            )
        return encoder.classes_, encoder.transform(y)


def list_labels(labels):
    """Return an array of labels as text, shortened if there are more than 10."""
    return FEW_LABELS.repr(labels.tolist())


def class_weights(class_weight, codes, classes):
    """Return the weight of each class (K,)."""
    if class_weight == "balanced":
        counts = np.bincount(codes, minlength=len(classes))
        return len(codes) / (len(classes) * np.maximum(counts, 1))
    labels, class_weight = classes.tolist(), class_weight or {}
    known = set(labels)
    unknown = [label for label in class_weight if label not in known]
    if unknown:
        raise ValueError(
            f"class_weight has classes {FEW_LABELS.repr(unknown)}, but y has the classes "
            f"{FEW_LABELS.repr(labels)}."
        )
    for label, weight in class_weight.items():
        if not isinstance(weight, Real) or not 0 <= weight <= sys.float_info.max:
            raise ValueError(
                f"class_weight values must be finite and non-negative, got {weight!r} for class "
                f"{label!r}."
            )
    return np.array([class_weight.get(label, 1.0) for label in labels], dtype=np.float64)


def _check_n_classes(classes, codes, minimum):
    """Raise an error if there are too few classes among the sequences with positive weight."""
    n_classes = len(np.unique(codes))
    if len(classes) < 2 or n_classes < minimum:
        is_one_enough = len(classes) >= 2 and minimum == 1
        raise ValueError(
            f"{'Only 1' if n_classes else 'No'} class of y has positive weight, but at least "
            f"{'1 is' if is_one_enough else '2 are'} needed; check y, sample_weight and "
            f"class_weight. All classes, including those of weight 0: {list_labels(classes)}."
        )


def _scale_weights(weights, is_part):
    """Return float32 weights with mean 1, or unscaled if they are those of one part of the data."""
    if not is_part:
        weights = weights / weights.max()  # The sum of very large weights overflows float64.
        weights = weights / weights.mean()
    if not weights.max() < FLOAT32.max:
        raise ValueError(
            "sample_weight, multiplied by class_weight, has a value too large for float32; divide "
            "sample_weight by its mean."
        )
    return weights.astype(np.float32)
