"""A fitted estimator as a safetensors file: weights and statistics of X are tensors, the rest JSON.

The JSON document holds

- "format", the version of the file format, and "estimator", the name of the class;
- "versions" of the packages that wrote the file, for information;
- "parameters" of the estimator, except for callbacks, device and n_jobs; "output", as set by
  `set_output`;
- "classes", "n_features_in", "feature_names_in", "fitted_on_2d", "kinds" and "vocabularies": what
  `fit` learned from the data;
- "network", the parameters of `CLSEncoder`, and "training", some of those of `Net`;
- "history": "n_epochs", and the names of the "columns". Each column is a tensor: of numbers, or of
  the bytes of a JSON list.
"""

import json
import warnings
from dataclasses import astuple, fields

import numpy as np
import sklearn
import torch

from sklearn_cls._data.codes import Vocabulary
from sklearn_cls._data.columns import as_objects
from sklearn_cls._data.features import Features
from sklearn_cls._data.scaler import Scaler
from sklearn_cls._network.encoder import CLSEncoder
from sklearn_cls._persistence.files import FileError
from sklearn_cls._persistence.json_values import (
    COLUMN_DTYPES,
    JSON_DTYPE,
    classes_from_json,
    classes_to_json,
    column_from_tensor,
    column_to_tensor,
    from_json,
    is_json,
    to_json,
)
from sklearn_cls._persistence.model_checks import (
    NETWORK,
    TRAINING,
    check_history,
    check_model,
    checked_document,
    is_number,
)
from sklearn_cls._persistence.old_formats import upgrade
from sklearn_cls._persistence.tensor_file import damage_error, open_file, write_file
from sklearn_cls._torch.device import resolve_device
from sklearn_cls._torch.settings import torch_settings
from sklearn_cls._training.auto import ARCHITECTURE
from sklearn_cls._training.fitted import FittedModel
from sklearn_cls._training.history import NUMERIC_COLUMNS
from sklearn_cls._version import __version__

FORMAT = 4
# Callbacks are code; the others depend on the machine.
EXCLUDED_PARAMS = ("callbacks", "device", "n_jobs")
# Prefixes of the names of tensors.
WEIGHT, SCALER, COLUMN = "network.", "scaler.", "history."
SCALER_FIELDS = [field.name for field in fields(Scaler)]
# Up to format 2, standardization was part of the network, in float32.
OLD_MEAN, OLD_STD = "network.embedding.mean", "network.embedding.scale"
INVALID_METADATA = (
    ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError,
)  # fmt: skip


def save_estimator(estimator, model, path):
    """Write an estimator and the `FittedModel` that it holds to `path`."""
    if estimator.callbacks:
        warnings.warn(
            "callbacks are not saved, because they are code: the loaded model has "
            "callbacks=None; call set_params(callbacks=...) before you fit it again.",
            UserWarning,
            stacklevel=3,
        )
    document = describe(estimator, model)
    checked_document(document, type(estimator))
    check_model(estimator, model)
    tensors = {WEIGHT + name: value for name, value in model.module.state_dict().items()}
    for name, value in zip(SCALER_FIELDS, astuple(model.net.scaler), strict=True):
        tensors[SCALER + name] = torch.from_numpy(value)
    write_file(path, document, {**tensors, **history_to_tensors(model.history)})


