"""Fits and predictions keep freed memory until they end, whatever Dask has set for its workers."""

import os
import subprocess
import sys

import pytest

from sklearn_cls._torch import heap

SCRIPT = """
import resource
from pathlib import Path
import numpy as np
from tests.helpers import small

def n_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident_bytes():
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])

X = np.random.default_rng(0).normal(size=(2000, 100, 8)).astype(np.float32)
clf = small(max_epochs=1, d_model=64, n_jobs=1).fit(X[:20], np.arange(20) % 2)
clf.predict_proba(X)
before, resident = n_faults(), resident_bytes()
for _ in range(3):
    clf.predict_proba(X)
predictions, kept = n_faults() - before, resident_bytes() - resident
print(predictions, kept)
"""


def measured(**variables):
    """Return the page faults of predictions, and the bytes that they keep."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], env={**environment, **variables}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    return map(int, result.stdout.split())


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "confstr") or sys.platform != "linux", reason="needs glibc")
def test_predictions_in_a_dask_worker_do_not_get_new_memory_for_every_tensor():
    expected, _ = measured()
    n_faults, n_kept = measured(MALLOC_TRIM_THRESHOLD_="65536")
    assert n_faults < expected + 50_000  # about 500,000 if memory is not kept
    assert n_kept < 2**22


def test_a_variable_that_was_set_later_does_not_count(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    assert heap.small_thresholds.__wrapped__() is None
