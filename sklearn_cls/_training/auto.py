"""From parameters and data to what is built: every "auto" is decided here."""

import math
from numbers import Integral

import numpy as np

MAX_TOKENS = 64  # of a sequence of median length: what attention costs grows with tokens
AUTO_LR = 2e-3  # peak step size of batches of 16 at width 64
AUTO_UPDATES = 600  # of the weights, with batches of 32 or more
AUTO_MIN_EPOCHS = 10  # what a large one needs
ARCHITECTURE = (  # what the weights fit, so that training goes on only if it is the same
    "cls_strategy",
    "pooling",
    "depth",
    "d_model",
    "n_heads",
    "dim_feedforward",
    "activation",
    "embedding",
    "positions",
)
DATA_DEPENDENT = (  # the data and the seed
    "n_features",
    "n_classes",
    "patch_size",
    "max_tokens",
    "has_missing",
    "use_instance_norm",
    "token_seed",
)


def to_python_int(value):
    """Return an int of any kind as Python's: NumPy's may be unsigned, and torch takes no True."""
    return int(value) if isinstance(value, Integral) else value


def auto_patch_size(n_steps):
    """Steps a token, so that a sequence of `n_steps` has at most `MAX_TOKENS` tokens."""
    return math.ceil(n_steps / MAX_TOKENS)


def auto_batch_size(n_sequences):
    """Return a power of 2 near a tenth of the training sequences, 8 to 128."""
    return int(2 ** np.clip(round(math.log2(n_sequences / 10)), 3, 7))


def auto_max_epochs(n_sequences, batch_size):
    """Return the epochs that make `AUTO_UPDATES` updates, at least `AUTO_MIN_EPOCHS`.

    More in batches below 32, as their steps are smaller (see `auto_lr`): the sum of all is the
    same.
    """
    n_batches = math.ceil(n_sequences / batch_size)
    n_updates = AUTO_UPDATES * max(1, math.sqrt(32 / batch_size))
    return max(AUTO_MIN_EPOCHS, math.ceil(n_updates / n_batches))


def auto_lr(batch_size, d_model):
    """Return the peak step size: larger for batches with less noise, smaller for wide layers.

    As the root of the batch size up to 128, as Adam's steps do (Malladi et al., On the SDEs and
    Scaling Rules for Adaptive Gradient Algorithms, NeurIPS 2022), and as 1 / `d_model` from 64 on
    (Yang et al., Tensor Programs V, NeurIPS 2021).
    """
    return AUTO_LR * math.sqrt(min(batch_size, 128) / 16) * min(1, 64 / d_model)


def plan_network(params, data, n_classes, seed, start=None):
    """Return the parameters of `CLSEncoder`.

    If training goes on from the net `start`, that knows what was once read off the data.
    """
    network = {name: to_python_int(getattr(params, name)) for name in (*ARCHITECTURE, "dropout")}
    if start is not None:
        known = start.get_params_for("module")
        return {**network, **{name: known[name] for name in DATA_DEPENDENT}}
    patch_size = to_python_int(params.patch_size)
    if patch_size == "auto":
        patch_size = auto_patch_size(int(np.median(data.lengths)))
    return {
        **network,
        "n_features": data.sequences.n_features,
        "n_classes": n_classes,
        "patch_size": patch_size,
        "max_tokens": math.ceil(int(data.lengths.max()) / patch_size),
        "has_missing": bool(data.sequences.has_gaps[data.rows].any()),
        "use_instance_norm": params.standardize and data.sequences.scales_differ(data.rows),
        "token_seed": seed,
    }


def plan_training(params, n_sequences, *, one_pass=False):
    """Return the parameters of `Net` for a whole training, or for one pass at a constant `lr`."""
    batch_size = to_python_int(params.batch_size)
    if batch_size == "auto":
        batch_size = auto_batch_size(n_sequences)
    n_batches = math.ceil(n_sequences / batch_size)
    max_epochs = 1 if one_pass else to_python_int(params.max_epochs)
    if max_epochs == "auto":
        max_epochs = auto_max_epochs(n_sequences, batch_size)
    return {
        "batch_size": batch_size,
        "max_epochs": max_epochs,
        "n_updates": max_epochs * n_batches,
        "warmup_fraction": None if one_pass else params.warmup_fraction,
        "lr": auto_lr(batch_size, params.d_model) if params.lr == "auto" else params.lr,
        "weight_decay": params.weight_decay,
        "criterion__label_smoothing": params.label_smoothing,
        "augment": params.augment,
        "precision": params.precision,
        "compile": params.compile,
    }


def check_consistency(params, start=None):
    """Check what parameters say together, and against the net to go on from."""
    d_model, n_heads = params.d_model, params.n_heads
    if d_model % n_heads:
        nearest = max(1, round(d_model / n_heads)) * n_heads
        raise ValueError(
            f"d_model must be a multiple of n_heads, got d_model={d_model} and n_heads={n_heads}; "
            f"the nearest that works is d_model={nearest}."
        )
    if params.positions == "rope" and d_model // n_heads % 2:
        raise ValueError(
            "positions='rope' rotates pairs of entries, so d_model / n_heads must be even, got "
            f"d_model={d_model} and n_heads={n_heads}; d_model={2 * d_model} works."
        )
    if start is None:
        return
    known = start.get_params_for("module")
    names = ARCHITECTURE if params.patch_size == "auto" else (*ARCHITECTURE, "patch_size")
    for name in names:
        if getattr(params, name) != known[name]:
            raise ValueError(
                f"{name}={getattr(params, name)!r}, but the network to go on from has "
                f"{known[name]!r}; a fit with warm_start=False starts anew."
            )
