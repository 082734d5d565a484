import ast
import copy
import inspect
import re
import subprocess
import sys
import warnings
from fractions import Fraction

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback

from sklearn_cls import CLSTransformerClassifier
from tests.helpers import bumps, small

STRATEGIES = ["learned", "zeros", "fixed", "random"]
POOLINGS = ["mean", "max", "attention"]


@pytest.mark.parametrize(
    "params",
    [{"cls_strategy": s} for s in STRATEGIES]
    + [{"pooling": p} for p in POOLINGS]
    + [{"positions": p} for p in ("learned", "rope")]
    + [{"embedding": "linear"}, {"patch_size": 5}, {"standardize": False}, {"activation": "silu"}],
    ids=str,
)
def test_every_variant_learns_where_the_bump_is(params, data):
    clf = small(**{"max_epochs": 25, **params}).fit(*data)
    assert clf.score(*bumps(seed=1)) > 0.9


def test_defaults_need_no_tuning_and_no_preprocessing(data):
    X, y = data
    shifted = X * [1e-3, 1e4] + [50, -1e5]  # raw sensors
    clf = CLSTransformerClassifier(random_state=0, max_epochs=30).fit(shifted, y)
    X_test, y_test = bumps(seed=1)
    assert clf.score(X_test * [1e-3, 1e4] + [50, -1e5], y_test) > 0.95


def test_sequences_whose_scales_differ_by_orders_of_magnitude_are_learnt_from(data):
    X, y = data
    X = X * np.logspace(-4, 2, len(X))[np.random.default_rng(0).permutation(60), None, None]
    clf = small(max_epochs=30).fit(X, y)
    assert clf.score(X, y) > 0.9
    assert clf.module_.embedding.use_instance_norm
    assert small(max_epochs=30, standardize=False).fit(X, y).score(X, y) < 0.9


def test_unequal_lengths_gaps_and_padding_are_learnt_from(data):
    rng = np.random.default_rng(0)

    def cut(X):
        return [np.where(rng.random(x.shape) < 0.05, np.nan, x)[: rng.integers(16, 21)] for x in X]

    X_test, y_test = bumps(seed=1)
    clf = small(max_epochs=25).fit(cut(data[0]), data[1])
    assert clf.score(cut(X_test), y_test) > 0.9


def test_what_a_sequence_is_padded_with_or_batched_with_changes_nothing(fitted, data):
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


def test_sequences_may_be_longer_than_in_fit(fitted, data):
    longer = np.concatenate([data[0], np.zeros((60, 40, 2), np.float32)], axis=1)
    assert (fitted.predict(longer) == data[1]).mean() > 0.7
    with pytest.raises(ValueError, match=r"60 steps, but positions='learned' .*first 20 only"):
        small(positions="learned").fit(*data).predict(longer)


def test_probabilities_are_float32_and_sum_to_1(fitted, data):
    p = fitted.predict_proba(data[0])
    assert p.dtype == np.float32
    assert p.shape == (60, 2)
    assert np.allclose(p.sum(1), 1, atol=1e-6)
    assert np.array_equal(fitted.predict(data[0]), fitted.classes_[p.argmax(1)])


def test_transform_is_what_the_last_layer_classifies(fitted, data):
    z = fitted.transform(data[0])
    assert z.shape == (60, 16)
    assert z.dtype == np.float32
    logits = fitted.module_.head(torch.from_numpy(z))
    expected = logits.softmax(-1).detach().numpy()
    assert np.allclose(expected, fitted.predict_proba(data[0]), atol=1e-6)
    fit_transformed = clone(fitted).fit_transform(*data)
    assert np.array_equal(fit_transformed, z)


def test_without_positions_the_order_of_steps_says_nothing(data):
    clf = small(positions=None, embedding="linear").fit(*data)
    X = data[0]
    assert np.allclose(clf.predict_proba(X), clf.predict_proba(X[:, ::-1]), atol=1e-5)


