"""Load and use mutated model files, each of which must work or raise an error.

    python -m tests.fuzz_files --mutations 10000 --workers 2

Other processes load the files, so that a crash, a hang or too much memory is seen.
"""

import argparse
import collections
import json
import os
import pickle
import resource
import select
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from sklearn.base import clone

from sklearn_cls import CLSTransformerClassifier, TrainingDisplay
from sklearn_cls._data.columns import as_objects
from sklearn_cls._training.auto import ARCHITECTURE
from tests.golden_files import FOLDER as GOLDEN
from tests.helpers import bumps, small
from tests.mutate_files import mutated

MAX_SECONDS = 60  # without a result, after which a process counts as hanging
MAX_CPU_SECONDS = 3.0  # of one load, and of everything that is called afterwards
MAX_MEMORY = 2**29  # bytes that a process may allocate beyond those after its imports

# What is called on a loaded estimator.


def example(clf):
    """Return data that fit the estimator."""
    features = clf._fitted.features
    if features.n_features > 10_000:
        raise ValueError(f"X has {features.n_features} features")
    rng = np.random.default_rng(0)
    n_steps = min(12, clf.module_.max_length or 12)
    y = clf.classes_[np.arange(6) % len(clf.classes_)]
    if features.kinds is not None:
        return table(features, rng, n_steps), y
    if not features.fitted_on_2d:
        return rng.normal(size=(6, n_steps, features.n_features)).astype(np.float32), y
    X = rng.normal(size=(6, features.n_features_in)).astype(np.float32)
    if clf.module_.max_length:  # Later steps must be padding.
        X[:, clf.module_.max_length :] = np.nan
    names = features.feature_names_in
    return (X if names is None else pd.DataFrame(X, columns=names)), y


def table(features, rng, n_steps):
    """Return a data frame of 6 sequences of numbers, codes and times."""
    vocabularies = iter(features.vocabularies)
    columns = []
    for kind in features.kinds:
        if kind == "number":
            values = rng.normal(size=(6, n_steps))
        elif kind == "clock":
            values = np.datetime64("2024-01-01", "s") + rng.integers(99, size=(6, n_steps)).cumsum(
                1
            )
        else:
            categories = next(vocabularies).categories
            categories = categories if len(categories) else as_objects(["a"])
            values = categories[rng.integers(len(categories), size=(6, n_steps))]
        columns.append(values)
    names = features.feature_names_in
    if features.fitted_on_2d:
        steps = columns[0].reshape(-1)[np.arange(6 * features.n_features_in) % (6 * n_steps)]
        X = steps.reshape(6, -1)
        return X if names is None else pd.DataFrame(X, columns=names)
    names = range(len(columns)) if names is None else names
    return pd.DataFrame({name: list(cells) for name, cells in zip(names, columns, strict=True)})


def calls(clf, X, y, path):
    """Return everything that can be called on a loaded estimator, by name."""

    def refit():
        copy = pickle.loads(pickle.dumps(clf)).set_params(warm_start=True, max_epochs=1)
        copy.fit(X, y).predict_proba(X)

    def display():
        TrainingDisplay.from_estimator(clf)
        plt.close("all")

    def fit_from_scratch():
        # The size of another network is that of its parameters, not that of the file.
        network = clf.net_.get_params_for("module")
        params = {name: network[name] for name in (*ARCHITECTURE, "patch_size")}
        clone(clf).set_params(max_epochs=1, **params).fit(X, y)

    def reload():
        clf.save(path)
        again = CLSTransformerClassifier.load(path)
        if not np.array_equal(again.predict_proba(X), clf.predict_proba(X)):
            raise Violation("it predicts differently after it was saved again")

    return {
        "predict": lambda: clf.predict(X),
        "predict_proba": lambda: clf.predict_proba(X),
        "transform": lambda: clf.transform(X),
        "cls_attention": lambda: clf.cls_attention(X),
        "score": lambda: clf.score(X, y),
        "repr": lambda: (repr(clf), clf._repr_html_()),
        "get_params": clf.get_params,
        "attributes": lambda: (clf.n_iter_, clf.loss_curve_, clf.module_, clf.device_),
        "clone": lambda: clone(clf),
        "pickle": lambda: pickle.loads(pickle.dumps(clf)).predict(X),
        "set_output": lambda: clf.set_output(transform="pandas").transform(X),
        "feature names": clf.get_feature_names_out,
        "save": reload,
        "partial_fit": lambda: pickle.loads(pickle.dumps(clf)).partial_fit(X, y),
        "fit": refit,
        "fit from scratch": fit_from_scratch,
        "display": display,
    }


