"""The gradient of a batch that several processes compute, and what they decide together.

All processes must take part in every sum, in the same order. So each of them learns from the sums
themselves whether another one has run out of memory, or was asked to stop.
"""

import torch

from sklearn_cls._network.embedding import PatchBatchNorm
from sklearn_cls._torch.processes import SumOverProcesses
from sklearn_cls._training.callbacks import StopTraining


class GradientSum:
    """A context in which a net trains on the batches of several processes.

    Batch norm then uses the statistics of the whole batch. In a single process, nothing is done.

    Parameters
    ----------
    net : Net
    """

    def __init__(self, net):
        self.net, self.processes = net, net.processes
        is_alone = self.processes.size == 1
        modules = () if is_alone else net.module_.modules()
        self.norms = [module for module in modules if isinstance(module, PatchBatchNorm)]
        self.n_sums = 0  # of batch norm in the current batch, in the forward and backward pass

    def __enter__(self):
        for norm in self.norms:
            norm.sum_over_processes = self.sum_of_norm
        return self

    def __exit__(self, *error):
        for norm in self.norms:
            del norm.sum_over_processes

    @property
    def requests(self):
        """Whether this process was asked to stop by a callback, and by Ctrl-C."""
        return self.net.stop_requested, self.processes.stop_requested

    def sum_of_norm(self, sums):
        """Return the sum of a vector of batch norm over all processes; it is differentiable."""
        return SumOverProcesses.apply(sums, self)

    def sum_(self, tensor):
        """Sum a vector of batch norm."""
        self.n_sums += 1
        return self.processes.sum_(tensor)

    def finish(self, is_out_of_memory, n_micro_batches):
        """Sum the gradients of a batch; return whether some process ran out of memory.

        Parameters
        ----------
        is_out_of_memory : bool
            Whether this process did.
        n_micro_batches : int
            Number of micro-batches of the whole batch.
        """
        if self.processes.size == 1:
            return is_out_of_memory
        if is_out_of_memory:  # The other processes still wait for its sums.
            self.finish_norms(2 * len(self.norms) * n_micro_batches)
        self.n_sums = 0
        gradients = self.gradients(is_out_of_memory)
        flat = [gradient.flatten() for gradient in gradients]
        flags = torch.tensor([is_out_of_memory, *self.requests], dtype=torch.float32)
        total = self.processes.sum_(torch.cat([*flat, flags.to(flat[0].device)]))
        sizes = [len(part) for part in flat]
        *flat, flags = total.split([*sizes, len(flags)])
        is_out_of_memory, *requests = flags.tolist()
        if is_out_of_memory:
            return True
        raise_requests(*requests)
        torch._foreach_copy_(
            gradients, [part.view_as(g) for part, g in zip(flat, gradients, strict=True)]
        )
        return False

    def gradients(self, is_out_of_memory):
        """Return the gradients of all parameters; zeros if this process ran out of memory."""
        groups = self.net.optimizer_.param_groups
        parameters = [p for group in groups for p in group["params"] if p.requires_grad]
        if is_out_of_memory:
            return [torch.zeros_like(p) for p in parameters]
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]

    def finish_norms(self, n_sums):
        """Take part in those of the `n_sums` sums of a batch that are left."""
        while self.n_sums < n_sums:
            norm = self.norms[0]
            self.sum_(torch.zeros(2 * norm.num_features + 1, device=norm.weight.device))

    def sum_of_epoch(self, losses, sizes, n_correct):
        """Return the losses and sizes of all batches of an epoch, and the number of correct ones.

        Each is a sum over all processes.
        """
        net = self.net
        if self.processes.size == 1:
            return losses, sizes, n_correct
        values = torch.tensor([*losses, *sizes, n_correct, *self.requests], dtype=torch.float64)
        *values, n_correct, is_stopped, is_interrupted = self.processes.sum_(values).tolist()
        net.n_micro_batches = max(self.processes.gather(net.n_micro_batches))
        raise_requests(is_stopped, is_interrupted)
        n = len(losses)
        return values[:n], list(map(int, values[n:])), n_correct

    def raise_requests(self):
        """Raise what was asked for in some process since the last sum."""
        if self.processes.size > 1:
            raise_requests(*self.processes.sum_(torch.tensor(self.requests, dtype=torch.float32)))


def raise_requests(is_stopped, is_interrupted):
    """Raise KeyboardInterrupt or StopTraining if some process was asked to stop."""
    if is_interrupted:
        raise KeyboardInterrupt
    if is_stopped:
        raise StopTraining
