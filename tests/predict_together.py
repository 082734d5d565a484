"""Predict in eight threads at once, and compare with predicting one after the other.

`python -m tests.predict_together` prints how many of 10,000 predictions were equal bit by bit, and
how long the slowest of them took beside the slowest alone.
"""

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from tests.helpers import bumps, small

N_THREADS = 8


def main():
    """Predict as often as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictions", type=int, default=10_000)
    args = parser.parse_args()
    torch.set_num_threads(2)
    clf = small(cls_strategy="random", d_model=32).fit(*bumps())
    rng = np.random.default_rng(0)
    inputs = []  # arrays and lists, alone and many, short and long
    for i in range(50):
        n, n_steps = int(rng.choice([1, 2, 7, 30, 300])), int(rng.integers(3, 120))
        X = rng.normal(size=(n, n_steps, 2)).astype(np.float32)
        inputs.append(X if i % 2 else [x[: rng.integers(2, n_steps + 1)] for x in X])
    methods = [clf.predict_proba, clf.transform, clf.cls_attention]
    expected = [[method(X) for X in inputs] for method in methods]
    jobs = [(i % 3, int(rng.integers(50))) for i in range(args.predictions)]

    def predict(job):
        m, i = job
        start = time.perf_counter()
        result = methods[m](inputs[i])
        return np.array_equal(result, expected[m][i]), time.perf_counter() - start

    start = time.perf_counter()
    alone = [predict(job) for job in jobs[: len(jobs) // 8]]
    middle = time.perf_counter()
    with ThreadPoolExecutor(N_THREADS) as pool:
        together = list(pool.map(predict, jobs))
    end = time.perf_counter()
    n_equal = sum(is_equal for is_equal, _ in together)
    ms_alone, ms_each = 8e3 * (middle - start) / len(jobs), 1e3 * (end - middle) / len(jobs)
    longest_alone, longest = (1e3 * max(s for _, s in runs) for runs in (alone, together))
    sys.stdout.write(
        f"{n_equal} of {len(jobs)} equal; a prediction took {ms_alone:.2f} ms alone, at most "
        f"{longest_alone:.0f}; of {N_THREADS} threads, one was done every {ms_each:.2f} ms, after "
        f"{longest:.0f} at most\n"
    )
    return 0 if n_equal == len(jobs) else 1


if __name__ == "__main__":
    sys.exit(main())
