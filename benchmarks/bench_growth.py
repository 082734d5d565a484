"""Growth of the time and the memory of `fit` and `predict` with the size of the data.

In each group of rows, one size grows: the number of sequences (an array or a list), their length,
the number of features, the number of classes, or the length of a single sequence among short ones.
The fits have one epoch and the default parameters; that with many classes has text labels and a
`class_weight` for each. "exponent" is the logarithm of the ratio to the row before, divided by that
of the sizes: 1 if the time is proportional to the size, 2 if it is quadratic. "MB" is the increase
of the resident memory, on Linux. Every row is measured in a new process, after a small fit.
"""

import itertools
import math
import multiprocessing
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from harness import begin, noise, parser, report

from sklearn_cls import CLSTransformerClassifier

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
SIZES = {
    "sequences": [4**6, 4**7, 4**8],  # of 4 steps
    "sequences in a list": [4**6, 4**7, 4**8],
    "steps": [4**5, 4**6, 4**7],  # of 64 sequences
    "steps of 2 sequences": [4**8, 4**9, 4**10],
    "features": [4**5, 4**6, 4**7],  # of 128 sequences of 8 steps
    "classes": [4**5, 4**6, 4**7],  # of 2**15 sequences of 4 steps
    "longest sequence": [4**5, 4**6, 4**7],  # among 255 sequences of 20 steps
}


def data(axis, size):
    """Return X and y whose `axis` has the given size."""
    if axis == "classes":
        X, y = noise((2**15, 4, 2), n_classes=size)
        return X, np.char.add("class ", y.astype(str))
    if axis == "longest sequence":
        X, y = noise((256, 20, 2))
        return [noise((size, 2))[0], *X[1:]], y
    shapes = {
        "sequences": (size, 4, 2), "sequences in a list": (size, 4, 2), "steps": (64, size, 2),
        "steps of 2 sequences": (2, size, 2), "features": (128, 8, size),
    }  # fmt: skip
    X, y = noise(shapes[axis])
    return (list(X) if axis == "sequences in a list" else X), y


def measure(axis, size, n_threads):
    """Return the seconds and megabytes of a fit and of a prediction."""
    torch.set_num_threads(n_threads)
    CLSTransformerClassifier(max_epochs=1).fit(*noise((20, 4, 2))).predict(noise((20, 4, 2))[0])
    X, y = data(axis, size)
    class_weight = dict.fromkeys(np.unique(y).tolist(), 1.0) if axis == "classes" else None
    clf = CLSTransformerClassifier(max_epochs=1, class_weight=class_weight, random_state=0)
    fit_s, fit_mb = cost(lambda: clf.fit(X, y))
    predict_s, predict_mb = cost(lambda: clf.predict(X))
    return {"fit_s": fit_s, "predict_s": predict_s, "fit_MB": fit_mb, "predict_MB": predict_mb}


def cost(function):
    """Return the seconds of a call, and by how many megabytes it increases the peak memory."""
    before = 0
    if STATUS.exists():
        CLEAR_REFS.write_text("5")  # sets the peak to the present value
        before = peak()
    start = time.perf_counter()
    function()
    seconds = time.perf_counter() - start
    return seconds, (peak() - before if STATUS.exists() else math.nan)


def peak():
    """Return the peak resident memory of this process in megabytes."""
    return int(re.search(r"VmHWM:\s*(\d+)", STATUS.read_text())[1]) / 1024


def measure_axis(axis, rounds, n_threads):
    """Yield one row of the table for each size."""
    previous = None
    for size in SIZES[axis]:
        # The pool starts a new process for every round.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
            futures = [pool.submit(measure, axis, size, n_threads) for _ in range(rounds)]
            results = [future.result() for future in futures]
        row = {name: float(np.median([r[name] for r in results])) for name in results[0]}
        row = {"grows": axis, "size": size, **row}
        for name in ("fit", "predict"):
            row[f"{name}_exponent"] = (
                math.log(row[f"{name}_s"] / previous[f"{name}_s"], size / previous["size"])
                if previous
                else math.nan
            )
        previous = row
        yield row


def main():
    """Measure all axes, or those that `--axes` names."""
    options = parser(__doc__, rounds=3)
    options.add_argument("--axes", nargs="+", choices=SIZES, default=list(SIZES))
    args = begin(options)
    rows = []
    for row in itertools.chain(*(measure_axis(a, args.rounds, args.threads) for a in args.axes)):
        print(*row.values(), sep=", ", file=sys.stderr, flush=True)
        rows.append(row)
    report(rows, args.out)


if __name__ == "__main__":
    main()
