"""Predict in eight threads at the same time, and compare with predictions made one at a time.

`python -m tests.predict_together` prints how many of 10,000 predictions are bitwise identical, and
how long they took; it fails unless all of them are.
"""

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from tests.helpers import bumps, small

N_THREADS = 8
N_INPUTS = 50


def make_inputs():
    """Return arrays and lists of few or many, short or long sequences."""
    rng = np.random.default_rng(0)
    inputs = []
    for i in range(N_INPUTS):
        n, n_steps = int(rng.choice([1, 2, 7, 30, 300])), int(rng.integers(3, 120))
        X = rng.normal(size=(n, n_steps, 2)).astype(np.float32)
        inputs.append(X if i % 2 else [x[: rng.integers(2, n_steps + 1)] for x in X])
    return inputs


def main():
    """Parse the command line, predict, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictions", type=int, default=10_000)
    n_predictions = parser.parse_args().predictions
    torch.set_num_threads(2)
    clf = small(cls_strategy="random", d_model=32).fit(*bumps())
    inputs = make_inputs()
    methods = [clf.predict_proba, clf.transform, clf.cls_attention]
    expected = [[method(X) for X in inputs] for method in methods]

    def is_equal_and_seconds(job):
        i_method, i_input = job
        start = time.perf_counter()
        result = methods[i_method](inputs[i_input])
        seconds = time.perf_counter() - start
        return np.array_equal(result, expected[i_method][i_input]), seconds

    rng = np.random.default_rng(0)
    jobs = [(i % len(methods), int(rng.integers(N_INPUTS))) for i in range(n_predictions)]
    one_at_a_time = list(map(is_equal_and_seconds, jobs[: max(1, n_predictions // N_THREADS)]))
    start = time.perf_counter()
    with ThreadPoolExecutor(N_THREADS) as pool:
        together = list(pool.map(is_equal_and_seconds, jobs))
    seconds_together = time.perf_counter() - start
    n_equal = sum(is_equal for is_equal, _ in together)
    sys.stdout.write(
        f"{n_equal} of {n_predictions} predictions are equal.\n"
        f"One at a time, a prediction took {1e3 * np.mean([s for _, s in one_at_a_time]):.2f} ms "
        f"(at most {1e3 * max(s for _, s in one_at_a_time):.0f} ms).\n"
        f"In {N_THREADS} threads, one finished every "
        f"{1e3 * seconds_together / n_predictions:.2f} ms (the slowest took "
        f"{1e3 * max(s for _, s in together):.0f} ms).\n"
    )
    return 0 if n_equal == n_predictions else 1


if __name__ == "__main__":
    sys.exit(main())
