import os
import pickle
import shutil
import threading
import warnings
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from skorch import callbacks as skorch_callbacks
from torch import nn

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls._torch.device import device_or_cpu, resolve_device
from sklearn_cls._training.auto import auto_batch_size, auto_lr, auto_max_epochs, auto_patch_size
from sklearn_cls._training.net import Net
from tests.helpers import bumps, small

PACKAGE = Path(__file__).parents[1] / "sklearn_cls"


def bare_loop(clf, X, y, n_epochs):
    """Train as `clf` says it does, without skorch: the plainest loop there is."""
    reference = small(**{**clf.get_params(), "lr": 1e-30, "max_epochs": 1}).fit(X, y)
    module = reference.module_.train()
    decayed = [p for n, p in module.named_parameters() if p.ndim > 1]
    rest = [p for n, p in module.named_parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": clf.weight_decay},
            {"params": rest, "weight_decay": 0},
        ],
        lr=clf.lr,
    )
    rng = np.random.default_rng(clf.net_.seed)
    n_batches = -(-len(X) // clf.batch_size)
    n_updates, update = n_epochs * n_batches, 0
    n_warmup = int(np.ceil(clf.warmup_fraction * n_updates))
    for _ in range(n_epochs):
        batches = np.array_split(rng.permutation(len(X)), n_batches)
        rng.shuffle(batches)
        for rows in batches:
            share = (update + 1) / n_warmup
            if update >= n_warmup:
                share = 0.5 * (1 + np.cos(np.pi * (update - n_warmup) / (n_updates + 1 - n_warmup)))
            for group in optimizer.param_groups:
                group["lr"] = clf.lr * share
            loss = nn.functional.cross_entropy(
                module(torch.from_numpy(X[rows])),
                torch.from_numpy(y[rows]),
                label_smoothing=clf.label_smoothing,
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            update += 1
    return module.eval()


def test_training_is_the_plain_loop_it_says_it_is(data):
    X, y = data
    clf = small(dropout=0.0, augment=False, embedding="linear", weight_decay=0.1, max_epochs=5).fit(
        X, y
    )
    module = bare_loop(clf, X, y, 5)
    with torch.inference_mode():
        expected = module(torch.from_numpy(X)).softmax(-1).numpy()
    assert np.allclose(clf.predict_proba(X), expected, atol=1e-4)


def test_the_step_size_rises_and_falls_to_zero(data):
    seen = []

    class Watch(skorch_callbacks.Callback):
        def on_grad_computed(self, net, named_parameters, **kwargs):
            seen.append(net.optimizer_.param_groups[0]["lr"])

    small(max_epochs=10, lr=0.01, warmup_fraction=0.25, callbacks=[Watch()]).fit(*data)
    assert len(seen) == 40
    assert np.argmax(seen) in (9, 10)
    assert seen[0] == pytest.approx(0.001)
    assert max(seen) == pytest.approx(0.01)
    assert seen[-1] < 2e-4
    assert (np.diff(seen[10:]) < 0).all()


def test_biases_norms_positions_and_the_token_are_exempt_from_decay(data):
    clf = small(positions="learned").partial_fit(*data)
    names = {id(p): name for name, p in clf.module_.named_parameters()}
    decayed, exempt = (
        {names[id(p)] for p in group["params"]} for group in clf.net_.optimizer_.param_groups
    )
    assert clf.net_.optimizer_.param_groups[0]["weight_decay"] == 0.01
    assert clf.net_.optimizer_.param_groups[1]["weight_decay"] == 0
    assert {"token.value", "embedding.position", "blocks.0.norm1.weight", "head.bias"} <= exempt
    assert {"blocks.0.qkv.weight", "head.weight", "embedding.project.weight"} <= decayed


def test_auto_scales_with_the_data():
    assert [auto_batch_size(n) for n in (2, 40, 200, 1000, 40_000, 10**6)] == [
        8,
        8,
        16,
        128,
        128,
        128,
    ]
    assert [auto_max_epochs(n, 32) for n in (1, 160, 1920, 1921, 10**6)] == [600, 120, 10, 10, 10]
    # 1200, 600 and 600 updates
    assert [auto_max_epochs(96, n) for n in (8, 32, 96)] == [
        100,
        200,
        600,
    ]
    assert [auto_lr(16, d) for d in (16, 64, 128, 256)] == [2e-3, 2e-3, 1e-3, 5e-4]
    assert [auto_lr(n, 64) for n in (4, 64, 256)] == [1e-3, 4e-3, auto_lr(128, 64)]
    assert [auto_patch_size(t) for t in (1, 64, 65, 128, 315, 6400)] == [1, 1, 2, 2, 5, 100]


def test_auto_is_what_is_used():
    X = [np.zeros((t, 1)) for t in (100, 130, 130, 1000)] * 30
    clf = small(patch_size="auto", batch_size="auto", lr="auto", d_model=128, max_epochs=1)
    clf.fit(X, np.arange(120) % 2)
    assert clf.module_.embedding.patch_size == 3
    assert clf.net_.batch_size == 16
    assert clf.net_.lr == 1e-3


def test_a_deep_and_wide_network_is_stable_at_the_default_step_size(data):
    X, y = data
    clf = small(depth=6, d_model=256, n_heads=4, max_epochs=12, lr="auto", augment=False)
    assert clf.fit(X, y).score(X, y) > 0.95
    assert clf.loss_curve_[-1] < 0.5 * clf.loss_curve_[0]


def test_skorchs_callbacks_work(data, tmp_path, capsys):
    scoring = skorch_callbacks.EpochScoring("accuracy", name="acc", lower_is_better=False)
    on_train = skorch_callbacks.EpochScoring("accuracy", name="acc_train", on_train=True)
    rows = []

    class Watch(skorch_callbacks.Callback):
        def on_train_end(self, net, **kwargs):
            rows.extend(dict(row) for row in net.history)

    callbacks = [
        ("scores", scoring),
        on_train,
        skorch_callbacks.PrintLog(),
        skorch_callbacks.ProgressBar(),
        skorch_callbacks.BatchScoring("accuracy", name="acc_batch", lower_is_better=False),
        skorch_callbacks.Checkpoint(dirname=tmp_path),
        skorch_callbacks.GradientNormClipping(0.5),
        Watch(),
    ]
    clf = small(callbacks=callbacks, early_stopping=True, max_epochs=12).fit(*data)
    assert len(rows) == 12
    assert [row["acc"] for row in rows] == [row["valid_accuracy"] for row in rows]
    assert rows[-1]["acc"] > 0.8
    assert rows[-1]["acc_train"] > 0.8
    assert rows[-1]["acc_batch"] == pytest.approx(rows[-1]["acc"], abs=0.2)
    assert clf.callbacks is callbacks
    best = int(np.argmin([row["valid_loss"] for row in rows]))
    assert [row["valid_loss_best"] for row in rows][best]
    assert (tmp_path / "params.pt").exists()


def test_the_schedule_of_a_callback_multiplies_with_ours(data):
    def step_sizes(**params):
        return np.array([row["lr"] for row in small(**params).fit(*data).history_])

    halve = skorch_callbacks.LRScheduler("StepLR", step_size=2, gamma=0.5)
    ratio = step_sizes(callbacks=[halve])[1:] / step_sizes()[1:]
    assert np.allclose(ratio[::2], [1, 0.5, 0.25, 0.125][: len(ratio[::2])], rtol=1e-6)


def test_what_callbacks_record_survives_a_file_whatever_it_is(data):
    class Watch(skorch_callbacks.Callback):
        def on_epoch_end(self, net, **kwargs):
            net.history.record("growing", list(range(len(net.history))))
            net.history.record("mixed", "a" if len(net.history) == 1 else 0.5)

    clf = small(max_epochs=3, callbacks=[Watch()]).fit(*data)
    assert deepcopy(clf).history_ == clf.history_
    assert [row["mixed"] for row in clf.history_] == ["a", 0.5, 0.5]


def test_a_file_holds_nothing_that_callbacks_keep_of_the_training(data):
    callbacks = [("rate", skorch_callbacks.LRScheduler("StepLR", step_size=1))]
    with_callbacks = small(max_epochs=2, callbacks=callbacks).fit(*data)
    without = small(max_epochs=2).fit(*data)
    sizes = [len(pickle.dumps(clf)) for clf in (with_callbacks, without)]
    assert sizes[0] < sizes[1] + 1000
    assert hasattr(callbacks[0][1], "lr_scheduler_")  # the caller's own is as training left it
    assert pickle.loads(pickle.dumps(with_callbacks)).fit(*data).n_iter_ == 2


def test_the_net_predicts_class_codes_by_itself(fitted, data):
    assert np.allclose(fitted.net_.predict_proba(data[0]), fitted.predict_proba(data[0]), atol=1e-6)
    assert np.array_equal(fitted.net_.predict(list(data[0])), fitted.predict(data[0]))


@pytest.mark.parametrize("what", ["all", ["all"], [("name", 3)], [skorch_callbacks]])
def test_callbacks_that_are_none_are_named(what, data):
    with pytest.raises(ValueError, match="callbacks"):
        small(callbacks=what).fit(*data)


@pytest.mark.parametrize("names", [("a", "a"), ("train_loss",), (3,)])
def test_names_of_callbacks_that_are_taken_or_no_text_are_named(names, data):
    callbacks = [(name, skorch_callbacks.Callback()) for name in names]
    with pytest.raises(
        ValueError, match=f"callbacks must have names that differ.*got {names[0]!r}"
    ):
        small(callbacks=callbacks).fit(*data)


def test_a_callback_that_stops_before_the_first_epoch_leaves_no_model(data):
    class StopAtOnce(skorch_callbacks.Callback):
        def on_batch_end(self, net, **kwargs):
            raise KeyboardInterrupt

    clf = small(callbacks=[StopAtOnce()])
    with pytest.raises(RuntimeError, match="asked to stop before the first epoch was done"):
        clf.fit(*data)
    assert not hasattr(clf, "net_")


def test_an_exception_in_a_callback_leaves_the_estimator_as_it_was(data, capsys):
    class Fail(skorch_callbacks.Callback):
        def on_epoch_end(self, net, **kwargs):
            raise ZeroDivisionError

    clf = small().fit(*data)
    before = clf.predict_proba(data[0])
    with pytest.raises(ZeroDivisionError):
        clf.set_params(callbacks=[Fail()], verbose=1).fit(*data)
    assert np.array_equal(clf.predict_proba(data[0]), before)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_fitting_where_the_caller_wants_no_gradients_trains_all_the_same(context, data):
    expected = small().fit(*data).predict_proba(data[0])
    with context():
        clf = small().fit(*data)
        assert torch.is_grad_enabled() is False
    assert np.array_equal(clf.predict_proba(data[0]), expected)
    clf.partial_fit(*data)


def test_later_passes_draw_other_masks_and_batches(data):
    batches, masks, tokens = [], [], []

    class Watch(skorch_callbacks.Callback):
        def on_batch_end(self, net, batch=None, training=False, **kwargs):
            batches.append(batch[1].tolist())

        def on_train_begin(self, net, **kwargs):
            masks.append(net.module_.embedding.dropout.generator.initial_seed())
            tokens.append(net.module_.token.generator.initial_seed())

    clf = small(callbacks=[Watch()], warm_start=True, max_epochs=1)
    for method in (clf.partial_fit, clf.partial_fit, clf.fit, clf.fit):
        method(*data)
    passes = [batches[i : i + 4] for i in range(0, 16, 4)]
    for drawn in (passes, masks, tokens):
        assert len(drawn) == len(set(map(str, drawn))) == 4
    again = small(callbacks=[Watch()], warm_start=True, max_epochs=1)
    for method in (again.partial_fit, again.partial_fit, again.fit, again.fit):
        method(*data)
    assert batches[16:] == batches[:16]
    assert masks[4:] == masks[:4]


def test_a_callback_that_asks_to_stop_stops_training(data):
    class StopAt3(skorch_callbacks.Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 3:
                raise KeyboardInterrupt

    seen = []

    class Watch(skorch_callbacks.Callback):
        def on_epoch_end(self, net, **kwargs):
            seen.append(len(net.history))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf = small(callbacks=[StopAt3(), Watch()]).fit(*data)
    assert clf.n_iter_ == 3
    assert seen == [1, 2, 3]  # the others see the epoch that one of them ends


def interrupt(epoch, **params):
    """Return a classifier, and a training step that Ctrl-C interrupts in `epoch`."""
    clf = small(max_epochs=6, **params)
    original = Net.train_step

    def train_step(net, batch, **kwargs):
        if len(net.history) == epoch and len(net.history[-1]["batches"]) == 2:
            raise KeyboardInterrupt
        return original(net, batch, **kwargs)

    return clf, train_step


def test_an_interrupt_leaves_a_usable_model_and_a_warning(data, monkeypatch):
    clf, train_step = interrupt(epoch=5, lr=1e-2)
    monkeypatch.setattr("sklearn_cls._training.net.Net.train_step", train_step)
    with pytest.warns(UserWarning, match=r"interrupted in epoch 5 of 6: the model is usable"):
        clf.fit(*data)
    assert clf.n_iter_ == 4
    assert clf.score(*data) > 0.8
    assert not clf.module_.training


def test_an_interrupt_with_early_stopping_goes_back_to_the_best_epoch(data, monkeypatch):
    weights = []

    class Watch(skorch_callbacks.Callback):
        def on_epoch_end(self, net, **kwargs):
            weights.append(deepcopy(net.module_.state_dict()))

        def on_epoch_begin(self, net, **kwargs):
            if len(weights) == 2:  # the best is over
                nn.init.normal_(net.module_.head.weight, std=100)

    clf, train_step = interrupt(epoch=5, augment=False, early_stopping=True, callbacks=[Watch()])
    monkeypatch.setattr("sklearn_cls._training.net.Net.train_step", train_step)
    with pytest.warns(UserWarning, match="interrupted"):
        clf.fit(*data)
    losses = [row["valid_loss"] for row in clf.history_]
    assert len(losses) == 4
    best = int(np.argmin(losses))
    assert best == 1
    for name, value in clf.module_.state_dict().items():
        assert torch.equal(value, weights[best][name])


def test_an_interrupt_before_the_first_epoch_is_raised_and_changes_nothing(data, monkeypatch):
    clf, train_step = interrupt(epoch=1)
    monkeypatch.setattr("sklearn_cls._training.net.Net.train_step", train_step)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(*data)
    assert not hasattr(clf, "classes_")


def test_verbose_shows_epoch_loss_and_time_left(data, capsys):
    small(verbose=1, max_epochs=3, early_stopping=True).fit(*data)
    shown = capsys.readouterr()
    assert shown.out == ""
    for what in ("3/3", "train_loss=", "valid_loss=", "epoch/s", "<"):
        assert what in shown.err
    small(verbose=0, max_epochs=1).fit(*data)
    assert capsys.readouterr().err == ""


def test_n_jobs_is_the_number_of_threads_while_training(data):
    seen = []

    class Watch(skorch_callbacks.Callback):
        def on_epoch_end(self, net, **kwargs):
            seen.append(torch.get_num_threads())

    for n_jobs in (1, 2, None):
        small(n_jobs=n_jobs, max_epochs=1, callbacks=[Watch()]).fit(*data)
        assert torch.get_num_threads() == 1
    assert seen == [1, 2, 1]


def test_workers_take_cuda_devices_in_turn(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    taken = []
    for number in range(4):
        monkeypatch.setattr("sklearn_cls._torch.device.worker_number", lambda number=number: number)
        taken += [str(resolve_device(device)) for device in ("auto", "cuda")]
        assert str(resolve_device("cuda:1")) == "cuda:1"
    assert taken == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"] * 2


def test_workers_of_a_pool_are_numbered():
    from joblib import Parallel, delayed

    from sklearn_cls._torch.device import worker_number

    numbers = set(Parallel(n_jobs=2)(delayed(_slow_number)() for _ in range(6)))
    assert len(numbers) == 2
    assert worker_number() == 0 or os.environ.get("PYTEST_XDIST_WORKER")


def _slow_number():
    import time

    from sklearn_cls._torch.device import worker_number

    time.sleep(0.2)
    return worker_number() % 2


def test_a_device_from_elsewhere_falls_back_to_the_cpu():
    with pytest.warns(UserWarning, match="cuda:99"):
        assert device_or_cpu("cuda:99") == torch.device("cpu")
    assert device_or_cpu("cpu") == torch.device("cpu")


def test_fits_in_two_threads_give_what_they_give_alone():
    jobs = {seed: bumps(seed=seed) for seed in (0, 1)}

    def fit(seed):
        clf = small(random_state=seed, dropout=0.3, cls_strategy="random", n_jobs=1)
        return clf.fit(*jobs[seed]).predict_proba(jobs[seed][0])

    alone = {seed: fit(seed) for seed in jobs}
    together = {}
    threads = [
        threading.Thread(target=lambda seed=seed: together.update({seed: fit(seed)}))
        for seed in jobs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in jobs:
        assert np.array_equal(alone[seed], together[seed])


def test_all_device_work_goes_through_device():
    for path in PACKAGE.glob("*.py"):
        text = path.read_text()
        assert ".cuda(" not in text
        assert 'torch.device("cuda"' not in text or path.name == "_runtime.py"


def test_only_the_training_files_import_skorch():
    importing = {path.name for path in PACKAGE.glob("*.py") if "skorch import" in path.read_text()
                 or "from skorch" in path.read_text()}  # fmt: skip
    assert importing == {"_training.py", "_callbacks.py"}


def test_wide_and_deep_does_not_fall_apart(data):
    clf = CLSTransformerClassifier(
        depth=6, d_model=256, n_heads=8, max_epochs=4, batch_size=16, random_state=0
    ).fit(*data)
    assert np.isfinite(clf.loss_curve_).all()
    assert clf.loss_curve_[-1] < clf.loss_curve_[0]


def inputs_of(clf, data, valid=False):
    """Fit; return the inputs of each epoch that the network was trained on, or validated on."""
    epochs = []

    class Watch(skorch_callbacks.Callback):
        def on_epoch_begin(self, net, **kwargs):
            epochs.append([])

        def on_batch_begin(self, net, batch, training, **kwargs):
            if training != valid:
                epochs[-1].append(batch[0])

    clf.set_params(callbacks=[Watch()]).fit(*data)
    return epochs


def test_training_sees_varied_sequences_anew_in_each_epoch_and_again_for_a_seed(data):
    epochs = inputs_of(small(max_epochs=2), data)
    again = inputs_of(small(max_epochs=2), data)
    originals = {x.tobytes() for x in data[0]}
    seen = [[x.numpy().tobytes() for inputs in rows for x in inputs["x"]] for rows in epochs]
    assert not originals & set(seen[0])
    assert not set(seen[0]) & set(seen[1])
    repeated = [[x.numpy().tobytes() for inputs in rows for x in inputs["x"]] for rows in again]
    assert repeated == seen


def test_without_augmentation_and_in_validation_sequences_are_as_they_are(data):
    originals = {x.tobytes() for x in data[0]}
    plain = inputs_of(small(max_epochs=1, augment=False), data)
    valid = inputs_of(small(max_epochs=1, early_stopping=True), data, valid=True)
    for epochs in (plain, valid):
        seen = {x.numpy().tobytes() for inputs in epochs[0] for x in inputs["x"]}
        assert seen
        assert seen <= originals


def test_sequences_of_different_scale_are_not_spliced(data):
    X, y = data
    assert "partner" in inputs_of(small(max_epochs=1), (X, y))[0][0]
    X = X * np.logspace(-4, 2, len(X))[:, None, None]
    assert "partner" not in inputs_of(small(max_epochs=1), (X, y))[0][0]


def test_the_loss_of_a_splice_is_the_mixture_of_both_classes_by_their_weights(data):
    weight = np.linspace(0.5, 2, len(data[1]))
    losses = []

    class Watch(skorch_callbacks.Callback):
        def on_batch_end(self, net, batch, training, y_pred, loss, **kwargs):
            inputs, y = batch
            log_p = y_pred.detach().log_softmax(1)
            n_classes = log_p.shape[1]
            expected = 0
            for i in range(len(y)):
                for row, share in (
                    (i, 1 - inputs["share"][i]),
                    (inputs["partner"][i], inputs["share"][i]),
                ):
                    target = torch.full((n_classes,), 0.1 / n_classes)
                    target[y[row]] += 0.9
                    expected -= share * inputs["sample_weight"][row] * (target * log_p[i]).sum()
            losses.append((loss.item(), (expected / len(y)).item()))

    small(max_epochs=2, callbacks=[Watch()]).fit(*data, sample_weight=weight)
    assert len(losses) == 8
    assert [a for a, _ in losses] == pytest.approx([b for _, b in losses], abs=1e-5)


def test_a_default_dtype_of_the_caller_changes_nothing(data):
    expected = small(max_epochs=2).fit(*data).predict_proba(data[0])
    torch.set_default_dtype(torch.float64)
    try:
        clf = small(max_epochs=2).fit(*data)
        probabilities = clf.predict_proba(data[0])
    finally:
        torch.set_default_dtype(torch.float32)
    assert probabilities.dtype == np.float32
    assert probabilities.shape == expected.shape


@pytest.mark.filterwarnings("ignore")  # the compiler warns of its own code
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler")
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_compiled_blocks_learn_what_the_others_do_and_are_gone_after_it(dropout, data):
    seen = []

    class Watch(skorch_callbacks.Callback):
        def on_batch_end(self, net, **kwargs):
            seen.append(all("forward" in vars(block) for block in net.module_.blocks))

    params = {"dropout": dropout, "augment": False, "max_epochs": 2}
    clf = small(compile=True, callbacks=[Watch()], **params).fit(*data)
    plain = small(**params).fit(*data)
    np.testing.assert_allclose(clf.predict_proba(data[0]), plain.predict_proba(data[0]), atol=1e-4)
    assert seen == [True] * 8
    assert not any("forward" in vars(block) for block in clf.module_.blocks)
