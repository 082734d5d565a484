"""The network trained through skorch: batches, optimiser, schedule, interrupts.

Shapes: B sequences, T steps, K classes.
"""

import itertools
import math
import warnings
from contextlib import suppress
from copy import deepcopy
from functools import partial

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import EpochTimer, PassthroughScoring
from skorch.helper import predefined_split
from skorch.history import History
from skorch.utils import TeeGenerator
from torch import nn

from sklearn_cls._data.augment import augment
from sklearn_cls._data.batches import (
    STEPS_PER_BATCH,
    STEPS_PER_GPU_BATCH,
    Batches,
    SequenceDataset,
    prediction_batch,
    length_bucketed_batches,
)
from sklearn_cls._data.sequences import read_sequences
from sklearn_cls._network.dropout import seed_generators
from sklearn_cls._network.encoder import CLSEncoder
from sklearn_cls._torch.device import autocast, device_or_cpu
from sklearn_cls._torch.random import initial_weights
from sklearn_cls._torch.threads import (
    ELEMENTS_PER_THREAD,
    resolve_n_threads,
    thread_local_num_threads,
    parallel_map,
    torch_threads,
)
from sklearn_cls._training.callbacks import EpochBar, ScikitLearnCallbacks, StopTraining
from sklearn_cls._training.divergence import DivergenceError

MAX_GRADIENT_NORM = 1.0
MAX_ABS_WEIGHT = 1e3  # beyond it, float32 overflows somewhere; none that learns comes near
NEVER_ASK = (EpochBar, EpochTimer, PassthroughScoring, ScikitLearnCallbacks)


