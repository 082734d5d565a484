import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from sklearn_cls._data.augment import (
    augment,
    can_hide_codes,
    cutmix,
    hide_codes,
    mix_labels,
    time_warp,
)
from sklearn_cls._data.batches import padded_batch
from sklearn_cls._data.validation import read_sequences
from sklearn_cls._training import net as net_module
from tests.helpers import bumps, small


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def ramps(lengths, n_features=2):
    """Return sequences whose values are their step numbers, padded with NaN, and the lengths."""
    n_steps = max(lengths)
    x = torch.arange(n_steps).float().repeat(len(lengths), 1).unsqueeze(-1)
    x = x.repeat(1, 1, n_features)
    lengths = torch.tensor(lengths)
    return x.masked_fill((torch.arange(n_steps) >= lengths[:, None])[..., None], torch.nan), lengths


def batch(lengths=(5, 9, 7)):
    """Return the inputs of a batch of noise with unequal weights, and its labels."""
    rng = np.random.default_rng(0)
    sequences = read_sequences([rng.normal(size=(n, 2)) for n in lengths])
    inputs = padded_batch(sequences, np.arange(len(lengths)), torch.device("cpu"))
    inputs["sample_weight"] = torch.linspace(0.5, 2, len(lengths))
    return inputs, torch.arange(len(lengths)) % 3


def test_time_warp_keeps_order_first_and_last_step_and_padding():
    x, lengths = ramps([30, 12, 1, 2])
    warped = time_warp(x, lengths, seeded())
    for before, after, n in zip(x, warped, lengths.tolist(), strict=True):
        assert after[n:].isnan().all()
        assert (after[: n - 1] <= after[1:n]).all()
        torch.testing.assert_close(after[[0, n - 1]], before[[0, n - 1]])
    assert not torch.allclose(warped[0], x[0], atol=0.5)


def test_speed_is_interpolated_between_5_random_values():
    x, lengths = ramps([201] * 500, n_features=1)
    log_speed = time_warp(x, lengths, seeded())[..., 0].double().diff(dim=1).log()  # (B, T - 1)
    assert log_speed[:, [0, -1]].std() == pytest.approx(0.2, abs=0.02)
    change_of_slope = log_speed.diff(dim=1).diff(dim=1).abs().mean(0)
    steps = (change_of_slope > 1e-3).nonzero().flatten() + 2
    assert steps.tolist() == [50, 100, 150]


def test_time_warp_is_the_same_for_all_features():
    x, lengths = ramps([40] * 5, n_features=3)
    warped = time_warp(x, lengths, seeded())
    torch.testing.assert_close(warped, warped[..., :1].expand_as(warped))


def test_time_warp_keeps_the_fraction_of_missing_values():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(50, 60, 2)).astype(np.float32))
    x[torch.from_numpy(rng.uniform(size=x.shape) < 0.2)] = torch.nan
    warped = time_warp(x, torch.full((50,), 60), seeded())
    assert warped.isnan().float().mean() == pytest.approx(0.2, abs=0.02)


def test_cutmix_replaces_one_segment_by_the_same_steps_of_another_sequence():
    x = torch.arange(6.0)[:, None, None].expand(6, 20, 2)
    lengths = torch.full((6,), 20)
    mixed, permutation, lam = cutmix(x, lengths, seeded(1))
    assert (lam > 0).any()
    for i in range(6):
        is_replaced = mixed[i, :, 0] == permutation[i]
        if permutation[i] != i:
            assert is_replaced.float().mean() == lam[i]
            assert is_replaced.int().diff().ne(0).sum() <= 2
            assert ((mixed[i, :, 0] == i) | is_replaced).all()


def test_cutmix_copies_no_padding_and_keeps_the_lengths():
    x, lengths = ramps([30, 9, 14, 2, 1, 25])
    for seed in range(50):
        mixed, _, lam = cutmix(x, lengths, seeded(seed))
        torch.testing.assert_close(mixed.isnan(), x.isnan())
        assert (lam <= 0.5 + 0.5 / lengths).all()


def test_cutmix_replaces_at_most_half_of_the_steps_in_half_of_the_sequences():
    n, n_steps = 2000, 40
    x = torch.arange(float(n))[:, None, None].expand(n, n_steps, 1)
    mixed, _, lam = cutmix(x, torch.full((n,), n_steps), seeded())
    assert (lam > 0).float().mean() == pytest.approx(0.5, abs=0.04)
    assert lam[lam > 0].mean() == pytest.approx(0.25, abs=0.02)
    is_replaced = (mixed != x)[..., 0].float().mean(0)
    assert is_replaced[[0, -1]].min() > 0  # the first and the last step can be replaced


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_loss_of_mixed_labels_is_the_weighted_sum_of_both_losses(label_smoothing):
    generator = seeded()
    y = torch.tensor([0, 1, 2, 1])
    weight, lam = (torch.rand(4, generator=generator) for _ in range(2))
    logits, permutation = torch.randn(4, 3, generator=generator), torch.tensor([2, 3, 0, 1])
    target, mixed = mix_labels(y, weight, permutation, lam, 3)
    torch.testing.assert_close(target.sum(1), torch.ones(4))
    loss = nn.CrossEntropyLoss(reduction="none", label_smoothing=label_smoothing)
    own = (1 - lam) * weight * loss(logits, y)
    other = lam * weight[permutation] * loss(logits, y[permutation])
    torch.testing.assert_close(mixed * loss(logits, target), own + other)


