import os
import sys
import threading
import time
from itertools import count

import pytest
import torch

from sklearn_cls._torch import contention
from sklearn_cls._torch.threads import torch_threads

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


def n_system_threads():
    return len(os.listdir("/proc/self/task"))


def wait_until(condition):
    for _ in range(500):
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_idle_threads_exist_during_contention_only(monkeypatch):
    waits = iter(count(0, 100))
    is_contended = threading.Event()
    monkeypatch.setattr(contention, "INTERVAL", 0.01)
    monkeypatch.setattr(
        contention, "run_queue_wait", lambda: next(waits) if is_contended.is_set() else 0
    )
    with torch_threads(2):
        torch.ones(2**20).neg_()
        time.sleep(0.1)
        alone = n_system_threads()
        is_contended.set()
        # Contention adds one idle thread, and the thread that OpenMP creates for it.
        assert wait_until(lambda: n_system_threads() >= alone + 2)
        is_contended.clear()
        assert wait_until(lambda: n_system_threads() == alone)
        is_contended.set()
        assert wait_until(lambda: n_system_threads() > alone)
    assert wait_until(lambda: n_system_threads() < alone + 1)


def test_contention_is_not_watched_with_one_thread(monkeypatch):
    watched = []
    monkeypatch.setattr(contention, "_watch", lambda *args: watched.append(args))
    with torch_threads(1):
        pass
    assert watched == []
    with torch_threads(2):
        pass
    assert len(watched) == 1


def test_idle_threads_end_if_one_of_them_cannot_start(monkeypatch):
    start, n_before = threading.Thread.start, threading.active_count()

    def fail_after_one(thread):
        if threading.active_count() > n_before:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8))
    monkeypatch.setattr(threading.Thread, "start", fail_after_one)
    assert contention.oversubscribe(2, lambda n_threads: None) is None
    assert threading.active_count() == n_before


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="needs scheduler statistics")
def test_run_queue_wait_grows_while_two_threads_share_a_core():
    before = contention.run_queue_wait()
    core = min(os.sched_getaffinity(0))
    threads = [threading.Thread(target=compute_on, args=(core,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert wait_until(lambda: contention.run_queue_wait() > before + 0.05)
    for thread in threads:
        thread.join()


def compute_on(core):
    os.sched_setaffinity(threading.get_native_id(), {core})
    x = torch.ones(300, 300)
    end = time.perf_counter() + 0.5
    while time.perf_counter() < end:
        x @ x
