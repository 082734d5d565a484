"""Fits and predictions in several threads and processes at once."""

import multiprocessing
import os
import re
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.utils.fixes import parse_version

from sklearn_cls._data.warning_filters import FILTERS_LOCK
from sklearn_cls._network.encoder import CLSEncoder
from tests import predict_together, refit_together
from tests.helpers import Hook, bumps, small

ROOT = Path(__file__).parent.parent


def test_predictions_in_eight_threads_equal_those_made_one_at_a_time(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["predict_together", "--predictions", "300"])
    assert predict_together.main() == 0
    assert "300 of 300 predictions are equal" in capsys.readouterr().out


def test_every_answer_file_and_copy_is_of_one_model_while_another_thread_refits(
    capsys, monkeypatch
):
    monkeypatch.setattr(sys, "argv", ["refit_together", "--predictions", "200", "--refits", "3"])
    assert refit_together.main() == 0
    counts = re.findall(r"(\d+) of (\d+) (\w+) are", capsys.readouterr().out)
    assert {what for _, _, what in counts} == {"predictions", "refits", "files", "copies", "clones"}
    assert all(n_whole == n for n_whole, n, _ in counts)


@pytest.mark.parametrize("pooling", ["cls", "attention"])
@pytest.mark.parametrize("positions", ["sinusoidal", "rope"])
def test_the_first_prediction_of_a_loaded_model_sets_no_attribute(
    pooling, positions, data, tmp_path
):
    clf = small(pooling=pooling, positions=positions, cls_strategy="random", max_epochs=1)
    clf.fit(*data).save(tmp_path / "model")
    loaded = type(clf).load(tmp_path / "model")
    objects = [loaded, loaded._fitted, loaded.net_, loaded.net_.scaler, *loaded.module_.modules()]
    before = [dict(vars(item)) for item in objects]
    for X in (data[0], list(np.tile(data[0], (1, 3, 1)))):
        for method in ("predict", "predict_proba", "transform", "cls_attention"):
            getattr(loaded, method)(X)
    for item, attributes in zip(objects, before, strict=True):
        assert vars(item).keys() == attributes.keys()
        assert all(vars(item)[name] is value for name, value in attributes.items())


def test_fits_in_four_threads_equal_those_made_one_at_a_time(data):
    X, y = data
    params = [
        {}, {"cls_strategy": "random", "dropout": 0.3, "random_state": 1},
        {"early_stopping": True}, {"embedding": "linear"},
    ]  # fmt: skip

    def fit(params):
        return small(max_epochs=4, **{"random_state": 0, **params}).fit(X, y).predict_proba(X)

    expected = list(map(fit, params))
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(fit, params * 2))
    for probabilities, alone in zip(together, expected * 2, strict=True):
        assert np.array_equal(probabilities, alone)


def settings_in_a_new_thread():
    """Return the global settings and random states that a new thread of this process sees."""
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


def test_fit_and_predict_do_not_change_the_settings_of_other_threads(data, monkeypatch):
    during, forward = [], CLSEncoder.forward

    def record(*args, **kwargs):
        during.append((settings_in_a_new_thread(), torch.get_num_threads()))

    def recorded_forward(module, *args, **kwargs):
        record()
        return forward(module, *args, **kwargs)

    monkeypatch.setattr(CLSEncoder, "forward", recorded_forward)
    monkeypatch.setattr("sklearn_cls._torch.threads.n_cores", lambda: 3)
    before, n_threads = settings_in_a_new_thread(), torch.get_num_threads()
    hook = Hook(on_train_begin=record, on_batch_end=record, on_train_end=record)
    clf = small(max_epochs=1, n_jobs=3, callbacks=[hook], precision="bfloat16").fit(*data)
    n_in_fit = len(during)
    clf.predict_proba(data[0])
    assert n_in_fit >= 8
    assert len(during) > n_in_fit
    assert {settings for settings, _ in during} == {before}
    assert {n for _, n in during[1 : n_in_fit - 1]} == {3}
    assert torch.get_num_threads() == n_threads


def inputs_of_every_kind():
    """Return univariate sequences as arrays, lists, frames and series of many dtypes."""
    X = bumps(12, n_features=1)[0]
    frame = pd.DataFrame(X[:, :, 0])
    return {
        "3-D array": X, "2-D array": X[:, :, 0], "list of arrays": list(X),
        "float64": X.astype(float), "objects": X.astype(object), "nested lists": X.tolist(),
        "tensor": torch.from_numpy(X), "series of arrays": pd.Series(list(X[:, :, 0])),
        "data frame": frame, "columns of two dtypes": frame.astype({0: float}),
        "boolean": frame > 1, "nullable": frame.astype("Float64"),
        "polars": pl.DataFrame(X[:, :, 0]),
        "categories": frame.astype({0: "category"}), "Python objects": frame.astype(object),
        "list of frames": [pd.DataFrame(x).astype("Float32") for x in X],
        "list of series": [pd.Series(x[:, 0]) for x in X],
    }  # fmt: skip


