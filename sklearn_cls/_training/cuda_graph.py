"""CUDA graphs, which launch all kernels of a function with a single call.

In small networks, a kernel runs for 1 to 3 microseconds, but its launch takes 7 or more. A graph
records the kernels of one call of a function and launches them again for other values [1].

[1] https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

import threading
from collections import Counter
from functools import cache

import torch

MIN_CALLS = 10  # of the function before the first capture
MIN_CALLS_PER_SHAPE = 3  # a capture takes longer than a call
MAX_GRAPHS = 32  # each has gradients of its own
# Modules of threads that manage processes and remain alive after a parallel search.
PROCESS_POOLS = ("concurrent.futures.process", "joblib.externals.loky.process_executor")


class GraphedFunction:
    """A function of a batch that replays one CUDA graph per shape; elsewhere, the function itself.

    The first calls, rare shapes, and calls that a graph would not repeat exactly run normally.

    Parameters
    ----------
    function : callable
        Called as `function(inputs, y, *args)`, with a dict of tensors and perhaps None, and a
        tensor; returns such a dict. It must not wait for the GPU. From call `MIN_CALLS` on, its
        kernels may depend on nothing but values and shapes of tensors.
    device : torch.device
        With an index if it is a CUDA device.
    generators : list of torch.Generator
        All generators that the function draws from.
    module : nn.Module or None
        Module whose gradients the function computes. They must be None before each call.
    """

    def __init__(self, function, device, generators, module=None):
        self.function, self.device, self.generators = function, device, generators
        self.modules = [] if module is None else list(module.modules())
        self.parameters = [] if module is None else list(module.parameters())
        self.is_enabled = device.type == "cuda"
        self.graphs, self.n_calls = {}, Counter()
        self.pool = None  # memory that the graphs share, since only one of them runs at a time

    def __call__(self, inputs, y, *args):
        """Return the result of the function for a batch."""
        if not self.is_enabled:
            return self.function(inputs, y, *args)
        try:
            graph = self.find_or_capture(inputs, y, *args)
            if graph is not None:
                return graph.replay(inputs, y)
            return self.function(inputs, y, *args)
        except RuntimeError:  # out of memory, or an operation that cannot be captured
            if self.pool is None:
                raise
        # The retry is outside the except clause, whose exception keeps the tensors alive.
        self.disable()
        return self.function(inputs, y, *args)

    def find_or_capture(self, inputs, y, *args):
        """Return the graph for the shapes of a batch, or None if it should not be replayed."""
        if not self.can_replay():
            return None
        shapes = [(name, None if x is None else x.shape) for name, x in inputs.items()]
        key = (y.shape, *shapes, *(p.requires_grad for p in self.parameters))
        graph = self.graphs.get(key)
        if graph is None:
            is_frequent = self.n_calls[key] >= MIN_CALLS_PER_SHAPE
            is_first_calls = self.n_calls.total() < MIN_CALLS
            self.n_calls[key] += 1
            if is_first_calls or not is_frequent or len(self.graphs) == MAX_GRAPHS:
                return None
            if other_threads_may_use_torch():
                return None
            self.pool = self.pool or torch.cuda.graph_pool_handle()
            graph = self.graphs[key] = Graph(self, inputs, y, *args)
        return graph

    def disable(self):
        """Release the graphs, and undo what a failed call has left behind."""
        self.is_enabled = False
        self.graphs.clear()
        for parameter in self.parameters:
            parameter.grad = None
        # A failed capture leaves the states of its generators unusable, that of torch included.
        for generator in (*self.generators, torch.cuda.default_generators[self.device.index]):
            generator.graphsafe_set_state(generator.clone_state())

    def can_replay(self):
        """Return whether a graph would do the same as the function.

        It would not call hooks, nor would it detect anomalies. All graphs use the same workspace of
        cuBLAS, so they run on one stream.
        """
        return (
            torch.cuda.current_stream(self.device) == torch.cuda.default_stream(self.device)
            and not torch.is_anomaly_enabled()
            and not any(map(has_hooks, self.modules))
        )


class Graph:
    """The kernels of one call of a `GraphedFunction`, with the tensors that they read and write."""

    def __init__(self, graphed, inputs, y, *args):
        self.parameters = graphed.parameters
        self.inputs, self.y = copies(inputs), y.clone()
        self.graph = torch.cuda.CUDAGraph()
        for generator in graphed.generators:
            self.graph.register_generator_state(generator)
        capture = torch.cuda.graph(
            self.graph,
            pool=graphed.pool,
            stream=capture_stream(graphed.device),
            capture_error_mode="thread_local",  # other threads may allocate memory
        )
        # After an error in a capture, PyTorch does not restore the stream.
        restore_stream = torch.cuda.stream(torch.cuda.current_stream(graphed.device))
        with restore_stream, capture:
            self.outputs = graphed.function(self.inputs, self.y, *args)
        self.gradients = [parameter.grad for parameter in self.parameters]

    def replay(self, inputs, y):
        """Run the kernels on a batch; return copies of the outputs, and set the gradients."""
        for name, value in inputs.items():
            if value is not None:
                self.inputs[name].copy_(value)
        self.y.copy_(y)
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return copies(self.outputs)


def other_threads_may_use_torch():
    """Return whether other threads of the caller may use torch while a graph is captured.

    In every thread, a capture makes drawing from torch's generator and synchronizing the device
    fail. Daemon threads, such as those of notebooks and progress bars, do neither.
    """
    main = threading.main_thread()
    return threading.current_thread() is not main or any(
        not thread.daemon and type(thread).__module__ not in PROCESS_POOLS
        for thread in threading.enumerate()
        if thread is not main
    )


def copies(tensors):
    """Return copies of the tensors in a dict."""
    return {name: None if x is None else x.clone() for name, x in tensors.items()}


def has_hooks(module):
    """Return whether hooks are registered on a module."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


@cache
def capture_stream(device):
    """Return the stream of all captures on a device; every further one would use more memory."""
    return torch.cuda.Stream(device)
