"""Accuracy on sequences whose steps are not equally spaced, with their times and without them.

In the first problems, the numbers are noise and only the gaps between the steps decide the class,
so that chance, 0.5, is the best accuracy without times. The last one is Pendulum of EBES [1]: the
class is the damping of a pendulum of random length, observed about 30 times in 3 to 5 seconds, at
the times of a Hawkes process; a tenth of the positions are missing. [1] reports, for 80,000
training sequences, 0.277 for a GRU without times, 0.683 with them, and 0.777 for mTAND.

[1] Osin et al., EBES: Easy Benchmarking for Event Sequences, 2024, arXiv:2410.03399.
"""

import argparse
from functools import partial

import numpy as np
import pandas as pd
import torch
from harness import append_row, print_versions

from sklearn_cls import CLSTransformerClassifier

N_TEST = 2000  # test sequences
N_STEPS = 40  # of the sequences whose gaps decide
GRAVITY = 9.81  # m/s2
TIME_STEP = 0.01  # seconds, of the Runge-Kutta method
HAWKES_MEAN, HAWKES_ALPHA = 30, 0.5  # events of a sequence; increase of the intensity by an event
MISSING_FRACTION = 0.1


def alternating(rng, label):
    """Return gaps of about 1 or 3 s, at random or alternating."""
    is_long = rng.random(N_STEPS) < 0.5
    if label:
        is_long = (np.arange(N_STEPS) + rng.integers(2)) % 2 == 0
    return np.where(is_long, 3.0, 1.0) * rng.uniform(0.9, 1.1, N_STEPS)


def mean_gap(rng, label):
    """Return gaps of 1.0 or 1.1 s on average."""
    return rng.normal(1.1 if label else 1.0, 0.1, N_STEPS).clip(0.1)


def pause(rng, label):
    """Return random gaps, and one of 30 s in the first or in the last third."""
    gaps = rng.exponential(1.0, N_STEPS)
    gaps[rng.integers(25, 37) if label else rng.integers(3, 15)] = 30.0
    return gaps


def burst(rng, label):
    """Return gaps of which six are short, anywhere or one after the other."""
    gaps = rng.lognormal(0, 0.5, N_STEPS)
    start = rng.integers(3, 30)
    gaps[np.arange(start, start + 6) if label else rng.choice(N_STEPS, 6, replace=False)] *= 0.05
    return gaps


def scales(rng, label):
    """Return gaps of milliseconds to months that become longer or shorter."""
    exponents = np.sort(rng.uniform(-3, 6.5, N_STEPS))[:: 1 if label else -1]
    return 10 ** (exponents + rng.normal(0, 2.5, N_STEPS)).clip(-3, 6.5)


GAPS = {
    "alternating gaps": alternating,
    "mean gap of 1.0 or 1.1 s": mean_gap,
    "pause early or late": pause,
    "short gaps together or apart": burst,
    "growing or shrinking gaps, ms to months": scales,
}


def gap_problem(gaps, n, rng):
    """Return a frame of noise at times that the function `gaps` draws, and the classes."""
    y = rng.integers(2, size=n)
    times = [durations(gaps(rng, label).cumsum()) for label in y]
    return pd.DataFrame({"time": times, "value": list(rng.normal(size=(n, N_STEPS)))}), y


def pendulum(n, rng):
    """Return a frame of the positions of n pendulums, and the classes of their damping."""
    y = rng.integers(10, size=n)
    angles = pendulum_angles(np.linspace(1, 3, 10)[y], rng)  # (time steps, n)
    grid = np.arange(len(angles)) * TIME_STEP
    columns = {"time": [], "x": [], "y": []}
    for i in range(n):
        times = hawkes_times(rng.uniform(3, 5), rng)
        angle = np.interp(times, grid, angles[:, i])
        columns["time"].append(durations(times))
        for name, values in (("x", np.sin(angle)), ("y", -np.cos(angle))):
            n_missing = int(len(times) * MISSING_FRACTION)
            values[rng.choice(len(times), n_missing, replace=False)] = np.nan
            columns[name].append(values)
    return pd.DataFrame(columns), y


def pendulum_angles(damping, rng):
    """Return the angles of pendulums every `TIME_STEP` seconds, up to 5 seconds."""
    n = len(damping)
    length = rng.uniform(0.5, 10, n)
    state = np.stack([rng.uniform(0, 2 * np.pi, n), rng.uniform(-np.pi, np.pi, n)])  # angle, speed
    angles = [state[0]]

    def derivative(state):
        angle, speed = state
        return np.stack([speed, -damping * speed - GRAVITY / length * np.sin(angle)])

    for _ in range(round(5 / TIME_STEP)):
        a = derivative(state)
        b = derivative(state + TIME_STEP / 2 * a)
        c = derivative(state + TIME_STEP / 2 * b)
        d = derivative(state + TIME_STEP * c)
        state = state + TIME_STEP / 6 * (a + 2 * b + 2 * c + d)
        angles.append(state[0])
    return np.stack(angles)


def hawkes_times(end, rng):
    """Return the times of a Hawkes process until `end`, by thinning; five times at least."""
    base = HAWKES_MEAN * (1 - HAWKES_ALPHA) / (end - 1)
    now, excitation, times = 0.0, 0.0, []
    while True:
        bound = base + excitation
        gap = rng.exponential(1 / bound)
        now += gap
        if now >= end:
            return np.array(times) if len(times) >= 5 else np.linspace(0, end, 5)
        excitation *= np.exp(-gap)
        if rng.random() * bound <= base + excitation:
            times.append(now)
            excitation += HAWKES_ALPHA


def durations(seconds):
    """Return seconds as timedelta64, in nanoseconds."""
    return (seconds * 1e9).astype("timedelta64[ns]")


def main():
    """Measure all problems, with the default parameters."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--gaps", type=int, nargs="*", default=[420],
        help="training sequences of the problems of gaps (default: %(default)s)",
    )  # fmt: skip
    options.add_argument(
        "--pendulums", type=int, nargs="*", default=[4800, 20_000],
        help="training sequences of Pendulum (default: %(default)s)",
    )  # fmt: skip
    options.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="number of torch threads"
    )
    options.add_argument("--out", help="CSV file to append the results to")
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    print_versions()
    problems = [(name, partial(gap_problem, GAPS[name]), n) for n in args.gaps for name in GAPS]
    problems += [("Pendulum", pendulum, n) for n in args.pendulums]
    for name, sample, n_train in problems:
        X, y = sample(n_train, np.random.default_rng(0))
        X_test, y_test = sample(N_TEST, np.random.default_rng(1))
        row = {"problem": name, "training sequences": n_train}
        for key, columns in (("with clock", X.columns), ("without clock", X.columns.drop("time"))):
            clf = CLSTransformerClassifier(random_state=0, n_jobs=args.threads)
            row[key] = clf.fit(X[columns], y).score(X_test[columns], y_test)
        append_row(row, args.out)
        print(row, flush=True)


if __name__ == "__main__":
    main()
