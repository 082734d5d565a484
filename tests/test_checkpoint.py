import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from skorch.callbacks import Callback, LRScheduler
from torch.optim.lr_scheduler import StepLR

from sklearn_cls._persistence import checkpoint
from sklearn_cls._persistence.tensor_file import open_file
from tests.helpers import small


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", np.inf)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint"


class Crash(Callback):
    """Raise an error in the second batch of an epoch."""

    def __init__(self, epoch, error=ZeroDivisionError):
        self.epoch, self.error = epoch, error

    def on_batch_begin(self, net, batch=None, training=None, **kwargs):
        if training and len(net.history) == self.epoch and net.history[-1]["batches"]:
            raise self.error


def crash(clf, data, path, epoch=4, **kwargs):
    """Fit until something fails in `epoch`."""
    callbacks = clf.callbacks
    clf.set_params(callbacks=[*(callbacks or []), Crash(epoch)])
    with pytest.raises(ZeroDivisionError):
        clf.fit(*data, checkpoint=path, **kwargs)
    clf.set_params(callbacks=callbacks)


def weights(clf):
    return {name: value.numpy() for name, value in clf.module_.state_dict().items()}


def assert_equal(clf, other):
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
def test_a_fit_that_goes_on_from_its_checkpoint_ends_as_one_that_never_failed(params, data, path):
    X, y = data
    X = [x[: 12 + i % 9] for i, x in enumerate(X)]
    clf = small(**params)
    for epoch in (2, 5, 5, 6):  # fails again and again
        crash(clf, (X, y), path, epoch)
    assert path.exists()
    clf.fit(X, y, checkpoint=path)
    assert_equal(clf, small(**params).fit(X, y))
    assert os.listdir(path.parent) == []


def test_a_seed_that_nobody_gave_is_that_of_the_checkpoint(data, path):
    clf = small(random_state=None)
    crash(clf, data, path)
    with open_file(path) as file:
        seed = file.document["seed"]
    assert clf.fit(*data, checkpoint=path).net_.seed == seed


def test_a_warm_start_goes_on_from_its_checkpoint(data, path, tmp_path):
    once = small(warm_start=True).fit(*data)
    once.save(tmp_path / "once")
    clf = type(once).load(tmp_path / "once")
    crash(clf, data, path)
    assert_equal(clf.fit(*data, checkpoint=path), once.fit(*data))
    crash(clf, data, path)
    with pytest.raises(ValueError, match="there warm_start is another"):
        small(warm_start=True).fit(*data, checkpoint=path)


@pytest.mark.parametrize("n_fits_before", [None, 0, 1])
def test_an_interrupt_keeps_the_checkpoint_and_the_same_call_goes_on(
    n_fits_before, data, path, monkeypatch
):
    clf, whole = (small(warm_start=n_fits_before is not None) for _ in range(2))
    for _ in range(n_fits_before or 0):
        clf.fit(*data)
        whole.fit(*data)
    original = checkpoint.Checkpoint.epoch_done

    def interrupt(checkpoint, net, batches):
        original(checkpoint, net, batches)
        if len(net.history) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.Checkpoint, "epoch_done", interrupt)
    with pytest.warns(UserWarning, match="Fit again, with checkpoint=.* to go on where it was"):
        clf.fit(*data, checkpoint=path)
    monkeypatch.undo()
    assert clf.n_iter_ == 5
    assert path.exists()
    clf.fit(*data, checkpoint=path)
    assert_equal(clf, whole.fit(*data))
    assert clf.net_.n_epochs_so_far == whole.net_.n_epochs_so_far
    assert not path.exists()
    assert_equal(clf.fit(*data, checkpoint=path), whole.fit(*data))


