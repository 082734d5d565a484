"""Documents of files of earlier formats, as documents of the current format.

- Format 3 had only features that are numbers.
- Format 2 stored `n_jobs`, which depends on the machine. The columns of the history that are not
  numbers were JSON in the document.
- Format 1 had parameters that were removed, and other names.
"""

import warnings

from sklearn_cls._persistence.files import FileError
from sklearn_cls._training.auto import WARMUP_FRACTION
from sklearn_cls._version import __version__


def upgrade(document, path):
    """Return the document of a file of any format as one of the current format."""
    number = document["format"]
    if number == 1:
        document = from_format_1(document, path)
    if number <= 2:
        document = from_format_2(document)
    return from_format_3(document) if number <= 3 else document


def from_format_3(document):
    """Return the document of a file of format 3 as one of format 4."""
    parameters = {**document["parameters"], "categorical_features": "from_dtype"}
    network = {**document["network"], "n_categories": []}
    return {
        **document, "parameters": parameters, "network": network, "kinds": None, "vocabularies": [],
    }  # fmt: skip


def from_format_2(document):
    """Return the document of a file of format 2 as one of format 3."""
    parameters = {name: value for name, value in document["parameters"].items() if name != "n_jobs"}
    return {**document, "parameters": parameters}


def from_format_1(document, path):
    """Return the document of a file of format 1 as one of format 2."""
    parameters, network = dict(document["parameters"]), dict(document["network"])
    if parameters.pop("warmup_fraction") != WARMUP_FRACTION:
        warnings.warn(
            f"{path!r} has a warmup_fraction other than {WARMUP_FRACTION}, the only value that "
            f"sklearn_cls {__version__} supports; predictions are unaffected, but refitting will "
            "give a different model.",
            UserWarning,
            stacklevel=6,
        )
    for name in ("activation", "compile"):
        parameters.pop(name)
    if network.pop("activation") != "gelu":
        raise FileError(
            f"{path!r} holds a network with activation={document['network']['activation']!r}; "
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
        **{name: value for name, value in document.items() if name != "is_table"},
        "parameters": parameters,
        "network": network,
        "history": history,
        "training": training,
        "fitted_on_2d": document["is_table"],
    }
