"""The caller's settings of torch change neither weights nor predictions, and are restored."""

import copy
import pickle
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls._torch.settings import torch_settings
from tests.helpers import bumps, small


@contextmanager
def process_setting(set_value, value, default):
    set_value(value)
    try:
        yield
    finally:
        set_value(default)


@contextmanager
def nested_autocast():
    with torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", torch.float16):
        torch.ones(2, 2) @ torch.ones(2, 2)
        with torch.no_grad():
            yield


CALLER_SETTINGS = {
    "autocast to bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", torch.float16),
    "nested autocast": nested_autocast,
    "no_grad": torch.no_grad,
    "set_grad_enabled": lambda: torch.set_grad_enabled(False),
    "inference_mode": torch.inference_mode,
    "deterministic algorithms": lambda: process_setting(
        torch.use_deterministic_algorithms, True, False
    ),
    "device context": lambda: torch.device("meta"),
    "default device": lambda: process_setting(torch.set_default_device, "meta", None),
    "default dtype": lambda: process_setting(torch.set_default_dtype, torch.float64, torch.float32),
    "dual level": torch.autograd.forward_ad.dual_level,
    "saved tensors": torch.autograd.graph.save_on_cpu,
}


def fit_and_predict(caller, path, params):
    """Return weights and predictions of everything that computes with torch, by its name.

    `caller` calls the function that it is given.
    """
    X, y = bumps(40)
    lists = [x[: 9 + i % 11] for i, x in enumerate(X)]
    base = small(max_epochs=1, **params).fit(X, y)
    models, results = {}, {}

    def compute():
        models.update(
            {
                "fit": small(max_epochs=2, **params).fit(X, y),
                "partial_fit": small(**params).partial_fit(X, y).partial_fit(X, y),
                "warm_start": small(max_epochs=1, warm_start=True, **params).fit(X, y).fit(X, y),
            }
        )
        base.save(path)
        models.update(
            {
                "load": CLSTransformerClassifier.load(path),
                "pickle": pickle.loads(pickle.dumps(base)),
                "deepcopy": copy.deepcopy(base),
            }
        )
        results.update(
            {
                "predict_proba": base.predict_proba(lists),
                "transform": base.transform(X),
                "cls_attention": base.cls_attention(lists),
            }
        )

    caller(compute)
    for name, model in models.items():
        state = model.module_.state_dict()
        assert not any(value.is_inference() for value in state.values()), name
        assert all(p.requires_grad for p in model.module_.parameters()), name
        results |= {f"{name}: {key}": value.numpy() for key, value in state.items()}
        results[f"{name}: predict_proba"] = model.predict_proba(lists)
    return results


PARAMS = [
    {},
    {"precision": "bfloat16", "pooling": "attention", "positions": "learned"},
    {"embedding": "linear", "positions": "rope", "cls_strategy": "random", "early_stopping": True},
]


@pytest.fixture(scope="module", params=PARAMS, ids=str)
def params_and_expected(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("expected") / "model"
    return request.param, fit_and_predict(lambda compute: compute(), path, request.param)


@pytest.mark.parametrize("name", CALLER_SETTINGS)
def test_results_do_not_depend_on_the_settings_of_the_caller(name, params_and_expected, tmp_path):
    params, expected = params_and_expected

    def caller(compute):
        with CALLER_SETTINGS[name]():
            compute()

    results = fit_and_predict(caller, tmp_path / "model", params)
    assert results.keys() == expected.keys()
    for key, value in expected.items():
        assert results[key].dtype == value.dtype, key
        assert np.array_equal(results[key], value), key


@pytest.mark.filterwarnings("ignore:.*Anomaly Detection:UserWarning")
def test_anomaly_detection_changes_no_weight(params_and_expected, tmp_path):
    params, expected = params_and_expected

    def caller(compute):
        with torch.autograd.detect_anomaly():
            compute()

    results = fit_and_predict(caller, tmp_path / "model", params)
    assert all(np.array_equal(results[key], value) for key, value in expected.items())


TRANSFORMS = {
    "grad": lambda f: torch.func.grad(f)(torch.ones(3)),
    "vmap": lambda f: torch.func.vmap(f)(torch.ones(3, 2)),
    "jvp": lambda f: torch.func.jvp(f, (torch.ones(3),), (torch.ones(3),)),
    "vjp": lambda f: torch.func.vjp(f, torch.ones(3)),
    "hessian": lambda f: torch.func.hessian(f)(torch.ones(3)),
    "functionalize": lambda f: torch.func.functionalize(f)(torch.ones(3)),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # in torch.func
@pytest.mark.parametrize("name", TRANSFORMS)
def test_results_do_not_depend_on_a_transform_that_calls_the_estimator(
    name, params_and_expected, tmp_path
):
    params, expected = params_and_expected

    def caller(compute):
        def function(x):
            compute()
            return (x * x).sum()

        TRANSFORMS[name](function)

    results = fit_and_predict(caller, tmp_path / "model", params)
    assert results.keys() == expected.keys()
    assert all(np.array_equal(results[key], value) for key, value in expected.items())


def test_results_do_not_depend_on_a_backward_pass_that_calls_the_estimator(
    params_and_expected, tmp_path
):
    params, expected = params_and_expected

    def caller(compute):
        x = torch.ones(3, requires_grad=True)
        x.register_hook(lambda _: compute())
        with torch.autocast("cpu", torch.bfloat16):
            x.sum().backward()

    results = fit_and_predict(caller, tmp_path / "model", params)
    assert all(np.array_equal(results[key], value) for key, value in expected.items())


def caller_state():
    x = torch.ones(2, 2)
    return (
        torch.is_grad_enabled(), torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"),
        torch.is_autocast_cache_enabled(), torch.is_autocast_enabled("cuda"),
        torch.get_num_threads(), torch.get_default_dtype(), torch.get_default_device(),
        (x @ x).dtype,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["nested autocast", "inference_mode", "default dtype"])
def test_the_settings_of_the_caller_are_restored_after_results_and_errors(name, data, tmp_path):
    X, y = data
    torch.set_num_threads(3)
    with CALLER_SETTINGS[name](), torch.autocast("cuda", torch.float16, enabled=False):
        before = caller_state()
        clf = small(max_epochs=1, precision="bfloat16").fit(X, y).partial_fit(X, y)
        clf.predict(X)
        clf.save(tmp_path / "model")
        CLSTransformerClassifier.load(tmp_path / "model")
        pickle.loads(pickle.dumps(clf))
        assert caller_state() == before
        with pytest.raises(ValueError, match="became nan"):
            small(max_epochs=2, lr=1e30).fit(X, y)
        with pytest.raises(ValueError, match="X"):
            clf.predict(X[:, :, :1])
        with pytest.raises(OSError, match="missing"):
            CLSTransformerClassifier.load(tmp_path / "missing")
        assert caller_state() == before


def test_only_the_calling_thread_has_other_settings():
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), torch_settings():
        assert torch.ones(1, requires_grad=True).mul(2).requires_grad
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")
