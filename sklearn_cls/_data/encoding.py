"""From columns to inputs of the network: what `fit` learns about them, and how they are encoded.

The inputs are the numbers, then what is computed from the clock, then the codes.

Shapes: n sequences, S steps of several sequences, F features.
"""

import re
import reprlib
from collections import Counter
from dataclasses import replace
from functools import reduce
from itertools import compress

import numpy as np

from sklearn_cls._data.clock import check_clock, clock_inputs, rate_of_change
from sklearn_cls._data.codes import CodesReader, Vocabulary, categorical_mask
from sklearn_cls._data.columns import CLOCK, CODE, NUMBER, as_objects
from sklearn_cls._data.features import feature_phrases
from sklearn_cls._data.readers import ColumnReader
from sklearn_cls._data.sequences import Sequences, empty_sequence_error, infinity_error
from sklearn_cls._torch.processes import ONE_PROCESS

DATE = re.compile(r"\d{4}-\d{2}-\d{2}($|[ T]\d{2}:\d{2})")  # ISO 8601, at the start of the text
LIST = re.compile(r"\s*\[.*\]\s*", re.DOTALL)
KIND_NAMES = {NUMBER: "numbers", CODE: "text or categories", CLOCK: "times"}


def learn_tables(tables, features, categorical_features, processes=ONE_PROCESS):
    """Return `features` with the kinds and the vocabularies of the columns of X.

    `tables` are X, or batches of its sequences; each process has some of them.
    """
    learned = reduce(_joined, (_learned(table, categorical_features) for table in tables))
    names, kinds, found = reduce(_joined, processes.gather(learned))
    vocabularies = [
        Vocabulary.learn(*counts, name)
        for counts, kind, name in zip(found, kinds, names, strict=True)
        if kind == CODE
    ]
    if isinstance(categorical_features, str):
        code_names = list(compress(names, (kind == CODE for kind in kinds)))
        _reject_dates(vocabularies, code_names)
        _reject_lists(vocabularies, code_names)
    return _with_kinds(features, kinds, vocabularies)


def _reject_lists(vocabularies, names):
    """Raise an error if the codes of a feature are lists that were converted to text."""
    for vocabulary, name in zip(vocabularies, names, strict=True):
        categories = vocabulary.categories
        if len(categories) and all(
            isinstance(category, str) and LIST.fullmatch(category) for category in categories
        ):
            raise ValueError(
                f"X has lists that were converted to text in {name}, such as "
                f"{reprlib.repr(categories[0])}. Dask does so unless dask.config.set("
                '{"dataframe.convert-string": False}) is called before the frame is made, or the '
                "column has a list type of pyarrow."
            )


def _learned(table, categorical_features):
    """Return what messages call the columns of a table, their kinds, and how often codes occur."""
    step_names = None if table.is_2d else table.names
    names = feature_phrases(len(table.columns), step_names)
    mask = categorical_mask(categorical_features, len(names), step_names)
    columns = [
        _as_given(column, is_code, categorical_features, name)
        for column, is_code, name in zip(table.columns, mask, names, strict=True)
    ]
    _check_clocks(columns, table, names)
    counts = [column.counts() if column.kind == CODE else None for column in columns]
    return names, [column.kind for column in columns], counts


def _joined(learned, other):
    """Return what two batches have shown, see `_learned`."""
    names, kinds, counts = learned
    # A column of codes or times in which all values of a batch are missing looks like numbers.
    kinds = [known if new == NUMBER else new for known, new in zip(kinds, other[1], strict=True)]
    return names, kinds, list(map(_added_counts, counts, other[2]))


def _reject_dates(vocabularies, names):
    """Raise an error if the codes of a feature are dates that are written as text."""
    for vocabulary, name in zip(vocabularies, names, strict=True):
        categories = vocabulary.categories
        if len(categories) and all(
            isinstance(category, str) and DATE.match(category) for category in categories
        ):
            raise ValueError(
                f"X has dates as text in {name}, such as {categories[0]!r}. Convert them to times, "
                "for example by pandas.to_datetime, before the steps of a sequence are put "
                "together; or name the feature in categorical_features if each is a code."
            )


def _added_counts(counts, other):
    """Return the sum of how often codes occur in two batches; None is a batch without codes."""
    if counts is None or other is None:
        return counts or other
    total = Counter(dict(zip(*counts, strict=True)))
    total.update(dict(zip(*other, strict=True)))
    return as_objects(list(total)), np.array(list(total.values()))


