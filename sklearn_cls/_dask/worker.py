"""What a worker of a Dask cluster does in a fit in several workers."""

import warnings
from contextlib import ExitStack
from datetime import timedelta

import distributed
import numpy as np
import torch.distributed as dist

from sklearn_cls._data.partitions import Partitions
from sklearn_cls._training.data_parallel import fits_in, process_group

STORES = {}  # of torch.distributed, by the key of the fit
RUNNING = {}  # the processes of the fits in this worker, by the key of the fit


def start_store(key, timeout):
    """Start the store by which the processes of a fit find each other; return its host and port."""
    address = distributed.get_worker().address  # protocol://host:port
    host = address.split("://")[-1].rsplit(":", 1)[0].strip("[]")
    host = "127.0.0.1" if address.startswith("inproc://") else host
    store = dist.TCPStore(
        host, 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=timeout)
    )
    STORES[key] = store
    return host, store.port


def forget_fit(key):
    """Close the store of a fit that has ended."""
    STORES.pop(key, None)


def request_stop(key):
    """Ask a fit to end its training, as Ctrl-C does."""
    if key in RUNNING:
        RUNNING[key].stop_requested = True


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
        None unless `rank` is 0.
    caught : list of (str, type)
        Messages and categories of warnings.
    """
    with ExitStack() as stack:
        caught = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        store = STORES.get(key) or dist.TCPStore(
            *address, is_master=False, timeout=timedelta(seconds=timeout)
        )
        processes = stack.enter_context(
            process_group(timeout, store=store, rank=rank, world_size=size)
        )
        stack.enter_context(fits_in(processes))
        RUNNING[key] = processes
        stack.callback(RUNNING.pop, key)
        joined = {k: _joined(k, v, processes) for k, v in partitions.items()}
        estimator.fit(**whole, **joined)
    if rank > 0:
        return None, []
    return estimator._fitted, [(str(w.message), w.category) for w in caught]


def _joined(name, parts, processes):
    """Return an argument of `fit`: sequences in partitions, or the labels of all sequences."""
    if name in ("X", "X_val"):
        return Partitions(parts, processes)
    arrays = {number: np.asarray(part) for number, part in parts.items()}
    arrays = {k: v for known in processes.gather(arrays) for k, v in known.items()}
    return np.concatenate([arrays[number] for number in sorted(arrays)])
