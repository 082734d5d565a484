"""What the launcher of this process has decided: its GPU, its share of the cores, its terminal."""

import multiprocessing
import os
import sys
from contextlib import contextmanager
from contextvars import ContextVar

VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE")
N_SLOTS = ContextVar("sklearn_cls_n_slots", default=1)  # of the worker that a fit occupies


def is_launched():
    """Return whether a launcher such as torchrun has started this process."""
    return all(name in os.environ for name in VARIABLES)


def gpu_index():
    """Return the index of the GPU of this process among the visible ones, modulo their number.

    It is the local rank that torchrun and others set; the first GPU of a worker of dask-cuda, which
    has an order of its own; or the number of this process in its pool, so that the workers of a
    search take the GPUs in turn.
    """
    if "LOCAL_RANK" in os.environ:
        return int(os.environ["LOCAL_RANK"])
    if dask_worker() is not None and "dask_cuda" in sys.modules:
        return 0
    return worker_index()


def worker_index():
    """Return the index of this process among the workers of its pool; 0 in the main process."""
    identity = multiprocessing.current_process()._identity  # its last item counts from 1
    return identity[-1] - 1 if identity else 0


def dask_worker():
    """Return the Dask worker that runs the calling task, or None."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        return distributed.get_worker()
    except ValueError:
        return None


def n_cores_of_task(n_cores):
    """Return how many of the `n_cores` of this machine the calling Dask task may use, or None.

    All workers of the machine share the cores, each task slot alike. None is returned outside of
    tasks, and if the number of threads has been set by an environment variable: unless there is
    one, Dask sets it to 1.
    """
    worker = dask_worker()
    if worker is None or worker.nanny is None:
        return None
    import dask
    from distributed.comm import get_address_host
    from distributed.utils import sync

    default = dask.config.get("distributed.nanny.pre-spawn-environ", {}).get("OMP_NUM_THREADS")
    if os.environ.get("OMP_NUM_THREADS") != str(default):
        return None
    host = get_address_host(worker.address)
    slots = sync(worker.loop, worker.scheduler.ncores)  # by the address of the worker
    n_slots = sum(n for address, n in slots.items() if get_address_host(address) == host)
    return max(1, N_SLOTS.get() * n_cores // max(1, n_slots))


@contextmanager
def all_slots():
    """Let the calling Dask task use the cores of all task slots of its worker."""
    token = N_SLOTS.set(dask_worker().state.nthreads)
    try:
        yield
    finally:
        N_SLOTS.reset(token)


def progress_stream():
    """Return a text stream that the user sees.

    In a Dask task, it is the standard error of the clients of the cluster.
    """
    worker = dask_worker()
    return sys.stderr if worker is None else ClientStream(worker)


class ClientStream:
    """A text stream to the clients of a Dask cluster."""

    def __init__(self, worker):
        self.worker = worker

    def write(self, text):
        """Print text in all clients, in the form in which `distributed.print` sends it."""
        event = {"args": (text,), "sep": "", "end": "", "file": 2, "flush": True}
        self.worker.log_event("print", event)

    def flush(self):
        """Do nothing."""
