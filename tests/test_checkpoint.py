import json
import os
import pickle
import subprocess
import sys
from contextlib import contextmanager
from enum import IntEnum
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn import config_context
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_validate
from skorch.callbacks import Callback, LRScheduler
from torch.optim.lr_scheduler import StepLR

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls._persistence import checkpoint, checkpoint_file
from sklearn_cls._training.divergence import DivergenceError
from tests.helpers import Hook, read_checkpoint, small, stop_after

INTERVAL, SHARE = checkpoint.INTERVAL, checkpoint.SHARE


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    """Write a checkpoint after every epoch, however short it is."""
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", np.inf)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint"


def fail_in(epoch, error=ZeroDivisionError):
    """Return a callback that raises an error in the second batch of an epoch."""

    def fail(net, batch, training):
        if training and len(net.history) == epoch and net.history[-1]["batches"]:
            raise error

    return Hook(on_batch_begin=fail)


def crash(clf, data, path, epoch=4, **kwargs):
    """Fit until an error is raised in `epoch`."""
    callbacks = clf.callbacks
    clf.set_params(callbacks=[*(callbacks or []), fail_in(epoch)])
    with pytest.raises(ZeroDivisionError):
        clf.fit(*data, checkpoint=path, **kwargs)
    clf.set_params(callbacks=callbacks)


def weights(clf):
    return {name: value.numpy() for name, value in clf.module_.state_dict().items()}


def assert_equal(clf, other):
    """Check that all losses and weights are bitwise identical."""
    assert clf.loss_curve_ == other.loss_curve_
    ours, theirs = weights(clf), weights(other)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"cls_strategy": "random", "embedding": "linear", "augment": False},
        {"pooling": "mean", "class_weight": "balanced", "label_smoothing": 0.0},
        {"early_stopping": True, "n_iter_no_change": 3, "max_epochs": 30, "lr": 2e-2},
        {"callbacks": [LRScheduler("StepLR", step_size=2, gamma=0.5)]},
        {"callbacks": [("schedule", LRScheduler(StepLR, step_size=3, step_every="batch"))]},
    ],
    ids=["default", "random token", "mean", "early stopping", "schedule", "schedule by batch"],
)
def test_a_resumed_fit_gives_the_weights_of_an_uninterrupted_one(params, data, path):
    X, y = data
    X = [x[: 12 + i % 9] for i, x in enumerate(X)]
    clf = small(**params)
    for epoch in (2, 5, 5, 6):
        crash(clf, (X, y), path, epoch)
    assert path.exists()
    clf.fit(X, y, checkpoint=path)
    assert_equal(clf, small(**params).fit(X, y))
    assert os.listdir(path.parent) == []


def test_a_fit_to_codes_and_times_resumes_with_the_same_table_only(path):
    frame, labels = events_table()
    clf = small()
    crash(clf, (frame, labels), path, 3)
    changed = frame.copy()
    changed["code"] = [["x", *cell[1:]] if i == 5 else cell for i, cell in enumerate(frame["code"])]
    later = frame.assign(time=[cell + np.arange(len(cell)) for cell in frame["time"]])
    renamed, numbers = (
        frame.assign(code=[[names["abc".index(code)] for code in cell] for cell in frame["code"]])
        for names in ("ABC", [1, 2, 3])
    )
    for other in (changed, later, renamed, numbers):
        with pytest.raises(ValueError, match="in which X is different"):
            clf.fit(other, labels, checkpoint=path)
    with pytest.raises(ValueError, match="in which categorical_features is"):
        small(categorical_features=["code"]).fit(frame, labels, checkpoint=path)
    crash(clf, (frame.assign(code=frame["code"].map(np.array)), labels), path, 4)
    clf.fit(pl.from_pandas(frame), labels, checkpoint=path)
    assert_equal(clf, small().fit(frame, labels))