class Net(NeuralNetClassifier):
    """skorch's net on padded batches, without the work of its defaults that nobody asked for.

    Parameters
    ----------
    seed : int
        Of the initial weights, the dropout masks, the token and the order of batches.
    precision : {"auto", "float32", "bfloat16"}
    augment : bool
        Whether to warp and splice what is learnt from.
    weight_decay : float
        Of matrices; biases, norms, positions and the token are exempt.
    warmup_fraction : float or None
        Share of all updates in which the step size rises to `lr`, to fall along half a cosine
        after it; None keeps it at `lr`.
    n_updates : int
        All updates of this training; 0 needs no optimiser.
    n_epochs_before : int
        Passes made before this training, by the nets it goes on from.
    **kwargs
        Of `skorch.NeuralNetClassifier`.
    """

    def __init__(
        self, *args, seed=0, precision="auto", augment=False, weight_decay=0.0,
        warmup_fraction=None, n_updates=1, n_epochs_before=0, **kwargs,
    ):  # fmt: skip
        self.seed, self.precision, self.augment = seed, precision, augment
        self.weight_decay, self.warmup_fraction = weight_decay, warmup_fraction
        self.n_updates, self.n_epochs_before = n_updates, n_epochs_before
        super().__init__(*args, **kwargs)
        self.n_parts = 1  # in which a batch is computed, where memory is short
        self.goes_on_from = None  # SHA-256 of the weights at the start of an interrupted training

    @property
    def _default_callbacks(self):
        return [
            ("epoch_timer", EpochTimer()),
            ("train_loss", PassthroughScoring("train_loss", on_train=True)),
            ("valid_loss", PassthroughScoring("valid_loss")),
        ]

    def check_data(self, X, y=None):
        """Do nothing: the data are checked."""

    def initialize_module(self):
        """Build the network from `seed`, and give its random layers generators of their own."""
        with initial_weights(self.seed):
            super().initialize_module()
        self.module_.to(self.device)
        seed_generators(self.module_, self.seed)
        return self

    def initialize_optimizer(self, triggered_directly=None):
        """Build AdamW and its schedule."""
        if self.n_updates == 0:  # torch takes seconds to import what its first optimiser needs
            return self
        decay = {True: [], False: []}
        for name, p in self.module_.named_parameters():
            # No weight decay on the token: it would pull [CLS] towards 0, where its query
            # selects nothing.
            decay[p.ndim > 1 and name != "embedding.position"].append(p)
        groups = [
            {"params": decay[True], "weight_decay": self.weight_decay},
            {"params": decay[False], "weight_decay": 0.0},
        ]
        lr = self.lr * self.share_of_lr(0)
        self.optimizer_ = torch.optim.AdamW(groups, lr=lr, fused=True)
        # By a factor at each update, so that the schedule of a callback multiplies with it.
        self.schedule_ = torch.optim.lr_scheduler.MultiplicativeLR(
            self.optimizer_, lambda i: self.share_of_lr(i) / self.share_of_lr(i - 1)
        )
        return self

    def share_of_lr(self, update):
        """Return the share of `lr` at which update number `update` is made."""
        if self.warmup_fraction is None:
            return 1.0
        n_warmup = math.ceil(self.warmup_fraction * self.n_updates)
        if update < n_warmup:
            return (update + 1) / n_warmup
        progress = (update - n_warmup) / (self.n_updates + 1 - n_warmup)  # below 1
        return 0.5 * (1 + math.cos(math.pi * progress))

    def get_dataset(self, X, y=None):
        """Return sequences as a data set."""
        if isinstance(X, SequenceDataset):
            return X
        return SequenceDataset.unlabelled(read_sequences(X))

    def get_iterator(self, dataset, training=False):
        """Return the batches of a data set, shuffled if they are to be learnt from."""
        device = torch.device(self.device)
        if not training:
            return Batches(dataset, self.batch_size, device)
        rng, augmentation, generator = np.random.default_rng(self.seed), None, None
        if self.augment:
            # Beside a stretch of another scale, a sequence would look constant.
            augmentation = partial(augment, splices=not self.module_.embedding.use_instance_norm)
            # Another stream than those of dropout and the token.
            generator = torch.Generator(device).manual_seed(self.seed + 2)
        return Batches(dataset, self.batch_size, device, rng, augmentation, generator)

    def infer(self, x, **fit_params):
        """Return the logits of a batch, (B, K)."""
        with autocast(torch.device(self.device), self.precision):
            return self.module_(x["x"], x["is_padding"])

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Return the mean of the weighted losses of a batch."""
        y_pred, weight = y_pred.float(), X["sample_weight"]
        losses = self.criterion_(y_pred, y_true) * weight
        if "partner" in X:  # each is of its partner's class in part
            of_partner = self.criterion_(y_pred, X["partner_y"]) * X["partner_weight"]
            losses = losses.lerp(of_partner, X["share"])
        return losses.mean()

    def _set_training(self, training=True):
        if self.module_.training != training:  # skorch walks through all layers at every step
            super()._set_training(training)

    def train_step(self, batch, **fit_params):
        """Make one update."""
        step = self.in_parts(self.train_step_single, batch)
        named_parameters = TeeGenerator(self.get_all_learnable_params())
        self.notify(
            "on_grad_computed", named_parameters=named_parameters, batch=batch, training=True
        )
        parameters = [p for group in self.optimizer_.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        self.optimizer_.step()
        self.schedule_.step()
        return step

    def train_step_single(self, batch, share=1.0):
        """Add the gradient of a batch, or of a `share` of one."""
        self._set_training(True)
        inputs, y = batch
        y_pred = self.infer(inputs)
        loss = self.get_loss(y_pred, y, X=inputs, training=True)
        if share != 1.0:
            loss = loss * share
        loss.backward()
        return {"loss": loss.detach(), "y_pred": y_pred}

    def validation_step(self, batch, **fit_params):
        """Return loss and logits of a batch that is not learnt from."""
        return self.in_parts(self.validation_step_single, batch)

    def validation_step_single(self, batch, share=1.0):
        """Return loss and logits of a batch, or of a `share` of one."""
        step = super().validation_step(batch)
        return {**step, "loss": step["loss"] * share}

    def in_parts(self, step, batch):
        """Return `step` of a batch, part by part if the device has not enough memory for all.

        The gradients of the parts add up to that of the batch, but batch norm sees part by part.
        """
        while True:
            self.optimizer_.zero_grad()
            try:
                parts = parts_of(batch, self.n_parts)
                steps = [step(part, len(part[1]) / len(batch[1])) for part in parts]
                break
            except torch.OutOfMemoryError:
                if self.n_parts >= len(batch[1]):
                    raise
            # Out of the clause, which holds on to what the step had made.
            self.n_parts *= 2
            if self.n_parts == 2:
                warnings.warn(
                    f"Out of memory on {self.device}: batches of batch_size={self.batch_size} are "
                    "computed in parts, and their gradients added, from here on. A smaller "
                    "batch_size avoids it.",
                    UserWarning,
                    stacklevel=2,
                )
        if len(steps) == 1:
            return steps[0]
        return {
            "loss": torch.stack([part["loss"] for part in steps]).sum(),
            "y_pred": torch.cat([part["y_pred"] for part in steps]),
        }

    def fit_loop(self, X, y=None, epochs=None, *, checkpoint):
        """Make all passes that are left, and tell `checkpoint` of each."""
        train, valid = self.get_split_datasets(X, y)
        datasets = {"dataset_train": train, "dataset_valid": valid}
        batches = self.get_iterator(train, training=True)
        held_out = None if valid is None else self.get_iterator(valid)
        checkpoint.start(self, batches)
        for _ in range(len(self.history), self.max_epochs):
            self.notify("on_epoch_begin", **datasets)
            self.run_single_epoch(batches, True, "train", self.train_step)
            self.run_single_epoch(held_out, False, "valid", self.validation_step)
            self.notify("on_epoch_end", **datasets)
            checkpoint.epoch_done(self, batches)
        return self

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Run one pass, waiting for the device at its end only."""
        if iterator is None:
            return
        losses, hits, n = [], [], 0
        for batch in iterator:
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch)
            losses.append(step["loss"].detach())
            if not training:
                hits.append((step["y_pred"].argmax(1) == batch[1]).sum())
            n += len(batch[1])
            self.history.record_batch(prefix + "_batch_size", len(batch[1]))
            self.notify("on_batch_end", batch=batch, training=training, **step)
        losses = torch.stack(losses).tolist()
        for row, loss in zip(self.history[-1]["batches"][-len(losses) :], losses, strict=True):
            row[prefix + "_loss"] = loss  # of which skorch makes the epoch's
            if not math.isfinite(loss):
                raise DivergenceError(
                    f"The {prefix} loss became {loss} in epoch {len(self.history)}; lower lr (now "
                    f"{self.lr}) or weight_decay (now {self.weight_decay}), or look for extreme "
                    "values in X."
                )
        if training:
            of_each = [p.detach().abs().amax() for p in self.module_.parameters()]
            largest = torch.stack(of_each).amax().item()  # NaN if one is
            if not largest <= MAX_ABS_WEIGHT:
                raise DivergenceError(
                    f"A weight became {largest:.3g} in epoch {len(self.history)}; lower lr (now "
                    f"{self.lr}) or weight_decay (now {self.weight_decay})."
                )
            self.history.record("lr", self.optimizer_.param_groups[0]["lr"])
        else:
            self.history.record("valid_accuracy", torch.stack(hits).sum().item() / n)

    def notify(self, method_name, **cb_kwargs):
        """Call all callbacks, then stop if one asked to."""
        getattr(self, method_name)(self, **cb_kwargs)
        asked_to_stop = False
        for _, callback in self.callbacks_:
            try:
                getattr(callback, method_name)(self, **cb_kwargs)
            except StopTraining:
                asked_to_stop = True
            except KeyboardInterrupt:
                # skorch's way to ask. But scikit-learn's callbacks, which may score for long,
                # ask by another, and some never do, so that this is the user's Ctrl-C.
                if isinstance(callback, NEVER_ASK):
                    raise
                asked_to_stop = True
        if asked_to_stop:
            raise StopTraining

    def train(self, dataset, n_jobs, checkpoint):
        """Train on `dataset` until the last epoch, a callback's wish or an interrupt."""
        n_steps = min(self.batch_size, len(dataset)) * dataset.lengths.mean()
        n_threads = self.resolve_n_threads(n_jobs, n_steps)
        try:
            with torch_threads(n_threads):
                self.notify("on_train_begin", X=dataset, y=None)
                self.fit_loop(dataset, checkpoint=checkpoint)
        except KeyboardInterrupt as interrupt:
            n_finished = len(self.finished_epochs())
            if not isinstance(interrupt, StopTraining):
                if n_finished == 0:
                    raise
                checkpoint.is_interrupted = True
                if checkpoint.path is None:
                    again = "or go on from these weights with warm_start=True"
                else:
                    self.goes_on_from = checkpoint.identity["warm_start"]
                    again = f"with checkpoint={checkpoint.path!r} to go on where it was"
                warnings.warn(
                    f"Training was interrupted in epoch {n_finished + 1} of {self.max_epochs}: "
                    f"the model is usable, but may not be done. Fit again, {again}.",
                    UserWarning,
                    stacklevel=2,
                )
            elif n_finished == 0:
                raise RuntimeError(
                    "A callback asked to stop before the first epoch was done: there is no model."
                ) from interrupt
        with suppress(StopTraining):
            self.notify("on_train_end", X=dataset, y=None)
        self.module_.eval()
        return self

    def resolve_n_threads(self, n_jobs, n_steps):
        """Return how many threads `n_steps` steps at once are worth, None on a GPU."""
        if torch.device(self.device).type != "cpu":
            return None
        embedding = self.module_.embedding
        n_numbers = n_steps / embedding.patch_size * embedding.d_model
        return resolve_n_threads(n_jobs, n_numbers // ELEMENTS_PER_THREAD)

    @property
    def n_epochs_so_far(self):
        """Passes made by this training and those it went on from."""
        return self.n_epochs_before + len(self.finished_epochs())

    def finished_epochs(self):
        """Return what was recorded of each finished epoch, without its batches."""
        return [
            {
                k: v.item() if isinstance(v, np.generic) else v
                for k, v in row.items()
                if k != "batches"
            }
            for row in self.history
            if "dur" in row
        ]

    def without_training(self):
        """Return the attributes without data sets, callbacks and what was noted of batches."""
        return {
            **self.__dict__,
            "train_split": None,
            "callbacks": None,
            "callbacks_": [],
            "history_": History(self.finished_epochs()),
        }

    def forget_training(self, *, keep_optimizer=False):
        """Drop what holds on to data, to callers and, unless it is kept, to the optimiser."""
        self.__dict__.update(self.without_training())
        if not keep_optimizer and hasattr(self, "optimizer_"):
            del self.optimizer_, self.schedule_
        return self

    def __getstate__(self):
        """Return what predicting needs, with the weights as arrays."""
        state = self.without_training()
        for name in ("module_", "criterion_", "optimizer_", "schedule_"):
            state.pop(name, None)
        state["weights"] = {k: v.cpu().numpy() for k, v in self.module_.state_dict().items()}
        state["history_"] = to_columns(state["history_"])
        return state

    def __setstate__(self, state):
        """Build the network again, on the CPU if its device is not there."""
        weights = state.pop("weights")
        state["history_"] = History(from_columns(state["history_"]))
        self.__dict__.update(state)
        self.device = str(device_or_cpu(self.device))
        with thread_local_num_threads(1):
            self.initialize_module()
            self.initialize_criterion()
            weights = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}
            self.load_weights(weights)
        self.module_.eval()

    def load_weights(self, weights):
        """Take over the weights and buffers of another network."""
        with thread_local_num_threads(1):  # else a forked process would hang in copying a large one
            self.module_.load_state_dict(weights)

    @property
    def max_length(self):
        """What learned positions reach to, None where there is no end."""
        embedding = self.module_.embedding
        if embedding.positions == "learned":
            return len(embedding.position) * embedding.patch_size
        return None

    def compute(self, sequences, function, n_jobs=None, n_last=None):
        """Return `function` of padded batches, in the order of `sequences`: (n, ..., n_last).

        Shorter last axes, where they are steps, are filled up with zeros.
        """
        device = torch.device(self.device)
        n_threads = self.resolve_n_threads(n_jobs, int(sequences.lengths.sum()))
        if device.type == "cpu":
            max_length = STEPS_PER_BATCH
        else:  # wide layers hold more of a step
            max_length = STEPS_PER_GPU_BATCH * 64 // max(64, self.module_.embedding.d_model)
        batches = length_bucketed_batches(sequences.lengths, max_length)

        def compute_batch(rows):
            """Return pairs of rows and their results: one, or more if memory runs out."""
            try:
                with torch.inference_mode(), autocast(device, self.precision):
                    batch = prediction_batch(sequences, rows, device)
                    return [(rows, function(**batch)[: len(rows)].float().cpu().numpy())]
            except torch.OutOfMemoryError:
                if len(rows) == 1:
                    raise
            first, second = np.array_split(rows, 2)
            return compute_batch(first) + compute_batch(second)

        parts = list(itertools.chain(*parallel_map(compute_batch, batches, n_threads)))
        *shape, n_default = parts[0][1].shape[1:]
        result = np.zeros((len(sequences), *shape, n_last or n_default), dtype=np.float32)
        for rows, part in parts:
            result[rows, ..., : part.shape[-1]] = part
        return result