def test_cls_attention_finds_the_bump():
    X, late = bumps(n=200)
    X[late == 1, :, 0] = X[late == 1, :, 1]  # no bump: whether there is one decides
    clf = small(max_epochs=30, embedding="linear", augment=False).fit(X, late)
    attention = clf.cls_attention(X[late == 0])
    assert attention.shape == (100, 2, 2, 20)
    assert np.allclose(attention.sum(-1), 1, atol=1e-5)
    bump = X[late == 0][:, :, 0] > 2
    share = (attention[:, -1].mean(1) * bump).sum(1).mean()
    assert share > 2 * bump.mean()


def test_cls_attention_has_the_steps_of_the_array(fitted):
    Z = np.full((3, 30, 2), np.nan)
    Z[:, :11] = 0
    assert fitted.cls_attention(Z).shape[-1] == 30
    assert fitted.cls_attention(Z[:, :12]).shape[-1] == 12


def test_cls_attention_of_unequal_lengths_ends_where_the_sequence_does(data):
    clf = small(patch_size=3).fit(*data)
    attention = clf.cls_attention([np.zeros((5, 2)), np.zeros((11, 2))])
    assert attention.shape == (2, 2, 2, 11)
    assert np.allclose(attention.sum(-1), 1, atol=1e-5)
    assert (attention[0, :, :, 5:] == 0).all()
    assert (attention[1] > 0).all()


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_cls_attention_needs_a_token(pooling, data):
    clf = small(pooling=pooling, max_epochs=1).fit(*data)
    with pytest.raises(ValueError, match=f"pooling='{pooling}' has none; fit with pooling='cls'"):
        clf.cls_attention(data[0])


def test_attributes_tell_what_was_fitted(fitted, data):
    assert fitted.classes_.tolist() == [0, 1]
    assert fitted.n_features_in_ == 2
    assert fitted.n_iter_ == len(fitted.history_) == len(fitted.loss_curve_) == 8
    assert fitted.loss_curve_[-1] < fitted.loss_curve_[0]
    assert fitted.loss_curve_ == [row["train_loss"] for row in fitted.history_]
    assert {"train_loss", "lr", "dur"} <= set(fitted.history_[0])
    assert isinstance(fitted.module_, torch.nn.Module)
    assert fitted.device_ == torch.device("cpu")
    assert type(fitted.net_).__mro__[1].__module__.startswith("skorch")
    assert not hasattr(small(), "n_iter_")


@pytest.mark.parametrize(
    "labels", [["b", "a"], [True, False], [7, -3], [2.0, 5.0], [b"b", b"a"]], ids=str
)
def test_labels_of_every_kind_come_back(labels, data):
    y = np.array(labels)[data[1]]
    clf = small(max_epochs=1).fit(data[0], y)
    assert clf.classes_.dtype == y.dtype
    assert set(clf.predict(data[0])) <= set(labels)
    assert clf.classes_.tolist() == sorted(labels)


def test_column_names_are_remembered_and_features_named(data):
    frame = pd.DataFrame(data[0][:, :, 0], columns=[f"t{i}" for i in range(20)])
    clf = small(max_epochs=1).fit(frame, data[1])
    assert clf.feature_names_in_.tolist() == list(frame.columns)
    names = [f"clstransformerclassifier{i}" for i in range(16)]
    assert clf.get_feature_names_out().tolist() == names
    with pytest.raises(ValueError, match="feature names should match"):
        clf.predict(frame.rename(columns={"t0": "other"}))
    clf.fit(*data)
    assert not hasattr(clf, "feature_names_in_")


def test_set_output_gives_frames(fitted, data):
    expected = fitted.transform(data[0])
    clf = copy.deepcopy(fitted)
    for library, kind in (("pandas", pd.DataFrame), ("polars", pl.DataFrame)):
        frame = clf.set_output(transform=library).transform(data[0])
        assert isinstance(frame, kind)
        assert list(frame.columns) == clf.get_feature_names_out().tolist()
        assert np.array_equal(frame.to_numpy(), expected)


def test_same_random_state_same_probabilities(data):
    first, second, other = (small(random_state=r).fit(*data) for r in (3, 3, 4))
    assert np.array_equal(first.predict_proba(data[0]), second.predict_proba(data[0]))
    assert not np.array_equal(first.predict_proba(data[0]), other.predict_proba(data[0]))


