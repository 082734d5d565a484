import numpy as np
import pytest
import torch

from sklearn_cls._network.embedding import Convolutions, Embedding, PatchBatchNorm, sinusoids


def make(
    kind="linear", patch_size=1, positions=None, has_missing=False, differ=False, max_tokens=20
):
    torch.manual_seed(0)
    return Embedding(2, 8, kind, patch_size, positions, max_tokens, has_missing, differ, 0.0).eval()


def test_inputs_are_standardised():
    embedding = make()
    x = 5 + 3 * torch.randn(100, 30, 2, generator=torch.Generator().manual_seed(0))
    embedding.mean.copy_(x.mean((0, 1)))
    embedding.scale.copy_(x.std((0, 1)))
    z = embedding.inputs(x, None)
    assert torch.allclose(z.mean((0, 1)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(z.std((0, 1)), torch.ones(2), atol=1e-5)


def test_a_missing_value_is_the_training_mean():
    embedding = make()
    embedding.mean.fill_(7.0)
    gap, mean = torch.full((1, 4, 2), 3.0), torch.full((1, 4, 2), 3.0)
    gap[0, 1, 0], mean[0, 1, 0] = torch.nan, 7.0
    assert torch.equal(embedding(gap, None)[0], embedding(mean, None)[0])


def test_the_network_is_told_what_is_missing_if_training_had_gaps():
    embedding = make(has_missing=True)
    gap, mean = torch.zeros(1, 4, 2), torch.zeros(1, 4, 2)
    gap[0, 1, 0] = torch.nan
    assert not torch.allclose(embedding(gap, None)[0], embedding(mean, None)[0])


def test_sequences_of_different_scale_are_also_shown_by_their_own():
    x = torch.randn(3, 50, 2, generator=torch.Generator().manual_seed(0))
    small = 1e-4 * x + 0.5
    small[:, 45:] = torch.nan  # padding
    x[:, 45:] = torch.nan
    small[0, 3, 1] = x[0, 3, 1] = torch.nan  # a gap
    is_padding = (torch.arange(50) >= 45).expand(3, 50)
    own = make(differ=True).inputs(small, is_padding)[:, :, 2:]
    torch.testing.assert_close(
        own, make(differ=True).inputs(x, is_padding)[..., 2:], atol=5e-3, rtol=0
    )
    torch.testing.assert_close(own[1, :45].mean(0), torch.zeros(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(own[1, :45].std(0, correction=0), torch.ones(2))
    assert (own[:, 45:] == 0).all()
    assert own[0, 3, 1] == 0


@pytest.mark.parametrize("value", [0.1, 9.9, 33.3, -148.35])
@pytest.mark.parametrize("n_steps", [1, 50, 67])
def test_a_constant_sequence_is_zero_by_its_own_scale_at_any_length(value, n_steps):
    x = torch.full((1, n_steps, 2), value)
    x[:, 0, 1] = torch.nan  # a gap at the start
    is_padding = torch.arange(n_steps + 10)[None] >= n_steps
    padded = torch.nn.functional.pad(x, (0, 0, 0, 10), value=torch.nan)
    assert (make(differ=True).inputs(x, None)[..., 2:] == 0).all()
    assert (make(differ=True).inputs(padded, is_padding)[..., 2:] == 0).all()


@pytest.mark.parametrize(("n_steps", "n_tokens"), [(1, 1), (3, 1), (4, 2), (6, 2), (7, 3)])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_the_last_patch_may_be_shorter(kind, n_steps, n_tokens):
    tokens, is_padding = make(kind, patch_size=3)(torch.randn(2, n_steps, 2), None)
    assert tokens.shape == (2, n_tokens, 8)
    assert is_padding is None


def test_a_token_is_padding_if_all_its_steps_are():
    is_padding = torch.arange(7) >= torch.tensor([[7], [4], [3], [1]])
    _, of_tokens = make(patch_size=3)(torch.zeros(4, 7, 2), is_padding)
    expected = [[False] * 3, [False, False, True], [False, True, True], [False, True, True]]
    assert of_tokens.tolist() == expected


def test_a_patch_is_a_linear_map_of_its_steps():
    embedding = make(patch_size=3)
    x = torch.randn(1, 6, 2)
    expected = embedding.project(x.reshape(1, 2, 6))
    assert torch.allclose(embedding(x, None)[0], expected)


def test_sinusoids_are_those_of_the_paper():
    table = sinusoids(50, 6)
    position, i = 13, 2
    assert table[position, 2 * i].item() == pytest.approx(np.sin(position / 10000 ** (2 * i / 6)))
    assert table[position, 2 * i + 1].item() == pytest.approx(
        np.cos(position / 10000 ** (2 * i / 6)), abs=1e-6
    )
    assert sinusoids(4, 7).shape == (4, 7)


def test_at_the_start_a_token_says_as_much_of_its_place_as_of_its_steps():
    placed, unplaced = (
        Embedding(3, 64, "conv", 4, positions, 0, False, False, 0.0).train()
        for positions in ("sinusoidal", None)
    )
    placed.load_state_dict(unplaced.state_dict())
    x = torch.randn(16, 200, 3)
    steps = unplaced(x, None)[0]
    place = placed(x, None)[0] - steps
    assert place.std().item() == pytest.approx(steps.std().item(), rel=0.25)


def test_batch_norm_of_a_padded_batch_sees_real_steps_only():
    x = torch.randn(3, 5, 4)
    is_padding = torch.arange(5) >= torch.tensor([[5], [2], [4]])
    ours, theirs = PatchBatchNorm(4).train(), torch.nn.BatchNorm1d(4, momentum=1.0).train()
    y = ours(x, is_padding)
    assert torch.allclose(y[~is_padding], theirs(x[~is_padding]), atol=1e-6)
    assert (y[is_padding] == 0).all()
    assert torch.allclose(ours.running_mean, theirs.running_mean)
    assert torch.allclose(ours.running_var, theirs.running_var)


def test_batch_norm_of_one_step_is_finite():
    y = PatchBatchNorm(4).train()(torch.randn(1, 1, 4), None)
    assert y.isfinite().all()


def test_batch_norm_predicts_with_what_it_saw_after_few_batches():
    norm = PatchBatchNorm(1).train()
    for _ in range(4):
        norm(5 + torch.randn(100, 10, 1), None)
    assert norm.running_mean.item() == pytest.approx(5, abs=0.2)


@pytest.mark.parametrize("patch_size", [1, 2, 3])
def test_convolutions_leave_padding_at_zero(patch_size):
    x = torch.randn(2, 9, 3)
    is_padding = torch.arange(9) >= torch.tensor([[9], [4]])
    x = x.masked_fill(is_padding.unsqueeze(-1), 0)
    is_padding = is_padding[:, ::patch_size]
    y = Convolutions(3, 8, patch_size).train()(x, is_padding)
    assert y.shape == (2, -(-9 // patch_size), 8)
    assert (y[is_padding] == 0).all()
    assert (y[~is_padding] != 0).any()


@pytest.mark.parametrize("patch_size", [1, 2, 3, 8])
def test_the_first_convolution_sees_a_patch_the_one_before_and_some_steps_around(patch_size):
    conv = Convolutions(1, 4, patch_size).convs[0]
    x = torch.zeros(1, 1, 20 * patch_size, requires_grad=True)
    conv(x)[0, :, 10].sum().backward()
    seen = x.grad[0, 0].nonzero().squeeze(1).tolist()
    assert seen == list(range(9 * patch_size - 3, 11 * patch_size + 4))
