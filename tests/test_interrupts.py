"""Ctrl-C while the code of a callback runs, and callbacks that ask to stop training."""

import _thread
import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from skorch.callbacks import EarlyStopping

from sklearn_cls._persistence import checkpoint
from sklearn_cls._persistence.checkpoint_file import CheckpointFile
from sklearn_cls._persistence.files import write_atomically
from sklearn_cls._torch.threads import CALLER
from tests.helpers import Hook, read_checkpoint, small

N_EPOCHS = 4


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    """Write a checkpoint after every epoch, and let SIGINT raise even where it is ignored."""
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", np.inf)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def raise_signal():
    signal.raise_signal(signal.SIGINT)


def kill():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)


def interrupt_main():
    _thread.interrupt_main()
    while True:
        pass


def in_sleep():
    threading.Timer(0.05, raise_in_process).start()
    time.sleep(5)


def raise_in_process():
    os.kill(os.getpid(), signal.SIGINT)


def in_computation():
    threading.Timer(0.05, raise_in_process).start()
    total = 0
    while True:
        total += sum(i * i for i in range(1000))


def in_generator():
    def numbers():
        yield 1
        raise_signal()
        yield 2

    return list(numbers())


def in_context_manager():
    with contextlib.ExitStack() as stack, contextlib.suppress(ValueError):
        stack.callback(len, ())
        raise_signal()


def raised_again():
    try:
        raise_signal()
    except KeyboardInterrupt:
        raise


def raised_again_by_name():
    try:
        raise_signal()
    except BaseException as error:
        raise error


def raised_anew():
    try:
        in_generator()
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped") from None


def raised_in_finally():
    try:
        raise_signal()
    finally:
        raise KeyboardInterrupt


def asynchronous():
    """Raise KeyboardInterrupt in this thread as debuggers and notebooks do."""
    identifier = ctypes.c_ulong(threading.get_ident())
    ctypes.pythonapi.PyThreadState_SetAsyncExc(identifier, ctypes.py_object(KeyboardInterrupt))
    while True:
        pass


def set_interrupt():
    ctypes.pythonapi.PyErr_SetInterrupt()
    while True:
        pass


def handle(number, frame):
    raise KeyboardInterrupt


class Handler:
    """Signal handlers of several kinds."""

    def __call__(self, number, frame):
        self.handle(number, frame)

    def handle(self, number, frame):
        def nested():
            raise KeyboardInterrupt("by a handler")

        nested()

    def report(self, text, number, frame):
        self(number, frame)


def with_handler(handler, number=signal.SIGINT):
    def interrupt():
        signal.raise_signal(number)

    interrupt.handler, interrupt.number = handler, number
    return interrupt


def handler_of_the_callback():
    before = signal.signal(signal.SIGINT, handle)
    try:
        raise_signal()
    finally:
        signal.signal(signal.SIGINT, before)


def trace_function():
    """Raise KeyboardInterrupt in a trace function, as a debugger does."""

    def trace(frame, event, arg):
        raise KeyboardInterrupt

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        contextlib.nullcontext()
    finally:
        sys.settrace(before)


INTERRUPTS = {
    "trace function": trace_function,
    "handler of the callback": handler_of_the_callback,
    "lambda with any arguments": with_handler(lambda *args: handle(*args)),
    "raise_signal": raise_signal,
    "kill": kill,
    "interrupt_main": interrupt_main,
    "during sleep": in_sleep,
    "during a computation": in_computation,
    "in a generator": in_generator,
    "in a context manager": in_context_manager,
    "raised again": raised_again,
    "raised again by name": raised_again_by_name,
    "raised anew": raised_anew,
    "raised in finally": raised_in_finally,
    "asynchronous exception": asynchronous,
    "PyErr_SetInterrupt": set_interrupt,
    "function as handler": with_handler(handle),
    "lambda as handler": with_handler(lambda number, frame: handle(number, frame)),
    "method as handler": with_handler(Handler().handle),
    "object as handler": with_handler(Handler()),
    "partial as handler": with_handler(partial(partial(Handler().report, "x"))),
    "handler of SIGTERM": with_handler(handle, signal.SIGTERM),
}  # fmt: skip


