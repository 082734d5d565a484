"""Fit and predict many times in one process, and check for leaks of memory, files and threads.

`python -m tests.run_long` runs 1,000 fits and 100,000 predictions. It fails if, after the first
tenth of the fits, the resident memory grows by more than 20 MB, or if there are more open files or
threads at the end.
"""

import argparse
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from sklearn_cls import CLSTransformerClassifier
from tests.helpers import bumps, small

MAX_GROWTH = 20.0  # MB
VARIANTS = [
    {}, {"early_stopping": True}, {"cls_strategy": "random", "pooling": "attention"},
    {"embedding": "linear", "depth": 1, "n_jobs": 2}, {"positions": "rope", "pooling": "mean"},
]  # fmt: skip


def resources():
    """Return the resources of this process: memory in MB, open files, and threads."""
    n_pages = int(Path("/proc/self/statm").read_text().split()[1])
    mb = n_pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return mb, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def fit_save_and_load(i, X, y, folder):
    """Fit variant `i` with a checkpoint, save it, load it, and return the loaded estimator."""
    clf = small(max_epochs=2, random_state=i, **VARIANTS[i % len(VARIANTS)])
    clf.fit(X, y, checkpoint=folder / "checkpoint")
    clf.save(folder / "model")
    loaded = CLSTransformerClassifier.load(folder / "model")
    if not np.array_equal(loaded.predict_proba(X), clf.predict_proba(X)):
        raise RuntimeError("A loaded model and the saved one have different predictions.")
    return loaded


def run(n_fits, n_predictions):
    """Fit and predict; return the growth of the resources after the first tenth of the fits."""
    X, y = bumps()
    lists = [[x[: 5 + (i + j) % 15] for j, x in enumerate(X[: 1 + i % 7])] for i in range(20)]
    inputs = [X[:1], X[:8], X, *lists]
    n_predictions_per_fit = max(1, n_predictions // n_fits)
    n_warm_up = min(n_fits, max(10, n_fits // 10))
    with TemporaryDirectory() as folder:
        for i in range(1, n_fits + 1):
            clf = fit_save_and_load(i, X, y, Path(folder))
            for j in range(n_predictions_per_fit):
                clf.predict_proba(inputs[j % len(inputs)])
            if i == n_warm_up:
                before = resources()
            if i % max(1, n_fits // 10) == 0:
                mb, n_files, n_threads = resources()
                sys.stdout.write(
                    f"{i} fits, {i * n_predictions_per_fit} predictions: {mb:.1f} MB, "
                    f"{n_files} open files, {n_threads} threads\n"
                )
                sys.stdout.flush()
    return [after - first for after, first in zip(resources(), before, strict=True)]


def main():
    """Parse the command line, run, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fits", type=int, default=1000)
    parser.add_argument("--predictions", type=int, default=100_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    mb, n_files, n_threads = run(args.fits, args.predictions)
    sys.stdout.write(f"Growth: {mb:.1f} MB, {n_files} open files, {n_threads} threads\n")
    return 1 if mb > MAX_GROWTH or n_files > 0 or n_threads > 0 else 0


if __name__ == "__main__":
    sys.exit(main())