def test_a_random_state_instance_advances(data):
    rng = np.random.RandomState(0)
    first, second = (small(random_state=rng, max_epochs=1).fit(*data) for _ in range(2))
    assert not np.array_equal(first.predict_proba(data[0]), second.predict_proba(data[0]))


SCRIPT = """
import torch
torch.set_num_threads(1)
from tests.helpers import bumps, small
X, y = bumps()
print(small(dropout=0.3, cls_strategy="random").fit(X, y).predict_proba(X).tobytes().hex())
"""


def test_two_processes_give_bit_equal_probabilities():
    run = [sys.executable, "-c", SCRIPT]
    first, second = (subprocess.run(run, capture_output=True, check=True).stdout for _ in range(2))
    assert len(first) > 100
    assert first == second


@pytest.mark.parametrize("random_state", [None, 0])
def test_the_callers_generators_and_threads_are_as_they_were(random_state, data):
    torch.set_num_threads(2)
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002 - the legacy one is the global one
    torch_state = torch.get_rng_state()
    clf = small(random_state=random_state, n_jobs=1, cls_strategy="random", max_epochs=2)
    clf.fit(*data).predict(data[0])
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert torch.get_num_threads() == 2
    assert torch.get_default_dtype() == torch.float32


def test_the_callers_generator_does_not_matter(data):
    torch.manual_seed(1)
    first = small().fit(*data).predict_proba(data[0])
    torch.manual_seed(2)
    assert np.array_equal(first, small().fit(*data).predict_proba(data[0]))


def test_strategies_start_from_the_same_weights(data):
    weights = []
    for strategy in STRATEGIES:
        clf = small(cls_strategy=strategy, lr=1e-30, max_epochs=1).fit(*data)
        weights.append({k: v for k, v in clf.module_.state_dict().items() if "token" not in k})
    for other in weights[1:]:
        for name in ("blocks.0.qkv.weight", "head.weight", "embedding.project.weight"):
            assert torch.equal(weights[0][name], other[name])


def test_random_strategy_repeats_its_predictions(data):
    clf = small(cls_strategy="random").fit(*data)
    assert np.array_equal(clf.predict_proba(data[0]), clf.predict_proba(data[0]))


def test_weights_move_the_decision(data):
    X, y = data
    noise = np.random.default_rng(0).normal(size=X.shape)  # nothing to learn but the prior
    plain = small(max_epochs=4).fit(noise, y).predict_proba(noise).mean(0)
    weighted = small(max_epochs=4).fit(noise, y, np.where(y == 1, 9.0, 1.0))
    by_class = small(max_epochs=4, class_weight={0: 1, 1: 9}).fit(noise, y)
    assert weighted.predict_proba(noise).mean(0)[1] > plain[1] + 0.2
    assert np.array_equal(weighted.predict_proba(noise), by_class.predict_proba(noise))


def test_partial_fit_takes_weights_as_they_are(data):
    X, y = data
    clf = small().partial_fit(X, y)
    half = copy.deepcopy(clf).partial_fit(X[y == 1], y[y == 1], sample_weight=np.full(30, 1e-9))
    full = copy.deepcopy(clf).partial_fit(X[y == 1], y[y == 1])
    by_class = small(class_weight={1: 1e-9}).partial_fit(X, y, classes=[0, 1])
    assert np.abs(half.predict_proba(X) - full.predict_proba(X)).max() > 0.01
    assert np.isfinite(by_class.partial_fit(X[y == 0], y[y == 0]).predict_proba(X)).all()
    with pytest.raises(ValueError, match="y has no classes of positive weight"):
        by_class.set_params(class_weight={1: 0}).partial_fit(X[y == 1], y[y == 1])
    with pytest.raises(ValueError, match="class_weight='balanced' needs all sequences at once"):
        small(class_weight="balanced").partial_fit(X, y)


