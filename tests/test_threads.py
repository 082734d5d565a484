import threading
import time

import numpy as np
import pytest
import torch
from threadpoolctl import ThreadpoolController

from sklearn_cls._torch.threads import (
    parallel_map,
    resolve_n_threads,
    thread_local_num_threads,
    torch_threads,
)
from tests.helpers import Hook, bumps, small


@pytest.fixture
def four_threads(monkeypatch):
    monkeypatch.setattr("sklearn_cls._torch.threads.n_cores", lambda: 4)
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
        (True, 100, 1),
        (10_000, 1, 4),
        (2**31, 1, 4),
        (np.uint64(2**63), 1, 4),
        (-1, 1, 4),
        (-2, 1, 3),
        (-(10**9), 100, 1),
    ],
)
def test_n_jobs_none_uses_as_many_threads_as_the_batch_can_use_and_no_more_than_cores(
    n_jobs, n_useful, n_threads, four_threads
):
    assert resolve_n_threads(n_jobs, n_useful) == n_threads
    assert type(resolve_n_threads(n_jobs, n_useful)) is int


def test_n_jobs_of_zero_raises():
    with pytest.raises(ValueError, match="n_jobs must be None, a number of threads, or -1"):
        resolve_n_threads(0, 1)


@pytest.mark.parametrize(("batch_size", "n_threads"), [(8, 1), (16, 2), (64, 4)])
def test_training_uses_one_thread_per_131072_elements(batch_size, n_threads, four_threads):
    seen = []
    watch = Hook(on_epoch_end=lambda net, **kwargs: seen.append(torch.get_num_threads()))
    X, y = bumps(n_steps=128)  # 16 sequences x 128 tokens x d_model=128 are 2 x 131,072 elements
    sizes = {"d_model": 128, "depth": 1, "patch_size": 1, "max_epochs": 1}
    small(**sizes, batch_size=batch_size, callbacks=[watch]).fit(X[:64], y[:64])
    assert (seen, torch.get_num_threads()) == ([n_threads], 4)


@pytest.mark.parametrize(("n_batches", "expected"), [(8, [1] * 4), (1, [4])])
def test_prediction_runs_batches_in_parallel_or_one_batch_on_all_threads(
    n_batches, expected, fitted, four_threads, monkeypatch
):
    X = bumps(40)[0]
    alone = fitted.predict_proba(X)
    seen = set()
    forward = fitted.module_.forward

    def watched(**batch):
        seen.add((threading.get_ident(), torch.get_num_threads()))
        time.sleep(0.05)
        return forward(**batch)

    monkeypatch.setattr("sklearn_cls._training.predict.STEPS_PER_BATCH", 40 * 20 // n_batches)
    monkeypatch.setattr(fitted.module_, "forward", watched)
    monkeypatch.setattr(fitted, "n_jobs", 4)
    together = fitted.predict_proba(X)
    assert [n_threads for _, n_threads in seen] == expected
    assert torch.get_num_threads() == 4
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_threads_are_restored_after_an_error():
    with pytest.raises(RuntimeError), torch_threads(2):
        raise RuntimeError
    assert torch.get_num_threads() == 1


def test_the_torch_thread_count_of_other_python_threads_is_unchanged():
    seen = []
    with thread_local_num_threads(3):
        assert torch.get_num_threads() == 3
        other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        other.start()
        other.join()
    assert seen == [1]


def test_without_openmp_the_number_of_threads_of_the_process_is_set_and_restored(monkeypatch):
    openmp = ThreadpoolController().select(user_api="none")
    monkeypatch.setattr("sklearn_cls._torch.openmp.OPENMP", openmp)
    monkeypatch.setattr("sklearn_cls._torch.openmp.call_in_team", None)
    with thread_local_num_threads(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 1


def test_an_error_in_one_thread_ends_the_others_and_is_raised():
    n_threads, done = threading.active_count(), []

    def function(item):
        time.sleep(0.01)
        done.append(item)
        if item == 3:
            raise MemoryError(item)

    with pytest.raises(MemoryError, match="3"):
        parallel_map(function, range(1000), 4)
    assert len(done) < 100
    assert threading.active_count() == n_threads
