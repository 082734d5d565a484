"""Transformer network that encodes a sequence as one [CLS] vector and classifies it.

Shapes: B sequences, T steps, N tokens ([CLS] included, if there is one), F features,
D `d_model`, H heads, E head size, K classes, L blocks.

Design choices: pre-norm blocks [1] with GELU [2]; no position on [CLS]; no dropout on attention
weights, which would rule out the fast attention kernels on the CPU; the last block computes the
output of [CLS] only, as nothing reads its other outputs.

[1] Xiong et al., On Layer Normalization in the Transformer Architecture, ICML 2020.
[2] Hendrycks and Gimpel, Gaussian Error Linear Units, 2016.
"""

import torch
import torch.nn.functional as F
from torch import nn

from sklearn_cls._network.cls_token import CLSToken
from sklearn_cls._network.dropout import Dropout
from sklearn_cls._network.embedding import Embedding
from sklearn_cls._network.positions import rotary_tables, rotate

POOLINGS = ("cls", "mean", "max", "attention")


class Block(nn.Module):
    """Pre-norm transformer block: self-attention, then feed-forward, both residual."""

    def __init__(self, d_model, n_heads, dim_feedforward, dropout):
        super().__init__()
        self.n_heads, self.head_size = n_heads, d_model // n_heads
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.qkv, self.out = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
        self.up = nn.Linear(d_model, dim_feedforward)
        self.down = nn.Linear(dim_feedforward, d_model)
        self.dropout = Dropout(dropout)

    def forward(self, z, key_mask=None, rotary=None):
        """Return the output of every token, (B, N, D).

        Parameters
        ----------
        z : Tensor (B, N, D)
            Tokens.
        key_mask : Tensor (B, N) of bool, or None
            True for tokens to attend to; None attends to all.
        rotary : pair of Tensor (N, E / 2), or None
            Cosines and sines of the rotary positions.
        """
        heads = self.qkv(self.norm1(z)).unflatten(-1, (3, self.n_heads, self.head_size))
        heads = heads.permute(2, 0, 3, 1, 4)  # (3, B, H, N, E)
        if rotary is not None:
            heads = torch.cat([rotate(heads[:2], rotary), heads[2:]])
        mask = None if key_mask is None else key_mask[:, None, None]  # (B, 1, 1, N)
        out = F.scaled_dot_product_attention(*heads, attn_mask=mask)  # (B, H, N, E)
        out = out.transpose(1, 2).flatten(2)  # (B, N, D)
        return self.feed_forward(z + self.dropout(self.out(out)))

    def cls_readout(self, z, key_mask=None, rotary=None):
        """Return the output of token 0, (B, D), and its scores before the softmax, (B, H, N).

        The output equals `forward(...)[:, 0]` up to rounding, but no keys (unless positions are
        rotary) and no values of the tokens are computed. A single query can be projected by W_k
        into model space, where its scores are products with the normalized tokens y. W_v is applied
        after the weighted sum, to one vector per head:

            q . (W_k y_j) = (W_k^T q) . y_j    and    sum_j p_j W_v y_j = W_v (sum_j p_j y_j)
        """
        per_head = (self.n_heads, self.head_size)
        w_q, w_k, w_v = self.qkv.weight.chunk(3)  # (D, D) each
        b_q, b_k, b_v = self.qkv.bias.chunk(3)
        # Token 0 is normalized separately. The backward pass of slicing y would allocate a gradient
        # of the size of y that is mostly zero.
        cls, y = z[:, 0], self.norm1(z)
        q = F.linear(self.norm1(cls), w_q, b_q).unflatten(-1, per_head)  # (B, H, E)
        q = q * self.head_size**-0.5
        if rotary is None:  # b_k shifts all scores of a query equally, which softmax ignores
            q = torch.einsum("bhe,hed->bhd", q, w_k.unflatten(0, per_head))
            scores = q @ y.mT  # (B, H, N)
        else:  # each key is rotated by a different angle, so the keys are needed
            k = rotate(F.linear(y, w_k, b_k).unflatten(-1, per_head).transpose(1, 2), rotary)
            scores = (k @ q.unsqueeze(-1)).squeeze(-1)  # (B, H, N)
        if key_mask is not None:  # [CLS] is never masked, so every softmax has a key
            scores = scores.masked_fill(~key_mask.unsqueeze(1), -torch.inf)
        mean_y = scores.softmax(-1) @ y  # (B, H, D)
        out = torch.einsum("bhd,hed->bhe", mean_y, w_v.unflatten(0, per_head)).flatten(1) + b_v
        return self.feed_forward(cls + self.dropout(self.out(out))), scores

    def feed_forward(self, z):
        """Return z (..., D) plus its feed-forward layer."""
        hidden = self.dropout(F.gelu(self.up(self.norm2(z))))
        return z + self.dropout(self.down(hidden))


