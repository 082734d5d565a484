"""A fitted estimator as a safetensors file: weights are tensors, the rest is JSON.

The JSON document holds

- "format", the version of the file format, and "estimator", the name of the class;
- "versions" of the packages that wrote the file, for information;
- "parameters" of the estimator, except for device and callbacks; "output", as set by `set_output`;
- "classes", "n_features_in", "feature_names_in", "fitted_on_2d": what `fit` learned from the data;
- "network", the parameters of `CLSEncoder`, and "training", some of those of `Net`;
- "history": "n_epochs", and "columns" by name: a list, or null if the column is a tensor.
"""

import json
import re
import warnings
from numbers import Integral

import numpy as np
import sklearn
import torch

from sklearn_cls._compat import Interval, validate_parameter_constraints
from sklearn_cls._data.features import Features
from sklearn_cls._network.encoder import CLSEncoder
from sklearn_cls._persistence.tensor_file import FileError, damage_error, open_file, write_file
from sklearn_cls._torch.device import resolve_device
from sklearn_cls._training.auto import ARCHITECTURE, DATA_DEPENDENT, WARMUP_FRACTION
from sklearn_cls._training.fitted import FittedModel
from sklearn_cls._version import __version__

FORMAT = 2
EXCLUDED_PARAMS = ("callbacks", "device")  # callbacks are code; the device depends on the machine
TRAINING = ("lr", "batch_size", "max_epochs", "precision", "seed", "n_epochs_trained")
WEIGHT, COLUMN = "network.", "history."  # prefixes of the names of tensors
LABEL_DTYPES = r"[<>|=]([biuf]\d+|[SU]\d+|O|[mM]8\[\w+\])"
NUMBERS = {bool: "b", int: "i", float: "f"}  # kinds of NumPy's dtypes
MAX_LABEL_BYTES = 2**26  # of all classes together
INVALID_METADATA = (
    AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
DATA_DEPENDENT_CONSTRAINTS = {
    **{name: [Interval(Integral, 0, None, closed="left")] for name in DATA_DEPENDENT},
    "has_missing": ["boolean"],
    "use_instance_norm": ["boolean"],
}


def save_estimator(estimator, model, path):
    """Write an estimator and the `FittedModel` that it holds to `path`."""
    if estimator.callbacks:
        warnings.warn(
            "callbacks are not saved, because they are code: the loaded model has "
            "callbacks=None; call set_params(callbacks=...) before you fit it again.",
            UserWarning,
            stacklevel=3,
        )
    parameters, network = estimator.get_params(deep=False), model.net.get_params_for("module")
    names = model.features.feature_names_in
    tensors = {WEIGHT + name: value for name, value in model.module.state_dict().items()}
    columns = history_to_json(model.history, tensors)
    document = {
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
        "network": {
            name: to_json(network[name]) for name in (*ARCHITECTURE, "dropout", *DATA_DEPENDENT)
        },
        "training": {name: to_json(getattr(model.net, name)) for name in TRAINING},
        "history": {"n_epochs": model.n_epochs, "columns": columns},
    }
    write_file(path, document, tensors)


def load_estimator(cls, path, device):
    """Return the estimator of class `cls` that was written to `path`."""
    resolved = resolve_device(device)
    with open_file(path) as file:
        check_origin(cls, file)
        try:
            if file.document["format"] == 1:
                file.document = from_format_1(file.document, file.path)
            estimator = read_estimator(cls, file, str(resolved))
        except FileError:
            raise
        except INVALID_METADATA as error:
            raise damage_error(path, f"its metadata are inconsistent ({error!r})") from error
    return estimator.set_params(device=device)


def check_origin(cls, file):
    """Check that `file` holds an estimator of class `cls` in a format of this version."""
    number, name = file.document.get("format"), file.document.get("estimator")
    if not isinstance(number, int) or number < 1:
        raise damage_error(file.path, f"its format is {number!r}")
    if number > FORMAT:
        raise FileError(
            f"{file.path} has format {number}, but sklearn_cls {__version__} reads formats up to "
            f"{FORMAT}; load it with the versions that wrote it: {file.document.get('versions')}."
        )
    if name != cls.__name__:
        raise FileError(
            f"{file.path} holds an estimator of class {name!r}, which {cls.__name__}.load cannot "
            "load."
        )


def from_format_1(document, path):
    """Return the document of a file of format 1 as one of format 2."""
    parameters, network = dict(document["parameters"]), dict(document["network"])
    if parameters.pop("warmup_fraction") != WARMUP_FRACTION:
        warnings.warn(
            f"{path} has a warmup_fraction other than {WARMUP_FRACTION}, the only value that "
            f"sklearn_cls {__version__} supports; predictions are unaffected, but refitting will "
            "give a different model.",
            UserWarning,
            stacklevel=4,
        )
    for name in ("activation", "compile"):
        parameters.pop(name)
    if network.pop("activation") != "gelu":
        raise FileError(
            f"{path} holds a network with activation={document['network']['activation']!r}; "
            f"sklearn_cls {__version__} supports only GELU. Load it with the versions that wrote "
            f"it: {document.get('versions')}."
        )
    network["use_instance_norm"] = network.pop("differ_in_scale")
    history = document["history"]
    if isinstance(history, list):  # of dicts, which may have different keys
        names = dict.fromkeys(name for epoch in history for name in epoch)
        columns = {name: [epoch.get(name) for epoch in history] for name in names}
        history = {"n_epochs": len(history), "columns": columns}
    else:
        history = {**history, "columns": dict.fromkeys(history["columns"])}
    training = dict(document["training"])
    training["n_epochs_trained"] = training.pop("n_epochs_before") + history["n_epochs"]
    return {
        **document,
        "parameters": parameters,
        "network": network,
        "history": history,
        "training": training,
        "fitted_on_2d": document["is_table"],
    }


def read_estimator(cls, file, device):
    """Return the estimator that `file` describes."""
    document = file.document
    parameters = {name: from_json(value) for name, value in document["parameters"].items()}
    estimator = cls(**parameters)
    estimator._validate_params()
    network = read_network(cls, document["network"], len(file.layout))
    weights = {WEIGHT + name: value for name, value in network_layout(network).items()}
    history = document["history"]
    check_layout(file, {**weights, **history_layout(history, file.layout)})
    tensors = file.tensors()

    names = document["feature_names_in"]
    classes = classes_from_json(document["classes"])
    net = read_net(
        network,
        {name.removeprefix(WEIGHT): tensors[name] for name in weights},
        {name: document["training"][name] for name in TRAINING},
        classes=classes,
        device=device,
    )
    features = Features(
        document["n_features_in"],
        None if names is None else np.array(names, dtype=object),
        document["fitted_on_2d"],
    )
    model = FittedModel(net, classes, features, history_from_json(history["columns"], tensors))
    check_matches_network(model, file.path)
    estimator.set_output(transform=document["output"])
    estimator._fitted = model
    return estimator


def read_net(network, weights, training, **kwargs):
    """Return the net of a loaded estimator."""
    from sklearn_cls._training.net import restored_net  # slow: imports skorch

    return restored_net(network, weights, **training, **kwargs)


def read_network(cls, document, n_tensors):
    """Return the checked parameters of the network."""
    known = {name: cls._parameter_constraints[name] for name in (*ARCHITECTURE, "dropout")}
    network = {name: from_json(document[name]) for name in (*known, *DATA_DEPENDENT)}
    validate_parameter_constraints({**known, **DATA_DEPENDENT_CONSTRAINTS}, network, cls.__name__)
    if network["depth"] > n_tensors:  # listing the tensors of that many blocks would take too long
        raise ValueError(f"depth={network['depth']} does not match {n_tensors} tensors.")
    return network


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


def check_layout(file, expected):
    """Check that the tensors of `file` have the expected names, shapes and dtypes."""
    missing, extra = expected.keys() - file.layout.keys(), file.layout.keys() - expected.keys()
    if missing or extra:
        raise FileError(
            f"{file.path} does not have the tensors that its document describes: missing "
            f"{sorted(missing)[:5]}, extra {sorted(extra)[:5]}."
        )
    for name, value in expected.items():
        if file.layout[name] != value:
            raise FileError(
                f"{file.path} has tensor {name!r} of (shape, dtype) {file.layout[name]}, but its "
                f"document describes {value}."
            )


def check_matches_network(model, path):
    """Check that classes and features agree with the network."""
    network, features = model.net.get_params_for("module"), model.features
    names = features.feature_names_in
    if (
        network["n_classes"] != len(model.classes)
        or network["n_features"] != features.n_features
        or (names is not None and len(names) != features.n_features_in)
    ):
        raise damage_error(path, "its classes or features do not match its network")


def history_to_json(history, tensors):
    """Return the columns of a history, with None for those that are added to `tensors`.

    Numeric columns are stored as tensors, because the size of the JSON header is limited. Columns
    that are neither numeric nor JSON-serializable are left out.
    """
    columns = {}
    for name, values in history.items():
        types = {type(value) for value in values}
        # Mixed types would be converted, and integers beyond 64 bits are objects to NumPy.
        array = np.array(values) if len(types) == 1 and types <= NUMBERS.keys() else None
        if array is not None and array.dtype.kind == NUMBERS[types.pop()]:
            tensors[COLUMN + name] = torch.from_numpy(array)
            columns[name] = None
        elif is_json(values):
            columns[name] = values
    return columns


def is_json(value):
    """Return whether `value` can be written as JSON."""
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def history_layout(history, layout):
    """Return shape and dtype of the tensors of a history; their dtype is that of the file."""
    expected = {}
    for name, values in history["columns"].items():
        if values is None:
            _, dtype = layout.get(COLUMN + name, (None, "F64"))
            expected[COLUMN + name] = ((history["n_epochs"],), dtype)
        elif len(values) != history["n_epochs"]:
            raise ValueError(f"history {name!r} has {len(values)} values.")
    return expected


def history_from_json(columns, tensors):
    """Return the inverse of `history_to_json`."""
    return {
        name: tensors[COLUMN + name].tolist() if values is None else values
        for name, values in columns.items()
    }


def to_json(value):
    """Return a parameter or a label as JSON."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.bool_ | np.integer | np.floating):
        kind = {"b": bool, "f": float}.get(value.dtype.kind, int)
        return kind(value)
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    if isinstance(value, dict):
        return {"dict": [[to_json(label), to_json(weight)] for label, weight in value.items()]}
    if isinstance(value, np.random.RandomState):
        name, key, *rest = value.get_state()
        return {"random_state": [name, key.tolist(), *rest]}
    raise TypeError(
        f"{value!r} of type {type(value).__name__} cannot be saved without pickle; use joblib.dump."
    )


def from_json(value):
    """Return the inverse of `to_json`; NumPy scalars become Python scalars."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "bytes":
        return content.encode("latin-1")
    if kind == "dict":
        return {from_json(label): from_json(weight) for label, weight in content}
    if kind == "random_state":
        state = np.random.RandomState()
        state.set_state(tuple(content))
        return state
    raise ValueError(f"{kind!r} is not a known type tag.")


def classes_to_json(classes):
    """Return an array of labels as JSON."""
    labels = classes.astype(np.int64) if classes.dtype.kind in "mM" else classes
    document = {
        "dtype": classes.dtype.str,
        "labels": [to_json(label) for label in labels.tolist()],
    }
    if not np.array_equal(classes_from_json(document), classes):
        raise TypeError(f"classes_ of dtype {classes.dtype} cannot be saved; use joblib.dump.")
    return document


def classes_from_json(document):
    """Return the inverse of `classes_to_json`."""
    if not re.fullmatch(LABEL_DTYPES, document["dtype"]):
        raise ValueError(f"classes of dtype {document['dtype']!r} are not supported.")
    dtype, labels = np.dtype(document["dtype"]), [from_json(x) for x in document["labels"]]
    if dtype.itemsize * len(labels) > MAX_LABEL_BYTES:
        raise ValueError(f"{len(labels)} classes of dtype {dtype.str} take too much memory.")
    return np.array(labels, dtype=dtype)
