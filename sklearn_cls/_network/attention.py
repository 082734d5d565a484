"""Self-attention, by whichever kernel is faster.

Shapes: B sequences, N tokens, H heads, E head size.

Choices: PyTorch's fused kernel, except for short sequences on the CPU. There the fused kernel does
not scale to two threads, so the attention matrix is materialised, in chunks that fit the cache.
"""

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

MAX_EXPLICIT_TOKENS = 128  # up to here, materialised attention is faster on the CPU
CHUNK_SCORES = 2**19  # attention scores per chunk: 2 MB of float32


def attention(heads, key_mask=None):
    """Return the attention output, (B, H, N, E).

    Parameters
    ----------
    heads : Tensor (3, B, H, N, E)
        Queries, keys and values.
    key_mask : Tensor (B, N) of bool, or None
        True for keys to attend to; None attends to all. Each sequence needs at least one key.
    """
    is_short = heads.shape[3] <= MAX_EXPLICIT_TOKENS
    if is_short and heads.device.type == "cpu" and heads.dtype == torch.float32:
        return ExplicitAttention.apply(heads, key_mask)
    mask = None if key_mask is None else key_mask[:, None, None]  # (B, 1, 1, N)
    return F.scaled_dot_product_attention(*heads, attn_mask=mask)


class ExplicitAttention(torch.autograd.Function):
    """Softmax attention that keeps its weights, N ** 2 per head, for the backward pass."""

    @staticmethod
    def forward(ctx, heads, key_mask):
        """Return the attention output, (B, H, N, E)."""
        n_sequences, n_heads, n_tokens = heads.shape[1:4]
        q, k, v = heads.contiguous().flatten(1, 2)  # (B H, N, E) each
        q = q * q.shape[-1] ** -0.5
        out = torch.empty_like(v)
        chunks = chunk_slices(n_sequences, n_heads, n_tokens)
        # Without a backward pass, all chunks reuse one buffer.
        needs_grad = ctx.needs_input_grad[0]
        weights = q.new_empty(len(q) if needs_grad else chunks[0].stop, n_tokens, n_tokens)
        for chunk in chunks:
            w = weights[chunk] if needs_grad else weights[: chunk.stop - chunk.start]
            torch.bmm(q[chunk], k[chunk].mT, out=w)
            if key_mask is not None:
                ignored = ~key_mask[chunk.start // n_heads : chunk.stop // n_heads, None, None]
                w.unflatten(0, (-1, n_heads)).masked_fill_(ignored, -torch.inf)
            torch.softmax(w, -1, out=w)
            torch.bmm(w, v[chunk], out=out[chunk])
        ctx.chunks = chunks
        ctx.save_for_backward(q, k, v, weights, out)
        return out.unflatten(0, (-1, n_heads))

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out):
        """Return the gradient of `heads`, (3, B, H, N, E)."""
        q, k, v, weights, out = ctx.saved_tensors
        batch_shape, d_out = d_out.shape[:2], d_out.flatten(0, 1)  # (B, H) and (B H, N, E)
        # The softmax backward subtracts sum(weights * d_weights), which equals sum(out * d_out).
        shift = (d_out * out).sum(-1, keepdim=True)  # (B H, N, 1)
        d_heads = q.new_empty(3, *q.shape)
        d_weights = torch.empty_like(weights[ctx.chunks[0]])
        for chunk in ctx.chunks:
            d_w = d_weights[: chunk.stop - chunk.start]
            torch.bmm(d_out[chunk], v[chunk].mT, out=d_w)
            d_scores = d_w.sub_(shift[chunk]).mul_(weights[chunk])
            torch.bmm(d_scores, k[chunk], out=d_heads[0, chunk])
            torch.bmm(d_scores.mT, q[chunk], out=d_heads[1, chunk])
            torch.bmm(weights[chunk].mT, d_out[chunk], out=d_heads[2, chunk])
        d_heads[0] *= q.shape[-1] ** -0.5
        return d_heads.unflatten(1, batch_shape), None


def chunk_slices(n_sequences, n_heads, n_tokens):
    """Return slices of the B H heads: whole sequences, about `CHUNK_SCORES` scores each."""
    size = n_heads * max(1, CHUNK_SCORES // (n_heads * n_tokens**2))
    return [
        slice(start, min(start + size, n_sequences * n_heads))
        for start in range(0, n_sequences * n_heads, size)
    ]