def new_net(network, **kwargs):
    """Return a net of `CLSEncoder` with the parameters `network`, and of `Net` with the others."""
    net = Net(
        CLSEncoder,
        criterion=nn.CrossEntropyLoss,
        criterion__reduction="none",
        verbose=0,
        **{f"module__{name}": value for name, value in network.items()},
        **kwargs,
    )
    with thread_local_num_threads(1):
        return net.initialize()


def restored_net(network, weights, history, **kwargs):
    """Return a net that predicts by `weights`, of which `history` was recorded."""
    net = new_net(network, n_updates=0, **kwargs).forget_training()
    net.load_weights(weights)
    net.module_.eval()
    net.history_ = History(history)
    return net


def build_net(network, training, *, mean_and_scale, valid=None, start=None, **kwargs):
    """Return a net ready to train.

    Parameters
    ----------
    network : dict
        Parameters of `CLSEncoder`.
    training, **kwargs
        Parameters of `Net`.
    mean_and_scale : tuple of ndarray (F,), or None
        By which inputs are standardised.
    valid : SequenceDataset or None
        What each epoch is validated on.
    start : Net or None
        The net to go on from: its weights, and its optimiser if it still has one.
    """
    net = new_net(
        network,
        train_split=None if valid is None else predefined_split(valid),
        n_epochs_before=0 if start is None else start.n_epochs_so_far,
        **training,
        **kwargs,
    )
    if start is None and mean_and_scale is not None:
        embedding = net.module_.embedding
        for buffer, value in zip((embedding.mean, embedding.scale), mean_and_scale, strict=True):
            buffer.copy_(torch.from_numpy(value))
    elif start is not None:
        net.load_weights(start.module_.state_dict())
        if hasattr(start, "optimizer_"):  # of a partial_fit in this process
            moments = deepcopy(start.optimizer_.state_dict()["state"])
            groups = net.optimizer_.state_dict()["param_groups"]  # of today's lr
            net.optimizer_.load_state_dict({"state": moments, "param_groups": groups})
    return net


def parts_of(batch, n_parts):
    """Return a batch cut into `n_parts` of nearly equal size, or fewer if it has fewer rows."""
    inputs, y = batch
    n = len(y)
    if n_parts == 1:
        return [batch]
    ends = np.linspace(0, n, min(n_parts, n) + 1).astype(int)
    return [
        ({k: None if v is None else v[a:b] for k, v in inputs.items()}, y[a:b])
        for a, b in itertools.pairwise(ends)
    ]


def to_columns(rows):
    """Return rows of the same numbers as columns, a third of their bytes; others as a list."""
    if len({tuple((name, type(value)) for name, value in row.items()) for row in rows}) != 1:
        return list(rows)
    if not all(isinstance(value, float | int) for value in rows[0].values()):
        return list(rows)
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    is_of_numbers = all(column.dtype != object for column in columns.values())
    return columns if is_of_numbers else list(rows)  # some beyond 64 bits


def from_columns(columns):
    """Return the rows that `to_columns` was given."""
    if isinstance(columns, list):
        return columns
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in values]
