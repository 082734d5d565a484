import pytest
import torch
import torch.nn.functional as F

from benchmarks.textbook import Textbook
from sklearn_cls._network.encoder import CLSEncoder

SIZES = {"n_features": 3, "n_classes": 4, "d_model": 32, "n_heads": 4, "dim_feedforward": 48}


def make(**params):
    torch.manual_seed(0)
    encoder = CLSEncoder(**{**SIZES, "dropout": 0.0, "embedding": "linear", **params})
    with torch.no_grad():  # biases start at 0, where an error in them would not show
        for p in encoder.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return encoder


def batch(n_steps=11, padded=False, n=5):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, n_steps, 3, generator=generator)
    if not padded:
        return x, None
    lengths = torch.tensor([n_steps, 1, 4, n_steps - 1, 7][:n])
    is_padding = torch.arange(n_steps) >= lengths.unsqueeze(1)
    return x.masked_fill(is_padding.unsqueeze(-1), torch.nan), is_padding


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("padded", [True, False], ids=["padded", "unpadded"])
@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("strategy", ["learned", "zeros", "fixed"])
def test_readout_equals_the_full_encoder_in_value_and_gradient(strategy, depth, padded, training):
    encoder = make(cls_strategy=strategy, depth=depth).train(training)
    textbook = Textbook(encoder).train(training)
    x, is_padding = batch(padded=padded)
    y = torch.tensor([0, 1, 2, 3, 0])

    ours, theirs = encoder(x, is_padding), textbook(x, is_padding)
    assert (ours - theirs).abs().max() < 1e-5

    # What both share, and then what carries the same weights.
    shared = [*encoder.embedding.parameters(), *encoder.head.parameters()]
    shared += encoder.token.parameters()
    gradient = torch.autograd.grad(F.cross_entropy(ours, y), shared)
    F.cross_entropy(textbook(x, is_padding), y).backward()
    for a, b in zip(gradient, shared, strict=True):
        assert (a - b.grad).abs().max() < 1e-5
    encoder.zero_grad()
    F.cross_entropy(encoder(x, is_padding), y).backward()
    for block, layer in zip(encoder.blocks, textbook.encoder.layers, strict=True):
        attention = layer.self_attn
        for a, b in [
            (block.qkv.weight, attention.in_proj_weight),
            (block.qkv.bias, attention.in_proj_bias),
            *zip(block.out.parameters(), attention.out_proj.parameters(), strict=True),
            *zip(block.up.parameters(), layer.linear1.parameters(), strict=True),
            *zip(block.down.parameters(), layer.linear2.parameters(), strict=True),
            *zip(block.norm1.parameters(), layer.norm1.parameters(), strict=True),
            *zip(block.norm2.parameters(), layer.norm2.parameters(), strict=True),
            *zip(encoder.norm.parameters(), textbook.encoder.norm.parameters(), strict=True),
        ]:
            assert (a.grad - b.grad).abs().max() < 1e-5


@pytest.mark.parametrize("padded", [True, False], ids=["padded", "unpadded"])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rope", None])
def test_reading_one_row_equals_reading_all_rows(positions, padded):
    encoder = make(positions=positions, max_tokens=11, depth=2).eval()
    z, key_mask, rope = encoder.tokens(*batch(padded=padded))
    one, _ = encoder.blocks[0].cls_readout(z, key_mask, rope)
    assert (one - encoder.blocks[0](z, key_mask, rope)[:, 0]).abs().max() < 1e-5


def test_readout_trains_with_dropout_as_the_full_encoder_does():
    # Masks differ, so values can only agree on average.
    encoder = make(depth=2, dropout=0.25).train()
    x, _ = batch()
    z, _, _ = encoder.tokens(x, None)
    block = encoder.blocks[0]
    rows = torch.stack([block.cls_readout(z)[0] for _ in range(3000)]).mean(0)
    full = torch.stack([block(z)[:, 0] for _ in range(3000)]).mean(0)
    assert (rows - full).abs().max() < 0.15
    assert (rows - full).abs().mean() < 0.02


class Mistaken(CLSEncoder):
    """The textbook mistake: [CLS] is prepended, then the sequence is encoded without it."""

    def prepend(self, z, key_mask):
        super().prepend(z, key_mask)
        return z, key_mask, None


