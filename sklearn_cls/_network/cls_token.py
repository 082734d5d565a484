"""The [CLS] token and the four strategies for its value.

Shapes: B sequences, D `d_model`.

Design choices: the learned token starts with standard deviation 0.02, like the embeddings of BERT
[1]; the tokens that are not trained are zeros or drawn from a standard normal distribution.

[1] Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers, NAACL 2019.
"""

import torch
from torch import nn

CLS_STRATEGIES = ("learned", "zeros", "fixed", "random")


class CLSToken(nn.Module):
    """The [CLS] token under one of four strategies.

    "learned" is a parameter; "zeros" and "fixed" are constants; "random" is drawn anew for
    every sequence of every training batch, and is one constant in evaluation.

    The token has its own generator, so that all other initial weights and all dropout masks are
    the same under every strategy.
    """

    def __init__(self, strategy, d_model, seed):
        super().__init__()
        self.strategy = strategy
        self.generator = torch.Generator().manual_seed(seed)  # replaced by `seed_generators`
        value = torch.randn(d_model, generator=self.generator)  # (D,)
        if strategy == "learned":
            self.value = nn.Parameter(0.02 * value)
        else:
            self.register_buffer("value", torch.zeros(d_model) if strategy == "zeros" else value)

    def forward(self, n_sequences):
        """Return one token per sequence, (B, 1, D)."""
        if self.strategy == "random" and self.training:
            shape = (n_sequences, 1, len(self.value))
            like = {"dtype": self.value.dtype, "device": self.value.device}
            return torch.randn(shape, generator=self.generator, **like)
        return self.value.expand(n_sequences, 1, -1)
