"""Tests that need a CUDA device; they are skipped without one."""

import gc
import os
import subprocess
import sys
import threading

import joblib
import numpy as np
import pytest
import torch

from sklearn_cls._data.batches import Batches, SequenceDataset
from sklearn_cls._data.validation import read_sequences
from sklearn_cls._network.dropout import Dropout, generators
from sklearn_cls._network.embedding import PatchBatchNorm
from sklearn_cls._persistence import checkpoint
from sklearn_cls._training import cuda_graph
from sklearn_cls._training.auto import forward_autocast
from sklearn_cls._training.cuda_graph import Graph, GraphedFunction
from tests.helpers import Hook, bumps, small

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
# Matrix products in float32 agree between devices up to rounding. Convolutions do not: cuDNN
# computes them in TF32 by default, which has a relative precision of about 1e-3.
EXACT = {"device": "cuda", "precision": "float32", "embedding": "linear"}
TOLERANCE = {"linear": 1e-4, "conv": 2e-2}


CUDA = torch.device("cuda:0")


@pytest.fixture
def n_replays(monkeypatch):
    """Return a list with the number of replays of CUDA graphs."""
    count, replay = [0], Graph.replay

    def counted(*args):
        count[0] += 1
        return replay(*args)

    monkeypatch.setattr(Graph, "replay", counted)
    return count


