"""The public methods, parameters and attributes of the estimator."""

import ast
import copy
import inspect
import json
import pickle
import re
import subprocess
import sys
import warnings

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sklearn_cls import CLSTransformerClassifier
from tests.helpers import Hook, bumps, small

STRATEGIES = ["learned", "zeros", "fixed", "random"]
POOLINGS = ["mean", "max", "attention"]

# Learning


@pytest.mark.parametrize(
    "params",
    [{"cls_strategy": s} for s in STRATEGIES]
    + [{"pooling": p} for p in POOLINGS]
    + [{"positions": p} for p in ("learned", "rope")]
    + [{"embedding": "linear"}, {"patch_size": 5}, {"standardize": False}]
    + [{"precision": "bfloat16"}],
    ids=str,
)
def test_every_variant_learns_where_the_bump_is(params, data):
    clf = small(**{"max_epochs": 25, **params}).fit(*data)
    assert clf.score(*bumps(seed=1)) > 0.9
    assert clf.predict_proba(data[0]).dtype == np.float32


def test_defaults_need_no_tuning_and_no_preprocessing(data):
    X, y = data
    scale, offset = [1e-3, 1e4], [50, -1e5]  # the features have different units
    clf = CLSTransformerClassifier(random_state=0, max_epochs=30).fit(X * scale + offset, y)
    X_test, y_test = bumps(seed=1)
    assert clf.score(X_test * scale + offset, y_test) > 0.95


def test_sequences_whose_scales_differ_by_orders_of_magnitude_are_learned(data):
    X, y = data
    X = X * np.logspace(-4, 2, len(X))[np.random.default_rng(0).permutation(60), None, None]
    clf = small(max_epochs=30).fit(X, y)
    assert clf.score(X, y) > 0.9
    assert clf.module_.embedding.use_instance_norm
    assert small(max_epochs=30, standardize=False).fit(X, y).score(X, y) < 0.9


def test_sequences_of_unequal_length_with_missing_values_are_learned(data):
    rng = np.random.default_rng(0)

    def shorten(X):
        return [np.where(rng.random(x.shape) < 0.05, np.nan, x)[: rng.integers(16, 21)] for x in X]

    X_test, y_test = bumps(seed=1)
    clf = small(max_epochs=25).fit(shorten(data[0]), data[1])
    assert clf.score(shorten(X_test), y_test) > 0.9


# Prediction


def test_padding_and_the_other_sequences_do_not_change_a_prediction(fitted, data):
    X = data[0][:7]
    lists = [x[: 8 + i] for i, x in enumerate(X)]
    padded = np.full((7, 30, 2), np.nan)
    for row, x in zip(padded, lists, strict=True):
        row[: len(x)] = x
    for method in (fitted.predict_proba, fitted.transform):
        alone = np.concatenate([method([x]) for x in lists])
        assert np.allclose(method(lists), alone, atol=1e-5)
        assert np.allclose(method(padded), alone, atol=1e-5)
        assert np.allclose(method(padded[::-1])[::-1], alone, atol=1e-5)
        assert np.allclose(method([*lists, np.zeros((500, 2))])[:7], alone, atol=1e-5)


def test_sequences_may_be_longer_than_in_fit_unless_positions_are_learned(fitted, data):
    longer = np.concatenate([data[0], np.zeros((60, 40, 2), np.float32)], axis=1)
    assert (fitted.predict(longer) == data[1]).mean() > 0.7
    clf = small(positions="learned", max_epochs=1).fit(*data)
    with pytest.raises(ValueError, match=r"60 steps, but positions='learned' .*only the first 20"):
        clf.predict(longer)


def test_probabilities_are_float32_and_sum_to_1(fitted, data):
    probabilities = fitted.predict_proba(data[0])
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (60, 2)
    assert np.allclose(probabilities.sum(1), 1, atol=1e-6)
    expected = fitted.classes_[probabilities.argmax(axis=1)]
    assert np.array_equal(fitted.predict(data[0]), expected)


