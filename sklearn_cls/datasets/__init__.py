"""Example sequences, and readers for the formats of other libraries.

Sequences are an array of shape (n_sequences, n_steps, n_features), or a list of arrays of shape
(n_steps_i, n_features) if their lengths differ. aeon and sktime put channels before steps: see
`from_channels_first`. Tables with a row for each step: see `from_long`.
"""

from sklearn_cls.datasets.channels_first import from_channels_first
from sklearn_cls.datasets.examples import load_digit_sequences, make_sequences
from sklearn_cls.datasets.long_tables import from_long
from sklearn_cls.datasets.ts_files import load_ts

__all__ = [
    "from_channels_first",
    "from_long",
    "load_digit_sequences",
    "load_ts",
    "make_sequences",
]
