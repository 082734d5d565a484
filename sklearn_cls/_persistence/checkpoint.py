"""Checkpoint of a running fit, from which training resumes with bitwise identical results.

The file consists of a line that names the format, the SHA-256 digest of the rest, and a state
written by `torch.save`. The state holds everything that the next update depends on, and a
fingerprint of parameters and data: only a fit with the same fingerprint can resume.
"""

import hashlib
import io
import os
import time
import warnings
from contextlib import suppress
from itertools import chain
from pickle import UnpicklingError

import numpy as np
import torch

from sklearn_cls._persistence.files import (
    PRIVATE,
    check_path,
    open_regular,
    resolve_links,
    write_atomically,
)
from sklearn_cls._persistence.tensor_file import FileError
from sklearn_cls._training.callbacks import PassiveCallback
from sklearn_cls._training.divergence import DivergenceError
from sklearn_cls._training.state import restore_training_state, training_state

MAGIC = b"sklearn_cls checkpoint, format 2\n"
INTERVAL = 5.0  # minimum number of seconds between two writes
SHARE = 0.05  # maximum fraction of the training time that is spent on writing
IGNORED_PARAMS = {"callbacks", "class_weight", "device", "n_jobs", "verbose", "warm_start"}
ARRAY = "sklearn_cls.ndarray"  # key of a dict that represents an array


class Checkpoint(PassiveCallback):
    """Backs up the state of a fit to a file, and restores it when the same fit is called again.

    It must be the last callback, because it also stores the state of the others. It is a context
    manager, too: at the end of the fit it deletes a file from which there is nothing to resume.

    Parameters
    ----------
    path : str or None
        Path of the file. With None, no method does anything.
    fingerprint : dict of str, or None
        What must be equal for a fit to resume, see `fit_fingerprint`.

    Attributes
    ----------
    seed : int or None
        Seed of the fit that the file belongs to; None without a file, until the caller sets it.

    Raises
    ------
    ValueError
        If the file belongs to another fit, or is not a checkpoint.
    """

    def __init__(self, path=None, fingerprint=None):
        self.path, self.fingerprint = path, fingerprint
        self.seed = None
        self.saved = None  # the state in the file, until it is restored
        # Number of epochs in the file; None until this fit has written or restored it.
        self.n_epochs = None
        self.next_write = 0.0
        self.is_failing = self.is_interrupted = False
        if path is not None and os.path.exists(path):
            self.saved = read_checkpoint(path)
            check_fingerprint(path, self.saved["fingerprint"], fingerprint)
            self.seed = self.saved["seed"]

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Restore the state from the file, or write the first checkpoint now.

        Writing it now makes an invalid path raise before training.
        """
        if self.path is None or net.stop_requested:
            return
        if self.saved is None:
            self.write(net)
        else:
            restore_training_state(net, self.saved["net"])
            self.restore_callbacks(net, self.saved["callbacks"])
            self.n_epochs, self.saved = len(net.history), None

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Write the file, unless it was written recently or training is about to stop."""
        if self.path is None or net.stop_requested or time.monotonic() < self.next_write:
            return
        try:
            self.write(net)
        except OSError as error:  # losing the fit would be worse than losing its checkpoint
            if not self.is_failing:
                self.is_failing = True
                warnings.warn(
                    f"checkpoint={self.path!r} could not be written after epoch "
                    f"{len(net.history)}: {error}. Training continues, and writing will be "
                    "retried.",
                    UserWarning,
                    stacklevel=2,
                )

    def on_train_end(self, net, X=None, y=None, **kwargs):
        """Record whether Ctrl-C ended the training.

        If it did, a file that contains finished epochs is kept.
        """
        self.is_interrupted = net.is_interrupted
        if self.n_epochs and self.is_interrupted:
            net.resumed_from = self.fingerprint["warm_start"]

    def write(self, net):
        """Write the file."""
        start = time.monotonic()
        net_state = training_state(net)
        net_state["history"] = [storable_items(epoch) for epoch in net_state["history"]]
        state = {
            "fingerprint": self.fingerprint,
            "seed": self.seed,
            "net": to_storable(net_state),
            "callbacks": {callback_key(item): callback_state(item[1]) for item in net.callbacks_},
        }
        write_checkpoint(self.path, state)
        self.n_epochs, end = len(net.history), time.monotonic()
        self.next_write = end + max(INTERVAL, (end - start) / SHARE)

    def restore_callbacks(self, net, states):
        """Set the stored attributes of the callbacks."""
        for item in net.callbacks_:
            for name, (kind, value) in states.get(callback_key(item), {}).items():
                if kind == "state_dict":
                    getattr(item[1], name).load_state_dict(value)
                else:
                    setattr(item[1], name, value)

    def __enter__(self):
        """Return the checkpoint."""
        return self

    def __exit__(self, kind, error, traceback):
        """Delete the file if the fit is finished, has no finished epoch, or has diverged."""
        if self.n_epochs is None:
            return
        is_finished = kind is None and not self.is_interrupted
        has_diverged = kind is not None and issubclass(kind, DivergenceError)
        if is_finished or has_diverged or self.n_epochs == 0:
            with suppress(OSError):
                os.remove(self.path)