def test_balanced_weights_undo_an_imbalance():
    X, y = bumps(n=100)
    y[::4] = 1
    noise = np.random.default_rng(0).normal(size=X.shape)
    balanced = small(max_epochs=4, class_weight="balanced").fit(noise, y)
    share = (y == 1).mean()
    weights = np.where(y == 1, 1 / share, 1 / (1 - share))
    weighted = small(max_epochs=4).fit(noise, y, weights)
    assert np.allclose(balanced.predict_proba(noise), weighted.predict_proba(noise), atol=1e-4)


def test_a_sequence_of_weight_0_is_as_if_it_were_not_there(data):
    X, y = data
    keep = np.arange(60) % 3 > 0
    weights = keep.astype(float)
    spoilt = X.copy()
    spoilt[~keep] = 1e6  # would spoil the standardisation too
    spoilt[~keep, 3] = np.nan  # and would be told to the network
    for class_weight in (None, "balanced"):
        clf = small(class_weight=class_weight)
        left_out = clf.fit(X[keep], y[keep]).predict_proba(X)
        assert np.allclose(clf.fit(spoilt, y, weights).predict_proba(X), left_out, atol=1e-5)


def test_early_stopping_restores_the_best_epoch(data):
    weights = []

    class Watch(Callback):
        def on_epoch_end(self, net, **kwargs):
            weights.append(copy.deepcopy(net.module_.state_dict()))

    clf = small(
        early_stopping=True, n_iter_no_change=3, max_epochs=200, lr=2e-2, callbacks=[Watch()]
    ).fit(*bumps(n=80))
    losses = [row["valid_loss"] for row in clf.history_]
    best = int(np.argmin(losses))
    assert clf.n_iter_ == len(losses) == best + 4 < 200
    for name, value in clf.module_.state_dict().items():
        assert torch.equal(value, weights[best][name])


def test_early_stopping_holds_out_its_fraction_by_class():
    X, y = bumps(n=100)
    y[:90] = 0
    seen = []

    class Watch(Callback):
        def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
            seen.append((dataset_train, dataset_valid))

    small(early_stopping=True, validation_fraction=0.2, max_epochs=1, callbacks=[Watch()]).fit(X, y)
    ((train, valid),) = seen
    assert len(valid) == 20
    assert np.bincount(y[valid.rows]).tolist() == [19, 1]
    assert not set(train.rows) & set(valid.rows)
    assert len(train) == 80


@pytest.mark.parametrize("seed", range(4))
def test_learned_positions_reach_a_held_out_sequence(seed, data):
    X = [x[:10] for x in data[0]]
    X[0] = data[0][0]
    clf = small(
        positions="learned", early_stopping=True, validation_fraction=0.5, random_state=seed,
        max_epochs=1,
    ).fit(X, data[1])  # fmt: skip
    assert clf.module_.embedding.position.shape == (20, 16)


def test_early_stopping_needs_two_of_each_class():
    X, y = bumps(n=10)
    y[0] = 2
    with pytest.raises(ValueError, match=r"early_stopping=True can't hold out .*least populated"):
        small(early_stopping=True).fit(X, y)


def test_warm_start_goes_on_from_the_weights(data):
    X, y = data
    clf = small(warm_start=True, max_epochs=6).fit(X, y)
    first_loss = clf.loss_curve_[0]
    clf.fit(X, y)
    assert clf.loss_curve_[0] < first_loss - 0.05
    assert clf.n_iter_ == 6
    cold = small(max_epochs=6).fit(X, y)
    cold.fit(X, y)
    assert cold.loss_curve_[0] == first_loss


@pytest.mark.parametrize(
    ("change", "X", "y", "message"),
    [
        ({"depth": 3}, None, None, "depth=3, but the network to go on from has 2"),
        ({"patch_size": 4}, None, None, "patch_size=4, but the network to go on from has 1"),
        ({}, np.zeros((60, 20, 3)), None, "X has 3 features, but .* expecting 2 features"),
        ({}, None, np.zeros(60, int), "y has 1 class of positive weight"),
        ({}, None, np.arange(60) % 3, r"y has classes \[2\], but .* goes on with \[0, 1\]"),
    ],
)
def test_warm_start_says_what_does_not_fit(change, X, y, message, data):
    clf = small(warm_start=True, max_epochs=1).fit(*data)
    before = clf.predict_proba(data[0])
    with pytest.raises(ValueError, match=message):
        clf.set_params(**change).fit(data[0] if X is None else X, data[1] if y is None else y)
    assert np.array_equal(clf.predict_proba(data[0]), before)