def events_table():
    """Return a data frame of numbers, codes and times, and labels."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 8, size=40)
    start = np.datetime64("2024-03-01", "s")
    frame = pd.DataFrame(
        {
            "value": [rng.normal(size=n) for n in lengths],
            "code": [rng.choice(list("abc"), n).tolist() for n in lengths],
            "time": [start + rng.integers(1, 99, size=n).cumsum() for n in lengths],
        }
    )
    return frame, np.arange(40) % 2


def test_a_fit_resumes_with_the_same_validation_data_only(data, path):
    X, y = data
    clf, valid = small(early_stopping=True), {"X_val": X[40:], "y_val": y[40:]}
    crash(clf, (X[:40], y[:40]), path, 2, **valid)
    other = {**valid, "X_val": X[40:] + 1}
    with pytest.raises(ValueError, match="in which X_val, y_val or sample_weight_val is different"):
        clf.fit(X[:40], y[:40], checkpoint=path, **other)
    with pytest.raises(ValueError, match="in which X_val, y_val or sample_weight_val is different"):
        clf.fit(X[:40], y[:40], checkpoint=path)
    clf.fit(X[:40], y[:40], checkpoint=path, **valid)
    assert_equal(clf, small(early_stopping=True).fit(X[:40], y[:40], **valid))


def test_a_fit_resumes_with_the_same_groups_only(data, path):
    clf, person = small(early_stopping=True), np.arange(60) // 6
    crash(clf, data, path, 2, groups=person)
    with pytest.raises(ValueError, match="in which groups are different"):
        clf.fit(*data, checkpoint=path, groups=person[::-1])
    clf.fit(*data, checkpoint=path, groups=person)
    assert_equal(clf, small(early_stopping=True).fit(*data, groups=person))


def test_a_random_seed_is_restored(data, path):
    clf = small(random_state=None)
    crash(clf, data, path)
    seed = read_checkpoint(path)["seed"]
    assert clf.fit(*data, checkpoint=path).net_.seed == seed


def test_a_warm_start_resumes_from_its_checkpoint(data, path, tmp_path):
    whole = small(warm_start=True).fit(*data)
    whole.save(tmp_path / "model")
    clf = CLSTransformerClassifier.load(tmp_path / "model")
    crash(clf, data, path)
    assert_equal(clf.fit(*data, checkpoint=path), whole.fit(*data))
    crash(clf, data, path)
    with pytest.raises(ValueError, match="which started from different weights"):
        small(warm_start=True).fit(*data, checkpoint=path)


@contextmanager
def interrupt_in(epoch):
    """Raise KeyboardInterrupt in the checkpoint at the end of an epoch."""
    original = checkpoint.Checkpoint.on_epoch_end

    def interrupt(checkpoint, net, **kwargs):
        original(checkpoint, net, **kwargs)
        if len(net.history) == epoch:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint.Checkpoint, "on_epoch_end", interrupt)
        yield


@pytest.mark.parametrize(
    "n_fits_before", [None, 0, 1], ids=["cold start", "first warm start", "second warm start"]
)
def test_ctrl_c_keeps_the_checkpoint_and_the_same_call_resumes(n_fits_before, data, path):
    clf, whole = (small(warm_start=n_fits_before is not None) for _ in range(2))
    for _ in range(n_fits_before or 0):
        clf.fit(*data)
        whole.fit(*data)
    message = "in epoch 6 of 8.*with checkpoint=.* to resume"
    with interrupt_in(5), pytest.warns(UserWarning, match=message):
        clf.fit(*data, checkpoint=path)
    assert clf.n_iter_ == 5
    assert path.exists()
    clf.fit(*data, checkpoint=path)
    assert_equal(clf, whole.fit(*data))
    assert clf.net_.n_epochs_trained == whole.net_.n_epochs_trained
    assert not path.exists()
    assert_equal(clf.fit(*data, checkpoint=path), whole.fit(*data))


def test_ctrl_c_before_an_epoch_is_stored_leaves_a_model_to_continue_from(
    data, path, tmp_path, monkeypatch
):
    monkeypatch.setattr(checkpoint, "INTERVAL", 3600.0)
    clf, message = small(warm_start=True), "in epoch 6 of 8.*with warm_start=True to continue"
    with interrupt_in(5), pytest.warns(UserWarning, match=message):
        clf.fit(*data, checkpoint=path)
    assert not path.exists()
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    clf.save(tmp_path / "model")
    loaded = CLSTransformerClassifier.load(tmp_path / "model")
    crash(clf, data, path)
    assert_equal(loaded.fit(*data, checkpoint=path), clf.fit(*data))


def test_ctrl_c_while_a_checkpoint_is_written_keeps_the_previous_one(data, path, monkeypatch):
    n_writes, fsync = [], os.fsync

    def interrupt(descriptor):
        n_writes.append(descriptor)
        if len(n_writes) == 7:  # two for each write: one for the file, one for its folder
            raise KeyboardInterrupt
        fsync(descriptor)

    monkeypatch.setattr("sklearn_cls._persistence.files.os.fsync", interrupt)
    with pytest.warns(UserWarning, match="interrupted in epoch 4 of 8"):
        clf = small().fit(*data, checkpoint=path)
    monkeypatch.undo()
    assert clf.n_iter_ == 3
    assert os.listdir(path.parent) == ["checkpoint"]
    assert len(read_checkpoint(path)["net"]["history"]) == 2
    assert_equal(small().fit(*data, checkpoint=path), small().fit(*data))


def test_ctrl_c_before_the_first_epoch_leaves_no_checkpoint(data, path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("sklearn_cls._training.net.Net.train_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        small().fit(*data, checkpoint=path)
    assert os.listdir(path.parent) == []


def test_a_fit_that_a_callback_stops_leaves_no_checkpoint(data, path):
    clf = small(callbacks=[stop_after(3)]).fit(*data, checkpoint=path)
    assert clf.n_iter_ == 3
    assert os.listdir(path.parent) == []


def test_the_epoch_in_which_a_callback_stops_training_is_not_stored_and_a_resumed_fit_stops_there(
    data, path
):
    def fail(*args, **kwargs):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        small(callbacks=[stop_after(3), Hook(on_train_end=fail)]).fit(*data, checkpoint=path)
    assert len(read_checkpoint(path)["net"]["history"]) == 2
    clf = small(callbacks=[stop_after(3)])
    assert_equal(clf.fit(*data, checkpoint=path), small(callbacks=[stop_after(3)]).fit(*data))
    assert clf.n_iter_ == 3


def test_a_fit_that_failed_after_its_last_epoch_resumes_without_training(data, path):
    def fail(*args, **kwargs):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        small(callbacks=[Hook(on_train_end=fail)]).fit(*data, checkpoint=path)
    clf = small(callbacks=[Hook(on_epoch_begin=fail)]).fit(*data, checkpoint=path)
    assert_equal(clf, small().fit(*data))
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("error", [SystemExit, MemoryError, GeneratorExit, StopIteration, OSError])
def test_no_error_in_a_callback_costs_the_checkpoint(error, data, path):
    clf = small(callbacks=[fail_in(4, error)])
    with pytest.raises(error):
        clf.fit(*data, checkpoint=path)
    assert not hasattr(clf, "classes_")
    assert_equal(small().fit(*data, checkpoint=path), small().fit(*data))


def test_a_folder_that_is_removed_during_the_fit_gives_one_warning(data, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()

    def remove(net, **kwargs):
        if len(net.history) == 3:
            (folder / "checkpoint").unlink()
            folder.rmdir()

    with pytest.warns(UserWarning, match="written after epoch 3: .*No such file") as caught:
        clf = small(callbacks=[Hook(on_epoch_begin=remove)]).fit(
            *data, checkpoint=folder / "checkpoint"
        )
    assert len(caught) == 1
    assert_equal(clf, small().fit(*data))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"lr": 1e-3}, r"lr is 0.005, not 0.001"),
        ({"depth": 1}, "depth is 2, not 1"),
        ({"random_state": 1}, "random_state is 0, not 1"),
        ({"random_state": None}, "random_state is 0, not None"),
        ({"max_epochs": 9}, "max_epochs is 8, not 9"),
        ({"class_weight": {0: 2.0}}, "sample_weight or class_weight is different"),
        ({"random_state": np.random.RandomState(0)}, "random_state is 0, not a RandomState"),
    ],
    ids=["lr", "depth", "seed", "no seed", "max_epochs", "class_weight", "generator"],
)
def test_a_fit_with_different_parameters_raises(change, what, data, path):
    crash(small(), data, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"checkpoint' belongs to another fit, in which {what}"):
        small(**change).fit(*data, checkpoint=path)
    assert path.read_bytes() == before


def test_a_fit_to_different_data_raises(data, path):
    X, y = data
    crash(small(), data, path)
    changed = X.copy()
    changed[-1, -1, -1] += 1e-3
    for args, what in [
        ((changed, y), "X"), ((X[:-1], y[:-1]), "X"), ((X, 1 - y), "y"),
        ((X, y.astype(str)), "y"), ((X, y, np.linspace(1, 2, 60)), "sample_weight or class_weight"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=f"another fit, in which {what} is different"):
            small().fit(*args, checkpoint=path)


def test_integers_that_are_equal_in_float64_are_different_data(data, path):
    X, y = (data[0] * 1e6).astype(np.int64) + 2**60, data[1]
    changed = X.copy()
    changed[-1, -1, -1] += 1
    assert np.array_equal(X.astype(np.float64), changed.astype(np.float64))
    crash(small(), (X, y), path)
    with pytest.raises(ValueError, match="another fit, in which X is different"):
        small().fit(changed, y, checkpoint=path)
    assert_equal(small().fit(X, y, checkpoint=path), small().fit(X, y))


def test_a_fit_resumes_with_the_same_data_of_another_type(data, path):
    crash(small(), data, path)
    X, y = data
    clf = small().fit(X.astype(np.float64), y.tolist(), checkpoint=path)
    assert_equal(clf, small().fit(*data))


def test_a_fit_resumes_with_different_verbose_n_jobs_device_and_callbacks(data, path, capsys):
    crash(small(depth=np.int64(2)), data, path)
    params = {"verbose": 1, "n_jobs": 1, "device": "cpu", "callbacks": [Callback()]}
    clf = small(**params).fit(*data, checkpoint=path)
    assert_equal(clf, small().fit(*data))
    assert "8/8" in capsys.readouterr().err


def test_a_file_that_is_not_a_checkpoint_is_neither_loaded_nor_changed(data, path, fitted):
    path.write_text("notes")
    with pytest.raises(ValueError, match="checkpoint' is not a checkpoint; delete"):
        small().fit(*data, checkpoint=path)
    assert path.read_text() == "notes"
    fitted.save(path)
    with pytest.raises(ValueError, match="is not a checkpoint; delete"):
        small().fit(*data, checkpoint=path)
    assert path.exists()


class Bomb:
    def __reduce__(self):
        return (os.system, ("touch exploded",))


def bombs():
    """Return pickles that run code when they are loaded."""
    buffer = BytesIO()
    torch.save({"net": Bomb()}, buffer)
    return [buffer.getvalue(), *(pickle.dumps(Bomb(), protocol) for protocol in range(6)), b""]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
def test_no_code_in_a_checkpoint_is_run(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for payload in bombs():
        signed = json.dumps(checkpoint_file.current_versions()).encode() + b"\n" + payload
        signed = checkpoint_file.MAGIC + checkpoint_file.digest_of(signed) + signed
        for content, message in [
            (payload, "not a checkpoint" if payload else "damaged"),
            (signed, "cannot be read as a checkpoint"),
        ]:
            Path("checkpoint").write_bytes(content)
            with pytest.raises(ValueError, match=message):
                small().fit(*data, checkpoint="checkpoint")
    assert os.listdir(tmp_path) == ["checkpoint"]


def test_the_checkpoint_is_not_sample_metadata():
    assert "checkpoint" not in str(small().get_metadata_routing())
    with config_context(enable_metadata_routing=True), pytest.raises(TypeError, match="checkpoint"):
        small().set_fit_request(checkpoint=True)


@pytest.mark.parametrize("wrong", [7, True, ["a"]])
def test_a_checkpoint_that_is_not_a_path_raises(wrong, data):
    with pytest.raises(TypeError, match="checkpoint must be the path of a file, not"):
        small().fit(*data, checkpoint=wrong)


def test_a_missing_folder_raises_before_training(data, tmp_path):
    clf = small(callbacks=[fail_in(1)])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        clf.fit(*data, checkpoint=tmp_path / "nowhere" / "checkpoint")
    assert not hasattr(clf, "net_")


@pytest.mark.filterwarnings("ignore:Scoring failed")
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_checkpoint_of_all_fits_of_a_search_is_refused(data, path, n_jobs):
    search = GridSearchCV(small(), {"depth": [1, 2]}, cv=2, n_jobs=n_jobs)
    with pytest.raises(ValueError, match=r"All the 4 fits failed(.|\n)*a search or a cross-valid"):
        search.fit(*data, checkpoint=path)
    for function in (cross_validate, cross_val_predict):
        with pytest.raises(ValueError, match="the file of one fit, but a search"):
            function(small(), *data, cv=2, params={"checkpoint": path})
    assert not path.exists()
    search.set_params(refit=False).fit(*data)
    assert small(**search.best_params_).fit(*data, checkpoint=path).n_iter_ > 1


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")
def test_a_read_only_folder_raises_before_training(data, fitted):
    is_root = os.geteuid() == 0
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        small(max_epochs=1).fit(*data, checkpoint=path)  # imports modules as this user
        os.chmod(folder, 0o555)
        try:
            if is_root:
                os.seteuid(65534)
            with pytest.raises(PermissionError, match="file"):
                small(callbacks=[fail_in(1)]).fit(*data, checkpoint=path)
            with pytest.raises(PermissionError, match="file"):
                fitted.save(path)
        finally:
            if is_root:
                os.seteuid(0)
            os.chmod(folder, 0o755)


def test_a_disk_that_is_full_for_some_epochs_gives_one_warning(data, path, monkeypatch):
    original, n_calls = os.fsync, []

    def fill_up(descriptor):
        n_calls.append(descriptor)
        if 4 < len(n_calls) < 9:  # two for each write: one for the file, one for its folder
            raise OSError(28, "No space left on device")
        original(descriptor)

    monkeypatch.setattr("sklearn_cls._persistence.files.os.fsync", fill_up)
    message = "could not be written after epoch 2.*No space left on device"
    with pytest.warns(UserWarning, match=message) as caught:
        clf = small().fit(*data, checkpoint=path)
    assert len(caught) == 1
    assert_equal(clf, small().fit(*data))
    assert os.listdir(path.parent) == []


def test_a_fit_that_diverges_leaves_no_checkpoint(data, path):
    def spoil(net, named_parameters, **kwargs):
        if len(net.history) == 3:
            dict(named_parameters)["head.weight"].grad[:] = np.nan

    with pytest.raises(DivergenceError, match="in epoch 3; lower lr"):
        small(callbacks=[Hook(on_grad_computed=spoil)]).fit(*data, checkpoint=path)
    assert os.listdir(path.parent) == []


def test_an_error_before_the_first_epoch_leaves_no_checkpoint(data, path):
    crash(small(), data, path, epoch=1)
    assert os.listdir(path.parent) == []


def test_an_error_before_the_first_epoch_of_a_resumed_fit_keeps_the_checkpoint(
    data, path, monkeypatch
):
    crash(small(), data, path)

    def fail(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr("sklearn_cls._data.batches.Batches.load_state_dict", fail)
    with pytest.raises(ValueError, match=r"cannot be restored \(ZeroDivisionError\(\)\)"):
        small().fit(*data, checkpoint=path)
    assert path.exists()


@pytest.mark.parametrize(
    ("epoch_seconds", "write_seconds", "expected"),
    [
        (10.0, 0.1, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        (2.0, 0.1, [0, 3, 6]),
        (11.0, 2.0, [0, 4, 8]),
    ],
    ids=["each epoch", "every 5 seconds", "5 percent of the time"],
)
def test_checkpoints_are_written_at_most_every_5_seconds_and_take_5_percent_of_the_time(
    epoch_seconds, write_seconds, expected, data, path, monkeypatch
):
    clock, n_epochs = [0.0], []

    def spend(seconds):
        clock[0] += seconds

    def write(file, state):
        n_epochs.append(len(state["net"]["history"]))
        spend(write_seconds)

    monkeypatch.setattr(checkpoint, "INTERVAL", INTERVAL)
    monkeypatch.setattr(checkpoint, "SHARE", SHARE)
    monkeypatch.setattr(checkpoint_file.CheckpointFile, "write", write)
    monkeypatch.setattr("sklearn_cls._persistence.checkpoint.time.monotonic", lambda: clock[0])
    hook = Hook(on_epoch_begin=lambda net, **kwargs: spend(epoch_seconds))
    small(callbacks=[hook]).fit(*data, checkpoint=path)
    assert n_epochs == expected


def test_20000_epochs_are_stored(data, path):
    def add_epochs(net, **kwargs):
        if len(net.history) == 2:
            net.history.extend(dict(net.history[-1]) for _ in range(20_000))

    clf = small(callbacks=[Hook(on_epoch_end=add_epochs)])
    crash(clf, data, path, epoch=20_003)
    assert clf.fit(*data, checkpoint=path).n_iter_ == 20_002


def test_values_and_attributes_of_callbacks_are_restored(data, path):
    class Counter(Callback):
        def initialize(self):
            self.n_, self.sums_, self.function_, self.without_underscore = 0, np.zeros(2), len, 0
            self.batches_ = {"n": [(0, None)], "last": torch.zeros(1)}
            return self

        def on_epoch_end(self, net, **kwargs):
            self.n_ += 1
            self.sums_ = self.sums_ + np.array([1.0, 0.5])
            self.without_underscore += 1
            self.batches_ = {"n": [*self.batches_["n"], (self.n_, True)], "last": torch.ones(1)}
            net.history.record("n", self.n_)
            net.history.record("text", "x" * 10_000)
            net.history.record("NumPy scalar", self.sums_[1])
            net.history.record("big", 2**70)
            net.history.record("object", self)

    counter = Counter()
    crash(small(callbacks=[counter]), data, path, epoch=5)
    clf = small(callbacks=[counter]).fit(*data, checkpoint=path)
    assert clf.history_["n"] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert clf.history_["text"] == ["x" * 10_000] * 8
    assert clf.history_["NumPy scalar"] == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]
    assert clf.history_["big"] == [2**70] * 8
    assert clf.history_["object"] == [None] * 4 + [counter] * 4
    assert counter.sums_.tolist() == [8.0, 4.0]
    assert counter.batches_["n"] == [(0, None)] + [(n, True) for n in range(1, 9)]
    assert counter.without_underscore == 4


def test_the_state_of_a_callback_is_not_restored_into_another_class(data, path):
    crash(small(callbacks=[("mine", LRScheduler("StepLR", step_size=2))]), data, path)
    callback = Callback()
    small(callbacks=[("mine", callback)]).fit(*data, checkpoint=path)
    assert vars(callback) == {}


def test_a_symbolic_link_is_followed_when_a_callback_changes_the_directory(
    data, tmp_path, monkeypatch
):
    leave = Hook(on_epoch_end=lambda net, **kwargs: os.chdir("/"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("target")
    crash(small(callbacks=[leave]), data, "link")
    assert (tmp_path / "target").is_file()
    monkeypatch.chdir(tmp_path)
    small(callbacks=[leave]).fit(*data, checkpoint="link")
    assert os.listdir(tmp_path) == ["link"]


def test_temporary_files_of_killed_fits_are_removed(data, path, monkeypatch):
    left = path.with_name(".checkpoint.01234567.part")
    left.touch()
    small(max_epochs=1).fit(*data)
    assert left.exists()
    crash(small(), data, path)
    assert not left.exists()
    left.touch()
    monkeypatch.setattr(checkpoint, "INTERVAL", INTERVAL)  # the file is not written again
    small().fit(*data, checkpoint=path)
    assert os.listdir(path.parent) == []
    left.touch()
    small(max_epochs=1).fit(*data, checkpoint=path)
    assert os.listdir(path.parent) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.slow
@pytest.mark.parametrize("n_kills", [2, 6])
def test_killed_fits_resume_and_end_with_the_weights_of_uninterrupted_ones(n_kills):
    script = [sys.executable, "-m", "tests.kill_fits", "--kills", str(n_kills), "--seed", "0"]
    root = Path(__file__).parent.parent
    run = subprocess.run(script, cwd=root, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert f"kills: {n_kills}" in run.stdout


class Phase(IntEnum):
    FIRST, SECOND = 1, 2


class Memory(Callback):
    """Stores values of several types during training."""

    def on_train_begin(self, net, **kwargs):
        self.arrays_, self.phase_, self.name_ = [], Phase.FIRST, np.str_("first")
        self.parameter_ = torch.nn.Parameter(torch.ones(2))
        self.bytes_, self.longdouble_ = np.arange(3, dtype=np.uint8), np.ones(2, np.longdouble)

    def on_epoch_end(self, net, **kwargs):
        self.arrays_ = [*self.arrays_, {"epoch": np.array([len(net.history)])}]
        self.phase_, self.name_ = Phase.SECOND, np.str_("second")
        self.bytes_ = self.bytes_ + np.uint8(1)
        self.parameter_ = torch.nn.Parameter(self.parameter_ + 1)
        net.history.record("phase", Phase.SECOND)


def test_nested_arrays_and_subclasses_of_python_types_are_restored(data, path):
    crash(small(callbacks=[Memory()]), data, path)
    memory = Memory()
    clf = small(callbacks=[memory]).fit(*data, checkpoint=path)
    assert [item["epoch"].tolist() for item in memory.arrays_] == [[i] for i in range(1, 9)]
    assert (memory.phase_, memory.name_) == (Phase.SECOND, "second")
    assert memory.bytes_.tolist() == [8, 9, 10]
    assert memory.bytes_.dtype == np.uint8
    assert memory.parameter_.tolist() == [9.0, 9.0]
    assert clf.history_["phase"] == [2] * 8


def test_a_callback_that_stops_before_training_keeps_the_checkpoint(data, path):
    crash(small(), data, path)
    before = path.read_bytes()

    def stop(net, **kwargs):
        raise KeyboardInterrupt

    with pytest.raises(RuntimeError, match="stopped training before the end of the first epoch"):
        small(callbacks=[Hook(on_train_begin=stop)]).fit(*data, checkpoint=path)
    assert path.read_bytes() == before


def test_a_rejected_checkpoint_draws_nothing_from_the_random_state(data, path):
    crash(small(random_state=np.random.RandomState(0)), data, path)
    rng = np.random.RandomState(0)
    with pytest.raises(ValueError, match="another fit"):
        small(random_state=rng, lr=1e-3).fit(*data, checkpoint=path)
    assert rng.randint(1000) == np.random.RandomState(0).randint(1000)
