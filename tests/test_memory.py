"""The memory of checks, statistics, fingerprints and predictions does not grow with the data."""

import gc
import subprocess
import sys
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest

from sklearn_cls._data.batches import SequenceDataset
from sklearn_cls._data.scaler import fit_scaler
from sklearn_cls._data.sequences import CHUNK_BYTES
from sklearn_cls._data.validation import check_sequences
from sklearn_cls._persistence.fingerprint import numbers, sha256
from tests.helpers import small

ROOT = Path(__file__).parent.parent
SHAPE = (1000, 400, 10)  # 4 million numbers


def peak_memory(function, *args):
    """Return how many bytes `function` allocates at most, and its result."""
    tracemalloc.start()
    try:
        result = function(*args)
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


def forms(kind, tmp_path):
    """Return about 32 MB of numbers in one form."""
    X = np.random.default_rng(0).normal(100, 10, size=SHAPE)
    if kind == "list":
        return [x[: 300 + i % 100] for i, x in enumerate(X)]
    if kind == "2-D":
        return X.reshape(SHAPE[0], -1)
    if kind == "not contiguous":
        return X.transpose(0, 2, 1).copy().transpose(0, 2, 1)
    if kind == "padded":
        X[::2, 200:] = np.nan
    if kind == "memory map":
        np.save(tmp_path / "X.npy", X)
        return np.load(tmp_path / "X.npy", mmap_mode="r")
    return X.astype(kind) if kind in ("int64", "float16", ">f8") else X


@pytest.mark.parametrize(
    "kind",
    ["float64", "int64", ">f8", "padded", "2-D", "not contiguous", "list", "memory map", "float16"],
)
def test_checks_statistics_and_fingerprints_take_a_few_chunks(kind, tmp_path):
    X = forms(kind, tmp_path)
    peak, (sequences, _) = peak_memory(check_sequences, X, "Classifier")
    assert peak < 2 * CHUNK_BYTES
    dataset = SequenceDataset.unlabeled(sequences)
    peak, scaler = peak_memory(fit_scaler, sequences, dataset.indices)
    assert peak < 12 * CHUNK_BYTES
    peak, _ = peak_memory(dataset.scaled(scaler).sequences.scales_differ, dataset.indices)
    assert peak < 12 * CHUNK_BYTES
    peak, _ = peak_memory(lambda: sha256(numbers(dataset.sequences, dataset.indices)))
    assert peak < 6 * CHUNK_BYTES


@pytest.mark.parametrize("kind", ["float64", "int64", "list", "memory map"])
def test_a_prediction_takes_the_memory_of_a_few_batches(kind, tmp_path):
    X = forms(kind, tmp_path)
    clf = small(patch_size=20, embedding="linear", max_epochs=1, n_jobs=1)
    clf.fit(X[:4], [0, 1, 0, 1])
    peak, _ = peak_memory(clf.predict, X)
    assert peak < 6 * 2**20  # torch's memory is not counted


LIMITED = """
import resource, signal, sys, warnings, numpy as np
from sklearn_cls._data.batches import SequenceDataset
from sklearn_cls._persistence.fingerprint import numbers, sha256
from sklearn_cls._data.scaler import fit_scaler
from sklearn_cls._data.readers import ArrayReader
from sklearn_cls._data.sequences import Sequences
from sklearn_cls import CLSTransformerClassifier

class OutOfTime(BaseException):
    pass

def stop(*args):
    raise OutOfTime

def megabytes():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmData")) >> 10

def limit(n_megabytes):
    n_bytes = (megabytes() + n_megabytes) << 20
    resource.setrlimit(resource.RLIMIT_DATA, (n_bytes, resource.RLIM_INFINITY))

signal.signal(signal.SIGALRM, stop)
"""

MAP = (
    LIMITED
    + """
path, *shape = sys.argv[1:]
X = np.memmap(path, dtype=np.float32, mode="r", shape=tuple(map(int, shape)))
n, n_steps, n_features = X.shape
"""
)

