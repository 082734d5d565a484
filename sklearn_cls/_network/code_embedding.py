"""Embedding of categorical codes as channels of the input.

Shapes: B sequences, T steps, M code features, R rows of all tables, Q channels per code feature.

Design choices: each feature has a table with a row for each of its K categories, one for codes that
are rare or were not seen in `fit`, and one for missing codes. The tables are concatenated, so that
the codes of all features are looked up at once. The channels are inputs like numbers, so that a
convolution sees the neighboring codes, and sums the contributions of all features.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import nn

CHANNELS_PER_CODE = 16
# Of more categories than these, most are rare and stay near their initial row. The smaller it is,
# the less they hide the few codes that matter.
MAX_LARGE_CATEGORIES = 64


class CodeEmbedding(nn.Module):
    """Embeds codes (B, T, M) as channels (B, T, M * Q).

    A code is 1 to K for the categories of its feature, NaN if it is missing, and 0 otherwise.

    Parameters
    ----------
    n_categories : tuple of int
        The number of categories K of each feature.
    """

    def __init__(self, n_categories):
        super().__init__()
        self.n_rows = [n + 2 for n in n_categories]
        first_row = [0, *itertools.accumulate(self.n_rows)][:-1]
        self.register_buffer("largest", torch.tensor(n_categories), persistent=False)
        self.register_buffer("first_row", torch.tensor(first_row), persistent=False)  # (M,)
        self.weight = nn.Parameter(torch.randn(sum(self.n_rows), CHANNELS_PER_CODE))
        with torch.no_grad():
            for n, weight in zip(n_categories, self.weight.split(self.n_rows), strict=True):
                weight *= initial_scale(n)

    @property
    def n_channels(self):
        """Number of channels of all features, M * Q."""
        return len(self.n_rows) * CHANNELS_PER_CODE

    def forward(self, codes, is_padding):
        """Return the channels of the codes (B, T, M), zero where is_padding (B, T) is True."""
        channels = F.embedding(self.rows(codes), self.weight)  # (B, T, M, Q)
        if is_padding is not None:
            channels = channels.masked_fill(is_padding[..., None, None], 0.0)
        return channels.flatten(2)

    def rows(self, codes):
        """Return the row of each code (..., M); all values that are no code have that of code 0."""
        is_category = (codes >= 1) & (codes <= self.largest) & (codes == codes.floor())
        row = codes.masked_fill(~is_category, 0.0).long()
        return torch.where(codes.isnan(), self.largest + 1, row) + self.first_row

    @torch.no_grad()
    def zero_unreached_rows(self, is_reached):
        """Set the rows to 0 that no training data reach; return which channels (M * Q,) vary.

        A feature with a single row in all training data carries no information. Its row is set to
        0, too, so that no other code changes a prediction.

        Parameters
        ----------
        is_reached : Tensor (R,) of bool
            True for rows that are looked up in training.
        """
        is_varying = []
        for reached, weight in zip(
            is_reached.split(self.n_rows), self.weight.split(self.n_rows), strict=True
        ):
            is_varying.append(reached.sum() > 1)
            weight[~(reached & is_varying[-1])] = 0.0
        return torch.stack(is_varying).repeat_interleave(CHANNELS_PER_CODE)


def initial_scale(n_categories):
    """Return the standard deviation of the initial channels of a feature.

    All channels together vary as much as a number does, or less if there are many categories.
    """
    return (CHANNELS_PER_CODE * max(1, n_categories / MAX_LARGE_CATEGORIES)) ** -0.5
