"""Where torch runs and with what: device, precision, compiler, gradients, seeds.

All of it is scoped: nothing the caller set is different afterwards.
"""

import multiprocessing
import warnings
from contextlib import contextmanager

import torch


def resolve_device(device):
    """Return the `torch.device` that `device` names here.

    "auto" is CUDA if there is any, else the CPU; MPS is used when asked for. With several
    CUDA devices, parallel workers of a search take them in turn.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device must be 'auto', 'cpu', 'cuda', 'cuda:<number>' or 'mps', got {device!r}."
        ) from error
    if device.type == "cuda":
        n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if device.index is None:
            device = torch.device("cuda", worker_number() % max(n_devices, 1))
        if device.index >= n_devices:
            raise ValueError(
                f"device={str(device)!r} is not there: torch {torch.__version__} sees "
                f"{n_devices} CUDA device(s); set device='auto' to use what there is."
            )
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device='mps' is not there; set device='auto' to use what there is.")
    elif device.type not in ("cpu", "mps"):
        raise ValueError(
            f"device must be 'auto', 'cpu', 'cuda', 'cuda:<number>' or 'mps', got {str(device)!r}."
        )
    return device


def worker_number():
    """Return this process's number among the workers of its pool, 0 in the main process."""
    identity = multiprocessing.current_process()._identity  # (number of the child, from 1, ...)
    return identity[-1] - 1 if identity else 0


def device_or_cpu(device):
    """Return `device` if it is there, else the CPU with a warning: a model from elsewhere."""
    try:
        return resolve_device(device)
    except ValueError:
        warnings.warn(
            f"This model was trained on device={device!r}, which is not there: it runs on the "
            "CPU from here on. set_params(device='cpu') makes later fits do so too.",
            UserWarning,
            stacklevel=2,
        )
        return torch.device("cpu")


def autocast(device, precision):
    """Return the autocast context of `precision` ("auto", "float32", "bfloat16")."""
    if precision == "auto":
        has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        precision = "bfloat16" if has_bfloat16 else "float32"
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


@contextmanager
def gradients():
    """Allow them, also for a caller in `no_grad` or `inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield
