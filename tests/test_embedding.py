import pytest
import torch

from sklearn_cls._network.embedding import (
    Convolutions,
    Embedding,
    PatchBatchNorm,
    convolve,
    instance_norm,
)
from sklearn_cls._network.positions import MAX_CACHED_POSITIONS, sinusoidal_table


def make(**params):
    torch.manual_seed(0)
    defaults = {
        "n_features": 2, "d_model": 8, "embedding": "linear", "patch_size": 1, "positions": None,
        "max_tokens": 20, "has_missing": False, "use_instance_norm": False, "dropout": 0.0,
    }  # fmt: skip
    return Embedding(**{**defaults, **params}).eval()


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_missing_value_is_imputed_with_the_training_mean():
    embedding = make()
    missing, mean = torch.full((1, 4, 2), 3.0), torch.full((1, 4, 2), 3.0)
    missing[0, 1, 0], mean[0, 1, 0] = torch.nan, 0.0
    assert torch.equal(embedding(missing, None)[0], embedding(mean, None)[0])


def test_indicators_mark_missing_values_but_not_padding():
    x = torch.zeros(2, 4, 2)
    x[0, 1, 0] = torch.nan
    is_padding = torch.tensor([[False] * 4, [False, False, True, True]])
    x[is_padding] = torch.nan
    inputs = make(has_missing=True).inputs(x, is_padding)
    expected = torch.zeros(2, 4, 4)
    expected[0, 1, 2] = 1
    assert torch.equal(inputs, expected)
    assert torch.equal(make(has_missing=True).inputs(x[:1], None), expected[:1])
    assert not torch.allclose(*make(has_missing=True)(torch.stack([x[0], 0 * x[1]]), None)[0])


def test_instance_normalized_features_are_added_to_the_inputs():
    x = normal(3, 50, 2)
    inputs = make(use_instance_norm=True, has_missing=True).inputs(x, None)
    assert torch.equal(inputs[..., :2], x)
    assert torch.equal(inputs[..., 2:4], instance_norm(x, x.isnan()))
    assert (inputs[..., 4:] == 0).all()
    assert make(use_instance_norm=True, has_missing=True)(x, None)[0].shape == (3, 50, 8)


def test_instance_norm_removes_mean_and_scale_of_the_known_values():
    x = normal(3, 50, 2)
    missing = torch.zeros_like(x, dtype=torch.bool)
    missing[:, 45:] = True  # like padding
    missing[0, 3, 1] = missing[1, 0, 0] = True
    normed = instance_norm(x.masked_fill(missing, torch.nan), missing)
    assert (normed[missing] == 0).all()
    for sequence, is_missing in zip(normed.mT.flatten(0, 1), missing.mT.flatten(0, 1), strict=True):
        known = sequence[~is_missing]
        assert known.mean().item() == pytest.approx(0, abs=1e-6)
        assert known.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    small = instance_norm((1e-4 * x + 0.5).masked_fill(missing, torch.nan), missing)
    torch.testing.assert_close(small, normed, atol=5e-3, rtol=0)


@pytest.mark.parametrize("value", [0.1, 9.9, 33.3, -148.35])
@pytest.mark.parametrize("n_steps", [1, 50, 67])
def test_instance_norm_of_a_constant_sequence_is_exactly_0(value, n_steps):
    x = torch.full((1, n_steps, 2), value)
    x[:, 0, 1] = torch.nan
    assert (instance_norm(x, x.isnan()) == 0).all()
    padded = torch.nn.functional.pad(x, (0, 0, 0, 10), value=torch.nan)
    assert (instance_norm(padded, padded.isnan()) == 0).all()


def test_instance_norm_of_a_sequence_that_varies_by_rounding_is_exactly_0():
    x = 1 + 1e-7 * normal(1, 50, 2)  # varies in the last bit of float32
    assert (instance_norm(x, x.isnan()) == 0).all()


