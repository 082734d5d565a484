"""Sequences to padded batches on the device, grouped by length.

Shapes: B sequences, T steps, F features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch.utils.data import Dataset

from sklearn_cls._data.sequences import Sequences

LENGTH_JITTER = 0.15  # share of a length: keeps batches from being the same in every epoch
SHORT_STEPS = 16
MAX_CACHE_FRACTION = 0.25  # of the free memory of a GPU that the training data may take
# Of a batch that is only predicted: what a core's cache holds, and what keeps a GPU busy.
STEPS_PER_BATCH, STEPS_PER_GPU_BATCH = 2**13, 2**17


@dataclass
class SequenceDataset(Dataset):
    """Some rows of checked sequences, with what is to be learnt from them.

    Attributes
    ----------
    sequences : Sequences
    rows : ndarray of int, (n,)
        Which of them belong to this data set.
    y : ndarray of int, (n,)
        Class codes of the rows.
    weights : ndarray of float32, (n,)
        How much the loss of each counts; their mean over the training data is 1.
    """

    sequences: Sequences
    rows: np.ndarray
    y: np.ndarray
    weights: np.ndarray

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        """Return ({"x": (T, F)}, class code), as skorch's own tools index a data set."""
        return {"x": self.sequences.pad(self.rows[[i]])[0]}, self.y[i]

    @property
    def lengths(self):
        """Steps of each sequence, (n,)."""
        return self.sequences.lengths[self.rows]

    @classmethod
    def unlabelled(cls, sequences):
        """Return a data set of all sequences, with class code 0 and weight 1."""
        n = len(sequences)
        return cls(sequences, np.arange(n), np.zeros(n, dtype=int), np.ones(n, dtype=np.float32))

    def take(self, i):
        """Return the data set of items `i`."""
        return SequenceDataset(self.sequences, self.rows[i], self.y[i], self.weights[i])

    def batch(self, i, device, kept=None):
        """Return items `i` as skorch's pair of inputs and targets; `kept` are all on the device."""
        if kept is None:
            inputs = padded_batch(self.sequences, self.rows[i], device)
        else:
            lengths = self.lengths[i]
            x = kept[torch.from_numpy(i).to(device), : lengths.max()]
            inputs = {"x": x, "is_padding": mask_of_padding(lengths, device)}
        inputs["sample_weight"] = torch.from_numpy(self.weights[i]).to(device)
        return inputs, torch.from_numpy(self.y[i]).to(device)


@dataclass
class Batches:
    """The batches of a data set, in order unless they are to be learnt from.

    Attributes
    ----------
    dataset : SequenceDataset
    batch_size : int
        Sequences of a batch, at most.
    device : torch.device
    rng : numpy.random.Generator or None
        Shuffles anew in each pass.
    augmentation : callable or None
        Varies the inputs of a batch by a generator, see `augment`.
    generator : torch.Generator or None
        Of the augmentation.
    """

    dataset: SequenceDataset
    batch_size: int
    device: torch.device
    rng: np.random.Generator | None = None
    augmentation: Callable | None = None
    generator: torch.Generator | None = None

    def __len__(self):
        return -(-len(self.dataset) // self.batch_size)

    @cached_property
    def kept(self):
        """All sequences padded on a GPU, (n, T, F), if they fit there; else None."""
        n, n_steps = len(self.dataset), self.dataset.lengths.max()
        sequences = self.dataset.sequences
        if 4 * n * n_steps * sequences.n_features > MAX_CACHE_FRACTION * free_memory(self.device):
            return None
        kept = torch.full(
            (n, n_steps, sequences.n_features), torch.nan, dtype=torch.float32, device=self.device
        )
        for i in np.array_split(np.arange(n), -(-n // self.batch_size)):
            x = torch.from_numpy(sequences.pad(self.dataset.rows[i]))
            kept[i[0] : i[-1] + 1, : x.shape[1]] = x.to(self.device)
        return kept

    def __iter__(self):
        order = np.arange(len(self.dataset))
        if self.rng is not None:
            order = shuffled_by_length(self.dataset.lengths, self.rng)
        # Of nearly equal sizes: a last batch of one sequence would be a wild update.
        batches = np.array_split(order, len(self))
        if self.rng is not None:
            self.rng.shuffle(batches)
        for i in batches:
            inputs, y = self.dataset.batch(i, self.device, self.kept)
            if self.augmentation is not None:
                inputs = self.augmentation(inputs, self.generator)
            if "partner" in inputs:  # so that a part of the batch has all it needs
                partner = inputs["partner"]
                weight = inputs["sample_weight"][partner]
                inputs = {**inputs, "partner_y": y[partner], "partner_weight": weight}
            yield inputs, y

    def random_state(self):
        """Return how far the streams of random numbers are."""
        generator = None if self.generator is None else self.generator.get_state()
        return {"order": self.rng.bit_generator.state, "augmentation": generator}

    def set_random_state(self, state):
        """Go on where `random_state` was."""
        self.rng.bit_generator.state = state["order"]
        if self.generator is not None:
            self.generator.set_state(state["augmentation"])


def shuffled_by_length(lengths, rng):
    """Return a random order in which neighbours have about the same length."""
    order = rng.permutation(len(lengths))
    if lengths.min() == lengths.max():
        return order
    jittered = lengths * rng.uniform(1 - LENGTH_JITTER, 1 + LENGTH_JITTER, len(lengths))
    return order[np.argsort(jittered[order], kind="stable")]


def free_memory(device):
    """Return the free bytes of a GPU; other devices keep nothing."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def padded_batch(sequences, rows, device):
    """Return {"x": (B, T, F), "is_padding": (B, T) or None if there is none} on the device."""
    x = torch.from_numpy(sequences.pad(rows)).to(device)
    return {"x": x, "is_padding": mask_of_padding(sequences.lengths[rows], device)}


def mask_of_padding(lengths, device):
    """Return what follows the end of each sequence, (B, T), None if nothing does."""
    if lengths.min() == lengths.max():
        return None
    steps = np.arange(lengths.max())
    return torch.from_numpy(steps >= lengths[:, np.newaxis]).to(device)


def length_bucketed_batches(lengths, max_length):
    """Return arrays of rows, the shortest sequences first, of at most `max_length` when padded."""
    order = np.argsort(lengths, kind="stable")
    lengths = lengths[order]
    batches, start = [], 0
    while start < len(order):
        # The last of a batch is its longest: as many as fit when padded to that length.
        ahead = lengths[start : start + max_length]
        steps = ahead * np.arange(1, len(ahead) + 1)
        n_rows = max(1, int(np.searchsorted(steps, max_length, side="right")))
        batches.append(order[start : start + n_rows])
        start += n_rows
    return batches


def prediction_batch(sequences, rows, device):
    """Return the batch of some rows, filled up to 4 by repeating them if they are short.

    Matrix kernels sum 1 to 3 rows in another order, and a sequence should give the same digits
    alone as among others. Long ones would pay for it; theirs agree to float32 rounding.
    """
    is_short = len(rows) < 4 and sequences.lengths[rows[-1]] <= SHORT_STEPS
    return padded_batch(sequences, np.resize(rows, 4) if is_short else rows, device)
