"""Random numbers: seeds, and initial weights that leave torch's global generator alone."""

from contextlib import contextmanager

import numpy as np
import torch
from torch.overrides import TorchFunctionMode


class DrawFrom(TorchFunctionMode):
    """A context in which random numbers come from `generator`, in the calling thread alone.

    Layers draw their weights from torch's global generator, which is the process's.
    """

    def __init__(self, generator):
        super().__init__()
        self.generator = generator

    def __torch_function__(self, function, types, args=(), kwargs=None):
        """Call `function`, with the generator if it can have one and has none."""
        kwargs = kwargs or {}
        if function in DRAWS or "generator" in kwargs:
            kwargs["generator"] = kwargs.get("generator") or self.generator
        return function(*args, **kwargs)


DRAWS = (torch.randn, torch.Tensor.normal_, torch.Tensor.uniform_)


@contextmanager
def initial_weights(seed):
    """Draw initial weights from `seed`, on the CPU, the same for every device."""
    with torch.device("cpu"), DrawFrom(torch.Generator("cpu").manual_seed(seed)):
        yield


def draw_seed(random_state, n_epochs_before=0):
    """Return a seed from `random_state`; None draws from the operating system's entropy.

    Training that goes on after `n_epochs_before` gets another seed from the same int.
    """
    if isinstance(random_state, np.random.RandomState):
        random_state = random_state.randint(2**31 - 1)
    entropy = None if random_state is None else (int(random_state), n_epochs_before)
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)
