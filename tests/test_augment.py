import numpy as np
import pytest
import torch

from sklearn_cls._data.augment import LONGEST, augment, splice, warp
from sklearn_cls._data.batches import padded_batch
from sklearn_cls._data.sequences import read_sequences


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def ramps(lengths, n_features=2):
    """A batch of sequences that count their steps; (x, lengths)."""
    n_steps = max(lengths)
    x = torch.arange(n_steps).float().repeat(len(lengths), 1).unsqueeze(-1)
    x = x.repeat(1, 1, n_features)
    lengths = torch.tensor(lengths)
    return x.masked_fill((torch.arange(n_steps) >= lengths[:, None])[..., None], torch.nan), lengths


def test_warping_keeps_order_first_and_last_step_and_padding():
    x, lengths = ramps([30, 12, 1, 2])
    warped = warp(x, lengths, seeded())
    for before, after, n in zip(x, warped, lengths.tolist(), strict=True):
        assert after[n:].isnan().all()
        assert (after[: n - 1] <= after[1:n]).all()
        torch.testing.assert_close(after[[0, n - 1]], before[[0, n - 1]])
    assert not torch.allclose(warped[0], x[0], atol=0.5)


def test_warping_moves_all_features_alike():
    x, lengths = ramps([40] * 5, n_features=3)
    warped = warp(x, lengths, seeded())
    torch.testing.assert_close(warped, warped[..., :1].expand_as(warped))


def test_warping_keeps_gaps_as_frequent_as_they_were():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(50, 60, 2)).astype(np.float32))
    x[torch.from_numpy(rng.uniform(size=x.shape) < 0.2)] = torch.nan
    warped = warp(x, torch.full((50,), 60), seeded())
    assert warped.isnan().float().mean() == pytest.approx(0.2, abs=0.02)


def test_a_splice_is_the_partners_at_the_same_steps_and_its_share_is_told():
    x = torch.arange(6.0)[:, None, None].expand(6, 20, 2)
    lengths = torch.full((6,), 20)
    spliced, partner, share = splice(x, lengths, seeded(1))
    assert (share > 0).any()
    for i in range(6):
        from_partner = spliced[i, :, 0] == partner[i]
        if partner[i] != i:
            assert from_partner.float().mean() == share[i]
            edges = from_partner.int().diff().ne(0).sum()
            assert edges <= 2  # one stretch
            assert ((spliced[i, :, 0] == i) | from_partner).all()


def test_a_splice_takes_no_padding_and_keeps_the_length():
    x, lengths = ramps([30, 9, 14, 2, 1, 25])
    for seed in range(50):
        spliced, _, share = splice(x, lengths, seeded(seed))
        torch.testing.assert_close(spliced.isnan(), x.isnan())
        assert (share <= LONGEST + 0.5 / lengths).all()


def test_augmenting_does_not_change_the_batch_it_is_given():
    sequences = read_sequences([np.random.default_rng(0).normal(size=(n, 2)) for n in (5, 9, 7)])
    batch = padded_batch(sequences, np.arange(3), torch.device("cpu"))
    before = batch["x"].clone()
    after = augment(batch, seeded())
    torch.testing.assert_close(batch["x"], before, equal_nan=True)
    assert after["is_padding"] is batch["is_padding"]
    assert after["x"].shape == before.shape
    assert set(batch) == {"x", "is_padding"}