def test_weights_that_underflow_do_not_change_the_label():
    y, permutation = torch.tensor([0, 1]), torch.tensor([1, 0])
    target, weight = mix_labels(y, torch.zeros(2), permutation, torch.tensor([0.5, 0.5]), 2)
    assert target.tolist() == [[1, 0], [0, 1]]
    assert weight.tolist() == [0, 0]


def test_augment_adds_soft_labels_in_proportion_to_the_replaced_steps():
    inputs, y = batch([8] * 6)
    lengths = torch.full((6,), 8)
    augmented = augment(inputs, y, seeded(), n_classes=4)
    generator = seeded()
    x, permutation, lam = cutmix(time_warp(inputs["x"], lengths, generator), lengths, generator)
    assert torch.equal(augmented["x"], x)
    target, weight = mix_labels(y, inputs["sample_weight"], permutation, lam, 4)
    assert torch.equal(augmented["target"], target)
    assert torch.equal(augmented["sample_weight"], weight)
    assert (lam > 0).any()


def test_augment_without_cutmix_only_warps_time():
    inputs, y = batch()
    augmented = augment(inputs, y, seeded(), n_classes=3, use_cutmix=False)
    warped = time_warp(inputs["x"], torch.tensor([5, 9, 7]), seeded())
    torch.testing.assert_close(augmented["x"], warped, equal_nan=True)
    assert augmented.keys() == inputs.keys()
    assert augmented["sample_weight"] is inputs["sample_weight"]


def test_augment_does_not_change_its_inputs():
    inputs, y = batch()
    before = {name: value.clone() for name, value in inputs.items()}
    augmented = augment(inputs, y, seeded(), n_classes=3)
    for name, value in before.items():
        torch.testing.assert_close(inputs[name], value, equal_nan=True)
    assert inputs.keys() == before.keys()
    assert augmented["is_padding"] is inputs["is_padding"]
    assert augmented["x"].shape == before["x"].shape


# Codes.


def code_inputs():
    """Return a padded batch of 2 numbers and 2 code features; the second has many categories."""
    x = torch.ones(40, 50, 4) * torch.tensor([1.0, 2.0, 3.0, 400.0])
    x[:, 40:] = torch.nan
    x[:, 5, 2] = torch.nan
    return {"x": x, "is_padding": x[..., 0].isnan()}


def test_a_tenth_of_the_codes_of_features_with_few_categories_becomes_unknown():
    inputs = code_inputs()
    before, generator = inputs["x"].clone(), torch.Generator().manual_seed(0)
    can_be_hidden = can_hide_codes(2, (32, 33))
    assert can_be_hidden.tolist() == [False, False, True, False]
    x = hide_codes(inputs, None, generator, can_be_hidden=can_be_hidden)["x"]
    assert torch.equal(inputs["x"].nan_to_num(), before.nan_to_num())
    hidden = (x != before) & ~before.isnan()
    assert not hidden[..., [0, 1, 3]].any()
    assert (x[hidden] == 0).all()
    assert 0.08 < hidden[:, :40, 2].float().mean() < 0.12
    assert torch.equal(x.isnan(), before.isnan())


def test_time_warping_copies_codes_and_interpolates_numbers():
    steps = torch.arange(30.0).expand(16, 30)
    x = torch.stack([steps, steps], 2)
    lengths = torch.full((16,), 30)
    warped = time_warp(x, lengths, torch.Generator().manual_seed(0), n_codes=1)
    assert (warped[..., 1] == warped[..., 1].round()).all()
    assert not (warped[..., 0] == warped[..., 0].round()).all()


def test_auto_augments_numbers_by_warping_without_cutmix_for_clocks_and_codes_by_hiding(
    monkeypatch,
):
    seen = []
    for name in ("augment", "hide_codes"):
        function = getattr(net_module, name)

        def recorded(*args, function=function, name=name, **kwargs):
            seen.append((name, kwargs.get("use_cutmix")))
            return function(*args, **kwargs)

        monkeypatch.setattr(net_module, name, recorded)
    X, y = bumps(20)
    codes = np.where(X[:, :, 0] > 0, "up", "down")
    times = [np.arange(len(x)).astype("m8[s]") for x in X]
    clock = pd.DataFrame({"when": times, "x": list(X[:, :, 0])})
    clock_and_codes = clock.assign(code=codes.tolist())
    for form, value, expected in (
        (X, "auto", {("augment", True)}),
        (codes, "auto", {("hide_codes", None)}),
        (codes, True, {("augment", True)}),
        (codes, False, set()),
        (clock, "auto", {("augment", False)}),
        (clock, True, {("augment", True)}),
        (clock_and_codes, "auto", {("hide_codes", None)}),
    ):
        seen.clear()
        small(augment=value, max_epochs=1).fit(form, y)
        assert set(seen) == expected
