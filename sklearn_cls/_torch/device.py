"""Device and precision: chosen here, without changing the caller's settings."""

import warnings

import torch

from sklearn_cls._torch.launchers import gpu_index


def resolve_device(device):
    """Return the `torch.device` of the parameter `device`.

    "auto" is CUDA if available, otherwise the CPU. With several CUDA devices, that of a process is
    chosen by `gpu_index`.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise ValueError(_unknown_device(device)) from error
    if device.type == "cuda":
        n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if device.index is None:
            device = torch.device("cuda", gpu_index() % max(n_devices, 1))
        if device.index >= n_devices:
            raise ValueError(
                f"device={str(device)!r} is not available: torch {torch.__version__} finds "
                f"{n_devices} CUDA device(s); set device='auto' to use what is available."
            )
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(
            "device='mps' is not available; set device='auto' to use what is available."
        )
    elif device.type not in ("cpu", "mps"):
        raise ValueError(_unknown_device(str(device)))
    return device


def _unknown_device(device):
    return f"device must be 'auto', 'cpu', 'cuda', 'cuda:<number>' or 'mps', got {device!r}."


def device_or_cpu(device):
    """Return `device` if it is available, otherwise the CPU with a warning."""
    try:
        return resolve_device(device)
    except ValueError:
        warnings.warn(
            f"This model was trained on device={device!r}, which is not available here: it is "
            "moved to the CPU. Call set_params(device='cpu') to fit it there as well.",
            UserWarning,
            stacklevel=2,
        )
        return torch.device("cpu")


def autocast(device, precision):
    """Return the autocast context of `precision`, "float32" or "bfloat16".

    Weights that autocast has converted are not cached: the cache would outlive an update inside the
    caller's autocast.
    """
    is_enabled = precision == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, is_enabled, cache_enabled=False)
