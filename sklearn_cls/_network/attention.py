"""Attention of every row to every row, by whichever kernel is faster.

Shapes: B sequences, N rows, H heads, E head size.

Choices: the fused kernel wherever there is something to fuse. On the CPU it makes many products of
a few rows, which for short sequences takes two threads longer than one; there the scores of some
sequences at a time, which the cache holds, are written down.
"""

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

MAX_EXPLICIT_TOKENS = (
    128  # up to which scores in memory are cheaper than the fused kernel of the CPU
)
CHUNK_SCORES = 2**19  # 2 MB of float32


def attention(heads, key_mask=None):
    """Return what each row reads, (B, H, N, E).

    Parameters
    ----------
    heads : Tensor (3, B, H, N, E)
        Queries, keys and values.
    key_mask : Tensor (B, N) of bool, or None
        Which rows may be read; all if None.
    """
    if (
        heads.device.type == "cpu"
        and heads.dtype == torch.float32
        and heads.shape[3] <= MAX_EXPLICIT_TOKENS
    ):
        return ExplicitAttention.apply(heads, key_mask)
    mask = None if key_mask is None else key_mask[:, None, None]
    return F.scaled_dot_product_attention(*heads, attn_mask=mask)


class ExplicitAttention(torch.autograd.Function):
    """Softmax attention with the weights kept for the way back, N ** 2 a head."""

    @staticmethod
    def forward(ctx, heads, key_mask):
        """Return what each row reads, as `attention` does."""
        n_sequences, n_heads, n_rows = heads.shape[1:4]
        q, k, v = heads.contiguous().flatten(1, 2)  # (B H, N, E) each
        q = q * q.shape[-1] ** -0.5
        read = torch.empty_like(v)
        parts = chunk_slices(n_sequences, n_heads, n_rows)
        # Without a way back, all parts are written to the same place.
        is_kept = ctx.needs_input_grad[0]
        weights = q.new_empty(len(q) if is_kept else parts[0].stop, n_rows, n_rows)
        for part in parts:
            here = weights[part] if is_kept else weights[: part.stop - part.start]
            torch.bmm(q[part], k[part].mT, out=here)
            if key_mask is not None:
                hidden = ~key_mask[part.start // n_heads : part.stop // n_heads, None, None]
                here.unflatten(0, (-1, n_heads)).masked_fill_(hidden, -torch.inf)
            torch.softmax(here, -1, out=here)
            torch.bmm(here, v[part], out=read[part])
        ctx.parts = parts
        ctx.save_for_backward(q, k, v, weights, read)
        return read.unflatten(0, (-1, n_heads))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        """Return the gradient of the heads."""
        q, k, v, weights, read = ctx.saved_tensors
        batch_shape, grad = grad.shape[:2], grad.flatten(0, 1)  # (B, H) and (B H, N, E)
        # What the softmax subtracts from the gradient of each of its rows.
        shift = (grad * read).sum(-1, keepdim=True)  # (B H, N, 1)
        grads = q.new_empty(3, *q.shape)
        of_weights = torch.empty_like(weights[ctx.parts[0]])
        for part in ctx.parts:
            here = of_weights[: part.stop - part.start]
            torch.bmm(grad[part], v[part].mT, out=here)
            here.sub_(shift[part]).mul_(weights[part])  # now of the scores
            torch.bmm(here, k[part], out=grads[0, part])
            torch.bmm(here.mT, q[part], out=grads[1, part])
            torch.bmm(weights[part].mT, grad[part], out=grads[2, part])
        grads[0] *= q.shape[-1] ** -0.5
        return grads.unflatten(1, batch_shape), None


def chunk_slices(n_sequences, n_heads, n_rows):
    """Return slices of B H rows, whole sequences each, of about `CHUNK_SCORES` scores."""
    size = n_heads * max(1, CHUNK_SCORES // (n_heads * n_rows**2))
    return [
        slice(start, min(start + size, n_sequences * n_heads))
        for start in range(0, n_sequences * n_heads, size)
    ]
