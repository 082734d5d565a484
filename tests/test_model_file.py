import dataclasses
import json
import os
import pickle
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from sklearn.exceptions import NotFittedError

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls._network.positions import MAX_CACHED_POSITIONS
from sklearn_cls._persistence.model_file import FORMAT
from sklearn_cls._persistence.tensor_file import DOCUMENT, write_file
from tests.golden_files import FOLDER
from tests.helpers import Hook, small


@pytest.fixture
def path(fitted, tmp_path):
    fitted.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def save_and_load(clf, tmp_path):
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
def test_predictions_of_a_loaded_model_are_bitwise_identical(params, data, tmp_path):
    X, y = data
    X = [x[: 12 + i % 9].copy() for i, x in enumerate(X)]
    X[3][4, 1] = np.nan
    clf = small(**{"max_epochs": 2, **params}).fit(X, y)
    loaded = save_and_load(clf, tmp_path)
    assert np.array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    assert np.array_equal(loaded.transform(X), clf.transform(X))
    assert loaded.get_params() == clf.get_params()
    assert loaded.history_ == clf.history_


LABELS = [
    *(np.array([3, 7], dtype) for dtype in (np.int64, np.int8, np.uint32, ">i4", np.float32)),
    *(np.array(["no", "yes"], dtype) for dtype in ("U3", "U9", object)),
    *(np.array(["2020", "2021"], dtype) for dtype in ("M8[D]", "M8[ns]")),
    np.array([1, 2], "m8[h]"),
    np.array([False, True]),
]


@pytest.mark.parametrize("labels", LABELS, ids=lambda labels: labels.dtype.str)
def test_classes_are_restored_with_their_dtype(labels, data, tmp_path):
    y = labels[data[1]]
    clf = small(max_epochs=1).fit(data[0], y)
    loaded = save_and_load(clf, tmp_path)
    assert loaded.classes_.dtype == clf.classes_.dtype
    assert np.array_equal(loaded.predict(data[0]), clf.predict(data[0]))


@pytest.mark.parametrize("label", ["no", 0, True])
def test_class_weights_are_restored_with_their_labels(label, data, tmp_path):
    other = type(label)(not label) if isinstance(label, int) else label + label
    y = np.array([label, other])[data[1]]
    class_weight = {label: 2.0, other: np.float32(0.1)}
    clf = small(max_epochs=1, class_weight=class_weight).fit(data[0], y)
    loaded = save_and_load(clf, tmp_path)
    assert loaded.class_weight == {label: 2.0, other: float(np.float32(0.1))}
    assert type(next(iter(loaded.class_weight))) is type(label)


def test_numpy_scalars_are_restored_as_python_scalars(data, tmp_path):
    params = {"depth": np.int64(1), "augment": np.bool_(False), "dropout": np.float32(0.25)}
    loaded = save_and_load(small(max_epochs=1, **params).fit(*data), tmp_path)
    # repr tells False from 0, and 1 from np.int64(1).
    restored = {name: repr(loaded.get_params()[name]) for name in params}
    assert restored == {"depth": "1", "augment": "False", "dropout": "0.25"}


def test_the_state_of_random_state_is_restored(data, tmp_path):
    clf = small(random_state=np.random.RandomState(3)).fit(*data)
    loaded = save_and_load(clf, tmp_path)
    assert np.array_equal(
        loaded.fit(*data).predict_proba(data[0]), clf.fit(*data).predict_proba(data[0])
    )


def test_feature_names_and_set_output_are_restored(data, tmp_path):
    frame = pd.DataFrame(data[0][:, :, 0], columns=[f"t{i}" for i in range(20)])
    clf = small(max_epochs=1).fit(frame, data[1]).set_output(transform="pandas")
    loaded = save_and_load(clf, tmp_path)
    assert loaded.feature_names_in_.tolist() == list(frame.columns)
    assert loaded.n_features_in_ == 20
    pd.testing.assert_frame_equal(loaded.transform(frame), clf.transform(frame))
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(frame.rename(columns={"t0": "other"}))