def test_a_callback_that_ends_the_training_is_not_asked_twice(data, path):
    class StopAt3(Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 3:
                raise KeyboardInterrupt

    clf = small(callbacks=[StopAt3()]).fit(*data, checkpoint=path)
    assert clf.n_iter_ == 3
    assert not path.exists()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"lr": 1e-3}, r"lr is 0.005, not 0.001"),
        ({"depth": 1}, "depth is 2, not 1"),
        ({"random_state": 1}, "random_state is 0, not 1"),
        ({"random_state": None}, "random_state is 0, not None"),
        ({"max_epochs": 9}, "max_epochs is 8, not 9"),
        ({"class_weight": {0: 2.0}}, "sample_weight is another"),
    ],
    ids=str,
)
def test_other_parameters_are_refused_by_name(change, what, data, path):
    crash(small(), data, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"checkpoint' is of another fit: there {what}"):
        small(**change).fit(*data, checkpoint=path)
    assert path.read_bytes() == before


def test_other_data_are_refused_by_name(data, path):
    X, y = data
    crash(small(), data, path)
    changed = X.copy()
    changed[-1, -1, -1] += 1e-3
    for args, what in [
        ((changed, y), "X"), ((X[:-1], y[:-1]), "X"), ((X, 1 - y), "y"),
        ((X, y.astype(str)), "y"), ((X, y, np.linspace(1, 2, 60)), "sample_weight"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=f"another fit: there {what} is another"):
            small().fit(*args, checkpoint=path)
    small().fit(X.astype(np.float64), y.tolist(), checkpoint=path)  # the same in other clothes


def test_what_does_not_change_the_weights_may_be_another(data, path, capsys):
    crash(small(), data, path)
    clf = small(verbose=1, n_jobs=1, device="cpu").fit(*data, checkpoint=path)
    assert_equal(clf, small().fit(*data))
    assert "8/8" in capsys.readouterr().err


def test_a_file_that_is_no_checkpoint_is_neither_read_nor_touched(data, path, fitted):
    path.write_text("notes")
    with pytest.raises(ValueError, match="truncated, or no safetensors file"):
        small().fit(*data, checkpoint=path)
    assert path.read_text() == "notes"
    fitted.save(path)
    with pytest.raises(ValueError, match="no checkpoint of format 1; delete it"):
        small().fit(*data, checkpoint=path)
    assert path.exists()


@pytest.mark.parametrize("wrong", [7, True, ["a"]])
def test_a_checkpoint_that_is_no_path_is_named(wrong, data):
    with pytest.raises(TypeError, match="checkpoint must be the path of a file or None"):
        small().fit(*data, checkpoint=wrong)


def test_a_folder_that_is_not_there_is_named_before_anything_is_trained(data, tmp_path):
    clf = small(callbacks=[Crash(1)])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        clf.fit(*data, checkpoint=tmp_path / "nowhere" / "checkpoint")
    assert not hasattr(clf, "net_")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="rights of POSIX")
def test_a_folder_that_may_not_be_written_is_named_before_anything_is_trained(data, fitted):
    is_root = os.geteuid() == 0
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        small(max_epochs=1).fit(*data, checkpoint=path)  # imports all
        os.chmod(folder, 0o555)
        try:
            if is_root:
                os.seteuid(65534)
            with pytest.raises(PermissionError, match="file"):
                small(callbacks=[Crash(1)]).fit(*data, checkpoint=path)
            with pytest.raises(PermissionError, match="file"):
                fitted.save(path)
        finally:
            if is_root:
                os.seteuid(0)
            os.chmod(folder, 0o755)


def test_a_disk_that_fills_up_later_is_a_warning_and_the_fit_goes_on(data, path, monkeypatch):
    original, n_calls = os.fsync, []

    def fill_up(descriptor):
        n_calls.append(descriptor)
        if 4 < len(n_calls) < 9:  # twice for a file: its own and that of the folder
            raise OSError(28, "No space left on device")
        original(descriptor)

    monkeypatch.setattr("sklearn_cls._persistence.tensor_file.os.fsync", fill_up)
    message = "could not be written after epoch 2.*No space left on device"
    with pytest.warns(UserWarning, match=message) as caught:
        clf = small().fit(*data, checkpoint=path)
    assert len(caught) == 1
    assert_equal(clf, small().fit(*data))
    assert os.listdir(path.parent) == []


