"""The values at the steps of sequences, in the units of X, as figures show them.

Shapes: T steps, F features.
"""

from dataclasses import dataclass

import numpy as np

from sklearn_cls._data.clock import CLOCK_INPUTS
from sklearn_cls._data.columns import CLOCK, CODE, NUMBER

SINCE_START = CLOCK_INPUTS.index("time since the start")
UNKNOWN = "?"  # a code that is not among the categories


@dataclass(frozen=True)
class StepValues:
    """The values of some sequences, not standardized, and without padding.

    Attributes
    ----------
    numbers : list of ndarray (T, F)
        For each sequence, the features that are numbers. NaN is a missing value.
    codes : list of list of list of str or None
        For each sequence and each feature that is a code, the code of each step. None is a missing
        code, "?" one that is not among the categories of the fit.
    times : list of ndarray (T,), or None
        For each sequence, the seconds since its start, NaN if missing. None without a clock.
    number_names, code_names : list of str or None
        The names of these features, None if they have none.
    """

    numbers: list
    codes: list
    times: list | None
    number_names: list | None
    code_names: list | None


def step_values(sequences, features, names=None):
    """Return the StepValues of all `sequences`, whose features are `features`.

    `names` are names of all features in the order of X; if None, those in `features`.
    """
    kinds = features.kinds or (NUMBER,) * features.n_features
    names = features.names if names is None else names
    if names is not None and len(names) != len(kinds):
        raise ValueError(
            f"feature_names must have one name for each of the {len(kinds)} features, got "
            f"{len(names)}."
        )
    n_numbers, n_codes = kinds.count(NUMBER), kinds.count(CODE)
    texts = [
        np.array([UNKNOWN, *map(_text, vocabulary.categories)], dtype=object)
        for vocabulary in features.vocabularies
    ]
    numbers, codes, times = [], [], []
    for i in range(len(sequences)):
        steps = np.concatenate([*sequences.steps(np.array([i]))]).astype(np.float64)  # (T, F)
        numbers.append(steps[:, :n_numbers])
        inputs = steps[:, steps.shape[1] - n_codes :].T
        codes.append([_codes(column, text) for column, text in zip(inputs, texts, strict=True)])
        times.append(steps[:, n_numbers + SINCE_START] if CLOCK in kinds else None)
    names = [_of_kind(names, kinds, kind) for kind in (NUMBER, CODE)]
    return StepValues(numbers, codes, times if CLOCK in kinds else None, *names)


def _codes(inputs, texts):
    """Return the codes of the inputs of the network, (T,)."""
    is_missing = np.isnan(inputs)
    codes = texts[np.where(is_missing, 0, inputs).astype(int)]
    codes[is_missing] = None
    return codes.tolist()


def _of_kind(names, kinds, kind):
    """Return the names of the features of one kind, or None."""
    if names is None:
        return None
    return [str(name) for name, each in zip(names, kinds, strict=True) if each == kind]


def _text(category):
    """Return a category as text."""
    if isinstance(category, bytes):
        return category.decode(errors="replace")
    if isinstance(category, float) and category.is_integer():
        return str(int(category))
    return str(category)
