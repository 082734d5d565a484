from functools import partial
from inspect import signature

import pytest
import torch
import torch.nn.functional as F

from benchmarks.textbook import Textbook, gradient_pairs
from sklearn_cls import CLSTransformerClassifier
from sklearn_cls._network.cls_token import CLS_STRATEGIES
from sklearn_cls._network.encoder import POOLINGS, CLSEncoder
from sklearn_cls._network.positions import POSITIONS

SIZES = {"n_features": 3, "n_classes": 4, "d_model": 32, "n_heads": 4, "dim_feedforward": 48}
TARGET = torch.tensor([0, 1, 2, 3, 0])


def make_initial(**params):
    """Return an encoder with its initial weights."""
    torch.manual_seed(0)
    defaults = {**SIZES, "dropout": 0.0, "embedding": "linear", "max_tokens": 11}
    return CLSEncoder(**{**defaults, **params})


def make(**params):
    """Return an encoder with noisy parameters, because initial biases of 0 would hide errors."""
    encoder = make_initial(**params)
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return encoder


def batch(padded=False, n_steps=11):
    """Return 5 sequences, padded with NaN, and their padding mask."""
    x = torch.randn(5, n_steps, 3, generator=torch.Generator().manual_seed(1))
    if not padded:
        return x, None
    lengths = torch.tensor([n_steps, 1, 4, n_steps - 1, 7])
    is_padding = torch.arange(n_steps) >= lengths.unsqueeze(1)
    return x.masked_fill(is_padding.unsqueeze(-1), torch.nan), is_padding


