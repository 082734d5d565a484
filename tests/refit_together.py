"""Refit an estimator with other labels, features and widths while other threads use it.

Eight threads predict and two save and load it; two more pickle, copy and clone it. Meanwhile, one
thread calls `fit`, `partial_fit` and a `partial_fit` that diverges. Every answer, file and copy
must be wholly that of one model. `python -m tests.refit_together` makes at least 10,000 predictions
and 100 refits, prints how many answers are, and fails unless all of them are.
"""

import argparse
import copy
import pickle
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.base import clone

from sklearn_cls import CLSTransformerClassifier
from tests.helpers import bumps, small

METHODS = ("predict", "predict_proba", "transform", "cls_attention")
N_PREDICTING = 8
PARAMS = {"max_epochs": 1, "depth": 1, "lr": 5e-3, "early_stopping": True}


@dataclass
class Task:
    """Data and parameters of a fit.

    `answers` maps each model with the same features to what `METHODS` return for X.
    """

    X: np.ndarray
    y: np.ndarray
    params: dict
    answers: dict


def make_tasks():
    """Return tasks that differ in labels, number of classes, features and width."""
    tasks, models = [], []
    for i, (n_classes, n_features, d_model) in enumerate(
        [(2, 2, 16), (2, 2, 16), (3, 2, 8), (2, 3, 16), (5, 3, 24)]
    ):
        X, _ = bumps(40, n_features=n_features, seed=i)
        y = np.array([f"{'label' * i}{i}.{k % n_classes}" for k in range(len(X))])
        tasks.append(Task(X, y, {"d_model": d_model}, {}))
        first = small(**PARAMS, d_model=d_model).set_output(transform="pandas").fit(X, y)
        models += [first, copy.deepcopy(first).partial_fit(X, y)]
    for task in tasks:
        for model in models:
            if model.n_features_in_ == task.X.shape[2]:
                task.answers[model] = [getattr(model, name)(task.X) for name in METHODS]
    return tasks


def is_equal(result, expected):
    """Return whether two arrays, or two data frames with the names of their columns, are equal."""
    names, expected_names = (list(getattr(x, "columns", [])) for x in (result, expected))
    return names == expected_names and np.array_equal(result, expected)


def is_whole(clf, tasks):
    """Return whether an estimator that no thread refits is one of the models of `tasks`."""
    for task in tasks:
        for model, answers in task.answers.items():
            if (
                np.array_equal(clf.classes_, model.classes_)
                and clf.n_features_in_ == model.n_features_in_
                and clf.loss_curve_ == model.loss_curve_
            ):
                results = [getattr(clf, name)(task.X) for name in METHODS]
                return all(map(is_equal, results, answers))
    return False


class Together:
    """An estimator that is used in several threads; `n_whole` counts answers by what gave them."""

    def __init__(self, n_predictions, n_refits):
        self.tasks = make_tasks()
        self.n_predictions, self.n_refits = n_predictions, n_refits
        self.n_whole, self.n_mixed, self.errors = Counter(), Counter(), Counter()
        self.is_done, self.lock = threading.Event(), threading.Lock()
        self.clf = small(**PARAMS).set_output(transform="pandas")
        self.refit(self.tasks[0])

    def count(self, what, is_one_model):
        """Count an answer."""
        with self.lock:
            (self.n_whole if is_one_model else self.n_mixed)[what] += 1

    def attempt(self, what, function):
        """Count an answer of `function`; an exception counts as that of no model."""
        try:
            is_one_model = function()
        except Exception as error:
            is_one_model = False
            with self.lock:
                self.errors[f"{type(error).__name__}: {error}"] += 1
        self.count(what, is_one_model)

    def refit(self, task):
        """Fit the task, train further, and fail."""
        self.clf.set_params(**task.params, lr=PARAMS["lr"]).fit(task.X, task.y)
        self.clf.partial_fit(task.X, task.y)
        try:
            self.clf.set_params(lr=1e30).partial_fit(task.X, task.y)
        except ValueError:
            self.count("refits", True)

    def keep_refitting(self):
        """Refit until there are enough predictions and refits."""
        rng = np.random.default_rng(0)
        while not self.is_done.is_set():
            self.refit(self.tasks[rng.integers(len(self.tasks))])
            n_predictions = self.n_whole["predictions"] + self.n_mixed["predictions"]
            if self.n_whole["refits"] >= self.n_refits and n_predictions >= self.n_predictions:
                self.is_done.set()

    def predict(self, seed):
        """Predict until the refits are done."""
        rng = np.random.default_rng(seed)
        while not self.is_done.is_set():
            task, i = self.tasks[rng.integers(len(self.tasks))], int(rng.integers(len(METHODS)))
            self.attempt("predictions", lambda task=task, i=i: self.predicts_one(task, i))

    def predicts_one(self, task, i):
        """Return whether a method returns what one of the models returns."""
        try:
            result = getattr(self.clf, METHODS[i])(task.X)
        except ValueError as error:  # of a model with another number of features
            return f"X has {task.X.shape[2]} features, but" in str(error)
        return any(is_equal(result, answers[i]) for answers in task.answers.values())

    def save_and_load(self, path):
        """Save and load until the refits are done."""

        def loads_one():
            self.clf.save(path)
            return is_whole(CLSTransformerClassifier.load(path), self.tasks)

        while not self.is_done.is_set():
            self.attempt("files", loads_one)

    def copy(self, copies):
        """Make copies until the refits are done."""
        while not self.is_done.is_set():
            for function in copies:
                self.attempt("copies", lambda f=function: is_whole(f(self.clf), self.tasks))
            self.attempt("clones", lambda: not hasattr(clone(self.clf), "classes_"))

    def run(self):
        """Run all threads."""
        pickled = [lambda clf: pickle.loads(pickle.dumps(clf)), copy.deepcopy]
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(16) as pool:
            jobs = [
                pool.submit(self.keep_refitting),
                *(pool.submit(self.predict, seed) for seed in range(N_PREDICTING)),
                *(pool.submit(self.save_and_load, Path(folder) / str(i)) for i in range(2)),
                *(pool.submit(self.copy, copies) for copies in (pickled, [copy.copy])),
            ]
            try:
                jobs[0].result()
            finally:
                self.is_done.set()
            for job in jobs:
                job.result()


def main():
    """Parse the command line, run the threads, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictions", type=int, default=10_000)
    parser.add_argument("--refits", type=int, default=100)
    arguments = parser.parse_args()
    together = Together(arguments.predictions, arguments.refits)
    start = time.perf_counter()
    together.run()
    for what in together.n_whole | together.n_mixed:
        n = together.n_whole[what] + together.n_mixed[what]
        sys.stdout.write(f"{together.n_whole[what]} of {n} {what} are wholly of one model.\n")
    for error, n in together.errors.most_common(5):
        sys.stdout.write(f"{n} times {error[:200]}\n")
    sys.stdout.write(f"This took {time.perf_counter() - start:.0f} seconds.\n")
    return 1 if together.n_mixed else 0


if __name__ == "__main__":
    sys.exit(main())