def test_partial_fit_learns_pass_by_pass(data):
    X, y = bumps(n=120)
    clf = small()
    for _ in range(20):
        for part in (slice(0, 60), slice(60, 120)):
            clf.partial_fit(X[part], y[part], classes=[0, 1])
    assert clf.score(*bumps(seed=1)) > 0.9
    assert clf.n_iter_ == 1


def test_partial_fit_knows_classes_its_first_part_lacks(data):
    X, y = data
    clf = small().partial_fit(X[y == 0], y[y == 0], classes=[0, 1, 2])
    assert clf.classes_.tolist() == [0, 1, 2]
    assert clf.predict_proba(X).shape == (60, 3)
    clf.partial_fit(X, y)
    with pytest.raises(ValueError, match=r"y has classes \[5\]"):
        clf.partial_fit(X, np.where(y == 1, 5, 0))
    with pytest.raises(ValueError, match=r"classes=\[0, 1\] differ"):
        clf.partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match="y has 1 class"):
        small().partial_fit(X[y == 0], y[y == 0])


@pytest.mark.parametrize("classes", [[[0], [0, 1]], np.eye(2), [np.nan, 1.0], [{1}, {2}], 3])
@pytest.mark.parametrize("is_first", [True, False])
def test_classes_that_are_none_are_named(classes, is_first, data):
    clf = small() if is_first else small().partial_fit(*data)
    with pytest.raises((ValueError, TypeError), match=r"\bclasses\b"):
        clf.partial_fit(*data, classes=classes)


def test_partial_fit_keeps_the_moments_of_the_optimiser(data):
    clf = small().partial_fit(*data)
    steps = next(iter(clf.net_.optimizer_.state.values()))["step"]
    clf.partial_fit(*data)
    assert next(iter(clf.net_.optimizer_.state.values()))["step"] == 2 * steps


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
        ({"activation": "tanh"}, "'activation' .* must be a str among"),
        ({"embedding": "fourier"}, "'embedding' .* must be a str among"),
        ({"patch_size": 0}, "'patch_size' .* must be an int .* or a str among {'auto'}"),
        ({"positions": "alibi"}, "'positions' .* must be a str among .* or None"),
        ({"standardize": "yes"}, "'standardize' .* must be an instance of 'bool'"),
        ({"max_epochs": 0}, "'max_epochs' .* must be an int"),
        ({"batch_size": "big"}, "'batch_size' .* must be an int"),
        ({"lr": 0}, r"'lr' .* in the range \(0.0, inf\)"),
        ({"weight_decay": -0.1}, "'weight_decay' .* must be a float"),
        ({"warmup_fraction": 1.5}, "'warmup_fraction' .* must be a float"),
        ({"label_smoothing": 1}, "'label_smoothing' .* must be a float"),
        ({"class_weight": "even"}, "'class_weight' .* must be a str among {'balanced'}"),
        ({"early_stopping": 1.5}, "'early_stopping' .* must be an instance of 'bool'"),
        ({"validation_fraction": 0}, "'validation_fraction' .* must be a float"),
        ({"n_iter_no_change": 0}, "'n_iter_no_change' .* must be an int"),
        ({"warm_start": None}, "'warm_start' .* must be an instance of 'bool'"),
        ({"device": 3}, "'device' .* must be an instance of 'str'"),
        ({"device": "gpu"}, "device must be 'auto', 'cpu', 'cuda'.*got 'gpu'"),
        ({"device": "meta"}, "device must be 'auto', 'cpu', 'cuda'.*got 'meta'"),
        ({"precision": "float16"}, "'precision' .* must be a str among .*'bfloat16'"),
        ({"n_jobs": 0}, "'n_jobs' .* must be an int"),
        ({"callbacks": "all"}, "'callbacks' .* must be an instance of 'list'"),
        ({"random_state": "x"}, "'random_state' .* must be"),
        ({"verbose": "loud"}, "'verbose' .* must be"),
        ({"d_model": 30, "n_heads": 4}, "got d_model=30 and n_heads=4; .* works is d_model=32"),
        ({"d_model": 6, "n_heads": 2, "positions": "rope"}, "must be even, got d_model=6"),
        (
            {"class_weight": {0: 1, "a": 2}},
            r"class_weight has classes \['a'\], .* classes \[0, 1\]",
        ),
        ({"class_weight": {0: 1, 1: -2}}, r"class_weight must be finite .* got -2 for class 1"),
    ],
    ids=str,
)
def test_wrong_parameters_are_named_when_fit_starts(params, message, data):
    clf = small(**params)
    with pytest.raises(ValueError, match=message):
        clf.fit(*data)
    assert not [name for name in vars(clf) if name.endswith("_")]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("name", ["lr", "dropout", "weight_decay"])
