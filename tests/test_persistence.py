import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls._persistence.model_file import FORMAT
from sklearn_cls._persistence.tensor_file import DOCUMENT, write_file
from tests.helpers import bumps, small

FIXTURE = Path(__file__).parent / "model_of_format_1.safetensors"


@pytest.fixture
def path(fitted, tmp_path):
    fitted.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def there_and_back(clf, tmp_path):
    clf.save(tmp_path / "model.safetensors")
    return type(clf).load(tmp_path / "model.safetensors")


VARIANTS = [
    *({"cls_strategy": s} for s in ("learned", "zeros", "fixed", "random")),
    *({"pooling": p} for p in ("mean", "max", "attention")),
    *({"positions": p} for p in ("learned", "rope", None)),
    {"embedding": "linear", "depth": 1, "patch_size": 3, "standardize": False},
    {"early_stopping": True, "max_epochs": 12, "n_iter_no_change": 2},
]


@pytest.mark.parametrize("params", VARIANTS, ids=str)
def test_a_loaded_model_predicts_bit_by_bit_what_the_saved_one_did(params, data, tmp_path):
    X, y = data
    X = [x[: 12 + i % 9].copy() for i, x in enumerate(X)]
    X[3][4, 1] = np.nan
    clf = small(**params).fit(X, y)
    loaded = there_and_back(clf, tmp_path)
    assert np.array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    assert np.array_equal(loaded.transform(X), clf.transform(X))
    assert loaded.get_params() == clf.get_params()
    assert loaded.history_ == clf.history_


LABELS = [
    *(np.array([3, 7], dtype) for dtype in (np.int64, np.int8, np.uint32, ">i4", np.float32)),
    *(np.array(["no", "yes"], dtype) for dtype in ("U3", "U9", object)),
    *(np.array([b"a", b"b\xffc"], dtype) for dtype in ("S3", "S9", object)),
    *(np.array(["2020", "2021"], dtype) for dtype in ("M8[D]", "M8[ns]")),
    np.array([False, True]),
]


@pytest.mark.parametrize("labels", LABELS, ids=lambda labels: labels.dtype.str)
def test_classes_come_back_with_their_dtype(labels, data, tmp_path):
    y = labels[data[1]]
    clf = small(max_epochs=1).fit(data[0], y)
    loaded = there_and_back(clf, tmp_path)
    assert loaded.classes_.dtype == clf.classes_.dtype
    assert np.array_equal(loaded.predict(data[0]), clf.predict(data[0]))


@pytest.mark.parametrize("label", ["no", b"no", 0, True])
def test_class_weights_and_parameters_of_numpy_come_back(label, data, tmp_path):
    other = type(label)(not label) if isinstance(label, int) else label + label
    y = np.array([label, other])[data[1]]
    clf = small(class_weight={label: 2.0, other: np.float32(0.1)}, lr=np.float64(1e-3)).fit(
        data[0], y
    )
    loaded = there_and_back(clf.set_params(depth=np.int64(2)), tmp_path)
    assert loaded.get_params() == clf.get_params()
    assert loaded.class_weight == {label: 2.0, other: float(np.float32(0.1))}
    assert type(next(iter(loaded.class_weight))) is type(label)


def test_a_generator_goes_on_where_it_was(data, tmp_path):
    clf = small(random_state=np.random.RandomState(3)).fit(*data)
    loaded = there_and_back(clf, tmp_path)
    assert np.array_equal(
        loaded.fit(*data).predict_proba(data[0]), clf.fit(*data).predict_proba(data[0])
    )


def test_column_names_and_the_output_of_transform_come_back(data, tmp_path):
    frame = pd.DataFrame(data[0][:, :, 0], columns=[f"t{i}" for i in range(20)])
    clf = small(max_epochs=1).fit(frame, data[1]).set_output(transform="pandas")
    loaded = there_and_back(clf, tmp_path)
    assert loaded.feature_names_in_.tolist() == list(frame.columns)
    assert loaded.n_features_in_ == 20
    pd.testing.assert_frame_equal(loaded.transform(frame), clf.transform(frame))
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(frame.rename(columns={"t0": "other"}))