def test_transform_returns_the_input_of_the_last_layer(fitted, data):
    embeddings = fitted.transform(data[0])
    assert embeddings.shape == (60, 16)
    assert embeddings.dtype == np.float32
    logits = fitted.module_.head(torch.from_numpy(embeddings))
    expected = logits.softmax(-1).detach().numpy()
    assert np.allclose(expected, fitted.predict_proba(data[0]), atol=1e-6)
    assert np.array_equal(clone(fitted).fit_transform(*data), embeddings)


def test_without_positions_the_order_of_the_steps_does_not_matter(data):
    clf = small(positions=None, embedding="linear").fit(*data)
    X = data[0]
    assert np.allclose(clf.predict_proba(X), clf.predict_proba(X[:, ::-1]), atol=1e-5)


def test_predictions_of_the_random_strategy_are_repeatable(data):
    clf = small(cls_strategy="random", max_epochs=2).fit(*data)
    assert np.array_equal(clf.predict_proba(data[0]), clf.predict_proba(data[0]))


@pytest.mark.parametrize("embedding", ["linear", "conv"])
@pytest.mark.parametrize("value", [1e20, -1e38, 9.97e36])
def test_an_extreme_value_gives_finite_probabilities(value, embedding, data):
    X = data[0].copy()
    X[0, 3, 1] = value
    clf = small(embedding=embedding, max_epochs=1).fit(*data)
    assert np.isfinite(clf.predict_proba(X)).all()
    assert np.isfinite(clf.transform(X)).all()
    assert np.array_equal(clf.predict_proba(X[1:]), clf.predict_proba(data[0][1:]))


@pytest.mark.parametrize("method", ["predict", "predict_proba", "transform", "cls_attention"])
def test_methods_raise_before_fit(method, data):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(small(), method)(data[0])


# Attention of [CLS]


def test_cls_attention_finds_the_bump():
    X, y = bumps(n=200)
    X[y == 1, :, 0] = X[y == 1, :, 1]  # the sequences of class 1 have no bump
    clf = small(max_epochs=30, embedding="linear", augment=False).fit(X, y)
    with_bump = X[y == 0]
    attention = clf.cls_attention(with_bump)
    assert attention.shape == (100, 2, 2, 20)
    assert np.allclose(attention.sum(-1), 1, atol=1e-5)
    is_bump = with_bump[:, :, 0] > 2
    attention_to_bump = (attention[:, -1].mean(1) * is_bump).sum(1).mean()
    assert attention_to_bump > 2 * is_bump.mean()


def test_cls_attention_has_one_column_per_step_of_the_array(fitted):
    X = np.full((3, 30, 2), np.nan)
    X[:, :11] = 0
    assert fitted.cls_attention(X).shape[-1] == 30
    assert fitted.cls_attention(X[:, :12]).shape[-1] == 12


def test_cls_attention_is_zero_after_the_end_of_a_sequence(data):
    clf = small(patch_size=3, max_epochs=2).fit(*data)
    attention = clf.cls_attention([np.zeros((5, 2)), np.zeros((11, 2))])
    assert attention.shape == (2, 2, 2, 11)
    assert np.allclose(attention.sum(-1), 1, atol=1e-5)
    assert (attention[0, :, :, 5:] == 0).all()
    assert (attention[1] > 0).all()


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_cls_attention_raises_without_a_token(pooling, data):
    clf = small(pooling=pooling, max_epochs=1).fit(*data)
    message = f"pooling='{pooling}' does not have; fit with pooling='cls' or 'attention'"
    with pytest.raises(ValueError, match=message):
        clf.cls_attention(data[0])


# Attributes, labels and names


def test_attributes_describe_the_fit(fitted):
    assert fitted.classes_.tolist() == [0, 1]
    assert fitted.n_features_in_ == 2
    assert fitted.n_iter_ == len(fitted.loss_curve_) == 8
    assert fitted.loss_curve_ == fitted.history_["train_loss"]
    assert fitted.loss_curve_[-1] < fitted.loss_curve_[0]
    assert isinstance(fitted.module_, torch.nn.Module)
    assert fitted.device_ == torch.device("cpu")
    assert type(fitted.net_).__mro__[1].__module__.startswith("skorch")
    assert not hasattr(small(), "n_iter_")


