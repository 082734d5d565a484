"""Tell a callback that asks to stop training from Ctrl-C while the callback runs.

Both are a KeyboardInterrupt. A callback raises it by a `raise` statement, whereas a signal raises
it at any other instruction, or in a signal handler written in Python. Python passes the frame that
it interrupts to signal handlers and to the trace functions of debuggers, which identifies them.
"""

import dis
import inspect
import signal
import threading
from contextlib import contextmanager
from itertools import pairwise


def is_stop_request(error):
    """Return whether a callback raised this KeyboardInterrupt to stop training.

    If the callback caught another KeyboardInterrupt and raised this one instead, that one counts.
    """
    own_frames = {frame for frame, _ in _instructions(error)}
    while error is not None:
        instructions = _instructions(error)
        # An exception that is handled outside of the callback is part of the chain, too.
        is_own = bool(instructions) and instructions[0][0] in own_frames
        if isinstance(error, KeyboardInterrupt) and is_own:
            _, last = instructions[-1]
            if last != "RAISE_VARARGS" or _has_interrupting_function(instructions):
                return False
        error = error.__context__
    return True


def _instructions(error):
    """Return the frames that an exception has left, and the instruction that each has reached."""
    result, traceback = [], error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        result.append((frame, dis.opname[frame.f_code.co_code[traceback.tb_lasti]]))
        traceback = traceback.tb_next
    return result


def _has_interrupting_function(instructions):
    """Return whether one of the functions got the frame, or its code, in which it was called."""
    for (caller, _), (frame, _) in pairwise(instructions):
        names, varargs, _, values = inspect.getargvalues(frame)
        arguments = [*(values.get(name) for name in names), *values.get(varargs, ())]
        if any(value is caller or value is caller.f_code for value in arguments):
            return True
    return False


@contextmanager
def first_ctrl_c(request):
    """Let the first Ctrl-C call a function; the second one raises KeyboardInterrupt.

    A handler of the caller is kept, and only the main thread receives signals.

    Parameters
    ----------
    request : callable
        It takes no arguments and may be called between any two instructions.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return

    def handler(signal_number, frame):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        request()

    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def stop_together(processes):
    """Let the first Ctrl-C end a fit in several processes at the same update in all of them."""
    if processes.size == 1:
        yield
        return

    def request():
        processes.stop_requested = True

    try:
        with first_ctrl_c(request):
            yield
    finally:
        processes.stop_requested = False
