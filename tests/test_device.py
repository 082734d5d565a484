import os
import sys
import time

import pytest
import torch
from joblib import Parallel, delayed

from sklearn_cls._torch.device import (
    autocast,
    device_or_cpu,
    resolve_device,
)
from sklearn_cls._torch.launchers import worker_index


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_auto_is_the_cpu_without_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")


def test_workers_take_cuda_devices_in_turn(two_gpus, monkeypatch):
    taken = []
    for index in range(4):
        monkeypatch.setattr("sklearn_cls._torch.launchers.worker_index", lambda index=index: index)
        taken += [str(resolve_device(device)) for device in ("auto", "cuda")]
        assert str(resolve_device("cuda:1")) == "cuda:1"
    assert taken == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"] * 2


def test_a_process_of_torchrun_takes_the_device_of_its_local_rank(two_gpus, monkeypatch):
    for local_rank, device in (("0", "cuda:0"), ("1", "cuda:1"), ("3", "cuda:1")):
        monkeypatch.setenv("LOCAL_RANK", local_rank)
        assert str(resolve_device("auto")) == device


def test_a_worker_of_dask_cuda_takes_its_first_device(two_gpus, monkeypatch):
    monkeypatch.setattr("sklearn_cls._torch.launchers.worker_index", lambda: 1)
    assert str(resolve_device("cuda")) == "cuda:1"
    monkeypatch.setattr("sklearn_cls._torch.launchers.dask_worker", lambda: "a worker")
    assert str(resolve_device("cuda")) == "cuda:1"
    monkeypatch.setitem(sys.modules, "dask_cuda", None)
    assert str(resolve_device("cuda")) == "cuda:0"


def test_a_cuda_device_that_does_not_exist_raises(two_gpus):
    with pytest.raises(ValueError, match=r"device='cuda:2' is not available.* finds 2 CUDA"):
        resolve_device("cuda:2")


def process_and_worker_index(folder):
    """Return the process id and the worker index, after two workers have called this."""
    (folder / str(os.getpid())).touch()
    end = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    return os.getpid(), worker_index()


def test_the_workers_of_a_pool_have_different_indices(tmp_path):
    call = delayed(process_and_worker_index)
    (pid_1, index_1), (pid_2, index_2) = Parallel(n_jobs=2)(call(tmp_path) for _ in range(2))
    assert pid_1 != pid_2
    assert index_1 != index_2  # consecutive, unless this process has started others


def test_the_main_process_has_index_0():
    assert worker_index() == 0


def test_a_device_that_is_not_available_is_replaced_by_the_cpu_with_a_warning():
    with pytest.warns(UserWarning, match="device='cuda:99', which is not available here"):
        assert device_or_cpu("cuda:99") == torch.device("cpu")
    assert device_or_cpu("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_precision_is_the_dtype_of_matrix_products_on_the_cpu(precision, dtype):
    x = torch.ones(2, 2)
    with autocast(torch.device("cpu"), precision):
        assert (x @ x).dtype == dtype


def test_weights_are_converted_anew_after_an_update_inside_the_autocast_of_the_caller():
    weight = torch.ones(2, 2, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        for value in (1, 2):
            weight.data.fill_(value)
            with autocast(torch.device("cpu"), "bfloat16"):
                assert (torch.ones(2, 2) @ weight == 2 * value).all()
