"""How many threads torch runs on, and how they wait for each other.

The rule of training: one thread for every 131,072 numbers that the tokens of a batch hold. Below
that, what a second thread saves goes into meeting it several hundred times in an update. Batches
that are only predicted are computed side by side, a thread each, which never wait for each other.
"""

import ctypes
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import joblib
import torch

ELEMENTS_PER_THREAD = 2**17
INTERVAL = 0.1  # seconds between two looks at the load
CONTENTION_THRESHOLD = (
    0.075  # of an interval that a thread is kept waiting for a core; alone it was below 0.01
)
CALM_INTERVALS = 5  # intervals with less, after which the others are gone


def resolve_n_threads(n_jobs, n_useful):
    """Return `n_jobs`: None is `n_useful`, at most as many as torch is set to; -1 one per core."""
    if n_jobs == 0:
        raise ValueError("n_jobs must be None, a number of threads, or -1 for all cores; got 0.")
    if n_jobs is None:
        return max(1, min(int(n_useful), torch.get_num_threads()))
    n_jobs = int(n_jobs)  # NumPy's is nothing that ctypes takes
    return n_jobs if n_jobs > 0 else max(1, joblib.cpu_count() + 1 + n_jobs)


IN_FORK = threading.Event()  # where GNU's OpenMP waits forever for threads that were not forked
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=IN_FORK.set)


def _thread_setters():
    """Return what sets the number of threads of OpenMP and of MKL for the calling thread alone."""
    suffix = "dylib" if sys.platform == "darwin" else "so"
    try:
        torch_cpu = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / f"libtorch_cpu.{suffix}"))
        set_openmp = torch_cpu.omp_set_num_threads
    except (OSError, AttributeError):  # another system, or torch was built in another way
        return None, None
    return set_openmp, getattr(torch_cpu, "MKL_Set_Num_Threads_Local", lambda n_threads: 0)


SET_OPENMP, SET_MKL = _thread_setters()


@contextmanager
def thread_local_num_threads(n_threads):
    """Run torch's operations on `n_threads` threads, those of the calling thread alone.

    `torch.set_num_threads` would also decide for every thread that has not used torch yet.
    In a forked process it is one thread.
    """
    n_threads = 1 if IN_FORK.is_set() else n_threads
    before = torch.get_num_threads()  # also makes torch decide, which it does once in a thread
    if n_threads == before:
        yield
    elif SET_OPENMP is None:
        torch.set_num_threads(n_threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
    else:
        SET_OPENMP(n_threads)
        mkl_before = SET_MKL(n_threads)
        try:
            yield
        finally:
            SET_MKL(mkl_before)
            SET_OPENMP(before)


@contextmanager
def torch_threads(n_threads):
    """Run each operation of torch on `n_threads` threads; None leaves them as they are."""
    if n_threads is None:
        yield
        return
    with thread_local_num_threads(n_threads), passive_wait_when_contended(n_threads):
        yield


def parallel_map(function, items, n_threads):
    """Return `function` of every item, computed on `n_threads` threads; None leaves them."""
    n_each = None if n_threads is None else max(1, n_threads // len(items))
    if n_each is None or min(n_threads, len(items)) == 1:
        with torch_threads(n_each):
            return [function(item) for item in items]

    def compute(item):  # in a new thread, which starts with torch's own number of threads
        with thread_local_num_threads(n_each):
            return function(item)

    with passive_wait_when_contended(n_each), ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(compute, items))


@contextmanager
def passive_wait_when_contended(n_threads):
    """Keep torch's threads from spinning for as long as other processes want their cores.

    A thread that waits for the others spins for milliseconds, and takes them from the very thread
    it waits for if that has lost its core to another process: two fits side by side took 2 to 80
    times as long as one after the other. OpenMP as GNU's waits without spinning while it has
    more threads than there are cores [1], so idle ones are added while the load lasts. Nothing that
    is computed depends on them.

    [1] https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html
    """
    if n_threads == 1 or sys.platform != "linux" or IN_FORK.is_set():
        yield
        return
    ended = threading.Event()
    watch = threading.Thread(
        target=oversubscribe_when_contended, args=(n_threads, ended), daemon=True
    )
    watch.start()
    try:
        yield
    finally:
        ended.set()
        watch.join()


def oversubscribe_when_contended(n_threads, ended):
    """Watch the load until `ended`, and hold idle threads while there is any."""
    release, n_calm = None, 0
    waited = run_queue_wait()
    while not ended.wait(INTERVAL):
        before, waited = waited, run_queue_wait()
        is_loaded = waited - before > CONTENTION_THRESHOLD * INTERVAL * n_threads
        n_calm = 0 if is_loaded else n_calm + 1
        if release is None and is_loaded:
            release = oversubscribe(n_threads)
        elif release is not None and n_calm == CALM_INTERVALS:
            release()
            release = None
    if release is not None:
        release()


def run_queue_wait():
    """Return how many seconds the threads of this process have been ready without a core."""
    nanoseconds = 0
    with suppress(OSError):  # not every kernel keeps the account
        for thread in os.listdir("/proc/self/task"):
            with suppress(OSError), open(f"/proc/self/task/{thread}/schedstat") as account:
                nanoseconds += int(account.read().split()[1])  # unless it has ended by now
    return nanoseconds / 1e9


def oversubscribe(n_threads):
    """Add idle threads, so that OpenMP has more than there are cores; return what ends them.

    None if the system allows no more threads.
    """
    released = threading.Event()
    idlers = []

    def idle():
        with thread_local_num_threads(n_threads):
            torch.ones(2**20).neg_()  # makes this thread's own team
        released.wait()

    def release():
        released.set()
        for idler in idlers:
            idler.join()

    n_cores = len(os.sched_getaffinity(0))
    for _ in range(max(0, n_cores - n_threads) // (n_threads - 1) + 1):
        idler = threading.Thread(target=idle, daemon=True)
        try:
            idler.start()
        except RuntimeError:
            release()
            return None
        idlers.append(idler)
    return release
