"""What a worker of a Dask cluster does in a fit in several workers."""

import time
import warnings
from contextlib import ExitStack
from datetime import timedelta

import distributed
import numpy as np
import torch.distributed as dist

from sklearn_cls._data.partitions import Partitions
from sklearn_cls._torch.launchers import all_slots
from sklearn_cls._torch.processes import LostProcessError
from sklearn_cls._training.data_parallel import fits_in, process_group

JOIN_TIMEOUT = 20.0  # seconds in which processes that have found each other connect
POLL_INTERVAL = 0.05  # seconds
STORES = {}  # of torch.distributed, by the key of the fit
RUNNING = {}  # the processes of the fits in this worker, by the key of the fit


def start_store(key):
    """Start the store by which the processes of a fit find each other; return its host and port."""
    address = distributed.get_worker().address  # protocol://host:port
    host = address.split("://")[-1].rsplit(":", 1)[0].strip("[]")
    host = "127.0.0.1" if address.startswith("inproc://") else host
    store = dist.TCPStore(
        host, 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=JOIN_TIMEOUT)
    )
    STORES.clear()  # of a fit that has failed before it began
    STORES[key] = store
    return host, store.port


def request_stop(key):
    """Ask a fit to end its training, as Ctrl-C does; return whether it runs in this worker."""
    if key not in RUNNING:
        return False
    RUNNING[key].stop_requested = True
    return True


def joined_store(key, address, rank, size):
    """Return the store of a fit, when all of its processes have found it.

    They may come late, because their partitions have to be computed first.
    """
    try:
        store = STORES.pop(key, None) or dist.TCPStore(
            *address, is_master=False, timeout=timedelta(seconds=JOIN_TIMEOUT)
        )
        names = [f"sklearn_cls rank {i}" for i in range(size)]
        store.set(names[rank], "")
        while not store.check(names):
            if is_cancelled(f"{key}-{rank}"):
                raise LostProcessError("The fit has been cancelled.")
            time.sleep(POLL_INTERVAL)
    except dist.DistError as error:
        raise LostProcessError(f"The process with rank 0 is lost: {error}") from error
    return store


def is_cancelled(key):
    """Return whether the client does not want the task of this worker with this key any more."""
    task = distributed.get_worker().state.tasks.get(key)
    return task is None or task.state == "cancelled"


def fit_in_worker(estimator, whole, partitions, key, rank, size, address, timeout):
    """Fit as one of several processes.

    Parameters
    ----------
    estimator : CLSTransformerClassifier
    whole : dict
        Arguments of its `fit` that are the same in all processes.
    partitions : dict of dict
        Of the other arguments, the partitions that this process holds, by their numbers.
    key : str
        Key of the fit.
    rank, size : int
        Number of this process, and of all processes.
    address : tuple of str and int
        Host and port of the store.
    timeout : float
        Seconds after which a process that does not answer counts as lost.

    Returns
    -------
    model : FittedModel or None
        None unless `rank` is 0, or if the fit was stopped before the end of the first epoch.
    caught : list of (str, type)
        Messages and categories of warnings.
    """
    with ExitStack() as stack:
        caught = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        store = joined_store(key, address, rank, size)
        processes = stack.enter_context(
            process_group(timeout, JOIN_TIMEOUT, store=store, rank=rank, world_size=size)
        )
        stack.enter_context(fits_in(processes))
        stack.enter_context(all_slots())
        RUNNING[key] = processes
        stack.callback(RUNNING.pop, key)
        joined = {k: _joined(k, v, processes) for k, v in partitions.items()}
        try:
            estimator.fit(**whole, **joined)
        except KeyboardInterrupt:  # It would end the worker.
            return None, []
    if rank > 0:
        return None, []
    return estimator._fitted, [(str(w.message), w.category) for w in caught]


def _joined(name, parts, processes):
    """Return an argument of `fit`: sequences in partitions, or the labels of all sequences."""
    if name in ("X", "X_val"):
        return Partitions(parts, processes)
    arrays = {number: np.asarray(part) for number, part in parts.items()}
    return np.concatenate(list(processes.merge(arrays).values()))
