"""Faults during training and prediction: memory, divergence, interrupts, killed processes."""

import os
import signal
import threading
import warnings

import numpy as np
import pytest
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback

from sklearn_cls._network.encoder import CLSEncoder
from tests.helpers import Hook, bumps, small

# A network whose gradients do not depend on how a batch is divided into micro-batches: there is
# neither dropout nor batch normalization.
INDEPENDENT = {"embedding": "linear", "dropout": 0.0, "positions": "learned"}


def limit_memory(monkeypatch, n_sequences):
    """Let batches of more than `n_sequences` run out of memory; return a list of batch sizes."""
    sizes, embed, cls_attention = [], CLSEncoder.embed, CLSEncoder.cls_attention

    def limited(original):
        def compute(self, x, is_padding=None):
            sizes.append(len(x))
            if len(x) > n_sequences:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return original(self, x, is_padding)

        return compute

    monkeypatch.setattr(CLSEncoder, "embed", limited(embed))
    monkeypatch.setattr(CLSEncoder, "cls_attention", limited(cls_attention))
    return sizes


@pytest.mark.parametrize("params", [{}, {"augment": False}, {"early_stopping": True}], ids=str)
def test_out_of_memory_falls_back_to_micro_batches_with_one_warning(params, data, monkeypatch):
    params = {**INDEPENDENT, **params, "batch_size": 20}
    weight = np.linspace(0.5, 2, 60)
    expected = small(**params).fit(*data, weight)
    sizes = limit_memory(monkeypatch, 6)
    with pytest.warns(
        UserWarning, match="Out of memory on cpu: .* each batch of batch_size=20 is"
    ) as caught:
        clf = small(**params).fit(*data, weight)
    assert len(caught) == 1
    assert sizes[:3] == ([18, 9, 4] if clf.early_stopping else [20, 10, 5])
    assert max(sizes[3:]) <= 6
    assert clf.net_.n_micro_batches == 4
    np.testing.assert_allclose(clf.loss_curve_, expected.loss_curve_, rtol=1e-4)
    monkeypatch.undo()
    np.testing.assert_allclose(
        clf.predict_proba(data[0]), expected.predict_proba(data[0]), atol=1e-3
    )


def test_micro_batches_train_the_default_network(data, monkeypatch):
    limit_memory(monkeypatch, 8)
    with pytest.warns(UserWarning, match="Out of memory"):
        clf = small(max_epochs=20).fit(*data)
    assert clf.score(*data) > 0.9


def test_predictions_that_run_out_of_memory_are_computed_in_smaller_batches(fitted, monkeypatch):
    X = [x[: 6 + i % 9] for i, x in enumerate(bumps(30)[0])]
    methods = fitted.predict_proba, fitted.transform, fitted.cls_attention
    expected = [method(X) for method in methods]
    limit_memory(monkeypatch, 5)
    for method, result in zip(methods, expected, strict=True):
        np.testing.assert_allclose(method(X), result, atol=1e-5)


def test_a_sequence_that_does_not_fit_into_memory_raises(fitted, data, monkeypatch):
    limit_memory(monkeypatch, 0)
    clf = small()
    with pytest.raises(torch.OutOfMemoryError):
        clf.fit(*data)
    assert not hasattr(clf, "net_")
    with pytest.raises(torch.OutOfMemoryError):
        fitted.predict(data[0])


@pytest.mark.parametrize("lr", [1e6, 1e20, 1e37])
@pytest.mark.parametrize("max_epochs", [1, 8])
def test_divergence_names_the_epoch_and_leaves_the_estimator_unchanged(lr, max_epochs, data):
    clf = small(batch_size=60).fit(*data)
    before, net = clf.predict_proba(data[0]), clf.net_
    clf.set_params(lr=lr, max_epochs=max_epochs)
    with pytest.raises(ValueError, match=r"in epoch [12]; lower lr \(now"):
        clf.fit(*data)
    assert clf.net_ is net
    assert np.array_equal(clf.predict_proba(data[0]), before)