def test_a_warm_start_of_a_loaded_model_equals_that_of_the_saved_one(data, tmp_path):
    clf = small(warm_start=True).fit(*data)
    loaded = save_and_load(clf, tmp_path)
    assert np.array_equal(
        loaded.fit(*data).predict_proba(data[0]), clf.fit(*data).predict_proba(data[0])
    )
    loaded.partial_fit(*data)


RECORDED = {
    "text": ["one", "two", None, "four"],
    "integer": [1, 2, 3, 4],
    "beyond 64 bits": [2**63, 1, -1, 2**70],
    "bool": [True, False, False, True],
    "rare": [None, 0.5, None, np.nan],
    "mixed": [1, 2.5, True, None],
    "lists": [[1], [1, 2], [], ["a"]],
    "equal lists": [[1, 2]] * 4,
    "infinity": [-np.inf, 0.0, np.inf, np.nan],
}


def test_values_that_callbacks_recorded_are_restored_with_their_types(data, tmp_path):
    def record(net, **kwargs):
        for name, values in RECORDED.items():
            if values[len(net.history) - 1] is not None:
                net.history.record(name, values[len(net.history) - 1])

    clf = small(max_epochs=4, callbacks=[Hook(on_epoch_end=record)]).fit(*data)
    with pytest.warns(UserWarning, match="callbacks are not saved"):
        clf.save(tmp_path / "model")
    loaded = CLSTransformerClassifier.load(tmp_path / "model")
    assert loaded.callbacks is None
    assert loaded.history_.keys() == clf.history_.keys()
    # Comparing reprs distinguishes 1 from True and from 1.0, and treats NaN as equal to NaN.
    assert {name: repr(loaded.history_[name]) for name in RECORDED} == {
        name: repr(values) for name, values in RECORDED.items()
    }
    assert all(loaded.history_[name] == clf.history_[name] for name in ("epoch", "lr", "dur"))


def with_model(fitted, **changes):
    """Return a copy of an estimator that has learned something else."""
    clf = pickle.loads(pickle.dumps(fitted))
    clf._fitted = dataclasses.replace(clf._fitted, **changes)
    return clf


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


ODD = {
    "object": object(),
    "array": np.arange(3),
    "set": {1, 2},
    "numbers as keys": {1: 2},
    "circular": (circular := [], circular.append(circular))[0],
    "deep": nested(10_000),
    "digits": 10**5000,
    "NumPy inside": [np.int64(1)],
    "huge": {str(i): object() for i in range(10_000)},
}


def test_a_history_of_4000_epochs_with_odd_rows_is_saved_and_a_warning_names_them(fitted, tmp_path):
    history = {name: values * 500 for name, values in fitted.history_.items()}
    for name, value in ODD.items():
        history[name] = [0.5] * 3999 + [value]
    history["lr"] = [*history["lr"][:-1], "overwritten"]
    history["large"] = [{str(i): i for i in range(100)}] * 4000
    history["any number"] = [None, np.nan, -np.inf, 1, True, 2.5, "text", {"a": [1, (2,)]}] * 500
    history["\ud800"] = history[0] = [1] * 4000
    clf = with_model(fitted, history=history)
    with pytest.warns(UserWarning, match="cannot be stored as JSON") as caught:
        clf.save(tmp_path / "model")
    assert [warning.filename for warning in caught] == [__file__]
    lost = [*ODD, "lr", "\ud800", 0]
    assert set(str(caught[0].message).split(" in ")[1].split(" that ")[0].split(", ")) == set(
        map(repr, lost)
    )
    loaded = CLSTransformerClassifier.load(tmp_path / "model").history_
    assert loaded.keys() == history.keys() - {"\ud800", 0}
    for name in (*ODD, "lr"):
        assert loaded[name] == [*history[name][:-1], None]
    assert loaded["large"] == history["large"]
    assert repr(loaded["any number"]) == repr(history["any number"]).replace("(2,)", "[2]")


