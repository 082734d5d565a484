import numpy as np
import pytest
import torch

from sklearn_cls._training.auto import (
    auto_batch_size,
    auto_lr,
    auto_max_epochs,
    auto_n_threads,
    auto_patch_size,
    beta2,
    forward_autocast,
    warmup_fraction,
)
from tests.helpers import bumps, small


@pytest.mark.parametrize(
    ("n_steps", "patch_size"), [(1, 1), (64, 1), (65, 2), (128, 2), (315, 5), (6400, 100)]
)
def test_auto_patch_size_makes_at_most_64_tokens_of_a_sequence_of_median_length(
    n_steps, patch_size
):
    assert auto_patch_size([n_steps] * 3) == patch_size
    assert auto_patch_size([1, n_steps, 2 * n_steps]) == patch_size


@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_auto_patch_size_follows_the_median_if_lengths_vary_as_usual(sigma):
    lengths = np.random.default_rng(0).lognormal(np.log(600), sigma, 10_000).astype(int)
    assert auto_patch_size(lengths) == auto_patch_size([int(np.median(lengths))])


@pytest.mark.parametrize("n_sequences", [2, 63, 10_000])
@pytest.mark.parametrize("longest", [10**3, 10**5, 10**7])
def test_auto_patch_size_bounds_the_cost_of_attention_to_one_long_sequence(longest, n_sequences):
    lengths = np.array([*[20] * n_sequences, longest])
    n_tokens = -(-lengths // auto_patch_size(lengths))
    # The cost of attention is the sum of the squares.
    assert np.square(n_tokens).sum() <= 1100 * n_tokens.sum()
    assert auto_patch_size([20] * n_sequences + [100]) == 1


@pytest.mark.parametrize(
    ("n_sequences", "batch_size"),
    [(2, 8), (40, 8), (200, 16), (1000, 128), (40_000, 128), (10**6, 128)],
)
def test_auto_batch_size_is_a_power_of_2_near_a_tenth_of_the_sequences(n_sequences, batch_size):
    assert auto_batch_size(n_sequences) == batch_size


@pytest.mark.parametrize(
    ("n_sequences", "batch_size", "max_epochs"),
    [
        (1, 32, 600), (160, 32, 120), (1920, 32, 10), (96, 96, 600),  # 600 updates
        (96, 8, 100), (96, 16, 142),  # 1200 and 850 updates
        (1921, 32, 10), (10**6, 32, 10),  # at least 10 epochs
    ],
)  # fmt: skip
def test_auto_max_epochs_makes_600_updates_and_more_with_small_batches(
    n_sequences, batch_size, max_epochs
):
    assert auto_max_epochs(n_sequences, batch_size) == max_epochs


@pytest.mark.parametrize(
    ("n_sequences", "n_processes", "batch_size"),
    [
        (10**6, 1, 128), (10**6, 8, 128), (10**6, 32, 512), (10**6, 127, 1024), (10**6, 128, 2048),
        (10**6, 512, 2048), (60_000, 512, 512), (51_000, 512, 256), (200, 512, 16),
    ],
)  # fmt: skip
def test_many_processes_share_larger_batches_of_large_data(n_sequences, n_processes, batch_size):
    assert auto_batch_size(n_sequences, n_processes) == batch_size


@pytest.mark.parametrize(
    ("batch_size", "warmup", "decay"),
    [(8, 0.1, 0.999), (128, 0.1, 0.999), (512, 0.2, 0.996), (2048, 0.3, 0.984), (4096, 0.3, 0.984)],
)
def test_large_batches_have_a_longer_warmup_and_a_smaller_beta2(batch_size, warmup, decay):
    assert warmup_fraction(batch_size) == pytest.approx(warmup)
    assert beta2(batch_size) == pytest.approx(decay, abs=1e-12)
    clf = small(batch_size=batch_size, max_epochs=1).fit(*bumps(8))
    assert clf.net_.beta2 == beta2(batch_size)
    assert clf.net_.warmup_fraction == warmup_fraction(batch_size)


@pytest.mark.parametrize(
    ("batch_size", "d_model", "lr"),
    [
        (16, 16, 2e-3), (16, 64, 2e-3), (16, 128, 1e-3), (16, 256, 5e-4),
        (4, 64, 1e-3), (64, 64, 4e-3), (128, 64, 32**0.5 / 1e3), (512, 64, 128**0.5 / 1e3),
        (2048, 64, 512**0.5 / 1e3), (4096, 64, 512**0.5 / 1e3),
    ],
)  # fmt: skip
def test_auto_lr_grows_with_the_batch_size_and_falls_with_the_width(batch_size, d_model, lr):
    assert auto_lr(batch_size, d_model) == pytest.approx(lr, rel=1e-12)


def test_fit_uses_the_automatic_values():
    X = [np.zeros((n_steps, 1)) for n_steps in (100, 130, 130, 1000)] * 30
    clf = small(patch_size="auto", batch_size="auto", lr="auto", d_model=128, max_epochs=1)
    clf.fit(X, np.arange(120) % 2)
    # The median length is 130 steps, and ceil(130 / 64) is 3.
    assert clf.module_.embedding.patch_size == 3
    assert clf.net_.batch_size == 16
    assert clf.net_.lr == 1e-3


def test_partial_fit_keeps_the_learning_rate_constant(data):
    clf = small(lr=3e-3).partial_fit(*data)
    assert clf.history_["lr"] == [3e-3]


@pytest.mark.parametrize("n_sequences", [40, 1280])
def test_automatic_training_works_for_small_and_large_data(n_sequences):
    params = {"max_epochs": "auto", "batch_size": "auto", "lr": "auto", "depth": 1}
    clf = small(**params).fit(*bumps(n_sequences, n_steps=8))
    assert clf.net_.batch_size == {40: 8, 1280: 128}[n_sequences]
    assert clf.score(*bumps(seed=1, n_steps=8)) > 0.95


def test_a_deep_and_wide_network_is_stable_at_the_automatic_learning_rate(data):
    X, y = data
    clf = small(depth=6, d_model=256, n_heads=4, max_epochs=12, lr="auto", augment=False)
    clf.fit(X, y)
    assert clf.score(X, y) > 0.95
    assert clf.loss_curve_[-1] < 0.5 * clf.loss_curve_[0]


def test_one_thread_is_used_on_a_gpu(fitted, monkeypatch):
    monkeypatch.setattr("sklearn_cls._torch.threads.n_cores", lambda: 3)
    assert auto_n_threads(fitted.module_, "cuda", None, 10**9) == 1
    assert auto_n_threads(fitted.module_, "cpu", 3, 1) == 3


@pytest.mark.parametrize("d_model", [16, 256])
def test_auto_precision_is_float32_on_the_cpu(d_model):
    net = small(d_model=d_model, max_epochs=1).fit(*bumps()).net_
    x = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16), forward_autocast(net):
        assert (x @ x).dtype == torch.float32
