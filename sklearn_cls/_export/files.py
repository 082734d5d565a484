"""Files of exported models: ONNX, and `.pt2` of `torch.export`."""

import io
import json
import logging
import platform
import warnings
from contextlib import contextmanager

import torch

from sklearn_cls._data.columns import CODE
from sklearn_cls._data.warning_filters import FILTERS_LOCK
from sklearn_cls._export.graph import (
    OUTPUTS,
    PredictionGraph,
    check_can_be_exported,
    exported_program,
)
from sklearn_cls._persistence.files import check_path, write_atomically
from sklearn_cls._persistence.fingerprint import learned_arrays, sha256
from sklearn_cls._persistence.json_values import is_json
from sklearn_cls._version import __version__

OPSET = 18
NOISY_LOGGERS = ("onnx_ir", "onnxscript", "torch.onnx", "torch.export")


def export_onnx(estimator, model, path):
    """Write a model as an ONNX file, see `CLSTransformerClassifier.export_onnx`."""
    path = check_path(path)
    metadata = described(estimator, model)
    proto = onnx_model(model)
    for name, text in metadata.items():
        proto.metadata_props.add(key=name, value=text)
    write_atomically(path, proto.SerializeToString())


def onnx_model(model):
    """Return the `onnx.ModelProto` of a model."""
    check_can_be_exported(model)
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "export_onnx needs onnx and onnxscript; install them by pip install "
            "'sklearn_cls[onnx]'."
        ) from error
    graph = PredictionGraph(model).eval()
    with quiet():
        program = torch.onnx.export(
            graph,
            (graph.example,),
            dynamo=True,
            input_names=["x"],
            output_names=list(OUTPUTS),
            dynamic_shapes={"x": {0: "batch", 1: "steps"}},
            opset_version=OPSET,
            verbose=False,
        )
    return program.model_proto


def export_torch(estimator, model, path):
    """Write a model as a file of `torch.export`, see `CLSTransformerClassifier.export_torch`."""
    path = check_path(path)
    check_can_be_exported(model)
    file = io.BytesIO()
    with quiet():
        torch.export.save(exported_program(model), file, extra_files=described(estimator, model))
    write_atomically(path, file.getvalue())


@contextmanager
def quiet():
    """Hide warnings and messages of the exporters, which are about their own code."""
    loggers = [logging.getLogger(name) for name in NOISY_LOGGERS]
    levels = [logger.level for logger in loggers]
    with FILTERS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def described(estimator, model):
    """Return the metadata of an exported model: text by name."""
    features = model.features
    classes = model.classes.tolist()
    if not is_json(classes):
        raise TypeError(
            f"The classes cannot be written as JSON: {model.classes!r}. Use text or numbers as "
            "labels."
        )
    values = {
        "classes": classes,
        "feature_names": None if features.names is None else list(map(str, features.names)),
        "vocabularies": vocabularies(features),
        "versions": {
            "sklearn_cls": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "opset": OPSET,
        "max_steps": model.module.max_length,
    }
    texts = {name: json.dumps(value) for name, value in values.items()}
    return {
        "estimator": type(estimator).__name__,
        **texts,
        "weights_sha256": sha256(learned_arrays(model.net)),
    }


def vocabularies(features):
    """Return a dict from the numbers of the features that are codes to their categories."""
    codes = [j for j, kind in enumerate(features.kinds or ()) if kind == CODE]
    categories = [vocabulary.categories.tolist() for vocabulary in features.vocabularies]
    if not is_json(categories):
        raise TypeError(
            "The categories of the codes cannot be written as JSON; use text or numbers."
        )
    return dict(zip(codes, categories, strict=True))
