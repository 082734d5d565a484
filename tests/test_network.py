import subprocess
import sys

import pytest

GUARD = """
import sys

def deny(event, args):
    if event.startswith("socket."):
        raise PermissionError(f"no network: {event}")

sys.addaudithook(deny)
"""

LIBRARY = """
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


def run(code, folder):
    """Run code in a process that may have no socket."""
    command = [sys.executable, "-W", "error", "-c", GUARD + code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_library_opens_no_socket(tmp_path):
    process = run(LIBRARY, tmp_path)
    assert (process.stdout, process.returncode) == ("done\n", 0), process.stderr


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.socket()",
        "import socket; socket.getaddrinfo('localhost', 80)",
        "from urllib.request import urlopen; urlopen('http://127.0.0.1:9')",
    ],
)
def test_a_socket_would_be_noticed(code, tmp_path):
    process = run(code, tmp_path)
    assert process.returncode != 0
    assert "no network: socket." in process.stderr
