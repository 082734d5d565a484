"""One fit of dask collections, in the workers that hold their partitions.

Each worker is a process of one data-parallel fit. Partitions are assigned to the processes in their
order, so that the result does not depend on the workers in which they were computed.
"""

import os
import threading
import time
import uuid
import warnings
from contextlib import suppress
from copy import copy

import dask
import distributed
import numpy as np
from dask.utils import parse_timedelta

from sklearn_cls._dask.assignment import assign
from sklearn_cls._dask.worker import fit_in_worker, request_stop, start_store
from sklearn_cls._torch.processes import LostProcessError
from sklearn_cls._training.data_parallel import TIMEOUT
from sklearn_cls._training.interrupts import first_ctrl_c

INTERVAL = 0.5  # seconds between two checks of the processes
GRACE = 5.0  # seconds in which the other processes notice that one has failed
RETURN_TIMEOUT = 60.0  # seconds in which Dask may replace a lost worker
MAX_RESTARTS = 3  # in a row, each after less than `LONG_RUN` seconds
LONG_RUN = 300.0


class LostWorkerError(LostProcessError):
    """A worker of a fit has ended, or Dask has lost it."""


def fit_on_cluster(client, estimator, **arguments):
    """Return the model of a fit on the workers of `client`.

    Parameters
    ----------
    client : distributed.Client
    estimator : CLSTransformerClassifier
        It is not changed.
    **arguments
        All arguments of its `fit`. X is a collection of dask; others may be.

    Raises
    ------
    KeyboardInterrupt
        If Ctrl-C stops the fit before the end of its first epoch.
    RuntimeError
        If a worker is lost and there is no checkpoint, or if workers are lost again and again.
    """
    if arguments["checkpoint"] is not None:
        path = os.path.abspath(os.fsdecode(arguments["checkpoint"]))
        arguments = {**arguments, "checkpoint": path}
    estimator = _for_workers(estimator)
    n_restarts, n_workers = 0, None
    while True:
        start, workers = time.monotonic(), _workers(client, n_workers)
        try:
            return _fit_once(client, workers, estimator, arguments)
        except LostWorkerError as error:
            if arguments["checkpoint"] is None:
                raise LostWorkerError(
                    f"{error} With checkpoint=<a path that all workers can read>, such a fit "
                    "restarts itself."
                ) from error
            n_restarts = 1 if time.monotonic() - start > LONG_RUN else n_restarts + 1
            if n_restarts > MAX_RESTARTS:
                raise
            n_workers = len(workers)


def _for_workers(estimator):
    """Return a copy of the estimator, without what the workers do not need."""
    estimator = copy(estimator)
    if not estimator.warm_start:
        estimator._fitted = None
    if isinstance(estimator.random_state, np.random.RandomState):
        # That of the caller advances, as it does in a fit in this process.
        seed = estimator.random_state.randint(2**31 - 1)
        estimator.random_state = np.random.RandomState(seed)
    return estimator


def _workers(client, n_workers):
    """Return the addresses of the workers; wait for a while until there are `n_workers`."""
    end = time.monotonic() + RETURN_TIMEOUT
    while True:
        workers = sorted(client.nthreads())
        # Workers that are threads of one process are one process of the fit.
        threads = [worker for worker in workers if worker.startswith("inproc://")]
        workers = [worker for worker in workers if worker not in threads[1:]]
        if len(workers) >= (n_workers or 1) or time.monotonic() > end:
            break
        time.sleep(0.1)
    if not workers:
        raise RuntimeError("The cluster of the current client of Dask has no workers.")
    return workers[:n_workers]


def _fit_once(client, workers, estimator, arguments):
    """Return the model of one attempt on some workers."""
    timeout = parse_timedelta(dask.config.get("sklearn_cls.timeout", TIMEOUT))
    key, tasks = f"sklearn_cls-{uuid.uuid4().hex}", []
    workers, whole, by_rank = assign(client, workers, arguments)
    lock = distributed.MultiLock(names=[f"sklearn_cls-{worker}" for worker in workers])
    # Two fits that each occupy a part of the same workers would wait for each other.
    with lock:
        try:
            first = client.submit(start_store, key, workers=workers[:1], pure=False)
            for rank, worker in enumerate(workers):
                tasks.append(
                    client.submit(
                        fit_in_worker, estimator, whole, by_rank[rank], key, rank, len(workers),
                        first, timeout, key=f"{key}-{rank}", workers=[worker], pure=False,
                        retries=0, priority=100,
                    )
                )  # fmt: skip
            model, caught = _result(client, workers, tasks, key)
        finally:
            # A partition that waits for a lost worker would not be computed elsewhere.
            client.cancel([tasks, by_rank], force=True)
    if model is None:
        raise KeyboardInterrupt
    for message, category in caught:
        warnings.warn(message, category, stacklevel=6)
    return model


def _result(client, workers, tasks, key):
    """Return the result of the first task when all have finished, or raise an error of one."""
    stop = threading.Event()
    with first_ctrl_c(stop.set):
        while not (_has_failed(tasks) or _lost(client, workers)):
            with suppress(TimeoutError):
                distributed.wait(tasks, timeout=INTERVAL)
            if all(task.status == "finished" for task in tasks):
                return tasks[0].result()
            # Workers in which the fit has not begun yet are asked again.
            if stop.is_set() and any(client.run(request_stop, key, workers=workers).values()):
                stop.clear()
    # The error of one process makes the others fail, and may arrive later than theirs.
    end = time.monotonic() + GRACE
    while any(task.status == "pending" for task in tasks) and time.monotonic() < end:
        if _lost(client, workers):
            break
        time.sleep(0.1)
    errors = [task.exception() for task in tasks if task.status == "error"]
    for error in errors:
        if not isinstance(error, LostProcessError | distributed.CancelledError):
            raise error
    lost = _lost(client, workers)
    if lost or not errors:
        raise LostWorkerError(
            f"The fit has lost {len(lost)} of {len(workers)} workers: {', '.join(lost)}."
        )
    raise errors[0]


def _has_failed(tasks):
    return any(task.status not in ("pending", "finished") for task in tasks)


def _lost(client, workers):
    """Return which of some workers Dask has lost."""
    return sorted(set(workers) - set(client.nthreads()))
