"""Kill running fits at random moments, and check that each resumes exactly from its checkpoint.

`python -m tests.kill_fits --kills 50` prints counts. It fails if a resumed fit ends with weights
other than those of an uninterrupted one, or if a kill leaves a file that cannot be read.
A checkpoint is written after every epoch, with an artificial delay, so that many kills come during
a write.
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

from sklearn_cls._persistence import checkpoint as checkpoint_module
from tests.helpers import bumps, read_checkpoint, small

FITS = {
    "default": {},
    "random token": {"cls_strategy": "random", "class_weight": "balanced", "augment": False},
    "early stopping": {"early_stopping": True, "n_iter_no_change": 40, "random_state": 1},
    "schedule of a callback": {
        "callbacks": [LRScheduler("StepLR", step_size=7, gamma=0.8)], "embedding": "linear",
    },
    "RandomState": {"random_state": np.random.RandomState(3), "pooling": "mean"},
}  # fmt: skip
SECONDS_TO_RENAME = 0.02  # simulates a slow disk


def fit(params, checkpoint=None):
    """Fit, and return the SHA-256 of all weights and losses."""
    X, y = bumps(n=90)
    X = [x[: 14 + i % 7] for i, x in enumerate(X)]
    clf = small(max_epochs=40, **params).fit(X, y, checkpoint=checkpoint)
    digest = hashlib.sha256(repr(clf.loss_curve_).encode())
    for value in clf.module_.state_dict().values():
        digest.update(value.numpy())
    return digest.hexdigest()


def rename_slowly(source, target, replace=os.replace):
    """Rename a file after a delay."""
    time.sleep(SECONDS_TO_RENAME)
    replace(source, target)


def start_fit(params, checkpoint, result):
    """Start a process that fits and writes its SHA-256 to the file `result`; return its id."""
    pid = os.fork()
    if pid == 0:
        try:
            checkpoint_module.INTERVAL, checkpoint_module.SHARE = 0.0, np.inf
            os.replace = rename_slowly
            digest = fit(params, checkpoint)
            result.with_suffix(".new").write_text(digest)
            result.with_suffix(".new").rename(result)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return pid


def wait_until(pid, end):
    """Return the exit status of a process, or None if it still runs at the time `end`."""
    while time.monotonic() < end:
        finished, status = os.waitpid(pid, os.WNOHANG)
        if finished:
            return status
        time.sleep(0.001)
    return None


def fit_uninterrupted(params, result):
    """Return the SHA-256 of a fit in a process of its own, and the seconds that it took."""
    start = time.monotonic()
    os.waitpid(start_fit(params, None, result), 0)
    digest = result.read_text()
    result.unlink()
    return digest, time.monotonic() - start


def fit_with_kills(params, folder, n_kills, seconds, rng):
    """Kill a fit, at most `n_kills` times, until it ends.

    Return its SHA-256, the number of kills, and the number of kills during a write. Each kill comes
    after at most 0.6 times the `seconds` of an uninterrupted fit.
    """
    checkpoint, result = folder / "checkpoint", folder / "result"
    kills = kills_while_writing = 0
    while not result.exists():
        stale = set(folder.glob(".*.part"))  # temporary files of earlier kills
        pid = start_fit(params, checkpoint, result)
        is_last = kills == n_kills
        end = float("inf") if is_last else time.monotonic() + rng.uniform(0, 0.6 * seconds)
        status = wait_until(pid, end)
        if status is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            kills += 1
            parts = set(folder.glob(".*.part"))
            kills_while_writing += bool(parts - stale)
            if len(parts) > 1:
                raise RuntimeError(f"Kills left {parts}; the next fit should remove the first.")
        elif status:
            raise RuntimeError(f"The fit of {params} failed.")
        if checkpoint.exists():
            read_checkpoint(checkpoint)
    digest = result.read_text()
    result.unlink()
    left = [path.name for path in folder.iterdir() if path.suffix != ".new"]
    if left:
        raise RuntimeError(f"The fit of {params} left {left}.")
    return digest, kills, kills_while_writing


def kill_fits(n_kills, folder, rng):
    """Kill fits `n_kills` times in all; return the counts."""
    counts = dict.fromkeys(
        ("kills", "kills during a write", "fits", "identical", "most kills in one fit"), 0
    )
    torch.set_num_threads(1)
    small(max_epochs=1).fit(*bumps())  # imports modules before the first fork
    for params in itertools.cycle(FITS.values()):
        if counts["kills"] == n_kills:
            return counts
        expected, seconds = fit_uninterrupted(params, folder / "result")
        left = n_kills - counts["kills"]
        digest, kills, in_write = fit_with_kills(params, folder, left, seconds, rng)
        counts["kills"] += kills
        counts["kills during a write"] += in_write
        counts["fits"] += 1
        counts["identical"] += digest == expected
        counts["most kills in one fit"] = max(counts["most kills in one fit"], kills)


def main():
    """Kill as many fits as the command line says; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        counts = kill_fits(args.kills, Path(folder), random.Random(args.seed))
    sys.stdout.write(", ".join(f"{name}: {n}" for name, n in counts.items()) + f", {args}\n")
    return 0 if counts["identical"] == counts["fits"] else 1


if __name__ == "__main__":
    sys.exit(main())
