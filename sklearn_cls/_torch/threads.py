"""The number of threads of torch, set for the calling thread only and restored.

Training uses one thread per 131,072 elements of a batch; with fewer, synchronizing a second
thread costs more than it saves. Prediction computes batches in parallel, with one thread each.
"""

import os
import threading
import weakref
from contextlib import contextmanager, nullcontext
from queue import SimpleQueue

import torch

from sklearn_cls._torch.contention import passive_wait_when_contended
from sklearn_cls._torch.daemon_threads import must_stop, stop_at_exit
from sklearn_cls._torch.launchers import n_cores_of_task
from sklearn_cls._torch.openmp import (
    exact_team_sizes,
    n_cores,
    openmp_threads,
    set_mkl_num_threads,
    team_size,
)
from sklearn_cls._torch.workers import n_startable_threads, start_threads

ELEMENTS_PER_THREAD = 2**17

IN_FORK = threading.Event()  # set in a forked child, where torch must run on one thread
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=IN_FORK.set)


class NumThreads:
    """A number of threads that, unlike an int, can be referenced weakly."""

    def __init__(self, value):
        self.value = value


class Caller(threading.local):
    """The number of torch threads that the caller of the library has set.

    It is a weak reference to a variable of `one_thread`. If Ctrl-C arrives while the number is
    restored, the variable is gone, and so is the number.
    """

    reference = None

    @property
    def n_threads(self):
        """The number, or None outside of `one_thread`."""
        number = None if self.reference is None else self.reference()
        return None if number is None else number.value


CALLER = Caller()


def resolve_n_threads(n_jobs, n_useful):
    """Return the number of threads for the parameter `n_jobs`, at most one per available core.

    `n_useful` is the number of threads that the batch (in prediction: all batches together) is
    large enough to use. None gives `n_useful`, at least 1 and at most the caller's
    `torch.get_num_threads()`, or the cores of a task of Dask, see `n_cores_of_task`; -1 gives one
    thread per core, -2 one fewer.
    """
    if n_jobs == 0:
        raise ValueError("n_jobs must be None, a number of threads, or -1 for all cores; got 0.")
    if n_jobs is None:
        n_threads = CALLER.n_threads or torch.get_num_threads()
        if n_threads == 1 and n_useful >= 2:
            n_threads = n_cores_of_task(n_cores()) or 1
        n_threads = min(int(n_useful), n_threads)
    else:
        n_threads = int(n_jobs)  # ctypes rejects NumPy integers
        if n_threads < 0:
            n_threads += n_cores() + 1
    # Counting the cores reads files, and most predictions need one thread only.
    return min(n_threads, n_cores()) if n_threads > 1 else 1


@contextmanager
def one_thread():
    """Run torch's operations on one thread, and remember how many threads the caller has set."""
    before, n_threads = CALLER.reference, NumThreads(torch.get_num_threads())
    try:
        CALLER.reference = weakref.ref(n_threads)
        with thread_local_num_threads(1):
            yield
    finally:
        CALLER.reference = before


@contextmanager
def thread_local_num_threads(n_threads):
    """Run torch's operations on `n_threads` threads, in the calling thread only.

    There are fewer if the operating system, Python or OpenMP does not provide as many.
    `torch.set_num_threads` would also change every thread that has not used torch yet.
    """
    # The first call in a thread initializes torch there, which would overwrite an earlier setting.
    before = torch.get_num_threads()
    with nullcontext() if n_threads == 1 else exact_team_sizes():
        n_threads = obtainable_threads(n_threads)
        if n_threads == before:
            yield n_threads
            return
        mkl_before = set_mkl_num_threads(n_threads)
        try:
            with openmp_threads(n_threads):
                if torch.get_num_threads() != n_threads:  # a build of torch without OpenMP
                    torch.set_num_threads(n_threads)
                yield n_threads
        finally:
            set_mkl_num_threads(mkl_before)
            if torch.get_num_threads() != before:
                torch.set_num_threads(before)


def obtainable_threads(n_threads):
    """Return how many of `n_threads` threads the calling thread can get from OpenMP.

    A forked child uses one thread, because GNU's OpenMP would wait for threads that exist in the
    parent only.
    """
    if n_threads == 1 or IN_FORK.is_set():
        return 1
    # GNU's OpenMP ends the process if it cannot start a thread, so Python tries it first.
    return team_size(1 + n_startable_threads(n_threads - 1))


@contextmanager
def torch_threads(n_threads):
    """Run a long computation on `n_threads` threads."""
    with thread_local_num_threads(n_threads) as n_threads, _passive_wait(n_threads):
        yield


def parallel_map(function, items, n_threads):
    """Apply `function` to every item on `n_threads` threads and return the results.

    The calling thread is one of them, and does all the work if no other thread can be started.
    """
    n_threads_per_item = max(1, n_threads // len(items))
    n_workers = min(n_threads, len(items))
    results, errors, queue = [None] * len(items), [], SimpleQueue()
    for job in (*enumerate(items), *[None] * n_workers):
        queue.put(job)

    def work():  # a new thread starts with torch's default number of threads
        try:
            with thread_local_num_threads(n_threads_per_item):
                for i, item in iter(queue.get, None):
                    if errors or must_stop():
                        return
                    results[i] = function(item)
        except BaseException as error:
            errors.append(error)

    with _passive_wait(n_threads_per_item):
        try:
            workers = start_threads(work, n_workers - 1)
            work()
            for worker in workers:
                worker.join()
        except BaseException as error:  # from a signal; other threads end after their item
            errors.append(error)
    stop_at_exit()  # results may be missing
    if errors:
        raise errors.pop(0)
    return results


def _passive_wait(n_threads):
    """Return the context of `passive_wait_when_contended`, for `n_threads` threads."""
    return passive_wait_when_contended(1 if IN_FORK.is_set() else n_threads, _start_team)


def _start_team(n_threads):
    """Make OpenMP create a thread team for the calling thread."""
    with exact_team_sizes():
        obtainable_threads(n_threads)
