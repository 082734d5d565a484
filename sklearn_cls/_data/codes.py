"""Codes: which features are categorical, their vocabularies, and their inputs of the network.

Input 0 is a code that does not occur in the vocabulary, 1 to K are its categories, and NaN is a
missing code.

Shapes: n sequences, S steps of several sequences, F features, K categories.
"""

import reprlib
import warnings
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Number

import numpy as np

from sklearn_cls._data.columns import as_objects

MAX_CATEGORIES = 2**16  # of a feature; the rarer codes share one input


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The categories of a code feature.

    Attributes
    ----------
    categories : ndarray (K,) of object
        Sorted.
    """

    categories: np.ndarray

    def __post_init__(self):
        """Number the categories."""
        numbers = {category: i for i, category in enumerate(self.categories.tolist(), start=1)}
        object.__setattr__(self, "_inputs", numbers)

    def __len__(self):
        return len(self.categories)

    @classmethod
    def learn(cls, codes, counts, name):
        """Return the vocabulary of a feature.

        Parameters
        ----------
        codes : ndarray of object
            The distinct codes.
        counts : ndarray of int
            How often each of them occurs.
        name : str
            What messages call the feature.
        """
        if len(codes) > MAX_CATEGORIES:
            warnings.warn(
                f"X has {len(codes)} different codes in {name}. The {MAX_CATEGORIES} most frequent "
                "ones are categories; all others are treated as one.",
                UserWarning,
                stacklevel=2,
            )
            codes = codes[np.argsort(-counts, kind="stable")[:MAX_CATEGORIES]]
        try:
            codes = np.sort(codes)
        except TypeError:  # codes of several types
            codes = as_objects(sorted(codes, key=lambda code: (type(code).__name__, str(code))))
        return cls(codes)

    def inputs(self, column):
        """Return the inputs of the network for a `Column` of codes, (S,), float32."""
        inputs = [self._inputs.get(code, 0) for code in column.codes.tolist()]
        return np.array([*inputs, np.nan], dtype=np.float32)[column.values]

    def inputs_of_numbers(self, values):
        """Return the inputs of the network for codes that are numbers, any shape, float32."""
        position = np.searchsorted(self._numbers, values)
        inputs = np.zeros(values.shape, dtype=np.float32)
        is_within = position < len(self)
        within = position[is_within]
        inputs[is_within] = np.where(self._numbers[within] == values[is_within], within + 1, 0)
        inputs[np.isnan(values)] = np.nan
        return inputs

    @cached_property
    def _numbers(self):
        """The categories as an array of numbers; integers stay exact, whatever their size."""
        numbers = np.array(self.categories.tolist())
        return numbers if numbers.dtype.kind in "iuf" else numbers.astype(np.float64)

    @cached_property
    def holds_numbers(self):
        """Whether all categories are numbers."""
        return all(isinstance(category, Number) for category in self.categories)

    @cached_property
    def holds_bytes(self):
        """Whether all categories are bytes."""
        return len(self) > 0 and all(isinstance(category, bytes) for category in self.categories)


class CodesReader:
    """Reads the features of another reader, with the codes encoded and moved to the end.

    Parameters
    ----------
    reader : ArrayReader or ListReader
        Reads numbers (S, F), some of which are codes.
    is_code : ndarray of bool, (F,)
    vocabularies : sequence of Vocabulary
        One for each code feature.
    """

    def __init__(self, reader, is_code, vocabularies):
        self.reader, self.vocabularies = reader, vocabularies
        self.numbers, self.codes = np.flatnonzero(~is_code), np.flatnonzero(is_code)
        self.n_features, self.n_steps = reader.n_features, reader.n_steps
        self.dtype = np.result_type(reader.dtype, np.float32)

    def encoded(self, values):
        """Return values (..., F) with the codes encoded, and moved to the end."""
        result = np.empty(values.shape, dtype=self.dtype)
        result[..., : len(self.numbers)] = values[..., self.numbers]
        codes = zip(self.codes, self.vocabularies, strict=True)
        for i, (j, vocabulary) in enumerate(codes, start=len(self.numbers)):
            result[..., i] = vocabulary.inputs_of_numbers(values[..., j])
        return result

    def pad(self, indices, lengths, convert):
        """Return some sequences, converted by `convert`, as an array (B, T, F) padded with NaN."""
        return self.reader.pad(indices, lengths, lambda values: convert(self.encoded(values)))

    def part(self, i, start, stop):
        """Return steps of sequence `i`, (S, F)."""
        return self.encoded(self.reader.part(i, start, stop))

    def steps(self, indices, lengths, n_max):
        """Yield all steps of some sequences as arrays (S, F) of about `n_max` steps."""
        return map(self.encoded, self.reader.steps(indices, lengths, n_max))


def categorical_mask(categorical_features, n_features, names):
    """Return which features `categorical_features` names, (F,); all False for "from_dtype".

    Parameters
    ----------
    categorical_features : "from_dtype", None, or array-like of bool, int or str
        Parameter of the estimator: a mask, indices or names.
    n_features : int
        Number of features F.
    names : list of str or None
        Names of the features.
    """
    mask = np.zeros(n_features, dtype=bool)
    if categorical_features is None or isinstance(categorical_features, str):
        return mask
    given = np.asarray(categorical_features)
    if given.size == 0:
        return mask
    message = f"categorical_features={reprlib.repr(categorical_features)} "
    if given.ndim != 1:
        raise ValueError(f"{message}must be 1-D: a mask, indices or names of features.")
    if given.dtype.kind == "b":
        if len(given) != n_features:
            raise ValueError(
                f"{message}is a mask of {len(given)} features, but X has {n_features}."
            )
        return given.copy()
    for item in given.tolist():
        if isinstance(item, str):
            if names is None or item not in names:
                known = "no names" if names is None else f"the names {reprlib.repr(list(names))}"
                raise ValueError(f"{message}has {item!r}, but the features of X have {known}.")
            mask[list(names).index(item)] = True
        elif isinstance(item, Integral) and -n_features <= item < n_features:
            mask[item] = True
        else:
            raise ValueError(f"{message}has {item!r}, but X has {n_features} features.")
    return mask
