"""Where the value of the [CLS] token comes from.

Shapes: B sequences, D `d_model`.
"""

import torch
from torch import nn

CLS_STRATEGIES = ("learned", "zeros", "fixed", "random")


class CLSToken(nn.Module):
    """The [CLS] token under one of four strategies.

    "learned" is a parameter; "zeros" and "fixed" are constants; "random" is drawn anew for
    every sequence of every training batch, and is one constant in evaluation.

    The token has a generator of its own: every other weight starts the same, and every
    dropout mask falls the same, under every strategy.
    """

    def __init__(self, strategy, d_model, seed):
        super().__init__()
        self.strategy = strategy
        self.generator = torch.Generator()  # replaced by `seed` when training starts
        self.generator.manual_seed(seed)
        value = torch.randn(d_model, generator=self.generator)  # (D,)
        if strategy == "learned":
            self.value = nn.Parameter(0.02 * value)
        else:
            self.register_buffer("value", torch.zeros(d_model) if strategy == "zeros" else value)

    def forward(self, n_sequences):
        """Return one token for each sequence, (B, 1, D)."""
        if self.strategy == "random" and self.training:
            shape = (n_sequences, 1, self.value.shape[0])
            return torch.randn(shape, generator=self.generator, device=self.value.device)
        return self.value.expand(n_sequences, 1, -1)
