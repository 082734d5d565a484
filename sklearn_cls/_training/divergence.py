"""Detection of diverged training: non-finite losses, exploding weights."""

import math

import torch

MAX_ABS_WEIGHT = 1e3  # beyond it float32 overflows in some layer; trained weights stay far below


class DivergenceError(ValueError):
    """Training diverged (non-finite loss or huge weight); retrying would diverge again."""


def check_losses(net, prefix, losses):
    """Raise DivergenceError if a loss of the current epoch is not finite."""
    for loss in losses:
        if not math.isfinite(loss):
            raise DivergenceError(
                f"The {prefix} loss became {loss} in epoch {len(net.history)}; lower lr (now "
                f"{net.lr:.3g}) or weight_decay (now {net.weight_decay}), or look for extreme "
                "values in X."
            )


def check_weights(net):
    """Raise DivergenceError if a weight is not finite or its magnitude exceeds `MAX_ABS_WEIGHT`."""
    with torch.no_grad():
        largest = torch.stack([p.abs().amax() for p in net.module_.parameters()]).amax().item()
    if not largest <= MAX_ABS_WEIGHT:  # also true for NaN
        raise DivergenceError(
            f"A weight became {largest:.3g} in epoch {len(net.history)}; lower lr (now "
            f"{net.lr:.3g}) or weight_decay (now {net.weight_decay})."
        )
