"""Python threads, of which there may be fewer than asked for.

The operating system may refuse to start threads (`ulimit -u`, the pids limit of a container), and
so does Python while it exits.
"""

import sys
import threading


def start_threads(function, n_threads, daemon=None):
    """Call `function` on up to `n_threads` new threads and return those that could be started.

    They are daemon threads if the calling thread is one, or if `daemon` is True.
    """
    threads = []
    # While Python destroys its modules, a new thread would wait forever.
    for _ in range(0 if sys.is_finalizing() else n_threads):
        thread = threading.Thread(target=function, daemon=daemon)
        try:
            thread.start()
        except (RuntimeError, MemoryError):
            break
        threads.append(thread)
    return threads


def n_startable_threads(n_threads):
    """Return how many of `n_threads` further threads can run at the same time."""
    release = threading.Event()
    try:
        threads = start_threads(release.wait, n_threads)
    finally:
        release.set()
    for thread in threads:
        thread.join()
    return len(threads)