@pytest.mark.parametrize("labels", [["b", "a"], [True, False], [7, -3], [2.0, 5.0]], ids=str)
def test_predicted_labels_match_the_labels_in_y(labels, data):
    y = np.array(labels)[data[1]]
    clf = small(max_epochs=1).fit(data[0], y)
    assert clf.classes_.dtype == y.dtype
    assert clf.classes_.tolist() == sorted(labels)
    assert set(clf.predict(data[0])) <= set(labels)


def test_column_names_are_stored_and_embeddings_have_names(data):
    frame = pd.DataFrame(data[0][:, :, 0], columns=[f"t{i}" for i in range(20)])
    clf = small(max_epochs=1).fit(frame, data[1])
    assert clf.feature_names_in_.tolist() == list(frame.columns)
    names = [f"clstransformerclassifier{i}" for i in range(16)]
    assert clf.get_feature_names_out().tolist() == names
    with pytest.raises(ValueError, match="feature names should match"):
        clf.predict(frame.rename(columns={"t0": "other"}))
    clf.fit(*data)
    assert not hasattr(clf, "feature_names_in_")


def test_set_output_returns_data_frames(fitted, data):
    expected = fitted.transform(data[0])
    clf = copy.deepcopy(fitted)
    for library, kind in (("pandas", pd.DataFrame), ("polars", pl.DataFrame)):
        frame = clf.set_output(transform=library).transform(data[0])
        assert isinstance(frame, kind)
        assert list(frame.columns) == clf.get_feature_names_out().tolist()
        assert np.array_equal(frame.to_numpy(), expected)


def test_a_fitted_estimator_keeps_neither_data_nor_callbacks_nor_the_optimizer(data):
    clf = small(early_stopping=True, max_epochs=2).fit(*data)
    net = vars(clf.net_)
    assert net["train_split"] is None
    assert not net["callbacks"]
    assert not net["callbacks_"]
    assert not net["history_"]
    assert not {"optimizer_", "schedule_", "train_batches_"} & set(net)


# Random numbers and threads


def test_logarithms_of_probabilities_are_finite_where_the_probabilities_are_0(data):
    X, y = data
    clf = small(label_smoothing=0, max_epochs=20).fit(X, y)
    assert np.allclose(np.exp(clf.predict_log_proba(X)), clf.predict_proba(X), atol=1e-6)
    with torch.no_grad():
        clf.module_.head.weight *= 1e4
    assert (clf.predict_proba(X) == 0).any()
    assert np.isfinite(clf.predict_log_proba(X)).all()


def test_probabilities_depend_on_random_state_only(data):
    probabilities = []
    for random_state in (3, 3, 4):
        torch.manual_seed(len(probabilities))  # the global generator does not matter
        clf = small(random_state=random_state, max_epochs=2).fit(*data)
        probabilities.append(clf.predict_proba(data[0]))
    assert np.array_equal(probabilities[0], probabilities[1])
    assert not np.array_equal(probabilities[0], probabilities[2])


def test_a_random_state_instance_advances(data):
    rng = np.random.RandomState(0)
    first, second = (small(random_state=rng, max_epochs=1).fit(*data) for _ in range(2))
    assert not np.array_equal(first.predict_proba(data[0]), second.predict_proba(data[0]))


@pytest.mark.parametrize("random_state", [None, 0])
def test_fit_does_not_change_the_generators_and_threads_of_the_caller(random_state, data):
    torch.set_num_threads(2)
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002 - the legacy one is the global one
    torch_state = torch.get_rng_state()
    clf = small(random_state=random_state, n_jobs=1, cls_strategy="random", max_epochs=2)
    clf.fit(*data).predict(data[0])
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert torch.get_num_threads() == 2
    assert torch.get_default_dtype() == torch.float32


def test_all_strategies_start_from_the_same_weights(data):
    weights = []
    for strategy in STRATEGIES:
        clf = small(cls_strategy=strategy, lr=1e-30, max_epochs=1).fit(*data)
        weights.append({k: v for k, v in clf.module_.state_dict().items() if "token" not in k})
    for other in weights[1:]:
        for name in ("blocks.0.qkv.weight", "head.weight", "embedding.project.weight"):
            assert torch.equal(weights[0][name], other[name])


# Weights