def test_a_loaded_model_trains_on_as_the_saved_one_does(data, tmp_path):
    clf = small(warm_start=True).fit(*data)
    loaded = there_and_back(clf, tmp_path)
    assert np.array_equal(
        loaded.fit(*data).predict_proba(data[0]), clf.fit(*data).predict_proba(data[0])
    )
    loaded.partial_fit(*data)


def test_history_that_callbacks_recorded_comes_back_as_far_as_it_is_text_and_numbers(
    data, tmp_path
):
    class Recorder(Callback):
        def on_epoch_end(self, net, **kwargs):
            net.history.record("note", f"epoch {len(net.history)}")
            net.history.record("thing", object())

    clf = small(callbacks=[Recorder()]).fit(*data)
    with pytest.warns(UserWarning, match="callbacks are code"):
        clf.save(tmp_path / "model")
    loaded = CLSTransformerClassifier.load(tmp_path / "model")
    assert loaded.callbacks is None
    expected = [{k: v for k, v in row.items() if k != "thing"} for row in clf.history_]
    assert loaded.history_ == expected


def test_a_history_of_any_length_fits(fitted, tmp_path):
    clf = pickle.loads(pickle.dumps(fitted))
    rows = list(clf.net_.history) * 10_000
    clf.net_.history_ = type(clf.net_.history)(rows)
    loaded = there_and_back(clf, tmp_path)
    assert loaded.n_iter_ == 80_000
    assert os.path.getsize(tmp_path / "model.safetensors") < 5e6


def test_the_document_can_be_read_by_people_and_the_weights_by_any_reader(path, fitted):
    with safe_open(path, framework="np") as file:
        document = json.loads(file.metadata()[DOCUMENT])
        head = file.get_tensor("network.head.weight")
    assert document["format"] == 1
    assert document["parameters"]["d_model"] == 16
    assert document["classes"] == {"dtype": "<i8", "labels": [0, 1]}
    assert document["versions"]["torch"] == torch.__version__
    assert np.array_equal(head, fitted.module_.head.weight.detach().numpy())


