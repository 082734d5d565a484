"""Difference between fits in one process and in two, under torchrun and on Dask.

"loss" is the largest difference of the loss curves without dropout and augmentation, "accuracy" the
mean over seeds with the defaults, on other sequences than those of training, and "deviation" its
standard deviation. The sequences are sums of a wave of one of four frequencies and noise.
"""

import sys

import numpy as np
from harness import begin, parser, report, run_in_processes, write_measured

import sklearn_cls

N_TRAIN, N_TEST, N_STEPS = 600, 2000, 60
EXACT = {  # without random numbers
    "linear": {"dropout": 0.0, "augment": False, "embedding": "linear"},
    "conv": {"dropout": 0.0, "augment": False},
}
PARAMS = {"batch_size": 64, "max_epochs": 8, "n_jobs": 1}


def main():
    """Fit in each way, and print the differences."""
    options = parser(__doc__, rounds=1)
    options.add_argument("--seeds", type=int, default=5)
    if len(sys.argv) > 1 and sys.argv[1] == "--worker":
        with sklearn_cls.data_parallel(60):
            results = all_fits(int(sys.argv[3]), lambda clf, X, y: clf.fit(X, y))
        write_measured(results, sys.argv[2])
        return
    args = begin(options, "dask", "distributed")
    by_engine = {
        "one process": all_fits(args.seeds, lambda clf, X, y: clf.fit(X, y)),
        "torchrun": run_in_processes(__file__, 2, args.seeds)[0],
        "Dask": on_dask(args.seeds),
    }
    expected = by_engine["one process"]
    rows = []
    for engine, results in by_engine.items():
        for data in ("equal", "unequal"):
            row = {"engine": engine, "lengths": data}
            for name in EXACT:
                losses = np.subtract(results[f"{data} {name}"], expected[f"{data} {name}"])
                row[f"loss_{name}"] = float(f"{np.abs(losses).max():.1g}")
            accuracies = results[f"{data} accuracies"]
            mean, deviation = np.mean(accuracies), np.std(accuracies)
            row |= {"accuracy": round(mean, 4), "deviation": round(deviation, 4)}
            rows.append(row)
    report(rows, args.out)


def waves(n, seed, *, is_unequal):
    """Return sequences, padded with NaN if they have different lengths, and labels."""
    rng = np.random.default_rng(seed)
    y, steps = np.arange(n) % 4, np.arange(N_STEPS)
    X = rng.normal(size=(n, N_STEPS, 3)).astype(np.float32)
    phase = rng.uniform(0, 6, (n, 1))
    X[:, :, 0] += 1.2 * np.sin(steps * (0.2 + 0.15 * y[:, np.newaxis]) + phase)
    if is_unequal:
        X[steps >= rng.integers(N_STEPS // 3, N_STEPS, (n, 1))] = np.nan
    return X, y


def all_fits(n_seeds, fit):
    """Return loss curves and accuracies; `fit(clf, X, y)` fits a classifier."""
    results = {}
    for data in ("equal", "unequal"):
        X, y = waves(N_TRAIN, 0, is_unequal=data == "unequal")
        test = waves(N_TEST, 1, is_unequal=data == "unequal")
        for name, params in EXACT.items():
            clf = sklearn_cls.CLSTransformerClassifier(random_state=0, **PARAMS, **params)
            results[f"{data} {name}"] = fit(clf, X, y).loss_curve_
        results[f"{data} accuracies"] = [
            fit(sklearn_cls.CLSTransformerClassifier(random_state=seed, **PARAMS), X, y).score(
                *test
            )
            for seed in range(n_seeds)
        ]
    return results


def on_dask(n_seeds):
    """Return what two workers of Dask compute."""
    import dask.array as da
    from distributed import Client, LocalCluster

    def fit(clf, X, y):
        return clf.fit(da.from_array(X, chunks=(70, -1, -1)), da.from_array(y, chunks=70))

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster),
    ):
        return all_fits(n_seeds, fit)


if __name__ == "__main__":
    main()
