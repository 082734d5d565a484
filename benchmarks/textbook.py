"""The textbook network: `nn.TransformerEncoder` on all tokens, and a head on its [CLS] output."""

import torch
from torch import nn


class Textbook(nn.Module):
    """A `CLSEncoder` with `nn.TransformerEncoder` in place of its blocks and final norm.

    Embedding, token and head are shared with the encoder; the other weights are copied.
    """

    def __init__(self, encoder):
        super().__init__()
        block = encoder.blocks[0]
        d_model = block.out.in_features
        layer = nn.TransformerEncoderLayer(
            d_model, block.n_heads, block.up.out_features, dropout=0.0, activation="gelu",
            batch_first=True, norm_first=True,
        )  # fmt: skip
        self.encoder = nn.TransformerEncoder(
            layer, len(encoder.blocks), norm=nn.LayerNorm(d_model), enable_nested_tensor=False
        )
        self.embedding, self.token, self.head = encoder.embedding, encoder.token, encoder.head
        for ours, theirs in parameter_pairs(encoder, self):
            theirs.data.copy_(ours)

    def forward(self, x, is_padding=None):
        """Return logits (B, K), as `CLSEncoder` does."""
        tokens, is_padding = self.embedding(x, is_padding)
        z = torch.cat([self.token(len(x)), tokens], 1)
        if is_padding is not None:
            is_padding = nn.functional.pad(is_padding, (1, 0), value=False)
        return self.head(self.encoder(z, src_key_padding_mask=is_padding)[:, 0])


def parameter_pairs(encoder, textbook):
    """Return pairs of parameters of the two networks that correspond but are not shared."""
    modules = [(encoder.norm, textbook.encoder.norm)]
    pairs = []
    for block, layer in zip(encoder.blocks, textbook.encoder.layers, strict=True):
        attention = layer.self_attn
        pairs += [(block.qkv.weight, attention.in_proj_weight)]
        pairs += [(block.qkv.bias, attention.in_proj_bias)]
        modules += [(block.out, attention.out_proj), (block.up, layer.linear1)]
        modules += [(block.down, layer.linear2)]
        modules += [(block.norm1, layer.norm1), (block.norm2, layer.norm2)]
    for ours, theirs in modules:
        pairs += zip(ours.parameters(), theirs.parameters(), strict=True)
    return pairs


def gradient_pairs(encoder, textbook, loss, x, *args):
    """Return pairs of gradients of `loss(logits)` for all parameters of the two networks.

    `args` are passed to the networks after `x`.
    """
    pairs = parameter_pairs(encoder, textbook)
    shared = [*encoder.embedding.parameters(), *encoder.token.parameters()]
    shared += encoder.head.parameters()
    ours, theirs = (list(parameters) for parameters in zip(*pairs, strict=True))
    return list(
        zip(
            torch.autograd.grad(loss(encoder(x, *args)), shared + ours),
            torch.autograd.grad(loss(textbook(x, *args)), shared + theirs),
            strict=True,
        )
    )
