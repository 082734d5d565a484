"""Sequences in a temporary file, for those that may not fit into memory.

Shapes: n sequences, S steps of several sequences, F features.
"""

from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from sklearn_cls._data.readers import FlatReader
from sklearn_cls._data.tables import offsets_of
from sklearn_cls._data.temporary_arrays import TemporaryArray


def stored_sequences(parts):
    """Return `Sequences` that come in parts as one, with their steps in a temporary file."""
    lengths, has_gaps = [], []
    with ExitStack() as stack:
        array = None
        for part in parts:
            if array is None:
                array = stack.enter_context(TemporaryArray(part.dtype, (part.n_features,)))
            for steps in part.steps(np.arange(len(part))):  # (S, F)
                array.append(steps)
            lengths.append(part.lengths)
            has_gaps.append(part.has_gaps)
        if array is None:
            raise ValueError("X is empty: 0 sample(s), and at least one sequence is required.")
        lengths = np.concatenate(lengths)
        reader = FlatReader(array.close(), offsets_of(lengths))
    return replace(part, reader=reader, lengths=lengths, has_gaps=np.concatenate(has_gaps))