MUST_WORK = ("predict", "predict_proba", "transform", "repr", "get_params", "attributes",
             "clone", "pickle", "save", "feature names")  # fmt: skip


class Violation(Exception):
    """Something that no file may cause."""


def process_state():
    """Return the settings of the process, which no file may change."""
    return (
        torch.get_num_threads(), torch.get_default_dtype(), str(torch.get_default_device()),
        len(warnings.filters), np.geterr(), dict(os.environ), torch.is_grad_enabled(),
    )  # fmt: skip


def use(path):
    """Load a file and use the estimator; return what happened, and whether it may happen."""
    before, start = process_state(), time.process_time()
    try:
        clf = CLSTransformerClassifier.load(path)
    except ValueError as error:
        is_named = str(path) in str(error)
        what = "refused" if is_named else f"refused without naming the file: {error!r:.150}"
        clf = None
    except BaseException as error:
        what, is_named, clf = f"load raises {error!r:.150}", False, None
    seconds = time.process_time() - start
    if process_state() != before:
        return "changes the process", False
    if seconds > MAX_CPU_SECONDS:
        return f"load takes {seconds:.0f} s", False
    if clf is None:
        return what, is_named
    return use_estimator(clf, path, before)


def use_estimator(clf, path, before):
    """Call everything on a loaded estimator; return what happened, and whether it may happen."""
    try:
        X, y = example(clf)
    except Exception as error:
        return f"is loaded, but has impossible attributes: {error!r:.150}", False
    late = set()
    for name, function in calls(clf, X, y, path).items():
        start = time.process_time()
        try:
            result = function()
        except Violation as error:
            return f"{name}: {error}", False
        except Exception as error:
            # A parameter may be an integer that is too large for a float.
            kinds = ValueError | TypeError | OverflowError
            is_allowed = name not in MUST_WORK and isinstance(error, kinds)
            if not is_allowed and "NaN or infinity" not in str(error):
                return f"is loaded, but {name} raises {error!r:.150}", False
            late.add(name)
        except BaseException as error:
            return f"{name} raises {error!r:.150}", False
        else:
            if name in ("predict_proba", "transform") and not np.isfinite(np.asarray(result)).all():
                return f"is loaded, but {name} is not finite", False
        if time.process_time() - start > MAX_CPU_SECONDS:
            return f"{name} takes {time.process_time() - start:.0f} s", False
    if process_state() != before:
        return "changes the process", False
    return "works" if not late else "works, except for " + ", ".join(sorted(late)), True


# Worker processes.


def work(first, last, step, folder):
    """Load and use some mutations; write a line of JSON about each to the standard output."""
    torch.set_num_threads(1)
    originals = [path.read_bytes() for path in sorted(Path(folder).glob("*.original"))]
    path = Path(folder) / f"{first % step}.safetensors"
    path.write_bytes(originals[0])
    use(path)  # This imports everything that is needed.
    output = sys.stdout
    sys.stdout = open(os.devnull, "w")
    warnings.simplefilter("ignore")
    mpl.use("agg")
    pages = int(Path("/proc/self/statm").read_text().split()[5])  # data and stack
    limit = pages * resource.getpagesize() + MAX_MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    for seed in range(first, last, step):
        given = Path(folder) / f"{seed}.content"
        if given.exists():
            kind, content = "given", given.read_bytes()
        else:
            kind, content = mutated(seed, originals)
        path.write_bytes(content)
        print(json.dumps(["start", seed, kind]), file=output, flush=True)
        try:
            what, is_allowed = use(path)
        except BaseException:
            what, is_allowed = f"the fuzzer fails: {traceback.format_exc()}", False
        print(json.dumps(["end", seed, kind, what, is_allowed]), file=output, flush=True)


