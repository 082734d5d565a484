"""The split into training and validation data for early stopping.

Shapes: n sequences, K classes.
"""

import numpy as np

from sklearn_cls._data.warning_filters import FILTERS_LOCK

N_DRAWS = 20  # number of random splits by group, of which the most similar one is used


def split_for_validation(data, validation_fraction, seed, groups=None):
    """Return a training and a validation dataset with the same class proportions.

    The validation dataset is sorted by length. With `groups`, whole numbers (n,), no group is in
    both.
    """
    split = _stratified_split if groups is None else _grouped_split
    with FILTERS_LOCK:
        train, valid = split(data, validation_fraction, seed, groups)
    return data.take(train), data.take(valid).sorted_by_length()


def _stratified_split(data, validation_fraction, seed, groups=None):
    """Return the indices of a random split, stratified by class."""
    from sklearn.model_selection import train_test_split  # imported lazily: it is slow

    _, counts = np.unique(data.y, return_counts=True)
    n_valid = max(int(np.ceil(validation_fraction * len(data))), len(counts))
    if counts.min() < 2 or len(data) - n_valid < len(counts):
        raise ValueError(
            f"early_stopping=True cannot hold out validation_fraction={validation_fraction} of "
            f"{len(data)} sequences by class: {n_valid} would be held out, and training needs at "
            f"least one of each of the {len(counts)} classes; the smallest class has "
            f"{counts.min()}. Add data or set early_stopping=False."
        )
    return train_test_split(
        np.arange(len(data)), test_size=n_valid, random_state=seed, stratify=data.y
    )


def _grouped_split(data, validation_fraction, seed, groups):
    """Return the indices of a split by group.

    Of several random splits, it is the one whose validation set comes closest to
    `validation_fraction` of each class.
    """
    from sklearn.model_selection import GroupShuffleSplit

    n_groups = len(np.unique(groups))
    counts = np.bincount(data.y)
    best, smallest = None, np.inf
    if n_groups > 1:
        n_valid = min(max(1, round(validation_fraction * n_groups)), n_groups - 1)
        splitter = GroupShuffleSplit(N_DRAWS, test_size=n_valid, random_state=seed)
        for train, valid in splitter.split(data.y, groups=groups):
            held_out = np.bincount(data.y[valid], minlength=len(counts))
            distance = np.abs(held_out - validation_fraction * counts).sum()
            if distance < smallest and (held_out < counts)[counts > 0].all():
                best, smallest = (train, valid), distance
    if best is None:
        raise ValueError(
            f"early_stopping=True cannot hold out whole groups: there are {n_groups} groups, and "
            "training needs sequences of each class. Add groups, pass X_val and y_val, or set "
            "early_stopping=False."
        )
    return best
