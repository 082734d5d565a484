"""How the cost of fitting and predicting grows with the data, counted without a clock.

`benchmarks/bench_growth.py` measures seconds and bytes.
"""

import gc
import tracemalloc
from math import log

import numpy as np
import pytest
import torch

from sklearn_cls._network.encoder import Block, CLSEncoder
from tests.helpers import Hook, bumps, small

MAX_EXPONENT = 1.2


def one_long(longest, n=64):
    """Return `n` sequences of 20 steps, the first of which is extended by noise, and labels."""
    X, y = bumps(n)
    noise = 0.3 * np.random.default_rng(1).normal(size=(longest - 20, 2)).astype(np.float32)
    return [np.concatenate([X[0], noise]), *X[1:]], y


@pytest.fixture
def count(monkeypatch):
    """Return a function that counts padded steps and the cost of attention in a call.

    The cost of attention is the number of pairs of tokens.
    """
    counts = {}
    embed, forward = CLSEncoder.embed, Block.forward

    def count_steps(network, x, is_padding=None):
        counts["steps"] += x.shape[0] * x.shape[1]
        return embed(network, x, is_padding)

    def count_pairs(block, z, *args):
        counts["pairs"] += z.shape[0] * z.shape[1] ** 2
        return forward(block, z, *args)

    def count(function, *args):
        counts.update(steps=0, pairs=0)
        function(*args)
        return counts["steps"], counts["pairs"]

    monkeypatch.setattr(CLSEncoder, "embed", count_steps)
    monkeypatch.setattr(Block, "forward", count_pairs)
    return count


@pytest.mark.parametrize("early_stopping", [False, True])
def test_few_steps_are_padding_if_one_sequence_is_much_longer(early_stopping, count):
    X, y = one_long(4000)
    n_steps = sum(map(len, X))
    clf = small(max_epochs=1, patch_size="auto", early_stopping=early_stopping)
    for function in (lambda: clf.fit(X, y), lambda: clf.predict(X)):
        n_padded_steps, n_pairs = count(function)
        assert n_padded_steps < 1.5 * n_steps
        assert n_pairs < 1024 * n_steps


@pytest.mark.parametrize(
    ("small_data", "large_data"),
    [
        (one_long(1000), one_long(16_000)),
        (one_long(1000), one_long(1000, n=1024)),
        (bumps(64, n_steps=100), bumps(64, n_steps=1600)),
        (bumps(64), bumps(1024)),
    ],
    ids=["longest sequence", "sequences of unequal lengths", "steps", "sequences"],
)
def test_steps_and_attention_grow_at_most_by_a_power_of_1_2(small_data, large_data, count):
    def costs(X, y):
        """Return the counts of a fit and of a prediction."""
        clf = small(max_epochs=1, batch_size=8, patch_size="auto")
        return [*count(clf.fit, X, y), *count(clf.predict, X)]

    for before, after in zip(costs(*small_data), costs(*large_data), strict=True):
        assert log(after / before) / log(16) < MAX_EXPONENT


def test_predict_does_not_hold_the_probabilities_of_all_sequences_and_classes():
    n, n_classes = 4000, 1000
    clf = small(max_epochs=1).partial_fit(*bumps(20), classes=range(n_classes))
    X = bumps(n)[0]
    tracemalloc.start()
    y = clf.predict(X)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(y, clf.predict_proba(X).argmax(1))
    assert peak < n * n_classes  # bytes; the probabilities have 4 each


@pytest.mark.parametrize("n_features", [2, 512, 4096])
def test_prediction_batches_have_few_steps_if_there_are_many_features(n_features, monkeypatch):
    n_values, embed = [], CLSEncoder.embed

    def count(network, x, is_padding=None):
        n_values.append(x.numel())
        return embed(network, x, is_padding)

    X, y = bumps(n_features=n_features, n=250, n_steps=40)
    clf = small(max_epochs=1).fit(X[:20], y[:20])
    monkeypatch.setattr(CLSEncoder, "embed", count)
    clf.predict(X)
    assert sum(n_values) == X.size
    assert max(n_values) <= 2**13 * 512
    assert n_values[0] > 0.9 * 2**13 * min(n_features, 512)


@pytest.mark.slow
def test_no_tensor_is_kept_per_batch(data):
    """Small tensors between large ones would fragment the memory."""
    n_tensors = {True: [], False: []}

    def count(net, training, **kwargs):
        n_tensors[training].append(sum(issubclass(type(x), torch.Tensor) for x in gc.get_objects()))

    clf = small(max_epochs=1, batch_size=2, early_stopping=True, validation_fraction=0.4)
    clf.set_params(callbacks=[Hook(on_batch_end=count)]).fit(*data)
    for counts in n_tensors.values():
        assert len(counts) > 10
        assert max(counts[2:]) == counts[2]
