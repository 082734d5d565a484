"""Embedding of padded sequences of steps as tokens.

Shapes: B sequences, T steps, N tokens, F features, C channels of the input, P steps per patch,
D `d_model`.

Design choices: the inputs are standardized, missing values are imputed with the training mean, and
indicators of them are added if the training data had any; embedded codes are further inputs; a
token is a patch of steps [1], projected linearly or by two convolutions of which the first is
strided [2]; padding is zero in every layer, so that a padded sequence and an unpadded one give the
same tokens.

[1] Nie et al., A Time Series is Worth 64 Words, ICLR 2023.
[2] Wang et al., Time Series Classification from Scratch with Deep Neural Networks, IJCNN 2017.
"""

import torch
import torch.nn.functional as F
from torch import nn

from sklearn_cls._network.code_embedding import CodeEmbedding
from sklearn_cls._network.dropout import Dropout
from sklearn_cls._network.positions import MAX_CACHED_POSITIONS, add_positions, sinusoidal_table

EMBEDDINGS = ("linear", "conv")
CHANNELS_PER_BLOCK = 1024  # for which the weights of a convolution fit into the cache of a core
MIN_STD = 1e-6  # relative to the global one; below it, a sequence varies by rounding only


class Embedding(nn.Module):
    """Embeds padded sequences (B, T, F), with NaN for missing values, as tokens (B, N, D).

    The sequences are standardized, so that 0 is the training mean. The last features may be
    categorical codes, see `CodeEmbedding`; all others are numbers.

    Parameters
    ----------
    n_features, d_model : int
        F, codes included, and D.
    embedding : {"linear", "conv"}
        Whether the steps of a patch are projected linearly or by convolutions.
    patch_size : int
        Steps per token. The last token of a sequence may cover fewer.
    positions : {"sinusoidal", "learned", "rope", None}
        Position encoding. "rope" adds nothing here, as it acts in the attention.
    max_tokens : int
        Number of tokens of the longest training sequence. It is the number of learned positions
        and, up to `MAX_CACHED_POSITIONS`, of cached sinusoids.
    has_missing : bool
        Whether missing-value indicators of the numbers are added to the inputs.
    use_instance_norm : bool
        Whether the instance-normalized numbers are added to the inputs. Without them, sequences
        that vary 100 times less than others would look constant.
    dropout : float
        Dropout rate of the tokens.
    n_categories : tuple of int
        Number of categories of each feature that is a code.
    """

    def __init__(
        self, n_features, d_model, embedding, patch_size, positions, max_tokens, has_missing,
        use_instance_norm, dropout, n_categories=(),
    ):  # fmt: skip
        super().__init__()
        self.d_model, self.patch_size, self.positions = d_model, patch_size, positions
        self.has_missing, self.use_instance_norm = has_missing, use_instance_norm
        self.n_codes = len(n_categories)
        self.n_numbers = n_features - self.n_codes
        n_inputs = (1 + has_missing + use_instance_norm) * self.n_numbers
        self.codes = CodeEmbedding(n_categories) if n_categories else None
        if n_categories:
            n_inputs += self.codes.n_channels  # C
        if embedding == "conv":
            self.convolutions = Convolutions(n_inputs, d_model, patch_size)
            self.project = nn.Linear(d_model, d_model)
        else:
            self.convolutions = None
            self.project = nn.Linear(patch_size * n_inputs, d_model)
        if positions == "learned":
            self.position = nn.Parameter(0.02 * torch.randn(max_tokens, d_model))
        elif positions == "sinusoidal":  # cached, as computing them takes as long as a layer
            table = sinusoidal_table(min(max_tokens, MAX_CACHED_POSITIONS), d_model)
            self.register_buffer("position", table, persistent=False)
        else:
            self.position = None
        self.dropout = Dropout(dropout)

    def forward(self, x, is_padding):
        """Return tokens (B, N, D) and which of them are padding, (B, N) or None."""
        x = self.inputs(x, is_padding)  # (B, T, C)
        if is_padding is not None:  # a patch is padding if its first step is
            is_padding = is_padding[:, :: self.patch_size]  # (B, N)
        x = self.patchify(x) if self.convolutions is None else self.convolutions(x, is_padding)
        tokens = self.project(x)  # (B, N, D)
        if self.position is not None:
            tokens = add_positions(tokens, self.position, self.positions)
        return self.dropout(tokens), is_padding

    def inputs(self, x, is_padding):
        """Return the inputs of all features of x (B, T, F): (B, T, C)."""
        if self.codes is None:
            return self.number_inputs(x, is_padding)
        numbers, codes = x.tensor_split([self.n_numbers], -1)
        return torch.cat(
            [self.number_inputs(numbers, is_padding), self.codes(codes, is_padding)], -1
        )

    def number_inputs(self, x, is_padding):
        """Impute missing values in numbers x (B, T, F), and append the optional inputs."""
        missing = x.isnan()
        if is_padding is not None:
            is_padding = is_padding.unsqueeze(-1)  # (B, T, 1)
            missing = missing | is_padding  # whatever the values are that the padding has
        x = x.masked_fill(missing, 0.0)
        inputs = [x]
        if self.use_instance_norm:
            inputs.append(instance_norm(x, missing))
        if self.has_missing:
            if is_padding is not None:  # Padding is not a missing value.
                missing = missing & ~is_padding
            inputs.append(missing.to(x.dtype))
        return torch.cat(inputs, -1)

    @torch.no_grad()
    def zero_unreached_weights(self, is_used, n_steps):
        """Set to 0 all weights that are multiplied by 0 in all of the training.

        Their gradient is 0, so that they stay 0. Otherwise, they would remain random, and would
        change predictions as soon as their inputs are not 0.

        Parameters
        ----------
        is_used : Tensor (C,) of bool
            False for an input that is 0 in all training data.
        n_steps : int
            Number of steps of the longest training sequence.
        """
        if self.positions == "learned":
            self.position[-(-n_steps // self.patch_size) :] = 0.0
        # More steps than two kernels cover reach no other weights.
        x = is_used.float().expand(1, min(n_steps, 4 * self.patch_size + 14), -1)
        if self.convolutions is None:
            self.project.weight.mul_(self.patchify(x).amax(1))
        else:
            self.convolutions.zero_unreached_weights(x)

    def patchify(self, x):
        """Concatenate the steps of each patch, the last one padded with zeros: (B, N, P * C)."""
        if self.patch_size == 1:
            return x
        x = F.pad(x, (0, 0, 0, -x.shape[1] % self.patch_size))
        return x.unflatten(1, (-1, self.patch_size)).flatten(2)


def instance_norm(x, missing):
    """Standardize each feature of each sequence of x (B, T, F); missing values become 0.

    The first known value is subtracted first, so that a constant sequence becomes exactly 0
    whatever the rounding error of its mean. So does one that varies by rounding only.
    """
    first = missing.to(torch.uint8).argmin(1, keepdim=True)  # (B, 1, F)
    x = (x - x.gather(1, first)).masked_fill(missing, 0.0)
    n_known = (~missing).sum(1, keepdim=True).clamp(min=1)  # (B, 1, F)
    centered = (x - x.sum(1, keepdim=True) / n_known).masked_fill(missing, 0.0)
    std = (centered.square().sum(1, keepdim=True) / n_known).sqrt()
    return torch.where(std > MIN_STD, centered / std.clamp(min=MIN_STD), 0.0)


class Convolutions(nn.Module):
    """Two convolutions, each followed by batch norm and GELU: (B, T, C) to (B, N, D).

    The stride of the first is the patch size; it sees a patch, the patch before it, 3 more steps
    before and 4 after. The second convolves patches, which makes long sequences cheap.
    """

    def __init__(self, n_inputs, d_model, patch_size):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv1d(n_in, d_model, size, stride, padding=size // 2, bias=False)
            for n_in, size, stride in ((n_inputs, 2 * patch_size + 7, patch_size), (d_model, 5, 1))
        )
        self.norms = nn.ModuleList(PatchBatchNorm(d_model) for _ in self.convs)

    def forward(self, x, is_padding):
        """Return the features of every patch, zero where is_padding (B, N) is True."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.gelu(norm(convolve(conv, x), is_padding))  # (B, N, D); GELU(0) = 0
        return x

    def zero_unreached_weights(self, x):
        """Set the weights to 0 that are multiplied only by zeros of x (1, T, C) and of padding."""
        for conv in self.convs:
            (size,), (stride,), (padding,) = conv.kernel_size, conv.stride, conv.padding
            windows = F.pad(x, (0, 0, padding, padding)).unfold(1, size, stride)  # (1, N, C, size)
            conv.weight.mul_(windows.amax(1))
            x = x.new_ones(1, windows.shape[1], conv.out_channels)


def convolve(conv, x):
    """Return the convolution of x (B, T, C) without bias, (B, N, D); on the CPU, block by block.

    A channel takes longer if the weights of all channels exceed the cache.
    """
    if x.shape[2] <= CHANNELS_PER_BLOCK or x.device.type != "cpu":
        return conv(x.mT).mT
    parts, weights = x.split(CHANNELS_PER_BLOCK, 2), conv.weight.split(CHANNELS_PER_BLOCK, 1)
    return sum(
        F.conv1d(part.mT, weight, stride=conv.stride, padding=conv.padding)
        for part, weight in zip(parts, weights, strict=True)
    ).mT


class PatchBatchNorm(nn.BatchNorm1d):
    """Batch norm over the patches of a batch that are not padding; padding becomes zero.

    The running statistics start as the cumulative average of the first batches, so that a network
    trained for a few updates does not predict with its initial statistics.
    """

    n_batches = None  # Python copy of `num_batches_tracked`: reading the tensor synchronizes a GPU
    # In a fit in several processes, a differentiable function that returns the sum of a tensor over
    # all of them, so that each normalizes its part of a batch by the statistics of the batch.
    sum_over_processes = None

    def forward(self, x, is_padding):
        """Normalize x (B, N, D); is_padding (B, N) is True for padding, or None."""
        if self.training:
            if self.n_batches is None:
                self.n_batches = int(self.num_batches_tracked)
            self.n_batches += 1
            self.num_batches_tracked += 1
            self.momentum = max(0.1, 1 / self.n_batches)
            if self.sum_over_processes is not None:
                return self.synchronized(x, is_padding)
        # A result whose shape depends on the data cannot be exported, and synchronizes a GPU.
        if is_padding is not None and (torch.compiler.is_exporting() or (x.is_cuda and len(x) > 1)):
            return self.masked(x, is_padding)
        patches = x.flatten(0, 1) if is_padding is None else x[~is_padding]  # (patches, D)
        # A single patch has no variance, so it is normalized by the running statistics.
        use_batch_statistics = self.training and len(patches) > 1
        patches = F.batch_norm(
            patches, self.running_mean, self.running_var, self.weight, self.bias,
            use_batch_statistics, self.momentum, self.eps,
        )  # fmt: skip
        if is_padding is None:
            return patches.view_as(x)
        return patches.new_zeros(x.shape).index_put((~is_padding,), patches)

    def masked(self, x, is_padding):
        """Normalize x (B, N, D), with sums over all patches in which padding counts as zero."""
        is_padding = is_padding.unsqueeze(-1)  # (B, N, 1)
        mean, var = self.running_mean, self.running_var
        if self.training:
            n = (~is_padding).sum()
            mean = x.float().masked_fill(is_padding, 0.0).sum((0, 1)) / n
            deviation = (x - mean).masked_fill(is_padding, 0.0)
            var = deviation.square().sum((0, 1)) / n
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var * n / (n - 1), self.momentum)  # unbiased
        normalized = (x - mean) * ((var + self.eps).rsqrt() * self.weight) + self.bias
        return normalized.masked_fill(is_padding, 0.0).to(x.dtype)

    def synchronized(self, x, is_padding):
        """Normalize x (B, N, D), which may have no sequences, by sums over all processes."""
        shift = self.running_mean.clone()  # without it, the squares of an offset would cancel
        shifted, n = x.float() - shift, x.new_full((1,), x.shape[0] * x.shape[1], dtype=torch.float)
        if is_padding is not None:
            is_padding = is_padding.unsqueeze(-1)  # (B, N, 1)
            shifted, n = shifted.masked_fill(is_padding, 0.0), n - is_padding.sum()
        sums = torch.cat([shifted.sum((0, 1)), shifted.square().sum((0, 1)), n])
        *sums, n = self.sum_over_processes(sums).split([x.shape[2], x.shape[2], 1])
        mean, square = (total / n for total in sums)
        var = (square - mean.square()).clamp(min=0)
        with torch.no_grad():
            # A single patch has no variance, so it is normalized by the running statistics.
            momentum = torch.where(n > 1, self.momentum, 0.0)
            self.running_mean.lerp_(mean + shift, momentum)
            self.running_var.lerp_(var * (n / (n - 1).clamp(min=1)), momentum)  # unbiased
        mean, var = torch.where(n > 1, mean, 0.0), torch.where(n > 1, var, self.running_var)
        normalized = (shifted - mean) * ((var + self.eps).rsqrt() * self.weight) + self.bias
        if is_padding is not None:
            normalized = normalized.masked_fill(is_padding, 0.0)
        return normalized.to(x.dtype)
