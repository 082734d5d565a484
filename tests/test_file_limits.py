"""Memory and time of reading a model file, and files that change while they are read."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls._persistence.files import FileError
from sklearn_cls._persistence.json_values import MAX_LABEL_BYTES, MAX_LABEL_FACTOR
from sklearn_cls._persistence.tensor_file import open_file
from tests.helpers import bumps, small
from tests.mutate_files import DOCUMENT, File, join

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

# What reading may take: bytes of memory and seconds per byte of JSON and per byte of tensors.
MEMORY_OF_JSON, MEMORY_OF_TENSORS, MEMORY = 60, 4, 2**26
SECONDS_OF_JSON, SECONDS_OF_TENSORS, SECONDS = 2e-6, 1e-7, 0.5

# Load files, each with a limit of memory and of CPU time. Before that, load a small one, which
# imports everything that is needed. Each argument is PATH:BYTES:SECONDS.
LOAD = """
import resource, sys, time
from pathlib import Path
from sklearn_cls import CLSTransformerClassifier
CLSTransformerClassifier.load(sys.argv[1])
for argument in sys.argv[2:]:
    path, memory, seconds = argument.split(":")
    pages = int(Path("/proc/self/statm").read_text().split()[5])  # data and stack
    limit = pages * resource.getpagesize() + int(memory)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
    start = time.process_time()
    try:
        CLSTransformerClassifier.load(path)
        what = "loaded"
    except ValueError as error:
        what = "refused" if path in str(error) else repr(error)
    except Exception as error:
        what = repr(error)
    if time.process_time() - start > float(seconds):
        what = f"took {time.process_time() - start:.2f} s"
    print(what)
"""


@pytest.fixture
def path(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    return tmp_path / "model"


def load_within_limits(good, sizes):
    """Load files in another process within the limits for their sizes; return what happens.

    `sizes` maps each path to how many of its bytes are JSON.
    """
    arguments = []
    for path, n_json in sizes.items():
        n_tensors = os.path.getsize(path) - n_json
        memory = MEMORY + MEMORY_OF_JSON * n_json + MEMORY_OF_TENSORS * n_tensors
        seconds = SECONDS + SECONDS_OF_JSON * n_json + SECONDS_OF_TENSORS * n_tensors
        arguments.append(f"{path}:{memory}:{seconds}")
    command = [sys.executable, "-c", LOAD, good, *arguments]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(zip(sizes, result.stdout.splitlines(), strict=True))


# JSON that takes the most memory or time per byte.
BULK = {
    "nested": "[" * 900 + "]" * 900,
    "lists": "[[]]",
    "objects": '{"":0}',
    "numbers": "1.5",
    "integers": "9" * 4000,
    "names": '"ab"',
}


def bulky(content, kind, place):
    """Return a model file with much JSON of some kind in some place, and the size of the JSON."""
    bulk = f"[{','.join([BULK[kind]] * (2**20 // (len(BULK[kind]) + 1)))}]"
    file = File(content)
    header, data = file.header_and_data()
    if place == "header":
        return join(f'{{"x": {bulk}}}', b""), len(bulk)
    if place == "document":
        text = f'{{"format": 3, "x": {bulk}}}'
        header["__metadata__"][DOCUMENT] = text
        return join(header, data), len(json.dumps(text))
    file.document["history"]["columns"]["x"] = None
    file.tensors["history.x"] = ["U8", [len(bulk)], bulk.encode()]
    return file.content(), len(bulk)


@pytest.mark.slow
def test_memory_and_time_are_linear_in_the_bytes_of_json(path):
    sizes = {}
    for kind in BULK:
        for place in ("header", "document", "history"):
            large = path.with_name(f"{kind} in {place}")
            content, sizes[large] = bulky(path.read_bytes(), kind, place)
            large.write_bytes(content)
    wide = path.with_name("wide labels")
    file = File(path.read_bytes())
    n = 2**16  # labels, which together take as much memory as they may
    labels = [f"{i:05}" for i in range(n)]
    limit = MAX_LABEL_BYTES + MAX_LABEL_FACTOR * len(json.dumps(labels))
    file.document["classes"] = {"dtype": f"<U{limit // n // 4}", "labels": labels}
    wide.write_bytes(file.content())
    sizes[wide] = os.path.getsize(wide)
    results = load_within_limits(path, sizes)
    assert results == dict.fromkeys(sizes, "refused")


@pytest.mark.slow
def test_memory_and_time_are_linear_in_the_bytes_of_weights(path):
    X, y = bumps(n=8, n_steps=5)
    clf = small(max_epochs=1, d_model=512, dim_feedforward=2048, depth=2, lr=1e-4).fit(X, y)
    large = path.with_name("large")
    clf.save(large)
    assert os.path.getsize(large) > 2e7
    assert load_within_limits(path, {large: 10_000}) == {large: "loaded"}


@pytest.mark.parametrize("size", [2**40, 2**43])
def test_a_sparse_file_of_terabytes_is_refused_at_once(size, path):
    n = size - 8 - 80
    header = f'{{"x": {{"dtype": "U8", "shape": [{n}], "data_offsets": [0, {n}]}}}}'.ljust(80)
    for content in (path.read_bytes(), (80).to_bytes(8, "little") + header.encode(), b""):
        large = path.with_name("large")
        large.write_bytes(content)
        try:
            os.truncate(large, size)
        except OSError:
            pytest.skip("The file system has no files of this size.")
        with pytest.raises(ValueError, match=r"large' (is|was|has)"):
            CLSTransformerClassifier.load(large)


@pytest.mark.parametrize("change", ["cut", "empty", "other weights"])
def test_a_file_that_changes_while_it_is_read_raises(change, path):
    with open_file(path) as file:
        content = path.read_bytes()
        if change == "other weights":
            with open(path, "r+b") as other:
                other.seek(len(content) - 1000)
                other.write(bytes(1000))
        else:
            os.truncate(path, 0 if change == "empty" else len(content) - 1)
        with pytest.raises(FileError, match="model' is damaged"):
            file.tensors()


# Replace a file in place by one of two models again and again, as `cp` does.
REPLACE = """
import sys, time
from pathlib import Path
path, *models = map(Path, sys.argv[1:])
models = [model.read_bytes() for model in models]
while True:
    for model in models:
        path.write_bytes(model)
        time.sleep(0.001)
"""


@pytest.mark.slow
def test_a_file_that_is_replaced_in_place_again_and_again_is_read_as_one_model_or_raises(
    path, fitted, data
):
    other = small(max_epochs=1, random_state=1).fit(*data)
    other.save(path.with_name("other"))
    target = path.with_name("target")
    target.write_bytes(path.read_bytes())
    expected = [clf.predict_proba(data[0][:4]) for clf in (fitted, other)]
    command = [sys.executable, "-c", REPLACE, target, path, path.with_name("other")]
    n_loaded = n_refused = 0
    with subprocess.Popen(command) as process:
        while n_loaded < 20 or n_refused < 20:
            try:
                clf = CLSTransformerClassifier.load(target)
            except FileError:
                n_refused += 1
            else:
                n_loaded += 1
                p = clf.predict_proba(data[0][:4])
                assert any(np.array_equal(p, known) for known in expected)
        process.kill()
