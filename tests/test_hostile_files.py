"""Attacks by model files: each is refused, or does no harm."""

import json
import sys

import numpy as np
import pandas as pd
import pytest

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls._persistence.files import FileError
from tests.fuzz_files import use_files
from tests.golden_files import FOLDER
from tests.helpers import bumps, small
from tests.mutate_files import CHECKSUM, DOCUMENT, File, join

HUGE = 10**9
OLD_STD, OLD_MEAN = "network.embedding.scale", "network.embedding.mean"  # in format 2
VARIANCE = "network.embedding.convolutions.norms.0.running_var"
COUNTER = "network.embedding.convolutions.norms.0.num_batches_tracked"


# Each attack is a function of a File, which it changes; if it returns bytes, these are the file.


def put(*places):
    """Return an attack that sets items of the document: (name, name, ..., value) each."""

    def attack(file):
        for *keys, last, value in places:
            container = file.document
            for key in keys:
                container = container[key]
            container[last] = value

    return attack


def both(**values):
    """Return an attack that changes the parameters and the network alike."""
    return put(*((part, *item) for item in values.items() for part in ("parameters", "network")))


def drop(*keys):
    """Return an attack that removes an item of the document."""

    def attack(file):
        container = file.document
        for key in keys[:-1]:
            container = container[key]
        del container[keys[-1]]

    return attack


def classes(dtype, *labels):
    return put(("classes", {"dtype": dtype, "labels": list(labels)}))


def random_state(change):
    def attack(file):
        change(file.document["parameters"]["random_state"]["random_state"])

    return attack


def values(name, value):
    """Return an attack that fills a tensor."""

    def attack(file):
        dtype, shape, _ = file.tensors[name]
        kind = {"F32": np.float32, "F64": np.float64, "I64": np.int64}[dtype]
        file.tensors[name][2] = np.full(shape, value, kind).tobytes()

    return attack


def column(name, content, dtype="U8"):
    """Return an attack that stores a column of the history as other bytes."""

    def attack(file):
        file.document["history"]["columns"][name] = None
        file.tensors["history." + name] = [dtype, [len(content)], content]

    return attack


def header(change):
    """Return an attack that changes the header, which `change` returns as a dict or as text."""

    def attack(file):
        head, data = file.header_and_data()
        return join(change(head) or head, data)

    return attack


def entry(**items):
    """Return an attack that changes the entry of a tensor in the header."""
    return header(lambda head: head["network.norm.bias"].update(items))


def text(change):
    """Return an attack that changes the text of the document."""

    def attack(file):
        head, data = file.header_and_data()
        changed = change(head["__metadata__"][DOCUMENT])
        head["__metadata__"] = {DOCUMENT: changed, CHECKSUM: file.checksum(changed)}
        return join(head, data)

    return attack


def overlap(file):
    """Let two tensors of equal size share their bytes, so that other bytes belong to none."""
    head, data = file.header_and_data()
    head["network.norm.bias"]["data_offsets"] = head["network.norm.weight"]["data_offsets"]
    return join(head, data)


def hole(file):
    """Leave bytes between tensors that belong to none."""
    head, data = file.header_and_data()
    first = min(item["data_offsets"][1] for name, item in head.items() if name != "__metadata__")
    for name, item in head.items():
        if name != "__metadata__" and item["data_offsets"][0] >= first:
            item["data_offsets"] = [offset + 8 for offset in item["data_offsets"]]
    return join(head, data[:first] + bytes(8) + data[first:])


def reordered(file):
    """List the tensors in another order than that of their bytes, which is valid."""
    head, data = file.header_and_data()
    return join(dict(reversed(head.items())), data)