class Worker:
    """A process that uses every `step`-th mutation, and is started again when it dies."""

    def __init__(self, first, last, step, folder):
        self.next, self.last, self.step, self.folder = first, last, step, folder
        self.results = []
        self.start()

    def command(self):
        """Return the command of the process."""
        numbers = map(str, (self.next, self.last, self.step))
        return [sys.executable, "-m", "tests.fuzz_files", "--work", *numbers, self.folder]

    def start(self):
        with open(Path(self.folder) / "errors", "w") as errors:  # and the progress bars of fits
            self.process = subprocess.Popen(
                self.command(), stdout=subprocess.PIPE, stderr=errors, bufsize=0
            )
        self.running, self.buffer, self.seen = None, b"", time.monotonic()

    def read(self):
        """Read what the process has written."""
        content = os.read(self.process.stdout.fileno(), 2**16)
        self.seen = time.monotonic()
        if not content:
            self.stop()
            return
        *lines, self.buffer = (self.buffer + content).split(b"\n")
        for line in lines:
            event, *result = json.loads(line)
            self.running = result
            if event == "end":
                self.results.append(tuple(result))
                self.running, self.next = None, result[0] + self.step

    def stop(self):
        """Record why the process ended, and restart it if there are files left."""
        is_hanging = self.process.poll() is None and time.monotonic() - self.seen > MAX_SECONDS
        if is_hanging:
            self.process.kill()
        code = self.process.wait()
        self.process.stdout.close()
        if self.running is not None:
            what = "hangs" if is_hanging else f"ends the process with code {code}"
            self.results.append((*self.running, what, False))
            self.next = self.running[0] + self.step
        elif code:
            raise RuntimeError((Path(self.folder) / "errors").read_text()[-3000:])
        if self.next < self.last:
            self.start()
        else:
            self.process = None


def fuzz(n_mutations, n_workers=1, first=0):
    """Return [(number, kind of mutation, what happened, whether it may happen)] of mutations."""
    with tempfile.TemporaryDirectory() as folder:
        return run(folder, first, first + n_mutations, n_workers)


def use_files(contents):
    """Return [(number, "given", what happened, whether it may happen)] of the bytes of files."""
    with tempfile.TemporaryDirectory() as folder:
        for i, content in enumerate(contents):
            (Path(folder) / f"{i}.content").write_bytes(content)
        return run(folder, 0, len(contents), 1)


def run(folder, first, last, n_workers):
    """Return the sorted results of all worker processes."""
    for i, content in enumerate(original_files(folder)):
        (Path(folder) / f"{i}.original").write_bytes(content)
    workers = [Worker(first + i, last, n_workers, folder) for i in range(n_workers)]
    while running := [worker for worker in workers if worker.process]:
        outputs = {worker.process.stdout: worker for worker in running}
        ready, _, _ = select.select(list(outputs), [], [], 1.0)
        for output in ready:
            outputs[output].read()
        for worker in running:
            if worker.process and time.monotonic() - worker.seen > MAX_SECONDS:
                worker.stop()
    return sorted(result for worker in workers for result in worker.results)


def original_files(folder):
    """Return the bytes of model files that differ in everything that a file can hold."""
    X, y = bumps(n=12, n_steps=10)
    frame = pd.DataFrame(X[:, :, 0]).add_prefix("t")
    names, state = np.array(["a", "b"])[y], np.random.RandomState(0)
    fits = [
        (small(max_epochs=2), X, y),
        (small(max_epochs=1, positions="learned", random_state=state), frame, names),
        (small(positions="rope", pooling="attention", class_weight={0: 1, 1: 2.0}), X, y),
        (small(max_epochs=1, embedding="linear", patch_size=3, cls_strategy="random"), X, y == 1),
    ]
    contents, path = [], Path(folder) / "model"
    for clf, X, y in fits:
        clf.fit(X, y).save(path)
        contents.append(path.read_bytes())
    return contents + [path.read_bytes() for path in sorted(GOLDEN.glob("*.safetensors"))]


def summary(results):
    """Return a table of how often each thing happened, by kind of mutation."""
    counts = collections.Counter((kind, what.split("(")[0]) for _, kind, what, _ in results)
    lines = [f"{n:6}  {kind:16}  {what:.80}" for (kind, what), n in sorted(counts.items())]
    n_bad = sum(not is_allowed for *_, is_allowed in results)
    return "\n".join([*lines, f"{len(results)} mutations, {n_bad} with a result not allowed"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mutations", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--work", nargs=4)
    args = parser.parse_args()
    if args.work:
        *numbers, folder = args.work
        work(*map(int, numbers), folder)
        return
    start = time.monotonic()
    results = fuzz(args.mutations, args.workers, args.first)
    if args.verbose:
        for result in results:
            if not result[3]:
                print(*result)
    print(summary(results))
    print(f"{time.monotonic() - start:.0f} s")
    sys.exit(any(not result[3] for result in results))


if __name__ == "__main__":
    main()
