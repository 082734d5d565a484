import pytest
import torch

from sklearn_cls._network import attention
from sklearn_cls._network.attention import MAX_EXPLICIT_TOKENS, ExplicitAttention, attention


def heads_and_padding(n_rows, n_sequences=5, n_heads=2, head_size=4):
    generator = torch.Generator().manual_seed(0)
    heads = torch.randn(n_sequences, n_rows, 3, n_heads, head_size, generator=generator)
    n_read = torch.linspace(1, n_rows, n_sequences).round()
    return heads.permute(2, 0, 3, 1, 4), torch.arange(n_rows) < n_read.unsqueeze(1)


def value_and_gradient(heads, key_mask):
    heads = heads.detach().requires_grad_()
    read = attention(heads, key_mask)
    weight = torch.linspace(-1, 1, read.numel()).view_as(read)
    return read.detach(), torch.autograd.grad((read * weight).sum(), heads)[0]


@pytest.mark.parametrize("n_rows", [1, 2, 31, MAX_EXPLICIT_TOKENS])
@pytest.mark.parametrize("is_padded", [False, True])
@pytest.mark.parametrize("scores_at_once", [1, 3000, 2**19])
def test_scores_in_memory_give_what_the_fused_kernel_gives(
    n_rows, is_padded, scores_at_once, monkeypatch
):
    heads, key_mask = heads_and_padding(n_rows)
    key_mask = key_mask if is_padded else None
    monkeypatch.setattr(attention, "CHUNK_SCORES", scores_at_once)
    few = value_and_gradient(heads, key_mask)
    with torch.inference_mode():
        unlearnt = attention(heads, key_mask)
    monkeypatch.setattr(attention, "MAX_EXPLICIT_TOKENS", 0)
    for ours, fused in zip(few, value_and_gradient(heads, key_mask), strict=True):
        torch.testing.assert_close(ours, fused, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(unlearnt, few[0], atol=0, rtol=0)


def test_many_rows_and_other_precisions_take_the_fused_kernel(monkeypatch):
    monkeypatch.setattr(ExplicitAttention, "apply", lambda *args: pytest.fail("written down"))
    assert attention(heads_and_padding(MAX_EXPLICIT_TOKENS + 1)[0]).shape == (
        5,
        2,
        MAX_EXPLICIT_TOKENS + 1,
        4,
    )
    assert attention(heads_and_padding(3)[0].bfloat16()).dtype == torch.bfloat16


def test_heads_are_not_written_to():
    heads, key_mask = heads_and_padding(7)
    for given in (heads, heads.contiguous()):
        before = given.clone()
        value_and_gradient(given, key_mask)
        assert torch.equal(given, before)
