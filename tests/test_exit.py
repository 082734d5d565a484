"""Fits and predictions while Python exits, and where no further thread can be started."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")

SETUP = """
import atexit, os, resource, signal, sys, threading, time
import numpy as np, torch
from sklearn_cls._torch import threads
from tests.helpers import bumps, small

threads.n_cores = lambda: 2
torch.set_num_threads(1)
X, y = bumps(40)
many = np.repeat(X, 60, axis=0)  # several batches
alone, clf = (small(n_jobs=n_jobs, max_epochs=1).fit(X, y) for n_jobs in (1, 2))
expected = clf.predict_proba(many)

def say(text):
    os.write(1, text.encode())

def predict():
    say(f"{np.array_equal(clf.predict_proba(many), expected)} ")

def fit():
    model = small(n_jobs=2, max_epochs=1).fit(X, y)
    same_as = [n for n, c in ((1, alone), (2, clf)) if all(
        torch.equal(a, b) for a, b in zip(model.module_.parameters(), c.module_.parameters())
    )]
    say(f"{same_as} ")
"""


def run(script):
    """Return the standard output of a script; it must not write to standard error."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", SETUP + script],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


@pytest.mark.slow
def test_a_function_that_is_called_at_exit_can_predict_and_fit():
    output = run("atexit.register(fit)\natexit.register(predict)")
    # From Python 3.12 on, no thread can be started at exit.
    assert output == ("True [1] " if sys.version_info >= (3, 12) else "True [2] ")


@pytest.mark.slow
def test_a_thread_that_outlives_the_main_thread_can_predict_and_fit():
    output = run("""
def work():
    threading.main_thread().join()
    predict()
    fit()
threading.Thread(target=work).start()
""")
    assert output in ("True [2] ", "True [1] ")


@pytest.mark.parametrize(
    ("function", "n_jobs"),
    [
        ("lambda: clf.predict(many)", 2),
        pytest.param("lambda: clf.predict(many)", 1, marks=pytest.mark.slow),
        pytest.param("lambda: clf.partial_fit(X, y)", 1, marks=pytest.mark.slow),
        pytest.param("lambda: clf.partial_fit(X, y)", 2, marks=pytest.mark.slow),
        pytest.param("long_fit", 2, marks=pytest.mark.slow),
    ],
)
def test_python_exits_while_daemon_threads_compute(function, n_jobs):
    # Otherwise, "terminate called without an active exception" aborts nearly every run.
    assert (
        run(f"""
clf.set_params(n_jobs={n_jobs})
long_fit = lambda: small(max_epochs=10**6).fit(X, y)
def work(function={function}):
    while True:
        function()
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.3)
from sklearn_cls._torch import daemon_threads
daemon_threads.TIMEOUT = 1000.0
say("end")
""")
        == "end"
    )


@pytest.mark.slow
def test_a_forked_process_does_not_wait_for_daemon_threads_of_its_parent():
    assert (
        run("""
from sklearn_cls._torch import daemon_threads
daemon_threads.TIMEOUT = 1000.0
computing = threading.Event()
def work():
    while True:
        computing.set()
        clf.predict(many)
threading.Thread(target=work, daemon=True).start()
computing.wait()
time.sleep(0.1)
child = os.fork()
if child == 0:
    signal.alarm(50)
    sys.exit(0)
say(str(os.waitpid(child, 0)[1]))
""")
        == "0"
    )


def test_one_thread_does_all_the_work_if_no_other_can_be_started():
    assert (
        run("""
if os.getuid() == 0:
    os.setuid(65534)  # there is no limit for root
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
for n_caller in 1, 2, 10_000:
    torch.set_num_threads(n_caller)
    predict()
    fit()
""")
        == "True [1] " * 3
    )


@pytest.mark.slow
def test_a_signal_handler_can_predict_and_fit_during_a_prediction():
    assert (
        run("""
is_done = threading.Event()
def handler(number, frame):
    predict()
    fit()
    is_done.set()
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.02)
while not is_done.is_set():
    clf.predict_proba(many)
""")
        == "True [2] "
    )


@pytest.mark.slow
def test_any_number_of_jobs_can_be_asked_for():
    assert (
        run("""
torch.set_num_threads(10_000)
for n_jobs, same_as in (10_000, clf), (2**31, clf), (-(10**9), alone), (None, alone):
    clf.set_params(n_jobs=n_jobs)
    predict()
    model = small(n_jobs=n_jobs, max_epochs=1).fit(X, y)
    pairs = zip(model.module_.parameters(), same_as.module_.parameters())
    say(f"{all(torch.equal(a, b) for a, b in pairs)} ")
""")
        == "True " * 8
    )
