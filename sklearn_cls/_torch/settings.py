"""The settings of torch that the library uses, whatever those of the caller are."""

from contextlib import contextmanager, nullcontext

import torch

from sklearn_cls._torch.daemon_threads import computing
from sklearn_cls._torch.heap import kept_memory
from sklearn_cls._torch.threads import one_thread

try:  # There is no public name for it.
    from torch._functorch.pyfunctorch import (
        temporarily_clear_interpreter_stack as no_transforms,
    )
except ImportError:  # a version of torch in which it has moved
    no_transforms = nullcontext

AUTOCAST_DEVICES = ("cpu", "cuda", "mps")


@contextmanager
def torch_settings():
    """Use torch's default modes and one thread; then restore the settings of the calling thread.

    Gradients are enabled, and inference mode, autocast and transforms of `torch.func` are left.
    Settings of the whole process, such as `torch.set_float32_matmul_precision`, are the caller's:
    changing them would affect other threads.
    """
    with (
        computing(),
        kept_memory(),
        no_transforms(),
        torch.inference_mode(False),
        torch.enable_grad(),
        no_autocast(),
        one_thread(),
    ):
        yield


@contextmanager
def no_autocast():
    """Turn autocast off."""
    enabled = [device for device in AUTOCAST_DEVICES if torch.is_autocast_enabled(device)]
    for device in enabled:
        torch.set_autocast_enabled(device, False)
    try:
        yield
    finally:
        for device in enabled:
            torch.set_autocast_enabled(device, True)
