"""Exported models compute what the estimator computes, for any batch size and length."""

import json
import sys

import numpy as np
import pytest
import torch

from tests.helpers import bumps, small

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

MODELS = {
    "default": {},
    "linear": {"embedding": "linear", "cls_strategy": "zeros"},
    "patches": {"patch_size": 3, "cls_strategy": "fixed"},
    "patches, linear": {"patch_size": 4, "embedding": "linear"},
    "rotary": {"positions": "rope", "cls_strategy": "random"},
    "learned positions": {"positions": "learned", "patch_size": 2},
    "without positions": {"positions": None},
    "mean": {"pooling": "mean"},
    "max": {"pooling": "max", "depth": 2},
    "attention": {"pooling": "attention", "positions": "rope"},
    "not standardized": {"standardize": False},
}
FEW = ["default"]


def with_gaps(X, rng):
    """Return sequences with missing values, padded with NaN."""
    X = X.astype(np.float32)
    for x in X:
        x[rng.integers(1, len(x) + 1) :] = np.nan
        x[1:][rng.random(x[1:].shape) < 0.1] = np.nan
    return X


def with_different_scales(n=60):
    """Return sequences whose scales differ by orders of magnitude, and labels."""
    X, y = bumps(n)
    return X * np.repeat([1e-3, 1.0, 10.0], n // 3)[:, np.newaxis, np.newaxis], y


def fuzzed(rng, max_steps, n_features=2):
    """Return a few sequences of any length, padded, with missing values."""
    n, n_steps = rng.integers(1, 9), rng.integers(1, max_steps + 1)
    X = with_gaps(rng.normal(size=(n, n_steps, n_features)), rng)
    X[:, 0, 0] = rng.normal(size=n)
    return X


def session_of(clf, folder):
    """Return a session of ONNX Runtime with an exported classifier."""
    clf.export_onnx(folder / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(folder / "model.onnx", options)


def check_same(clf, predict, X):
    """Check that an exported model computes what the classifier does."""
    probabilities, labels, embeddings = predict(X)
    np.testing.assert_allclose(probabilities, clf.predict_proba(X), atol=1e-5)
    np.testing.assert_allclose(embeddings, clf.transform(X), atol=1e-4)
    np.testing.assert_array_equal(labels, probabilities.argmax(1))


@pytest.mark.parametrize(
    "name", [pytest.param(k, marks=[] if k in FEW else pytest.mark.slow) for k in MODELS]
)
@pytest.mark.parametrize("data", ["complete", "gaps"])
def test_onnx_runtime_computes_the_probabilities_of_the_estimator(name, data, tmp_path):
    rng = np.random.default_rng(0)
    X, y = bumps()
    X = with_gaps(X, rng) if data == "gaps" else X
    clf = small(max_epochs=2, **MODELS[name]).fit(X, y)
    session = session_of(clf, tmp_path)
    max_steps = clf.module_.max_length or 70
    for _ in range(50):
        check_same(clf, lambda X: session.run(None, {"x": X}), fuzzed(rng, max_steps))
    check_same(clf, lambda X: session.run(None, {"x": X}), X.astype(np.float32))


def test_sequences_of_different_scales_and_codes_are_exported(tmp_path):
    rng = np.random.default_rng(0)
    clf = small(max_epochs=2).fit(*with_different_scales())
    assert clf.module_.embedding.use_instance_norm
    session = session_of(clf, tmp_path)
    for _ in range(20):
        X = fuzzed(rng, 50) * np.float32(10.0 ** rng.integers(-3, 2))
        check_same(clf, lambda X: session.run(None, {"x": X}), X)
    X = np.stack([rng.integers(5, 9, (40, 12)), rng.normal(size=(40, 12))], axis=2)
    y = (X[:, :, 0] == 7).sum(1) > 2
    clf = small(max_epochs=2, categorical_features=[True, False]).fit(X, y)
    session = session_of(clf, tmp_path)
    vocabulary = json.loads(session.get_modelmeta().custom_metadata_map["vocabularies"])["0"]
    assert vocabulary == [5, 6, 7, 8]
    X[:3, :2, 0], X[3:5, 5:] = 4, np.nan
    encoded = X.astype(np.float32)
    numbers = {code: i for i, code in enumerate(vocabulary, start=1)}
    known = ~np.isnan(X[:, :, 0])
    encoded[known, 0] = [numbers.get(code, 0) for code in X[known, 0]]
    probabilities, *_ = session.run(None, {"x": encoded})
    np.testing.assert_allclose(probabilities, clf.predict_proba(X), atol=1e-5)


def test_huge_offsets_and_dead_features_are_exported(tmp_path):
    X, y = bumps()
    X = np.concatenate([1e6 + 3 * X, np.ones((*X.shape[:2], 1))], axis=2).astype(np.float32)
    clf = small(max_epochs=2).fit(X, y)
    session = session_of(clf, tmp_path)
    X[:, :, 2] += np.float32(5)
    check_same(clf, lambda X: session.run(None, {"x": X}), X)


def test_the_metadata_of_an_onnx_file_describe_the_model(tmp_path, fitted, data):
    metadata = session_of(fitted, tmp_path).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == fitted.classes_.tolist()
    assert json.loads(metadata["versions"])["torch"] == torch.__version__
    assert metadata["estimator"] == "CLSTransformerClassifier"
    again = session_of(fitted, tmp_path).get_modelmeta().custom_metadata_map
    other = session_of(small(random_state=1).fit(*data), tmp_path)
    assert again["weights_sha256"] == metadata["weights_sha256"]
    assert other.get_modelmeta().custom_metadata_map["weights_sha256"] != again["weights_sha256"]
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model)
    assert model.opset_import[0].version == json.loads(metadata["opset"]) == 18
    shape = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert shape == ["batch", "steps", 2]


def test_torch_loads_an_exported_program(tmp_path, fitted):
    fitted.export_torch(tmp_path / "model.pt2")
    metadata = {"classes": "", "weights_sha256": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=metadata)
    assert json.loads(metadata["classes"]) == fitted.classes_.tolist()
    module, rng = program.module(), np.random.default_rng(0)
    for _ in range(10):
        X = fuzzed(rng, 50)
        predict = lambda X: [y.numpy() for y in module(torch.from_numpy(X))]  # noqa: E731
        check_same(fitted, predict, X)


def test_what_cannot_be_exported_is_named(tmp_path):
    pd = pytest.importorskip("pandas")
    times = pd.date_range("2026-01-01", periods=12, freq="h")
    rng = np.random.default_rng(0)
    X = [pd.DataFrame({"value": rng.normal(size=12), "time": times}) for _ in range(20)]
    clf = small(max_epochs=1).fit(X, np.arange(20) % 2)
    with pytest.raises(ValueError, match="feature 'time' is a clock"):
        clf.export_onnx(tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
    with pytest.raises(TypeError, match="path must be the path of a file"):
        clf.export_onnx(None)


def test_longer_sequences_than_learned_positions_are_an_error(tmp_path, data):
    clf = small(max_epochs=1, positions="learned").fit(*data)
    session = session_of(clf, tmp_path)
    assert json.loads(session.get_modelmeta().custom_metadata_map["max_steps"]) == 20
    with pytest.raises(Exception, match=r"Add|broadcast"):
        session.run(None, {"x": np.zeros((1, 21, 2), dtype=np.float32)})


def test_the_error_without_onnx_says_what_to_install(monkeypatch, tmp_path, fitted):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"pip install 'sklearn_cls\[onnx\]'"):
        fitted.export_onnx(tmp_path / "model.onnx")