def _check_clocks(columns, table, names):
    """Raise an error if more than one column is a clock, or one of a list of arrays."""
    clocks = [name for name, column in zip(names, columns, strict=True) if column.kind == CLOCK]
    if clocks and table.names is None:
        raise ValueError(
            "X holds dates or durations, but its values must be real numbers: encode text or dates "
            "as numbers, or pass a data frame, in which a column of times is the clock."
        )
    if len(clocks) > 1:
        raise ValueError(
            f"X has times in {clocks[0]} and {clocks[1]}, but a sequence has one clock. Keep one "
            "of them, and pass others as numbers, such as the seconds between both."
        )


def _as_given(column, is_categorical, categorical_features, name):
    """Return a column of the kind that the parameter `categorical_features` says."""
    if is_categorical and column.kind == CLOCK:
        raise ValueError(f"categorical_features has {name}, whose values are times.")
    if is_categorical:
        return _as_codes(column, name)
    if column.kind == CODE and not isinstance(categorical_features, str):
        if not column.holds_numbers:
            raise ValueError(
                f"X has text or categories in {name}, which categorical_features does not have; "
                "add it, or use categorical_features='from_dtype'."
            )
        return column.as_numbers()
    return column


def _with_kinds(features, kinds, vocabularies):
    """Return `features` with kinds and vocabularies; unchanged if every column is a number."""
    if set(kinds) == {NUMBER} and len(kinds) == features.n_features:
        return features
    return replace(features, kinds=tuple(kinds), vocabularies=tuple(vocabularies))


def encode_table(table, features):
    """Return the sequences of a table; its columns must be of the kinds that `fit` has seen."""
    kinds = features.kinds or (NUMBER,) * features.n_features
    names = feature_phrases(len(kinds), features.names)
    vocabularies = iter(features.vocabularies)
    lengths = np.diff(table.offsets)
    _check_not_empty(lengths)
    numbers, clock, codes = [], [], []
    for column, kind, name in zip(table.columns, kinds, names, strict=True):
        if kind == NUMBER:
            numbers.append(_numbers(column, name))
        elif kind == CODE:
            codes.append(_codes(column, next(vocabularies), name))
        else:
            times = _times(column, name)
            check_clock(times, lengths, name)
            clock += list(clock_inputs(times, lengths).T)
    if clock:
        clock += [_rates(values, times, lengths) for values in numbers]
    columns = [*numbers, *clock, *codes]
    lengths, has_gaps = _lengths_and_gaps(columns, table.offsets, len(codes))
    reader = ColumnReader(columns, table.offsets)
    return Sequences(
        reader,
        lengths,
        has_gaps,
        n_categories=features.n_categories,
        n_clock_inputs=len(clock),
    )


def _check_not_empty(lengths):
    if not lengths.all():
        raise empty_sequence_error(int(lengths.argmin()))


def _numbers(column, name):
    """Return the values of a column that held numbers in `fit`."""
    if column.kind == CODE and column.holds_numbers:
        column = column.as_numbers()
    if column.kind != NUMBER:
        raise _kind_error(column, NUMBER, name)
    return column.values


def _as_codes(column, name):
    """Return a column as codes, unless rounding may have made different numbers equal.

    Integers are rounded where others are missing, as there is no integer for a missing value.
    """
    if column.values.dtype.kind == "f" and np.any(np.abs(column.values) >= 2**53):
        raise ValueError(
            f"X has codes in {name} that are numbers beyond 2**53, which are rounded if some are "
            "missing or floats; pass them as text or as categories."
        )
    return column.as_codes()


def _codes(column, vocabulary, name):
    """Return the inputs of a column that held codes in `fit`."""
    if column.kind == CLOCK:
        raise _kind_error(column, CODE, name)
    column = _as_codes(column, name)
    if len(vocabulary) and len(column.codes) and _kind_of(column) != _kind_of(vocabulary):
        raise ValueError(
            f"X has {_kind_of(column)} in {name}, but its categories in fit were "
            f"{reprlib.repr(vocabulary.categories.tolist())}; pass codes like these."
        )
    return vocabulary.inputs(column)


def _kind_of(codes):
    """Return what the codes of a column, or the categories of a vocabulary, are."""
    if codes.holds_numbers:
        return "numbers"
    return "bytes" if codes.holds_bytes else "text"


