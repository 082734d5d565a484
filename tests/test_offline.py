"""The package works offline, without opening a socket."""

import subprocess
import sys

import pytest

# Raises an error at every use of a socket in the rest of the process.
FORBID_SOCKETS = """
import sys

def hook(event, args):
    if event.startswith("socket."):
        raise PermissionError(f"network access: {event}")

sys.addaudithook(hook)
"""

FIT_SAVE_AND_LOAD = """
import pickle
import numpy as np
from sklearn_cls import CLSTransformerClassifier
from sklearn_cls.datasets import load_digit_sequences

X, y = load_digit_sequences()
X, y = X[:200], y[:200]
clf = CLSTransformerClassifier(max_epochs=1, early_stopping=True, verbose=True, random_state=0)
clf.fit(X, y)
assert clf.transform(X).shape == (200, 64)
assert clf.cls_attention(X).shape[0] == 200
clf.save("model.safetensors")
for loaded in (pickle.loads(pickle.dumps(clf)), clf.load("model.safetensors")):
    assert np.array_equal(loaded.predict(X), clf.predict(X))
print("done")
"""


def run_without_sockets(code, folder):
    """Run code in a new process in which every use of a socket raises an error."""
    command = [sys.executable, "-W", "error", "-c", FORBID_SOCKETS + code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_fit_predict_save_and_load_open_no_socket(tmp_path):
    process = run_without_sockets(FIT_SAVE_AND_LOAD, tmp_path)
    assert (process.stdout, process.returncode) == ("done\n", 0), process.stderr


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.socket()",
        "import socket; socket.getaddrinfo('localhost', 80)",
        "from urllib.request import urlopen; urlopen('http://127.0.0.1:9')",
    ],
)
def test_using_a_socket_raises_an_error(code, tmp_path):
    process = run_without_sockets(code, tmp_path)
    assert process.returncode != 0
    assert "network access: socket." in process.stderr
