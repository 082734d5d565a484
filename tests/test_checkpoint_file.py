"""Damaged, impossible and outdated checkpoints, and checkpoints that two fits want at once."""

import json
import os
import subprocess
import sys
import threading
from importlib.metadata import PackageNotFoundError
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch

from sklearn_cls._persistence import checkpoint, checkpoint_file, files
from sklearn_cls._persistence.checkpoint_file import MAGIC, CheckpointFile, digest_of, read_state
from tests.helpers import Hook, bumps, read_checkpoint, small, stop_after

needs_locks = pytest.mark.skipif(files.fcntl is None, reason="needs flock")


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    """Write a checkpoint after every epoch, however short it is."""
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", np.inf)


def fail(net, **kwargs):
    if len(net.history) == 3:
        raise ZeroDivisionError


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """Return the content of a checkpoint with two epochs."""
    path = tmp_path_factory.mktemp("fit") / "checkpoint"
    clf = small(callbacks=[Hook(on_epoch_begin=fail)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "INTERVAL", 0.0)
        patch.setattr(checkpoint, "SHARE", np.inf)
        with pytest.raises(ZeroDivisionError):
            clf.fit(*bumps(), checkpoint=path)
    return path.read_bytes()


@pytest.fixture
def path(content, tmp_path):
    (tmp_path / "checkpoint").write_bytes(content)
    return tmp_path / "checkpoint"


def message_of(content):
    """Return the error that reading this content raises."""
    with pytest.raises(ValueError, match=r"^checkpoint='x' ") as raised:
        read_state(BytesIO(content), "x")
    return str(raised.value)


def test_any_flipped_bit_of_a_checkpoint_is_reported_as_damage(content):
    head = len(MAGIC) + checkpoint_file.DIGEST_SIZE + content[65:].index(b"\n") + 1
    sample = np.random.default_rng(0).integers(8 * head, 8 * len(content), 210)
    for i in [*range(8 * head), *sample, 8 * len(content) - 1]:
        flipped = bytearray(content)
        flipped[i // 8] ^= 1 << i % 8
        assert "is damaged: its SHA-256" in message_of(flipped), i


def test_a_truncated_or_lengthened_checkpoint_is_reported_as_damage(content):
    start = len(MAGIC)
    for n in [*range(0, start + 300), *range(start + 300, len(content), 997), len(content) - 1]:
        assert "is damaged: its SHA-256" in message_of(content[:n]), n
    assert "is damaged: its SHA-256" in message_of(content + b"x")


def test_a_fit_neither_resumes_from_nor_changes_a_damaged_checkpoint(content, data, path):
    for i in (0, len(MAGIC), len(content) // 2, len(content) - 1):
        flipped = bytearray(content)
        flipped[i] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match="checkpoint' is damaged"):
            small().fit(*data, checkpoint=path)
        assert path.read_bytes() == flipped


@pytest.mark.parametrize("other", [b"notes", b"PK\3\4" * 100, b"x" * 1000, b"sklearn_cls" * 9])
def test_a_file_that_is_not_a_checkpoint_is_not_called_damaged(other):
    assert "is not a checkpoint; delete the file" in message_of(other)


def test_a_checkpoint_of_another_format_names_both_formats(content):
    other = content.replace(b"format 4", b"format 2", 1)
    digest = digest_of(b"")
    assert "has format 2, but sklearn_cls " in message_of(
        other[: len(MAGIC)] + digest + other[len(MAGIC) + len(digest) :]
    )


def with_changed(content, change):
    """Return a checkpoint with a valid digest whose versions or state `change` has changed."""
    versions, _, payload = content[len(MAGIC) + checkpoint_file.DIGEST_SIZE :].partition(b"\n")
    versions = json.loads(versions)
    state = torch.load(BytesIO(payload), weights_only=True)
    result = change(versions, state)
    buffer = BytesIO()
    torch.save(state if result is None else result, buffer)
    rest = json.dumps(versions).encode() + b"\n" + buffer.getvalue()
    return MAGIC + digest_of(rest) + rest


@pytest.mark.parametrize("name", ["sklearn_cls", "torch", "numpy", "scikit-learn", "skorch"])
def test_a_checkpoint_of_another_version_is_refused_by_both_versions_and_kept(
    name, content, data, path
):
    here = checkpoint_file.current_versions()[name]
    changed = with_changed(content, lambda versions, state: versions.update({name: "0.9"}))
    path.write_bytes(changed)
    message = f"was written with {name} 0.9, but this is {name} {here}.*Install {name}==0.9"
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        small().fit(*data, checkpoint=path)
    assert path.read_bytes() == changed


def test_a_fit_is_resumed_by_a_process_that_cannot_read_the_metadata_of_packages(
    data, path, monkeypatch
):
    def distribution(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.distribution", distribution)
    clf = small().fit(*data, checkpoint=path)
    assert clf.loss_curve_ == small().fit(*data).loss_curve_


def test_a_checkpoint_of_another_version_of_python_is_resumed(content, data, path):
    path.write_bytes(with_changed(content, lambda versions, _: versions.update(python="3.10.0")))
    clf = small().fit(*data, checkpoint=path)
    assert clf.loss_curve_ == small().fit(*data).loss_curve_


OWN = "random_states", 0  # those of the only process


def put(*keys, value):
    """Return a function that sets a value in a nested state."""

    def change(versions, state):
        for key in keys[:-1]:
            state = state[key]
        state[keys[-1]] = value

    return change


def drop(*keys):
    """Return a function that removes a key of a nested state."""

    def change(versions, state):
        for key in keys[:-1]:
            state = state[key]
        del state[keys[-1]]

    return change


def first_weight(state):
    return next(iter(state["net"]["module"]))


def spoil_weight(value):
    def change(versions, state):
        name = first_weight(state)
        state["net"]["module"][name] = value(state["net"]["module"][name])

    return change


IMPOSSIBLE = {
    "list": lambda versions, state: [state],
    "number": lambda versions, state: 5,
    "empty": lambda versions, state: {},
    "versions missing": lambda versions, state: versions.clear(),
    **{f"no {k}": drop(k) for k in ("fingerprint", "seed", "net", "callbacks")},
    "extra": put("extra", value=1),
    "fingerprint list": put("fingerprint", value=[]),
    "fingerprint empty": put("fingerprint", value={}),
    **{f"seed {v}": put("seed", value=v) for v in (None, "0", -1, 2**40, 0.5)},
    "net list": put("net", value=[]),
    **{
        f"no net {k}": drop("net", k)
        for k in (
            "module", "optimizer", "schedule", "random_states", "batch_size",
            "n_micro_batches",
            "n_epochs_trained", "history",
        )
    },
    **{
        f"{k} {v}": put("net", k, value=v)
        for k in ("batch_size", "n_micro_batches", "n_epochs_trained")
        for v in (-1, None, "1")
    },
    "module empty": put("net", "module", value={}),
    "weight of another shape": spoil_weight(lambda w: w[:1]),
    "weight of another type": spoil_weight(lambda w: w.double()),
    "weight that is NaN": spoil_weight(lambda w: w * torch.nan),
    "weight that is a number": spoil_weight(lambda w: 1.0),
    "optimizer empty": put("net", "optimizer", value={}),
    "group missing": put("net", "optimizer", "param_groups", value=[]),
    "no lr": drop("net", "optimizer", "param_groups", 0, "lr"),
    "lr text": put("net", "optimizer", "param_groups", 0, "lr", value="1"),
    "moments of no parameter": put("net", "optimizer", "state", 999, value={}),
    "moments by name": put("net", "optimizer", "state", "a", value={}),
    "moments empty": put("net", "optimizer", "state", 0, value={}),
    "moment of another shape": put(
        "net", "optimizer", "state", 0, "exp_avg", value=torch.zeros(1)
    ),
    "schedule empty": put("net", "schedule", value={}),
    "schedule too short": put("net", "schedule", "base_lrs", value=[]),
    "random_states empty": put("net", "random_states", value=[]),
    "random_states number": put("net", "random_states", value=3),
    "generators missing": put("net", *OWN, "generators", value=[]),
    "generator of zeros": put(
        "net", *OWN, "generators", 0, value=torch.zeros(5056, dtype=torch.uint8)
    ),
    "batches empty": put("net", *OWN, "batches", value={}),
    "rng None": put("net", *OWN, "batches", "rng", value=None),
    "rng of another kind": put("net", *OWN, "batches", "rng", "bit_generator", value="MT19937"),
    "rng negative": put("net", *OWN, "batches", "rng", "state", "state", value=-1),
    "history number": put("net", "history", value=3),
    "history of numbers": put("net", "history", value=[1, 2]),
    "epoch without a loss": drop("net", "history", 0, "train_loss"),
    "unfinished epoch": drop("net", "history", 0, "dur"),
    "callbacks list": put("callbacks", value=[]),
    "callback number": put("callbacks", "train_loss: PassthroughScoring", value=1),
    "callback without kinds": put("callbacks", "train_loss: PassthroughScoring", value={"n_": 1}),
    "method of a callback": put(
        "callbacks", "train_loss: PassthroughScoring", value={"on_epoch_end": ("value", 1)}
    ),
    "class of a callback": put(
        "callbacks", "train_loss: PassthroughScoring", value={"__class__": ("value", 1)}
    ),
    "state of no scheduler": put(
        "callbacks", "train_loss: PassthroughScoring", value={"lr_": ("state_dict", {})}
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_an_impossible_state_with_a_valid_digest_is_refused_and_kept(change, content, data, path):
    changed = with_changed(content, change)
    path.write_bytes(changed)
    clf = small()
    with pytest.raises(ValueError, match=r"^checkpoint='.*/checkpoint' .*delete"):
        clf.fit(*data, checkpoint=path)
    assert not hasattr(clf, "classes_")
    assert path.read_bytes() == changed


def test_versions_that_are_no_json_object_are_refused():
    for versions in (b"", b"[1]", b"{", b"5", b"\xff"):
        rest = versions + b"\n"
        assert "cannot be read as a checkpoint" in message_of(MAGIC + digest_of(rest) + rest)


def test_running_out_of_memory_while_a_checkpoint_is_restored_does_not_advise_to_delete_it(
    data, path, monkeypatch
):
    def fail(*args):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr("sklearn_cls._data.batches.Batches.load_state_dict", fail)
    with pytest.raises(torch.OutOfMemoryError):
        small().fit(*data, checkpoint=path)
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: bytearray(2**62))
    with pytest.raises(MemoryError):
        small().fit(*data, checkpoint=path)
    assert path.exists()


@pytest.mark.skipif(not hasattr(os, "fchmod"), reason="needs POSIX permissions")
def test_a_checkpoint_is_readable_by_its_owner_only_and_keeps_a_mode_that_is_set(data, tmp_path):
    modes, path = [], tmp_path / "checkpoint"

    def look(net, **kwargs):
        modes.append(oct(path.stat().st_mode & 0o777))
        path.chmod(0o640)

    small(max_epochs=3, callbacks=[Hook(on_epoch_begin=look)]).fit(*data, checkpoint=path)
    assert modes == ["0o600", "0o640", "0o640"]


@needs_locks
def test_a_second_fit_with_the_checkpoint_of_a_running_one_is_refused_and_harms_nothing(
    data, tmp_path
):
    path, messages = tmp_path / "checkpoint", []

    def fit_again(net, **kwargs):
        before = path.read_bytes()
        for params in ({}, {"lr": 1e-3}):
            with pytest.raises(BlockingIOError) as raised:
                small(**params).fit(*data, checkpoint=path)
            messages.append(str(raised.value))
        assert path.read_bytes() == before

    clf = small(callbacks=[Hook(on_epoch_end=fit_again)]).fit(*data, checkpoint=path)
    assert clf.loss_curve_ == small().fit(*data).loss_curve_
    assert len(messages) == 16
    assert set(messages) == {
        f"checkpoint='{path}' is in use by another fit that is still running; choose another path, "
        "or wait until that fit has ended."
    }
    assert os.listdir(tmp_path) == []


@needs_locks
def test_of_fits_that_start_at_once_with_one_checkpoint_one_runs_and_the_others_are_refused(
    data, tmp_path
):
    small(max_epochs=1).fit(*data)
    outcomes, barrier = [], threading.Barrier(4)

    def fit():
        barrier.wait()
        try:
            clf = small(max_epochs=20).fit(*data, checkpoint=tmp_path / "checkpoint")
            outcomes.append(clf.loss_curve_)
        except BlockingIOError:
            outcomes.append("in use")

    threads = [threading.Thread(target=fit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    finished = [outcome for outcome in outcomes if outcome != "in use"]
    assert len(outcomes) == 4
    assert len(finished) >= 1
    assert all(curve == finished[0] for curve in finished)
    assert os.listdir(tmp_path) == []


@needs_locks
def test_a_fit_whose_checkpoint_another_fit_has_taken_over_warns_and_leaves_it(data, tmp_path):
    path, other = tmp_path / "checkpoint", CheckpointFile(str(tmp_path / "checkpoint"))

    def take_over(net, **kwargs):
        if len(net.history) == 3:
            path.unlink()
            other.write({"taken": 1})

    with pytest.warns(UserWarning, match="could not be written after epoch 3: .*is in use by an"):
        small(callbacks=[Hook(on_epoch_begin=take_over)]).fit(*data, checkpoint=path)
    assert read_checkpoint(path) == {"taken": 1}
    other.remove()
    other.close()


def test_a_checkpoint_that_another_fit_creates_just_before_the_first_write_is_not_replaced(
    tmp_path, monkeypatch
):
    def create_other(*args, **kwargs):
        monkeypatch.undo()
        other.write({"first": 1})
        return files.replace_file(*args, **kwargs)

    path = str(tmp_path / "checkpoint")
    file, other = CheckpointFile(path), CheckpointFile(path)
    monkeypatch.setattr(checkpoint_file, "replace_file", create_other)
    with pytest.raises(BlockingIOError, match="in use by another fit"):
        file.write({"second": 2})
    assert read_checkpoint(path) == {"first": 1}
    other.close()


def test_a_checkpoint_that_is_deleted_during_the_fit_is_written_again(data, tmp_path):
    path, existed = tmp_path / "checkpoint", []

    def delete(net, **kwargs):
        existed.append(path.exists())
        path.unlink()

    small(callbacks=[Hook(on_epoch_begin=delete)]).fit(*data, checkpoint=path)
    assert existed == [True] * 8
    assert os.listdir(tmp_path) == []


@needs_locks
def test_a_checkpoint_is_free_after_an_error_even_if_a_forked_process_still_has_it_open(
    data, tmp_path
):
    reader, writer = os.pipe()
    pids = []

    def fork(net, **kwargs):
        if len(net.history) == 3:
            pids.append(os.fork())
            if pids[-1] == 0:
                os.close(writer)
                os.read(reader, 1)
                os._exit(0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        small(callbacks=[Hook(on_epoch_begin=fork)]).fit(*data, checkpoint=tmp_path / "checkpoint")
    clf = small().fit(*data, checkpoint=tmp_path / "checkpoint")
    os.close(writer)
    os.waitpid(pids[0], 0)
    os.close(reader)
    assert clf.loss_curve_ == small().fit(*data).loss_curve_


def test_a_file_that_was_replaced_while_it_was_opened_is_opened_again(path, monkeypatch):
    paths = []

    def is_at(path, status):
        paths.append(path)
        return len(paths) > 2

    monkeypatch.setattr(checkpoint_file, "is_at", is_at)
    file = CheckpointFile(str(path))
    assert file.open()
    assert len(paths) == 3
    file.close()


HOLD = """
import sys
from sklearn_cls._persistence.checkpoint_file import CheckpointFile
file = CheckpointFile(sys.argv[1])
file.open()
print("open", flush=True)
sys.stdin.read()
"""


@needs_locks
def test_a_checkpoint_is_refused_while_another_process_uses_it_and_free_once_that_is_killed(
    data, path
):
    command = [sys.executable, "-c", HOLD, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == "open\n"
        with pytest.raises(BlockingIOError, match="in use by another fit"):
            small().fit(*data, checkpoint=path)
        process.kill()
    clf = small().fit(*data, checkpoint=path)
    assert clf.loss_curve_ == small().fit(*data).loss_curve_
    assert not Path(path).exists()


def test_a_stop_that_a_callback_asks_for_is_the_end_of_the_fit_and_of_its_checkpoint(
    data, tmp_path
):
    clf = small(callbacks=[stop_after(3)]).fit(*data, checkpoint=tmp_path / "checkpoint")
    assert clf.n_iter_ == 3
    assert os.listdir(tmp_path) == []
