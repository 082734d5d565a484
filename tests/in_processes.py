"""Functions that the tests run in every process that torchrun starts.

`torchrun -m tests.in_processes NAME FOLDER` calls the function NAME, and writes what it returns to
a file in FOLDER that is named by the rank of the process.
"""

import hashlib
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch

import sklearn_cls
from sklearn_cls._network.encoder import CLSEncoder
from sklearn_cls._training.divergence import DivergenceError
from tests.helpers import Hook, bumps, small, stop_after

TIMEOUT = 20.0
EXACT = {"dropout": 0.0, "augment": False}


def unequal(n=90, seed=0):
    """Return sequences of very different lengths, so that batches consist of groups."""
    X, y = bumps(n, n_steps=60, seed=seed)
    return [x[: 12 + 47 * (i % 7 == 0) - i % 3] for i, x in enumerate(X)], y


# Names, data and parameters of fits whose loss does not depend on random numbers.
FITS = {
    "linear": (bumps, {**EXACT, "embedding": "linear"}),
    "convolutions": (bumps, EXACT),
    "unequal lengths": (unequal, {**EXACT, "class_weight": {0: 1.0, 1: 3.0}}),
    "early stopping": (unequal, {**EXACT, "early_stopping": True, "n_iter_no_change": 3}),
    "fewer sequences than processes": (bumps, {**EXACT, "batch_size": 2, "max_epochs": 2}),
}


def result_of(clf):
    """Return what tests compare of a fitted classifier."""
    digest = hashlib.sha256(repr(clf.loss_curve_).encode())
    for value in clf.module_.state_dict().values():
        digest.update(value.numpy())
    return {
        "digest": digest.hexdigest(),
        "losses": clf.loss_curve_,
        "valid_losses": clf.history_.get("valid_loss", []),
        "accuracy": clf.score(*bumps(seed=1)),
    }


def fit_all():
    """Fit the same in several processes."""
    with sklearn_cls.data_parallel(TIMEOUT):
        return {name: result_of(small(**p).fit(*data())) for name, (data, p) in FITS.items()}


def fit_with_defaults():
    """Fit with dropout and augmentation, twice, and by parts."""
    results = []
    for _ in range(2):
        with sklearn_cls.data_parallel(TIMEOUT):
            results.append(result_of(small().fit(*bumps())))
    with sklearn_cls.data_parallel(TIMEOUT):
        clf = small(augment=False)
        for start in (0, 30):
            X, y = bumps()
            clf.partial_fit(X[start : start + 30], y[start : start + 30])
        return [*results, result_of(clf)]


def decide_together():
    """Stop, interrupt, diverge and run out of memory in one of the processes only."""
    is_second, results = os.environ["RANK"] == "1", {}

    def fit(*callbacks, **params):
        clf = small(callbacks=[*callbacks] if is_second else None, **params)
        return result_of(clf.fit(*bumps()))

    def interrupt(net, **kwargs):
        if len(net.history) == 3:
            signal.raise_signal(signal.SIGINT)

    with sklearn_cls.data_parallel(TIMEOUT):
        results["stopped"] = fit(stop_after(3))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results["interrupted"] = fit(Hook(on_batch_end=interrupt))
            results["warnings"] = [str(w.message) for w in caught]
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            with limited_memory(3 if is_second else 100):
                results["out of memory"] = fit(**EXACT, embedding="linear")
        results["enough memory"] = fit(**EXACT, embedding="linear")
        try:
            fit(lr=1e30, max_epochs=3)
        except DivergenceError as error:
            results["diverged"] = str(error)
        try:
            small(d_model=16 if is_second else 32).fit(*bumps())
        except ValueError as error:
            results["different"] = str(error)
    return results


class limited_memory:
    """A context in which a network runs out of memory with more than `n` sequences."""

    def __init__(self, n):
        self.n, self.embed = n, CLSEncoder.embed

    def __enter__(self):
        def embed(module, x, is_padding=None):
            result = self.embed(module, x, is_padding)
            if len(x) > self.n:
                raise torch.OutOfMemoryError
            return result

        CLSEncoder.embed = embed

    def __exit__(self, *error):
        CLSEncoder.embed = self.embed


def fail_in_one():
    """Raise an error in one process; return what the others raise, and after how many seconds."""
    is_second = os.environ["RANK"] == "1"

    def fail(net, **kwargs):
        if len(net.history) == 2:
            raise ZeroDivisionError

    start = time.monotonic()
    try:
        with sklearn_cls.data_parallel(TIMEOUT):
            small(callbacks=[Hook(on_epoch_begin=fail)] if is_second else None).fit(*bumps())
    except (ZeroDivisionError, RuntimeError) as error:
        return repr(error), time.monotonic() - start


def stop_answering():
    """Suspend one process; return what the others raise, and after how many seconds."""
    is_second, start = os.environ["RANK"] == "1", None

    def suspend(net, **kwargs):
        nonlocal start
        start = time.monotonic()
        if is_second and len(net.history) == 3:
            os.kill(os.getpid(), signal.SIGSTOP)

    process = Path(sys.argv[2]).with_suffix(".pid")
    if is_second:
        process.write_text(str(os.getpid()))
    try:
        with sklearn_cls.data_parallel(timeout=3.0):
            small(callbacks=[Hook(on_epoch_begin=suspend)]).fit(*bumps())
    except RuntimeError as error:
        os.kill(int(process.read_text()), signal.SIGKILL)  # torchrun would wait for it
        return repr(error), time.monotonic() - start


def fit_without_context():
    """Fit without `data_parallel`; return the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        small(max_epochs=1).fit(*bumps())
    return [str(w.message) for w in caught]


def fit_with_kills():
    """Kill one of the processes at random; torchrun then starts all of them again."""
    from sklearn_cls._persistence import checkpoint as checkpoint_module

    checkpoint_module.INTERVAL, checkpoint_module.SHARE = 0.0, np.inf
    n_restarts = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    rng = np.random.default_rng((n_restarts, int(os.environ["KILL_SEED"])))
    victim, epoch = rng.integers(2), rng.integers(12)
    epoch += 4 * n_restarts

    def kill(net, **kwargs):
        is_victim = int(os.environ["RANK"]) == victim and n_restarts < int(os.environ["N_KILLS"])
        if is_victim and len(net.history) == epoch:
            os.kill(os.getpid(), signal.SIGKILL)

    with sklearn_cls.data_parallel(TIMEOUT):
        clf = small(max_epochs=20, callbacks=[Hook(on_batch_end=kill)])
        clf.fit(*unequal(), checkpoint=os.environ["CHECKPOINT"])
    return {**result_of(clf), "n_restarts": n_restarts}


def run(name, folder, n_processes=2, *, n_restarts=0, may_fail=False, timeout=120, **environment):
    """Call a function of this module in several processes; return the results by their ranks."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc-per-node={n_processes}", f"--max-restarts={n_restarts}",
        "-m", "tests.in_processes", name, str(folder),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
    if not may_fail:
        assert done.returncode == 0, done.stderr[-3000:]
    return {
        int(path.name): pickle.loads(path.read_bytes()) for path in sorted(Path(folder).iterdir())
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    result = globals()[sys.argv[1]]()
    (Path(sys.argv[2]) / os.environ["RANK"]).write_bytes(pickle.dumps(result))
