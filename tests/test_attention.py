import pytest
import torch

from sklearn_cls._network.attention import (
    MAX_EXPLICIT_TOKENS,
    ExplicitAttention,
    attention,
    chunk_slices,
)

MODULE = "sklearn_cls._network.attention"


def make_heads(n_tokens, n_sequences=5, n_heads=2, head_size=4):
    """Return queries, keys and values, and a key mask of unequal lengths."""
    generator = torch.Generator().manual_seed(0)
    heads = torch.randn(n_sequences, n_tokens, 3, n_heads, head_size, generator=generator)
    lengths = torch.linspace(1, n_tokens, n_sequences).round()
    return heads.permute(2, 0, 3, 1, 4), torch.arange(n_tokens) < lengths.unsqueeze(1)


def output_and_gradient(heads, key_mask):
    heads = heads.detach().requires_grad_()
    out = attention(heads, key_mask)
    d_out = torch.linspace(-1, 1, out.numel()).view_as(out)
    return out.detach(), torch.autograd.grad(out, heads, d_out)[0]


@pytest.mark.parametrize("n_tokens", [1, 2, 31, MAX_EXPLICIT_TOKENS])
@pytest.mark.parametrize("is_masked", [False, True], ids=["unmasked", "masked"])
@pytest.mark.parametrize("chunk_scores", [1, 4000, 2**19])
def test_explicit_attention_equals_the_fused_kernel(n_tokens, is_masked, chunk_scores, monkeypatch):
    heads, key_mask = make_heads(n_tokens)
    key_mask = key_mask if is_masked else None
    monkeypatch.setattr(f"{MODULE}.CHUNK_SCORES", chunk_scores)
    explicit = output_and_gradient(heads, key_mask)
    with torch.inference_mode():
        inferred = attention(heads, key_mask)
    monkeypatch.setattr(f"{MODULE}.MAX_EXPLICIT_TOKENS", 0)
    fused = output_and_gradient(heads, key_mask)
    torch.testing.assert_close(explicit, fused, atol=1e-5, rtol=1e-5)
    assert torch.equal(inferred, explicit[0])


@pytest.mark.parametrize("max_explicit_tokens", [0, MAX_EXPLICIT_TOKENS])
def test_masked_keys_and_values_have_no_influence(max_explicit_tokens, monkeypatch):
    monkeypatch.setattr(f"{MODULE}.MAX_EXPLICIT_TOKENS", max_explicit_tokens)
    heads, key_mask = make_heads(7)
    changed = heads.clone()
    changed[1:].masked_fill_(~key_mask[:, None, :, None], 100.0)
    assert torch.equal(attention(changed, key_mask), attention(heads, key_mask))
    assert not torch.allclose(attention(changed), attention(heads))


def test_only_short_float32_sequences_use_explicit_attention(monkeypatch):
    used = []
    explicit = ExplicitAttention.apply
    monkeypatch.setattr(ExplicitAttention, "apply", lambda *args: used.append(1) or explicit(*args))
    longest = make_heads(MAX_EXPLICIT_TOKENS)[0]
    assert attention(longest).shape == (5, 2, MAX_EXPLICIT_TOKENS, 4)
    assert used == [1]
    longer = make_heads(MAX_EXPLICIT_TOKENS + 1)[0]
    assert attention(longer).shape == (5, 2, MAX_EXPLICIT_TOKENS + 1, 4)
    assert attention(longest.bfloat16()).dtype == torch.bfloat16
    assert attention(longest.to("meta")).shape == longest.shape[1:]
    assert used == [1]


def test_chunks_are_whole_sequences_that_cover_all_heads(monkeypatch):
    def bounds(*args):
        return [(chunk.start, chunk.stop) for chunk in chunk_slices(*args)]

    monkeypatch.setattr(f"{MODULE}.CHUNK_SCORES", 2 * 3 * 10**2)  # two sequences of 10 tokens
    assert bounds(5, 3, 10) == [(0, 6), (6, 12), (12, 15)]
    assert bounds(5, 3, 11) == [(0, 3), (3, 6), (6, 9), (9, 12), (12, 15)]
    assert bounds(1, 3, 1000) == [(0, 3)]


def test_inference_materialises_the_scores_of_one_chunk_only(monkeypatch):
    monkeypatch.setattr(f"{MODULE}.CHUNK_SCORES", 1)
    sizes = []
    softmax = torch.softmax
    monkeypatch.setattr(
        torch,
        "softmax",
        lambda w, *a, **k: sizes.append(w.untyped_storage()) or softmax(w, *a, **k),
    )
    heads, _ = make_heads(7)
    with torch.inference_mode():
        attention(heads)
    assert {storage.nbytes() for storage in sizes} == {4 * 2 * 7**2}  # float32, 2 heads
    sizes.clear()
    attention(heads.requires_grad_())
    assert {storage.nbytes() for storage in sizes} == {4 * 5 * 2 * 7**2}  # of 5 sequences


def test_inputs_are_not_modified():
    heads, key_mask = make_heads(7)
    for given in (heads, heads.contiguous()):
        before = given.clone()
        output_and_gradient(given, key_mask)
        assert torch.equal(given, before)


def test_second_derivatives_raise():
    heads = make_heads(3)[0].requires_grad_()
    (gradient,) = torch.autograd.grad(attention(heads).square().sum(), heads, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