def test_sample_and_class_weights_shift_the_predicted_probabilities(data):
    X, y = data
    noise = np.random.default_rng(0).normal(size=X.shape)  # only the prior can be learned
    plain = small(max_epochs=4).fit(noise, y).predict_proba(noise).mean(0)
    weighted = small(max_epochs=4).fit(noise, y, np.where(y == 1, 9.0, 1.0))
    by_class = small(max_epochs=4, class_weight={0: 1, 1: 9}).fit(noise, y)
    assert weighted.predict_proba(noise).mean(0)[1] > plain[1] + 0.2
    assert np.array_equal(weighted.predict_proba(noise), by_class.predict_proba(noise))


def test_balanced_class_weights_are_inversely_proportional_to_the_frequencies():
    X, y = bumps(n=100)
    y[::4] = 1
    noise = np.random.default_rng(0).normal(size=X.shape)
    balanced = small(max_epochs=4, class_weight="balanced").fit(noise, y)
    frequency = (y == 1).mean()
    weights = np.where(y == 1, 1 / frequency, 1 / (1 - frequency))
    weighted = small(max_epochs=4).fit(noise, y, weights)
    assert np.allclose(balanced.predict_proba(noise), weighted.predict_proba(noise), atol=1e-4)


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_a_sequence_with_weight_0_has_no_influence(class_weight, data):
    X, y = data
    keep = np.arange(60) % 3 > 0
    extreme = X.copy()
    extreme[~keep] = 1e6  # would change the statistics of the standardization
    extreme[~keep, 3] = np.nan  # would add missing-value indicators to the network
    clf = small(class_weight=class_weight)
    expected = clf.fit(X[keep], y[keep]).predict_proba(X)
    clf.fit(extreme, y, keep.astype(float))
    assert np.allclose(clf.predict_proba(X), expected, atol=1e-5)


# Early stopping


def test_early_stopping_restores_the_best_epoch():
    weights = []
    hook = Hook(
        on_epoch_end=lambda net, **_: weights.append(copy.deepcopy(net.module_.state_dict()))
    )
    clf = small(
        early_stopping=True, n_iter_no_change=3, max_epochs=200, lr=2e-2, callbacks=[hook]
    ).fit(*bumps(n=80))
    best = int(np.argmin(clf.history_["valid_loss"]))
    assert clf.n_iter_ == best + 4 < 200
    for name, value in clf.module_.state_dict().items():
        assert torch.equal(value, weights[best][name])


def test_early_stopping_holds_out_a_stratified_validation_set():
    X, y = bumps(n=100)
    y[:90] = 0
    seen = []

    def record(net, dataset_train, dataset_valid, **kwargs):
        seen.append((dataset_train, dataset_valid))

    hook = Hook(on_epoch_begin=record)
    small(early_stopping=True, validation_fraction=0.2, max_epochs=1, callbacks=[hook]).fit(X, y)
    ((train, valid),) = seen
    assert np.bincount(y[valid.indices]).tolist() == [19, 1]
    assert sorted([*train.indices, *valid.indices]) == list(range(100))


@pytest.mark.parametrize("seed", range(4))
def test_learned_positions_cover_the_validation_set(seed, data):
    X = [x[:10] for x in data[0]]
    X[0] = data[0][0]  # in the training set for some seeds, in the validation set for others
    clf = small(
        positions="learned", early_stopping=True, validation_fraction=0.5, random_state=seed,
        max_epochs=1,
    ).fit(X, data[1])  # fmt: skip
    assert clf.module_.embedding.position.shape == (20, 16)


# Warm start and partial_fit


def test_warm_start_continues_from_the_weights(data):
    clf = small(warm_start=True, max_epochs=6).fit(*data)
    first_loss = clf.loss_curve_[0]
    clf.fit(*data)
    assert clf.loss_curve_[0] < first_loss - 0.05
    assert clf.n_iter_ == 6
    clf.set_params(warm_start=False).fit(*data)
    assert clf.loss_curve_[0] == first_loss


