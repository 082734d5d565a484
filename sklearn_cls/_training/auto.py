"""The parameters of the network and of training: every "auto" is resolved here."""

import math
from numbers import Integral

import numpy as np
import torch

from sklearn_cls._torch.device import autocast
from sklearn_cls._torch.threads import ELEMENTS_PER_THREAD, resolve_n_threads

MAX_TOKENS = 64  # of a sequence of median length; the cost of attention grows with their square
# Maximum number of tokens of the sequence that a step belongs to, on average over all steps. With
# this number, attention takes half of the time.
MAX_MEAN_TOKENS = 1024
AUTO_LR = 2e-3  # peak learning rate for batches of 16 and d_model=64
AUTO_UPDATES = 600  # with batches of 32 or more
AUTO_MIN_EPOCHS = 10  # for large datasets, for which 600 updates would be fewer epochs
WARMUP_FRACTION, MAX_WARMUP_FRACTION = 0.1, 0.3
# Many processes share larger batches than 128, as long as 10 epochs have 1,000 updates.
SEQUENCES_PER_PROCESS, MAX_BATCH_SIZE, MIN_SEQUENCES_PER_BATCH = 16, 2048, 100
MIN_BFLOAT16_WIDTH = 256  # the casts of narrower networks take longer than bfloat16 saves
ARCHITECTURE = (  # parameters that determine the shapes or the meaning of the weights
    "cls_strategy",
    "pooling",
    "depth",
    "d_model",
    "n_heads",
    "dim_feedforward",
    "embedding",
    "positions",
)
DATA_DEPENDENT = (  # parameters of the network that are derived from the data and the seed
    "n_features",
    "n_classes",
    "patch_size",
    "max_tokens",
    "has_missing",
    "use_instance_norm",
    "n_categories",
    "token_seed",
)


def to_python_int(value):
    """Return an integer of any type as int: torch rejects bools and unsigned NumPy integers."""
    return int(value) if isinstance(value, Integral) else value


def auto_patch_size(lengths):
    """Return the patch size for sequences of some lengths.

    It is the smallest one that divides a sequence of median length into at most `MAX_TOKENS` tokens
    and that bounds the cost of attention if a few sequences are much longer, see `MAX_MEAN_TOKENS`.
    """
    lengths = np.asarray(lengths, dtype=np.float64)
    mean_of_steps = np.square(lengths).sum() / lengths.sum()
    return math.ceil(max(int(np.median(lengths)) / MAX_TOKENS, mean_of_steps / MAX_MEAN_TOKENS))


def auto_batch_size(n_sequences, n_processes=1):
    """Return a power of 2 near a tenth of the training sequences, from 8 to 128.

    More than 8 processes that train together share larger batches.
    """
    batch_size = int(2 ** np.clip(round(math.log2(n_sequences / 10)), 3, 7))
    largest = min(
        SEQUENCES_PER_PROCESS * n_processes, n_sequences / MIN_SEQUENCES_PER_BATCH, MAX_BATCH_SIZE
    )
    return max(batch_size, 2 ** math.floor(math.log2(max(largest, 1))))


def auto_max_epochs(n_sequences, batch_size):
    """Return the number of epochs for `AUTO_UPDATES` updates, at least `AUTO_MIN_EPOCHS`.

    Batches below 32 get more updates, because their learning rate is lower (see `auto_lr`): the sum
    of the learning rates over all updates stays the same.
    """
    n_batches = math.ceil(n_sequences / batch_size)
    n_updates = AUTO_UPDATES * max(1, math.sqrt(32 / batch_size))
    return max(AUTO_MIN_EPOCHS, math.ceil(n_updates / n_batches))


def auto_lr(batch_size, d_model):
    """Return the peak learning rate.

    It grows with the square root of the batch size (Malladi et al., On the SDEs and Scaling Rules
    for Adaptive Gradient Algorithms, NeurIPS 2022), and above a width of 64 it falls as
    1 / `d_model` (Yang et al., Tensor Programs V, NeurIPS 2021).
    """
    return AUTO_LR * math.sqrt(min(batch_size, MAX_BATCH_SIZE) / 16) * min(1, 64 / d_model)


def large_batch_factor(batch_size):
    """Return the batch size divided by 128, from 1 to 16."""
    return min(max(batch_size / 128, 1.0), MAX_BATCH_SIZE / 128)


def warmup_fraction(batch_size):
    """Return the fraction of all updates in which the learning rate rises.

    It is larger for batches of more than 128, which have a larger learning rate.
    """
    return min(WARMUP_FRACTION * math.sqrt(large_batch_factor(batch_size)), MAX_WARMUP_FRACTION)


def beta2(batch_size):
    """Return the decay of the squared gradients of AdamW.

    With larger batches, it spans as many sequences, in fewer updates (Malladi et al., 2022).
    """
    return 1 - 0.001 * large_batch_factor(batch_size)


