"""The network everyone writes first: nn.TransformerEncoder over [CLS] and tokens, then row 0."""

import torch
from torch import nn


class Textbook(nn.Module):
    """The same embedding, token and head as `CLSEncoder`, around `nn.TransformerEncoder`."""

    def __init__(self, encoder):
        super().__init__()
        block = encoder.blocks[0]
        d_model = block.out.in_features
        layer = nn.TransformerEncoderLayer(
            d_model,
            block.n_heads,
            block.up.out_features,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(
            layer, len(encoder.blocks), norm=nn.LayerNorm(d_model), enable_nested_tensor=False
        )
        self.embedding, self.token, self.head = encoder.embedding, encoder.token, encoder.head
        self.encoder.norm.load_state_dict(encoder.norm.state_dict())
        for ours, theirs in zip(encoder.blocks, self.encoder.layers, strict=True):
            theirs.norm1.load_state_dict(ours.norm1.state_dict())
            theirs.norm2.load_state_dict(ours.norm2.state_dict())
            theirs.self_attn.in_proj_weight.data.copy_(ours.qkv.weight)
            theirs.self_attn.in_proj_bias.data.copy_(ours.qkv.bias)
            theirs.self_attn.out_proj.load_state_dict(ours.out.state_dict())
            theirs.linear1.load_state_dict(ours.up.state_dict())
            theirs.linear2.load_state_dict(ours.down.state_dict())

    def forward(self, x, is_padding=None):
        """Return logits (B, K), as `CLSEncoder` does."""
        tokens, is_padding = self.embedding(x, is_padding)
        z = torch.cat([self.token(len(x)), tokens], 1)
        if is_padding is not None:
            is_padding = nn.functional.pad(is_padding, (1, 0), value=False)
        return self.head(self.encoder(z, src_key_padding_mask=is_padding)[:, 0])
