"""The group of processes in which `fit` trains, and how a process joins it."""

import multiprocessing
import os
import warnings
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta

import torch
import torch.distributed as dist

from sklearn_cls._torch.processes import ONE_PROCESS, ProcessGroup

TIMEOUT = 300.0  # seconds
CURRENT = ContextVar("sklearn_cls_processes", default=ONE_PROCESS)


@contextmanager
def data_parallel(timeout=TIMEOUT):
    """Train in all processes that a launcher has started, as one fit.

    Every process calls `fit` in this context with the same arguments. It computes its part of each
    batch of a fit in a single process, and the gradients are summed before every update. All
    processes end with the same weights. A memory map, or an array of zarr, is shared by the
    processes of a machine.

    The processes are those of ``torchrun``, of Ray Train's ``TorchTrainer``, or of any launcher
    that sets the environment variables ``MASTER_ADDR``, ``MASTER_PORT``, ``RANK`` and
    ``WORLD_SIZE``. An initialized process group of :mod:`torch.distributed` is used as it is.

    Parameters
    ----------
    timeout : float, default=300
        Seconds after which a process that does not answer counts as lost. `fit` then raises
        RuntimeError in the others.

    Raises
    ------
    RuntimeError
        If no launcher has started this process, or if another process is lost.
    ValueError
        If `timeout` is not positive.

    Examples
    --------
    A script ``train.py`` for ``torchrun --nproc-per-node=4 train.py``::

        X = np.load("X.npy", mmap_mode="r")
        clf = CLSTransformerClassifier(random_state=0)
        with sklearn_cls.data_parallel():
            clf.fit(X, y, checkpoint="fit.ckpt")
        if int(os.environ["RANK"]) == 0:
            clf.save("model.safetensors")
    """
    if not timeout > 0:
        raise ValueError(f"timeout must be a positive number of seconds, got {timeout!r}.")
    is_initialized = dist.is_available() and dist.is_initialized()
    if not is_initialized and not is_launched():
        raise RuntimeError(
            "data_parallel needs several processes, and no launcher has started this one; run the "
            "script by torchrun --nproc-per-node=<number of processes> script.py, or fit without "
            "data_parallel."
        )
    with process_group(timeout) as processes, fits_in(processes):
        yield


@contextmanager
def process_group(timeout, **kwargs):
    """Return the processes of a new group; `**kwargs` are those of `init_process_group`."""
    duration, group = timedelta(seconds=timeout), None
    # Objects and sums of small arrays are sent by gloo, also between processes with GPUs.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if dist.is_initialized():
        group = dist.new_group(timeout=duration, backend=backend)
    else:
        dist.init_process_group(backend, timeout=duration, **kwargs)
    processes = ProcessGroup(timeout, group)
    try:
        yield processes
    finally:
        # The connections are closed, so that the other processes do not wait for this one, when no
        # object refers to the group any more.
        processes.group = None
        dist.destroy_process_group(group)


@contextmanager
def fits_in(processes):
    """Let the calls of `fit` in this context train in `processes`."""
    token = CURRENT.set(processes)
    try:
        yield
    finally:
        CURRENT.reset(token)


def current_processes():
    """Return the processes of this fit; warn if it is one of many that do not know each other."""
    processes = CURRENT.get()
    # The workers of a parallel search in such a process inherit its environment.
    is_worker = bool(multiprocessing.current_process()._identity)
    if processes is ONE_PROCESS and is_launched() and not is_worker:
        n = int(os.environ["WORLD_SIZE"])
        if n > 1:
            warnings.warn(
                f"This is one of {n} processes, each of which trains a model of its own. To train "
                "one model in all of them, call fit in `with sklearn_cls.data_parallel():`.",
                UserWarning,
                stacklevel=4,
            )
    return processes


def is_launched():
    """Return whether a launcher such as torchrun has started this process."""
    names = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE")
    return all(name in os.environ for name in names)