def fit_without_graphs(clf, *data):
    """Fit an estimator whose kernels are launched one by one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_graph, "MAX_GRAPHS", 0)
        return clf.fit(*data)


def unequal(X):
    """Return sequences of 12 to 20 steps."""
    return [x[: 12 + i % 9] for i, x in enumerate(X)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "auto"])
def test_a_fit_on_cuda_learns_where_the_bump_is(precision, data):
    clf = small(device="cuda", precision=precision, max_epochs=25).fit(*data)
    assert clf.device_.type == "cuda"
    assert clf.score(*bumps(seed=1)) > 0.9
    assert clf.predict_proba(data[0]).dtype == np.float32


def test_auto_device_is_cuda(data):
    assert small(max_epochs=1).fit(*data).device_.type == "cuda"


@pytest.mark.parametrize("embedding", ["linear", "conv"])
def test_a_pickle_from_cuda_predicts_the_same_without_cuda(embedding, tmp_path, data):
    clf = small(device="cuda", precision="float32", embedding=embedding).fit(*data)
    joblib.dump(clf, tmp_path / "model.joblib")
    script = (
        "import sys, joblib; from tests.helpers import bumps;"
        "print(joblib.load(sys.argv[1]).predict_proba(bumps()[0]).tobytes().hex())"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "model.joblib"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        check=True,
        text=True,
    )
    assert "set_params(device='cpu')" in run.stderr
    on_cpu = np.frombuffer(bytes.fromhex(run.stdout.strip()), np.float32).reshape(-1, 2)
    np.testing.assert_allclose(on_cpu, clf.predict_proba(data[0]), atol=TOLERANCE[embedding])


@pytest.mark.parametrize("embedding", ["linear", "conv"])
def test_a_model_saved_from_cuda_loads_on_the_cpu(embedding, data, tmp_path):
    clf = small(device="cuda", precision="float32", embedding=embedding).fit(*data)
    clf.save(tmp_path / "model")
    loaded = type(clf).load(tmp_path / "model", device="cpu")
    assert loaded.device_.type == "cpu"
    np.testing.assert_allclose(
        loaded.predict_proba(data[0]), clf.predict_proba(data[0]), atol=TOLERANCE[embedding]
    )
    assert type(clf).load(tmp_path / "model").device_.type == "cuda"


@pytest.mark.parametrize("strategy", ["learned", "zeros", "fixed", "random"])
def test_unequal_lengths_and_dropout_train_on_cuda(strategy, data):
    X = unequal(data[0])
    clf = small(device="cuda", cls_strategy=strategy, dropout=0.3).fit(X, data[1])
    assert clf.loss_curve_[-1] < clf.loss_curve_[0]
    assert np.allclose(clf.cls_attention(X).sum(-1), 1, atol=1e-3)


def test_padding_does_not_change_a_prediction_on_cuda(data):
    clf = small(**EXACT).fit(*data)
    lists = unequal(data[0])
    alone = np.concatenate([clf.predict_proba([x]) for x in lists])
    np.testing.assert_allclose(clf.predict_proba(lists), alone, atol=1e-5)


def test_the_same_random_state_gives_nearly_the_same_probabilities_on_cuda(data):
    # Some CUDA kernels add in an order that varies, so that the last bits may differ.
    first, second = (small(**EXACT).fit(*data).predict_proba(data[0]) for _ in range(2))
    np.testing.assert_allclose(first, second, atol=1e-3)


def test_a_fit_does_not_change_the_cuda_generator_of_the_caller(data):
    before = torch.cuda.get_rng_state()
    small(device="cuda", cls_strategy="random", dropout=0.3).fit(*data)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_initial_weights_are_the_same_on_cuda_and_on_the_cpu(data):
    cuda, cpu = (
        small(device=device, lr=1e-30, max_epochs=1).fit(*data).module_.head.weight.cpu()
        for device in ("cuda", "cpu")
    )
    assert torch.equal(cuda, cpu)


def test_training_data_are_cached_on_cuda():
    dataset = SequenceDataset.unlabeled(read_sequences(bumps()[0]))
    batches = Batches(dataset, 16, torch.device("cuda"))
    assert batches.device_cache.steps.device.type == "cuda"
    inputs, y = next(iter(batches))
    assert inputs["x"].device.type == y.device.type == "cuda"
    np.testing.assert_array_equal(inputs["x"].cpu(), bumps()[0][: len(y)])


def test_out_of_memory_on_cuda_falls_back_to_micro_batches():
    X, y = bumps(n=256, n_steps=400)
    sizes = {"d_model": 256, "n_heads": 4, "dim_feedforward": 1024, "depth": 4, "patch_size": 1}
    clf = small(device="cuda", precision="float32", batch_size=256, max_epochs=1, **sizes)
    _, total = torch.cuda.mem_get_info()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2 * 2**30 / total)
    try:
        with pytest.warns(UserWarning, match="Out of memory on cuda") as caught:
            clf.fit(X, y)
        assert len(caught) == 1
        assert clf.net_.n_micro_batches > 1
        assert np.isfinite(clf.predict_proba(X)).all()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def test_a_fit_on_cuda_resumes_from_its_checkpoint(data, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", np.inf)

    def crash(net, **kwargs):
        if len(net.history) == 5:
            raise ZeroDivisionError

    path, epochs = tmp_path / "checkpoint", []
    with pytest.raises(ZeroDivisionError):
        small(**EXACT, callbacks=[Hook(on_epoch_end=crash)]).fit(*data, checkpoint=path)
    hook = Hook(on_epoch_begin=lambda net, **_: epochs.append(len(net.history)))
    resumed = small(**EXACT, callbacks=[hook]).fit(*data, checkpoint=path)
    assert len(epochs) == 4  # the checkpoint holds the first 4 of 8 epochs
    assert resumed.n_iter_ == 8
    whole = small(**EXACT).fit(*data)
    np.testing.assert_allclose(resumed.loss_curve_, whole.loss_curve_, rtol=1e-3)


@pytest.mark.parametrize("has_equal_lengths", [True, False])
@pytest.mark.parametrize(
    "params",
    [
        {"embedding": "linear"},
        {"embedding": "linear", "dropout": 0.3, "cls_strategy": "random"},
        {"embedding": "linear", "positions": "rope", "pooling": "mean", "augment": False},
        {"embedding": "conv"},
        {"embedding": "conv", "precision": "bfloat16"},
        {"embedding": "linear", "early_stopping": True, "class_weight": "balanced"},
    ],
)
def test_a_fit_with_cuda_graphs_equals_one_without(params, has_equal_lengths, data, n_replays):
    X, y = data
    X = X if has_equal_lengths else unequal(X)
    params = {"device": "cuda", "precision": "float32", "max_epochs": 12, **params}
    eager = fit_without_graphs(small(**params), X, y)
    assert n_replays == [0]
    graphed = small(**params).fit(X, y)
    assert n_replays[0] >= 25
    for a, b in zip(generators(eager.module_), generators(graphed.module_), strict=True):
        assert torch.equal(a.get_state(), b.get_state())  # the same random numbers were drawn
    atol = 1e-3 if params["embedding"] == "linear" else 3e-2
    np.testing.assert_allclose(graphed.loss_curve_, eager.loss_curve_, atol=atol)
    np.testing.assert_allclose(graphed.predict_proba(X), eager.predict_proba(X), atol=atol)


def test_callbacks_see_the_gradients_and_outputs_of_every_update(data):
    def record(fit):
        norms, outputs = [], []

        def grad_computed(net, named_parameters, **kwargs):
            norms.append(torch.stack([p.grad.norm() for _, p in named_parameters]).norm().item())

        def batch_end(net, y_pred, loss, **kwargs):
            outputs.append((y_pred, loss))

        hook = Hook(on_grad_computed=grad_computed, on_batch_end=batch_end)
        fit(small(**EXACT, max_epochs=12, callbacks=[hook]), *data)
        y_pred, loss = zip(*outputs, strict=True)
        return norms, torch.cat(y_pred).tolist(), torch.stack(loss).tolist()

    eager, graphed = record(fit_without_graphs), record(lambda clf, *data: clf.fit(*data))
    for a, b in zip(graphed, eager, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3)


def test_a_layer_that_a_callback_freezes_is_not_trained_any_more(data, n_replays):
    weights = []

    def freeze(net, **kwargs):
        up = net.module_.blocks[0].up
        if len(net.history) == 7:
            up.weight.requires_grad_(False)
        weights.append(up.weight.detach().clone())

    small(**EXACT, max_epochs=12, callbacks=[Hook(on_epoch_begin=freeze)]).fit(*data)
    assert n_replays[0] > 25
    assert not torch.equal(weights[5], weights[6])
    assert torch.equal(weights[6], weights[11])


def test_hooks_on_the_network_are_called_for_every_batch(data):
    calls = []

    def register(net, **kwargs):
        if len(net.history) == 7:
            net.module_.head.register_forward_hook(lambda *args: calls.append(1))

    hook = Hook(on_epoch_begin=register)
    small(**EXACT, max_epochs=9, callbacks=[hook]).fit(*data)
    assert len(calls) == 3 * 4  # epochs 7 to 9 of 4 batches each


def test_on_another_stream_a_fit_runs_without_cuda_graphs(data, n_replays):
    with torch.cuda.stream(torch.cuda.Stream()):
        loss_curve = small(**EXACT, max_epochs=12).fit(*data).loss_curve_
    assert n_replays == [0]
    graphed = small(**EXACT, max_epochs=12).fit(*data)
    np.testing.assert_allclose(loss_curve, graphed.loss_curve_, atol=1e-3)


def test_fits_in_threads_equal_fits_one_after_the_other(data, n_replays):
    def fit(seed):
        return small(**EXACT, random_state=seed, max_epochs=20).fit(*data).predict_proba(data[0])

    parallel = joblib.Parallel(n_jobs=4, prefer="threads")(
        joblib.delayed(fit)(seed) for seed in range(4)
    )
    assert n_replays == [0]  # graphs are captured in the main thread only
    for seed, probabilities in enumerate(parallel):
        np.testing.assert_allclose(probabilities, fit(seed), atol=1e-3)
    assert n_replays[0] > 4 * 50


def test_a_fit_does_not_disturb_another_thread_that_uses_torch(data):
    errors, has_started, is_finished = [], threading.Event(), threading.Event()

    def train():
        x = torch.ones(50, 50, device="cuda", requires_grad=True)
        while not is_finished.is_set():
            try:
                torch.nn.functional.dropout(x).sum().backward()
                torch.cuda.synchronize()
            except RuntimeError as error:
                errors.append(error)
            has_started.set()

    thread = threading.Thread(target=train)
    thread.start()
    try:
        has_started.wait()
        small(device="cuda", max_epochs=12).fit(*data)
    finally:
        is_finished.set()
        thread.join()
    assert not errors


def test_fits_release_their_memory(data):
    allocated = []
    for _ in range(3):
        clf = small(device="cuda", max_epochs=12).fit(*data)
        gc.collect()
        allocated.append(torch.cuda.memory_allocated())
    assert allocated[2] <= allocated[1]
    assert clf.device_.type == "cuda"


def outer_sum(inputs, y):
    """Return the sum of an outer sum, which takes much memory for a moment."""
    return {"sum": (inputs["x"].unsqueeze(1) + y).sum()}


def test_graphs_are_dropped_if_their_memory_is_needed():
    graphed = GraphedFunction(outer_sum, CUDA, [])
    small, large = (torch.ones(n, device="cuda") for n in (8192, 15_000))  # 256 and 858 MiB
    torch.cuda.empty_cache()
    limit = torch.cuda.memory_reserved() + 1060 * 2**20
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.mem_get_info()[1])
    try:
        for _ in range(12):
            assert graphed({"x": small}, small)["sum"].item() == pytest.approx(2 * 8192**2)
        assert len(graphed.graphs) == 1
        assert graphed({"x": large}, large)["sum"].item() == pytest.approx(2 * 15_000**2)
        assert not graphed.graphs
        assert graphed({"x": small}, small)["sum"].item() == pytest.approx(2 * 8192**2)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def test_a_function_that_cannot_be_captured_runs_without_graphs():
    # In a process of its own, because PyTorch does not undo everything that a failed capture did.
    script = """
