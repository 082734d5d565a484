"""What only a CUDA device can show; skipped without one."""

import os
import subprocess
import sys

import joblib
import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from sklearn_cls._data.batches import Batches, SequenceDataset
from sklearn_cls._data.sequences import read_sequences
from tests.helpers import bumps, small

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "auto"])
def test_cuda_learns_as_the_cpu_does(precision, data):
    clf = small(device="cuda", precision=precision, max_epochs=25).fit(*data)
    assert clf.device_.type == "cuda"
    assert clf.score(*bumps(seed=1)) > 0.9
    assert clf.predict_proba(data[0]).dtype == np.float32


def test_auto_takes_cuda(data):
    assert small(max_epochs=1).fit(*data).device_.type == "cuda"


def test_cuda_predicts_what_the_cpu_predicts(tmp_path, data):
    clf = small(device="cuda", precision="float32").fit(*data)
    joblib.dump(clf, tmp_path / "model.joblib")
    script = (
        "import sys, joblib; from tests.helpers import bumps;"
        "print(joblib.load(sys.argv[1]).predict_proba(bumps()[0]).tobytes().hex())"
    )
    out = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "model.joblib"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        check=True,
        text=True,
    )
    assert "set_params(device='cpu')" in out.stderr
    on_cpu = np.frombuffer(bytes.fromhex(out.stdout.strip()), np.float32).reshape(-1, 2)
    assert np.allclose(on_cpu, clf.predict_proba(data[0]), atol=1e-3)


@pytest.mark.parametrize("strategy", ["learned", "zeros", "fixed", "random"])
def test_unequal_lengths_and_dropout_train_on_cuda(strategy, data):
    X = [x[: 12 + i % 9] for i, x in enumerate(data[0])]
    clf = small(device="cuda", cls_strategy=strategy, dropout=0.3).fit(X, data[1])
    assert clf.loss_curve_[-1] < clf.loss_curve_[0]
    attention = clf.cls_attention(X)
    assert np.allclose(attention.sum(-1), 1, atol=1e-3)


def test_same_random_state_same_probabilities_on_cuda(data):
    first, second = (small(device="cuda").fit(*data).predict_proba(data[0]) for _ in range(2))
    assert np.allclose(first, second, atol=1e-3)


def test_the_callers_cuda_generator_is_as_it_was(data):
    before = torch.cuda.get_rng_state()
    small(device="cuda", cls_strategy="random", dropout=0.3).fit(*data)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_strategies_start_from_the_cpus_weights_on_cuda(data):
    params = {"lr": 1e-30, "max_epochs": 1}
    cuda = small(device="cuda", **params).fit(*data).module_.head.weight.cpu()
    assert torch.equal(cuda, small(device="cpu", **params).fit(*data).module_.head.weight)


@pytest.mark.filterwarnings("ignore")  # the compiler warns of its own code
def test_compiled_blocks_learn_what_the_others_do_on_cuda(data):
    clf = small(device="cuda", compile=True, max_epochs=25).fit(*data)
    assert clf.score(*bumps(seed=1)) > 0.9


def test_training_data_are_kept_on_cuda():
    dataset = SequenceDataset.unlabelled(read_sequences(bumps()[0]))
    batches = Batches(dataset, 16, torch.device("cuda"))
    assert batches.kept.device.type == "cuda"
    assert next(iter(batches))[0]["x"].device.type == "cuda"


def test_a_batch_the_gpu_has_no_room_for_is_learnt_in_parts():
    X, y = bumps(n=256, n_steps=400)
    sizes = {"d_model": 256, "n_heads": 4, "dim_feedforward": 1024, "depth": 4, "patch_size": 1}
    clf = small(device="cuda", precision="float32", batch_size=256, max_epochs=1, **sizes)
    _, total = torch.cuda.mem_get_info()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2 * 2**30 / total)
    try:
        with pytest.warns(UserWarning, match="Out of memory on cuda"):
            clf.fit(X, y)
        assert clf.net_.n_parts > 1
        assert np.isfinite(clf.predict_proba(X)).all()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def test_a_fit_on_a_gpu_goes_on_from_its_checkpoint(data, tmp_path, monkeypatch):
    monkeypatch.setattr("sklearn_cls._persistence.checkpoint.INTERVAL", 0.0)
    monkeypatch.setattr("sklearn_cls._persistence.checkpoint.SHARE", np.inf)

    class Crash(Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 5:
                raise ZeroDivisionError

    params = {"device": "cuda", "precision": "float32", "embedding": "linear"}
    with pytest.raises(ZeroDivisionError):
        small(callbacks=[Crash()], **params).fit(*data, checkpoint=tmp_path / "checkpoint")
    resumed = small(**params).fit(*data, checkpoint=tmp_path / "checkpoint")
    whole = small(**params).fit(*data)
    assert resumed.n_iter_ == 8
    np.testing.assert_allclose(resumed.loss_curve_, whole.loss_curve_, rtol=1e-3)


def test_a_model_saved_on_a_gpu_loads_on_the_cpu(data, tmp_path):
    clf = small(device="cuda", precision="float32").fit(*data)
    clf.save(tmp_path / "model")
    loaded = type(clf).load(tmp_path / "model", device="cpu")
    assert loaded.device_.type == "cpu"
    np.testing.assert_allclose(loaded.predict_proba(data[0]), clf.predict_proba(data[0]), atol=1e-4)
