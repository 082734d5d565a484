"""Inference on many sequences: length-bucketed batches, in parallel on the CPU."""

import itertools
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from sklearn_cls._data.batches import (
    STEPS_PER_BATCH,
    STEPS_PER_GPU_BATCH,
    length_bucketed_batches,
    prediction_batch,
)
from sklearn_cls._torch.settings import torch_settings
from sklearn_cls._torch.threads import parallel_map
from sklearn_cls._training.auto import auto_n_threads, forward_autocast

MAX_FEATURES = 512  # with more, a batch holds fewer steps


@torch_settings()
def predict_batches(net, sequences, function, n_jobs=None, n_steps=None):
    """Apply `function` to all sequences and return the results, in their order.

    Parameters
    ----------
    net : Net
        A trained net.
    sequences : Sequences
        The checked sequences.
    function : callable
        Called with the inputs of a padded batch; returns a Tensor (B, ..., n).
    n_jobs : int or None
        Number of threads; each processes different batches.
    n_steps : int or None
        Number of steps, if the last axis of the result is time: shorter batches are padded with
        zeros.

    Returns
    -------
    result : ndarray of shape (n_sequences, ..., n_steps), float32

    Raises
    ------
    RuntimeError
        If a result is not finite, because the weights are damaged.
    """
    device, sequences = torch.device(net.device), replace(sequences, scaler=net.scaler)
    # A nested function that calls itself would keep X until the garbage collector runs.
    compute_batch = partial(_compute_batch, net, sequences, function)
    max_steps = _steps_per_batch(net, sequences.n_features)
    batches = length_bucketed_batches(sequences.lengths, max_steps)
    n_threads = auto_n_threads(net.module_, device, n_jobs, int(sequences.lengths.sum()))
    parts = list(itertools.chain(*parallel_map(compute_batch, batches, n_threads)))
    *shape, n_default = parts[0][1].shape[1:]
    result = np.zeros((len(sequences), *shape, n_steps or n_default), dtype=np.float32)
    for indices, part in parts:
        if not np.isfinite(part).all():
            i = indices[np.argmin(np.isfinite(part).reshape(len(part), -1).all(1))]
            raise RuntimeError(
                f"The network computed NaN or infinity for X[{i}]: its weights are damaged. Fit "
                "the estimator again, or load it from its file."
            )
        result[indices, ..., : part.shape[-1]] = part
    return result


def _compute_batch(net, sequences, function, indices):
    """Return pairs of indices and results; several if the device runs out of memory."""
    try:
        with torch.inference_mode(), forward_autocast(net):
            batch = prediction_batch(sequences, indices, torch.device(net.device))
            return [(indices, function(**batch)[: len(indices)].float().cpu().numpy())]
    except torch.OutOfMemoryError:
        if len(indices) == 1:
            raise
    halves = np.array_split(indices, 2)
    return [pair for half in halves for pair in _compute_batch(net, sequences, function, half)]


def _steps_per_batch(net, n_features):
    # Many features and wide layers need more memory per step.
    size = max(1, n_features / MAX_FEATURES)
    if torch.device(net.device).type == "cpu":
        return max(1, int(STEPS_PER_BATCH / size))
    return max(1, int(STEPS_PER_GPU_BATCH / max(size, net.module_.embedding.d_model / 64)))
