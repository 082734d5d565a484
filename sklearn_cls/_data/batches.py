"""Padded batches of sequences on the training device, grouped by length.

A batch is a pair of inputs, which are a dict of tensors, and class codes. If it would be mostly
padding, its sequences are divided into groups of similar length, and it is a pair of a list with
the inputs of each group and the class codes of all groups.

Shapes: n or B sequences, T steps, F features.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch.utils.data import Dataset

from sklearn_cls._data.sequences import Sequences
from sklearn_cls._torch.processes import ONE_PROCESS, Processes

LENGTH_JITTER = 0.15  # relative noise on lengths, so that batches differ between epochs
# Tokens of padding in a batch that take less time than the overhead of one more group.
MIN_PADDING, MIN_GPU_PADDING = 2**10, 2**16
MAX_CACHE_FRACTION = 0.25  # maximum fraction of the free GPU memory for the training data
# Steps of a prediction batch: few enough for the cache of a CPU core, enough to keep a GPU busy.
STEPS_PER_BATCH, STEPS_PER_GPU_BATCH = 2**13, 2**17
MIN_SHORT_SEQUENCES = 4  # smallest batch of short sequences, see `prediction_batch`
MAX_SHORT_STEPS = 16


@dataclass
class SequenceDataset(Dataset):
    """A subset of checked sequences, with labels and weights.

    Attributes
    ----------
    sequences : Sequences
    indices : ndarray of int, (n,)
        Indices into `sequences`.
    y : ndarray of int, (n,)
        Class codes.
    weights : ndarray of float32, (n,)
        Sample weights; `fit` scales them to mean 1 before the validation split.
    """

    sequences: Sequences
    indices: np.ndarray
    y: np.ndarray
    weights: np.ndarray

    @classmethod
    def unlabeled(cls, sequences):
        """Return a dataset of all sequences, with class code 0 and weight 1."""
        n = len(sequences)
        return cls(sequences, np.arange(n), np.zeros(n, dtype=int), np.ones(n, dtype=np.float32))

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, i):
        """Return ({"x": (T, F)}, class code), the form that skorch's callbacks expect."""
        return {"x": self.sequences.pad(self.indices[[i]])[0]}, self.y[i]

    @property
    def lengths(self):
        """Number of steps of each sequence, (n,)."""
        return self.sequences.lengths[self.indices]

    def take(self, i):
        """Return the dataset of the items `i`."""
        return SequenceDataset(self.sequences, self.indices[i], self.y[i], self.weights[i])

    def sorted_by_length(self):
        """Return the dataset sorted by length, so that batches in order have little padding."""
        return self.take(np.argsort(self.lengths, kind="stable"))

    def scaled(self, scaler):
        """Return a dataset whose sequences are standardized by `scaler`."""
        return replace(self, sequences=replace(self.sequences, scaler=scaler))

    def batch(self, i, device):
        """Return the items `i` as inputs and class codes."""
        inputs = padded_batch(self.sequences, self.indices[i], device)
        inputs["sample_weight"] = torch.from_numpy(self.weights[i]).to(device)
        return inputs, torch.from_numpy(self.y[i]).to(device)


