"""The computation of `predict_proba` as one module, from the values of X to the probabilities.

Shapes: B sequences, T steps, F features, D `d_model`, K classes.
"""

from copy import deepcopy

import torch
from torch import nn

from sklearn_cls._data.columns import CLOCK, CODE
from sklearn_cls._data.scaler import MAX_INPUT

N_EXAMPLES, MIN_EXAMPLE_PATCHES = 3, 5  # of the example that is traced
OUTPUTS = ("probabilities", "label", "cls_embedding")  # "embedding" is the name of an operation


class PredictionGraph(nn.Module):
    """Computes the probabilities, the most probable class and the [CLS] vector of sequences.

    Parameters
    ----------
    model : FittedModel
    """

    def __init__(self, model):
        super().__init__()
        self.network = deepcopy(model.module).cpu().eval().requires_grad_(requires_grad=False)
        mean, _, inverse, factor = model.net.scaler.constants
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("inverse", torch.from_numpy(inverse))
        self.register_buffer("factor", None if factor is None else torch.from_numpy(factor))
        kinds = model.features.kinds
        self.order = None
        if kinds is not None:  # The network takes the codes last.
            self.order = sorted(range(len(kinds)), key=lambda j: kinds[j] == CODE)

    def forward(self, x):
        """Return probabilities (B, K), class indices (B,) and [CLS] vectors (B, D).

        `x` is (B, T, F), float32; missing values, and the steps after the end of a sequence, are
        NaN.
        """
        steps = torch.arange(x.shape[1], device=x.device)
        is_known = ~x.isnan().all(-1)  # (B, T)
        is_padding = steps > (steps * is_known).amax(1, keepdim=True)
        embedding = self.network.embed(self.standardized(x), is_padding)
        probabilities = self.network.head(embedding).softmax(-1)
        return probabilities, probabilities.argmax(-1), embedding

    def standardized(self, x):
        """Return the inputs of the network for values (B, T, F), see `Scaler`."""
        if self.order is not None:
            x = x[..., self.order]
        x = x.double()
        if self.factor is not None:
            x = x * self.factor
        return ((x - self.mean) * self.inverse).float().clamp(-MAX_INPUT, MAX_INPUT)

    @property
    def example(self):
        """Sequences with which the graph is traced; their number and length are not special."""
        n_steps = self.network.embedding.patch_size * MIN_EXAMPLE_PATCHES + 1
        return torch.zeros(N_EXAMPLES, n_steps, len(self.mean))


def check_can_be_exported(model):
    """Raise ValueError if the inputs of a model are computed from something that no graph takes."""
    if CLOCK in (model.features.kinds or ()):
        names = model.features.names
        j = model.features.kinds.index(CLOCK)
        name = j if names is None else names[j]
        raise ValueError(
            f"The model cannot be exported, because feature {name!r} is a clock: its inputs are "
            "computed from dates in float64, for which the exported graph has no type. Pass the "
            "time since the start of the sequence to fit as a number instead."
        )


def exported_program(model):
    """Return the `torch.export.ExportedProgram` of a model, for any number and length of sequences.

    Sequences need at least one step.
    """
    graph = PredictionGraph(model).eval()
    shapes = {"x": {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}}
    return torch.export.export(graph, (graph.example,), dynamic_shapes=shapes)
