"""Keeps OpenMP threads from spinning while other processes compete for the cores.

OpenMP threads spin for milliseconds while they wait for each other. If another process preempts the
thread that they wait for, they occupy the cores on which that thread could run. GNU's OpenMP stops
spinning while it manages more threads than there are cores [1], so idle threads are added as long
as the operating system reports contention. Results do not depend on them. With the OpenMP of LLVM
or Intel, they could take threads from the computation, so there are none.

Measured on 2 cores with torch 2.13: with this, two concurrent fits with 2 threads each run 4.2 to
4.5 times as fast as without it (median of 5 rounds; 1.9 times in the slowest), and the time of a
single fit does not change. GOMP_SPINCOUNT=100 or OMP_WAIT_POLICY=PASSIVE speed up two concurrent
fits as much, but a single fit then takes 1.5 to 1.7 times as long.

[1] https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html
"""

import os
import sys
import threading
from contextlib import contextmanager, suppress
from functools import partial

from sklearn_cls._torch.openmp import IS_GNU
from sklearn_cls._torch.workers import start_threads

INTERVAL = 0.1  # seconds between two readings of the run-queue wait
# Waiting time per thread, relative to INTERVAL. It stays below 0.01 when no other process competes.
CONTENTION_THRESHOLD = 0.075
# Idle threads end after this many consecutive intervals without contention.
CALM_INTERVALS = 5


@contextmanager
def passive_wait_when_contended(n_threads, start_team):
    """Add idle threads while other processes compete for the cores.

    Parameters
    ----------
    n_threads : int
        Number of OpenMP threads of the caller. With one thread, nothing is done.
    start_team : callable
        Called with `n_threads`; makes OpenMP create a thread team for the calling thread.
    """
    if n_threads == 1 or sys.platform != "linux" or not IS_GNU:
        yield
        return
    ended, watchers = threading.Event(), []
    try:
        watchers = start_threads(partial(_watch, n_threads, start_team, ended), 1, daemon=True)
        yield
    finally:
        ended.set()
        for watcher in watchers:
            watcher.join()


def _watch(n_threads, start_team, ended):
    """Oversubscribe OpenMP during contention, until `ended` is set."""
    release, n_calm = None, 0
    wait = run_queue_wait()
    while not ended.wait(INTERVAL):
        previous, wait = wait, run_queue_wait()
        is_contended = wait - previous > CONTENTION_THRESHOLD * INTERVAL * n_threads
        n_calm = 0 if is_contended else n_calm + 1
        if release is None and is_contended:
            release = oversubscribe(n_threads, start_team)
        elif release is not None and n_calm == CALM_INTERVALS:
            release()
            release = None
    if release is not None:
        release()


def run_queue_wait():
    """Return for how many seconds the threads of this process have waited for a core."""
    nanoseconds = 0
    with suppress(OSError):  # some kernels do not report it
        for thread in os.listdir("/proc/self/task"):
            # A thread may end between the two system calls.
            with suppress(OSError), open(f"/proc/self/task/{thread}/schedstat") as file:
                nanoseconds += int(file.read().split()[1])
    return nanoseconds / 1e9


def oversubscribe(n_threads, start_team):
    """Start idle OpenMP threads until there are more than cores; return a function to end them.

    Returns None if the operating system refuses to start more threads.
    """
    released, idle_threads = threading.Event(), []

    def idle():
        start_team(n_threads)
        released.wait()

    def release():
        released.set()
        for thread in idle_threads:
            thread.join()

    n_cores = len(os.sched_getaffinity(0))
    n_idle = max(0, n_cores - n_threads) // (n_threads - 1) + 1
    idle_threads += start_threads(idle, n_idle, daemon=True)
    if len(idle_threads) < n_idle:
        release()
        return None
    return release