@pytest.mark.parametrize("network", [CLSEncoder, Mistaken])
def test_cls_reads_what_the_encoder_was_given(network):
    torch.manual_seed(0)
    encoder = network(**SIZES, positions=None, embedding="linear").eval()
    x, _ = batch()
    before = encoder(x)
    # Rotating the steps moves the first one, and says nothing to a token without positions.
    ignores_order = torch.allclose(before, encoder(x.roll(1, 1)), atol=1e-5)
    with torch.no_grad():
        encoder.token.value.add_(torch.linspace(-1, 1, 32))
    reads_token = not torch.allclose(before, encoder(x), atol=1e-5)
    assert ignores_order == reads_token == (network is CLSEncoder)


@pytest.mark.parametrize("pooling", ["cls", "mean", "max", "attention"])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rope", None])
@pytest.mark.parametrize("embedding", ["linear", "conv"])
@pytest.mark.parametrize("patch_size", [1, 3])
def test_padding_a_sequence_changes_nothing(pooling, positions, embedding, patch_size):
    encoder = make(
        pooling=pooling,
        positions=positions,
        embedding=embedding,
        patch_size=patch_size,
        max_tokens=11,
        has_missing=True,
    ).eval()
    x, is_padding = batch(padded=True)
    together = encoder(x, is_padding)
    for i, row in enumerate(x):
        alone = row[~is_padding[i]].unsqueeze(0)
        assert torch.allclose(encoder(alone), together[i : i + 1], atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_pooling_without_a_token_has_none(pooling):
    encoder = make(pooling=pooling)
    assert not any("token" in name for name in encoder.state_dict())
    z, _, _ = encoder.tokens(batch()[0], None)
    assert z.shape[1] == 11


def test_mean_and_max_pool_the_normalised_tokens():
    x, _ = batch()
    for pooling, pool in (("mean", lambda z: z.mean(1)), ("max", lambda z: z.amax(1))):
        encoder = make(pooling=pooling, depth=1).eval()
        z, _, _ = encoder.tokens(x, None)
        expected = pool(encoder.norm(encoder.blocks[0](z)))
        assert torch.allclose(encoder.embed(x), expected, atol=1e-6)


def test_attention_pooling_joins_in_the_last_block_only():
    x, _ = batch()
    encoder = make(pooling="attention", depth=3).eval()
    z, _, _ = encoder.tokens(x, None)
    for block in encoder.blocks[:2]:
        z = block(z)
    z = torch.cat([encoder.token(len(x)), z], 1)
    assert torch.allclose(encoder.embed(x), encoder.norm(encoder.blocks[2](z)[:, 0]), atol=1e-5)


def test_attention_pooling_at_depth_1_is_a_learned_token():
    x, _ = batch()
    cls, attention = make(depth=1).eval(), make(depth=1, pooling="attention").eval()
    attention.load_state_dict(cls.state_dict())
    assert torch.equal(cls(x), attention(x))


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rope"])
def test_positions_tell_orders_apart(positions):
    encoder = make(positions=positions, max_tokens=11).eval()
    x, _ = batch()
    assert not torch.allclose(encoder(x), encoder(x.flip(1)), atol=1e-3)


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rope", None])
@pytest.mark.parametrize("strategy", ["learned", "zeros", "fixed", "random"])
def test_no_position_is_added_to_the_cls_slot(strategy, positions):
    encoder = make(cls_strategy=strategy, positions=positions, max_tokens=11).eval()
    z, _, rope = encoder.tokens(batch()[0], None)
    assert torch.equal(z[:, 0], encoder.token.value.expand(5, -1))
    if rope is not None:
        cos, sin = rope
        assert (cos[0] == 1).all()
        assert (sin[0] == 0).all()


def test_rotary_scores_depend_on_distance_only():
    from sklearn_cls._network.encoder import rotate, rotations

    q, k = torch.randn(2, 1, 1, 1, 8).expand(2, 1, 1, 6, 8)
    rope = rotations(6, 8)
    scores = (rotate(q, rope) @ rotate(k, rope).mT).squeeze()
    for distance in range(-5, 6):
        diagonal = scores.diagonal(distance)
        assert torch.allclose(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5)


def test_attention_shares_sum_to_1_over_real_steps():
    x, is_padding = batch(padded=True)
    for params in ({}, {"patch_size": 3}, {"pooling": "attention"}, {"positions": "rope"}):
        encoder = make(depth=3, **params).eval()
        weights = encoder.cls_attention(x, is_padding)
        assert weights.shape == (5, 1 if "pooling" in params else 3, 4, 11)
        assert torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-5)
        padded = is_padding[:, None, None].expand_as(weights)
        assert (weights[padded] == 0).all()


