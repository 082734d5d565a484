"""The training loop: interrupts, augmented batches, seeds and threads."""

import re
from copy import deepcopy

import numpy as np
import pytest
import torch
from skorch.callbacks import PassthroughScoring
from torch import nn

from sklearn_cls._data import augment
from sklearn_cls._data.batches import SequenceDataset
from sklearn_cls._data.readers import ArrayReader
from sklearn_cls._data.scaler import Scaler
from sklearn_cls._data.sequences import Sequences
from sklearn_cls._persistence import checkpoint
from sklearn_cls._training.auto import network_params, training_params
from sklearn_cls._training.net import Net, build_net
from tests.helpers import Hook, small


def interrupt_in_epoch(monkeypatch, epoch):
    """Raise KeyboardInterrupt, as Ctrl-C does, in the third update of `epoch`."""
    train_step = Net.train_step

    def interrupted(net, batch, **kwargs):
        if len(net.history) == epoch and len(net.history[-1]["batches"]) == 2:
            raise KeyboardInterrupt
        return train_step(net, batch, **kwargs)

    monkeypatch.setattr(Net, "train_step", interrupted)


def test_an_interrupt_leaves_a_usable_model(data, monkeypatch):
    interrupt_in_epoch(monkeypatch, 5)
    with pytest.warns(UserWarning, match=r"interrupted in epoch 5 of 6: the model is usable"):
        clf = small(max_epochs=6, lr=1e-2).fit(*data)
    assert clf.n_iter_ == 4
    assert clf.score(*data) > 0.8
    assert not clf.module_.training


def test_the_interrupt_warning_points_at_the_callers_line_and_suggests_warm_start(
    data, monkeypatch
):
    interrupt_in_epoch(monkeypatch, 2)
    clf = small(max_epochs=3)
    advice = "Call fit again with warm_start=True to continue from these weights."
    with pytest.warns(UserWarning, match=advice) as caught:
        clf.fit(*data)
    assert [warning.filename for warning in caught] == [__file__]
    monkeypatch.undo()
    first_loss = clf.loss_curve_[0]
    assert clf.set_params(warm_start=True).fit(*data).loss_curve_[0] < first_loss


@pytest.mark.parametrize("interval", [0.0, 1000.0])
def test_the_interrupt_warning_advises_resuming_if_the_checkpoint_contains_a_finished_epoch(
    interval, data, monkeypatch, tmp_path
):
    monkeypatch.setattr(checkpoint, "INTERVAL", interval)
    monkeypatch.setattr(checkpoint, "SHARE", np.inf)
    interrupt_in_epoch(monkeypatch, 3)
    path, n_epochs = tmp_path / "checkpoint", []
    advice = f"checkpoint='{path}' to resume" if interval == 0 else "warm_start=True to continue"
    hook = Hook(on_epoch_end=lambda net, **_: n_epochs.append(1))
    clf = small(max_epochs=4, callbacks=[hook])
    with pytest.warns(UserWarning, match=f"Call fit again with {re.escape(advice)}"):
        clf.fit(*data, checkpoint=path)
    assert path.exists() == (interval == 0)
    monkeypatch.undo()
    assert clf.fit(*data, checkpoint=path).n_iter_ == 4
    assert len(n_epochs) == (2 + 2 if interval == 0 else 2 + 4)


def test_an_interrupt_with_early_stopping_restores_the_best_epoch(data, monkeypatch):
    weights = []

    def copy_weights(net, **kwargs):
        weights.append(deepcopy(net.module_.state_dict()))

    def spoil_weights(net, **kwargs):
        if len(weights) == 2:  # all epochs after the second are worse
            nn.init.normal_(net.module_.head.weight, std=100)

    hook = Hook(on_epoch_begin=spoil_weights, on_epoch_end=copy_weights)
    interrupt_in_epoch(monkeypatch, 5)
    with pytest.warns(UserWarning, match="interrupted"):
        clf = small(augment=False, early_stopping=True, callbacks=[hook]).fit(*data)
    assert clf.n_iter_ == 4
    assert int(np.argmin(clf.history_["valid_loss"])) == 1
    for name, value in clf.module_.state_dict().items():
        assert torch.equal(value, weights[1][name])


def test_an_interrupt_in_the_first_epoch_is_raised_and_changes_nothing(data, monkeypatch):
    interrupt_in_epoch(monkeypatch, 1)
    clf = small()
    with pytest.raises(KeyboardInterrupt):
        clf.fit(*data)
    assert not hasattr(clf, "classes_")


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_fit_trains_where_the_caller_has_disabled_gradients(mode, fitted, data):
    with mode():
        clf = small().fit(*data)
        assert not torch.is_grad_enabled()
    assert np.array_equal(clf.predict_proba(data[0]), fitted.predict_proba(data[0]))
    clf.partial_fit(*data)