@pytest.mark.parametrize("interrupt", INTERRUPTS.values(), ids=INTERRUPTS)
@pytest.mark.parametrize("method", ["on_epoch_begin", "on_batch_end", "on_epoch_end"])
def test_ctrl_c_in_a_callback_warns_keeps_the_checkpoint_and_the_same_call_resumes(
    interrupt, method, data, tmp_path
):
    number, calls = getattr(interrupt, "number", signal.SIGINT), []

    def run(net, **kwargs):
        if len(net.history) == 3 and not calls:
            calls.append(net)
            interrupt()

    before = signal.getsignal(number)
    if hasattr(interrupt, "handler"):
        signal.signal(number, interrupt.handler)
    clf = small(max_epochs=N_EPOCHS, callbacks=[Hook(**{method: run})])
    try:
        n_done = 3 if method == "on_epoch_end" else 2
        with pytest.warns(UserWarning, match=f"interrupted in epoch {n_done + 1} of 4.*to resume"):
            clf.fit(*data, checkpoint=tmp_path / "checkpoint")
    finally:
        signal.signal(number, before)
    assert clf.n_iter_ == n_done
    assert os.listdir(tmp_path) == ["checkpoint"]
    clf.fit(*data, checkpoint=tmp_path / "checkpoint")
    assert clf.loss_curve_ == small(max_epochs=N_EPOCHS).fit(*data).loss_curve_
    assert os.listdir(tmp_path) == []


def plain():
    raise KeyboardInterrupt


def with_message():
    raise KeyboardInterrupt("no progress")


def in_function():
    with contextlib.suppress(ValueError):
        plain()


def in_except():
    try:
        raise ValueError("the score is not finite")
    except ValueError as error:
        raise KeyboardInterrupt from error


def in_finally():
    try:
        [][0]
    finally:
        raise KeyboardInterrupt


def with_frames(frame=None, *others):
    caller, code = sys._getframe(1), sys._getframe(1).f_code
    raise KeyboardInterrupt(f"in {caller.f_lineno} of {code.co_name}")


def in_callable_with_frame():
    with_frames(sys._getframe(1), 1)


REQUESTS = [
    plain, with_message, in_function, in_except, in_finally, with_frames, in_callable_with_frame,
]  # fmt: skip


@pytest.mark.parametrize("request_stop", REQUESTS)
@pytest.mark.parametrize("inside_except", [False, True])
def test_a_callback_that_raises_keyboard_interrupt_ends_the_fit_without_a_warning(
    request_stop, inside_except, data, tmp_path
):
    def run(net, **kwargs):
        if len(net.history) == 2:
            request_stop()

    def fit():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return small(callbacks=[Hook(on_epoch_end=run)]).fit(*data, checkpoint=path)

    path = tmp_path / "checkpoint"
    if inside_except:  # for example, of a loop that Ctrl-C has ended
        try:
            raise_signal()
        except KeyboardInterrupt:
            clf = fit()
    else:
        clf = fit()
    assert clf.n_iter_ == 2
    assert os.listdir(tmp_path) == []


def test_early_stopping_of_skorch_ends_the_fit_without_a_warning(data):
    stop = EarlyStopping("train_loss", patience=2, threshold=10.0, threshold_mode="abs", sink=len)
    assert small(callbacks=[stop]).fit(*data).n_iter_ == 3


def test_ctrl_c_in_a_callback_of_a_fit_in_another_thread_warns(data, tmp_path):
    path = tmp_path / "checkpoint"

    def interrupt(net, **kwargs):
        if len(net.history) == 2:
            asynchronous()

    def run(thread):
        thread.start()
        thread.join()

    clf = small(max_epochs=4, callbacks=[Hook(on_epoch_end=interrupt)])
    thread = threading.Thread(target=clf.fit, args=data, kwargs={"checkpoint": path})
    with pytest.warns(UserWarning, match="interrupted in epoch 3 of 4"):
        run(thread)
    assert clf.n_iter_ == 2
    assert os.listdir(tmp_path) == ["checkpoint"]