@pytest.fixture
def filter_changes(monkeypatch):
    """Return a list with True for each change of the warning filters that holds the lock."""
    changes, enter = [], warnings.catch_warnings.__enter__

    def recorded_enter(catch_warnings):
        changes.append(FILTERS_LOCK._is_owned())
        return enter(catch_warnings)

    monkeypatch.setattr(warnings.catch_warnings, "__enter__", recorded_enter)
    return changes


@pytest.mark.filterwarnings("ignore:X has feature names")
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_warning_filters_change_under_the_lock_only(filter_changes):
    X, labels = bumps(12, n_features=1)
    inputs = inputs_of_every_kind()
    targets = [labels, labels > 0, pd.Series(labels, dtype="Int64"), np.array(["a", "b"])[labels]]
    clf = small(max_epochs=1).fit(X[:, :, 0], labels)
    filter_changes.clear()
    for name in ("3-D array", "2-D array", "list of arrays", "float64"):
        clf.predict(inputs[name])
        assert not filter_changes, name
    for name, form in inputs.items():
        clf.predict(form)
        assert all(filter_changes), name
    assert len(filter_changes) > 100
    if parse_version(pd.__version__) >= parse_version("3"):
        # Older versions change the filters when scikit-learn names the columns of the result.
        clf.set_output(transform="pandas").transform(X)
    for y in targets:
        small(max_epochs=1, early_stopping=True, class_weight="balanced").fit(X, y).score(X, y)
        small().partial_fit(X, y, classes=y, sample_weight=np.ones(12))
    assert all(filter_changes)
    with pytest.raises(ValueError, match="0 feature"):
        clf.predict(np.zeros((2, 0)))
    assert all(filter_changes)


@pytest.mark.filterwarnings("ignore:X has feature names")
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_eight_threads_leave_the_warning_filters_as_they_are():
    X, y = bumps(12, n_features=1)
    clf = small(max_epochs=1).fit(X[:, :, 0], y)
    inputs = list(inputs_of_every_kind().values())
    filters, before = warnings.filters, list(warnings.filters)

    def predict(i):
        if i % 20 == 0:
            small(max_epochs=1).fit(X, y).score(X, y)
        return clf.predict_proba(inputs[i % len(inputs)])

    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(predict, range(400)))) == 400
    assert warnings.filters is filters
    assert warnings.filters == before


def test_a_fit_does_not_disturb_the_random_numbers_of_another_thread():
    X, y = bumps(20)

    def seed():
        torch.manual_seed(7)
        np.random.seed(7)  # noqa: NPY002

    seed()
    expected = [torch.rand(3).tolist() for _ in range(100)], np.random.random(100).tolist()  # noqa: NPY002
    seed()
    is_done, n_fits = threading.Event(), []

    def fit_until_done():
        while not is_done.is_set():
            n_fits.append(small(max_epochs=1, random_state=None).fit(X, y).n_iter_)

    thread = threading.Thread(target=fit_until_done)
    thread.start()
    drawn = []
    for _ in range(100):
        drawn.append(torch.rand(3).tolist())
        is_done.wait(0.005)
    is_done.set()
    thread.join()
    assert n_fits
    assert (drawn, np.random.random(100).tolist()) == expected  # noqa: NPY002


def predict_and_fit(clf, X, y, results):
    results.put((clf.predict_proba(X), small(max_epochs=2, n_jobs=2).fit(X, y).predict_proba(X)))


@pytest.mark.parametrize(
    "method", ["fork", "spawn", pytest.param("forkserver", marks=pytest.mark.slow)]
)
def test_predictions_and_fits_are_the_same_in_a_child_process(method, fitted, data):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no start method {method!r}")
    X, y = data
    context = multiprocessing.get_context(method)
    results = context.SimpleQueue()
    process = context.Process(target=predict_and_fit, args=(fitted, X, y, results))
    process.start()
    predicted, predicted_by_fit = results.get()
    process.join()
    assert np.array_equal(predicted, fitted.predict_proba(X))
    expected = small(max_epochs=2).fit(X, y).predict_proba(X)
    np.testing.assert_allclose(predicted_by_fit, expected, atol=1e-3)


FORK = """
import os, signal, sys, numpy as np, torch
from tests.helpers import small
X = np.random.default_rng(0).normal(size=(4, 100, 3)).astype("f")
torch.set_num_threads(2)
torch.ones(2**22).neg_()  # starts a second thread, which a forked child does not have
y = [0, 1, 0, 1]
clf = small(d_model=128, patch_size=1, max_epochs=1, n_jobs=2).fit(X, y)
child = os.fork()
if child == 0:
    signal.alarm(60)
    clf.predict_proba(X)
    clf.fit(X, y)
    wide = small(d_model=256, n_heads=4, dim_feedforward=512, max_epochs=2, early_stopping=True)
    wide.set_params(validation_fraction=0.5).fit(X, y).partial_fit(X, y)
    clf.save(sys.argv[1])
    type(clf).load(sys.argv[1]).predict(X)
    os._exit(0)
sys.exit(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_child_forked_from_a_process_with_several_threads_does_not_hang(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", FORK, tmp_path / "model"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
