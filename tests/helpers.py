"""Small classifiers, small data and callbacks that the tests share."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from skorch.callbacks import Callback

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls._data.batches import SequenceDataset
from sklearn_cls._data.validation import read_sequences
from sklearn_cls._persistence.checkpoint_file import read_state

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
DOCS = Path(__file__).parent.parent / "docs"
# So long after the loss of a worker, a LocalCluster gives it up if it is missing, even if it has
# come back in between and has been lost again just now.
LOST_WORKERS_RETURN = {"distributed.deploy.lost-worker-timeout": "1h"}


def benchmark(name):
    """Return a fixture that imports a benchmark script.

    It changes the import path, because the folder of the benchmarks is not a package.
    """

    @pytest.fixture
    def module(monkeypatch):
        monkeypatch.syspath_prepend(BENCHMARKS)
        return import_module(name)

    return module


def small(**params):
    """Return a classifier that trains in a fraction of a second."""
    params = {
        "d_model": 16, "n_heads": 2, "dim_feedforward": 16, "max_epochs": 8, "batch_size": 16,
        "lr": 5e-3, "random_state": 0, **params,
    }  # fmt: skip
    return CLSTransformerClassifier(**params)


def bumps(n=60, n_steps=20, n_features=2, seed=0):
    """Return noisy sequences of two classes, which have an early or a late bump."""
    rng = np.random.default_rng(seed)
    X = 0.3 * rng.normal(size=(n, n_steps, n_features)).astype(np.float32)
    y = np.arange(n) % 2
    for x, late in zip(X, y, strict=True):
        start = n_steps // 2 * late + rng.integers(n_steps // 4)
        x[start : start + 3, 0] += 3
    return X, y


def labeled_ones(lengths, y):
    """Return a dataset of sequences of some lengths, whose values are 1, with class codes y."""
    values = read_sequences([np.ones(n) for n in lengths])
    return SequenceDataset(values, np.arange(len(y)), np.array(y), np.ones(len(y), np.float32))


class Hook(Callback):
    """A skorch callback that calls functions: `Hook(on_epoch_end=f)` calls `f(net, **kwargs)`."""

    def __init__(self, **functions):
        self.functions = functions

    def __getattribute__(self, name):
        if name.startswith("on_"):
            function = object.__getattribute__(self, "functions").get(name)
            if function is not None:
                return function
        return object.__getattribute__(self, name)


def stop_after(n_epochs):
    """Return a callback that asks skorch to end the training after `n_epochs`."""

    def stop(net, **kwargs):
        if len(net.history) == n_epochs:
            raise KeyboardInterrupt

    return Hook(on_epoch_end=stop)


def read_checkpoint(path):
    """Return the state in a checkpoint."""
    with open(path, "rb") as file:
        return read_state(file, str(path))
