"""Tests of `GraphedFunction` that do not need CUDA; test_gpu.py tests the graphs."""

import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import joblib
import pytest
import torch

from sklearn_cls._training.cuda_graph import GraphedFunction, other_threads_may_use_torch


def test_on_the_cpu_the_function_itself_is_called():
    calls = []

    def function(*args):
        calls.append(args)
        return {"result": None}

    inputs, y = {"x": torch.ones(2, 1), "is_padding": None}, torch.zeros(2)
    graphed = GraphedFunction(function, torch.device("cpu"), [])
    for _ in range(20):
        assert graphed(inputs, y, "more") == {"result": None}
    assert len(calls) == 20
    assert all(args[0] is inputs and args[1] is y and args[2] == "more" for args in calls)


def test_in_another_thread_than_the_main_one_nothing_is_captured():
    assert not other_threads_may_use_torch()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(other_threads_may_use_torch).result()


def test_a_pool_of_processes_does_not_prevent_captures():
    joblib.Parallel(2, timeout=60)(joblib.delayed(abs)(i) for i in range(2))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(abs, -1).result() == 1
        assert not other_threads_may_use_torch()


@pytest.mark.parametrize("daemon", [False, True])
def test_nothing_is_captured_beside_threads_other_than_daemons(daemon):
    is_finished = threading.Event()
    thread = threading.Thread(target=is_finished.wait, daemon=daemon)
    thread.start()
    try:
        assert other_threads_may_use_torch() == (not daemon)
    finally:
        is_finished.set()
        thread.join()
    assert not other_threads_may_use_torch()