def test_calls_that_continue_training_use_different_random_numbers(data):
    def draws():
        batches, dropout_seeds, token_seeds, augmentation_seeds = [], [], [], []

        def record_seeds(net, **kwargs):
            batches.append([])
            dropout_seeds.append(net.module_.embedding.dropout.generator.initial_seed())
            token_seeds.append(net.module_.token.generator.initial_seed())
            augmentation_seeds.append(net.train_batches_.generator.initial_seed())

        hook = Hook(
            on_train_begin=record_seeds,
            on_batch_end=lambda net, batch, **_: batches[-1].append(batch[1].tolist()),
        )
        clf = small(callbacks=[hook], warm_start=True, max_epochs=1)
        clf.partial_fit(*data).partial_fit(*data).fit(*data).fit(*data)
        return batches, dropout_seeds, token_seeds, augmentation_seeds

    first = draws()
    for values in first:
        assert len(values) == len(set(map(str, values))) == 4
    assert not set(first[1]) & set(first[2]) | set(first[2]) & set(first[3])
    assert draws() == first


def test_the_network_is_in_training_mode_in_training_and_in_evaluation_mode_in_validation(data):
    modes = []

    def record(net, training, **kwargs):
        modes.append((training, net.module_.training))

    hook = Hook(on_batch_end=record)
    clf = small(early_stopping=True, max_epochs=2, callbacks=[hook]).fit(*data)
    assert modes == 2 * [*4 * [(True, True)], (False, False)]
    assert not clf.module_.training


@pytest.mark.parametrize(("n_jobs", "n_threads"), [(1, 1), (2, 2), (None, 1)])
def test_n_jobs_is_the_number_of_threads_during_training(n_jobs, n_threads, data):
    seen = []
    hook = Hook(on_epoch_end=lambda net, **_: seen.append(torch.get_num_threads()))
    small(n_jobs=n_jobs, max_epochs=1, callbacks=[hook]).fit(*data)
    assert seen == [n_threads]
    assert torch.get_num_threads() == 1


def test_the_net_predicts_class_codes_of_raw_sequences(fitted, data):
    X = data[0]
    assert np.allclose(fitted.net_.predict_proba(X), fitted.predict_proba(X), atol=1e-6)
    assert np.array_equal(fitted.net_.predict(list(X)), fitted.predict(X))


def inputs_by_epoch(clf, data, *, of_training=True):
    """Fit; return the inputs of the batches of each epoch, of training or of validation."""
    epochs = []

    def record(net, batch, training, **kwargs):
        if training == of_training:
            epochs[-1].append(batch[0])

    hook = Hook(on_epoch_begin=lambda net, **_: epochs.append([]), on_batch_begin=record)
    clf.set_params(callbacks=[hook]).fit(*data)
    return epochs


def sequences_of(batches):
    return [x.numpy().tobytes() for inputs in batches for x in inputs["x"]]


def test_sequences_are_augmented_anew_in_each_epoch_and_repeatably_with_a_seed(data):
    originals = {x.tobytes() for x in data[0]}
    clf = small(max_epochs=2, standardize=False)
    first, second = map(sequences_of, inputs_by_epoch(clf, data))
    assert len(first) == len(second) == 60
    assert not originals & set(first)
    assert not set(first) & set(second)
    again = inputs_by_epoch(clf, data)
    assert list(map(sequences_of, again)) == [first, second]


@pytest.mark.parametrize(
    ("params", "of_training"), [({"augment": False}, True), ({"early_stopping": True}, False)]
)
def test_sequences_are_unchanged_without_augmentation_and_in_validation(params, of_training, data):
    originals = {x.tobytes() for x in data[0]}
    clf = small(max_epochs=1, standardize=False, **params)
    (batches,) = inputs_by_epoch(clf, data, of_training=of_training)
    seen = sequences_of(batches)
    assert len(seen) == (60 if of_training else 6)
    assert set(seen) <= originals
    assert not any("target" in inputs for inputs in batches)


def test_cutmix_is_not_applied_to_sequences_of_different_scales(data):
    X, y = data
    assert "target" in inputs_by_epoch(small(max_epochs=1), (X, y))[0][0]
    X = X * np.logspace(-4, 2, len(X))[:, None, None]
    assert "target" not in inputs_by_epoch(small(max_epochs=1), (X, y))[0][0]


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_loss_of_cutmix_is_the_mixture_of_the_weighted_losses_of_both_classes(
    label_smoothing, data, monkeypatch
):
    mixtures, losses, mix_labels = [], [], augment.mix_labels

    def record_mixture(y, weight, permutation, lam, n_classes):
        mixtures.append((y, weight, permutation, lam))
        return mix_labels(y, weight, permutation, lam, n_classes)

    def record_loss(net, batch, y_pred, loss, **kwargs):
        y, weight, permutation, lam = mixtures.pop()
        cross_entropy = nn.CrossEntropyLoss(reduction="none", label_smoothing=label_smoothing)
        own = (1 - lam) * weight * cross_entropy(y_pred.detach(), y)
        other = lam * weight[permutation] * cross_entropy(y_pred.detach(), y[permutation])
        losses.append((loss.item(), (own + other).mean().item()))
        assert torch.equal(batch[1], y)

    monkeypatch.setattr(augment, "mix_labels", record_mixture)
    clf = small(
        max_epochs=2, label_smoothing=label_smoothing, callbacks=[Hook(on_batch_end=record_loss)]
    )
    clf.fit(*data, sample_weight=np.linspace(0.5, 2, 60))
    assert len(losses) == 8
    found, expected = zip(*losses, strict=True)
    assert found == pytest.approx(expected, abs=1e-5)


