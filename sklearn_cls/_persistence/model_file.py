"""A fitted estimator to a safetensors file and back: weights as tensors, the rest as JSON.

The document of the file has

- "format", the number of this description, and "estimator", the name of the class;
- "versions" of what wrote it, for whoever wonders;
- "parameters" of the estimator, but for device and callbacks; "output", what `set_output` chose;
- "classes", "n_features_in", "feature_names_in", "is_table": what `fit` learnt of the data;
- "network", the parameters of `CLSEncoder`, and "training", some of `Net`;
- "history", rows, or the names of its columns, which then are tensors.
"""

import re
import warnings
from numbers import Integral

import numpy as np
import sklearn
import torch
from sklearn.utils.validation import check_is_fitted

from sklearn_cls._compat import Interval, validate_parameter_constraints
from sklearn_cls._network.encoder import CLSEncoder
from sklearn_cls._persistence.tensor_file import (
    FileError,
    can_be_written,
    damaged,
    open_file,
    write_file,
)
from sklearn_cls._torch.device import resolve_device
from sklearn_cls._training.auto import ARCHITECTURE, DATA_DEPENDENT
from sklearn_cls._version import __version__

FORMAT = 1
LEFT_OUT = ("callbacks", "device")  # parameters: code, and where it runs
TRAINING = ("lr", "batch_size", "max_epochs", "precision", "seed", "n_epochs_before")
WEIGHT, COLUMN = "network.", "history."  # what names of tensors start with
LABEL_DTYPES = r"[<>|=]([biuf]\d+|[SU]\d+|O|[mM]8\[\w+\])"
MAX_LABELS = 2**26  # bytes of all classes
MALFORMED = (AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError)
DATA_DEPENDENT_CONSTRAINTS = {
    **{name: [Interval(Integral, 0, None, closed="left")] for name in DATA_DEPENDENT},
    "has_missing": ["boolean"],
    "use_instance_norm": ["boolean"],
}


