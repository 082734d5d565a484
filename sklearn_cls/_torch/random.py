"""Random numbers: seeds, and initial weights without torch's global generator."""

from contextlib import contextmanager

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

SAMPLING_FUNCTIONS = (torch.randn, torch.Tensor.normal_, torch.Tensor.uniform_)
FLOAT_FACTORIES = (torch.empty, torch.ones, torch.randn, torch.zeros)


class InitialWeights(TorchFunctionMode):
    """A context in which the calling thread creates float32 weights, drawn from `generator`.

    The layers of torch draw their initial weights from the global generator, and create them in the
    default dtype; both belong to the caller, and all threads of the process share them.
    """

    def __init__(self, generator):
        super().__init__()
        self.generator = generator

    def __torch_function__(self, function, types, args=(), kwargs=None):
        """Call `function` with the generator and the dtype, if it accepts them and has none."""
        kwargs = kwargs or {}
        if function in FLOAT_FACTORIES and kwargs.get("dtype") is None:
            kwargs["dtype"] = torch.float32
        if function in SAMPLING_FUNCTIONS or "generator" in kwargs:
            kwargs["generator"] = kwargs.get("generator") or self.generator
        return function(*args, **kwargs)


@contextmanager
def initial_weights(seed):
    """Draw initial weights with `seed` on the CPU, so that they are the same on every device."""
    with torch.device("cpu"), InitialWeights(torch.Generator("cpu").manual_seed(seed)):
        yield


def draw_seed(random_state, n_epochs_trained=0):
    """Return a seed from `random_state`; with None, from the entropy of the operating system.

    A fit that continues after `n_epochs_trained` epochs gets a different seed from the same int.
    """
    if isinstance(random_state, np.random.RandomState):
        random_state = random_state.randint(2**31 - 1)
    entropy = None if random_state is None else (int(random_state), n_epochs_trained)
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)