def test_the_device_of_a_loaded_model_is_that_asked_for(path):
    assert CLSTransformerClassifier.load(path, device="cpu").get_params()["device"] == "cpu"
    assert CLSTransformerClassifier.load(path).get_params()["device"] == "auto"
    with pytest.raises(ValueError, match="device must be"):
        CLSTransformerClassifier.load(path, device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device='cuda:0' is not there"):
            CLSTransformerClassifier.load(path, device="cuda")


def test_only_a_fitted_model_is_saved(tmp_path):
    with pytest.raises(NotFittedError):
        small().save(tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_a_label_that_only_pickle_can_write_is_named(data, tmp_path):
    clf = small(max_epochs=1).fit(*data)
    clf.classes_ = np.array([1j, 2j])
    with pytest.raises(TypeError, match=r"1j of type complex.*joblib"):
        clf.save(tmp_path / "model")


def test_a_path_that_is_not_there_is_named(fitted, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        fitted.save(tmp_path / "nowhere" / "model")
    with pytest.raises(FileNotFoundError, match="model"):
        CLSTransformerClassifier.load(tmp_path / "model")


def test_a_file_of_format_1_loads():
    X, _ = bumps(n=6, n_steps=12, seed=5)
    loaded = CLSTransformerClassifier.load(FIXTURE)
    expected = json.loads(FIXTURE.with_suffix(".json").read_text())
    assert [label.decode() for label in loaded.predict(X)] == expected["classes"]
    assert np.allclose(loaded.predict_proba(X), expected["probabilities"], atol=1e-4)
    assert loaded.class_weight == {b"early": 1.0, b"late": 1.5}
    assert loaded.n_iter_ == 8


def changed(path, change):
    """Write the model again with a sound checksum, after `change` of document and tensors."""
    with safe_open(path, framework="pt") as file:
        document = json.loads(file.metadata()[DOCUMENT])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    change(document, tensors)
    write_file(path, document, tensors)


def set_in(*keys, value):
    def change(document, tensors):
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


LARGE = 10**9
WRONG = {
    "a later format": (set_in("format", value=FORMAT + 1), r"has format 2.*up to 1"),
    "no format": (set_in("format", value="one"), "its format is 'one'"),
    "another estimator": (set_in("estimator", value="Other"), "holds an estimator 'Other'"),
    "a missing tensor": (
        lambda _, tensors: tensors.pop("network.norm.bias"), r"missing \['network.norm.bias'\]"
    ),
    "an extra tensor": (
        lambda _, tensors: tensors.update({"network.x": torch.ones(1)}), r"extra \['network.x'\]"
    ),
    "a wrong shape": (
        lambda _, tensors: tensors.update({"network.norm.bias": torch.ones(3)}),
        r"'network.norm.bias' of \(shape, dtype\) \(\(3,\), 'F32'\)",
    ),
    "a wrong dtype": (
        lambda _, tensors: tensors.update({"network.norm.bias": torch.ones(16).double()}), "'F64'"
    ),
    "a wide network": (set_in("network", "d_model", value=LARGE), "calculation overflowed"),
    "a deep network": (set_in("network", "depth", value=LARGE), "depth=1000000000"),
    "a wider network": (set_in("network", "d_model", value=2048), "describes"),
    "many inputs": (set_in("network", "n_features", value=LARGE), "describes"),
    "endless inputs": (set_in("network", "n_features", value=10**30), "says what cannot be"),
    "many positions": (set_in("network", "positions", value="learned"), "missing"),
    "large labels": (set_in("classes", "dtype", value="<U99999999"), "too much memory"),
    "pickled labels": (set_in("classes", "dtype", value="|V8"), "dtype '|V8'"),
    "too many classes": (set_in("classes", "labels", value=[1, 2, 3]), "classes or features"),
    "other features": (set_in("n_features_in", value=5), "classes or features"),
    "an unknown parameter": (set_in("parameters", "wings", value=2), "wings"),
    "a wrong parameter": (set_in("parameters", "depth", value="deep"), "'depth'"),
    "no parameters": (set_in("parameters", value=None), "says what cannot be"),
    "an unknown strategy": (set_in("network", "cls_strategy", value="gift"), "'cls_strategy'"),
    "code for a device": (set_in("parameters", "callbacks", value={"eval": "1"}), "'eval'"),
    "a wrong seed": (set_in("training", "seed", value="x"), "says what cannot be"),
    "no history": (set_in("history", value=7), r"extra \['history.dur'"),
    "no document": (lambda document, _: document.clear(), "its format is None"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_a_file_that_says_what_is_wrong_is_refused_by_name(change, message, path):
    changed(path, change)
    with pytest.raises(ValueError, match=message) as error:
        CLSTransformerClassifier.load(path)
    assert str(path) in str(error.value)


def test_positions_that_a_header_merely_claims_take_no_memory(path, data):
    changed(path, set_in("network", "max_tokens", value=LARGE))
    clf = CLSTransformerClassifier.load(path)
    assert len(clf.module_.embedding.place) == 2**14
    clf.predict(data[0])


def test_a_document_of_many_blocks_is_refused_before_they_are_built(path):
    changed(path, set_in("network", "depth", value=1000))
    with safe_open(path, framework="pt") as file:
        document = json.loads(file.metadata()[DOCUMENT])
    write_file(path, document, {str(i): torch.zeros(0) for i in range(1000)})
    start = time.process_time()
    with pytest.raises(ValueError, match="does not have the tensors"):
        CLSTransformerClassifier.load(path)
    assert time.process_time() - start < 1


@pytest.mark.parametrize("where", ["meta", "float64"])
def test_a_default_device_or_dtype_of_the_caller_changes_nothing(where, path, fitted, data):
    pickled = pickle.dumps(fitted)
    try:
        if where == "meta":
            torch.set_default_device("meta")
        else:
            torch.set_default_dtype(torch.float64)
        for loaded in (CLSTransformerClassifier.load(path), pickle.loads(pickled)):
            np.testing.assert_allclose(
                loaded.predict_proba(data[0]), fitted.predict_proba(data[0]), atol=1e-5
            )
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


def test_weights_with_a_bit_flipped_are_refused(path):
    content = bytearray(path.read_bytes())
    content[-1000] ^= 16
    path.write_bytes(content)
    with pytest.raises(ValueError, match="SHA-256"):
        CLSTransformerClassifier.load(path)


def test_a_file_of_another_library_is_refused(tmp_path):
    save_file({"x": torch.ones(2)}, tmp_path / "other", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="not of sklearn_cls"):
        CLSTransformerClassifier.load(tmp_path / "other")


class Bomb:
    def __reduce__(self):
        return (os.system, ("touch exploded",))


# Loads every file while nothing may be compiled, run, started or written.
LOAD_ALL = """
import sys, time
from pathlib import Path
from sklearn_cls import CLSTransformerClassifier
folder, good = Path(sys.argv[1]), sys.argv[2]
CLSTransformerClassifier.load(good)  # imports what it needs

def memory():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

def watch(event, args):
    is_write = event == "open" and args[1] is not None and set(args[1]) & set("wax+")
    if is_write or event in ("exec", "compile", "import", "pickle.find_class", "os.system",
                             "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork"):
        caught.append((event, args))

caught, before = [], memory()
sys.addaudithook(watch)
for path in sorted(folder.iterdir()):
    start = time.process_time()  # the clock on the wall is that of other processes too
    try:
        CLSTransformerClassifier.load(path)
    except ValueError as error:
        seconds = time.process_time() - start
        if seconds > 1:
            caught.append((path, seconds))
    else:
        caught.append((path, "was loaded"))
if memory() - before > 200:
    caught.append(("MB", memory() - before))
sys.exit(str(caught) if caught else 0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_bad_file_runs_code_or_takes_a_second_or_200_mb(path, fitted, tmp_path):
    folder = tmp_path / "bad"
    folder.mkdir()
    whole = path.read_bytes()
    for i, (change, _) in enumerate(WRONG.values()):
        (folder / f"{i}").write_bytes(whole)
        changed(folder / f"{i}", change)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        bomb = pickle.dumps(Bomb(), protocol)
        (folder / f"bomb{protocol}.safetensors").write_bytes(bomb)
    torch.save(Bomb(), folder / "torch.safetensors")
    (folder / "joblib.safetensors").write_bytes(pickle.dumps(fitted))
    claim = 2**40
    header = json.dumps({"x": {"dtype": "U8", "shape": [claim], "data_offsets": [0, claim]}})
    (folder / "terabyte").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    (folder / "long").write_bytes((2**62).to_bytes(8, "little") + whole[8:])
    for kind in ("{},", "[],", "1.5,", "'a',"):  # what takes most memory for a byte of JSON
        list_ = json.dumps({"__metadata__": {DOCUMENT: f"[{500_000 // len(kind) * kind}0]"}})
        content = list_.encode()
        (folder / f"bulk{kind[0]}").write_bytes(len(content).to_bytes(8, "little") + content)
    for n in (0, 7, 8, 9, 1000, len(whole) - 1):
        (folder / f"cut{n}").write_bytes(whole[:n])
    subprocess.run([sys.executable, "-c", LOAD_ALL, folder, path], check=True, cwd=tmp_path)
    assert not (tmp_path / "exploded").exists()


if __name__ == "__main__":  # how the file of format 1 was made
    X, y = bumps(n_steps=12)
    labels = np.array([b"early", b"late"])[y]
    clf = small(class_weight={b"early": 1.0, b"late": 1.5}, cls_strategy="random").fit(X, labels)
    clf.save(FIXTURE)
    X, _ = bumps(n=6, n_steps=12, seed=5)
    expected = {
        "classes": [label.decode() for label in clf.predict(X)],
        "probabilities": clf.predict_proba(X).tolist(),
    }
    FIXTURE.with_suffix(".json").write_text(json.dumps(expected))