def _times(column, name):
    """Return the values of a column that held times in `fit`."""
    if column.kind == CLOCK:
        return column.values
    if column.kind == NUMBER and np.isnan(column.values).all():
        return np.full(len(column.values), "NaT", dtype="datetime64[ns]")
    raise _kind_error(column, CLOCK, name)


def _rates(values, times, lengths):
    """Return the rate of change of a number that each step has, or that each sequence has."""
    if len(values) < len(times):
        return np.zeros(len(values))
    return rate_of_change(values, times, lengths)


def _kind_error(column, expected, name):
    return ValueError(
        f"X has {KIND_NAMES[column.kind]} in {name}, which held {KIND_NAMES[expected]} in fit; "
        f"convert it to {KIND_NAMES[expected]}."
    )


def _lengths_and_gaps(columns, offsets, n_codes):
    """Return the lengths of the sequences without missing steps at the end, and which have gaps.

    A missing code is not a gap, because the network has an input for it.
    """
    n, n_steps = len(offsets) - 1, offsets[-1]
    is_known, is_missing = np.zeros(n_steps, dtype=bool), np.zeros(n_steps, dtype=bool)
    is_missing_everywhere = np.zeros(n, dtype=bool)
    for j, values in enumerate(columns):
        if values.dtype.kind != "f":
            missing = np.zeros(len(values), dtype=bool)
        else:
            missing = np.isnan(values)
            if np.isinf(values).any():
                row = int(np.isinf(values).argmax())
                is_step = len(values) == n_steps
                i = int(np.searchsorted(offsets, row, side="right")) - 1 if is_step else row
                raise infinity_error(i)
        is_number = j < len(columns) - n_codes
        if len(values) < n_steps:
            is_missing_everywhere |= missing & is_number
        else:
            is_known |= ~missing
            is_missing |= missing & is_number
    steps = np.arange(n_steps) - np.repeat(offsets[:-1], np.diff(offsets))
    lengths = np.maximum.reduceat(np.where(is_known, steps + 1, 0), offsets[:-1])
    if not lengths.all():
        raise empty_sequence_error(int(lengths.argmin()), all_missing=True)
    first_gap = np.minimum.reduceat(np.where(is_missing, steps, n_steps), offsets[:-1])
    return lengths, (first_gap < lengths) | is_missing_everywhere


def learn_array(sequences, features, categorical_features):
    """Return `features` with the vocabularies of the code features of an array or a list."""
    mask = categorical_mask(categorical_features, features.n_features, features.names)
    if not mask.any():
        return features
    kinds = [CODE if is_code else NUMBER for is_code in mask]
    names = feature_phrases(len(mask), features.names)
    none = np.empty(0, dtype=sequences.dtype), np.empty(0, dtype=int)
    found = dict.fromkeys(np.flatnonzero(mask), none)
    for steps in sequences.steps(np.arange(len(sequences))):  # (S, F)
        for j, known in found.items():
            values = steps[:, j]
            new = np.unique(values[~np.isnan(values)], return_counts=True)
            found[j] = _joined_counts(known, new)
    vocabularies = []
    for j, part in found.items():
        codes, counts = reduce(_joined_counts, sequences.processes.gather(part))
        vocabularies.append(Vocabulary.learn(as_objects(codes.tolist()), counts, names[j]))
    return _with_kinds(features, kinds, vocabularies)


def _joined_counts(part, other):
    """Return the distinct numbers in two parts of the data, and how often each occurs."""
    codes, positions = np.unique(np.append(part[0], other[0]), return_inverse=True)
    return codes, np.bincount(positions, np.append(part[1], other[1])).astype(int)


def encode_array(sequences, features):
    """Return the sequences of an array or a list of numbers, with its codes encoded."""
    if features.kinds is None:
        return sequences
    names = feature_phrases(features.n_features, features.names)
    vocabularies = iter(features.vocabularies)
    for kind, name in zip(features.kinds, names, strict=True):
        if kind == CLOCK or (kind == CODE and not next(vocabularies).holds_numbers):
            raise ValueError(
                f"X is an array of numbers, but {name} held {KIND_NAMES[kind]} in fit; pass X in "
                "the same form as in fit."
            )
    is_code = np.array([kind == CODE for kind in features.kinds])
    reader = CodesReader(sequences.reader, is_code, features.vocabularies)
    return replace(sequences, reader=reader, n_categories=features.n_categories)
