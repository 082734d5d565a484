"""Steps to tokens: standardisation, missing values, patches, positions.

Shapes: B sequences, T steps, N tokens, F features, D `d_model`.

Choices: missing values become the training mean, with indicator features if any were seen in
training; a token is a patch of steps [1], taken as it is or through two convolutions, of which
the first is strided by the patch [2]; whatever follows the end of a sequence is zero at every
layer, so that padding and the edge of an unpadded sequence look alike.

[1] Nie et al., A Time Series is Worth 64 Words, ICLR 2023.
[2] Wang et al., Time Series Classification from Scratch with Deep Neural Networks, IJCNN 2017.
"""

import torch
import torch.nn.functional as F
from torch import nn

from sklearn_cls._network.dropout import Dropout

EMBEDDINGS = ("linear", "conv")
POSITIONS = ("sinusoidal", "learned", "rope")
MAX_INPUT = 1e9  # whose square, summed over a layer, float32 still holds
POSITION_SCALE = 0.5  # of a sinusoid in a token: as large as the rest of it is at the start
MAX_CACHED_POSITIONS = (
    2**14
)  # whose sinusoids are kept; beside attention among more, they cost nothing
MIN_STD = 1e-6  # deviation of a sequence, in deviations of all, that is more than rounding


def sinusoids(n_tokens, d_model, device=None):
    """Sinusoidal positions of Vaswani et al. (2017): (N, D)."""
    frequency = 10000 ** (-torch.arange(0, d_model, 2, device=device) / d_model)  # (D / 2,)
    angle = torch.arange(n_tokens, device=device).unsqueeze(1) * frequency  # (N, D / 2)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :d_model]


def instance_norm(x, missing):
    """Standardise each feature of each sequence in x (B, T, F) by itself, 0 where missing.

    From its first known value on, so that a constant is 0 whatever the rounding of its sum.
    """
    first = missing.to(torch.uint8).argmin(1, keepdim=True)  # (B, 1, F)
    x = (x - x.gather(1, first)).masked_fill(missing, 0.0)
    n_known = (~missing).sum(1, keepdim=True).clamp(min=1)
    centred = (x - x.sum(1, keepdim=True) / n_known).masked_fill(missing, 0.0)
    deviation = (centred.square().sum(1, keepdim=True) / n_known).sqrt()
    return centred / deviation.clamp(min=MIN_STD)


class PatchBatchNorm(nn.BatchNorm1d):
    """Batch norm over the real patches of a batch; padding comes out as zero.

    The running statistics start as the mean of the first batches, so that a network of a few
    updates does not predict with the statistics it was built with.
    """

    n_batches = None  # `num_batches_tracked` as a number: reading the tensor waits for a GPU

    def forward(self, x, is_padding):
        """Normalise x (B, N, D), in which is_padding (B, N) or None marks the padding."""
        rows = x.flatten(0, 1) if is_padding is None else x[~is_padding]  # (B N, D)
        if self.training:
            if self.n_batches is None:
                self.n_batches = int(self.num_batches_tracked)
            self.n_batches += 1
            self.num_batches_tracked += 1
            self.momentum = max(0.1, 1 / self.n_batches)
        # One row alone has no deviation: it is normalised by the running statistics.
        by_batch = self.training and len(rows) > 1
        rows = F.batch_norm(
            rows, self.running_mean, self.running_var, self.weight, self.bias,
            by_batch, self.momentum, self.eps,
        )  # fmt: skip
        if is_padding is None:
            return rows.view_as(x)
        return rows.new_zeros(x.shape).index_put((~is_padding,), rows)


