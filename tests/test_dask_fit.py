"""One fit of Dask collections on a cluster of real processes."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from numpy.testing import assert_allclose
from skorch.callbacks import Callback

from tests.helpers import Hook, bumps, small
from tests.in_processes import EXACT, result_of, unequal
from tests.test_dask_predict import frame

da = pytest.importorskip("dask.array")
dask = pytest.importorskip("dask")
dd = pytest.importorskip("dask.dataframe")
pd = pytest.importorskip("pandas")
dask_fit = pytest.importorskip("sklearn_cls._dask.fit")


def padded(n=90):
    """Return an array of very different sequences, padded with NaN, and their labels."""
    X, y = unequal(n)
    padded = np.full((n, max(map(len, X)), 2), np.nan, dtype=np.float32)
    for i, x in enumerate(X):
        padded[i, : len(x)] = x
    return padded, y


def collections(X, y, size=25):
    """Return an array and its labels as arrays of dask, in chunks of sequences."""
    return da.from_array(X, chunks=(size, -1, -1)), da.from_array(y, chunks=size)


@pytest.mark.parametrize(
    "params",
    [{"embedding": "linear"}, {}, {"early_stopping": True, "n_iter_no_change": 3}],
    ids=str,
)
def test_the_losses_are_those_of_a_fit_in_this_process(params, client):
    X, y = padded()
    y, weight = np.array(["a", "bc"])[y], np.linspace(1, 2, len(X))
    dX, dy = collections(X, y)
    clf = small(**EXACT, **params)
    result = clf.fit(dX, dy, sample_weight=da.from_array(weight, chunks=25))
    assert result is clf
    expected = small(**EXACT, **params).fit(X, y, weight)
    assert_allclose(clf.loss_curve_, expected.loss_curve_, atol=1e-5)
    if params.get("early_stopping"):
        valid_loss = expected.history_["valid_loss"]
        assert_allclose(clf.history_["valid_loss"], valid_loss, atol=1e-5)
    assert_allclose(clf.predict_proba(X), expected.predict_proba(X), atol=1e-3)
    assert clf.classes_.tolist() == ["a", "bc"]


def test_a_fit_is_repeatable_wherever_the_partitions_are(client):
    X, y = padded()
    dX, dy = collections(X, y, 10)
    lazy = result_of(small(max_epochs=4).fit(dX, dy))
    workers = sorted(client.nthreads())
    parts = [dask.delayed(X[i : i + 10]) for i in range(0, 90, 10)]
    futures = [client.compute(part, workers=[workers[i % 2]]) for i, part in enumerate(parts)]
    spread = da.concatenate(
        [da.from_delayed(dask.delayed(f), (10, *X.shape[1:]), X.dtype) for f in futures]
    )
    assert result_of(small(max_epochs=4).fit(spread, dy)) == lazy


def test_frames_with_codes_and_a_clock_are_fitted_as_in_this_process(client):
    X, y = bumps(60)
    frame_of_all = frame(X)
    letters = np.array(["x", "y", "z"])
    frame_of_all["letter"] = letters[np.arange(60) // 25]  # not all in each partition
    clf = small(**EXACT, max_epochs=3)
    clf.fit(dd.from_pandas(frame_of_all, npartitions=4), dd.from_pandas(pd.Series(y), 4))
    expected = small(**EXACT, max_epochs=3).fit(frame_of_all, y)
    assert_allclose(clf.loss_curve_, expected.loss_curve_, atol=1e-5)
    assert clf.feature_names_in_.tolist() == ["u", "v", "letter"]
    assert_allclose(
        clf.predict_proba(frame_of_all), expected.predict_proba(frame_of_all), atol=1e-3
    )


def test_delayed_partitions_and_a_validation_set_are_fitted_as_in_this_process(client):
    X, y = padded()
    parts = [slice(0, 30), slice(30, 35), slice(35, 70)]
    params = {**EXACT, "early_stopping": True, "max_epochs": 4}
    clf = small(**params).fit(
        [dask.delayed(X[part]) for part in parts],
        [dask.delayed(y[part]) for part in parts],
        X_val=[dask.delayed(X[70:])],
        y_val=y[70:],
    )
    expected = small(**params).fit(X[:70], y[:70], X_val=X[70:], y_val=y[70:])
    assert_allclose(clf.loss_curve_, expected.loss_curve_, atol=1e-5)
    assert_allclose(clf.history_["valid_loss"], expected.history_["valid_loss"], atol=1e-5)


def test_without_a_client_collections_are_read_in_this_process():
    X, y = padded(40)
    expected = small(max_epochs=2).fit(X, y).loss_curve_
    assert small(max_epochs=2).fit(*collections(X, y)).loss_curve_ == expected
    parts = [dask.delayed(X[:20]), dask.delayed(X[20:])]
    assert small(max_epochs=2).fit(parts, y).loss_curve_ == expected
    labels = [dask.delayed(y[:20]), dask.delayed(y[20:])]
    assert small(max_epochs=2).fit(parts, labels).loss_curve_ == expected
    X, y = bumps(40)
    expected = small(max_epochs=2).fit(frame(X), y).loss_curve_
    dX = dd.from_pandas(frame(X), npartitions=3)
    assert small(max_epochs=2).fit(dX, y).loss_curve_ == expected


def test_errors_of_the_workers_reach_the_caller(client):
    X, y = padded()
    X[30, 2] = np.inf
    with pytest.raises(ValueError, match=r"X\[5\] contains infinity.*partition 1 of X"):
        small().fit(*collections(X, y))


def test_two_fits_at_once_do_not_wait_for_each_other(client):
    results, errors = [], []

    def fit():
        try:
            results.append(result_of(small(max_epochs=2).fit(*collections(*padded(40), 10))))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=fit) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert len(results) == 3
    assert results[0] == results[1] == results[2]


class Kill(Callback):
    """Ends the process with a certain rank by SIGKILL or SIGSTOP, once."""

    def __init__(self, rank, epoch, path, signal_number=signal.SIGKILL):
        self.rank, self.epoch, self.path = rank, epoch, path
        self.signal_number = signal_number

    def on_batch_end(self, net, **kwargs):
        is_here = net.processes.rank == self.rank and len(net.history) == self.epoch
        if is_here and not os.path.exists(self.path):
            with open(self.path, "w") as file:
                file.write(str(os.getpid()))
            os.kill(os.getpid(), self.signal_number)


def write_checkpoints_often():
    from sklearn_cls._persistence import checkpoint as checkpoint_module

    checkpoint_module.INTERVAL, checkpoint_module.SHARE = 0.0, np.inf


@pytest.mark.parametrize(("rank", "epoch"), [(0, 3), pytest.param(1, 6, marks=pytest.mark.slow)])
def test_a_fit_that_loses_a_worker_restarts_itself_with_the_same_result(
    rank, epoch, client, tmp_path
):
    client.run(write_checkpoints_often)
    dX, dy = collections(*padded())
    expected = result_of(small().fit(dX, dy))
    clf = small(callbacks=[Kill(rank, epoch, str(tmp_path / "killed"))])
    clf.fit(dX, dy, checkpoint=tmp_path / "checkpoint")
    assert (tmp_path / "killed").exists()
    assert result_of(clf) == expected
    assert not (tmp_path / "checkpoint").exists()


def test_without_a_checkpoint_a_lost_worker_is_an_error_at_once(client, tmp_path):
    start = time.monotonic()
    clf = small(callbacks=[Kill(1, 2, str(tmp_path / "killed"))])
    with pytest.raises(RuntimeError, match=r"has lost 1 of 2 workers: .* With checkpoint="):
        clf.fit(*collections(*padded()))
    assert time.monotonic() - start < 30
    assert not hasattr(clf, "classes_")


@pytest.mark.slow
def test_a_worker_that_does_not_answer_is_an_error_within_the_timeout(client, tmp_path):
    path = tmp_path / "stopped"
    clf = small(callbacks=[Kill(1, 2, str(path), signal.SIGSTOP)])
    start = time.monotonic()
    try:
        with dask.config.set({"sklearn_cls.timeout": "4s"}):
            with pytest.raises(RuntimeError, match="has not answered for 4 seconds"):
                clf.fit(*collections(*padded()))
        assert time.monotonic() - start < 30
    finally:
        workers = client.nthreads()
        os.kill(int(path.read_text()), signal.SIGKILL)
        while client.nthreads().keys() == workers.keys():
            time.sleep(0.1)


@pytest.mark.parametrize("before", [False, True])
def test_ctrl_c_while_the_client_checks_the_workers_ends_the_fit(
    before, client, monkeypatch, tmp_path
):
    path, lost = tmp_path / "started", dask_fit._lost

    def interrupt(*args):
        if path.exists() or before:
            monkeypatch.setattr(dask_fit, "_lost", lost)
            signal.raise_signal(signal.SIGINT)
        return lost(*args)

    def write(net, **kwargs):
        if len(net.history) == 3:
            path.touch()
        time.sleep(0.02)

    monkeypatch.setattr(dask_fit, "_lost", interrupt)
    clf = small(max_epochs=500, callbacks=[Hook(on_batch_end=write)])
    if before:
        with pytest.raises(KeyboardInterrupt):
            clf.set_params(batch_size=2).fit(*collections(*padded()))
    else:
        with pytest.warns(UserWarning, match="interrupted in epoch"):
            clf.fit(*collections(*padded()))
        assert 2 <= clf.n_iter_ < 500


@pytest.mark.parametrize("epoch", [0, 2])
def test_ctrl_c_in_the_client_ends_the_fit_as_in_this_process(epoch, client, tmp_path):
    path, client_process = tmp_path / "started", os.getpid()

    def interrupt(net, **kwargs):
        if net.processes.rank == 0 and len(net.history) == epoch + 1 and not path.exists():
            path.touch()
            os.kill(client_process, signal.SIGINT)
        time.sleep(0.05)

    clf = small(max_epochs=500, callbacks=[Hook(on_batch_end=interrupt)])
    if epoch == 0:
        with pytest.raises(KeyboardInterrupt):
            clf.set_params(batch_size=2).fit(*collections(*padded()))
        assert not hasattr(clf, "classes_")
    else:
        with pytest.warns(UserWarning, match="interrupted in epoch"):
            clf.fit(*collections(*padded()))
        assert 2 <= clf.n_iter_ < 500
    assert len(client.nthreads()) == 2