def test_a_number_that_numpy_does_not_know_is_named(name, data):
    with pytest.raises(ValueError, match=name):
        small(**{name: Fraction(1, 100)}).fit(*data)


@pytest.mark.parametrize("value", [np.uint8(2), np.int16(2), True])
def test_whole_numbers_of_every_kind_are_numbers(value, data):
    sizes = {"depth": value, "patch_size": value, "batch_size": value, "max_epochs": value}
    clf = small(n_heads=value, **sizes).fit(data[0][:8], data[1][:8])
    plain = small(n_heads=int(value), **{name: int(value) for name in sizes})
    expected = plain.fit(data[0][:8], data[1][:8]).predict_proba(data[0])
    assert np.array_equal(clf.predict_proba(data[0]), expected)


def test_a_bar_that_is_not_shown_leaves_no_thread(data):
    script = (
        "import threading; from tests.helpers import bumps, small;"
        "small(max_epochs=1).fit(*bumps()); print([t.name for t in threading.enumerate()])"
    )
    run = [sys.executable, "-c", script]
    out = subprocess.run(run, capture_output=True, check=True, text=True).stdout
    assert out.strip() == "['MainThread']"


def test_a_device_that_is_not_there_is_named(data):
    with pytest.raises(ValueError, match=r"device='cuda:0' is not there.*set device='auto'"):
        small(device="cuda").fit(*data)
    assert small(device=torch.device("cpu"), max_epochs=1).fit(*data).device_.type == "cpu"


@pytest.mark.parametrize(
    ("y", "weight", "message"),
    [
        (None, None, "requires y to be passed, but the target y is None"),
        (np.zeros(59), None, r"inconsistent numbers of samples: \[60, 59\]"),
        (np.zeros(60), None, "y has 1 class of positive weight"),
        (np.linspace(0, 1, 60), None, "Unknown label type: continuous"),
        (np.arange(120).reshape(60, 2), None, "y should be a 1d array"),
        (np.where(np.arange(60) == 3, np.nan, 1.0), None, "Input y contains NaN"),
        ("y", np.full(60, -1.0), "Negative values .* `sample_weight`"),
        ("y", np.zeros(60), "at least one non-zero|no classes of positive weight"),
        ("y", np.ones(59), "sample_weight.shape"),
        ("y", [10**400] * 60, "sample_weight"),
        ("y", np.ma.masked_less(np.arange(60), 3), "sample_weight: masked"),
        (np.ma.masked_less(np.arange(60) % 2, 1), None, "y: masked"),
        ("y", np.full(60, np.nan), "sample_weight contains NaN"),
        ("y", np.arange(60) % 2 == 0, "y has 1 class of positive weight"),
    ],
)
def test_wrong_targets_and_weights_are_named(y, weight, message, data):
    with pytest.raises(ValueError, match=message):
        small().fit(data[0], data[1] if isinstance(y, str) else y, weight)


