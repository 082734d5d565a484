"""Fits and predictions where OpenMP or the operating system provides fewer threads."""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sklearn_cls._torch.openmp import call_in_team, team_size
from sklearn_cls._torch.threads import obtainable_threads, thread_local_num_threads
from tests.helpers import Hook, bumps, small

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

# Hashes the weights and the predictions of fits with several threads.
FIT = """
import hashlib, json, sys, threading
import numpy as np, torch
from joblib import Parallel, delayed
from sklearn_cls._torch import threads
from tests.helpers import Hook, bumps, small

n_jobs, n_caller, where = json.loads(sys.argv[1])
threads.n_cores = lambda: 4
torch.set_num_threads(n_caller)
X, y = bumps(40)

def digests(results):
    for params in {}, {"embedding": "linear", "early_stopping": True}:
        clf = small(max_epochs=2, n_jobs=n_jobs, **params).fit(X, y).partial_fit(X, y)
        arrays = [clf.module_.state_dict()[name].numpy() for name in clf.module_.state_dict()]
        for n_jobs_of_predict in 1, n_jobs:
            clf.set_params(n_jobs=n_jobs_of_predict)
            arrays += [clf.predict_proba(X), clf.transform(np.repeat(X, 60, axis=0))]
        results.append(hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest())
    return results

if where == "thread":
    results = []
    thread = threading.Thread(target=digests, args=(results,))
    thread.start()
    thread.join()
elif where == "joblib":
    results, other = Parallel(2, backend="threading")(delayed(digests)([]) for _ in range(2))
    assert results == other
else:
    results = digests([])
print(json.dumps(results))
"""


def fits(n_jobs, n_caller=1, where="main", **variables):
    """Return the hashes of the script above, run with environment variables."""
    command = [sys.executable, "-c", FIT, json.dumps([n_jobs, n_caller, where])]
    environment = {**os.environ, **variables}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=True
    )
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def expected():
    return {n_jobs: fits(n_jobs) for n_jobs in (1, 2, 4)}


FEWER_THREADS = [
    ({"OMP_DYNAMIC": "TRUE"}, 4),
    ({"OMP_THREAD_LIMIT": "1"}, 1),
    ({"OMP_THREAD_LIMIT": "2"}, 2),
    ({"OMP_MAX_ACTIVE_LEVELS": "0"}, 1),
    ({"OMP_MAX_ACTIVE_LEVELS": "1"}, 4),
    ({"OMP_DYNAMIC": "TRUE", "OMP_THREAD_LIMIT": "2", "MKL_DYNAMIC": "TRUE"}, 2),
    ({"OMP_NUM_THREADS": "10000"}, 4),
    ({"OMP_PROC_BIND": "TRUE"}, 4),
]


@pytest.mark.slow
@pytest.mark.parametrize(("variables", "n_threads"), FEWER_THREADS, ids=str)
def test_a_fit_with_fewer_threads_equals_a_fit_that_asks_for_as_many(
    variables, n_threads, expected
):
    assert fits(4, n_caller=2, **variables) == expected[n_threads]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["thread", "joblib"])
@pytest.mark.parametrize(("variables", "n_threads"), FEWER_THREADS[:3], ids=str)
def test_so_does_a_fit_in_another_thread(variables, n_threads, where, expected):
    assert fits(4, where=where, **variables) == expected[n_threads]


CONVOLUTION = """
import sys, torch
from torch import nn
from sklearn_cls._torch.threads import thread_local_num_threads

torch.manual_seed(0)
convolution, x = nn.Conv1d(2, 16, 9), torch.randn(16, 2, 20)

def gradient(dtype):
    convolution.zero_grad()
    convolution.to(dtype)(x.to(dtype)).sin().sum().backward()
    return convolution.weight.grad.double()

expected = gradient(torch.float64)
torch.set_num_threads(4)
with thread_local_num_threads(4):
    for _ in range(20):
        torch.testing.assert_close(gradient(torch.float32), expected, rtol=1e-4, atol=1e-4)
    sys.stdout.write(str(torch.get_num_threads()))
"""


@pytest.mark.parametrize(
    ("variables", "n_threads"),
    [
        ({"OMP_DYNAMIC": "TRUE"}, 4),
        pytest.param({"OMP_THREAD_LIMIT": "1"}, 1, marks=pytest.mark.slow),
        ({"OMP_THREAD_LIMIT": "3"}, 3),
        pytest.param({"OMP_MAX_ACTIVE_LEVELS": "0"}, 1, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_gradients_of_a_convolution_are_right_with_as_many_threads_as_there_are(
    variables, n_threads
):
    command = [sys.executable, "-c", CONVOLUTION]
    environment = {**os.environ, **variables}
    # Without the threads that it counts on, oneDNN waits forever.
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.stdout, result.stderr) == (str(n_threads), "")


def test_an_openmp_team_has_the_requested_number_of_threads():
    assert [team_size(n_threads) for n_threads in (1, 2, 3, 2)] == [1, 2, 3, 2]
    assert obtainable_threads(3) == 3


def test_a_setting_of_openmp_is_restored():
    openmp = ctypes.CDLL(None)
    openmp.omp_set_dynamic(1)
    try:
        with thread_local_num_threads(2):
            assert (openmp.omp_get_dynamic(), torch.get_num_threads()) == (0, 2)
        assert openmp.omp_get_dynamic() == 1
        with pytest.raises(RuntimeError), thread_local_num_threads(2):
            raise RuntimeError
        assert openmp.omp_get_dynamic() == 1
    finally:
        openmp.omp_set_dynamic(0)


def test_a_fit_inside_a_parallel_region_gets_one_thread(monkeypatch):
    monkeypatch.setattr("sklearn_cls._torch.threads.n_cores", lambda: 2)
    X, y = bumps(20)
    alone, fits, n_threads = small(n_jobs=1, max_epochs=1).fit(X, y), [], []
    watch = Hook(on_epoch_end=lambda net, **kwargs: n_threads.append(torch.get_num_threads()))

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def region(_):
        fits.append(small(n_jobs=2, max_epochs=1, callbacks=[watch]).fit(X, y))

    call_in_team(region, None, 2, 0)
    assert n_threads == [1, 1]
    for clf in fits:
        np.testing.assert_allclose(clf.predict_proba(X), alone.predict_proba(X), atol=1e-6)
