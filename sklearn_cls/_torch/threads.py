"""The number of threads of torch, set for the calling thread only and restored.

Training uses one thread per 131,072 elements of a batch; with fewer, synchronizing a second
thread costs more than it saves. Prediction computes batches in parallel, with one thread each.
"""

import ctypes
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import joblib
import torch
from threadpoolctl import ThreadpoolController

from sklearn_cls._torch.contention import passive_wait_when_contended

ELEMENTS_PER_THREAD = 2**17

IN_FORK = threading.Event()  # set in a forked child, where torch must run on one thread
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=IN_FORK.set)


def resolve_n_threads(n_jobs, n_useful):
    """Return the number of threads for the parameter `n_jobs`.

    `n_useful` is the number of threads that the batch (in prediction: all batches together) is
    large enough to use. None gives `n_useful`, at least 1 and at most `torch.get_num_threads()`;
    -1 gives one thread per core, -2 one fewer.
    """
    if n_jobs == 0:
        raise ValueError("n_jobs must be None, a number of threads, or -1 for all cores; got 0.")
    if n_jobs is None:
        return max(1, min(int(n_useful), torch.get_num_threads()))
    n_jobs = int(n_jobs)  # ctypes rejects NumPy integers
    return n_jobs if n_jobs > 0 else max(1, joblib.cpu_count() + 1 + n_jobs)


OPENMP = ThreadpoolController().select(user_api="openmp")  # finds libraries that are loaded


def _mkl_setter():
    """Return a function that sets MKL's number of threads for the calling thread.

    It returns the previous number. threadpoolctl does not find the MKL built into torch, whose
    number of threads no longer follows OpenMP's once `torch.set_num_threads` has been called.
    """
    suffix = "dylib" if sys.platform == "darwin" else "so"
    try:
        torch_cpu = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / f"libtorch_cpu.{suffix}"))
        return torch_cpu.MKL_Set_Num_Threads_Local
    except (OSError, AttributeError):  # other operating systems or builds of torch
        return lambda n_threads: 0


SET_MKL = _mkl_setter()


@contextmanager
def thread_local_num_threads(n_threads):
    """Run torch's operations on `n_threads` threads, in the calling thread only.

    `torch.set_num_threads` would also change every thread that has not used torch yet. A forked
    child uses one thread, because libgomp would wait for threads that exist in the parent only.
    """
    n_threads = 1 if IN_FORK.is_set() else n_threads
    # The first call in a thread initializes torch there, which would overwrite an earlier setting.
    before = torch.get_num_threads()
    if n_threads == before:
        yield
        return
    mkl_before = SET_MKL(n_threads)
    try:
        with OPENMP.limit(limits=n_threads):
            if torch.get_num_threads() != n_threads:  # a build of torch without OpenMP
                torch.set_num_threads(n_threads)
            yield
    finally:
        SET_MKL(mkl_before)
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


@contextmanager
def torch_threads(n_threads):
    """Run a long computation on `n_threads` threads; None leaves their number unchanged."""
    if n_threads is None:
        yield
        return
    with thread_local_num_threads(n_threads), _passive_wait(n_threads):
        yield


def parallel_map(function, items, n_threads):
    """Apply `function` to every item on `n_threads` threads and return the results."""
    n_threads_per_item = None if n_threads is None else max(1, n_threads // len(items))
    if n_threads_per_item is None or min(n_threads, len(items)) == 1:
        with torch_threads(n_threads_per_item):
            return [function(item) for item in items]

    def compute(item):  # a new thread starts with torch's default number of threads
        with thread_local_num_threads(n_threads_per_item):
            return function(item)

    with _passive_wait(n_threads_per_item), ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(compute, items))


def _passive_wait(n_threads):
    """Return the context of `passive_wait_when_contended`, for more than one thread."""
    return passive_wait_when_contended(1 if IN_FORK.is_set() else n_threads, _start_team)


def _start_team(n_threads):
    """Make OpenMP create a thread team for the calling thread."""
    with thread_local_num_threads(n_threads):
        torch.ones(2**20).neg_()