FAILURES = {
    "X": (np.full((60, 20, 2), np.inf), "y", {}, r"X\[0\] contains infinity"),
    "y": (np.zeros((60, 20, 2)), np.linspace(0, 1, 60), {}, "Unknown label type"),
    "parameter": (np.zeros((60, 20, 2)), "y", {"lr": -1}, "'lr' parameter"),
    "loss": (bumps()[0], "y", {"lr": 1e30}, "lower lr"),
}


@pytest.mark.parametrize("what", FAILURES)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_fit_that_fails_leaves_the_estimator_as_it_was(method, what, data):
    X, y, params, message = FAILURES[what]
    clf = small(max_epochs=30).fit(*data)
    before, attributes = clf.predict_proba(data[0]), sorted(vars(clf))
    clf.set_params(**params)
    with pytest.raises(ValueError, match=message):
        getattr(clf, method)(X, data[1] if isinstance(y, str) else y)
    assert sorted(vars(clf)) == attributes
    assert np.array_equal(clf.predict_proba(data[0]), before)


def test_features_of_a_fit_that_fails_are_not_remembered(fitted, data):
    clf = copy.deepcopy(fitted)
    with pytest.raises(ValueError, match="y has 1 class"):
        clf.fit(pd.DataFrame(np.zeros((60, 7))).add_prefix("t"), np.zeros(60))
    assert clf.n_features_in_ == 2
    assert not hasattr(clf, "feature_names_in_")
    assert np.array_equal(clf.predict_proba(data[0]), fitted.predict_proba(data[0]))


def test_a_loss_that_is_no_number_says_what_to_lower(data):
    with pytest.raises(
        ValueError, match=r"loss became (nan|inf) in epoch \d+; lower lr \(now 1e\+30\)"
    ):
        small(lr=1e30, max_epochs=30).fit(*data)


def test_predicting_before_fit_is_an_error(data):
    for method in ("predict", "predict_proba", "transform", "cls_attention"):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(small(), method)(data[0])


def test_a_file_of_a_model_holds_weights_and_little_else(tmp_path, data):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(2000, 100, 8)).astype(np.float32), np.arange(2000) % 3
    for params in ({}, {"early_stopping": True}, {"d_model": 256, "n_heads": 8}):
        clf = CLSTransformerClassifier(max_epochs=1, random_state=0, depth=1, **params).fit(X, y)
        joblib.dump(clf, tmp_path / "model.joblib")
        n_bytes = sum(p.numel() * p.element_size() for p in clf.module_.parameters())
        assert (tmp_path / "model.joblib").stat().st_size < 1.5 * n_bytes + 64 * 1024


def test_a_long_history_keeps_a_file_small(tmp_path):
    X, y = bumps(n=20)
    params = {"embedding": "linear", "depth": 1, "max_epochs": 600, "batch_size": 64}
    clf = small(**params, early_stopping=True, n_iter_no_change=600).fit(X, y)
    joblib.dump(clf, tmp_path / "model.joblib")
    n_bytes = sum(p.numel() * p.element_size() for p in clf.module_.parameters())
    assert (tmp_path / "model.joblib").stat().st_size < 1.5 * n_bytes + 64 * 1024
    assert joblib.load(tmp_path / "model.joblib").history_ == clf.history_


def test_a_model_predicts_the_same_in_a_new_process(tmp_path, fitted, data):
    joblib.dump(fitted, tmp_path / "model.joblib")
    script = (
        "import sys, joblib, torch; torch.set_num_threads(1); from tests.helpers import bumps;"
        "print(joblib.load(sys.argv[1]).predict_proba(bumps()[0]).tobytes().hex())"
    )
    run = [sys.executable, "-W", "error", "-c", script, tmp_path / "model.joblib"]
    out = subprocess.run(run, capture_output=True, check=True, text=True).stdout
    assert out.strip() == fitted.predict_proba(data[0]).tobytes().hex()


def test_a_loaded_model_goes_on_training(tmp_path, data):
    joblib.dump(small(warm_start=True).fit(*data), tmp_path / "model.joblib")
    loaded = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    first_loss = loaded.loss_curve_[0]
    assert loaded.fit(*data).loss_curve_[0] < first_loss
    loaded.partial_fit(*data)
    assert loaded.score(*data) > 0.8


