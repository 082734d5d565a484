"""Tell a callback that asks to stop training from Ctrl-C while the callback runs.

Both are a KeyboardInterrupt. A callback raises it by a `raise` statement, whereas a signal raises
it at any other instruction, or by a `raise` statement of a signal handler written in Python.
"""

import dis
import signal
from functools import partial


def is_stop_request(error):
    """Return whether a callback raised this KeyboardInterrupt to stop training.

    If the callback caught another KeyboardInterrupt and raised this one instead, that one counts.
    """
    frames = {frame for frame, _ in _instructions(error)}
    handlers = _signal_handlers()
    while error is not None:
        instructions = _instructions(error)
        # An exception that is handled outside of the callback is part of the chain, too.
        is_own = bool(instructions) and instructions[0][0] in frames
        if isinstance(error, KeyboardInterrupt) and is_own:
            _, last = instructions[-1]
            if last != "RAISE_VARARGS" or any(f.f_code in handlers for f, _ in instructions):
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


def _signal_handlers():
    """Return the code of the signal handlers that are written in Python."""
    codes = set()
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        while isinstance(handler, partial):
            handler = handler.func
        for function in (handler, type(handler).__call__):
            codes.add(getattr(function, "__code__", None))
    return codes - {None}
