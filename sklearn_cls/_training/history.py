"""The history of a fit as a dict of lists, as in Keras."""

import numpy as np

NUMERIC_COLUMNS = ("epoch", "train_loss", "lr", "dur")  # of every history


def is_finished(epoch):
    """Return whether skorch's record of an epoch is complete: its duration is recorded last."""
    return "dur" in epoch


def history_columns(history):
    """Return skorch's `history` as a dict of lists with one value per finished epoch.

    NumPy scalars become Python scalars; a value is None where a callback recorded nothing.
    """
    epochs = list(filter(is_finished, history))
    names = dict.fromkeys(name for epoch in epochs for name in epoch if name != "batches")
    return {name: [_to_python(epoch.get(name)) for epoch in epochs] for name in names}


def _to_python(value):
    return value.item() if isinstance(value, np.generic) else value
