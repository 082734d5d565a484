"""What is to be learnt, as class codes and weights: every complaint about y is made here."""

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, check_consistent_length, column_or_1d

from sklearn_cls._batches import SequenceDataset
from sklearn_cls._compat import check_sample_weight


def check_targets(estimator, sequences, y, sample_weight, classes=None):
    """Check y and weights; return the classes and the sequences of positive weight to learn from.

    `classes` are all there may be; by default those in y, at least two of positive weight.
    """
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target "
            "y is None."
        )
    y = column_or_1d(y, warn=True)
    assert_all_finite(y, input_name="y")
    check_classification_targets(y)
    check_consistent_length(sequences, y)
    encoder = LabelEncoder().fit(y if classes is None else column_or_1d(classes))
    unknown = [label for label in np.unique(y).tolist() if label not in encoder.classes_]
    if unknown:
        raise ValueError(
            f"y has classes {unknown}, but this {type(estimator).__name__} goes on with "
            f"{encoder.classes_.tolist()}; name all classes in the first call of partial_fit, or "
            "fit anew with warm_start=False."
        )
    codes = encoder.transform(y)
    weights = check_sample_weight(sample_weight, codes, dtype=np.float64, ensure_non_negative=True)
    weights = weights * class_weights(estimator.class_weight, y, encoder.classes_)
    rows = np.flatnonzero(weights)
    if len(encoder.classes_) < 2 or (classes is None and len(np.unique(codes[rows])) < 2):
        raise ValueError(
            "y has one class among the sequences of positive weight; a classifier needs two or "
            f"more. The classes of y are {encoder.classes_.tolist()}."
        )
    weights = (weights[rows] / weights[rows].mean()).astype(np.float32)
    return encoder.classes_, SequenceDataset(sequences, rows, codes[rows], weights)


def class_weights(class_weight, y, classes):
    """Return the weight of each sequence's class, (n,)."""
    if isinstance(class_weight, dict):
        known = classes.tolist()
        unknown = [label for label in class_weight if label not in known]
        if unknown:
            raise ValueError(f"class_weight has classes {unknown}, but y has the classes {known}.")
        wrong = {label: w for label, w in class_weight.items() if not 0 <= w < np.inf}
        if wrong:
            raise ValueError(f"class_weight must be finite and not negative, got {wrong}.")
    return compute_sample_weight(class_weight, y)


def hold_out(data, validation_fraction, seed):
    """Split a data set by class into one to train on and one to validate on."""
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