@pytest.mark.parametrize(
    ("change", "X", "y", "message"),
    [
        ({"depth": 3}, None, None, "depth=3, but the fitted network has 2; .* warm_start=False"),
        ({"patch_size": 4}, None, None, "patch_size=4, but the fitted network has 1; restore "),
        ({}, np.zeros((60, 20, 3)), None, "X has 3 features, but .* expecting 2 features"),
        ({}, None, np.zeros(60, int), "Only 1 class of y has positive weight"),
        (
            {}, None, np.arange(60) % 3,
            r"y has classes \[2\], but the classes .* are \[0, 1\]; .* fit with warm_start=False",
        ),
    ],
)  # fmt: skip
def test_warm_start_raises_if_the_network_does_not_match(change, X, y, message, fitted, data):
    clf = copy.deepcopy(fitted).set_params(warm_start=True, **change)
    with pytest.raises(ValueError, match=message):
        clf.fit(data[0] if X is None else X, data[1] if y is None else y)
    assert np.array_equal(clf.predict_proba(data[0]), fitted.predict_proba(data[0]))


def test_partial_fit_learns_from_parts_of_the_data():
    X, y = bumps(n=120)
    clf = small(lr=1e-2)
    for _ in range(8):
        for part in (slice(0, 60), slice(60, 120)):
            clf.partial_fit(X[part], y[part], classes=[0, 1])
    assert clf.score(*bumps(seed=1)) > 0.9
    assert clf.n_iter_ == 1


def test_partial_fit_knows_all_classes_from_the_first_call(data):
    X, y = data
    clf = small().partial_fit(X[y == 0], y[y == 0], classes=[0, 1, 2])
    assert clf.classes_.tolist() == [0, 1, 2]
    assert clf.predict_proba(X).shape == (60, 3)
    clf.partial_fit(X, y)
    with pytest.raises(ValueError, match=r"y has classes \[5\]"):
        clf.partial_fit(X, np.where(y == 1, 5, 0))
    with pytest.raises(ValueError, match=r"classes=\[0, 1\] differ"):
        clf.partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match="Only 1 class of y"):
        small().partial_fit(X[y == 0], y[y == 0])


@pytest.mark.parametrize("classes", [[[0], [0, 1]], np.eye(2), [np.nan, 1.0], [{1}, {2}], 3])
@pytest.mark.parametrize("is_first", [True, False])
def test_partial_fit_raises_for_invalid_classes(classes, is_first, fitted, data):
    clf = small() if is_first else copy.deepcopy(fitted)
    with pytest.raises((ValueError, TypeError), match=r"\bclasses\b"):
        clf.partial_fit(*data, classes=classes)


def test_partial_fit_does_not_rescale_weights(data):
    X, y = data
    clf = small().partial_fit(X, y)
    X, y = X[y == 1], y[y == 1]
    no_weight = copy.deepcopy(clf).partial_fit(X, y, sample_weight=np.full(30, 1e-9))
    full = copy.deepcopy(clf).partial_fit(X, y)
    assert np.abs(no_weight.predict_proba(X) - full.predict_proba(X)).max() > 0.01


def test_partial_fit_with_class_weights_needs_a_positive_weight_in_each_part(data):
    X, y = data
    clf = small(class_weight={1: 1e-9}).partial_fit(X, y, classes=[0, 1])
    assert np.isfinite(clf.partial_fit(X[y == 0], y[y == 0]).predict_proba(X)).all()
    with pytest.raises(ValueError, match="No class of y has positive weight"):
        clf.set_params(class_weight={1: 0}).partial_fit(X[y == 1], y[y == 1])
    with pytest.raises(ValueError, match=r"class_weight='balanced' needs .*; pass a dict"):
        small(class_weight="balanced").partial_fit(X, y)


