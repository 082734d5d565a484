"""A file that says how far a training is, from which it goes on exactly.

It holds all that the next update depends on: weights, optimiser, schedule, the state of every
generator, and what callbacks remember; and the parameters and SHA-256 of the data of the fit, which
alone may go on from it.
"""

import hashlib
import os
import time
import warnings
from contextlib import suppress
from itertools import chain

import numpy as np

from sklearn_cls._network.dropout import generators
from sklearn_cls._persistence.tensor_file import (
    can_be_written,
    flatten,
    open_file,
    remove_parts,
    unflatten,
    write_file,
)
from sklearn_cls._training.divergence import DivergenceError
from sklearn_cls._training.net import from_columns, to_columns

FORMAT = 1
INTERVAL = 5.0  # seconds between two writes, at least
SHARE = 0.05  # of the time that writing may take
MAX_HEADER = 2**26  # bytes: no stranger's file, and deep networks have many moments
IGNORED_PARAMS = {"callbacks", "class_weight", "device", "n_jobs", "verbose", "warm_start"}


class Checkpoint:
    """The checkpoint of one fit, a context in which the fit is trained.

    Left without an error, it removes the file, unless `is_interrupted` was set.

    Parameters
    ----------
    path : str or None
        Of the file; with None, nothing is done anywhere.
    identity : dict of str, or None
        What a fit must have in common with that of the file, see `fingerprint`.

    Raises
    ------
    ValueError
        If there is a file of another fit, or one that is no checkpoint.
    """

    def __init__(self, path=None, identity=None):
        self.path, self.identity = path, identity
        self.is_interrupted, self.is_failing = False, False
        self.seed, self.state, self.n_epochs, self.due = None, None, None, 0.0
        if path is not None and os.path.exists(path):
            self.read()

    def read(self):
        """Learn from the file how far the fit is."""
        with open_file(self.path, MAX_HEADER) as file:
            if file.document.get("checkpoint") != FORMAT:
                raise ValueError(
                    f"checkpoint={self.path!r} is a file, but no checkpoint of format "
                    f"{FORMAT}; delete it, or name another."
                )
            there = file.document.get("identity", {})
            for name, value in self.identity.items():
                if there.get(name) != value:
                    is_data = name in ("X", "y", "sample_weight", "warm_start")
                    what = "another" if is_data else f"{there.get(name)}, not {value}"
                    raise ValueError(
                        f"checkpoint={self.path!r} is of another fit: there {name} is {what}. "
                        "Fit with what it was to go on, or delete the file to start anew."
                    )
            self.seed = file.document["seed"]
            self.state = unflatten(file.document["state"], file.tensors())

    def seed_of(self, seed):
        """Return the seed of the fit: that of the file, if there is one."""
        self.seed = seed if self.seed is None else self.seed
        return self.seed

    def start(self, net, batches):
        """Go on from the file, or write the first, so that a path that fails does so now."""
        if self.path is None:
            return
        remove_parts(self.path)
        if self.state is None:
            self.write(net, batches)
        else:
            restore(net, batches, self.state)
            self.n_epochs, self.state = len(net.history), None

    def epoch_done(self, net, batches):
        """Write the file, if the last was written long enough ago."""
        if self.path is None or time.monotonic() < self.due:
            return
        try:
            self.write(net, batches)
        except (OSError, ValueError) as error:  # the fit is worth more than its checkpoint
            if not self.is_failing:
                self.is_failing = True
                warnings.warn(
                    f"checkpoint={self.path!r} could not be written after epoch "
                    f"{len(net.history)}: {error}. The fit goes on, and tries again later.",
                    UserWarning,
                    stacklevel=2,
                )

    def write(self, net, batches):
        """Write the file."""
        start, tensors = time.monotonic(), {}
        document = {
            "checkpoint": FORMAT,
            "identity": self.identity,
            "seed": self.seed,
            "state": flatten(state_of(net, batches), tensors, "state"),
        }
        write_file(self.path, document, tensors, MAX_HEADER)
        self.n_epochs, end = len(net.history), time.monotonic()
        self.due = end + max(INTERVAL, (end - start) / SHARE)

    def __enter__(self):
        """Return itself."""
        return self

    def __exit__(self, kind, error, traceback):
        """Remove a file that is of no use: all is done, or nothing yet, or it would fail again."""
        if self.n_epochs is None:  # not ours
            return
        is_done = kind is None and not self.is_interrupted
        if (
            is_done
            or self.n_epochs == 0
            or (kind is not None and issubclass(kind, DivergenceError))
        ):
            with suppress(OSError):
                os.remove(self.path)