def auto_augment(sequences):
    """Return how `sequences` are augmented.

    Time warping and CutMix change the distances between codes, and cut motifs. The time since the
    start would jump where CutMix joins sequences with a clock.
    """
    if sequences.n_categories:
        return "codes"
    return "time_warp" if sequences.has_clock else True


def auto_n_threads(module, device, n_jobs, n_steps):
    """Return the number of threads for batches of `n_steps` steps in total; one on a GPU."""
    if torch.device(device).type != "cpu":
        return 1
    embedding = module.embedding
    n_elements = n_steps / embedding.patch_size * embedding.d_model
    return resolve_n_threads(n_jobs, n_elements // ELEMENTS_PER_THREAD)


def forward_autocast(net):
    """Return the autocast context of the forward pass of a net."""
    device, precision = torch.device(net.device), net.precision
    if precision == "auto":
        use_bfloat16 = (
            device.type == "cuda"
            and net.module_.embedding.d_model >= MIN_BFLOAT16_WIDTH
            and torch.cuda.is_bf16_supported()
        )
        precision = "bfloat16" if use_bfloat16 else "float32"
    return autocast(device, precision)


def network_params(params, data, n_classes, seed, warm_start_net=None):
    """Return the parameters of `CLSEncoder`.

    A warm start keeps those that were derived from the data of the first fit.
    """
    network = {name: to_python_int(getattr(params, name)) for name in (*ARCHITECTURE, "dropout")}
    if warm_start_net is not None:
        known = warm_start_net.get_params_for("module")
        return {**network, **{name: known[name] for name in DATA_DEPENDENT}}
    patch_size = to_python_int(params.patch_size)
    if patch_size == "auto":
        patch_size = auto_patch_size(data.lengths)
    return {
        **network,
        "n_features": data.sequences.n_features,
        "n_classes": n_classes,
        "patch_size": patch_size,
        "max_tokens": math.ceil(int(data.lengths.max()) / patch_size),
        "has_missing": bool(data.sequences.has_gaps[data.indices].any()),
        "use_instance_norm": params.standardize and data.sequences.scales_differ(data.indices),
        "n_categories": data.sequences.n_categories,
        "token_seed": seed,
    }


def training_params(params, train, *, one_epoch=False, n_processes=1, batch_size=None):
    """Return the parameters of `Net` for a whole fit, or for one epoch at a constant `lr`.

    Parameters
    ----------
    params : CLSTransformerClassifier
    train : SequenceDataset
        The training sequences.
    one_epoch : bool
    n_processes : int
        Number of processes that train together.
    batch_size : int or None
        That of the checkpoint from which a fit resumes, perhaps with fewer processes.
    """
    n_sequences = len(train)
    if params.batch_size != "auto":
        batch_size = to_python_int(params.batch_size)
    batch_size = batch_size or auto_batch_size(n_sequences, n_processes)
    n_batches = math.ceil(n_sequences / batch_size)
    max_epochs = 1 if one_epoch else to_python_int(params.max_epochs)
    if max_epochs == "auto":
        max_epochs = auto_max_epochs(n_sequences, batch_size)
    is_auto = isinstance(params.augment, str)
    return {
        "batch_size": batch_size,
        "max_epochs": max_epochs,
        "n_updates": max_epochs * n_batches,
        "warmup_fraction": None if one_epoch else warmup_fraction(batch_size),
        "beta2": beta2(batch_size),
        "lr": auto_lr(batch_size, params.d_model) if params.lr == "auto" else params.lr,
        "weight_decay": params.weight_decay,
        "criterion__label_smoothing": params.label_smoothing,
        "augment": auto_augment(train.sequences) if is_auto else params.augment,
        "precision": params.precision,
    }


def check_consistency(params, warm_start_net=None):
    """Check that parameters are consistent with each other and with a warm-start network."""
    d_model, n_heads = params.d_model, params.n_heads
    if d_model % n_heads:
        nearest = max(1, round(d_model / n_heads)) * n_heads
        raise ValueError(
            f"d_model must be a multiple of n_heads, got d_model={d_model} and n_heads={n_heads}; "
            f"the nearest valid value is d_model={nearest}."
        )
    if params.positions == "rope" and d_model // n_heads % 2:
        raise ValueError(
            "positions='rope' rotates pairs of entries, so d_model / n_heads must be even, got "
            f"d_model={d_model} and n_heads={n_heads}; d_model={2 * d_model} works."
        )
    if warm_start_net is None:
        return
    known = warm_start_net.get_params_for("module")
    names = ARCHITECTURE if params.patch_size == "auto" else (*ARCHITECTURE, "patch_size")
    for name in names:
        if getattr(params, name) != known[name]:
            raise ValueError(
                f"{name}={getattr(params, name)!r}, but the fitted network has {known[name]!r}; "
                "restore that value, or fit from scratch with warm_start=False."
            )
