"""The OpenMP and MKL libraries with which torch computes, called through ctypes."""

import ctypes
import sys
from contextlib import contextmanager
from pathlib import Path

import joblib
import torch
from threadpoolctl import ThreadpoolController

OPENMP = ThreadpoolController().select(user_api="openmp")  # finds libraries that are loaded
SEMAPHORE_BYTES = 128  # more than a semaphore has with any C library


def _libraries():
    """Return where torch finds its functions: libraries of the whole process, then its own."""
    suffix = "dylib" if sys.platform == "darwin" else "so"
    path = Path(torch.__file__).parent / "lib" / f"libtorch_cpu.{suffix}"
    libraries = []
    for name in (None, str(path)):
        try:
            libraries.append(ctypes.CDLL(name))
        except (OSError, TypeError):  # other operating systems or builds of torch
            continue
    return libraries


LIBRARIES = _libraries()


def _c_function(name, *argument_types):
    """Return a function of C, or None if there is none of this name."""
    for library in LIBRARIES:
        if hasattr(library, name):
            function = library[name]  # a new object, whose types no other code changes
            function.argtypes = argument_types
            return function
    return None


def _returns_zero(*args):
    return 0


get_dynamic = _c_function("omp_get_dynamic") or _returns_zero
set_dynamic = _c_function("omp_set_dynamic", ctypes.c_int) or _returns_zero
get_num_procs = _c_function("omp_get_num_procs") or _returns_zero
get_proc_bind = _c_function("omp_get_proc_bind") or _returns_zero
# Sets MKL's number of threads for the calling thread and returns the previous one. threadpoolctl
# does not find the MKL built into torch, whose number of threads no longer follows OpenMP's once
# `torch.set_num_threads` has been called.
set_mkl_num_threads = _c_function("MKL_Set_Num_Threads_Local", ctypes.c_int) or _returns_zero
# Calls a function in every thread of a team. On Linux, GNU's, LLVM's and Intel's OpenMP have it.
call_in_team = _c_function(
    "GOMP_parallel", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint
)
# The runtimes of LLVM and Intel have this function, too.
IS_GNU = call_in_team is not None and _c_function("__kmpc_fork_call") is None


def n_cores():
    """Return the number of cores that this process may use."""
    # With OMP_PROC_BIND, OpenMP binds the main thread to a core, which joblib takes for the only
    # one.
    return get_num_procs() if get_proc_bind() else joblib.cpu_count()


@contextmanager
def openmp_threads(n_threads):
    """Set OpenMP's number of threads for the calling thread."""
    libraries = OPENMP.lib_controllers
    before = [library.get_num_threads() for library in libraries]
    try:
        for library in libraries:
            library.set_num_threads(n_threads)
        yield
    finally:
        for library, number in zip(libraries, before, strict=True):
            library.set_num_threads(number)


@contextmanager
def exact_team_sizes():
    """Forbid OpenMP to start fewer threads while the cores are busy (OMP_DYNAMIC).

    This is a setting of the calling thread.
    """
    before = get_dynamic()
    set_dynamic(0)
    try:
        yield
    finally:
        set_dynamic(before)


def team_size(n_threads):
    """Return how many threads OpenMP gives the calling thread if it asks for `n_threads`.

    It gives fewer inside a parallel region, and with OMP_THREAD_LIMIT or OMP_MAX_ACTIVE_LEVELS.
    oneDNN, with which torch computes convolutions, counts on all of them: with fewer, its gradients
    are wrong, or it waits forever.
    """
    if sys.platform != "linux" or call_in_team is None:
        return n_threads
    # Each thread adds 1 to a semaphore. This runs in C, because a thread of OpenMP that runs Python
    # would wait forever while Python exits.
    libc, semaphore = LIBRARIES[0], ctypes.create_string_buffer(SEMAPHORE_BYTES)
    libc.sem_init(semaphore, 0, 0)
    call_in_team(ctypes.cast(libc.sem_post, ctypes.c_void_p), semaphore, n_threads, 0)
    size = ctypes.c_int()
    libc.sem_getvalue(semaphore, ctypes.byref(size))
    return size.value