import torch
from sklearn_cls._training.cuda_graph import GraphedFunction

generator = torch.Generator("cuda").manual_seed(0)
same = torch.Generator("cuda").manual_seed(0)
y = torch.ones(3, device="cuda")

def synchronizing(inputs, y):
    noise = torch.rand(3, device="cuda", generator=generator)
    return {"sum": noise + y.sum().item()}

graphed = GraphedFunction(synchronizing, torch.device("cuda:0"), [generator])
for _ in range(15):
    expected = torch.rand(3, device="cuda", generator=same) + 3
    assert torch.equal(graphed({}, y)["sum"], expected)
assert not graphed.is_enabled
assert torch.cuda.current_stream() == torch.cuda.default_stream()
torch.cuda.manual_seed(0)
assert 0 < torch.rand(2, device="cuda").mean().item() < 1

capturable = GraphedFunction(lambda inputs, y: {"double": 2 * y}, torch.device("cuda:0"), [])
for i in range(15):
    assert (capturable({}, y + i)["double"] == 2 * (1 + i)).all()
assert capturable.graphs
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_on_cuda_draws_from_its_own_generator(p, dtype):
    dropout, x = Dropout(p).train(), torch.ones(1001, 1003, device="cuda", dtype=dtype)
    before, masks = torch.cuda.get_rng_state(), []
    for seed in (0, 0, 1):
        dropout.generator = torch.Generator("cuda").manual_seed(seed)
        masks.append(dropout(x))
    assert masks[0].dtype == dtype
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    assert (masks[0] == 0).float().mean().item() == pytest.approx(round(256 * p) / 256, abs=0.002)
    assert masks[0].float().mean().item() == pytest.approx(1, abs=0.005)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_batch_norm_of_padded_sequences_is_the_same_on_cuda_and_on_the_cpu():
    x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    is_padding = torch.arange(5) >= torch.tensor([[5], [2], [4]])
    cpu, cuda = PatchBatchNorm(4).train(), PatchBatchNorm(4).train().cuda()
    for _ in range(2):
        torch.testing.assert_close(cuda(x.cuda(), is_padding.cuda()).cpu(), cpu(x, is_padding))
    for name, value in cpu.state_dict().items():
        torch.testing.assert_close(cuda.state_dict()[name].cpu(), value)
    cpu.eval(), cuda.eval()
    torch.testing.assert_close(cuda(x.cuda(), is_padding.cuda()).cpu(), cpu(x, is_padding))


@pytest.mark.parametrize(("d_model", "dtype"), [(16, torch.float32), (512, torch.bfloat16)])
def test_auto_precision_is_bfloat16_in_wide_networks_only(d_model, dtype, data):
    clf = small(device="cuda", d_model=d_model, max_epochs=1).fit(*data)
    x = torch.ones(2, 2, device="cuda")
    with forward_autocast(clf.net_):
        assert (x @ x).dtype == dtype