REFUSED = {
    "heads that do not divide d_model": both(n_heads=5),
    "rotary positions with an odd head size": both(positions="rope", n_heads=16),
    "no blocks": both(depth=0),
    "a billion blocks": both(depth=HUGE),
    "a network of a billion": both(d_model=HUGE),
    "a patch of no steps": put(("network", "patch_size", 0)),
    "dropout of everything": both(dropout=1),
    "true as a number of features": put(("network", "n_features", True)),
    "a negative seed of the token": put(("network", "token_seed", -1)),
    "a seed beyond 64 bits": put(("network", "token_seed", 2**64)),
    "a parameter that is missing": drop("parameters", "lr"),
    "a parameter that is unknown": put(("parameters", "wings", 2)),
    "callbacks": put(("parameters", "callbacks", [])),
    "a device": put(("parameters", "device", "cuda:7")),
    "threads in the current format": put(("parameters", "n_jobs", 2**31)),
    "a parameter with a type tag": put(("parameters", "lr", {"eval": "1"})),
    "a dict as seed": put(("parameters", "random_state", {"dict": [[1, 2], [1, 3]]})),
    "classes that occur twice": classes("<U1", "a", "a"),
    "classes that are not sorted": classes("<U1", "b", "a"),
    "classes of several types": classes("|O", "a", 1),
    "classes that are objects": classes("|O", {"dict": []}, {"dict": [[1, 2]]}),
    "classes that are nothing": classes("|O", None, None),
    "bytes among object classes": classes("|O", {"bytes": "a"}, {"bytes": "b"}),
    "a single class": classes("<U1", "a"),
    "classes of a network with two": classes("<U1", "a", "b", "c"),
    "classes that their dtype cuts": classes("<U1", "aa", "bb"),
    "classes that their dtype rounds": classes("<i8", 1.5, 2.5),
    "classes beyond their dtype": classes("|u1", 1, 300),
    "a class that is not a number": classes("<f8", 1.0, float("nan")),
    "an infinite class": classes("<f8", 1.0, float("inf")),
    "classes that are fractions": classes("<f8", 0.5, 1.5),
    "nested classes": classes("<i8", [1, 2], [3, 4]),
    "classes of a huge dtype": classes("<U99999999", "a", "b"),
    "classes of a large dtype": classes("<U9999", "a", "b"),
    "many classes as wide as one": classes("<U10000", *map(str, range(1000)), "x" * 10_000),
    "classes of a pickled dtype": classes("|V8", "a", "b"),
    "names that occur twice": put(("feature_names_in", ["t"] * 10)),
    "names that are numbers": put(("feature_names_in", list(range(10)))),
    "too few names": put(("feature_names_in", ["a", "b"])),
    "nested names": put(("feature_names_in", [["a"]] * 10)),
    "no features": put(("n_features_in", 0)),
    "true as a number of columns": put(("n_features_in", True)),
    "a fraction of a feature": put(("n_features_in", 10.0)),
    "a table of sequences": put(("fitted_on_2d", False)),
    "a table by text": put(("fitted_on_2d", "yes")),
    "a learning rate of text": put(("training", "lr", "x")),
    "a negative learning rate": put(("training", "lr", -1.0)),
    "an infinite learning rate": put(("training", "lr", float("inf"))),
    "a learning rate that is not a number": put(("training", "lr", float("nan"))),
    "batches of nothing": put(("training", "batch_size", 0)),
    "batches of a half": put(("training", "batch_size", 0.5)),
    "true epochs": put(("training", "max_epochs", True)),
    "an unknown precision": put(("training", "precision", "float16")),
    "a seed of text": put(("training", "seed", "x")),
    "negative epochs": put(("training", "n_epochs_trained", -1)),
    "too much training": put(("training", "device", "cpu")),
    "a short state": random_state(lambda state: state[1].pop()),
    "a long state": random_state(lambda state: state[1].append(1)),
    "an empty state": random_state(lambda state: state.clear()),
    "a state without words": random_state(lambda state: state.__setitem__(1, [])),
    "a state read beyond its end": random_state(lambda state: state.__setitem__(2, 10**8)),
    "a state read before its start": random_state(lambda state: state.__setitem__(2, -1)),
    "a state of large words": random_state(lambda state: state[1].__setitem__(0, 2**40)),
    "a state of another generator": random_state(lambda state: state.__setitem__(0, "PCG64")),
    "an output of another library": put(("output", "spark")),
    "an output of a number": put(("output", 0)),
    "versions as a list": put(("versions", ["0.1.0"])),
    "an item too many": put(("x", 1)),
    "a history of no epochs": put(("history", "n_epochs", 0)),
    "a history that is a list": put(("history", [])),
    "a history without epochs": drop("history", "columns", "epoch"),
    "a loss of text": column("train_loss", b'["a"]'),
    "a loss of whether": column("train_loss", b"[true]"),
    "a loss of half precision": column("train_loss", b"12", "F16"),
    "a column that is too long": column("note", b"[1, 2]"),
    "a column that is no list": column("note", b'{"a": 1}'),
    "a column that is no JSON": column("note", b"[1"),
    "a column with a name twice": column("note", b'[{"a": 1, "a": 2}]'),
    "a column that is not UTF-8": column("note", b'["\xff"]'),
    "a deeply nested column": column("note", b"[" * 10**6 + b"]" * 10**6),
    "format true": put(("format", True)),
    "format 1.0": put(("format", 1.0)),
    "weights that are not numbers": values("network.head.weight", np.nan),
    "an infinite weight": values("network.head.bias", -np.inf),
    "a weight that training cannot reach": values("network.norm.weight", 1e20),
    "a mean that training cannot reach": values(VARIANCE.replace("var", "mean"), 3e38),
    "negative variances": values(VARIANCE, -1),
    "infinite variances": values(VARIANCE, np.inf),
    "a negative counter": values(COUNTER, -1),
    "a counter about to overflow": values(COUNTER, 2**63 - 1),
    "a standard deviation of nothing": values("scaler.std", 0),
    "a mean that is infinite": values("scaler.mean", -np.inf),
    "a rest of a mean that is not a number": values("scaler.mean_rest", np.nan),
    "tensors that overlap": overlap,
    "bytes of no tensor": hole,
    "elements of 4 bits": entry(dtype="F4"),
    "elements of an unknown type": entry(dtype="F33"),
    "a huge shape without elements": entry(shape=[0, 2**62]),
    "a shape that overflows": entry(shape=[2**32, 2**32]),
    "a negative shape": entry(shape=[-16]),
    "a shape that is no list": entry(shape=16),
    "offsets beyond 64 bits": entry(data_offsets=[2**64, 2**64 + 64]),
    "offsets that are fractions": entry(data_offsets=[0.0, 64.0]),
    "no offsets": entry(data_offsets=None),
    "metadata that are a list": header(lambda head: head.update(__metadata__=[])),
    "metadata that are a list of the right names": header(
        lambda head: head.update(__metadata__=list(head["__metadata__"]))
    ),
    "metadata that are text": header(lambda head: head.update(__metadata__=DOCUMENT)),
    "a document that is no text": header(
        lambda head: head["__metadata__"].update({DOCUMENT: {"format": 3}})
    ),
    "a checksum that is no text": header(lambda head: head["__metadata__"].update({CHECKSUM: 0})),
    "a tensor that occurs twice": header(
        lambda head: json.dumps(head)[:-1]
        + f', "network.norm.bias": {json.dumps(head["network.norm.bias"])}}}'
    ),
    "a name that is half a character": header(
        lambda head: json.dumps(head).replace("network.norm.bias", "network.norm.\\ud800")
    ),
    "a header of nested lists": header(lambda head: "[" * 10**6),
    "an item that occurs twice": text(lambda document: document[:-1] + ', "format": 3}'),
    "a number that is infinite": text(
        lambda document: document.replace('"lr": 0.005', '"lr": 1e400')
    ),
    "an integer of 5000 digits": text(
        lambda document: document.replace('"verbose": 0', f'"verbose": {"9" * 5000}')
    ),
    "deeply nested text": text(lambda document: '{"format":' * 10**5),
    "no text": text(lambda document: ""),
    "half a character": text(
        lambda document: document.replace('"output": null', '"output": "\ud800"')
    ),
}  # fmt: skip
HARMLESS = {
    "more positions than can be counted": put(("network", "max_tokens", 10**30)),
    "tensors in another order": reordered,
    "text with half a character": put(("versions", {"numpy": "\ud800"})),
}


