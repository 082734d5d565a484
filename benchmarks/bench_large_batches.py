"""Accuracy and number of updates with batches of 128, and with batches 4 and 16 times as large.

The epochs stay the same, so that large batches need fewer updates. The problems are

- MNIST-1D: the training part of the package mnist1d, 4,000 sequences, of which a fifth, another one
  for each seed, is held out to measure the accuracy;
- order: 14 to 48 steps of noise with two of four patterns. The 12 classes are their ordered pairs;
- waves: 32 steps of one of 60 sums of waves, stretched and scaled, and noise.

The problems that are made have up to 128,000 training sequences, and 8,000 for testing; all seeds
share them. The rules, with f the factor of the batch size:

- default: `lr` times sqrt(f), a warm-up of a tenth of the updates times sqrt(f), at most 0.3 of
  them, and beta2 of AdamW = 1 - 0.001 f;
- short warm-up: the same, with a warm-up of a tenth of the updates;
- square root: `lr` times sqrt(f), and nothing else;
- linear: `lr` times f, and nothing else;
- unchanged: everything as with batches of 128.

The last four are fitted with the first seed only.
"""

import argparse
import itertools
import math
from functools import cache
from importlib import import_module

import numpy as np
import pandas as pd
import torch
from harness import append_row, print_table, print_versions, read_rows
from sklearn.model_selection import train_test_split
from skorch.callbacks import Callback

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls._training.optimizer import cosine_schedule

MAX_TRAIN, N_TEST = 128_000, 8000  # sequences of the problems that are made
BATCH_SIZE, LR = 128, 2e-3 * math.sqrt(8)  # LR is the default for this batch size
WARMUP_FRACTION, MAX_WARMUP_FRACTION = 0.1, 0.3
BETA2 = 0.999
KEY = (
    "problem",
    "sequences",
    "batch_size",
    "epochs",
    "rule",
    "seed",
)  # columns that tell fits apart
PARAMS = {  # narrow networks and long patches save time
    "MNIST-1D": {"patch_size": 2},
    "order": {"patch_size": 4, "d_model": 32},
    "waves": {"patch_size": 4, "d_model": 32},
}
FITS = {  # training sequences, batch size and epochs
    "MNIST-1D": (
        (3200, 128, 24), (3200, 512, 24), (3200, 512, 86), (3200, 2048, 24), (3200, 2048, 150),
    ),
    "order": (
        (32_000, 128, 10), (32_000, 512, 10), (32_000, 2048, 10),
        (128_000, 128, 10), (128_000, 512, 10), (128_000, 2048, 10),
    ),
    "waves": ((128_000, 128, 10), (128_000, 512, 10), (128_000, 2048, 10)),
}  # fmt: skip
OTHER_RULES = ("short warm-up", "square root", "linear", "unchanged")


def make_order(n, rng):
    """Return n sequences of unequal lengths with 3 features, and which pattern precedes which."""
    patterns = np.random.default_rng(3).normal(size=(4, 5, 3))
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    X, y, lengths = [], np.arange(n) % len(pairs), rng.integers(14, 49, n)
    for label, length in zip(y, lengths, strict=True):
        x = rng.normal(0, 0.75, (length, 3)).astype(np.float32)
        first, second = np.sort(rng.integers(0, length - 9, 2))
        x[first : first + 5] += patterns[pairs[label][0]]
        x[second + 5 : second + 10] += patterns[pairs[label][1]]
        X.append(x)
    return X, y


def make_waves(n, rng, n_classes=60):
    """Return sequences of 32 steps and 2 features, (n, 32, 2), and their classes."""
    amplitudes = np.random.default_rng(1).normal(size=(n_classes, 2, 6))
    frequencies = np.arange(1, 7)
    y = np.arange(n) % n_classes
    speed = rng.uniform(0.6, 1, n)
    start = rng.uniform(0, 1 - speed)
    time = start[:, None] + speed[:, None] * np.linspace(0, 1, 32)  # (n, 32)
    X = np.empty((n, 32, 2), dtype=np.float32)
    for feature in range(2):
        phases = np.random.default_rng(2 + feature).uniform(0, 2 * np.pi, (n_classes, 6))[y]
        waves = np.sin(2 * np.pi * time[:, :, None] * frequencies + phases[:, None, :])
        scaled = amplitudes[y, feature] / np.sqrt(frequencies)  # (n, 6)
        X[:, :, feature] = np.einsum("nk,ntk->nt", scaled, waves)
    X *= rng.lognormal(0, 0.2, (n, 1, 1))
    X += rng.normal(0, 1, X.shape)
    return X, y