@pytest.mark.parametrize("n_steps", [1, 2, 3, 5, 8, 30, 200])
@pytest.mark.parametrize(("embedding", "patch_size"), [("linear", 4), ("conv", 1), ("conv", 4)])
def test_weights_that_no_training_data_reach_are_0_and_stay_0(embedding, patch_size, n_steps):
    layer = make(
        embedding=embedding, patch_size=patch_size, has_missing=True, positions="learned",
        max_tokens=300,
    )  # fmt: skip
    before = {name: value.clone() for name, value in layer.named_parameters()}
    layer.zero_unreached_weights(torch.tensor([True, True, False, True]), n_steps)
    x = normal(64, n_steps, 2)
    x[..., 1] = x[..., 1].masked_fill(normal(64, n_steps, seed=1) > 0, torch.nan)
    layer.train()(x, None)[0].square().sum().backward()
    for name, value in layer.named_parameters():
        if value.ndim < 2 or (embedding == "conv" and name == "project.weight"):
            continue
        is_reached = value.grad != 0
        assert is_reached.any()
        assert (value[~is_reached] == 0).all()
        assert torch.equal(value[is_reached], before[name][is_reached])


def coded(n_steps=6):
    """Return two sequences of one number and two codes, of 2 and 3 categories."""
    codes = torch.stack([torch.arange(2 * n_steps) % n for n in (3, 4)], -1).view(2, n_steps, 2)
    return torch.cat([normal(2, n_steps, 1), codes], -1)


@pytest.mark.parametrize("embedding", ["linear", "conv"])
def test_the_last_features_are_codes_whose_channels_follow_the_inputs_of_the_numbers(embedding):
    params = {"n_features": 3, "n_categories": (2, 3), "has_missing": True, "patch_size": 2}
    layer, x = make(embedding=embedding, use_instance_norm=True, **params), coded()
    x[0, 1] = torch.nan
    is_padding = torch.arange(6) >= torch.tensor([[6], [4]])
    inputs = layer.inputs(x, is_padding)
    assert torch.equal(inputs[..., :3], layer.number_inputs(x[..., :1], is_padding))
    assert torch.equal(inputs[..., 3:], layer.codes(x[..., 1:], is_padding))
    assert layer(x, is_padding)[0].shape == (2, 3, 8)


def test_a_linear_token_is_the_sum_of_the_contributions_of_the_features():
    layer = make(n_features=3, n_categories=(2, 3))
    x, only = coded(), [coded() for _ in range(3)]
    for i, each in enumerate(only):
        each[..., [j for j in range(3) if j != i]] = 0.0
    with torch.no_grad():
        layer.codes.weight[[0, 4]] = 0.0  # the rows of code 0
    total = sum(layer(each, None)[0] - layer.project.bias for each in only)
    torch.testing.assert_close(layer(x, None)[0], total + layer.project.bias)


@pytest.mark.parametrize("embedding", ["linear", "conv"])
def test_sequences_may_have_codes_only(embedding):
    layer = make(embedding=embedding, n_features=1, n_categories=(3,), has_missing=True).train()
    tokens, _ = layer(coded()[..., 2:], None)
    tokens.square().sum().backward()
    assert tokens.shape == (2, 6, 8)
    assert (layer.codes.weight.grad[:4] != 0).all()
    assert (layer.codes.weight.grad[4] == 0).all()  # the row of missing codes


@pytest.mark.parametrize(("n_steps", "n_tokens"), [(1, 1), (3, 1), (4, 2), (6, 2), (7, 3)])
@pytest.mark.parametrize("embedding", ["linear", "conv"])
def test_the_last_patch_may_be_shorter(embedding, n_steps, n_tokens):
    tokens, is_padding = make(embedding=embedding, patch_size=3)(normal(2, n_steps, 2), None)
    assert tokens.shape == (2, n_tokens, 8)
    assert is_padding is None


def test_a_patch_is_padding_if_all_its_steps_are_padding():
    is_padding = torch.arange(7) >= torch.tensor([[7], [4], [3], [1]])
    _, is_padding = make(patch_size=3)(torch.zeros(4, 7, 2), is_padding)
    expected = [[False] * 3, [False, False, True], [False, True, True], [False, True, True]]
    assert is_padding.tolist() == expected