def open_checkpoint(path, estimator, data, classes, device, warm_start_net):
    """Return the checkpoint of a fit of `estimator` to the dataset `data`."""
    if path is None:
        return Checkpoint()
    # The path is resolved now, because a callback may change the working directory.
    folder, name = os.path.split(resolve_links(check_path(path, "checkpoint")))
    path = os.path.join(os.path.realpath(folder or ".", strict=True), name)
    fingerprint = fit_fingerprint(estimator, data, classes, device, warm_start_net)
    return Checkpoint(path, fingerprint)


def write_checkpoint(path, state):
    """Write `state` to a file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    write_atomically(path, MAGIC + hashlib.sha256(payload).digest() + payload, PRIVATE)


def read_checkpoint(path):
    """Return the state that `write_checkpoint` wrote, without running any code in the file."""
    with open_regular(path) as file:
        content = file.read(len(MAGIC))
        if content != MAGIC:
            raise FileError(
                f"checkpoint={path!r} is not a checkpoint of format 2; delete it, or choose "
                "another path."
            )
        digest, payload = file.read(hashlib.sha256().digest_size), file.read()
    if hashlib.sha256(payload).digest() != digest:
        raise FileError(
            f"checkpoint={path!r} is damaged: its SHA-256 digest does not match its content; "
            "delete it to start a new fit."
        )
    try:
        state = torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
    except (EOFError, RuntimeError, UnpicklingError):
        # The message of torch is left out: it advises running the code in the file.
        raise FileError(
            f"checkpoint={path!r} cannot be read as a checkpoint; delete it to start a new fit."
        ) from None
    return from_storable(state)


def fit_fingerprint(estimator, data, classes, device, warm_start_net):
    """Return what two fits must have in common for one to resume the other."""
    params = estimator.get_params(deep=False)
    described = {k: describe(v) for k, v in params.items() if k not in IGNORED_PARAMS}
    weights = {} if warm_start_net is None else warm_start_net.module_.state_dict()
    return {
        **described,
        "device": device.split(":")[0],
        "X": sha256(chain([data.lengths], data.sequences.chunks(data.indices))),
        "y": f"{classes.tolist()} {sha256([data.y, data.indices])}",
        "sample_weight": sha256([data.weights]),
        # After an interruption, the estimator holds partly trained weights, so the stored hash of
        # the weights that the fit started from is used.
        "warm_start": getattr(warm_start_net, "resumed_from", None)
        or sha256(value.cpu().numpy() for value in weights.values()),
    }


def check_fingerprint(path, saved, expected):
    """Raise ValueError if the fingerprints differ, naming the first parameter that does."""
    for name, value in expected.items():
        if saved.get(name) != value:
            difference = {
                "X": "in which X is different",
                "y": "in which y is different",
                "sample_weight": "in which sample_weight or class_weight is different",
                "warm_start": "which started from different weights (warm_start=True)",
            }.get(name, f"in which {name} is {saved.get(name)}, not {value}")
            raise ValueError(
                f"checkpoint={path!r} belongs to another fit, {difference}. Undo this change to "
                "resume that fit, or delete the file to start a new one."
            )


def describe(value):
    """Return a parameter as text that is the same in every process."""
    if isinstance(value, np.random.RandomState):
        return "a RandomState"
    return repr(value.item() if isinstance(value, np.generic) else value)


def sha256(arrays):
    """Return the SHA-256 digest of some arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def callback_key(item):
    """Return the name and the class of a callback, which identify it."""
    name, callback = item
    return f"{name}: {type(callback).__qualname__}"


def callback_state(callback):
    """Return the attributes of a callback that training sets, which skorch names with a final "_".

    Each is a pair of ("value", value), or of ("state_dict", state) for a scheduler. Attributes that
    cannot be stored are left out.
    """
    state = {}
    for name, value in vars(callback).items():
        if not name.endswith("_"):
            continue
        if hasattr(value, "state_dict") and not isinstance(value, type):
            state[name] = ("state_dict", value.state_dict())
        else:
            state[name] = ("value", value)
    return storable_items(state)


def storable_items(mapping):
    """Return the items of `mapping` that `to_storable` accepts."""
    items = {}
    for key, value in mapping.items():
        with suppress(TypeError):
            items[key] = to_storable(value)
    return items


def to_storable(value):
    """Return `value` in types that `torch.load(weights_only=True)` accepts.

    Subclasses, such as NumPy scalars and members of enumerations, become the plain Python type;
    arrays become tensors that `from_storable` recognizes.

    Raises
    ------
    TypeError
        For any type except None, numbers, text, tensors, numeric arrays, and dicts, lists and
        tuples of them.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) is torch.Tensor:
        return value
    for plain in (bool, int, float, str):  # bool first, because it is a subclass of int
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, torch.Tensor):
        return value.detach().as_subclass(torch.Tensor)
    if isinstance(value, np.ndarray):
        return {ARRAY: torch.from_numpy(value.copy())}
    if isinstance(value, dict):
        return {to_storable(k): to_storable(v) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(to_storable, value))
    raise TypeError(f"{type(value).__name__} cannot be stored in a checkpoint.")


def from_storable(value):
    """Return the inverse of `to_storable`."""
    if isinstance(value, dict):
        if value.keys() == {ARRAY}:
            return value[ARRAY].numpy()
        return {k: from_storable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(from_storable, value))
    return value
