"""Augmentation of training batches: time warping and CutMix along time, and random unknown codes.

Shapes: B sequences, T steps, F features, K classes.

Design choices: each sequence is replayed at a speed that varies smoothly and at random [1]; then a
segment of half of the sequences is replaced by the same segment of another sequence of the batch,
and the label becomes a mixture of both labels in proportion to their steps [2]. Neither method
changes the length of a sequence or copies padding into it.

[1] Um et al., Data Augmentation of Wearable Sensor Data for Parkinson's Disease Monitoring using
    Convolutional Neural Networks, ICMI 2017.
[2] Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
    Features, ICCV 2019.
"""

import torch
import torch.nn.functional as F

TIME_WARP_STD = 0.2  # standard deviation of the logarithm of the speed
TIME_WARP_ANCHORS = 5  # random speeds per sequence; the speed is interpolated between them
CUTMIX_PROBABILITY = 0.5
MAX_CUT_FRACTION = 0.5  # largest fraction of a sequence that CutMix replaces
UNKNOWN_FRACTION = 0.1  # of the codes of a feature that become unknown
# With more categories than an alphabet has, a single code may decide the class of a sequence.
MAX_UNKNOWN_CATEGORIES = 32


def augment(inputs, y, generator, *, n_classes, n_codes=0, use_cutmix=True):
    """Return the inputs of a batch with time warping and, if `use_cutmix`, CutMix applied.

    CutMix adds "target" (B, K), soft labels that sum to 1, and mixes "sample_weight" (B,). The last
    `n_codes` features are codes, which are not interpolated.
    """
    x, is_padding = inputs["x"], inputs["is_padding"]
    lengths = torch.full((len(x),), x.shape[1], device=x.device)
    if is_padding is not None:
        lengths = lengths - is_padding.sum(1)
    x = time_warp(x, lengths, generator, n_codes)
    if not use_cutmix:
        return {**inputs, "x": x}
    x, permutation, replaced = cutmix(x, lengths, generator)
    target, weight = mix_labels(y, inputs["sample_weight"], permutation, replaced, n_classes)
    return {**inputs, "x": x, "target": target, "sample_weight": weight}


def hide_codes(inputs, y, generator, *, can_be_hidden):
    """Return the inputs of a batch in which some codes, drawn at random, are unknown.

    So the network learns a vector for codes that were not seen in `fit`, and does not rely on
    single codes of a motif. `can_be_hidden` (F,) says for which features.
    """
    x = inputs["x"]
    is_hidden = torch.rand(x.shape, device=x.device, generator=generator) < UNKNOWN_FRACTION
    return {**inputs, "x": x.masked_fill(is_hidden & can_be_hidden & ~x.isnan(), 0.0)}


def can_hide_codes(n_numbers, n_categories):
    """Return for which features (F,), numbers followed by codes, `hide_codes` hides codes."""
    can_be_hidden = [False] * n_numbers + [n <= MAX_UNKNOWN_CATEGORIES for n in n_categories]
    return torch.tensor(can_be_hidden)


def time_warp(x, lengths, generator, n_codes=0):
    """Replay x (B, T, F) at a varying speed, from the first to the last step of each sequence."""
    step = torch.arange(x.shape[1], device=x.device)  # (T,)
    last = lengths.unsqueeze(1) - 1  # (B, 1)
    log_speed = TIME_WARP_STD * torch.randn(
        len(x), 1, TIME_WARP_ANCHORS, dtype=x.dtype, device=x.device, generator=generator
    )
    speed = F.interpolate(log_speed, x.shape[1], mode="linear", align_corners=True)[:, 0].exp()
    # The speed at a step is how far the position in the original sequence moves to reach it.
    speed = speed.masked_fill((step == 0) | (step > last), 0.0)
    time = speed.cumsum(1)  # (B, T)
    time = time * (last / time[:, -1:].clamp(min=1e-6))
    before = time.long().clamp(max=last)
    after = (before + 1).clamp(max=last)
    x_before, x_after = (
        x.gather(1, i.unsqueeze(-1).expand_as(x)) for i in (before, after)
    )  # (B, T, F) each
    fraction = (time - before).unsqueeze(-1)
    warped = x_before.lerp(x_after, fraction)
    # A missing value cannot be interpolated. The nearer step is copied, whether it is missing or
    # not, so that the fraction of missing values stays the same. So are codes.
    nearest = torch.where(fraction < 0.5, x_before, x_after)
    warped = torch.where(warped.isnan(), nearest, warped)
    if n_codes:
        warped[..., -n_codes:] = nearest[..., -n_codes:]
    return torch.where((step > last).unsqueeze(-1), x, warped)


def cutmix(x, lengths, generator):
    """Replace a segment of some sequences with the same steps of another sequence.

    Returns x (B, T, F), the permutation (B,) that maps each sequence to the one that its segment
    comes from, and the fraction (B,) of its steps that were replaced.
    """
    n = len(x)

    def uniform(*shape):
        return torch.rand(shape, dtype=x.dtype, device=x.device, generator=generator)

    permutation = torch.randperm(n, device=x.device, generator=generator)
    shorter = torch.minimum(lengths, lengths[permutation])
    is_cut = uniform(n) < CUTMIX_PROBABILITY
    n_replaced = (MAX_CUT_FRACTION * uniform(n) * shorter).round() * is_cut  # steps, (B,)
    start = (uniform(n) * (shorter - n_replaced + 1)).floor()
    step = torch.arange(x.shape[1], device=x.device)
    is_replaced = (step >= start.unsqueeze(1)) & (step < (start + n_replaced).unsqueeze(1))
    return x.where(~is_replaced.unsqueeze(-1), x[permutation]), permutation, n_replaced / lengths


def mix_labels(y, weight, permutation, replaced, n_classes):
    """Return the soft labels (B, K) and the sample weights (B,) of sequences mixed by CutMix.

    The loss of the soft label, multiplied by the mixed weight, is the sum of the losses of both
    labels, each multiplied by its sample weight and its fraction of the steps.
    """
    own, other = (1 - replaced) * weight, replaced * weight[permutation]
    mixed = own + other
    # If both weights underflow to 0, the label is not mixed.
    other_fraction = (other / mixed.clamp(min=torch.finfo(mixed.dtype).tiny)).unsqueeze(1)
    one_hot = F.one_hot(y, n_classes).to(mixed.dtype)
    return one_hot.lerp(one_hot[permutation], other_fraction), mixed
