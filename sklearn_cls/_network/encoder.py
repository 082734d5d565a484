"""Transformer encoder that reads a sequence into one [CLS] vector.

Shapes: B sequences, T steps, N tokens ([CLS] included, where there is one), F features,
D `d_model`, H heads, E head size, K classes, L blocks.

Choices: pre-norm blocks [1]; no position on [CLS]; no dropout on attention weights, for which
the CPU has no fast kernel; the last block computes the [CLS] row only, in model space,
because nothing reads the other rows.

[1] Xiong et al., On Layer Normalization in the Transformer Architecture, ICML 2020.
"""

import torch
import torch.nn.functional as F
from torch import nn

from sklearn_cls._network.attention import attention
from sklearn_cls._network.cls_token import CLSToken
from sklearn_cls._network.dropout import Dropout
from sklearn_cls._network.embedding import Embedding

POOLINGS = ("cls", "mean", "max", "attention")
ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}


def rotations(n_tokens, head_size, device=None):
    """Cosines and sines of rotary positions 0 to N - 1 (Su et al., 2021): two (N, E / 2).

    Position 0, which does not rotate, is the slot of [CLS].
    """
    frequency = 10000 ** (-torch.arange(0, head_size, 2, device=device) / head_size)  # (E / 2,)
    angle = torch.arange(n_tokens, device=device).unsqueeze(1) * frequency  # (N, E / 2)
    return angle.cos(), angle.sin()


def rotate(x, rope):
    """Rotate x (..., N, E) by the positions in `rope`, halves of E as pairs."""
    cos, sin = rope
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1).to(x.dtype)


class Block(nn.Module):
    """Pre-norm block: attention, then feed-forward, each added to its input."""

    def __init__(self, d_model, n_heads, dim_feedforward, dropout, activation):
        super().__init__()
        self.n_heads, self.head_size = n_heads, d_model // n_heads
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.qkv, self.out = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
        self.up = nn.Linear(d_model, dim_feedforward)
        self.down = nn.Linear(dim_feedforward, d_model)
        self.dropout, self.activation = Dropout(dropout), ACTIVATIONS[activation]

    def forward(self, z, key_mask=None, rope=None):
        """Return every row of z (B, N, D); key_mask (B, N) is True where a row may be read."""
        heads = self.qkv(self.norm1(z)).unflatten(-1, (3, self.n_heads, self.head_size))
        heads = heads.permute(2, 0, 3, 1, 4)  # (3, B, H, N, E)
        if rope is not None:
            heads = torch.cat([rotate(heads[:2], rope), heads[2:]])
        rows = attention(heads, key_mask).transpose(1, 2).flatten(2)  # (B, N, D)
        return self.feed_forward(z + self.dropout(self.out(rows)))

    def cls_readout(self, z, key_mask=None, rope=None):
        """Return row 0 of `forward`, (B, D), and its scores before the softmax, (B, H, N).

        One query needs no keys or values of its own: moved into model space, it meets the
        normalised rows themselves, and their weighted sum is moved back.
        """
        per_head = (self.n_heads, self.head_size)
        w_q, w_k, w_v = self.qkv.weight.chunk(3)  # (D, D) each
        b_q, b_k, b_v = self.qkv.bias.chunk(3)
        # The row is normalised by itself: a slice of y would cost a gradient of the size of y.
        row, y = z[:, 0], self.norm1(z)
        q = (
            F.linear(self.norm1(row), w_q, b_q).unflatten(-1, per_head) * self.head_size**-0.5
        )  # (B, H, E)
        if rope is None:  # the softmax drops b_k, which shifts all scores of a row alike
            q = torch.einsum("bhe,hed->bhd", q, w_k.unflatten(0, per_head))
            scores = q @ y.mT  # (B, H, N)
        else:  # keys rotate each by its own angle: they have to be computed
            k = rotate(F.linear(y, w_k, b_k).unflatten(-1, per_head).transpose(1, 2), rope)
            scores = (k @ q.unsqueeze(-1)).squeeze(-1)  # (B, H, N)
        if key_mask is not None:  # [CLS] is never padding, so no row of the softmax is empty
            scores = scores.masked_fill(~key_mask.unsqueeze(1), -torch.inf)
        rows = scores.softmax(-1).to(y.dtype) @ y  # (B, H, D)
        heads = torch.einsum("bhd,hed->bhe", rows, w_v.unflatten(0, per_head)).flatten(1) + b_v
        return self.feed_forward(row + self.dropout(self.out(heads))), scores

    def feed_forward(self, z):
        """Add the feed-forward of each row to it: (..., D)."""
        hidden = self.dropout(self.activation(self.up(self.norm2(z))))
        return z + self.dropout(self.down(hidden))


