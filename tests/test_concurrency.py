"""Many threads and processes at once."""

import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from sklearn_cls import CLSTransformerClassifier
from tests.helpers import bumps, small

ROOT = Path(__file__).parent.parent


def test_predictions_of_eight_threads_are_those_of_one():
    script = [sys.executable, "-m", "tests.predict_together", "--predictions", "800"]
    run = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "800 of 800 equal" in run.stdout


def test_fits_in_threads_give_what_they_give_alone():
    X, y = bumps()
    params = [{}, {"cls_strategy": "random"}, {"early_stopping": True}, {"embedding": "linear"}]
    alone = [small(**p).fit(X, y).predict_proba(X) for p in params]
    with ThreadPoolExecutor(4) as pool:
        fits = list(pool.map(lambda p: small(**p).fit(X, y).predict_proba(X), params * 2))
    for together, expected in zip(fits, alone * 2, strict=True):
        assert np.array_equal(together, expected)


def state_of_torch():
    """Return the settings that a thread sees which has not used torch before."""
    seen = []
    thread = threading.Thread(
        target=lambda: seen.append((
            torch.get_num_threads(), torch.is_grad_enabled(), torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"), torch.get_default_dtype(), torch.initial_seed(),
            torch.random.get_rng_state().sum().item(), np.random.get_state()[1].sum(),  # noqa: NPY002
            torch.are_deterministic_algorithms_enabled(), np.geterr()["over"],
        ))
    )  # fmt: skip
    thread.start()
    thread.join()
    return seen[0]


def test_a_fit_and_a_prediction_change_nothing_that_other_threads_see(monkeypatch):
    X, y = bumps(40)
    before, torch_before = state_of_torch(), torch.get_num_threads()
    during = []

    class Watch(Callback):
        def on_batch_end(self, net, **kwargs):
            during.append((state_of_torch(), torch.get_num_threads()))

    original = CLSTransformerClassifier._build

    def watched_build(self, *args, **kwargs):
        net = original(self, *args, **kwargs)
        forward = net.module_.forward
        net.module_.forward = lambda *a, **k: (
            during.append((state_of_torch(), 3)),
            forward(*a, **k),
        )[1]
        return net

    monkeypatch.setattr(CLSTransformerClassifier, "_build", watched_build)
    clf = small(max_epochs=1, n_jobs=3, callbacks=[Watch()], precision="bfloat16").fit(X, y)
    clf.predict_proba(X)
    assert {state for state, _ in during} == {before}
    assert {n_threads for _, n_threads in during} == {3}
    assert torch.get_num_threads() == torch_before


def test_random_numbers_of_another_thread_are_those_it_would_draw_alone():
    X, y = bumps(20)
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    expected = [torch.rand(3).tolist() for _ in range(200)], np.random.random(200).tolist()  # noqa: NPY002
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    done = threading.Event()

    def fit_on_and_on():
        while not done.is_set():
            small(max_epochs=1, random_state=None).fit(X, y)

    thread = threading.Thread(target=fit_on_and_on)
    thread.start()
    drawn = []
    for _ in range(200):
        drawn.append(torch.rand(3).tolist())
        done.wait(0.002)
    done.set()
    thread.join()
    assert (drawn, np.random.random(200).tolist()) == expected  # noqa: NPY002


def predict_and_fit(clf, X, y, results):
    results.put((clf.predict_proba(X), small(n_jobs=2).fit(X, y).predict_proba(X)))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_model_predicts_the_same_in_a_process_made_by(method, fitted, data):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip("the system has it not")
    X, y = data
    expected = fitted.predict_proba(X), small(n_jobs=1).fit(X, y).predict_proba(X)
    context = multiprocessing.get_context(method)
    results = context.SimpleQueue()
    process = context.Process(target=predict_and_fit, args=(fitted, X, y, results))
    process.start()
    predicted, fitted_there = results.get()
    process.join()
    assert np.array_equal(predicted, expected[0])
    np.testing.assert_allclose(fitted_there, expected[1], atol=1e-3)


FORK = """
import os, signal, sys, numpy as np, torch
from tests.helpers import small
X = np.random.default_rng(0).normal(size=(4, 2000, 3)).astype("f")
torch.set_num_threads(2)
torch.ones(2**22).neg_()  # from here on, there is a second thread, which no child has
clf = small(d_model=64, patch_size=1, max_epochs=1, n_jobs=2).fit(X, [0, 1, 0, 1])
child = os.fork()
if child == 0:
    signal.alarm(60)
    clf.predict_proba(X)
    clf.fit(X, [0, 1, 0, 1])
    clf.save(sys.argv[1])
    type(clf).load(sys.argv[1]).predict(X)
    os._exit(0)
sys.exit(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_process_forked_from_one_with_several_threads_does_not_hang(tmp_path):
    run = [sys.executable, "-W", "ignore", "-c", FORK, tmp_path / "model"]
    assert subprocess.run(run, cwd=ROOT, check=False).returncode == 0