class DeviceCache:
    """The items of a dataset on its training device, with the steps of all sequences concatenated.

    They are copied in batches of `batch_size`.
    """

    def __init__(self, dataset, batch_size, device):
        lengths = dataset.lengths
        ends = lengths.cumsum()
        arrays = (dataset.y, dataset.weights, lengths, ends - lengths)
        self.y, self.weights, self.lengths, self.starts = (
            torch.from_numpy(array).to(device) for array in arrays
        )  # (n,) each
        shape = (int(ends[-1]), dataset.sequences.n_features)
        self.steps = torch.empty(shape, dtype=torch.float32, device=device)
        order = np.argsort(lengths, kind="stable")
        for i in np.array_split(order, -(-len(order) // batch_size)):
            x, is_padding = padded_batch(dataset.sequences, dataset.indices[i], device).values()
            rows = self.rows(torch.from_numpy(i).to(device), x.shape[1])
            if is_padding is not None:
                x, rows = x[~is_padding], rows[~is_padding]
            self.steps[rows] = x

    def rows(self, i, n_steps):
        """Return the indices of the first `n_steps` steps of the items `i`, (B, T).

        Those of steps after the end of an item are of other items, or too large.
        """
        return self.starts[i].unsqueeze(1) + torch.arange(n_steps, device=i.device)

    def batches(self, groups, lengths):
        """Yield a padded batch for each array of items; the `lengths` are those of all items.

        The number of steps is rounded up, so that few shapes occur: the kernels of a shape that
        occurs often are launched as a CUDA graph. A single sequence is not padded, because batch
        norm would wait for the GPU to count its steps, which cannot be recorded in a graph.
        """
        # The indices are copied together, because each copy waits for the GPU.
        indices = torch.from_numpy(np.concatenate(groups)).to(self.steps.device)
        longest = int(lengths.max())
        for group, i in zip(groups, indices.split([len(i) for i in groups]), strict=True):
            n_steps = int(lengths[group].max())
            if len(group) > 1:
                n_steps = min(round_up(n_steps), longest)
            x, is_padding = self.steps[self.rows(i, n_steps).clamp(max=len(self.steps) - 1)], None
            if lengths[group].min() < n_steps:
                step = torch.arange(n_steps, device=i.device)
                is_padding = step >= self.lengths[i].unsqueeze(1)
                x = x.masked_fill(is_padding.unsqueeze(-1), torch.nan)
            yield {"x": x, "is_padding": is_padding, "sample_weight": self.weights[i]}, self.y[i]


@dataclass
class Batches:
    """The batches of a dataset: shuffled and augmented for training, in order for validation.

    Attributes
    ----------
    dataset : SequenceDataset
    batch_size : int
        Maximum number of sequences in a batch.
    device : torch.device
    rng : numpy.random.Generator or None
        Shuffles the sequences in each epoch. None keeps their order.
    augmentation : callable or None
        Called as `augmentation(inputs, y, generator)`; returns the new inputs. If a batch consists
        of groups, it is called with each of them.
    generator : torch.Generator or None
        Random number generator of the augmentation.
    patch_size : int
        Steps per token.
    processes : Processes
        The processes that share each batch. Each of them iterates over its own parts of all
        batches, which may be empty.
    """

    dataset: SequenceDataset
    batch_size: int
    device: torch.device
    rng: np.random.Generator | None = None
    augmentation: Callable | None = None
    generator: torch.Generator | None = None
    patch_size: int = 1
    processes: Processes = ONE_PROCESS

    def __len__(self):
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self):
        lengths, order = self.dataset.lengths, np.arange(len(self.dataset))
        if self.rng is not None:
            order = shuffled_by_length(lengths, self.rng)
        # Batches have nearly equal sizes, because the gradient of a last batch of one sequence
        # would be very noisy.
        batches = np.array_split(order, len(self))
        if self.rng is not None:
            self.rng.shuffle(batches)
        min_padding = MIN_GPU_PADDING if self.device.type == "cuda" else MIN_PADDING
        min_padding *= self.patch_size
        batches = [
            [i[group] for group in groups_of_similar_length(lengths[i], min_padding)]
            for i in batches
        ]
        own = [list(map(self.own_part, groups)) for groups in batches]
        padded = self.padded_groups(list(itertools.chain(*own)), lengths)
        for groups, parts in zip(batches, own, strict=True):
            inputs, y = zip(*itertools.islice(padded, len(groups)), strict=True)
            self.weight_part(inputs, parts, groups)
            yield (list(inputs), torch.cat(y)) if len(groups) > 1 else (inputs[0], y[0])

    def own_part(self, items):
        """Return those of some items that this process computes."""
        sequences = self.dataset.sequences
        if sequences.processes is not ONE_PROCESS:
            return items[sequences.is_held(self.dataset.indices[items])]
        # Neighbors have similar lengths, so all parts have nearly the same number of steps.
        return items[self.processes.rank :: self.processes.size]

    def weight_part(self, inputs, parts, groups):
        """Scale weights so that the sum of the mean losses of all processes is that of a batch."""
        n_own, n = sum(map(len, parts)), sum(map(len, groups))
        if n_own < n:
            for group in inputs:
                group["sample_weight"] = group["sample_weight"] * (n_own / n)

    def padded_groups(self, groups, lengths):
        """Yield the inputs and class codes of groups of items, each padded to one length."""
        if self.device_cache is None:
            padded = (self.dataset.batch(i, self.device) for i in groups)
        else:
            padded = self.device_cache.batches(groups, lengths)
        for inputs, y in padded:
            if self.augmentation is not None and len(y):
                inputs = self.augmentation(inputs, y, self.generator)
            yield inputs, y

    @cached_property
    def device_cache(self):
        """The sequences on the GPU as a `DeviceCache`, or None if they take too much memory.

        Each of several processes would copy all sequences, of which it needs a part.
        """
        if self.processes.size > 1:
            return None
        n_bytes = 4 * int(self.dataset.lengths.sum()) * self.dataset.sequences.n_features
        if n_bytes > MAX_CACHE_FRACTION * free_memory(self.device):
            return None
        return DeviceCache(self.dataset, self.batch_size, self.device)

    def state_dict(self):
        """Return the states of the random number generators."""
        return {
            "rng": None if self.rng is None else self.rng.bit_generator.state,
            "generator": None if self.generator is None else self.generator.get_state(),
        }

    def load_state_dict(self, state):
        """Restore the states that `state_dict` returned."""
        if self.rng is not None:
            self.rng.bit_generator.state = state["rng"]
        if self.generator is not None:
            self.generator.set_state(state["generator"])


def shuffled_by_length(lengths, rng):
    """Return a random order in which neighbors have similar lengths."""
    order = rng.permutation(len(lengths))
    if lengths.min() == lengths.max():
        return order
    jittered = lengths * rng.uniform(1 - LENGTH_JITTER, 1 + LENGTH_JITTER, len(lengths))
    return order[np.argsort(jittered[order], kind="stable")]


def groups_of_similar_length(lengths, min_padding):
    """Return the positions (B,) of the sequences of a batch as arrays, one per group.

    There is only one group unless more than half of the steps would be padding, and at least
    `min_padding` steps. Each group of several fulfills the same condition.
    """
    positions = np.arange(len(lengths))
    n_steps, longest = lengths.sum(), lengths.max()
    if len(lengths) * longest - n_steps < max(n_steps, min_padding):
        return [positions]
    # Among groups of the k shortest and of the other sequences, those with the least padding.
    order = np.argsort(lengths, kind="stable")
    saved_steps = (positions + 1) * (longest - lengths[order])
    k = int(saved_steps.argmax()) + 1
    return [
        part[group]
        for part in (order[:k], order[k:])
        for group in groups_of_similar_length(lengths[part], min_padding)
    ]


def round_up(n):
    """Return an integer rounded up to 3 significant bits, which adds less than a quarter."""
    unit = 2 ** max(0, n.bit_length() - 3)
    return -(-n // unit) * unit


def free_memory(device):
    """Return the free bytes of a CUDA device, or 0 for other devices, which need no cache."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def padded_batch(sequences, indices, device):
    """Return {"x": (B, T, F), "is_padding": (B, T), or None without padding} on the device."""
    if len(indices) == 0:
        return {"x": torch.empty(0, 1, sequences.n_features, device=device), "is_padding": None}
    x = torch.from_numpy(sequences.pad(indices)).to(device)
    return {"x": x, "is_padding": padding_mask(sequences.lengths[indices], device)}


def padding_mask(lengths, device):
    """Return a mask (B, T) that is True for padding, or None if the lengths are equal."""
    if lengths.min() == lengths.max():
        return None
    steps = np.arange(lengths.max())
    return torch.from_numpy(steps >= lengths[:, np.newaxis]).to(device)


def length_bucketed_batches(lengths, max_steps):
    """Return arrays of indices, sorted by length, of at most `max_steps` padded steps each.

    A sequence that is longer than `max_steps` is a batch of its own.
    """
    order = np.argsort(lengths, kind="stable")
    lengths = lengths[order]
    batches, start = [], 0
    while start < len(order):
        # Lengths ascend, so a batch of k sequences is padded to the length of the k-th.
        candidates = lengths[start : start + max_steps]
        padded_steps = candidates * np.arange(1, len(candidates) + 1)
        n_sequences = max(1, int(np.searchsorted(padded_steps, max_steps, side="right")))
        batches.append(order[start : start + n_sequences])
        start += n_sequences
    return batches


def prediction_batch(sequences, indices, device):
    """Return a padded batch; fewer than 4 short sequences are repeated until there are 4.

    Matrix products with 1 to 3 rows add in a different order than larger ones, so without this the
    result of a sequence would depend on how many are predicted with it. For long sequences the
    result may still differ by float32 rounding; repeating them would take too long.
    """
    if len(indices) < MIN_SHORT_SEQUENCES and sequences.lengths[indices[-1]] <= MAX_SHORT_STEPS:
        indices = np.resize(indices, MIN_SHORT_SEQUENCES)
    return padded_batch(sequences, indices, device)
