"""Checkpoint of a running fit, from which training resumes with bitwise identical results.

The state holds everything that the next update depends on, and a fingerprint of parameters and
data: only a fit with the same fingerprint can resume.
"""

import os
import time
import warnings
from contextlib import suppress

import torch

from sklearn_cls._compat import is_in_cross_validation
from sklearn_cls._persistence.checkpoint_file import CheckpointFile, storable_items, to_storable
from sklearn_cls._persistence.files import FileError, check_path, resolve_links
from sklearn_cls._persistence.fingerprint import check_fingerprint, fit_fingerprint
from sklearn_cls._torch.processes import ONE_PROCESS
from sklearn_cls._training.callbacks import PassiveCallback
from sklearn_cls._training.divergence import DivergenceError
from sklearn_cls._training.state import restore_training_state, training_state

INTERVAL = 5.0  # minimum number of seconds between two writes
SHARE = 0.05  # maximum fraction of the training time that is spent on writing


class Checkpoint(PassiveCallback):
    """Backs up the state of a fit to a file, and restores it when the same fit is called again.

    It must be the last callback, because it also stores the state of the others. It is a context
    manager, too: at the beginning of the fit it locks and reads the file, and at the end it deletes
    a file from which there is nothing to resume.

    Parameters
    ----------
    path : str or None
        Path of the file. With None, no method does anything.
    fingerprint : dict of str, or None
        What must be equal for a fit to resume, see `fit_fingerprint`.
    processes : Processes
        The processes of the fit. The one with rank 0 reads and writes the file.

    Attributes
    ----------
    seed : int or None
        Seed of the fit that the file belongs to; None without a file, until the caller sets it.
    batch_size : int or None
        Batch size of this fit, which "auto" may have chosen for another number of processes.
    """

    def __init__(self, path=None, fingerprint=None, processes=ONE_PROCESS):
        self.path, self.fingerprint, self.processes = path, fingerprint, processes
        self.seed = self.batch_size = None
        self.saved = None  # the state in the file, until it is restored
        # Number of epochs in the file; None until this fit has written or restored it.
        self.n_epochs = None
        self.next_write = 0.0
        self.is_failing = self.is_interrupted = False
        self.file = None if path is None else CheckpointFile(path)

    def __enter__(self):
        """Lock and read the file, if there is one; return the checkpoint.

        Raises
        ------
        ValueError
            If the file belongs to another fit, or is not a checkpoint.
        OSError
            If it cannot be read, or another fit has locked it.
        """
        if self.file is None:
            return self
        try:
            self.saved = self.processes.call_in_first(self._read)
        except BaseException:
            self.file.close()
            raise
        if self.saved is not None:
            self.seed, batch_size = self.saved["seed"], self.saved["net"].get("batch_size")
            self.batch_size = batch_size if isinstance(batch_size, int) else None
        return self

    def _read(self):
        """Return the state in the file, or None if there is none."""
        if not self.file.open():
            return None
        state = check_state(self.path, self.file.read())
        check_fingerprint(self.path, state["fingerprint"], self.fingerprint)
        return state

    def __exit__(self, kind, error, traceback):
        """Delete the file if the fit is finished, has no finished epoch, or has diverged."""
        if self.file is None or self.processes.rank > 0:
            return
        is_finished = kind is None and not self.is_interrupted
        has_diverged = kind is not None and issubclass(kind, DivergenceError)
        try:
            if self.n_epochs == 0 or (self.n_epochs and (is_finished or has_diverged)):
                with suppress(OSError):
                    self.file.remove()
        finally:
            self.file.close()

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Restore the state from the file, or write the first checkpoint now.

        Writing it now makes an invalid path raise before training.
        """
        if self.file is None or (net.stop_requested and self.processes.size == 1):
            return
        if self.saved is None:
            self.write(net)
        else:
            self.restore(net)
            self.n_epochs, self.saved = len(net.history), None

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Write the file, unless it was written recently or training is about to stop."""
        if self.file is None:
            return
        is_due = not net.stop_requested and time.monotonic() >= self.next_write
        if not self.processes.broadcast(is_due):  # clocks differ
            return
        try:
            self.write(net)
        except OSError as error:  # losing the fit would be worse than losing its checkpoint
            if not self.is_failing and self.processes.rank == 0:
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
        self.processes.call_in_first(self.file.write, state)
        self.n_epochs, end = len(net.history), time.monotonic()
        self.next_write = end + max(INTERVAL, (end - start) / SHARE)

    def restore(self, net):
        """Restore the net and the attributes of its callbacks from the file."""
        try:
            restore_training_state(net, self.saved["net"])
            for item in net.callbacks_:
                restore_callback(item[1], self.saved["callbacks"].get(callback_key(item), {}))
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise FileError(
                f"checkpoint={self.path!r} cannot be restored ({error!r}); delete it to start a "
                "new fit."
            ) from error


def open_checkpoint(
    path, estimator, data, valid, groups, classes, vocabularies, device, warm_start_net, processes
):
    """Return the checkpoint of a fit of `estimator` to the dataset `data`.

    `valid` is the validation dataset, or None; `groups` are those of `data`, or None.
    """
    if path is None:
        return Checkpoint()
    if is_in_cross_validation():
        raise ValueError(
            f"checkpoint={path!r} is the file of one fit, but a search or a cross-validation fits "
            "many times. Call it without checkpoint (and with refit=False), then fit the best "
            "estimator with checkpoint."
        )
    # The path is resolved now, because a callback may change the working directory.
    folder, name = os.path.split(resolve_links(check_path(path, "checkpoint")))
    path = os.path.join(os.path.realpath(folder or ".", strict=True), name)
    fingerprint = fit_fingerprint(
        estimator, data, valid, groups, classes, vocabularies, device, warm_start_net
    )
    return Checkpoint(path, fingerprint, processes)


def check_state(path, state):
    """Return the state in the file `path`; raise FileError if no fit has written it."""
    parts = {"fingerprint": dict, "seed": int, "net": dict, "callbacks": dict}
    if (
        not isinstance(state, dict)
        or state.keys() != parts.keys()
        or not all(isinstance(state[name], kind) for name, kind in parts.items())
        or not 0 <= state["seed"] < 2**32
    ):
        raise FileError(
            f"checkpoint={path!r} does not have the content of a checkpoint; delete it to start a "
            "new fit."
        )
    return state


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


def restore_callback(callback, state):
    """Set the attributes that `callback_state` returned."""
    for name, (kind, value) in state.items():
        if name.startswith("__") or not name.endswith("_"):
            raise ValueError(f"{name!r} is not an attribute that training sets")
        if kind == "state_dict":
            getattr(callback, name).load_state_dict(value)
        else:
            setattr(callback, name, value)
