"""The number and the names of the features of X, which must be the same in every call."""

import reprlib
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
from torch.utils.data import Dataset

from sklearn_cls._compat import check_feature_names, get_feature_names
from sklearn_cls._data.clock import CLOCK_INPUTS
from sklearn_cls._data.columns import CLOCK, CODE, NUMBER


@dataclass(frozen=True)
class Features:
    """The features of X that `fit` has seen.

    Attributes
    ----------
    n_features_in : int
        Number of features F; of a 2-D X, the number of its columns, which are the steps.
    feature_names_in : ndarray of str or None
        Column names, if X was a data frame or a list of them.
    fitted_on_2d : bool
        Whether X was a 2-D array or a data frame of numbers, whose sequences have one feature.
    kinds : tuple of {"number", "code", "clock"}, or None
        What each feature is, see `Column`; None if all are numbers.
    vocabularies : tuple of Vocabulary
        One for each code feature.
    """

    n_features_in: int
    feature_names_in: np.ndarray | None = None
    fitted_on_2d: bool = False
    kinds: tuple | None = None
    vocabularies: tuple = ()

    @property
    def n_features(self):
        """Number of features F."""
        if self.kinds is not None:
            return len(self.kinds)
        return 1 if self.fitted_on_2d else self.n_features_in

    @property
    def n_categories(self):
        """Number of categories of each code feature, a tuple."""
        return tuple(len(vocabulary) for vocabulary in self.vocabularies)

    @property
    def n_inputs(self):
        """Number of inputs of the network for a step."""
        if self.kinds is None:
            return self.n_features
        n_numbers, n_codes = self.kinds.count(NUMBER), self.kinds.count(CODE)
        n_of_clock = len(CLOCK_INPUTS) + n_numbers if CLOCK in self.kinds else 0
        return n_numbers + n_of_clock + n_codes

    @property
    def input_names(self):
        """What messages call the inputs of the network: the numbers, the clock, the codes."""
        phrases = feature_phrases(self.n_features, None if self.fitted_on_2d else self.names)
        if self.kinds is None:
            return phrases
        names = {NUMBER: [], CLOCK: [], CODE: []}
        for phrase, kind in zip(phrases, self.kinds, strict=True):
            names[kind] += [f"{n} of {phrase}" for n in CLOCK_INPUTS] if kind == CLOCK else [phrase]
        if CLOCK in self.kinds:
            names[CLOCK] += [f"the rate of change of {phrase}" for phrase in names[NUMBER]]
        return [*names[NUMBER], *names[CLOCK], *names[CODE]]

    @property
    def names(self):
        """Names of the features of a step, or None."""
        names = self.feature_names_in
        return None if names is None or len(names) != self.n_features else names


def feature_phrases(n_features, names=None):
    """Return what messages call the features: by their names, or by their numbers."""
    if names is None:
        return [f"feature {j}" for j in range(n_features)]
    return [f"feature {str(name)!r}" for name in names]


def check_n_features(n_features, expected, estimator):
    """Raise an error if the number of features or columns differs from that of `fit`."""
    if n_features != expected:
        raise ValueError(n_features_message(n_features, expected, estimator))


def n_features_message(n_features, expected, estimator):
    """Return scikit-learn's message that X has another number of features than in `fit`."""
    return (
        f"X has {n_features} features, but {estimator} is expecting {expected} features as input."
    )


def column_names(X, estimator, features):
    """Return the column names of X or None, after comparing them with those of `features`."""
    if X is None and (features is None or features.feature_names_in is None):
        return None
    known = _class_named(estimator)()
    if features is not None:
        known.feature_names_in_ = features.feature_names_in
    check_feature_names(known, X, reset=features is None)
    return getattr(known, "feature_names_in_", None)


def column_names_of_items(X, estimator, features):
    """Return the column names of the data frames in a list, or None; compare them as above.

    All frames must have the same columns in the same order. A 3-D array has no names, and neither
    has a dataset of PyTorch.
    """
    frames = {}  # one frame (or None) and its number for each distinct list of names
    has_items = not isinstance(X, np.ndarray | Dataset)
    if has_items or (isinstance(X, np.ndarray) and X.dtype == object):
        for i, x in enumerate(X):
            names = None if isinstance(x, np.ndarray | list) else get_feature_names(x)
            names = None if names is None else tuple(names)
            frames.setdefault(names, (i, None if names is None else x))
    if features is None and len(frames) > 1:
        (names, _), (other, (i, _)), *_ = frames.items()
        raise ValueError(
            f"X[{i}] has the feature names {reprlib.repr(other and list(other))}, but X[0] has "
            f"{reprlib.repr(names and list(names))}; all sequences need the same columns in the "
            "same order."
        )
    if not frames or (features is not None and features.fitted_on_2d):
        return column_names(None, estimator, features)  # The columns of `fit` are steps.
    for i, frame in frames.values():
        try:
            names = column_names(frame, estimator, features)
        except ValueError as error:
            raise ValueError(f"X[{i}]: {error}") from error
    return names


@lru_cache
def _class_named(name):
    """Return a class of this name: scikit-learn's messages contain the name of the class."""
    return type(name, (SimpleNamespace,), {})
