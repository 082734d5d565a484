"""What every model in a file fulfills: it is checked before a file is written, and when it is read.

A fit leaves no other model. Thus each file that can be written can be read, and a file that someone
has changed is refused when it is loaded, not when it is used.
"""

import sys
from math import isfinite
from numbers import Integral, Real
from types import SimpleNamespace

import numpy as np

from sklearn_cls._compat import Interval, StrOptions, validate_parameter_constraints
from sklearn_cls._data.columns import CLOCK, CODE, NUMBER
from sklearn_cls._data.targets import check_labels
from sklearn_cls._training.auto import ARCHITECTURE, check_consistency
from sklearn_cls._training.divergence import MAX_ABS_WEIGHT
from sklearn_cls._training.history import NUMERIC_COLUMNS

AT_LEAST_1 = Interval(Integral, 1, None, closed="left")
SEED = Interval(Integral, 0, 2**32, closed="left")
MAX_COUNT = 2**53
INTEGERS = range(-(2**63), 2**64)  # those that arrays hold
MAX_MEAN = 1e20  # of the output of a convolution: inputs are at most 1e9 and weights 1e3
DOCUMENT = {
    "versions": [dict],
    "parameters": [dict],
    "output": [StrOptions({"default", "pandas", "polars"}), None],
    "classes": [dict],
    "n_features_in": [AT_LEAST_1],
    "feature_names_in": [list, None],
    "fitted_on_2d": ["boolean"],
    "kinds": [list, None],
    "vocabularies": [list],
    "network": [dict],
    "training": [dict],
    "history": [dict],
}
NETWORK = {
    "n_features": [AT_LEAST_1],
    "n_classes": [Interval(Integral, 2, None, closed="left")],
    "patch_size": [AT_LEAST_1],
    "max_tokens": [AT_LEAST_1],
    "has_missing": ["boolean"],
    "use_instance_norm": ["boolean"],
    "token_seed": [SEED],
}
TRAINING = {
    "lr": [Interval(Real, 0, sys.float_info.max, closed="right")],
    "batch_size": [AT_LEAST_1],
    "max_epochs": [AT_LEAST_1],
    "precision": [StrOptions({"auto", "float32", "bfloat16"})],
    "seed": [SEED],
    "n_epochs_trained": [Interval(Integral, 1, MAX_COUNT, closed="both")],
}
HISTORY = {"n_epochs": [AT_LEAST_1], "columns": [dict]}


def checked(values, constraints, owner):
    """Return the items of a document that `constraints` names, after checking them."""
    values = {name: values[name] for name in constraints}
    for name, constraint in constraints.items():
        # True is an integer to scikit-learn.
        if isinstance(values[name], bool) and constraint != ["boolean"]:
            raise ValueError(f"{name} must not be {values[name]}")
    validate_parameter_constraints(constraints, values, owner)
    return values


def checked_document(document, cls):
    """Return the items of a document, after checking their kinds and ranges."""
    parameters = cls._parameter_constraints
    network = {name: parameters[name] for name in (*ARCHITECTURE, "dropout")}
    document = checked(document, DOCUMENT, cls.__name__)
    parts = {
        "network": checked(
            document["network"], {**network, **NETWORK, "n_categories": [list]}, cls.__name__
        ),
        "training": checked(document["training"], TRAINING, cls.__name__),
        "history": checked(document["history"], HISTORY, cls.__name__),
    }
    return {**document, **parts}


def check_model(estimator, model):
    """Raise an error for an estimator or a `FittedModel` that no fit can have left."""
    estimator._validate_params()
    # The parameters of the estimator may have been set after the fit.
    check_consistency(SimpleNamespace(**model.net.get_params_for("module")))
    check_classes(model)
    check_features(model)
    check_scaler(model.net.scaler)
    check_weights(model.module)