class CLSEncoder(nn.Module):
    """The whole network, which maps padded sequences to logits.

    Parameters that are not listed here are those of `CLSTransformerClassifier`.

    Parameters
    ----------
    n_features, n_classes : int
        F and K.
    max_tokens : int
        Number of tokens of the longest training sequence, see `Embedding`.
    has_missing, use_instance_norm : bool
        Whether there are additional inputs, see `Embedding`.
    n_categories : tuple of int
        Number of categories of each of the last features, which are codes, see `CodeEmbedding`.
    token_seed : int
        Seed of the token's generator.
    """

    def __init__(
        self, *, n_features, n_classes, cls_strategy="learned", pooling="cls", depth=2,
        d_model=64, n_heads=4, dim_feedforward=128, dropout=0.1, embedding="conv", patch_size=1,
        positions="sinusoidal", max_tokens=0, has_missing=False, use_instance_norm=False,
        n_categories=(), token_seed=0,
    ):  # fmt: skip
        super().__init__()
        self.pooling, self.positions = pooling, positions
        self.embedding = Embedding(
            n_features, d_model, embedding, patch_size, positions, max_tokens, has_missing,
            use_instance_norm, dropout, n_categories,
        )  # fmt: skip
        if pooling == "cls":
            self.token = CLSToken(cls_strategy, d_model, token_seed)
        elif pooling == "attention":
            self.token = CLSToken("learned", d_model, token_seed)
        self.blocks = nn.ModuleList(
            Block(d_model, n_heads, dim_feedforward, dropout) for _ in range(depth)
        )
        for block in self.blocks:
            nn.init.xavier_uniform_(block.qkv.weight)
            nn.init.zeros_(block.qkv.bias)
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)

    @property
    def max_length(self):
        """Maximum number of steps with learned positions; otherwise None."""
        if self.positions == "learned":
            return len(self.embedding.position) * self.embedding.patch_size
        return None

    def no_weight_decay(self):
        """Return the names of parameters without weight decay, besides all biases and norms.

        Weight decay would pull [CLS] toward 0, where its attention is uniform.
        """
        return {"token.value", "embedding.position"}

    def forward(self, x, is_padding=None):
        """Return logits (B, K).

        Parameters
        ----------
        x : Tensor (B, T, F)
            Padded sequences: numbers, standardized, then codes; with NaN for missing values.
        is_padding : Tensor (B, T) of bool, or None
            True for padding, which only follows the last step of a sequence.
        """
        return self.head(self.embed(x, is_padding))

    def embed(self, x, is_padding=None):
        """Return the input of the head, after the final norm: (B, D)."""
        z, key_mask, rotary = self.tokens(x, is_padding)
        for block in self.blocks[:-1]:
            z = block(z, key_mask, rotary)
        last = self.blocks[-1]
        if self.pooling in ("mean", "max"):
            return self.pool(self.norm(last(z, key_mask, rotary)), key_mask)
        if self.pooling == "attention":
            z, key_mask, rotary = self.prepend_token(z, key_mask)
        return self.norm(last.cls_readout(z, key_mask, rotary)[0])

    def cls_attention(self, x, is_padding=None):
        """Return the attention of the token to the steps, (B, L, H, T), zero on padding.

        The attention of the token to itself is left out; the rest sums to 1. With pooling
        "attention", only the last block has a token, so L is 1.
        """
        z, key_mask, rotary = self.tokens(x, is_padding)
        scores = []  # (B, H, N) of each block
        for block in self.blocks[:-1]:
            if self.pooling == "cls":
                scores.append(block.cls_readout(z, key_mask, rotary)[1])
            z = block(z, key_mask, rotary)
        if self.pooling == "attention":
            z, key_mask, rotary = self.prepend_token(z, key_mask)
        scores.append(self.blocks[-1].cls_readout(z, key_mask, rotary)[1])
        weights = torch.stack(scores, 1)[..., 1:].float().softmax(-1)  # (B, L, H, N - 1)
        return self.patch_to_step_attention(weights, x, is_padding)

    def tokens(self, x, is_padding):
        """Return the input of the first block: z (B, N, D), key_mask (B, N), rotary tables."""
        z, is_padding = self.embedding(x, is_padding)
        key_mask = None if is_padding is None else ~is_padding
        if self.pooling == "cls":
            return self.prepend_token(z, key_mask)
        return z, key_mask, self.rotary(z, first=1)

    def prepend_token(self, z, key_mask):
        """Prepend the token, which has no position and is never masked, to z (B, N - 1, D)."""
        z = torch.cat([self.token(z.shape[0]).to(z.dtype), z], 1)
        key_mask = None if key_mask is None else F.pad(key_mask, (1, 0), value=True)
        return z, key_mask, self.rotary(z, first=0)

    def rotary(self, z, first):
        """Return the rotary tables of the tokens z, or None without rotary positions."""
        if self.positions != "rope":
            return None
        return rotary_tables(z.shape[1], self.blocks[0].head_size, first=first, device=z.device)

    def pool(self, z, key_mask):
        """Return the mean or maximum of z (B, N, D) over the unmasked tokens, (B, D)."""
        if self.pooling == "max":
            z = z if key_mask is None else z.masked_fill(~key_mask.unsqueeze(-1), -torch.inf)
            return z.amax(1)
        if key_mask is None:
            return z.mean(1)
        key_mask = key_mask.unsqueeze(-1).to(z.dtype)
        return (z * key_mask).sum(1) / key_mask.sum(1)

    def patch_to_step_attention(self, weights, x, is_padding):
        """Divide the attention of each patch (B, L, H, N) evenly among its steps (B, L, H, T)."""
        size, n_steps = self.embedding.patch_size, x.shape[1]
        is_real = x.new_ones(x.shape[:2]) if is_padding is None else (~is_padding).to(x.dtype)
        n_real = F.pad(is_real, (0, -n_steps % size)).unflatten(1, (-1, size)).sum(-1)  # (B, N)
        weights = weights / n_real.clamp(min=1)[:, None, None]
        return weights.repeat_interleave(size, -1)[..., :n_steps] * is_real[:, None, None]