def test_a_fit_that_diverges_leaves_no_checkpoint_that_would_diverge_again(data, path):
    clf = small(lr=1e30, warmup_fraction=0.0)
    with pytest.raises(ValueError, match="in epoch 1; lower lr"):
        clf.fit(*data, checkpoint=path)
    assert os.listdir(path.parent) == []
    clf.set_params(lr=1e-3).fit(*data, checkpoint=path)


def test_an_error_before_the_first_epoch_is_done_leaves_no_checkpoint(data, path):
    crash(small(), data, path, epoch=1)
    assert os.listdir(path.parent) == []


def test_an_error_before_the_first_epoch_of_a_resumed_fit_leaves_the_checkpoint(
    data, path, monkeypatch
):
    crash(small(), data, path)

    def fail(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr("sklearn_cls._persistence.checkpoint.restore", fail)
    with pytest.raises(ZeroDivisionError):
        small().fit(*data, checkpoint=path)
    assert path.exists()


def test_short_epochs_are_not_written_each(data, path, monkeypatch):
    monkeypatch.setattr(checkpoint, "INTERVAL", 3600.0)
    original, n_epochs = checkpoint.Checkpoint.write, []
    monkeypatch.setattr(
        checkpoint.Checkpoint,
        "write",
        lambda self, net, batches: (
            n_epochs.append(len(net.history)) or original(self, net, batches)
        ),
    )
    small().fit(*data, checkpoint=path)
    assert n_epochs == [0]


def test_a_history_of_any_length_has_room_in_the_file(data, path):
    class ManyEpochs(Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 2:
                net.history.extend(dict(net.history[-1]) for _ in range(20_000))

    clf = small(callbacks=[ManyEpochs()])
    crash(clf, data, path, epoch=20_004)
    assert clf.fit(*data, checkpoint=path).n_iter_ == 20_003


def test_a_deep_network_and_a_history_of_text_have_room_in_the_file(data, path):
    class Note(Callback):
        def on_epoch_end(self, net, **kwargs):
            net.history.record("note", "x" * 1_000_000)

    X, y = data
    sizes = {"depth": 30, "d_model": 4, "n_heads": 1, "dim_feedforward": 4, "max_epochs": 2}
    clf = small(callbacks=[Note(), Crash(2)], **sizes)
    with pytest.raises(ZeroDivisionError):
        clf.fit(X, y, checkpoint=path)
    assert path.stat().st_size > 1_000_000
    assert small(**sizes).fit(X, y, checkpoint=path).n_iter_ == 2


def test_a_number_of_any_size_may_be_recorded(data, path, tmp_path):
    class Note(Callback):
        def on_epoch_end(self, net, **kwargs):
            net.history.record("number", 2**70)

    clf = small(callbacks=[Note()]).fit(*data, checkpoint=path)
    clf.set_params(callbacks=None).save(tmp_path / "model")
    assert type(clf).load(tmp_path / "model").history_[-1]["number"] == 2**70


def test_a_callback_of_another_kind_begins_anew(data, path):
    crash(small(callbacks=[("mine", LRScheduler("StepLR", step_size=2))]), data, path)
    small(callbacks=[("mine", Callback())]).fit(*data, checkpoint=path)
    assert not path.exists()


def test_a_link_and_a_folder_that_is_left_are_followed(data, path, tmp_path, monkeypatch):
    class Leave(Callback):
        def on_epoch_end(self, net, **kwargs):
            os.chdir("/")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("target")
    crash(small(callbacks=[Leave()]), data, "link")
    assert (tmp_path / "target").is_file()
    monkeypatch.chdir(tmp_path)
    small(callbacks=[Leave()]).fit(*data, checkpoint="link")
    assert os.listdir(tmp_path) == ["link"]


def test_a_search_fits_every_candidate_with_one_checkpoint_after_the_other(data, path):
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(small(max_epochs=2), {"depth": [1, 2]}, cv=2)
    search.fit(*data, checkpoint=path)
    assert not path.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_fits_that_are_killed_end_with_the_weights_of_those_that_are_not(tmp_path):
    import subprocess

    script = [sys.executable, "-m", "tests.kill_fits", "--kills", "6", "--seed", "0"]
    root = Path(__file__).parent.parent
    run = subprocess.run(script, cwd=root, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "kills: 6" in run.stdout
