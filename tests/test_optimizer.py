import numpy as np
import pytest
import torch
from skorch.callbacks import LRScheduler
from torch import nn

from sklearn_cls._training.auto import WARMUP_FRACTION
from sklearn_cls._training.optimizer import adamw, lr_lambda
from tests.helpers import Hook, small


def plain_training_loop(clf, X, y, n_epochs):
    """Train as documented for `clf`, but in a plain loop without skorch."""
    start = small(**{**clf.get_params(), "lr": 1e-30, "max_epochs": 1}).fit(X, y)
    module = start.module_.train()
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in module.parameters() if p.ndim > 1]},
            {"params": [p for p in module.parameters() if p.ndim <= 1], "weight_decay": 0},
        ],
        weight_decay=clf.weight_decay,
    )
    rng = np.random.default_rng(clf.net_.seed)
    n_batches = -(-len(X) // clf.batch_size)
    n_updates, update = n_epochs * n_batches, 0
    n_warmup = int(np.ceil(0.1 * n_updates))
    for _ in range(n_epochs):
        batches = np.array_split(rng.permutation(len(X)), n_batches)
        rng.shuffle(batches)
        for i in batches:
            factor = (update + 1) / n_warmup
            if update >= n_warmup:
                progress = (update - n_warmup) / (n_updates + 1 - n_warmup)
                factor = 0.5 * (1 + np.cos(np.pi * progress))
            for group in optimizer.param_groups:
                group["lr"] = clf.lr * factor
            loss = nn.functional.cross_entropy(
                module(torch.from_numpy(X[i])),
                torch.from_numpy(y[i]),
                label_smoothing=clf.label_smoothing,
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            update += 1
    return module.eval()


def test_training_equals_a_plain_loop_with_the_documented_steps(data):
    X, y = data
    params = {"dropout": 0.0, "augment": False, "embedding": "linear", "weight_decay": 0.1}
    clf = small(**params, max_epochs=5).fit(X, y)
    inputs = ((X - X.mean((0, 1))) / X.std((0, 1))).astype(np.float32)
    module = plain_training_loop(clf, inputs, y, 5)
    with torch.inference_mode():
        expected = module(torch.from_numpy(inputs)).softmax(-1).numpy()
    assert np.allclose(clf.predict_proba(X), expected, atol=1e-4)


def test_the_learning_rate_rises_for_a_tenth_of_the_updates_and_falls_to_zero(data):
    rates = []

    def record(net, **kwargs):
        rates.append(net.optimizer_.param_groups[0]["lr"])

    small(max_epochs=10, lr=0.01, callbacks=[Hook(on_grad_computed=record)]).fit(*data)
    assert WARMUP_FRACTION == 0.1
    assert rates == pytest.approx([0.01 * lr_lambda(i, 40, 0.1) for i in range(40)])
    assert rates[:4] == pytest.approx([0.0025, 0.005, 0.0075, 0.01])
    assert max(rates) == pytest.approx(0.01)
    assert rates[-1] < 1e-4
    assert (np.diff(rates[4:]) < 0).all()


def test_the_learning_rate_is_constant_without_a_warmup_fraction():
    assert {lr_lambda(i, 40, None) for i in range(100)} == {1.0}


def test_biases_norms_positions_and_the_token_have_no_weight_decay(data):
    clf = small(positions="learned").partial_fit(*data)
    names = {id(p): name for name, p in clf.module_.named_parameters()}
    first, second = clf.net_.optimizer_.param_groups
    with_decay, without_decay = ({names[id(p)] for p in g["params"]} for g in (first, second))
    assert (first["weight_decay"], second["weight_decay"]) == (0.01, 0)
    assert {"token.value", "embedding.position", "blocks.0.norm1.weight", "head.bias"} <= (
        without_decay
    )
    assert {"blocks.0.qkv.weight", "head.weight", "embedding.project.weight"} <= with_decay
    assert with_decay | without_decay == set(names.values())


def test_parameters_named_by_no_weight_decay_are_exempt_from_weight_decay():
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix, self.table = (nn.Parameter(torch.zeros(2, 2)) for _ in range(2))
            self.vector = nn.Parameter(torch.zeros(2))

        def no_weight_decay(self):
            return {"table"}

    module = Module()
    first, second = adamw(module, lr=1e-3, weight_decay=0.1).param_groups
    assert [id(p) for p in first["params"]] == [id(module.matrix)]
    assert [id(p) for p in second["params"]] == [id(module.table), id(module.vector)]
    assert (first["weight_decay"], second["weight_decay"]) == (0.1, 0.0)


def test_partial_fit_keeps_the_moments_of_the_optimizer(data):
    def n_updates(clf):
        return next(iter(clf.net_.optimizer_.state.values()))["step"].item()

    clf = small().partial_fit(*data)
    assert n_updates(clf) == 4
    assert n_updates(clf.partial_fit(*data)) == 8


def test_the_schedule_of_a_callback_is_multiplied_by_the_cosine(data):
    def rates(**params):
        return np.array(small(**params).fit(*data).history_["lr"])

    halve = LRScheduler("StepLR", step_size=2, gamma=0.5)
    ratio = rates(callbacks=[halve])[1:] / rates()[1:]
    assert np.allclose(ratio[::2], [1, 0.5, 0.25, 0.125], rtol=1e-6)