@pytest.mark.parametrize("is_training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("padded", [True, False], ids=["padded", "unpadded"])
@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("strategy", ["learned", "zeros", "fixed"])
def test_outputs_and_gradients_equal_the_textbook_encoder(strategy, depth, padded, is_training):
    encoder = make(cls_strategy=strategy, depth=depth).train(is_training)
    textbook = Textbook(encoder).train(is_training)
    x, is_padding = batch(padded)
    torch.testing.assert_close(encoder(x, is_padding), textbook(x, is_padding), atol=1e-5, rtol=0)
    loss = partial(F.cross_entropy, target=TARGET)
    for ours, theirs in gradient_pairs(encoder, textbook, loss, x, is_padding):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("padded", [True, False], ids=["padded", "unpadded"])
@pytest.mark.parametrize("positions", [*POSITIONS, None])
def test_cls_readout_equals_token_0_of_the_full_block(positions, padded):
    encoder = make(positions=positions).eval()
    z, key_mask, rotary = encoder.tokens(*batch(padded))
    for block in encoder.blocks:
        out, _ = block.cls_readout(z, key_mask, rotary)
        z = block(z, key_mask, rotary)
        torch.testing.assert_close(out, z[:, 0], atol=1e-5, rtol=0)


def test_cls_readout_has_the_dropout_of_the_full_block():
    # The dropout masks differ, so the outputs agree only on average.
    encoder = make(dropout=0.25).train()
    block, (z, _, _) = encoder.blocks[0], encoder.tokens(*batch())
    readout = torch.stack([block.cls_readout(z)[0] for _ in range(1500)])
    full = torch.stack([block(z)[:, 0] for _ in range(1500)])
    assert (readout.mean(0) - full.mean(0)).abs().max() < 0.15
    assert (readout.mean(0) - full.mean(0)).abs().mean() < 0.02
    torch.testing.assert_close(readout.std(0), full.std(0), atol=0.1, rtol=0.1)


class Mistaken(CLSEncoder):
    """A common mistake: [CLS] is prepended, but the result is not used.

    The sequence is encoded without [CLS], and the output at index 0, which should be that of [CLS],
    is that of the first step.
    """

    def prepend_token(self, z, key_mask):
        super().prepend_token(z, key_mask)
        return z, key_mask, None


@pytest.mark.parametrize("network", [CLSEncoder, Mistaken])
def test_the_output_belongs_to_the_token_and_not_to_the_first_step(network):
    torch.manual_seed(0)
    encoder = network(**SIZES, positions=None, embedding="linear").eval()
    x, _ = batch()
    before = encoder(x)
    # Without positions, the output of the token does not depend on the order of the steps.
    ignores_order = torch.allclose(before, encoder(x.roll(1, 1)), atol=1e-5)
    with torch.no_grad():
        encoder.token.value.add_(torch.linspace(-1, 1, 32))
    reads_token = not torch.allclose(before, encoder(x), atol=1e-5)
    assert ignores_order == reads_token == (network is CLSEncoder)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("positions", [*POSITIONS, None])
@pytest.mark.parametrize("embedding", ["linear", "conv"])
@pytest.mark.parametrize("patch_size", [1, 3])
def test_padding_changes_no_output(pooling, positions, embedding, patch_size):
    params = {"embedding": embedding, "patch_size": patch_size, "has_missing": True}
    encoder = make(pooling=pooling, positions=positions, use_instance_norm=True, **params).eval()
    x, is_padding = batch(padded=True)
    together = encoder(x, is_padding)
    for i, sequence in enumerate(x):
        alone = sequence[~is_padding[i]].unsqueeze(0)
        torch.testing.assert_close(encoder(alone), together[i : i + 1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("embedding", ["linear", "conv"])
@pytest.mark.parametrize("is_training", [True, False], ids=["train", "eval"])
def test_the_values_of_padding_do_not_matter(embedding, is_training):
    params = {"embedding": embedding, "has_missing": True, "use_instance_norm": True}
    encoder = make(**params, n_categories=(2,)).train(is_training)
    x, is_padding = batch(padded=True)
    for value in (torch.nan, torch.inf, 7.0):
        padded = x.masked_fill(is_padding.unsqueeze(-1), value)
        assert torch.equal(encoder(padded, is_padding), encoder(x, is_padding))


@pytest.mark.parametrize("embedding", ["linear", "conv"])
@pytest.mark.parametrize("patch_size", [1, 3])
def test_padding_changes_no_output_of_sequences_with_codes(embedding, patch_size):
    encoder = make(embedding=embedding, patch_size=patch_size, n_categories=(2,)).eval()
    x, is_padding = batch(padded=True)
    codes = torch.arange(55).view(5, 11) % 3
    x[..., 2] = torch.where(is_padding, torch.nan, codes)
    x[3, 2, 2] = torch.nan  # a missing code
    together = encoder(x, is_padding)
    for i, sequence in enumerate(x):
        alone = sequence[~is_padding[i]].unsqueeze(0)
        torch.testing.assert_close(encoder(alone), together[i : i + 1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("positions", [None, "rope"])
def test_mean_and_max_pool_the_normalized_tokens_without_cls(pooling, positions):
    x, _ = batch()
    encoder = make(pooling=pooling, positions=positions).eval()
    assert not any("token" in name for name in encoder.state_dict())
    z, key_mask, rotary = encoder.tokens(x, None)
    assert z.shape == (5, 11, 32)
    for block in encoder.blocks:
        z = block(z, key_mask, rotary)
    z = encoder.norm(z)
    expected = z.mean(1) if pooling == "mean" else z.amax(1)
    torch.testing.assert_close(encoder.embed(x), expected, atol=1e-6, rtol=0)
    assert torch.equal(encoder(x), encoder.head(encoder.embed(x)))


@pytest.mark.parametrize("positions", [None, "rope"])
def test_attention_pooling_adds_the_token_in_the_last_block_only(positions):
    x, _ = batch()
    encoder = make(pooling="attention", depth=3, positions=positions).eval()
    z, key_mask, rotary = encoder.tokens(x, None)
    for block in encoder.blocks[:2]:
        z = block(z, key_mask, rotary)
    z, key_mask, rotary = encoder.prepend_token(z, key_mask)
    assert torch.equal(z[:, 0], encoder.token.value.expand(5, -1))
    z = encoder.norm(encoder.blocks[2](z, key_mask, rotary))
    torch.testing.assert_close(encoder.embed(x), z[:, 0], atol=1e-5, rtol=0)


def test_attention_pooling_at_depth_1_is_a_learned_token():
    x, _ = batch()
    cls, attention = make(depth=1).eval(), make(depth=1, pooling="attention").eval()
    attention.load_state_dict(cls.state_dict())
    assert torch.equal(cls(x), attention(x))
    ignored = make(depth=1, pooling="attention", cls_strategy="zeros")
    assert ignored.token.strategy == "learned"


@pytest.mark.parametrize("positions", [*POSITIONS, None])
def test_only_positions_make_the_order_of_steps_matter(positions):
    encoder = make(positions=positions).eval()
    x, _ = batch()
    ignores_order = torch.allclose(encoder(x), encoder(x.flip(1)), atol=1e-3)
    assert ignores_order == (positions is None)


@pytest.mark.parametrize("positions", [*POSITIONS, None])
@pytest.mark.parametrize("strategy", CLS_STRATEGIES)
def test_cls_has_no_position(strategy, positions):
    encoder = make(cls_strategy=strategy, positions=positions).eval()
    z, _, rotary = encoder.tokens(batch()[0], None)
    assert torch.equal(z[:, 0], encoder.token.value.expand(5, -1))
    assert (rotary is not None) == (positions == "rope")
    if rotary is not None:
        cos, sin = rotary
        assert cos.shape == sin.shape == (12, 4)
        assert (cos[0] == 1).all()
        assert (sin[0] == 0).all()


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_rotary_positions_of_steps_are_the_same_with_and_without_cls(pooling):
    _, _, with_cls = make(positions="rope").tokens(batch()[0], None)
    _, _, without = make(positions="rope", pooling=pooling).tokens(batch()[0], None)
    for ours, theirs in zip(without, with_cls, strict=True):
        assert torch.equal(ours, theirs[1:])


@pytest.mark.parametrize(
    "params", [{}, {"patch_size": 3}, {"pooling": "attention"}, {"positions": "rope"}]
)
def test_cls_attention_sums_to_1_over_the_steps_and_is_0_on_padding(params):
    x, is_padding = batch(padded=True)
    encoder = make(depth=3, **params).eval()
    weights = encoder.cls_attention(x, is_padding)
    assert weights.shape == (5, 1 if "pooling" in params else 3, 4, 11)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]), atol=1e-5, rtol=0)
    assert (weights[is_padding[:, None, None].expand_as(weights)] == 0).all()
    for i, sequence in enumerate(x):
        alone = encoder.cls_attention(sequence[~is_padding[i]].unsqueeze(0))[0]
        length = alone.shape[-1]
        torch.testing.assert_close(alone, weights[i, ..., :length], atol=1e-5, rtol=0)


def test_cls_attention_equals_the_textbook_encoder():
    encoder = make().eval()
    x, _ = batch()
    z, _, _ = encoder.tokens(x, None)
    for i, layer in enumerate(Textbook(encoder).eval().encoder.layers):
        y = layer.norm1(z)
        _, weights = layer.self_attn(y, y, y, average_attn_weights=False)
        weights = weights[:, :, 0, 1:]
        expected = weights / weights.sum(-1, keepdim=True)
        torch.testing.assert_close(encoder.cls_attention(x)[:, i], expected, atol=1e-6, rtol=0)
        z = encoder.blocks[i](z)


@pytest.mark.parametrize("positions", [*POSITIONS, None])
@pytest.mark.parametrize("pooling", ["cls", "attention"])
def test_cls_attention_covers_the_blocks_that_contain_the_token(pooling, positions):
    encoder = make(depth=3, pooling=pooling, positions=positions).eval()
    x, is_padding = batch(padded=True)
    z, key_mask, rotary = encoder.tokens(x, is_padding)
    scores = []
    for block in encoder.blocks:
        if pooling == "attention" and block is encoder.blocks[-1]:
            z, key_mask, rotary = encoder.prepend_token(z, key_mask)
        scores.append(block.cls_readout(z, key_mask, rotary)[1])
        z = block(z, key_mask, rotary)
    scores = scores if pooling == "cls" else scores[-1:]
    expected = torch.stack(scores, 1)[..., 1:].softmax(-1)
    assert torch.equal(encoder.cls_attention(x, is_padding), expected)


def test_the_attention_of_a_patch_is_divided_evenly_among_its_steps():
    encoder, x = make(patch_size=4).eval(), batch()[0]  # 11 steps: patches of 4, 4 and 3
    z, _, _ = encoder.tokens(x, None)
    patches = encoder.blocks[0].cls_readout(z)[1][..., 1:].softmax(-1)  # (B, H, 3)
    expected = (patches / torch.tensor([4, 4, 3])).repeat_interleave(4, -1)[..., :11]
    torch.testing.assert_close(encoder.cls_attention(x)[:, 0], expected)


def test_a_zeros_token_attends_uniformly_in_the_first_block_at_initialization():
    for strategy in ("zeros", "fixed"):
        weights = make_initial(cls_strategy=strategy).eval().cls_attention(batch()[0])[:, 0]
        is_uniform = torch.allclose(weights, torch.full_like(weights, 1 / 11), atol=1e-3)
        assert is_uniform == (strategy == "zeros")


@pytest.mark.parametrize("strategy", CLS_STRATEGIES)
def test_at_depth_1_only_a_zeros_token_gives_the_query_weights_no_gradient(strategy):
    encoder = make_initial(cls_strategy=strategy, depth=1)
    F.cross_entropy(encoder(batch()[0]), TARGET).backward()
    w_q, w_k, _ = encoder.blocks[0].qkv.weight.grad.chunk(3)
    b_q, b_k, _ = encoder.blocks[0].qkv.bias.grad.chunk(3)
    assert (w_q.abs().max() == 0) == (strategy == "zeros")
    assert (w_k.abs().max() == 0) == (strategy == "zeros")
    assert b_q.abs().max() > 1e-6
    assert b_k.abs().max() == 0


def test_for_some_w_q_a_fixed_token_has_the_query_of_a_learned_token_in_the_first_block():
    learned, fixed = make(depth=1), make(cls_strategy="fixed", depth=1)
    value = fixed.token.value.clone()
    fixed.load_state_dict(learned.state_dict())
    fixed.token.value.copy_(value)
    x, _ = batch()

    def scores_of_steps(encoder):
        return encoder.blocks[0].cls_readout(encoder.tokens(x, None)[0])[1][..., 1:]

    assert not torch.allclose(scores_of_steps(fixed), scores_of_steps(learned), atol=1e-2)
    with torch.no_grad():  # a W_q that gives the fixed token the query of the learned one
        block, other = fixed.blocks[0], learned.blocks[0]
        query = other.qkv.weight[:32] @ other.norm1(learned.token(1))[0, 0] + other.qkv.bias[:32]
        y = block.norm1(fixed.token(1))[0, 0]
        block.qkv.weight[:32] = torch.outer(query - block.qkv.bias[:32], y) / y.square().sum()
    assert torch.allclose(scores_of_steps(fixed), scores_of_steps(learned), atol=1e-4)


def test_bfloat16_equals_float32_up_to_rounding():
    encoder = make(embedding="conv").eval()
    x, is_padding = batch(padded=True)
    with torch.autocast("cpu", torch.bfloat16):
        low = encoder(x, is_padding).float()
    torch.testing.assert_close(low, encoder(x, is_padding), atol=0.1, rtol=0)
    assert not torch.equal(low, encoder(x, is_padding))


def test_learned_positions_limit_the_length_of_sequences():
    assert make(positions="learned", max_tokens=7, patch_size=3).max_length == 21
    for positions in ("sinusoidal", "rope", None):
        assert make(positions=positions).max_length is None


def test_token_and_learned_positions_have_no_weight_decay():
    encoder = make(positions="learned")
    assert encoder.no_weight_decay() == {"token.value", "embedding.position"}
    assert encoder.no_weight_decay() < dict(encoder.named_parameters()).keys()


def test_initial_attention_weights_are_xavier_uniform_without_bias():
    for block in make_initial(depth=2).blocks:
        limit = (6 / (32 + 3 * 32)) ** 0.5
        assert 0.98 * limit < block.qkv.weight.abs().max() <= limit
        assert (block.qkv.bias == 0).all()


def test_defaults_match_the_classifier():
    ours, public = signature(CLSEncoder).parameters, signature(CLSTransformerClassifier).parameters
    shared = ours.keys() & public.keys() - {"patch_size"}  # "auto" needs data
    assert len(shared) == 9
    for name in shared:
        assert ours[name].default == public[name].default, name
    encoder = CLSEncoder(n_features=3, n_classes=4)
    assert encoder.embedding.patch_size == 1
    assert encoder.embedding.inputs(batch()[0], None).shape == (5, 11, 3)


def test_the_names_of_the_weights_match_saved_models():
    norms = [f"embedding.convolutions.norms.{i}" for i in range(2)]
    block = ["norm1", "norm2", "qkv", "out", "up", "down"]
    expected = {"embedding.position", "token.value"}
    expected |= {f"embedding.convolutions.convs.{i}.weight" for i in range(2)}
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        expected |= {f"{norm}.{name}" for norm in norms}
    for layer in (*norms, "embedding.project", "norm", "head", *(f"blocks.0.{b}" for b in block)):
        expected |= {f"{layer}.weight", f"{layer}.bias"}
    encoder = make(embedding="conv", positions="learned", depth=1)
    assert encoder.state_dict().keys() == expected
