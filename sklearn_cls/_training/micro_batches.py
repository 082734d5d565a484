"""Gradient accumulation over micro-batches.

A batch is divided into micro-batches if it consists of groups of sequences of similar length, which
saves padding, or if it does not fit into memory.
"""

import itertools

import numpy as np
import torch


def run_in_micro_batches(step, batch, n_micro_batches, zero_grad, gradient_sum=None):
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
    gradient_sum : GradientSum or None
        Sums the gradients of several processes, all of which use the same number of micro-batches.

    Returns
    -------
    result : dict
        The "loss" of the batch and its "y_pred".
    n_micro_batches : int
        Number of micro-batches with which the batch fits into memory.
    """
    is_shared = gradient_sum is not None and gradient_sum.processes.size > 1
    n_max = gradient_sum.net.batch_size if is_shared else len(batch[1])
    while True:
        zero_grad()
        error = None
        micro_batches = split_batch(batch, n_micro_batches, may_be_empty=is_shared)
        try:
            n = max(1, len(batch[1]))
            results = [step(micro, len(micro[1]) / n) for micro in micro_batches]
        except torch.OutOfMemoryError as e:
            error = e.with_traceback(None)  # whose frames would keep the tensors alive
        is_out_of_memory = error is not None
        if is_shared:
            is_out_of_memory = gradient_sum.finish(is_out_of_memory, len(micro_batches))
        if not is_out_of_memory:
            break
        if n_micro_batches >= n_max:
            raise error or torch.OutOfMemoryError("Another process has run out of memory.")
        n_micro_batches *= 2
    if len(results) == 1:
        return results[0], n_micro_batches
    loss = torch.stack([result["loss"] for result in results]).sum()
    y_pred = torch.cat([result["y_pred"] for result in results])
    return {"loss": loss, "y_pred": y_pred}, n_micro_batches


def split_batch(batch, n_micro_batches, *, may_be_empty=False):
    """Return micro-batches: `n_micro_batches` of nearly equal size.

    If the batch consists of groups of similar length, each group is divided in this way. There is
    at most one per sequence, unless they may be empty.
    """
    inputs, y = batch
    groups = inputs if isinstance(inputs, list) else [inputs]
    sizes = [len(group["x"]) for group in groups]
    return [
        micro_batch
        for group in zip(groups, y.split(sizes), strict=True)
        for micro_batch in split_group(group, n_micro_batches, may_be_empty)
    ]


def split_group(group, n_micro_batches, may_be_empty):
    """Return a padded batch as micro-batches of nearly equal size."""
    if n_micro_batches == 1:
        return [group]
    inputs, y = group
    n = n_micro_batches if may_be_empty else min(n_micro_batches, len(y))
    ends = np.linspace(0, len(y), n + 1).astype(int)
    return [
        ({k: None if v is None else v[a:b] for k, v in inputs.items()}, y[a:b])
        for a, b in itertools.pairwise(ends)
    ]