def test_a_linear_token_is_the_projection_of_the_steps_of_its_patch():
    embedding, x = make(patch_size=3), normal(1, 5, 2)
    patches = torch.cat([x, torch.zeros(1, 1, 2)], 1).reshape(1, 2, 6)
    assert torch.equal(embedding(x, None)[0], embedding.project(patches))


@pytest.mark.parametrize("patch_size", [1, 3])
def test_a_convolutional_token_is_the_projection_of_the_convolutions(patch_size):
    embedding, x = make(patch_size=patch_size, embedding="conv"), normal(2, 6, 2)
    expected = embedding.project(embedding.convolutions(x, None))
    assert torch.equal(embedding(x, None)[0], expected)


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rope", None])
def test_positions_are_added_to_the_tokens(positions):
    embedding, x = make(positions=positions), normal(2, 6, 2)
    tokens = embedding.project(x)
    if positions == "sinusoidal":
        tokens = tokens + sinusoidal_table(6, 8)
    elif positions == "learned":
        assert embedding.position.shape == (20, 8)
        assert embedding.position.std().item() == pytest.approx(0.02, rel=0.2)
        tokens = tokens + embedding.position[:6]
    assert torch.equal(embedding(x, None)[0], tokens)
    assert ("position" in dict(embedding.named_parameters())) == (positions == "learned")
    assert ("position" in embedding.state_dict()) == (positions == "learned")


def test_sinusoids_are_cached_for_the_longest_training_sequence_within_a_limit():
    assert torch.equal(make(positions="sinusoidal").position, sinusoidal_table(20, 8))
    embedding = make(positions="sinusoidal", max_tokens=MAX_CACHED_POSITIONS + 1)
    assert len(embedding.position) == MAX_CACHED_POSITIONS
    x = normal(1, 30, 2)
    short = make(positions="sinusoidal")
    short.load_state_dict(embedding.state_dict())
    torch.testing.assert_close(short(x, None)[0], embedding(x, None)[0])


def test_position_and_content_have_equal_magnitude_at_initialization():
    params = {"n_features": 3, "d_model": 64, "embedding": "conv", "patch_size": 4}
    x = normal(16, 200, 3)
    content = make(**params).train()(x, None)[0]
    position = make(**params, positions="sinusoidal").train()(x, None)[0] - content
    assert position.std().item() == pytest.approx(content.std().item(), rel=0.25)


def test_dropout_acts_on_the_tokens_in_training():
    embedding, x = make(dropout=0.5, positions="learned"), normal(2, 6, 2)
    assert (embedding(x, None)[0] != 0).all()
    dropped = embedding.train()(x, None)[0] == 0
    assert dropped.any()
    assert not dropped.all()


def test_batch_norm_uses_the_statistics_of_the_patches_that_are_not_padding():
    x = normal(3, 5, 4)
    is_padding = torch.arange(5) >= torch.tensor([[5], [2], [4]])
    ours, theirs = PatchBatchNorm(4).train(), torch.nn.BatchNorm1d(4, momentum=1.0).train()
    for norm in (ours, theirs):
        torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
        torch.nn.init.normal_(norm.bias, generator=torch.Generator().manual_seed(2))
    y = ours(x, is_padding)
    assert torch.allclose(y[~is_padding], theirs(x[~is_padding]), atol=1e-6)
    assert (y[is_padding] == 0).all()
    assert torch.allclose(ours.running_mean, theirs.running_mean)
    assert torch.allclose(ours.running_var, theirs.running_var)
    statistics = ours.running_mean.clone()
    y = ours.eval()(5 + x, is_padding)
    assert torch.allclose(y[~is_padding], theirs.eval()(5 + x[~is_padding]), atol=1e-6)
    assert torch.equal(ours.running_mean, statistics)