def check_classes(model):
    """Raise ValueError unless the classes are those of the network, sorted, and fit for `fit`."""
    classes, n_classes = model.classes, model.net.get_params_for("module")["n_classes"]
    if classes.dtype.kind == "O" and not all(isinstance(label, str) for label in classes):
        raise ValueError("classes of dtype object must be text")
    if classes.dtype.kind != "S":  # Versions that wrote format 1 accepted bytes.
        check_labels(classes, "classes")
    if not np.array_equal(np.unique(classes), classes):
        raise ValueError("classes are not sorted, or occur twice")
    if len(classes) != n_classes:
        raise ValueError(f"there are {len(classes)} classes, but n_classes={n_classes}")


def check_features(model):
    """Raise ValueError unless the features are those of the network, and their names differ."""
    features, network = model.features, model.net.get_params_for("module")
    check_kinds(features)
    if features.n_inputs != network["n_features"]:
        raise ValueError(
            f"there are {features.n_inputs} inputs, but n_features={network['n_features']}"
        )
    names = features.feature_names_in
    if names is None:
        return
    if not all(isinstance(name, str) for name in names):
        raise ValueError("feature_names_in must be text")
    if len(names) != features.n_features_in or len(set(names)) != len(names):
        raise ValueError(
            f"feature_names_in must have {features.n_features_in} different names, got {len(names)}"
        )


def check_kinds(features):
    """Raise ValueError for kinds and vocabularies of features that `fit` cannot have learned."""
    kinds, vocabularies = features.kinds or (), features.vocabularies
    if not set(kinds) <= {NUMBER, CODE, CLOCK} or kinds.count(CLOCK) > 1:
        raise ValueError(f"kinds={kinds} are not those of features")
    if kinds.count(CODE) != len(vocabularies):
        raise ValueError(f"{len(vocabularies)} vocabularies do not fit to kinds={kinds}")
    if features.fitted_on_2d and len(kinds) > 1:
        raise ValueError("a 2-D X has a single feature")
    for vocabulary in vocabularies:
        check_categories(vocabulary.categories.tolist())


def check_categories(categories):
    """Raise ValueError for categories that no column has."""
    numbers = [c for c in categories if isinstance(c, Real) and not isinstance(c, bool)]
    if len(set(categories)) != len(categories):
        raise ValueError("a category occurs twice")
    if numbers and any(isinstance(c, str | bytes) for c in categories):
        raise ValueError("some categories are numbers, and others text")
    if not all(isfinite(c) if isinstance(c, float) else c in INTEGERS for c in numbers):
        raise ValueError("a category is a number that no column holds")


def check_scaler(scaler):
    """Raise ValueError for statistics of X that `fit_scaler` cannot have returned."""
    if not np.isfinite([scaler.mean, scaler.mean_rest]).all():
        raise ValueError("the mean of a feature is not finite")
    if (scaler.std <= 0).any():
        raise ValueError(f"a feature has a standard deviation of {scaler.std.min():.3g}")


def check_history(history):
    """Raise ValueError unless each epoch of a stored history has the numbers of training."""
    for name in NUMERIC_COLUMNS:
        if not all(map(is_number, history[name])):
            raise ValueError(f"history {name!r} must be numbers")


def is_number(value):
    """Return whether a value of a history is a number, or could not be stored."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def check_weights(module):
    """Raise ValueError for a tensor of the network that training cannot have produced."""
    for name, value in module.state_dict().items():
        is_statistic = name.endswith((".running_mean", ".running_var", ".num_batches_tracked"))
        largest, smallest = value.abs().max().item(), value.min().item()
        if not largest < float("inf"):  # also true for NaN
            why = f"has a value of {largest}"
        elif not is_statistic and largest > MAX_ABS_WEIGHT:
            why = f"has a weight of magnitude {largest:.3g}; training stops at {MAX_ABS_WEIGHT:.0f}"
        elif name.endswith(".running_mean") and largest > MAX_MEAN:
            why = f"has a mean of {largest:.3g}"
        elif is_statistic and not name.endswith(".running_mean") and smallest < 0:
            why = f"has a negative value, {smallest:.3g}"
        elif name.endswith(".num_batches_tracked") and largest > MAX_COUNT:
            why = f"counts {largest} batches"
        else:
            continue
        raise ValueError(f"tensor {name!r} {why}")
