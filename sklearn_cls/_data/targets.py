"""What is to be learnt, as class codes and weights: every complaint about y is made here."""

from numbers import Real

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, check_consistent_length, column_or_1d

from sklearn_cls._compat import check_sample_weight
from sklearn_cls._data.batches import SequenceDataset
from sklearn_cls._data.sequences import errors_name_argument, refuse_masked


def check_targets(estimator, sequences, y, sample_weight, classes=None, *, is_part=False):
    """Check y and weights; return the classes and the sequences of positive weight to learn from.

    `classes` are all there may be; by default those in y, at least two of positive weight.
    Weights are relative to their mean, unless y is a part of the data, whose mean is another's.
    """
    # Half of the time of importing this package would go to it.
    from sklearn.preprocessing import LabelEncoder

    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target "
            "y is None."
        )
    y = check_labels(y, "y")
    with errors_name_argument("y"):
        check_consistent_length(sequences, y)
    encoder = LabelEncoder().fit(y if classes is None else check_labels(classes, "classes"))
    unknown = [label for label in np.unique(y) if label not in encoder.classes_]
    if unknown:
        raise ValueError(
            f"y has classes {np.array(unknown).tolist()}, but this {type(estimator).__name__} "
            f"goes on with {encoder.classes_.tolist()}; name all classes in the first call of "
            "partial_fit, or fit anew with warm_start=False."
        )
    with errors_name_argument("y"):
        codes = encoder.transform(y)
    with errors_name_argument("sample_weight"):
        refuse_masked(sample_weight)
        weights = check_sample_weight(
            sample_weight, codes, dtype=np.float64, ensure_non_negative=True
        )
    rows = np.flatnonzero(weights)
    by_class = class_weights(estimator.class_weight, codes[rows], encoder.classes_)
    with np.errstate(over="ignore"):  # what overflows is refused below
        weights = weights[rows] * by_class[codes[rows]]
    rows, weights = rows[weights > 0], weights[weights > 0]
    n_left = len(np.unique(codes[rows]))
    if len(encoder.classes_) < 2 or n_left < (1 if is_part else 2):
        raise ValueError(
            f"y has {n_left or 'no'} class{'' if n_left == 1 else 'es'} of positive weight; a "
            f"classifier needs two. y, sample_weight and class_weight decide; the classes of y are "
            f"{encoder.classes_.tolist()}."
        )
    if not is_part:
        weights = weights / weights.max()  # the sum of the largest is more than float64 holds
        weights = weights / weights.mean()
    if not weights.max() < np.finfo(np.float32).max:
        raise ValueError(
            "sample_weight, times class_weight, has a value too large for float32; divide "
            "sample_weight by its mean."
        )
    data = SequenceDataset(sequences, rows, codes[rows], weights.astype(np.float32))
    return encoder.classes_, data


def _is_bytes(y):
    return y.dtype.kind == "S" or (
        y.dtype == object and len(y) > 0 and all(isinstance(label, bytes) for label in y)
    )


def check_labels(labels, name):
    """Return labels as an array (n,) of classes."""
    with errors_name_argument(name):
        refuse_masked(labels)
        labels = column_or_1d(labels, warn=True)
        if not _is_bytes(labels):  # which scikit-learn refuses
            assert_all_finite(labels, input_name=name)
            with np.errstate(invalid="ignore"):  # of floats beyond all integers
                # Scikit-learn warns of many labels that are all different, as `classes` are.
                check_classification_targets(labels if name == "y" else np.repeat(labels, 2))
    return labels


def class_weights(class_weight, codes, classes):
    """Return the weight of each class, (K,)."""
    if class_weight == "balanced":
        counts = np.bincount(codes, minlength=len(classes))
        return len(codes) / (len(classes) * np.maximum(counts, 1))
    known, class_weight = classes.tolist(), class_weight or {}
    unknown = [label for label in class_weight if label not in known]
    if unknown:
        raise ValueError(f"class_weight has classes {unknown}, but y has the classes {known}.")
    for label, weight in class_weight.items():
        if not isinstance(weight, Real) or not 0 <= weight < np.inf:
            raise ValueError(
                f"class_weight must be finite numbers that are not negative, got {weight!r} for "
                f"class {label!r}."
            )
    return np.array([class_weight.get(label, 1.0) for label in known], dtype=np.float64)


def stratified_split(data, validation_fraction, seed):
    """Split a data set by class into one to train on and one to validate on."""
    from sklearn.model_selection import train_test_split  # as slow to import

    n_valid = max(int(np.ceil(validation_fraction * len(data))), len(np.unique(data.y)))
    try:
        train, valid = train_test_split(
            np.arange(len(data)), test_size=n_valid, random_state=seed, stratify=data.y
        )
    except ValueError as error:
        raise ValueError(
            f"early_stopping=True can't hold out validation_fraction={validation_fraction} of "
            f"{len(data)} sequences by class: {error} Add data or set early_stopping=False."
        ) from error
    valid = valid[np.argsort(data.lengths[valid], kind="stable")]  # so that padding is rare
    return data.take(train), data.take(valid)
