"""What training does to a batch before the network sees it: time warps and splices.

Shapes: B sequences, T steps, F features.

Choices: each sequence is replayed at a random, smoothly changing speed [1]; then a stretch of it is
replaced by the same stretch of another sequence of the batch, whose class gets that share of the
target [2]. Neither invents lengths or padding.

[1] Um et al., Data Augmentation of Wearable Sensor Data for Parkinson's Disease Monitoring using
    Convolutional Neural Networks, ICMI 2017.
[2] Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
    Features, ICCV 2019.
"""

import torch
import torch.nn.functional as F

WARP = 0.2  # deviation of the logarithm of the speed
ANCHORS = 5  # points between which the speed changes
SPLICED = 0.5  # share of the sequences of a batch that get a stretch of another
LONGEST = 0.5  # share of a sequence that is replaced at most


def augment(inputs, generator, *, splices=True):
    """Return the inputs of a batch, warped and, with `splices`, spliced.

    Added to them are then "partner" (B,), the row that each was spliced with, and "share" (B,), how
    much of its steps are the partner's.
    """
    x, is_padding = inputs["x"], inputs["is_padding"]
    lengths = torch.full((len(x),), x.shape[1], device=x.device)
    if is_padding is not None:
        lengths = lengths - is_padding.sum(1)
    x = warp(x, lengths, generator)
    if not splices:
        return {**inputs, "x": x}
    x, partner, share = splice(x, lengths, generator)
    return {**inputs, "x": x, "partner": partner, "share": share}


def warp(x, lengths, generator):
    """Replay x (B, T, F) at changing speed, from its first step to its last."""
    step = torch.arange(x.shape[1], device=x.device)  # (T,)
    last = lengths.unsqueeze(1) - 1  # (B, 1)
    log_speed = WARP * torch.randn(
        len(x), 1, ANCHORS, dtype=x.dtype, device=x.device, generator=generator
    )
    speed = F.interpolate(log_speed, x.shape[1], mode="linear", align_corners=True)[:, 0].exp()
    speed = speed.masked_fill((step == 0) | (step > last), 0.0)  # to each step from the one before
    time = speed.cumsum(1)  # (B, T)
    time = time * (last / time[:, -1:].clamp(min=1e-6))
    before = time.long().clamp(max=last)
    after = (before + 1).clamp(max=last)
    at_before, at_after = (
        x.gather(1, i.unsqueeze(-1).expand_as(x)) for i in (before, after)
    )  # (B, T, F) each
    share = (time - before).unsqueeze(-1)
    warped = at_before.lerp(at_after, share)
    # Beside a gap there is nothing to interpolate: the nearer step is taken, gap or not.
    warped = torch.where(warped.isnan(), torch.where(share < 0.5, at_before, at_after), warped)
    return torch.where((step > last).unsqueeze(-1), x, warped)


def splice(x, lengths, generator):
    """Return x (B, T, F) with stretches of partners, the partners (B,) and their shares (B,)."""
    n = len(x)

    def uniform(*shape):
        return torch.rand(shape, dtype=x.dtype, device=x.device, generator=generator)

    partner = torch.randperm(n, device=x.device, generator=generator)
    shorter = torch.minimum(lengths, lengths[partner])
    is_spliced = uniform(n) < SPLICED
    n_replaced = (LONGEST * uniform(n) * shorter).round() * is_spliced  # steps, (B,)
    start = (uniform(n) * (shorter - n_replaced + 1)).floor()
    step = torch.arange(x.shape[1], device=x.device)
    is_replaced = (step >= start.unsqueeze(1)) & (step < (start + n_replaced).unsqueeze(1))
    return x.where(~is_replaced.unsqueeze(-1), x[partner]), partner, n_replaced / lengths