def test_ctrl_c_in_a_callback_before_the_end_of_the_first_epoch_raises(data, tmp_path):
    clf = small(callbacks=[Hook(on_batch_end=lambda net, **kwargs: raise_signal())])
    with pytest.raises(KeyboardInterrupt):
        clf.fit(*data, checkpoint=tmp_path / "checkpoint")
    assert not hasattr(clf, "classes_")
    assert os.listdir(tmp_path) == []


def test_ctrl_c_in_a_callback_after_the_last_epoch_raises_and_keeps_the_checkpoint(data, tmp_path):
    clf = small(callbacks=[Hook(on_train_end=lambda net, **kwargs: raise_signal())])
    with pytest.raises(KeyboardInterrupt):
        clf.fit(*data, checkpoint=tmp_path / "checkpoint")
    assert not hasattr(clf, "classes_")
    clf.set_params(callbacks=None).fit(*data, checkpoint=tmp_path / "checkpoint")
    assert clf.loss_curve_ == small().fit(*data).loss_curve_


def test_ctrl_c_in_a_callback_of_partial_fit_raises(data):
    for method in ("on_batch_end", "on_epoch_end"):
        clf = small(callbacks=[Hook(**{method: lambda net, **kwargs: raise_signal()})])
        with pytest.raises(KeyboardInterrupt):
            clf.partial_fit(*data)


def test_signal_handlers_are_not_changed(data, tmp_path):
    numbers, seen = signal.valid_signals(), []

    def handlers():
        return [signal.getsignal(number) for number in numbers]

    before = handlers()
    hook = Hook(on_epoch_end=lambda net, **kwargs: seen.append(handlers()))
    small(callbacks=[hook]).fit(*data, checkpoint=tmp_path / "checkpoint")
    assert handlers() == before
    assert seen == [before] * 8


class RaiseAt:
    """Raises KeyboardInterrupt at one instruction of the library, by its number.

    Parameters
    ----------
    k : int
        Number of the instruction, counted from 0 in the order of execution.
    files : tuple of str
        Endings of the names of the files whose instructions are counted.
    """

    def __init__(self, k, files):
        self.k, self.files = k, files
        self.instructions, self.where = [], None

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self.trace)
        return self

    def __exit__(self, *error):
        sys.settrace(self.before)

    def trace(self, frame, event, arg):
        if not frame.f_code.co_filename.endswith(self.files):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.instructions.append((frame.f_code, frame.f_lasti))
            if len(self.instructions) == self.k + 1:
                self.where = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                raise KeyboardInterrupt
        return self.trace


def instructions(function, files):
    """Return the instructions that a function executes in these files, in order."""
    with RaiseAt(-1, files) as step:
        function()
    return step.instructions


def settings():
    """Return what an interrupt must not leave changed."""
    return (
        [signal.getsignal(number) for number in signal.valid_signals()],
        torch.get_num_threads(), CALLER.n_threads,
        torch.is_grad_enabled(), torch.get_default_dtype(),
        list(warnings.filters), threading.active_count(), len(os.listdir("/proc/self/fd")),
    )  # fmt: skip


def assert_unchanged(before, where):
    """Check the settings; an interrupt while a folder is flushed may leave its descriptor open.

    There may be fewer open files, as those of earlier tests are closed when they are collected.
    """
    *others, n_files = settings()
    *others_before, n_files_before = before
    assert others == others_before, where
    assert n_files <= n_files_before or "_flush_folder" in where, where


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
ignore_unclosed = pytest.mark.filterwarnings(
    # A file that is interrupted while it is opened or closed is closed by the garbage collector.
    "ignore:unclosed file:ResourceWarning"
)


