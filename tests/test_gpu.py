"""Tests that need a CUDA device; they are skipped without one."""

import os
import subprocess
import sys

import joblib
import numpy as np
import pytest
import torch

from sklearn_cls._data.batches import Batches, SequenceDataset
from sklearn_cls._data.validation import read_sequences
from sklearn_cls._persistence import checkpoint
from tests.helpers import Hook, bumps, small

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
# Matrix products in float32 agree between devices up to rounding. Convolutions do not: cuDNN
# computes them in TF32 by default, which has a relative precision of about 1e-3.
EXACT = {"device": "cuda", "precision": "float32", "embedding": "linear"}
TOLERANCE = {"linear": 1e-4, "conv": 2e-2}


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
    X = [x[: 12 + i % 9] for i, x in enumerate(data[0])]
    clf = small(device="cuda", cls_strategy=strategy, dropout=0.3).fit(X, data[1])
    assert clf.loss_curve_[-1] < clf.loss_curve_[0]
    assert np.allclose(clf.cls_attention(X).sum(-1), 1, atol=1e-3)


def test_padding_does_not_change_a_prediction_on_cuda(data):
    clf = small(**EXACT).fit(*data)
    lists = [x[: 12 + i % 9] for i, x in enumerate(data[0])]
    alone = np.concatenate([clf.predict_proba([x]) for x in lists])
    np.testing.assert_allclose(clf.predict_proba(lists), alone, atol=1e-5)


def test_the_same_random_state_gives_nearly_the_same_probabilities_on_cuda(data):
    # Some CUDA kernels add in an order that varies, so that the last bits may differ.
    first, second = (small(**EXACT).fit(*data).predict_proba(data[0]) for _ in range(2))
    np.testing.assert_allclose(first, second, atol=1e-3)


def test_a_fit_does_not_change_the_cuda_generator_of_the_caller(data):
    before = torch.cuda.get_rng_state()
    small(device="cuda", cls_strategy="random", dropout=0.3, max_epochs=2).fit(*data)
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
    np.testing.assert_array_equal(inputs["x"].cpu(), bumps()[0][:16])


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
