"""Searches on a Dask cluster of real processes."""

import os
import signal
import threading
import time

import joblib
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.model_selection import GridSearchCV, cross_val_score

from sklearn_cls._torch.openmp import n_cores
from sklearn_cls._torch.threads import resolve_n_threads
from tests.helpers import bumps, small

distributed = pytest.importorskip("distributed")

GRID = {"cls_strategy": ["learned", "zeros"], "depth": [1, 2]}


def search(**params):
    """Return a search of 8 fits."""
    return GridSearchCV(small(max_epochs=4, **params), GRID, cv=2, refit=False)


def split_scores(fitted):
    """Return the scores of all fits of a search, (candidates, splits)."""
    return np.array([fitted.cv_results_[f"split{i}_test_score"] for i in range(2)]).T


def test_the_scores_are_those_of_a_search_in_this_process(client):
    X, y = bumps(100, n_steps=60)
    expected = split_scores(search().fit(X, y))
    sent_before = sum(client.run(sent_bytes).values())
    with joblib.parallel_config("dask"):
        scores = split_scores(search().fit(X, y))
    assert_array_equal(scores, expected)
    assert client.run_on_scheduler(largest_keys, 0.9 * X.nbytes) <= 1
    assert sum(client.run(sent_bytes).values()) - sent_before < 1.5 * X.nbytes


def sent_bytes(dask_worker):
    return dask_worker.transfer_outgoing_bytes_total


def largest_keys(n_bytes, dask_scheduler):
    """Return how many results of at least `n_bytes` the scheduler knows."""
    return sum(task.nbytes >= n_bytes for task in dask_scheduler.tasks.values())


@pytest.mark.slow
def test_the_fits_of_a_worker_that_is_killed_are_done_again(client):
    X, y = bumps()
    expected = split_scores(search(batch_size=6).fit(X, y))
    processes = client.run(os.getpid)

    def kill_one():
        while not any(client.processing().values()):
            time.sleep(0.05)
        os.kill(next(iter(processes.values())), signal.SIGKILL)

    thread = threading.Thread(target=kill_one)
    thread.start()
    with joblib.parallel_config("dask", scatter=[X, y]):
        scores = split_scores(search(batch_size=6).fit(X, y))
    thread.join()
    assert_array_equal(scores, expected)
    client.wait_for_workers(2, timeout=30)
    assert set(client.run(os.getpid).values()) != set(processes.values())


def test_the_epochs_of_a_fit_are_shown_at_the_client(client, capfd):
    with joblib.parallel_config("dask"):
        cross_val_score(small(verbose=1), *bumps(), cv=2)
    end, shown = time.monotonic() + 10, ""
    while shown.count("8/8") < 2 and time.monotonic() < end:
        time.sleep(0.1)
        shown += capfd.readouterr().err
    assert shown.count("fit: 100%") == 2
    assert shown.count("8/8") == 2


def test_tasks_share_the_cores_of_their_machine(client):
    tasks = [client.submit(resolve_n_threads, None, 100, pure=False) for _ in range(2)]
    assert client.gather(tasks) == [max(1, n_cores() // 2)] * 2


@pytest.mark.slow
@pytest.mark.skipif(n_cores() < 2, reason="needs 2 cores")
def test_a_worker_with_one_slot_uses_all_cores_unless_a_variable_says_otherwise():
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        assert client.submit(resolve_n_threads, None, 100).result() == n_cores()
        assert client.submit(resolve_n_threads, None, 1.5).result() == 1
        client.run(set_variable)
        assert client.submit(resolve_n_threads, None, 99).result() == 1  # that of torch


def set_variable():
    os.environ["OMP_NUM_THREADS"] = "3"