def test_cls_attention_is_what_the_full_encoder_attends_to():
    encoder = make(depth=2).eval()
    x, _ = batch()
    z, _, _ = encoder.tokens(x, None)
    for i, layer in enumerate(Textbook(encoder).eval().encoder.layers):
        y = layer.norm1(z)
        _, weights = layer.self_attn(y, y, y, average_attn_weights=False)
        of_steps = weights[:, :, 0, 1:]
        expected = of_steps / of_steps.sum(-1, keepdim=True)
        assert torch.allclose(encoder.cls_attention(x)[:, i], expected, atol=1e-6)
        z = encoder.blocks[i](z)


def test_a_patch_shares_its_attention_evenly_among_its_steps():
    encoder = make(patch_size=4).eval()
    weights = encoder.cls_attention(batch()[0])  # 11 steps: patches of 4, 4 and 3
    for patch in (weights[..., :4], weights[..., 4:8], weights[..., 8:]):
        assert torch.allclose(patch, patch[..., :1].expand_as(patch))


def test_zeros_token_attends_evenly_in_block_1_at_the_start():
    torch.manual_seed(0)
    encoder = CLSEncoder(**SIZES, cls_strategy="zeros", depth=2, embedding="linear").eval()
    weights = encoder.cls_attention(batch()[0])[:, 0]
    assert torch.allclose(weights, torch.full_like(weights, 1 / 11), atol=1e-6)
    encoder = CLSEncoder(**SIZES, cls_strategy="fixed", depth=2, embedding="linear").eval()
    weights = encoder.cls_attention(batch()[0])[:, 0]
    assert not torch.allclose(weights, torch.full_like(weights, 1 / 11), atol=1e-3)


@pytest.mark.parametrize("strategy", ["learned", "zeros", "fixed", "random"])
def test_at_depth_1_only_zeros_has_no_gradient_to_the_query_weights(strategy):
    torch.manual_seed(0)
    encoder = CLSEncoder(**SIZES, cls_strategy=strategy, depth=1, embedding="linear", dropout=0.0)
    x, _ = batch()
    F.cross_entropy(encoder(x), torch.tensor([0, 1, 2, 3, 0])).backward()
    w_q, w_k, _ = encoder.blocks[0].qkv.weight.grad.chunk(3)
    b_q, b_k, _ = encoder.blocks[0].qkv.bias.grad.chunk(3)
    assert (w_q.abs().max() == 0) == (strategy == "zeros")
    assert (w_k.abs().max() == 0) == (strategy == "zeros")
    assert b_q.abs().max() > 1e-6
    assert b_k.abs().max() == 0


def test_fixed_reaches_any_first_block_query_that_learned_does():
    learned, fixed = make(cls_strategy="learned", depth=1), make(cls_strategy="fixed", depth=1)
    value = fixed.token.value.clone()
    fixed.load_state_dict(learned.state_dict())
    fixed.token.value.copy_(value)
    x, _ = batch()

    def scores_of_steps(encoder):
        return encoder.blocks[0].cls_readout(encoder.tokens(x, None)[0])[1][..., 1:]

    assert not torch.allclose(scores_of_steps(fixed), scores_of_steps(learned), atol=1e-2)
    with torch.no_grad():  # W_q of fixed, so that its query is that of learned
        block, other = fixed.blocks[0], learned.blocks[0]
        query = other.qkv.weight[:32] @ other.norm1(learned.token(1))[0, 0] + other.qkv.bias[:32]
        y = block.norm1(fixed.token(1))[0, 0]
        block.qkv.weight[:32] = torch.outer(query - block.qkv.bias[:32], y) / y.square().sum()
    assert torch.allclose(scores_of_steps(fixed), scores_of_steps(learned), atol=1e-4)


def test_bfloat16_agrees_with_float32_to_its_precision():
    encoder = make(embedding="conv").eval()
    x, is_padding = batch(padded=True)
    with torch.autocast("cpu", torch.bfloat16):
        low = encoder(x, is_padding).float()
    assert torch.allclose(low, encoder(x, is_padding), atol=0.1)
    assert not torch.equal(low, encoder(x, is_padding))