def test_an_infinite_gradient_in_the_last_update_raises_a_divergence_error(data):
    def spoil(net, named_parameters, **kwargs):
        if len(net.history) == 2 and len(net.history[-1]["batches"]) == 4:
            dict(named_parameters)["head.weight"].grad[0] = torch.inf

    with pytest.raises(ValueError, match="A weight became nan in epoch 2"):
        small(max_epochs=2, callbacks=[Hook(on_grad_computed=spoil)]).fit(*data)


@pytest.fixture
def ctrl_c():
    """Make SIGINT raise KeyboardInterrupt, even where it is ignored by default."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("fails_in", range(1, 13))
def test_ctrl_c_in_any_batch_leaves_a_usable_model_or_raises(fails_in, ctrl_c, data, monkeypatch):
    n_calls, embed = [], CLSEncoder.embed

    def interrupted(self, x, is_padding=None):
        n_calls.append(len(x))
        if len(n_calls) == fails_in:
            signal.raise_signal(signal.SIGINT)
        return embed(self, x, is_padding)

    monkeypatch.setattr(CLSEncoder, "embed", interrupted)
    clf = small(max_epochs=3, early_stopping=True)  # 4 training batches, one to validate
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            clf.fit(*data)
        except KeyboardInterrupt:
            assert fails_in <= 5
            assert not hasattr(clf, "classes_")
            return
    monkeypatch.undo()
    assert [w.category for w in caught] == [UserWarning]
    assert clf.n_iter_ == (fails_in - 1) // 5
    assert np.allclose(clf.predict_proba(data[0]).sum(1), 1)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a POSIX timer")
def test_an_interrupt_at_any_moment_leaves_a_usable_model_or_raises(data, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    small(max_epochs=1).fit(*data)  # an interrupt while torch imports modules breaks them
    before, rng = signal.signal(signal.SIGALRM, interrupt), np.random.default_rng(0)
    outcomes = set()
    try:
        for _ in range(20):
            clf = small(max_epochs=4)
            with warnings.catch_warnings(record=True):
                warnings.simplefilter("always")
                try:
                    signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.001, 0.25))
                    clf.fit(*data, checkpoint=tmp_path / "checkpoint")
                except KeyboardInterrupt:
                    outcomes.add("raised")
                    assert not hasattr(clf, "classes_") or clf.n_iter_ == 4
                    continue
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            outcomes.add("done" if clf.n_iter_ == 4 else "usable")
            assert np.isfinite(clf.predict_proba(data[0])).all()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert "raised" in outcomes
    assert len(outcomes) > 1
    assert {path.name for path in tmp_path.iterdir()} <= {"checkpoint"}


class KillWorker(Callback):
    """Kills the process that trains, unless its id is `pid`."""

    def __init__(self, pid):
        self.pid = pid

    def on_train_begin(self, net, **kwargs):
        if os.getpid() != self.pid:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a POSIX signal")
def test_a_killed_worker_ends_the_search_and_the_next_search_works(data):
    callback = KillWorker(os.getpid())
    search = GridSearchCV(small(max_epochs=1), {"callbacks": [None, [callback]]}, cv=2, n_jobs=2)
    n_threads = threading.active_count()
    with pytest.raises(TerminatedWorkerError):
        search.fit(*data)
    assert not hasattr(search, "best_estimator_")
    search.set_params(param_grid={"depth": [1, 2]}).fit(*data)
    assert search.best_estimator_.n_iter_ == 1
    assert threading.active_count() <= n_threads + 3  # joblib's pool has threads of its own


@pytest.mark.parametrize(
    "method", ["on_train_begin", "on_epoch_end", "on_batch_end", "on_train_end"]
)
@pytest.mark.parametrize("is_fitted", [True, False])
def test_an_exception_in_a_callback_leaves_the_estimator_unchanged(method, is_fitted, data):
    def fail(net, **kwargs):
        raise ZeroDivisionError

    clf = small(max_epochs=2)
    if is_fitted:
        clf.fit(*data)
        before = clf.predict_proba(data[0])
    with pytest.raises(ZeroDivisionError):
        clf.set_params(callbacks=[Hook(**{method: fail})]).fit(*data)
    assert hasattr(clf, "classes_") == is_fitted
    if is_fitted:
        assert np.array_equal(clf.predict_proba(data[0]), before)
