import os
import sys
import threading
import time
from itertools import count

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from sklearn_cls._torch import threads
from sklearn_cls._torch.threads import resolve_n_threads, torch_threads
from tests.helpers import bumps, small


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("n_jobs", "n_useful", "n_threads"),
    [
        (None, 0.1, 1),
        (None, 1.9, 1),
        (None, 2, 2),
        (None, 100, 4),
        (1, 100, 1),
        (3, 0.1, 3),
        (np.int64(2), 1, 2),
    ],
)
def test_there_are_as_many_threads_as_the_work_is_worth_unless_n_jobs_says_how_many(
    n_jobs, n_useful, n_threads, four_threads
):
    assert resolve_n_threads(n_jobs, n_useful) == n_threads
    assert type(resolve_n_threads(n_jobs, n_useful)) is int
    assert resolve_n_threads(-1, n_useful) >= 1
    with pytest.raises(ValueError, match="n_jobs must be None, a number of threads, or -1"):
        resolve_n_threads(0, n_useful)


@pytest.mark.parametrize(("batch_size", "n_threads"), [(8, 1), (16, 2), (64, 4)])
def test_large_batches_are_learnt_on_more_threads(batch_size, n_threads, four_threads):
    seen = []

    class Watch(Callback):
        def on_epoch_end(self, net, **kwargs):
            seen.append(torch.get_num_threads())

    X, y = bumps(n_steps=128)  # 16 x 128 x 128 numbers are two threads' worth
    sizes = {"d_model": 128, "depth": 1, "patch_size": 1, "max_epochs": 1}
    small(**sizes, batch_size=batch_size, callbacks=[Watch()]).fit(X[:64], y[:64])
    assert (seen, torch.get_num_threads()) == ([n_threads], 4)


@pytest.mark.parametrize(("n_jobs", "n_batches", "expected"), [(4, 8, [1] * 4), (4, 1, [4])])
def test_batches_are_predicted_side_by_side_and_one_alone_on_all_threads(
    n_jobs, n_batches, expected, fitted, four_threads, monkeypatch
):
    X = bumps(40)[0]
    alone = fitted.predict_proba(X)
    seen = set()
    forward = fitted.module_.forward

    def watched(**batch):
        seen.add((threading.get_ident(), torch.get_num_threads()))
        time.sleep(0.05)
        return forward(**batch)

    monkeypatch.setattr("sklearn_cls._training.net.STEPS_PER_BATCH", 40 * 20 // n_batches)
    monkeypatch.setattr(fitted.module_, "forward", watched)
    monkeypatch.setattr(fitted, "n_jobs", n_jobs)
    together = fitted.predict_proba(X)
    assert [n_threads for _, n_threads in seen] == expected
    assert torch.get_num_threads() == 4
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_threads_are_restored_after_an_error():
    with pytest.raises(RuntimeError), torch_threads(2):
        raise RuntimeError
    assert torch.get_num_threads() == 1


def n_system_threads():
    return len(os.listdir("/proc/self/task"))


def wait_until(condition):
    for _ in range(500):
        if condition():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP waits like this")
def test_threads_are_added_while_others_want_the_cores_and_gone_after_it(monkeypatch):
    times = iter(count(0, 100))
    is_loaded = threading.Event()
    monkeypatch.setattr(threads, "INTERVAL", 0.01)
    monkeypatch.setattr(threads, "run_queue_wait", lambda: next(times) if is_loaded.is_set() else 0)
    with torch_threads(2):
        torch.ones(2**20).neg_()
        time.sleep(0.1)
        alone = n_system_threads()
        is_loaded.set()
        # A thread that does nothing, and one of OpenMP's in its team.
        assert wait_until(lambda: n_system_threads() >= alone + 2)
        is_loaded.clear()
        assert wait_until(lambda: n_system_threads() == alone)
        is_loaded.set()
        assert wait_until(lambda: n_system_threads() > alone)
    assert wait_until(lambda: n_system_threads() < alone + 1)


def test_one_thread_and_a_gpu_need_no_watch(monkeypatch):
    watched = []
    monkeypatch.setattr(threads, "oversubscribe_when_contended", lambda *args: watched.append(args))
    for n_threads in (1, None):
        with torch_threads(n_threads):
            pass
    assert watched == []
    with torch_threads(2):
        pass
    assert len(watched) == (sys.platform == "linux")


def test_idle_threads_that_cannot_start_take_the_others_with_them(monkeypatch):
    start, n_before = threading.Thread.start, threading.active_count()

    def fail_after_one(thread):
        if threading.active_count() > n_before:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8))
    monkeypatch.setattr(threading.Thread, "start", fail_after_one)
    assert threads.oversubscribe(2) is None
    assert threading.active_count() == n_before


@pytest.mark.skipif(
    not os.path.exists("/proc/self/schedstat"), reason="the kernel keeps no account"
)
def test_the_time_kept_waiting_is_that_of_all_threads():
    before = threads.run_queue_wait()
    core = min(os.sched_getaffinity(0))
    burners = [threading.Thread(target=burn, args=(core,)) for _ in range(2)]
    for burner in burners:
        burner.start()
    assert wait_until(lambda: threads.run_queue_wait() > before + 0.05)
    for burner in burners:
        burner.join()


def burn(core):
    os.sched_setaffinity(threading.get_native_id(), {core})  # both on one core
    x = torch.ones(300, 300)
    end = time.perf_counter() + 0.5
    while time.perf_counter() < end:
        x @ x
