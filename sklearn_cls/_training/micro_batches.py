"""Gradient accumulation over micro-batches.

A batch is divided into micro-batches if it consists of groups of sequences of similar length, which
saves padding, or if it does not fit into memory.
"""

import itertools

import numpy as np
import torch


def run_in_micro_batches(step, batch, n_micro_batches, zero_grad):
    """Process a batch in micro-batches; double their number if the device runs out of memory.

    The gradients of micro-batches add up to that of the batch, but batch norm sees one micro-batch
    at a time.

    Parameters
    ----------
    step : callable
        Called as `step(micro_batch, fraction)`, with its size as a fraction of the whole batch;
        returns a dict with "loss" and "y_pred" and accumulates gradients.
    batch : tuple of dict and Tensor, or of list of dict and Tensor
        Inputs, those of each group if there are several, and class codes.
    n_micro_batches : int
        Initial number of micro-batches, of each group if there are several.
    zero_grad : callable
        Resets the gradients.

    Returns
    -------
    result : dict
        The "loss" of the batch and its "y_pred".
    n_micro_batches : int
        Number of micro-batches with which the batch fits into memory.
    """
    while True:
        zero_grad()
        try:
            micro_batches = split_batch(batch, n_micro_batches)
            results = [step(micro, len(micro[1]) / len(batch[1])) for micro in micro_batches]
            break
        except torch.OutOfMemoryError:
            if n_micro_batches >= len(batch[1]):
                raise
        # The retry is outside the except clause, whose exception keeps the tensors alive.
        n_micro_batches *= 2
    if len(results) == 1:
        return results[0], n_micro_batches
    loss = torch.stack([result["loss"] for result in results]).sum()
    y_pred = torch.cat([result["y_pred"] for result in results])
    return {"loss": loss, "y_pred": y_pred}, n_micro_batches


def split_batch(batch, n_micro_batches):
    """Return micro-batches: `n_micro_batches` of nearly equal size, at most one per sequence.

    If the batch consists of groups of similar length, each group is divided in this way.
    """
    inputs, y = batch
    groups = inputs if isinstance(inputs, list) else [inputs]
    sizes = [len(group["x"]) for group in groups]
    return [
        micro_batch
        for group in zip(groups, y.split(sizes), strict=True)
        for micro_batch in split_group(group, n_micro_batches)
    ]


def split_group(group, n_micro_batches):
    """Return a padded batch as micro-batches of nearly equal size, at most one per sequence."""
    if n_micro_batches == 1:
        return [group]
    inputs, y = group
    ends = np.linspace(0, len(y), min(n_micro_batches, len(y)) + 1).astype(int)
    return [
        ({k: None if v is None else v[a:b] for k, v in inputs.items()}, y[a:b])
        for a, b in itertools.pairwise(ends)
    ]
