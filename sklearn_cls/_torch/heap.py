"""The memory of the C library, which a fit or a prediction keeps between its operations.

Dask sets `MALLOC_TRIM_THRESHOLD_` for its workers, so that glibc returns freed memory to the system
at once. Every large tensor of every operation then gets new pages, which the kernel clears, so that
fits and predictions take twice as long.
"""

import ctypes
import os
import threading
from contextlib import contextmanager
from functools import cache
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt, see malloc.h
# The thresholds to which glibc adapts if the variable is not set and large blocks are freed.
KEPT_BYTES = {M_MMAP_THRESHOLD: 2**25, M_TRIM_THRESHOLD: 2**26}
DEFAULT_MMAP_THRESHOLD = 2**17


class Calls:
    """The calls that keep the memory, in all threads."""

    def __init__(self):
        self.lock, self.n_running = threading.Lock(), 0


CALLS = Calls()
if hasattr(os, "register_at_fork"):
    # A forked child has only the thread that forked, so the calls of other threads do not count.
    os.register_at_fork(after_in_child=CALLS.__init__)


@contextmanager
def kept_memory():
    """Keep freed memory if the process was started with a small `MALLOC_TRIM_THRESHOLD_`.

    It is returned to the system at the end.
    """
    settings = small_thresholds()
    if settings is None:
        yield
        return
    libc = ctypes.CDLL(None)
    with CALLS.lock:
        CALLS.n_running += 1
        set_thresholds(libc, KEPT_BYTES)
    try:
        yield
    finally:
        with CALLS.lock:
            CALLS.n_running -= 1
            if CALLS.n_running == 0:
                set_thresholds(libc, settings)
                libc.malloc_trim(0)


def set_thresholds(libc, values):
    """Set parameters of glibc's malloc."""
    for name, value in values.items():
        libc.mallopt(name, value)


@cache
def small_thresholds():
    """Return the thresholds with which this process was started, or None if they are not small."""
    try:
        # `os.environ` may have been changed since, as Dask does for its workers.
        text = Path("/proc/self/environ").read_text(errors="replace")
        variables = dict(item.split("=", 1) for item in text.split("\0") if "=" in item)
        trim = int(variables["MALLOC_TRIM_THRESHOLD_"])
        mmap = int(variables.get("MALLOC_MMAP_THRESHOLD_", DEFAULT_MMAP_THRESHOLD))
        libc = ctypes.CDLL(None)
        has_functions = hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim")
    except (OSError, KeyError, ValueError):
        return None
    if not has_functions or trim >= KEPT_BYTES[M_TRIM_THRESHOLD]:
        return None
    return {M_MMAP_THRESHOLD: mmap, M_TRIM_THRESHOLD: trim}