@needs_proc
@ignore_unclosed
def test_an_interrupt_at_any_instruction_of_a_write_leaves_the_old_file_or_the_new_one(tmp_path):
    path = str(tmp_path / "file")
    files = ("_persistence/files.py",)

    def write():
        write_atomically(path, b"new")

    write()
    before = settings()
    for k in range(len(instructions(write, files))):
        (tmp_path / "file").write_bytes(b"old")
        with contextlib.suppress(KeyboardInterrupt), RaiseAt(k, files) as step:
            write()
        assert (tmp_path / "file").read_bytes() in (b"old", b"new"), step.where
        assert os.listdir(tmp_path) == ["file"], step.where
        assert_unchanged(before, step.where)
        before = settings()
    assert k > 300


@needs_proc
@ignore_unclosed
@pytest.mark.parametrize("step_size", [97, pytest.param(3, marks=pytest.mark.slow)])
def test_an_interrupt_at_any_instruction_of_a_checkpoint_leaves_a_whole_one_and_no_lock(
    step_size, tmp_path
):
    path = str(tmp_path / "file")
    files = ("_persistence/files.py", "_persistence/checkpoint_file.py")

    def use(*, remove=False):
        file = CheckpointFile(path)
        try:
            file.open()
            file.write({"n": 1})
            file.write({"n": 2})
            if remove:
                file.remove()
        finally:
            file.close()

    use()
    before = settings()
    n = len(instructions(use, files))
    for k in range(0, n, step_size):
        use()
        with contextlib.suppress(KeyboardInterrupt), RaiseAt(k, files) as step:
            use()
        assert read_checkpoint(path)["n"] in (1, 2), step.where
        assert os.listdir(tmp_path) == ["file"], step.where
        use(remove=True)
        assert os.listdir(tmp_path) == [], step.where
        assert_unchanged(before, step.where)
        before = settings()
    assert n > 1000


STEPPED = tuple(
    f"sklearn_cls/{name}.py"
    for name in (
        "_classifier", "_persistence/files", "_persistence/checkpoint_file",
        "_persistence/checkpoint", "_training/net", "_training/state", "_training/callbacks",
        "_training/interrupts", "_training/fitted", "_training/history", "_torch/threads",
    )
)  # fmt: skip


@needs_proc
@ignore_unclosed
@pytest.mark.parametrize("n_steps", [8, pytest.param(400, marks=pytest.mark.slow)])
def test_an_interrupt_at_any_instruction_of_a_fit_is_not_silent_and_the_next_fit_resumes(
    n_steps, data, tmp_path
):
    X, y = data[0][::3], data[1][::3]
    path, params = tmp_path / "checkpoint", {"max_epochs": 3, "early_stopping": False}
    stop = Hook(on_epoch_end=lambda net, **kwargs: None)

    def fit(clf):
        return clf.fit(X, y, checkpoint=path)

    expected = fit(small(**params)).loss_curve_
    executed = instructions(lambda: fit(small(**params, callbacks=[stop])), STEPPED)
    # An instruction of a loop is executed many times, but each one is as likely to be chosen.
    rng, places = np.random.default_rng(n_steps), {}
    for k in rng.permutation(len(executed)):
        places[executed[k]] = k
    before = settings()
    for k in rng.permutation(list(places.values()))[:n_steps]:
        clf, was_raised = small(**params, callbacks=[stop]), False
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with RaiseAt(k, STEPPED) as step:
                try:
                    fit(clf)
                except KeyboardInterrupt:
                    was_raised = True
        caught = [w for w in caught if w.category is not ResourceWarning]
        if was_raised:
            assert not hasattr(clf, "classes_") or clf.n_iter_ == 3, step.where
        else:
            assert clf.n_iter_ == 3 or "was interrupted" in str(caught[0].message), step.where
            assert np.isfinite(clf.predict_proba(X)).all()
        assert set(os.listdir(tmp_path)) <= {"checkpoint"}, step.where
        resumed = fit(small(**params))
        assert resumed.loss_curve_ == expected, step.where
        assert os.listdir(tmp_path) == [], step.where
        assert_unchanged(before, step.where)
        before = settings()
