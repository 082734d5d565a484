"""How many threads torch runs on, and how they wait for each other.

The rule of training: one thread for every 131,072 numbers that the tokens of a batch hold. Below
that, what a second thread saves goes into meeting it several hundred times in an update. Batches
that are only predicted are computed side by side, a thread each, which never wait for each other.
"""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import joblib
import torch

NUMBERS_PER_THREAD = 2**17
INTERVAL = 0.1  # seconds between two looks at the load
LOADED = 0.075  # of an interval that a thread is kept waiting for a core; alone it was below 0.01
CALM = 5  # intervals with less, after which the others are gone


def number_of_threads(n_jobs, n_useful):
    """Return `n_jobs`: None is `n_useful`, at most as many as torch is set to; -1 one per core."""
    if n_jobs == 0:
        raise ValueError("n_jobs must be None, a number of threads, or -1 for all cores; got 0.")
    if n_jobs is None:
        return max(1, min(int(n_useful), torch.get_num_threads()))
    return n_jobs if n_jobs > 0 else max(1, joblib.cpu_count() + 1 + n_jobs)


@contextmanager
def torch_threads(n_threads):
    """Run each operation of torch on `n_threads` threads; None leaves them as they are."""
    if n_threads is None:
        yield
        return
    before = torch.get_num_threads()
    try:
        if n_threads != before:
            torch.set_num_threads(n_threads)
        with short_waits_under_load(n_threads):
            yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def side_by_side(function, items, n_threads):
    """Return `function` of every item, computed on `n_threads` threads; None leaves them."""
    n_each = None if n_threads is None else max(1, n_threads // len(items))
    with torch_threads(n_each):
        if n_each is None or min(n_threads, len(items)) == 1:
            return [function(item) for item in items]
        # A new thread starts with torch's own number of threads, not with its caller's.
        with ThreadPoolExecutor(n_threads, "", torch.set_num_threads, (n_each,)) as pool:
            return list(pool.map(function, items))


@contextmanager
def short_waits_under_load(n_threads):
    """Keep torch's threads from spinning for as long as other processes want their cores.

    A thread that waits for the others spins for milliseconds, and takes them from the very thread
    it waits for if that has lost its core to another process: two fits side by side took 2 to 80
    times as long as one after the other. OpenMP as GNU's waits without spinning while it has
    more threads than there are cores [1], so idle ones are added while the load lasts. Nothing that
    is computed depends on them.

    [1] https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html
    """
    if n_threads == 1 or sys.platform != "linux":
        yield
        return
    ended = threading.Event()
    watch = threading.Thread(target=add_idle_under_load, args=(n_threads, ended), daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()
        watch.join()


def add_idle_under_load(n_threads, ended):
    """Watch the load until `ended`, and hold idle threads while there is any."""
    release, n_calm = None, 0
    waited = time_kept_waiting()
    while not ended.wait(INTERVAL):
        before, waited = waited, time_kept_waiting()
        is_loaded = waited - before > LOADED * INTERVAL * n_threads
        n_calm = 0 if is_loaded else n_calm + 1
        if release is None and is_loaded:
            release = hold_idle(n_threads)
        elif release is not None and n_calm == CALM:
            release()
            release = None
    if release is not None:
        release()


def time_kept_waiting():
    """Return how many seconds the threads of this process have been ready without a core."""
    nanoseconds = 0
    with suppress(OSError):  # not every kernel keeps the account
        for thread in os.listdir("/proc/self/task"):
            with suppress(OSError), open(f"/proc/self/task/{thread}/schedstat") as account:
                nanoseconds += int(account.read().split()[1])  # unless it has ended by now
    return nanoseconds / 1e9


def hold_idle(n_threads):
    """Add idle threads, so that OpenMP has more than there are cores; return what ends them.

    None if the system allows no more threads.
    """
    released = threading.Event()
    idlers = []

    def idle():
        torch.ones(2**20).neg_()  # makes this thread's own team, of `n_threads`
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
