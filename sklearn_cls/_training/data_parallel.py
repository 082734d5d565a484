"""The group of processes in which `fit` trains, and how a process joins it."""

import multiprocessing
import os
import warnings
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta

import torch
import torch.distributed as dist

from sklearn_cls._torch.launchers import is_launched
from sklearn_cls._torch.processes import ONE_PROCESS, LostProcessError, ProcessGroup
from sklearn_cls._torch.rendezvous import store_of_new_group

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
    arguments = {}
    if not is_initialized:
        store, rank, size = store_of_new_group(timeout)
        arguments = {"store": store, "rank": rank, "world_size": size}
    with process_group(timeout, **arguments) as processes, fits_in(processes):
        yield


@contextmanager
def process_group(timeout, join_timeout=None, **kwargs):
    """Return the processes of a new group.

    Parameters
    ----------
    timeout : float
        Seconds after which a process that does not answer counts as lost.
    join_timeout : float or None
        The same while the processes connect to each other; None is `timeout`.
    **kwargs
        Those of `torch.distributed.init_process_group`.
    """
    # Objects and small sums are sent by gloo, also between processes with GPUs.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    is_default = not dist.is_initialized()
    try:
        if is_default:
            duration = timedelta(seconds=join_timeout or timeout)
            dist.init_process_group(backend, timeout=duration, **kwargs)
        # A group of its own has a timeout of its own.
        group = dist.new_group(timeout=timedelta(seconds=timeout), backend=backend)
        processes = ProcessGroup(timeout, group)
    except RuntimeError as error:
        if is_default and dist.is_initialized():
            dist.destroy_process_group()
        raise LostProcessError(f"The processes could not connect to each other: {error}") from error
    try:
        yield processes
    finally:
        # The connections are closed once no object refers to the group, so that the other processes
        # do not wait for this one.
        dist.destroy_process_group(None if is_default else group)
        processes.group = group = None


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
    is_worker = multiprocessing.parent_process() is not None
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