class Convolutions(nn.Module):
    """Two convolutions with batch norm and GELU, the first strided: (B, T, C) to (B, N, D).

    The first sees a patch, the one before it, 3 steps before that and 4 after. The second works
    on patches, which makes long sequences cheap.
    """

    def __init__(self, n_inputs, d_model, patch_size):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv1d(n_in, d_model, size, stride, padding=size // 2, bias=False)
            for n_in, size, stride in ((n_inputs, 2 * patch_size + 7, patch_size), (d_model, 5, 1))
        )
        self.norms = nn.ModuleList(PatchBatchNorm(d_model) for _ in self.convs)

    def forward(self, x, is_padding):
        """Return features of every patch, zero where is_padding (B, N)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.gelu(norm(conv(x.mT).mT, is_padding))  # (B, N, D); GELU keeps zero at zero
        return x


class Embedding(nn.Module):
    """Padded sequences to tokens: (B, T, F) with NaN for what is missing to (B, N, D).

    Parameters
    ----------
    n_features : int
        F.
    d_model : int
        D.
    kind : {"linear", "conv"}
        What is projected to a token: the standardised steps of a patch, or convolutions there.
    patch_size : int
        Steps a token; the last token of a sequence may cover fewer.
    positions : {"sinusoidal", "learned", None}
        What is added to the tokens ("rope" acts in the attention, not here).
    max_tokens : int
        Rows of the learned positions, and of the sinusoids that are kept, up to `MAX_CACHED_POSITIONS`.
    has_missing : bool
        Whether to tell the network, by F more inputs, which values are missing.
    use_instance_norm : bool
        Whether to show it, by F more inputs, each sequence by its own mean and deviation: those
        that vary a hundred times less than others look constant otherwise.
    dropout : float
        Of the tokens.
    """

    def __init__(
        self, n_features, d_model, kind, patch_size, positions, max_tokens, has_missing,
        use_instance_norm, dropout,
    ):  # fmt: skip
        super().__init__()
        self.d_model, self.patch_size, self.has_missing = d_model, patch_size, has_missing
        self.use_instance_norm = use_instance_norm
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))
        n_inputs = (1 + has_missing + use_instance_norm) * n_features
        self.convolutions = Convolutions(n_inputs, d_model, patch_size) if kind == "conv" else None
        self.project = nn.Linear(d_model if kind == "conv" else patch_size * n_inputs, d_model)
        self.positions = positions
        if positions == "learned":
            self.position = nn.Parameter(0.02 * torch.randn(max_tokens, d_model))
        elif positions == "sinusoidal":  # kept, as they take as long as a layer
            place = POSITION_SCALE * sinusoids(min(max_tokens, MAX_CACHED_POSITIONS), d_model)
            self.register_buffer("place", place, persistent=False)
        self.dropout = Dropout(dropout)

    def forward(self, x, is_padding):
        """Return tokens (B, N, D) and which of them are padding, (B, N) or None."""
        x = self.inputs(x, is_padding)
        # A token is padding if its first step is.
        is_padding = None if is_padding is None else is_padding[:, :: self.patch_size]
        x = self.cut(x) if self.convolutions is None else self.convolutions(x, is_padding)
        tokens = self.project(x)  # (B, N, D)
        n_tokens, d_model = tokens.shape[1:]
        if self.positions == "sinusoidal":
            if n_tokens <= len(self.place):
                tokens = tokens + self.place[:n_tokens]
            else:  # longer than any sequence in training, or than is worth keeping
                tokens = tokens + POSITION_SCALE * sinusoids(n_tokens, d_model, x.device)
        elif self.positions == "learned":
            tokens = tokens + self.position[:n_tokens]
        return self.dropout(tokens), is_padding

    def inputs(self, x, is_padding):
        """Standardise, fill and mark what is missing: (B, T, F) to (B, T, C)."""
        missing = x.isnan()
        # Clipped far out, so that a fill value of 1e20 is finite in every layer.
        x = ((x - self.mean) / self.scale).clamp(-MAX_INPUT, MAX_INPUT).masked_fill(missing, 0.0)
        inputs = [x]
        if self.use_instance_norm:
            inputs.append(instance_norm(x, missing))
        if self.has_missing:
            if is_padding is not None:
                missing = missing & ~is_padding.unsqueeze(-1)
            inputs.append(missing.to(x.dtype))
        return torch.cat(inputs, -1)

    def cut(self, x):
        """Cut steps into patches: (B, T, C) to (B, N, P C), zeros after the last step."""
        if self.patch_size == 1:
            return x
        x = F.pad(x, (0, 0, 0, -x.shape[1] % self.patch_size))
        return x.unflatten(1, (-1, self.patch_size)).flatten(2)