# Errors


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"cls_strategy": "lerned"}, "'cls_strategy' .* must be a str among .*'learned'"),
        ({"pooling": "sum"}, "'pooling' .* must be a str among .*'attention'"),
        ({"depth": 0}, r"'depth' .* must be an int in the range \[1, inf\)"),
        ({"d_model": 2.5}, "'d_model' .* must be an int"),
        ({"n_heads": -1}, "'n_heads' .* must be an int"),
        ({"dim_feedforward": "64"}, "'dim_feedforward' .* must be an int"),
        ({"dropout": 1.0}, r"'dropout' .* in the range \[0.0, 1.0\)"),
        ({"embedding": "fourier"}, "'embedding' .* must be a str among"),
        ({"patch_size": 0}, "'patch_size' .* must be an int .* or a str among {'auto'}"),
        ({"positions": "alibi"}, "'positions' .* must be a str among .* or None"),
        ({"standardize": "yes"}, "'standardize' .* must be an instance of 'bool'"),
        ({"max_epochs": 0}, "'max_epochs' .* must be an int"),
        ({"batch_size": "big"}, "'batch_size' .* must be an int"),
        ({"lr": 0}, r"'lr' .* in the range \(0.0, inf\)"),
        ({"weight_decay": -0.1}, "'weight_decay' .* must be a float"),
        ({"label_smoothing": 1}, "'label_smoothing' .* must be a float"),
        ({"augment": 2}, "'augment' .* must be an instance of 'bool'"),
        ({"class_weight": "even"}, "'class_weight' .* must be a str among {'balanced'}"),
        ({"early_stopping": 1.5}, "'early_stopping' .* must be an instance of 'bool'"),
        ({"validation_fraction": 0}, "'validation_fraction' .* must be a float"),
        ({"n_iter_no_change": 0}, "'n_iter_no_change' .* must be an int"),
        ({"warm_start": None}, "'warm_start' .* must be an instance of 'bool'"),
        ({"device": 3}, "'device' .* must be an instance of 'str'"),
        ({"device": "gpu"}, "device must be 'auto', 'cpu', 'cuda'.*got 'gpu'"),
        ({"device": "meta"}, "device must be 'auto', 'cpu', 'cuda'.*got 'meta'"),
        ({"device": "cuda:99"}, "device='cuda:99' is not available.* set device='auto'"),
        ({"precision": "float16"}, "'precision' .* must be a str among .*'bfloat16'"),
        ({"n_jobs": 0}, "'n_jobs' .* must be an int"),
        ({"callbacks": "all"}, "'callbacks' .* must be an instance of 'list'"),
        ({"random_state": "x"}, "'random_state' .* must be"),
        ({"verbose": "loud"}, "'verbose' .* must be"),
        ({"d_model": 30, "n_heads": 4}, "got d_model=30 and n_heads=4; .* is d_model=32"),
        ({"d_model": 6, "n_heads": 2, "positions": "rope"}, "must be even, got d_model=6"),
    ],
    ids=str,
)
def test_fit_raises_for_invalid_parameters_before_it_reads_the_data(params, message):
    clf = small(**params)
    with pytest.raises(ValueError, match=message):
        clf.fit("no data", None)
    assert not [name for name in vars(clf) if name.endswith("_")]


@pytest.mark.parametrize("value", [np.uint8(2), np.int16(2), True])
def test_parameters_may_be_integers_of_any_type(value, data):
    X, y = data[0][:8], data[1][:8]
    names = ("n_heads", "depth", "patch_size", "batch_size", "max_epochs")
    clf = small(**dict.fromkeys(names, value)).fit(X, y)
    expected = small(**dict.fromkeys(names, int(value))).fit(X, y).predict_proba(X)
    assert np.array_equal(clf.predict_proba(X), expected)


def test_device_may_be_a_torch_device(data):
    assert small(device=torch.device("cpu"), max_epochs=1).fit(*data).device_.type == "cpu"


@pytest.mark.parametrize(
    ("y", "weight", "class_weight", "message"),
    [
        (None, None, None, "requires y to be passed, but the target y is None"),
        (np.zeros(59), None, None, r"inconsistent numbers of samples: \[60, 59\]"),
        (np.zeros(60), None, None, "Only 1 class of y has positive weight"),
        (np.linspace(0, 1, 60), None, None, "Unknown label type: continuous"),
        ("y", np.full(60, -1.0), None, "Negative values .* `sample_weight`"),
        ("y", np.ones(59), None, "sample_weight.shape"),
        ("y", np.arange(60) % 2 == 0, None, "Only 1 class of y has positive weight"),
        ("y", None, {0: 1, "a": 2}, r"class_weight has classes \['a'\], .* classes \[0, 1\]"),
        ("y", None, {0: 1, 1: -2}, r"class_weight values must be finite .* got -2 for class 1"),
    ],
)
def test_fit_raises_for_invalid_targets_and_weights(y, weight, class_weight, message, data):
    clf = small(class_weight=class_weight)
    with pytest.raises(ValueError, match=message):
        clf.fit(data[0], data[1] if isinstance(y, str) else y, weight)


