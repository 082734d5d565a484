"""Lets Python exit while daemon threads compute with torch.

At exit, Python up to version 3.13 ends a daemon thread as soon as it needs the interpreter. If this
happens inside torch, the process aborts, because C++ cannot end a thread in this way. Therefore
daemon threads stop between two computations, and Python waits for them before it exits.
"""

import atexit
import os
import threading
from collections import Counter
from contextlib import contextmanager

TIMEOUT = 10.0  # seconds that Python waits for the computations of all daemon threads

CHANGED = threading.Condition()
COMPUTING = Counter()  # number of nested computations of each daemon thread
EXITING = threading.Event()


@contextmanager
def computing():
    """Let Python wait for the calling thread at exit, if it is a daemon thread."""
    if not threading.current_thread().daemon:
        yield
        return
    thread = threading.get_ident()
    with CHANGED:
        COMPUTING[thread] += 1
    try:
        stop_at_exit()
        yield
    finally:
        with CHANGED:
            COMPUTING[thread] -= 1
            if not COMPUTING[thread]:
                del COMPUTING[thread]
            CHANGED.notify_all()


def must_stop():
    """Return whether the calling thread is a daemon thread and Python is exiting."""
    return EXITING.is_set() and threading.current_thread().daemon


def stop_at_exit():
    """Stop the calling thread for good if it is a daemon thread and Python is exiting."""
    if must_stop():
        with CHANGED:
            COMPUTING.pop(threading.get_ident(), None)
            CHANGED.notify_all()
        threading.Event().wait()


@atexit.register
def _wait_for_daemon_threads():
    with CHANGED:
        EXITING.set()
        CHANGED.wait_for(lambda: not COMPUTING, TIMEOUT)


def _forget_threads_of_parent():
    global CHANGED
    CHANGED = threading.Condition()
    COMPUTING.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads_of_parent)
