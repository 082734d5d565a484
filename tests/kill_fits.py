"""Kill fits at random moments, and check that what comes out in the end is what always does.

`python -m tests.kill_fits --kills 50` prints what it did and fails if a fit that was killed and
called again ended with other weights, or left a file that cannot be read. Files are written after
every epoch here, so that many a kill falls into a write.
"""

import argparse
import hashlib
import itertools
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from skorch.callbacks import LRScheduler

from sklearn_cls._persistence.tensor_file import open_file
from tests.helpers import bumps, small

FITS = {
    "default": {},
    "random token": {"cls_strategy": "random", "class_weight": "balanced", "augment": False},
    "early stopping": {"early_stopping": True, "n_iter_no_change": 60, "random_state": 1},
    "schedule of a callback": {
        "callbacks": [LRScheduler("StepLR", step_size=7, gamma=0.8)], "embedding": "linear",
    },
    "state of the caller": {"random_state": np.random.RandomState(3), "pooling": "mean"},
}  # fmt: skip


def fit(params, checkpoint=None):
    """Fit; return the SHA-256 of all weights and losses."""
    X, y = bumps(n=90)
    X = [x[: 14 + i % 7] for i, x in enumerate(X)]
    clf = small(max_epochs=60, **params).fit(X, y, checkpoint=checkpoint)
    digest = hashlib.sha256(repr(clf.loss_curve_).encode())
    for value in clf.module_.state_dict().values():
        digest.update(value.numpy())
    return digest.hexdigest()


def in_a_child(params, checkpoint, result):
    """Start a process that fits and writes what it got; return its number."""
    child = os.fork()
    if child == 0:
        try:
            checkpoint.INTERVAL, checkpoint.SHARE = 0.0, np.inf
            result.write_text(fit(params, checkpoint))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return child


def wait_until(child, moment):
    """Return the exit status of `child`, None if it still runs at `moment`."""
    while time.monotonic() < moment:
        number, status = os.waitpid(child, os.WNOHANG)
        if number:
            return status
        time.sleep(0.001)
    return None


def kill_fits(n_kills, folder, rng):
    """Kill fits `n_kills` times; return what was counted."""
    counts = {"kills": 0, "kills while writing": 0, "fits": 0, "equal": 0, "most kills of a fit": 0}
    torch.set_num_threads(1)
    small(max_epochs=1).fit(*bumps())  # imports what all need, before they are forked
    fits = itertools.cycle(FITS.items())
    while counts["kills"] < n_kills:
        name, params = next(fits)
        checkpoint, result = folder / "checkpoint", folder / "result"
        start = time.monotonic()
        os.waitpid(in_a_child(params, None, result), 0)
        seconds, expected = time.monotonic() - start, result.read_text()
        result.unlink()
        n_before = counts["kills"]
        while not result.exists():
            child = in_a_child(params, checkpoint, result)
            end = time.monotonic() + rng.uniform(0, 0.6 * seconds)
            if counts["kills"] >= n_kills:
                end = float("inf")
            status = wait_until(child, end)
            if status is None:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                counts["kills"] += 1
                counts["kills while writing"] += any(p.suffix == ".part" for p in folder.iterdir())
            elif status:
                raise RuntimeError(f"{name}: the fit failed")
            if checkpoint.exists():
                with open_file(checkpoint) as file:
                    file.tensors()
        counts["fits"] += 1
        counts["equal"] += result.read_text() == expected
        counts["most kills of a fit"] = max(
            counts["most kills of a fit"], counts["kills"] - n_before
        )
        result.unlink()
        left = [path.name for path in folder.iterdir()]
        if left:
            raise RuntimeError(f"{name}: left {left}")
    return counts


def main():
    """Kill as often as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        counts = kill_fits(args.kills, Path(folder), random.Random(args.seed))
    sys.stdout.write(", ".join(f"{name}: {n}" for name, n in counts.items()) + f", {args}\n")
    return 0 if counts["equal"] == counts["fits"] else 1


if __name__ == "__main__":
    sys.exit(main())