def test_early_stopping_needs_two_sequences_of_each_class():
    X, y = bumps(n=10)
    y[0] = 2
    with pytest.raises(ValueError, match=r"early_stopping=True cannot hold out .* class has 1"):
        small(early_stopping=True).fit(X, y)


FAILURES = {
    "X": (np.full((60, 20, 2), np.inf), "y", {}, r"X\[0\] contains infinity"),
    "y": (np.zeros((60, 20, 2)), np.linspace(0, 1, 60), {}, "Unknown label type"),
    "feature names": (
        pd.DataFrame(np.zeros((60, 7))).add_prefix("t"), np.zeros(60), {},
        r"Only 1 class of y|X has shape \(60, 7\)",
    ),
    "parameter": (np.zeros((60, 20, 2)), "y", {"lr": -1}, "'lr' parameter"),
    "loss": (
        bumps()[0], "y", {"lr": 1e30, "max_epochs": 30},
        r"(loss became (nan|inf)|weight became .*) in epoch \d+; lower lr \(now 1e\+30\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_failed_fit_leaves_the_estimator_unchanged(method, failure, fitted, data):
    X, y, params, message = FAILURES[failure]
    clf = copy.deepcopy(fitted)
    attributes = sorted(vars(clf))
    clf.set_params(**params)
    with pytest.raises(ValueError, match=message):
        getattr(clf, method)(X, data[1] if isinstance(y, str) else y)
    assert sorted(vars(clf)) == attributes
    assert clf.n_features_in_ == 2
    assert np.array_equal(clf.predict_proba(data[0]), fitted.predict_proba(data[0]))


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_the_estimator_is_unchanged_until_the_end_of_a_fit(method, data):
    X, y = data
    clf = small(max_epochs=1, warm_start=method == "partial_fit").fit(X, y)
    expected, seen = clf.predict_proba(X), []

    def record(net, **kwargs):
        seen.append((clf._fitted, clf.predict_proba(X)))

    hook = Hook(**dict.fromkeys(["on_train_begin", "on_batch_end", "on_train_end"], record))
    before = clf.set_params(callbacks=[hook])._fitted
    labels = y if method == "partial_fit" else np.array(["late", "early"])[y]
    getattr(clf, method)(X, labels)
    assert clf._fitted is not before
    assert not np.array_equal(clf.predict_proba(X), expected)
    assert len(seen) == 6
    for fitted, probabilities in seen:
        assert fitted is before
        assert np.array_equal(probabilities, expected)


def test_fitted_attributes_do_not_exist_before_the_fit(fitted):
    names = [name for name in dir(type(fitted)) if name.endswith("_") and not name.startswith("_")]
    assert len(names) == 9
    assert not [name for name in names if hasattr(small(), name)]
    assert [name for name in names if not hasattr(fitted, name)] == ["feature_names_in_"]
    with pytest.raises(NotFittedError, match="not fitted yet"):
        _ = small().classes_


def test_valid_data_give_no_warning(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small(max_epochs=1).fit(*data).predict(data[0])
        small(max_epochs=1, early_stopping=True).fit([x[:5] for x in data[0]], data[1])


# Pickles and other processes


def test_the_size_of_a_pickle_is_that_of_the_weights():
    X = np.random.default_rng(0).normal(size=(200, 500, 8)).astype(np.float32)  # 3.2 MB
    params = {"max_epochs": 1, "patch_size": 50, "random_state": 0}
    for early_stopping in (False, True):
        clf = CLSTransformerClassifier(early_stopping=early_stopping, **params)
        clf.fit(X, np.arange(200) % 3)
        n_bytes = sum(p.numel() * p.element_size() for p in clf.module_.parameters())
        assert n_bytes > 200_000
        assert n_bytes < len(pickle.dumps(clf)) < 1.2 * n_bytes + 20_000


def test_an_epoch_adds_less_than_100_bytes_to_a_pickle(data):
    params = {"batch_size": 2, "embedding": "linear", "depth": 1, "early_stopping": True}
    sizes = {
        n: len(pickle.dumps(small(**params, max_epochs=n, n_iter_no_change=99).fit(*data)))
        for n in (2, 12)
    }
    assert 0 < sizes[12] - sizes[2] < 10 * 100


def test_a_loaded_model_can_be_trained_further(tmp_path, fitted, data):
    joblib.dump(copy.deepcopy(fitted).set_params(warm_start=True), tmp_path / "model.joblib")
    loaded = joblib.load(tmp_path / "model.joblib", mmap_mode="r")  # the weights are read-only
    assert loaded.fit(*data).loss_curve_[0] < fitted.loss_curve_[0]
    assert loaded.partial_fit(*data).score(*data) > 0.8


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_model_from_cuda_loads_on_the_cpu_with_a_warning(fitted, data):
    clf = copy.deepcopy(fitted)
    clf.net_.device = "cuda:0"  # as if it had been trained there
    pickled = pickle.dumps(clf)
    message = r"trained on device='cuda:0', .* set_params\(device='cpu'\)"
    with pytest.warns(UserWarning, match=message):
        loaded = pickle.loads(pickled)
    assert loaded.device_ == torch.device("cpu")
    assert np.array_equal(loaded.predict_proba(data[0]), fitted.predict_proba(data[0]))


def test_a_memory_map_gives_the_same_model_as_an_array(tmp_path, fitted, data):
    np.save(tmp_path / "X.npy", data[0])
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    probabilities = small().fit(mapped, data[1]).predict_proba(mapped)
    assert np.array_equal(probabilities, fitted.predict_proba(data[0]))


NEW_PROCESS = """
import json, sys, threading
import sklearn_cls
imported = {"matplotlib", "skorch", "sklearn.model_selection", "torch._dynamo"} & set(sys.modules)
import joblib, torch
torch.set_num_threads(1)
from tests.helpers import bumps, small
X, y = bumps()
loaded = joblib.load(sys.argv[1])
clf = small(dropout=0.3, cls_strategy="random").fit(X, y)
print(json.dumps({
    "imported": sorted(imported),
    "threads": [thread.name for thread in threading.enumerate()],
    "loaded": loaded.predict_proba(X).tobytes().hex(),
    "fitted": clf.predict_proba(X).tobytes().hex(),
}))
"""


@pytest.fixture(scope="module")
def new_process(fitted, tmp_path_factory):
    """Return the report of a new process that imports the package, loads a model and fits one."""
    path = tmp_path_factory.mktemp("model") / "model.joblib"
    joblib.dump(fitted, path)
    command = [sys.executable, "-W", "error", "-c", NEW_PROCESS, path]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def test_importing_the_package_imports_no_slow_packages(new_process):
    assert new_process["imported"] == []


def test_a_hidden_progress_bar_starts_no_thread(new_process):
    assert new_process["threads"] == ["MainThread"]


def test_a_loaded_model_is_bitwise_identical_in_a_new_process(new_process, fitted, data):
    assert new_process["loaded"] == fitted.predict_proba(data[0]).tobytes().hex()


def test_a_fit_in_a_new_process_is_bitwise_identical(new_process, data):
    clf = small(dropout=0.3, cls_strategy="random").fit(*data)
    assert new_process["fitted"] == clf.predict_proba(data[0]).tobytes().hex()


# Signature


def test_documented_defaults_match_the_signature():
    doc = inspect.getdoc(CLSTransformerClassifier)
    for name, parameter in inspect.signature(CLSTransformerClassifier).parameters.items():
        assert parameter.kind is parameter.KEYWORD_ONLY
        (documented,) = re.findall(rf"^{name} : .*default=(.*)$", doc, re.MULTILINE)
        assert ast.literal_eval(documented) == parameter.default


def test_every_parameter_is_validated():
    names = set(inspect.signature(CLSTransformerClassifier).parameters)
    assert names == set(CLSTransformerClassifier._parameter_constraints)
    assert names == set(CLSTransformerClassifier().get_params())