def test_thousands_of_classes_and_columns_are_saved(tmp_path):
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(6000, 30)))
    X = X.rename(columns=lambda i: f"{i} " + "x" * 10_000)
    y = np.array([f"class number {i}" for i in range(3000)] * 2)
    weight = {label: 1.5 for label in y}
    clf = small(max_epochs=1, batch_size=1000, class_weight=weight).fit(X, y)
    loaded = save_and_load(clf, tmp_path)
    assert np.array_equal(loaded.classes_, clf.classes_)
    assert np.array_equal(loaded.feature_names_in_, clf.feature_names_in_)
    assert loaded.class_weight == weight
    assert np.array_equal(loaded.predict(X[:9]), clf.predict(X[:9]))


def test_threads_depend_on_the_machine_and_are_not_saved(data, tmp_path):
    loaded = save_and_load(small(max_epochs=1, n_jobs=2, verbose=0).fit(*data), tmp_path)
    assert loaded.n_jobs is None


TABLE = FOLDER / "format_3_table.safetensors"  # with a token that is not trained


def with_weight(fitted, name, value):
    clf = pickle.loads(pickle.dumps(fitted))
    with torch.no_grad():
        clf.module_.state_dict()[name][..., 0] = value
    return clf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda clf: clf.set_params(lr=-1.0), "'lr' parameter"),
        (lambda clf: clf.set_output(transform="spark"), "'output' parameter.*'spark'"),
        (lambda clf: with_weight(clf, "head.weight", np.nan), "'head.weight' has a value of nan"),
        (lambda clf: with_weight(clf, "norm.bias", 2e3), "'norm.bias' has a weight of .* 2e\\+03"),
        (
            lambda clf: with_weight(CLSTransformerClassifier.load(TABLE), "token.value", 1e20),
            "'token.value' has a weight of magnitude 1e\\+20",
        ),
        (
            lambda clf: with_model(clf, classes=np.array(["a", "b"], "U9999")),
            "classes of dtype <U9999 take too much memory; fit with y of dtype object",
        ),
    ],
)  # fmt: skip
def test_save_refuses_a_model_that_load_would_refuse(change, message, fitted, tmp_path):
    clf = change(pickle.loads(pickle.dumps(fitted)))
    with pytest.raises(ValueError, match=message):
        clf.save(tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_a_history_of_80000_epochs_is_saved(fitted, tmp_path):
    history = {name: values * 10_000 for name, values in fitted.history_.items()}
    clf = with_model(fitted, history=history)
    loaded = save_and_load(clf, tmp_path)
    assert loaded.n_iter_ == 80_000
    assert loaded.history_ == clf.history_
    assert os.path.getsize(tmp_path / "model.safetensors") < 5e6


def test_a_file_is_json_and_tensors_for_other_readers(path, fitted):
    with safe_open(path, framework="np") as file:
        document = json.loads(file.metadata()[DOCUMENT])
        head = file.get_tensor("network.head.weight")
    assert document["format"] == FORMAT == 4
    assert document["parameters"]["d_model"] == 16
    excluded = {"callbacks", "device", "n_jobs"}
    assert document["parameters"].keys() == fitted.get_params().keys() - excluded
    assert document["classes"] == {"dtype": "<i8", "labels": [0, 1]}
    assert document["versions"]["torch"] == torch.__version__
    assert np.array_equal(head, fitted.module_.head.weight.detach().numpy())


def test_load_uses_its_device_argument(path):
    assert CLSTransformerClassifier.load(path, device="cpu").get_params()["device"] == "cpu"
    assert CLSTransformerClassifier.load(path).get_params()["device"] == "auto"
    with pytest.raises(ValueError, match="device must be"):
        CLSTransformerClassifier.load(path, device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device='cuda:0' is not available"):
            CLSTransformerClassifier.load(path, device="cuda")


def test_parameters_that_were_set_after_the_fit_are_saved(fitted, data, tmp_path):
    params = {"d_model": 24, "depth": 3, "positions": "rope", "patch_size": 5}
    clf = pickle.loads(pickle.dumps(fitted)).set_params(**params)
    loaded = save_and_load(clf, tmp_path)
    assert {name: getattr(loaded, name) for name in params} == params
    assert np.array_equal(loaded.predict_proba(data[0]), fitted.predict_proba(data[0]))


def test_saving_an_unfitted_estimator_raises(tmp_path):
    with pytest.raises(NotFittedError):
        small().save(tmp_path / "model")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([1j, 2j]), r"1j of type complex.*joblib"),
        (np.array([0.0, np.nan]), r"classes_ of dtype float64 cannot be saved.*joblib"),
    ],
    ids=["complex", "NaN"],
)
def test_labels_that_cannot_be_restored_are_not_saved(labels, message, fitted, tmp_path):
    clf = with_model(fitted, classes=labels)
    with pytest.raises(TypeError, match=message):
        clf.save(tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_a_missing_folder_or_file_raises(fitted, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        fitted.save(tmp_path / "nowhere" / "model")
    with pytest.raises(FileNotFoundError, match="model"):
        CLSTransformerClassifier.load(tmp_path / "model")


def test_another_activation_in_format_1_raises(tmp_path):
    path = tmp_path / "model"
    path.write_bytes((FOLDER / "format_1_bytes.safetensors").read_bytes())
    changed(path, set_in("network", "activation", value="relu"))
    with pytest.raises(ValueError, match=r"activation='relu'; sklearn_cls .* GELU.*'0.1.0'"):
        CLSTransformerClassifier.load(path)


def test_another_warmup_fraction_in_format_1_warns(tmp_path):
    path = tmp_path / "model"
    path.write_bytes((FOLDER / "format_1_table.safetensors").read_bytes())
    changed(path, set_in("parameters", "warmup_fraction", value=0.5))
    with pytest.warns(UserWarning, match="warmup_fraction other than 0.1") as caught:
        CLSTransformerClassifier.load(path)
    assert [warning.filename for warning in caught] == [__file__]


def test_a_random_state_of_another_generator_is_not_saved(fitted, tmp_path):
    clf = pickle.loads(pickle.dumps(fitted))
    clf.set_params(random_state=np.random.RandomState(np.random.PCG64(0)))
    with pytest.raises(TypeError, match="of type RandomState cannot be saved without pickle"):
        clf.save(tmp_path / "model")


def changed(path, change):
    """Rewrite a model with a valid checksum after `change(document, tensors)`."""
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
    "a later format": (set_in("format", value=FORMAT + 1), r"has format 5.*up to 4"),
    "no format": (set_in("format", value="one"), "damaged: its format is 'one'"),
    "another estimator": (set_in("estimator", value="Other"), "an estimator of class 'Other'"),
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
    "negative inputs": (set_in("network", "n_features", value=-1), r"range \[1, inf\)"),
    "more inputs than int64 can count": (
        set_in("network", "n_features", value=10**30), "metadata are inconsistent"
    ),
    "many positions": (set_in("network", "positions", value="learned"), "missing"),
    "large labels": (set_in("classes", "dtype", value="<U99999999"), "too much memory"),
    "pickled labels": (set_in("classes", "dtype", value="|V8"), "dtype '|V8'"),
    "too many classes": (set_in("classes", "labels", value=[1, 2, 3]), "there are 3 classes"),
    "other features": (set_in("n_features_in", value=5), "there are 5 inputs, but n_features=2"),
    "an unknown parameter": (set_in("parameters", "wings", value=2), "wings"),
    "a wrong parameter": (set_in("parameters", "depth", value="deep"), "'depth'"),
    "no parameters": (set_in("parameters", value=None), "metadata are inconsistent"),
    "an unknown strategy": (set_in("network", "cls_strategy", value="gift"), "'cls_strategy'"),
    "code in callbacks": (set_in("parameters", "callbacks", value={"eval": "1"}), "'eval'"),
    "a wrong seed": (set_in("training", "seed", value="x"), "metadata are inconsistent"),
    "no history": (set_in("history", value=7), "metadata are inconsistent"),
    "no columns": (set_in("history", "columns", value={}), r"extra \['history.dur'"),
    "a missing column": (
        set_in("history", "columns", "acc", value=None), r"missing \['history.acc'\]"
    ),
    "a short column": (
        set_in("history", "columns", "note", value=["a"]), "history 'note' has 1 values"
    ),
    "fewer epochs": (set_in("history", "n_epochs", value=7), r"\(\(8,\), '(I|F)64'\), .*\(\(7,\)"),
    "no document": (lambda document, _: document.clear(), "its format is None"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_inconsistent_files_raise_with_the_path_and_the_reason(change, message, path):
    changed(path, change)
    with pytest.raises(ValueError, match=message) as error:
        CLSTransformerClassifier.load(path)
    assert str(path) in str(error.value)


@pytest.fixture(scope="module")
def codes_file(tmp_path_factory):
    """Return the path of a model of numbers, a clock, text and integer codes."""
    n = 12
    X = pd.DataFrame(
        {
            "when": [pd.date_range("2024", periods=4, freq="h")] * n,
            "value": [np.arange(4.0) * i for i in range(n)],
            "event": [["a", "b", None, "c"]] * n,
            "count": [[1, 2, 3, i] for i in range(n)],
        }
    )
    clf = small(max_epochs=2, categorical_features=["event", "count"]).fit(X, [0, 1] * 6)
    path = tmp_path_factory.mktemp("codes") / "model"
    clf.save(path)
    loaded = CLSTransformerClassifier.load(path)
    assert loaded.categorical_features == ["event", "count"]
    assert np.array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    unseen = X.assign(event=[["z", "a"]] * n, count=[[100, 1]] * n, value=[[1.0, 2]] * n)
    unseen["when"] = [pd.date_range("2024", periods=2)] * n
    assert np.array_equal(loaded.predict_proba(unseen), clf.predict_proba(unseen))
    return path


WRONG_CODES = {
    "an unknown kind": (set_in("kinds", value=["clock", "number", "code", "word"]), "not those of"),
    "two clocks": (set_in("kinds", value=["clock", "clock", "code", "code"]), "not those of"),
    "no kinds": (set_in("kinds", value=None), "2 vocabularies do not fit"),
    "fewer kinds": (set_in("kinds", value=["clock", "code", "code"]), "6 inputs, but n_features=8"),
    "another order of kinds": (
        set_in("kinds", value=["number", "clock", "code", "code", "number"]), "10 inputs"
    ),
    "a 2-D X": (set_in("fitted_on_2d", value=True), "a 2-D X has a single feature"),
    "a category twice": (set_in("vocabularies", 0, value=["a", "b", "b"]), "occurs twice"),
    "numbers and text": (set_in("vocabularies", 0, value=["a", "b", 3]), "are numbers, and"),
    "huge integers": (set_in("vocabularies", 0, value=[1, 2, 10**400]), "no column holds"),
    "fewer categories": (set_in("vocabularies", 0, value=["a", "b"]), "not those of vocabularies"),
    "a nested category": (set_in("vocabularies", 0, value=["a", "b", ["c"]]), "inconsistent"),
    "other tables": (
        lambda document, _: (
            document["vocabularies"][0].append("d"),
            document["network"]["n_categories"].__setitem__(0, 4),
        ),
        "describes",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), WRONG_CODES.values(), ids=WRONG_CODES)
def test_inconsistent_kinds_and_vocabularies_raise(change, message, codes_file, tmp_path):
    path = tmp_path / "model"
    path.write_bytes(codes_file.read_bytes())
    changed(path, change)
    with pytest.raises(ValueError, match=message):
        CLSTransformerClassifier.load(path)


def test_a_large_number_of_features_does_not_allocate_memory(path):
    changed(path, set_in("n_features_in", value=2**53))
    with pytest.raises(ValueError, match="there are 9007199254740992 inputs, but n_features=2"):
        CLSTransformerClassifier.load(path)


def test_a_large_max_tokens_does_not_allocate_memory(path, data):
    changed(path, set_in("network", "max_tokens", value=LARGE))
    clf = CLSTransformerClassifier.load(path)
    assert len(clf.module_.embedding.position) == MAX_CACHED_POSITIONS
    clf.predict(data[0])


def test_a_thousand_blocks_raise_within_a_second(path):
    changed(path, set_in("network", "depth", value=1000))
    with safe_open(path, framework="pt") as file:
        document = json.loads(file.metadata()[DOCUMENT])
    write_file(path, document, {str(i): torch.zeros(0) for i in range(1000)})
    start = time.process_time()
    with pytest.raises(ValueError, match="does not have the tensors"):
        CLSTransformerClassifier.load(path)
    assert time.process_time() - start < 1


@contextmanager
def default_of_torch(default):
    """Change the default dtype or the default device of torch."""
    try:
        if isinstance(default, torch.dtype):
            torch.set_default_dtype(default)
        else:
            torch.set_default_device(default)
        yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


DEFAULTS = [torch.float64, torch.float16, torch.bfloat16, "meta"]


@pytest.mark.parametrize("default", DEFAULTS, ids=str)
@pytest.mark.parametrize("params", [{}, {"positions": "rope"}, {"positions": "learned"}], ids=str)
def test_a_fit_under_another_default_dtype_or_device_is_bitwise_identical(default, params, data):
    params = {"max_epochs": 2, "pooling": "attention", **params}
    expected = small(**params).fit(*data).partial_fit(*data)
    with default_of_torch(default):
        clf = small(**params).fit(*data).partial_fit(*data)
        inside = clf.predict_proba(data[0])
    for probabilities in (inside, clf.predict_proba(data[0])):
        assert probabilities.dtype == np.float32
        assert np.array_equal(probabilities, expected.predict_proba(data[0]))
    assert {value.dtype for value in clf.module_.state_dict().values()} <= {
        torch.float32, torch.int64
    }  # fmt: skip


@pytest.mark.parametrize("default", DEFAULTS, ids=str)
def test_files_and_pickles_pass_between_any_default_dtypes_and_devices(default, data, tmp_path):
    clf, long = small(max_epochs=1).fit(*data), np.tile(data[0], (1, 30, 1))
    clf.save(tmp_path / "outside")
    pickled = pickle.dumps(clf)
    with default_of_torch(default):
        loaded = CLSTransformerClassifier.load(tmp_path / "outside")
        loaded.save(tmp_path / "inside")
        pickled_inside = pickle.dumps(loaded)
        inside = [m.predict_proba(long) for m in (clf, loaded, pickle.loads(pickled))]
    models = [
        loaded, CLSTransformerClassifier.load(tmp_path / "inside"), pickle.loads(pickled_inside)
    ]  # fmt: skip
    for probabilities in (*inside, *(model.predict_proba(long) for model in models)):
        assert np.array_equal(probabilities, clf.predict_proba(long))


class Bomb:
    def __reduce__(self):
        return (os.system, ("touch exploded",))


# Load every file of a folder, and fail if that compiles or imports code, starts a process, writes a
# file, or takes more than a second of CPU time or 200 MB.
LOAD_ALL = """
import sys, time
from pathlib import Path
from sklearn_cls import CLSTransformerClassifier
folder, good = Path(sys.argv[1]), sys.argv[2]
CLSTransformerClassifier.load(good)  # imports everything that is needed

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
    start = time.process_time()
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
def test_no_invalid_file_runs_code_or_takes_a_second_or_200_mb(path, fitted, tmp_path):
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
    for kind in ("{},", "[],", "1.5,", "'a',"):  # the JSON that takes the most memory per byte
        list_ = json.dumps({"__metadata__": {DOCUMENT: f"[{500_000 // len(kind) * kind}0]"}})
        content = list_.encode()
        (folder / f"bulk{kind[0]}").write_bytes(len(content).to_bytes(8, "little") + content)
    for n in (0, 7, 8, 9, 1000, len(whole) - 1):
        (folder / f"cut{n}").write_bytes(whole[:n])
    subprocess.run([sys.executable, "-c", LOAD_ALL, folder, path], check=True, cwd=tmp_path)
    assert not (tmp_path / "exploded").exists()