@pytest.mark.parametrize("n_padded", [0, 3])
def test_batch_norm_of_a_single_patch_uses_the_running_statistics(n_padded):
    norm = PatchBatchNorm(4).train()
    norm(normal(5, 3, 4), None)
    x = normal(1, 1 + n_padded, 4, seed=1)
    is_padding = (torch.arange(1 + n_padded) >= 1)[None] if n_padded else None
    mean, std = norm.running_mean.clone(), (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(norm(x, is_padding)[:, :1], (x[:, :1] - mean) / std)


def test_batch_norm_of_two_patches_uses_their_statistics():
    y = PatchBatchNorm(4).train()(normal(2, 1, 4), None)
    torch.testing.assert_close(y.mean(0), torch.zeros(1, 4), atol=1e-6, rtol=0)


def test_running_statistics_start_as_an_average_and_then_decay():
    values = torch.arange(1.0, 14.0)
    norm = PatchBatchNorm(1).train()
    for n, value in enumerate(values[:10], 1):
        norm(value.expand(3, 1, 1), None)
        assert norm.running_mean.item() == pytest.approx(values[:n].mean().item())
    resumed = PatchBatchNorm(1).train()
    resumed.load_state_dict(norm.state_dict())
    mean = norm.running_mean.item()
    for value in values[10:]:
        for each in (norm, resumed):
            each(value.expand(3, 1, 1), None)
        mean = 0.9 * mean + 0.1 * value.item()
        assert norm.running_mean.item() == pytest.approx(mean)
    for name, tensor in norm.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name])
    assert norm.num_batches_tracked == 13


def test_each_convolution_is_followed_by_batch_norm_and_gelu():
    convolutions, x = Convolutions(3, 8, 2).eval(), normal(2, 9, 3)
    for norm in convolutions.norms:
        torch.nn.init.normal_(norm.running_mean, generator=torch.Generator().manual_seed(1))
    z = x.mT
    for conv, norm in zip(convolutions.convs, convolutions.norms, strict=True):
        z = torch.nn.functional.gelu(norm(conv(z).mT, None)).mT
        assert conv.bias is None
    assert z.shape == (2, 8, 5)
    assert torch.equal(convolutions(x, None), z.mT)


@pytest.mark.parametrize("patch_size", [1, 2, 3])
def test_convolutions_leave_padding_at_zero(patch_size):
    is_padding = torch.arange(9) >= torch.tensor([[9], [4]])
    x = normal(2, 9, 3).masked_fill(is_padding.unsqueeze(-1), 0)
    is_padding = is_padding[:, ::patch_size]
    y = Convolutions(3, 8, patch_size).train()(x, is_padding)
    assert y.shape == (2, -(-9 // patch_size), 8)
    assert (y[is_padding] == 0).all()
    assert (y[~is_padding] != 0).any()


@pytest.mark.parametrize("patch_size", [1, 2, 3, 8])
def test_receptive_fields_of_the_convolutions(patch_size):
    first, second = Convolutions(1, 4, patch_size).convs
    x = torch.zeros(1, 1, 20 * patch_size, requires_grad=True)
    first(x)[0, :, 10].sum().backward()
    steps = x.grad[0, 0].nonzero().squeeze(1).tolist()
    assert steps == list(range(9 * patch_size - 3, 11 * patch_size + 4))
    x = torch.zeros(1, 4, 20, requires_grad=True)
    second(x)[0, :, 10].sum().backward()
    assert x.grad[0].sum(0).nonzero().squeeze(1).tolist() == [8, 9, 10, 11, 12]


@pytest.mark.parametrize("n_channels", [1024, 2500])
def test_a_convolution_in_blocks_of_channels_equals_the_whole_in_value_and_gradient(n_channels):
    conv = Convolutions(n_channels, 8, 2).double().convs[0]
    x = normal(3, 9, n_channels).double()
    outputs = conv(x.mT).mT, convolve(conv, x)
    torch.testing.assert_close(*outputs)
    gradients = [torch.autograd.grad(y.square().sum(), conv.weight)[0] for y in outputs]
    torch.testing.assert_close(*gradients)