# Attacks by files of format 2.
OLD = {
    "a standard deviation of 0": values(OLD_STD, 0),
    "a negative standard deviation": values(OLD_STD, -1),
    "a standard deviation that is not a number": values(OLD_STD, np.nan),
    "an infinite mean": values(OLD_MEAN, np.inf),
    "a short list in the history": put(("history", "columns", "mixed", [1])),
    "no list in the history": put(("history", "columns", "mixed", {"a": 1})),
}
HARMLESS_OLD = {
    "10,000 threads": put(("parameters", "n_jobs", 10_000)),
    "threads beyond 32 bits": put(("parameters", "n_jobs", 2**31)),
    "threads of text": put(("parameters", "n_jobs", "all")),
}


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """Return the bytes of the file of each attack, by name."""
    X, y = bumps(n=8, n_steps=10)
    clf = small(max_epochs=1, random_state=np.random.RandomState(0))
    clf.fit(pd.DataFrame(X[:, :, 0]).add_prefix("t"), np.array(["a", "b"])[y])
    path = tmp_path_factory.mktemp("model") / "model"
    clf.save(path)
    contents, old = {}, FOLDER / "format_2_sequences.safetensors"
    for attacks, original in (({**REFUSED, **HARMLESS}, path), ({**OLD, **HARMLESS_OLD}, old)):
        for name, attack in attacks.items():
            file = File(original.read_bytes())
            contents[name] = attack(file) or file.content()
    return contents


@pytest.fixture(scope="module")
def results(contents):
    """Return what happens in other processes with the file of each attack, by name."""
    return dict(zip(contents, use_files(contents.values()), strict=True))


@pytest.mark.parametrize("name", [*REFUSED, *OLD])
def test_an_attack_raises_an_error_with_the_path_of_the_file(name, contents, tmp_path):
    path = tmp_path / "model"
    path.write_bytes(contents[name])
    with pytest.raises(FileError, match=str(path)):
        CLSTransformerClassifier.load(path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", [*REFUSED, *OLD])
def test_an_attack_is_refused_in_another_process(name, results):
    _, _, what, is_allowed = results[name]
    assert what == "refused"
    assert is_allowed


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", [*HARMLESS, *HARMLESS_OLD])
def test_a_harmless_file_loads_and_everything_works(name, results):
    _, _, what, is_allowed = results[name]
    assert what == "works"
    assert is_allowed
