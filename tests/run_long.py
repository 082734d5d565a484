"""Fit and predict in one process for long, and watch memory, open files and threads.

`python -m tests.run_long` makes 1,000 fits and 100,000 predictions and fails if, after the first
tenth, the resident memory grows by more than 20 MB, or there are more open files or threads.
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


def held():
    """Return what this process holds: MB of memory, open files, threads."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    mb = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return mb, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def main():
    """Run for as long as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fits", type=int, default=1000)
    parser.add_argument("--predictions", type=int, default=100_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    X, y = bumps()
    lists = [[x[: 5 + (i + j) % 15] for j, x in enumerate(X[: 1 + i % 7])] for i in range(20)]
    inputs = [X[:1], X[:8], X, *lists]
    n_each = max(1, args.predictions // args.fits)
    with TemporaryDirectory() as folder:
        for i in range(args.fits):
            clf = small(max_epochs=2, random_state=i, **VARIANTS[i % len(VARIANTS)])
            clf.fit(X, y, checkpoint=Path(folder) / "checkpoint")
            clf.save(Path(folder) / "model")
            loaded = CLSTransformerClassifier.load(Path(folder) / "model")
            if not np.array_equal(loaded.predict_proba(X), clf.predict_proba(X)):
                raise RuntimeError("a loaded model predicts otherwise")
            for j in range(n_each):
                clf.predict_proba(inputs[j % len(inputs)])
            if i + 1 == max(10, args.fits // 10):
                first = held()
            if (i + 1) % max(1, args.fits // 10) == 0:
                mb, n_files, n_threads = held()
                sys.stdout.write(
                    f"{i + 1} fits, {(i + 1) * n_each} predictions: {mb:.1f} MB, {n_files} open "
                    f"files, {n_threads} threads\n"
                )
                sys.stdout.flush()
    growth = [now - then for now, then in zip(held(), first, strict=True)]
    is_worse = growth[0] > MAX_GROWTH or growth[1] > 0 or growth[2] > 0
    sys.stdout.write(f"grown by {growth[0]:.1f} MB, {growth[1]} files, {growth[2]} threads\n")
    return 1 if is_worse else 0


if __name__ == "__main__":
    sys.exit(main())