def test_ctrl_c_before_the_losses_of_the_first_epoch_are_recorded_is_raised(data, monkeypatch):
    def interrupted(callback, net, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(PassthroughScoring, "on_epoch_end", interrupted)
    clf = small()
    with pytest.raises(KeyboardInterrupt):
        clf.fit(*data)
    assert not hasattr(clf, "net_")


def test_ctrl_c_after_the_epoch_of_partial_fit_is_raised_and_leaves_a_fitted_model(
    data, monkeypatch
):
    def interrupted(net, **kwargs):
        raise KeyboardInterrupt

    clf = small(callbacks=[Hook(on_epoch_end=interrupted)])
    # Treat the KeyboardInterrupt of this callback as Ctrl-C, not as a request to stop.
    monkeypatch.setattr("sklearn_cls._training.net.PASSIVE", (Hook,))
    with pytest.raises(KeyboardInterrupt):
        clf.partial_fit(*data)
    assert clf.n_iter_ == 1
    assert clf.predict(data[0]).shape == data[1].shape


@pytest.mark.parametrize("early_stopping", [False, True])
def test_groups_of_similar_length_are_trained_like_the_whole_batch(
    early_stopping, data, monkeypatch
):
    X, y = list(data[0]), data[1]
    X[0], X[1] = (np.tile(X[i], (20, 1)) for i in (0, 1))  # early_stopping holds out one of them
    # Batch norm, dropout and augmentation depend on the groups.
    params = {"embedding": "linear", "dropout": 0.0, "augment": False, "max_epochs": 3}
    params |= {"early_stopping": early_stopping, "patch_size": 1}
    n_groups = []
    record = Hook(on_batch_end=lambda net, batch, **_: n_groups.append(isinstance(batch[0], list)))
    grouped = small(**params, callbacks=[record]).fit(X, y)
    assert any(n_groups)
    monkeypatch.setattr("sklearn_cls._data.batches.MIN_PADDING", np.inf)
    n_groups.clear()
    padded = small(**params, callbacks=[record]).fit(X, y)
    assert not any(n_groups)
    np.testing.assert_allclose(grouped.predict_proba(X), padded.predict_proba(X), atol=1e-3)
    for name in ("train_loss", "valid_loss", "valid_accuracy")[: 3 if early_stopping else 1]:
        np.testing.assert_allclose(grouped.history_[name], padded.history_[name], rtol=1e-3)


def train_on_codes(x, n_categories, **params):
    """Return a net that is trained on sequences x (n, T, F) of two classes, and its data."""
    lengths, has_gaps = np.full(len(x), x.shape[1]), np.isnan(x).any((1, 2))
    scaler = Scaler.identity(x.shape[2])
    sequences = Sequences(ArrayReader(x), lengths, has_gaps, scaler, n_categories)
    data = SequenceDataset(
        sequences, np.arange(len(x)), np.arange(len(x)) % 2, np.ones(len(x), np.float32)
    )
    clf = small(augment=False, max_epochs=2, weight_decay=0.5, **params)
    net = build_net(
        network_params(clf, data, 2, 0), training_params(clf, data),
        train=data, scaler=scaler, seed=0, classes=np.arange(2), device="cpu",
    )  # fmt: skip
    initial = {name: value.clone() for name, value in net.module_.state_dict().items()}
    return net.train(data, 1), initial


@pytest.mark.parametrize("embedding", ["linear", "conv"])
def test_rows_of_codes_that_occur_are_trained_and_the_others_are_and_stay_zero(embedding):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 6, 3))
    x[..., 1] = rng.choice([1, 2, 4], (32, 6))
    x[..., 2] = rng.choice([0, 2, np.nan], (32, 6))
    net, initial = train_on_codes(x, (4, 2), embedding=embedding)
    weight = net.module_.embedding.codes.weight
    is_reached = [False, True, True, False, True, False, True, False, True, True]
    assert (weight != 0).all(1).tolist() == is_reached
    is_trained = (weight != initial["embedding.codes.weight"]).all(1)
    assert is_trained.tolist() == is_reached


@pytest.mark.parametrize("embedding", ["linear", "conv"])
def test_a_code_feature_that_does_not_vary_in_training_changes_no_prediction(embedding):
    x = np.random.default_rng(0).normal(size=(32, 6, 2))
    x[..., 1] = 2
    net, _ = train_on_codes(x, (3,), embedding=embedding)
    x = torch.from_numpy(x[:4]).float()
    before = net.module_(x)
    for code in (0, 1, torch.nan):
        x[..., 1] = code
        assert torch.equal(net.module_(x), before)