def save_estimator(estimator, path):
    """Write a fitted estimator to `path`."""
    from sklearn_cls._training.net import to_columns

    check_is_fitted(estimator)
    if estimator.callbacks:
        warnings.warn(
            "callbacks are code, which this file does not hold: the loaded model has "
            "callbacks=None; use set_params(callbacks=...) before it is fitted again.",
            UserWarning,
            stacklevel=3,
        )
    net, parameters = estimator.net_, estimator.get_params(deep=False)
    network, names = net.get_params_for("module"), getattr(estimator, "feature_names_in_", None)
    tensors = {WEIGHT + name: value for name, value in net.module_.state_dict().items()}
    history = [
        {key: value for key, value in row.items() if can_be_written(value)}
        for row in net.finished_epochs()
    ]
    columns = to_columns(history)
    if isinstance(columns, dict):
        tensors |= {COLUMN + name: torch.from_numpy(value) for name, value in columns.items()}
        history = {"columns": list(columns), "n_epochs": len(history)}
    document = {
        "format": FORMAT,
        "estimator": type(estimator).__name__,
        "versions": {
            "sklearn_cls": __version__,
            "scikit-learn": sklearn.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "parameters": {k: as_json(v) for k, v in parameters.items() if k not in LEFT_OUT},
        "output": vars(estimator).get("_sklearn_output_config", {}).get("transform"),
        "classes": classes_as_json(estimator.classes_),
        "n_features_in": estimator.n_features_in_,
        "feature_names_in": None if names is None else names.tolist(),
        "is_table": estimator._fitted_on_2d,
        "network": {
            name: as_json(network[name]) for name in (*ARCHITECTURE, "dropout", *DATA_DEPENDENT)
        },
        "training": {name: as_json(getattr(net, name)) for name in TRAINING},
        "history": history,
    }
    write_file(path, document, tensors)


def load_estimator(cls, path, device):
    """Return the estimator of class `cls` that was written to `path`."""
    place = resolve_device(device)
    with open_file(path) as file:
        check_origin(cls, file)
        try:
            estimator = read_estimator(cls, file, str(place))
        except FileError:
            raise
        except MALFORMED as error:
            raise damaged(path, f"its document says what cannot be ({error!r})") from error
    return estimator.set_params(device=device)


def check_origin(cls, file):
    """Check that `file` is of this class, and not of a later format."""
    number, name = file.document.get("format"), file.document.get("estimator")
    if not isinstance(number, int) or number < 1:
        raise damaged(file.path, f"its format is {number!r}")
    if number > FORMAT:
        raise FileError(
            f"{file.path} has format {number}, and sklearn_cls {__version__} reads those up to "
            f"{FORMAT}; load it with the version that wrote it, {file.document.get('versions')}."
        )
    if name != cls.__name__:
        raise FileError(
            f"{file.path} holds an estimator {name!r}, and {cls.__name__}.load reads its own."
        )


def read_estimator(cls, file, device):
    """Return the estimator that `file` describes."""
    from sklearn_cls._training.net import from_columns, restored_net

    document = file.document
    estimator = cls(**{name: from_json(value) for name, value in document["parameters"].items()})
    estimator._validate_params()
    network = read_network(cls, document["network"], len(file.layout))
    history = document["history"]
    is_in_columns = isinstance(history, dict)
    columns = history["columns"] if is_in_columns else []
    expected = {WEIGHT + name: value for name, value in layout(network).items()}
    for name in columns:
        _, dtype = file.layout.get(COLUMN + name, (None, "F64"))
        expected[COLUMN + name] = ((history["n_epochs"],), dtype)
    check_layout(file, expected)
    tensors = file.tensors()

    if is_in_columns:
        history = from_columns({name: tensors[COLUMN + name].numpy() for name in columns})
    estimator.classes_ = classes_from_json(document["classes"])
    estimator.n_features_in_ = document["n_features_in"]
    estimator._fitted_on_2d = document["is_table"]
    if document["feature_names_in"] is not None:
        estimator.feature_names_in_ = np.array(document["feature_names_in"], dtype=object)
    estimator.set_output(transform=document["output"])
    estimator.net_ = restored_net(
        network,
        {name.removeprefix(WEIGHT): tensors[name] for name in expected if name.startswith(WEIGHT)},
        history,
        classes=estimator.classes_,
        device=device,
        **{name: document["training"][name] for name in TRAINING},
    )
    check_consistency(estimator, file.path)
    return estimator


def read_network(cls, document, n_tensors):
    """Return the checked parameters of the network."""
    known = {name: cls._parameter_constraints[name] for name in (*ARCHITECTURE, "dropout")}
    network = {name: from_json(document[name]) for name in (*known, *DATA_DEPENDENT)}
    validate_parameter_constraints({**known, **DATA_DEPENDENT_CONSTRAINTS}, network, cls.__name__)
    if network["depth"] > n_tensors:  # errors_name_argument them all would take forever
        raise ValueError(f"depth={network['depth']} does not fit {n_tensors} tensors.")
    return network


def layout(network):
    """Return the shape and dtype of every tensor of the network, without building it."""
    with torch.device("meta"):  # of one block, as all are alike and many take long to build
        state = CLSEncoder(**{**network, "depth": 1}).state_dict()
    result = {}
    for name, value in state.items():
        described = (tuple(value.shape), "F32" if value.is_floating_point() else "I64")
        n_alike = network["depth"] if name.startswith("blocks.0.") else 1
        for i in range(n_alike):
            result[name.replace("blocks.0.", f"blocks.{i}.")] = described
    return result


def check_layout(file, expected):
    """Check that the tensors of `file` are those expected, by name, shape and dtype."""
    missing, extra = expected.keys() - file.layout.keys(), file.layout.keys() - expected.keys()
    if missing or extra:
        raise FileError(
            f"{file.path} does not have the tensors that its document describes: missing "
            f"{sorted(missing)[:5]}, extra {sorted(extra)[:5]}."
        )
    for name, value in expected.items():
        if file.layout[name] != value:
            raise FileError(
                f"{file.path} has tensor {name!r} of (shape, dtype) {file.layout[name]}, and its "
                f"document describes {value}."
            )


def check_consistency(estimator, path):
    """Check what is said twice."""
    known = estimator.net_.get_params_for("module")
    names = getattr(estimator, "feature_names_in_", None)
    if (
        known["n_classes"] != len(estimator.classes_)
        or known["n_features"] != (1 if estimator._fitted_on_2d else estimator.n_features_in_)
        or (names is not None and len(names) != estimator.n_features_in_)
    ):
        raise damaged(path, "its classes or features are not those of its network")


def as_json(value):
    """Return a parameter or a label as JSON."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.bool_ | np.integer | np.floating):
        kind = {"b": bool, "f": float}.get(value.dtype.kind, int)
        return kind(value)
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    if isinstance(value, dict):
        return {"dict": [[as_json(label), as_json(weight)] for label, weight in value.items()]}
    if isinstance(value, np.random.RandomState):
        name, key, *rest = value.get_state()
        return {"random_state": [name, key.tolist(), *rest]}
    raise TypeError(
        f"{value!r} of type {type(value).__name__} cannot be written without pickle; joblib.dump "
        "takes it."
    )


def from_json(value):
    """Return what `as_json` was given, scalars of NumPy as those of Python."""
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
    raise ValueError(f"{kind!r} is no kind of value.")


def classes_as_json(classes):
    """Return an array of labels as JSON."""
    labels = classes.astype(np.int64) if classes.dtype.kind in "mM" else classes
    document = {
        "dtype": classes.dtype.str,
        "labels": [as_json(label) for label in labels.tolist()],
    }
    if not np.array_equal(classes_from_json(document), classes):
        raise TypeError(f"classes_ of {classes.dtype} cannot be written; joblib.dump takes them.")
    return document


def classes_from_json(document):
    """Return the labels that `classes_as_json` was given."""
    if not re.fullmatch(LABEL_DTYPES, document["dtype"]):
        raise ValueError(f"classes of dtype {document['dtype']!r} are not read.")
    dtype, labels = np.dtype(document["dtype"]), [from_json(x) for x in document["labels"]]
    if dtype.itemsize * len(labels) > MAX_LABELS:
        raise ValueError(f"{len(labels)} classes of dtype {dtype.str} take too much memory.")
    if dtype.kind in "mM":
        return np.array(labels, dtype=np.int64).astype(dtype)
    return np.array(labels, dtype=dtype)