class CLSEncoder(nn.Module):
    """The whole network: padded sequences to logits.

    Parameters are those of `CLSTransformerClassifier`, and

    n_features, n_classes : int
        F and K.
    max_tokens : int
        Rows of the learned positions.
    has_missing, use_instance_norm : bool
        Whether the training data had missing values, and scales of their own, see `Embedding`.
    token_seed : int
        Of the token's own generator.
    """

    def __init__(
        self, *, n_features, n_classes, cls_strategy="learned", pooling="cls", depth=2,
        d_model=64, n_heads=4, dim_feedforward=128, dropout=0.1, activation="gelu",
        embedding="conv", patch_size=1, positions="sinusoidal", max_tokens=0,
        has_missing=False, use_instance_norm=False, token_seed=0,
    ):  # fmt: skip
        super().__init__()
        self.pooling, self.positions = pooling, positions
        self.embedding = Embedding(
            n_features,
            d_model,
            embedding,
            patch_size,
            positions,
            max_tokens,
            has_missing,
            use_instance_norm,
            dropout,
        )
        if pooling == "cls":
            self.token = CLSToken(cls_strategy, d_model, token_seed)
        elif pooling == "attention":
            self.token = CLSToken("learned", d_model, token_seed)
        self.blocks = nn.ModuleList(
            Block(d_model, n_heads, dim_feedforward, dropout, activation) for _ in range(depth)
        )
        for block in self.blocks:
            nn.init.xavier_uniform_(block.qkv.weight)
            nn.init.zeros_(block.qkv.bias)
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)

    def forward(self, x, is_padding=None):
        """Return logits (B, K) of x (B, T, F), NaN where missing; is_padding is (B, T) or None."""
        return self.head(self.embed(x, is_padding))

    def embed(self, x, is_padding=None):
        """Return the vector the head reads, after the final norm: (B, D)."""
        z, key_mask, rope = self.tokens(x, is_padding)
        for block in self.blocks[:-1]:
            z = block(z, key_mask, rope)
        last = self.blocks[-1]
        if self.pooling in ("mean", "max"):
            return self.pool(self.norm(last(z, key_mask, rope)), key_mask)
        if self.pooling == "attention":
            z, key_mask, rope = self.prepend(z, key_mask)
        return self.norm(last.cls_readout(z, key_mask, rope)[0])

    def cls_attention(self, x, is_padding=None):
        """Return what the token attends to, itself left out: (B, L, H, T), zero on padding.

        Only the last block of pooling "attention" has a token, so there L is 1.
        """
        z, key_mask, rope = self.tokens(x, is_padding)
        scores = []  # (B, H, N) of each block
        for block in self.blocks[:-1]:
            if self.pooling == "cls":
                scores.append(block.cls_readout(z, key_mask, rope)[1])
            z = block(z, key_mask, rope)
        if self.pooling == "attention":
            z, key_mask, rope = self.prepend(z, key_mask)
        scores.append(self.blocks[-1].cls_readout(z, key_mask, rope)[1])
        weights = torch.stack(scores, 1)[..., 1:].float().softmax(-1)  # (B, L, H, N - 1)
        return self.patch_to_step_attention(weights, x, is_padding)

    def tokens(self, x, is_padding):
        """Return what the first block reads: rows (B, N, D), key_mask (B, N), rotations."""
        z, is_padding = self.embedding(x, is_padding)
        key_mask = None if is_padding is None else ~is_padding
        if self.pooling == "cls":
            return self.prepend(z, key_mask)
        rope = self.rotations(1 + z.shape[1], z.device)
        return z, key_mask, None if rope is None else tuple(table[1:] for table in rope)

    def prepend(self, z, key_mask):
        """Put the token before the rows of z; it may always be read and has no position."""
        z = torch.cat([self.token(len(z)).to(z.dtype), z], 1)
        key_mask = None if key_mask is None else F.pad(key_mask, (1, 0), value=True)
        return z, key_mask, self.rotations(z.shape[1], z.device)

    def rotations(self, n_tokens, device):
        """Return the rotary positions, None where there are none."""
        if self.positions == "rope":
            return rotations(n_tokens, self.blocks[0].head_size, device)
        return None

    def pool(self, z, key_mask):
        """Mean or maximum over the real tokens of z (B, N, D): (B, D)."""
        if self.pooling == "max":
            z = z if key_mask is None else z.masked_fill(~key_mask.unsqueeze(-1), -torch.inf)
            return z.amax(1)
        if key_mask is None:
            return z.mean(1)
        key_mask = key_mask.unsqueeze(-1).to(z.dtype)
        return (z * key_mask).sum(1) / key_mask.sum(1)

    def patch_to_step_attention(self, weights, x, is_padding):
        """Spread weights (B, L, H, N) of patches over their real steps, rows summing to 1."""
        size, n_steps = self.embedding.patch_size, x.shape[1]
        is_real = x.new_ones(x.shape[:2]) if is_padding is None else (~is_padding).to(x.dtype)
        steps_of = F.pad(is_real, (0, -n_steps % size)).unflatten(1, (-1, size)).sum(-1)  # (B, N)
        weights = weights / steps_of.clamp(min=1)[:, None, None]
        return weights.repeat_interleave(size, -1)[..., :n_steps] * is_real[:, None, None]