def describe(estimator, model):
    """Return the document of an estimator and the `FittedModel` that it holds."""
    parameters, network = estimator.get_params(deep=False), model.net.get_params_for("module")
    names = model.features.feature_names_in
    return {
        "format": FORMAT,
        "estimator": type(estimator).__name__,
        "versions": {
            "sklearn_cls": __version__,
            "scikit-learn": sklearn.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "parameters": {k: to_json(v) for k, v in parameters.items() if k not in EXCLUDED_PARAMS},
        "output": vars(estimator).get("_sklearn_output_config", {}).get("transform"),
        "classes": classes_to_json(model.classes),
        "n_features_in": model.features.n_features_in,
        "feature_names_in": None if names is None else names.tolist(),
        "fitted_on_2d": model.features.fitted_on_2d,
        "kinds": None if model.features.kinds is None else list(model.features.kinds),
        "vocabularies": [
            [to_json(category) for category in vocabulary.categories.tolist()]
            for vocabulary in model.features.vocabularies
        ],
        "network": {
            **{name: to_json(network[name]) for name in (*ARCHITECTURE, "dropout", *NETWORK)},
            "n_categories": list(network["n_categories"]),
        },
        "training": {name: to_json(getattr(model.net, name)) for name in TRAINING},
        "history": {
            "n_epochs": model.n_epochs,
            "columns": dict.fromkeys(filter(is_column_name, model.history)),
        },
    }


def load_estimator(cls, path, device):
    """Return the estimator of class `cls` that was written to `path`."""
    resolved = resolve_device(device)
    with torch_settings(), open_file(path) as file:
        check_origin(cls, file)
        try:
            estimator = read_estimator(cls, file, str(resolved))
        except FileError:
            raise
        except INVALID_METADATA as error:
            raise damage_error(file.path, f"its metadata are inconsistent ({error!r})") from error
    return estimator.set_params(device=device)


def check_origin(cls, file):
    """Check that `file` holds an estimator of class `cls` in a format of this version."""
    number, name = file.document.get("format"), file.document.get("estimator")
    if type(number) is not int or number < 1:
        raise damage_error(file.path, f"its format is {number!r}")
    if number > FORMAT:
        raise FileError(
            f"{file.path!r} has format {number}, but sklearn_cls {__version__} reads formats up to "
            f"{FORMAT}; load it with the versions that wrote it: {file.document.get('versions')}."
        )
    if name != cls.__name__:
        raise FileError(
            f"{file.path!r} holds an estimator of class {name!r}, which {cls.__name__}.load cannot "
            "load."
        )


def read_estimator(cls, file, device):
    """Return the estimator that `file` describes."""
    whole = upgrade(file.document, file.path)
    document = checked_document(whole, cls)
    estimator = cls(**{name: from_json(value) for name, value in document["parameters"].items()})
    vocabularies = [read_vocabulary(categories) for categories in document["vocabularies"]]
    network, names = document["network"], document["feature_names_in"]
    if network["n_categories"] != list(map(len, vocabularies)):
        raise ValueError(f"n_categories={network['n_categories']} are not those of vocabularies")
    network["n_categories"] = tuple(network["n_categories"])
    if network["depth"] > len(file.layout):  # listing the tensors of the blocks would take too long
        raise ValueError(f"depth={network['depth']} does not match {len(file.layout)} tensors.")
    weights = {WEIGHT + name: value for name, value in network_layout(network).items()}
    scaler = scaler_layout(file.document["format"], network["n_features"])
    check_layout(file, {**weights, **scaler, **history_layout(document["history"], file.layout)})
    tensors = file.tensors()

    classes = classes_from_json(document["classes"])
    net = read_net(
        network,
        {name.removeprefix(WEIGHT): tensors[name] for name in weights},
        document["training"],
        classes=classes,
        device=device,
        scaler=read_scaler(tensors),
    )
    features = Features(
        document["n_features_in"],
        None if names is None else np.array(names, dtype=object),
        document["fitted_on_2d"],
        None if document["kinds"] is None else tuple(document["kinds"]),
        tuple(vocabularies),
    )
    model = FittedModel(net, classes, features, history_from_tensors(document["history"], tensors))
    estimator.set_output(transform=document["output"])
    check_model(estimator, model)
    check_same(whole, describe(estimator, model))
    estimator._fitted = model
    return estimator


def read_vocabulary(categories):
    """Return the vocabulary with some categories in JSON."""
    return Vocabulary(as_objects([from_json(category) for category in categories]))


def check_same(document, described):
    """Raise ValueError unless a loaded estimator would be saved with the document it came from."""
    history = {**document["history"], "columns": dict.fromkeys(document["history"]["columns"])}
    expected = {**document, "format": FORMAT, "versions": described["versions"], "history": history}
    different = difference(expected, described)
    if different:
        raise ValueError(f"{different} is not what a fitted estimator has")


def difference(value, other):
    """Return the name of the first item in which two documents differ, or None."""
    for name in sorted({**value, **other}):
        if name not in value or name not in other:
            return name
        items = value[name], other[name]
        if all(isinstance(item, dict) for item in items):
            inner = difference(*items)
            if inner:
                return f"{name}.{inner}"
        elif len({json.dumps(item) for item in items}) > 1:  # distinguishes 1 from 1.0 and True
            return name
    return None


def read_net(network, weights, training, **kwargs):
    """Return the net of a loaded estimator."""
    from sklearn_cls._training.net import restored_net  # slow: imports skorch

    return restored_net(network, weights, **training, **kwargs)


def network_layout(network):
    """Return shape and dtype of every tensor of the network, without allocating them."""
    with torch.device("meta"):  # one block is built and repeated, as all have the same shapes
        state = CLSEncoder(**{**network, "depth": 1}).state_dict()
    layout = {}
    for name, value in state.items():
        described = (tuple(value.shape), "F32" if value.is_floating_point() else "I64")
        n_blocks = network["depth"] if name.startswith("blocks.0.") else 1
        for i in range(n_blocks):
            layout[name.replace("blocks.0.", f"blocks.{i}.")] = described
    return layout


def scaler_layout(number, n_features):
    """Return shape and dtype of every tensor of the scaler in a file of format `number`."""
    if number < 3:
        return dict.fromkeys([OLD_MEAN, OLD_STD], ((n_features,), "F32"))
    return {SCALER + name: ((n_features,), "F64") for name in SCALER_FIELDS}


def read_scaler(tensors):
    """Return the scaler of a file."""
    if OLD_MEAN in tensors:
        mean, std = (tensors[name].double().numpy() for name in (OLD_MEAN, OLD_STD))
        if not np.isfinite(std).all():
            raise ValueError("the standard deviation of a feature is not finite")
        return Scaler(mean, np.zeros_like(mean), std)
    return Scaler(*(tensors[SCALER + name].numpy() for name in SCALER_FIELDS))


def check_layout(file, expected):
    """Check that the tensors of `file` have the expected names, shapes and dtypes."""
    missing, extra = expected.keys() - file.layout.keys(), file.layout.keys() - expected.keys()
    if missing or extra:
        raise FileError(
            f"{file.path!r} does not have the tensors that its document describes: missing "
            f"{sorted(missing)[:5]}, extra {sorted(extra)[:5]}."
        )
    for name, value in expected.items():
        if file.layout[name] != value:
            raise FileError(
                f"{file.path!r} has tensor {name!r} of (shape, dtype) {file.layout[name]}, but its "
                f"document describes {value}."
            )


def is_column_name(name):
    """Return whether a column of a history can be stored by its name, which is text in a fit."""
    return isinstance(name, str) and name.encode(errors="replace").decode() == name


def history_to_tensors(history):
    """Return the columns of a history as tensors; warn if some values cannot be stored."""
    tensors, lost = {}, [name for name in history if not is_column_name(name)]
    for name in filter(is_column_name, history):
        can_be_stored = is_number if name in NUMERIC_COLUMNS else is_json
        tensors[COLUMN + name], is_whole = column_to_tensor(history[name], can_be_stored)
        lost += [] if is_whole else [name]
    if lost:
        warnings.warn(
            f"history_ has values in {', '.join(map(repr, lost))} that cannot be stored as JSON: "
            "they are None in the saved model.",
            UserWarning,
            stacklevel=4,
        )
    return tensors


def history_layout(history, layout):
    """Return shape and dtype of the tensors of a history, as far as they are known."""
    expected, n_epochs = {}, history["n_epochs"]
    for name, values in history["columns"].items():
        shape, dtype = layout.get(COLUMN + name, (None, None))
        if values is not None:  # format 2
            if len(values) != n_epochs:
                raise ValueError(f"history {name!r} has {len(values)} values.")
        elif dtype == JSON_DTYPE:
            expected[COLUMN + name] = ((shape[0],), dtype)
        else:
            dtype = dtype if dtype in COLUMN_DTYPES else COLUMN_DTYPES[0]
            expected[COLUMN + name] = ((n_epochs,), dtype)
    return expected


def history_from_tensors(history, tensors):
    """Return the inverse of `history_to_tensors`."""
    columns = {}
    for name, values in history["columns"].items():
        columns[name] = column_from_tensor(tensors[COLUMN + name]) if values is None else values
        if type(columns[name]) is not list or len(columns[name]) != history["n_epochs"]:
            raise ValueError(f"history {name!r} is not a list of {history['n_epochs']} values.")
    check_history(columns)
    return columns
