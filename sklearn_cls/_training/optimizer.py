"""AdamW with a linear warm-up and a cosine decay of the learning rate."""

import math

import torch


def adamw(module, lr, weight_decay, beta2=0.999):
    """Return AdamW over the parameters of `module`, in groups with and without weight decay.

    Vectors (biases, norms, the [CLS] token) have no weight decay, nor do the parameters that
    `module.no_weight_decay()` names.
    """
    exempt = module.no_weight_decay()
    groups = {True: [], False: []}
    for name, parameter in module.named_parameters():
        groups[parameter.ndim > 1 and name not in exempt].append(parameter)
    return torch.optim.AdamW(
        [
            {"params": groups[True], "weight_decay": weight_decay},
            {"params": groups[False], "weight_decay": 0.0},
        ],
        lr=lr,
        betas=(0.9, beta2),
        fused=True,
    )


def cosine_schedule(optimizer, n_updates, warmup_fraction):
    """Set the learning rate of the first update, and return the schedule of the others."""

    def factor(update):
        return lr_lambda(update, n_updates, warmup_fraction)

    for group in optimizer.param_groups:
        group["lr"] *= factor(0)
    # The schedule is multiplicative, so that it can be combined with that of a user's callback.
    return torch.optim.lr_scheduler.MultiplicativeLR(
        optimizer, lambda update: factor(update) / factor(update - 1)
    )


def lr_lambda(update, n_updates, warmup_fraction):
    """Return the factor of the learning rate at an update; 1 if `warmup_fraction` is None."""
    if warmup_fraction is None:
        return 1.0
    n_warmup = math.ceil(warmup_fraction * n_updates)
    if update < n_warmup:
        return (update + 1) / n_warmup
    progress = (update - n_warmup) / (n_updates + 1 - n_warmup)  # below 1
    return 0.5 * (1 + math.cos(math.pi * progress))