TERABYTE = (
    MAP
    + """
few = np.random.default_rng(0).normal(size=(4, 5, n_features))
clf = CLSTransformerClassifier(
    d_model=16, n_heads=2, depth=1, max_epochs=1, patch_size=64, embedding="linear", n_jobs=1
).fit(few, [0, 1, 0, 1])
sequences = Sequences(ArrayReader(X), np.full(n, n_steps), np.zeros(n, bool))
dataset = SequenceDataset.unlabeled(sequences)
limit(100)
for function in (
    lambda: clf.predict(X),
    lambda: clf.fit(X, np.arange(n) % 2),
    lambda: sha256(numbers(dataset.sequences, dataset.indices)),
    lambda: fit_scaler(sequences, dataset.indices),
):
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        function()
    except OutOfTime:
        continue
    raise SystemExit("The pass ended too early.")
"""
)

WHOLE = (
    MAP
    + """
clf = CLSTransformerClassifier(
    d_model=16, n_heads=1, dim_feedforward=16, depth=1, max_epochs=1, embedding="linear", n_jobs=1
).fit(np.random.default_rng(0).normal(size=(8, n_steps, n_features)), np.arange(8) % 2)
clf.predict(X[:1000])
limit(60)
assert len(set(clf.predict(X))) == 1
"""
)

MANY_CODES = (
    LIMITED
    + """
X = np.random.default_rng(0).permutation(2_000_000).reshape(20_000, 100, 1)
if sys.argv[1] == "text":
    X = np.char.add("code ", X[..., 0].astype(str))
clf = CLSTransformerClassifier(
    d_model=16, n_heads=1, dim_feedforward=16, depth=1, max_epochs=1, embedding="linear", n_jobs=1,
    categorical_features=[0],
).fit([["a", "b"], ["b", "a"]], [0, 1])
warnings.filterwarnings("ignore", "X has 2000000 different codes")
limit(int(sys.argv[2]))
clf.fit(X, np.arange(len(X)) % 2)
assert clf.module_.embedding.codes.n_rows == [2**16 + 2]
assert np.isfinite(clf.predict_proba(X[:10])).all()
"""
)


def run_script(script, *args):
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)


def run_with_map(script, shape, tmp_path):
    path = tmp_path / "X"
    with open(path, "wb") as file:
        file.truncate(4 * np.prod(shape, dtype=object))
    return run_script(script, path, *shape)


linux = pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_DATA and sparse files")


@linux
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((2**20, 2**10, 2**8), marks=pytest.mark.slow, id="many sequences"),
        pytest.param((2**10, 2**20, 2**8), marks=pytest.mark.slow, id="long sequences"),
        pytest.param((2, 2**31, 2**6), marks=pytest.mark.slow, id="two sequences"),
        pytest.param((2, 2**37, 1), marks=pytest.mark.slow, id="two univariate sequences"),
    ],
)
def test_passes_over_a_sparse_terabyte_stay_within_100_megabytes(shape, tmp_path):
    result = run_with_map(TERABYTE, shape, tmp_path)
    assert result.returncode == 0, result.stderr


@linux
@pytest.mark.slow
def test_predicting_400_megabytes_takes_less_than_60(tmp_path):
    result = run_with_map(WHOLE, (50_000, 20, 100), tmp_path)
    assert result.returncode == 0, result.stderr


@linux
@pytest.mark.slow
@pytest.mark.parametrize(("kind", "megabytes"), [("numbers", 300), ("text", 700)])
def test_two_million_codes_become_65536_categories_in_bounded_memory(kind, megabytes):
    result = run_script(MANY_CODES, kind, megabytes)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("method", ["fit", "partial_fit", "predict", "transform", "score"])
def test_x_is_not_kept_until_the_garbage_collector_runs(method, fitted, data):
    X, y = data[0].copy(), data[1]
    estimator = small(max_epochs=1) if "fit" in method else fitted
    arguments = (y,) if "fit" in method or method == "score" else ()
    reference = weakref.ref(X)
    gc.disable()
    try:
        getattr(estimator, method)(X, *arguments)
        del X
        assert reference() is None
    finally:
        gc.enable()