def open_checkpoint(path, estimator, data, device, start):
    """Return the checkpoint of a fit to the data set `data`, going on from the net `start`."""
    if path is None:
        return Checkpoint()
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"checkpoint must be the path of a file or None, got {path!r}.")
    # Real, so that it is the same file wherever a callback changes to, and not a link to it.
    return Checkpoint(os.path.realpath(path), fingerprint(estimator, data, device, start))


def fingerprint(estimator, data, device, start):
    """Return what two fits must have in common for one to go on where the other was."""
    parameters = estimator.get_params(deep=False)
    described = {k: describe(v) for k, v in parameters.items() if k not in IGNORED_PARAMS}
    weights = {} if start is None else start.module_.state_dict()
    return {
        **described,
        "device": device.split(":")[0],
        "X": sha256(chain([data.lengths], data.sequences.chunks(data.rows))),
        "y": f"{estimator.classes_.tolist()} {sha256([data.y, data.rows])}",
        "sample_weight": sha256([data.weights]),
        # An interrupted fit leaves other weights, and goes on with those of the file.
        "warm_start": getattr(start, "goes_on_from", None)
        or sha256(value.cpu().numpy() for value in weights.values()),
    }


def describe(value):
    """Return a parameter as text, the same in every process."""
    if isinstance(value, np.random.RandomState):
        return "a RandomState"
    return repr(value.item() if isinstance(value, np.generic) else value)


def sha256(arrays):
    """Return the SHA-256 of some arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def state_of(net, batches):
    """Return all that the next update of `net` depends on."""
    return {
        "module": net.module_.state_dict(),
        "optimizer": net.optimizer_.state_dict(),
        "schedule": net.schedule_.state_dict(),
        "generators": [generator.get_state() for generator in generators(net.module_)],
        "batches": batches.random_state(),
        "n_parts": net.n_parts,
        "n_epochs_before": net.n_epochs_before,
        "history": to_columns([plain(row) for row in net.finished_epochs()]),
        "callbacks": {key_of(item): remembered(item[1]) for item in net.callbacks_},
    }


def restore(net, batches, state):
    """Put back what `state_of` returned."""
    net.module_.load_state_dict(state["module"])
    net.optimizer_.load_state_dict(state["optimizer"])
    net.schedule_.load_state_dict(state["schedule"])
    for generator, its_state in zip(generators(net.module_), state["generators"], strict=True):
        generator.set_state(its_state)
    batches.set_random_state(state["batches"])
    net.n_parts, net.n_epochs_before = state["n_parts"], state["n_epochs_before"]
    net.history.extend({**row, "batches": []} for row in from_columns(state["history"]))
    for item in net.callbacks_:
        for attribute, (kind, value) in state["callbacks"].get(key_of(item), {}).items():
            if kind == "value":
                setattr(item[1], attribute, value)
            else:
                getattr(item[1], attribute).load_state_dict(value)


def key_of(item):
    """Return what tells a callback from the others: its name and kind."""
    name, callback = item
    return f"{name}: {type(callback).__qualname__}"


def remembered(callback):
    """Return what a callback has learnt while training: by skorch's custom, names end in _."""
    state = {}
    for name, value in vars(callback).items():
        if not name.endswith("_"):
            continue
        if hasattr(value, "state_dict") and not isinstance(value, type):  # a scheduler
            kind, value = "state_dict", value.state_dict()
        else:
            kind = "value"
        if can_be_written(value):
            state[name] = (kind, value)
    return state


def plain(mapping):
    """Return the items of `mapping` that can be written."""
    return {key: value for key, value in mapping.items() if can_be_written(value)}