def test_a_fitted_estimator_holds_no_data_and_no_callers(data):
    clf = small(early_stopping=True).fit(*data)
    net = vars(clf.net_)
    assert net["train_split"] is None
    assert not net["callbacks"]
    assert not net["callbacks_"]
    assert "optimizer_" not in net


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_model_from_cuda_loads_on_the_cpu_with_a_warning(tmp_path, data):
    clf = small().fit(*data)
    expected = clf.predict_proba(data[0])
    clf.net_.device = "cuda:0"  # as if trained there; weights are saved from the CPU
    joblib.dump(clf, tmp_path / "model.joblib")
    with pytest.warns(
        UserWarning, match=r"trained on device='cuda:0', .* set_params\(device='cpu'\)"
    ):
        loaded = joblib.load(tmp_path / "model.joblib")
    assert loaded.device_ == torch.device("cpu")
    assert np.array_equal(loaded.predict_proba(data[0]), expected)


def test_a_memory_map_trains_as_an_array_does(tmp_path, data):
    np.save(tmp_path / "X.npy", data[0])
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    expected = small().fit(*data).predict_proba(data[0])
    assert np.array_equal(small().fit(mapped, data[1]).predict_proba(mapped), expected)


def test_bfloat16_trains_on_the_cpu_too(data):
    clf = small(precision="bfloat16", max_epochs=25).fit(*data)
    assert clf.predict_proba(data[0]).dtype == np.float32
    assert clf.score(*bumps(seed=1)) > 0.9


def test_40_and_4000_sequences_both_train_well_by_default():
    for n in (40, 4000):
        X, y = bumps(n=n, n_steps=8)
        clf = CLSTransformerClassifier(random_state=0).fit(X, y)
        assert clf.score(*bumps(seed=1, n_steps=8)) > 0.95
        n_updates = clf.n_iter_ * -(-n // clf.net_.batch_size)
        assert 600 <= n_updates <= 1200


@pytest.mark.parametrize("embedding", ["linear", "conv"])
@pytest.mark.parametrize("value", [1e20, -1e38, 9.97e36])
def test_an_extreme_value_gives_finite_probabilities(value, embedding, data):
    X = data[0].copy()
    X[0, 3, 1] = value
    clf = small(embedding=embedding, max_epochs=1).fit(*data)
    assert np.isfinite(clf.predict_proba(X)).all()
    assert np.isfinite(clf.transform(X)).all()
    assert np.array_equal(clf.predict_proba(X[1:]), clf.predict_proba(data[0][1:]))


def test_parameters_are_checked_before_data(data):
    for params in ({"d_model": 30, "n_heads": 4}, {"device": "gpu"}, {"depth": 0}):
        with pytest.raises(ValueError, match=next(iter(params))):
            small(**params).fit("no data", None)


def test_no_warning_is_given_for_data_that_are_fine(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small().fit(*data).predict(data[0])
        small(early_stopping=True).fit([x[:5] for x in data[0]], data[1])


def test_documented_defaults_are_those_of_the_signature():
    doc = inspect.getdoc(CLSTransformerClassifier)
    for name, parameter in inspect.signature(CLSTransformerClassifier).parameters.items():
        assert parameter.kind is parameter.KEYWORD_ONLY
        (documented,) = re.findall(rf"^{name} : .*default=(.*)$", doc, re.MULTILINE)
        assert ast.literal_eval(documented) == parameter.default


def test_every_parameter_is_constrained():
    names = set(inspect.signature(CLSTransformerClassifier).parameters)
    assert names == set(CLSTransformerClassifier._parameter_constraints)
    assert names == set(CLSTransformerClassifier().get_params())


def test_importing_the_package_imports_nothing_that_only_training_needs():
    code = (
        "import sys, sklearn_cls;"
        "print({'skorch', 'sklearn.model_selection', 'torch._dynamo'} & set(sys.modules))"
    )
    run = [sys.executable, "-c", code]
    assert subprocess.run(run, capture_output=True, check=True, text=True).stdout == "set()\n"
