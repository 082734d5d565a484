"""The processes of one fit, and what they compute together.

A fit in several processes is data-parallel: each computes the gradient of its own part of every
batch, and the sum of all gradients updates the weights, which are the same in all processes.
"""

from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist


class LostProcessError(RuntimeError):
    """Another process of the fit has ended, or has not answered in time."""


class Processes:
    """The processes of a fit in a single process, in which nothing has to be combined.

    Attributes
    ----------
    rank : int
        Number of this process, from 0.
    size : int
        Number of processes.
    stop_requested : bool
        Whether Ctrl-C, in this process or in the client of a cluster, is to end the training.
    """

    rank, size = 0, 1
    stop_requested = False

    def gather(self, value):
        """Return the values of all processes, in the order of their ranks."""
        return [value]

    def merge(self, values):
        """Return the union of the dicts of all processes, sorted by their keys."""
        merged = {key: value for part in self.gather(values) for key, value in part.items()}
        return {key: merged[key] for key in sorted(merged)}

    def broadcast(self, value):
        """Return the value of the process with rank 0."""
        return value

    def sum_(self, tensor):
        """Replace a tensor by its sum over all processes, and return it."""
        return tensor

    def seed(self, seed):
        """Return the seed of random numbers that differ between the processes.

        That of rank 0 is `seed`, as in a single process.
        """
        if self.rank == 0:
            return seed
        return int(np.random.SeedSequence((seed, self.rank)).generate_state(1)[0] >> 1)

    def call_in_first(self, function, *args):
        """Call a function in the process with rank 0; in all, return its result or raise its error.

        Results and errors must be picklable.
        """
        result = error = None
        if self.rank == 0:
            try:
                result = function(*args)
            except Exception as e:
                error = e
        result, error = self.broadcast((result, error))
        if error is not None:
            raise error
        return result

    def __reduce__(self):
        """Copies and pickles belong to no other process."""
        return "ONE_PROCESS"


ONE_PROCESS = Processes()


class ProcessGroup(Processes):
    """The processes of a group of `torch.distributed`.

    Parameters
    ----------
    timeout : float
        Seconds after which a process that does not answer counts as lost.
    group : torch.distributed.ProcessGroup or None
        None is the default group.
    """

    def __init__(self, timeout, group=None):
        self.timeout, self.group = timeout, group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    def gather(self, value):
        """Return the values of all processes, in the order of their ranks."""
        values = [None] * self.size
        with self._errors_of_others():
            dist.all_gather_object(values, value, self.group)
        return values

    def broadcast(self, value):
        """Return the value of the process with rank 0."""
        values = [value]
        with self._errors_of_others():
            dist.broadcast_object_list(values, 0, self.group)
        return values[0]

    def sum_(self, tensor):
        """Replace a tensor by its sum over all processes, and return it."""
        with self._errors_of_others():
            dist.all_reduce(tensor, group=self.group)
        return tensor

    @contextmanager
    def _errors_of_others(self):
        """Turn errors of the communication into LostProcessError."""
        try:
            yield
        except RuntimeError as error:
            raise LostProcessError(
                f"Process {self.rank} of {self.size} has lost another one, which has ended or has "
                f"not answered for {self.timeout:g} seconds: {error}"
            ) from error


class SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes, through which gradients flow back to all of them."""

    @staticmethod
    def forward(ctx, tensor, processes):
        """Return the sum."""
        ctx.processes = processes
        return processes.sum_(tensor.clone())

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradient: the loss is the sum of those of all processes."""
        return ctx.processes.sum_(gradient.clone()), None