@cache
def load(problem):
    """Return the training and test sequences of a problem that is made, with their classes."""
    make = {"order": make_order, "waves": make_waves}[problem]
    return *make(MAX_TRAIN, np.random.default_rng(0)), *make(N_TEST, np.random.default_rng(1))


def split(problem, seed):
    """Return X_train, y_train, X_test, y_test."""
    if problem != "MNIST-1D":
        return load(problem)
    mnist1d = import_module("mnist1d.data")
    data = mnist1d.make_dataset(mnist1d.get_dataset_args())
    X_train, X_test, y_train, y_test = train_test_split(
        data["x"][:, :, None], data["y"], test_size=0.2, random_state=seed, stratify=data["y"]
    )
    return X_train, y_train, X_test, y_test


class Optimizer(Callback):
    """Set beta2 of AdamW, and the fraction of the updates in which the learning rate rises."""

    def __init__(self, beta2, warmup_fraction):
        self.beta2, self.warmup_fraction = beta2, warmup_fraction

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Change the optimizer and replace the schedule that the net has built."""
        for group in net.optimizer_.param_groups:
            group["lr"], group["betas"] = net.lr, (group["betas"][0], self.beta2)
        net.schedule_ = cosine_schedule(net.optimizer_, net.n_updates, self.warmup_fraction)


def rule_params(rule, batch_size):
    """Return the learning rate, beta2 and the fraction of updates for the warm-up."""
    factor = batch_size / BATCH_SIZE
    lr = LR * factor ** {"unchanged": 0, "linear": 1}.get(rule, 0.5)
    beta2 = 1 - (1 - BETA2) * factor if rule in ("default", "short warm-up") else BETA2
    warmup_fraction = WARMUP_FRACTION
    if rule == "default":
        warmup_fraction = min(WARMUP_FRACTION * math.sqrt(factor), MAX_WARMUP_FRACTION)
    return lr, beta2, warmup_fraction


def list_fits(problems, seeds):
    """Return the problem, number of sequences, batch size, epochs, rule and seed of all fits."""
    fits = []
    for problem, seed in itertools.product(problems, seeds):
        fits += [(problem, *fit, "default", seed) for fit in FITS[problem]]
        if problem != "MNIST-1D" and seed == seeds[0]:
            fits += [(problem, *FITS[problem][-1], rule, seed) for rule in OTHER_RULES]
    return fits


def measure(problem, n_train, batch_size, max_epochs, rule, seed, n_threads):
    """Return the row of one fit."""
    X_train, y_train, X_test, y_test = split(problem, seed)
    lr, beta2, warmup_fraction = rule_params(rule, batch_size)
    clf = CLSTransformerClassifier(
        batch_size=batch_size, max_epochs=max_epochs, lr=lr, random_state=seed, n_jobs=n_threads,
        callbacks=[Optimizer(beta2, warmup_fraction)], **PARAMS[problem],
    ).fit(X_train[:n_train], y_train[:n_train])  # fmt: skip
    return {
        "problem": problem,
        "sequences": n_train,
        "batch_size": batch_size,
        "epochs": max_epochs,
        "updates": max_epochs * math.ceil(n_train / batch_size),
        "rule": rule,
        "seed": seed,
        "accuracy": round(clf.score(X_test, y_test), 4),
    }


def summary(rows):
    """Return the mean accuracy of each rule over the seeds and its standard deviation."""
    rows = pd.DataFrame(rows)
    keys = [name for name in rows if name not in ("seed", "accuracy")]
    table = rows.groupby(keys)["accuracy"].agg(["count", "mean", "std"]).reset_index()
    table = table.rename(columns={"count": "seeds", "mean": "accuracy", "std": "deviation"})
    return table.round(4)


def main(args=None):
    """Measure the fits that the CSV file does not contain yet, and print the means over seeds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", nargs="+", default=list(PARAMS), choices=list(PARAMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", help="CSV file to which a row for each fit is appended")
    parser.add_argument("--table", help="CSV file to write the means over seeds to")
    args = parser.parse_args(args)
    torch.set_num_threads(args.threads)
    print_versions("mnist1d", "pandas")
    rows = read_rows(args.out)
    known = {tuple(row[name] for name in KEY) for row in rows}
    for fit in list_fits(args.problems, args.seeds):
        if fit not in known:
            rows.append(measure(*fit, args.threads))
            append_row(rows[-1], args.out)
    table = summary(rows)
    print_table(table)
    if args.table:
        table.to_csv(args.table, index=False)


if __name__ == "__main__":
    main()
