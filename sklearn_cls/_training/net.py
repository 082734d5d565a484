"""The skorch net that trains the network: datasets, loss, update and epoch loop.

Shapes: B sequences, K classes.
"""

import warnings
from contextlib import suppress
from copy import deepcopy
from functools import partial

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import EpochTimer, PassthroughScoring
from skorch.helper import predefined_split
from skorch.utils import TeeGenerator
from torch import nn

from sklearn_cls._data.augment import augment, can_hide_codes, hide_codes
from sklearn_cls._data.batches import (
    STEPS_PER_BATCH,
    Batches,
    SequenceDataset,
    length_bucketed_batches,
    padded_batch,
)
from sklearn_cls._data.validation import read_sequences
from sklearn_cls._network.dropout import generators, seed_generators
from sklearn_cls._network.encoder import CLSEncoder
from sklearn_cls._torch.daemon_threads import stop_at_exit
from sklearn_cls._torch.processes import ONE_PROCESS
from sklearn_cls._torch.random import initial_weights
from sklearn_cls._torch.settings import torch_settings
from sklearn_cls._torch.threads import torch_threads
from sklearn_cls._training.auto import auto_n_threads, forward_autocast
from sklearn_cls._training.callbacks import PassiveCallback, StopTraining
from sklearn_cls._training.cuda_graph import GraphedFunction
from sklearn_cls._training.divergence import check_losses, check_weights
from sklearn_cls._training.gradient_sum import GradientSum
from sklearn_cls._training.history import is_finished
from sklearn_cls._training.interrupts import is_stop_request, stop_together
from sklearn_cls._training.micro_batches import run_in_micro_batches
from sklearn_cls._training.optimizer import adamw, cosine_schedule
from sklearn_cls._training.state import (
    pickle_state,
    restore_pickled_state,
    strip_training_state,
)

MAX_GRADIENT_NORM = 1.0
PASSIVE = (PassiveCallback, EpochTimer, PassthroughScoring)


class Net(NeuralNetClassifier):
    """skorch's classifier for padded batches of sequences that have been validated already.

    Methods of skorch are overridden to skip work that is not needed: validating the data, splitting
    them, synchronizing the GPU at every batch, and traversing all layers at every step. History,
    callbacks, early stopping and the estimator API are skorch's.

    Parameters
    ----------
    seed : int
        Seed of initial weights, dropout, [CLS] token, batch order and augmentation.
    precision : {"auto", "float32", "bfloat16"}
        Autocast of the forward pass.
    augment : bool, "time_warp" or "codes"
        Whether training batches are augmented by time warping and CutMix, or by time warping only;
        "codes" hides some codes.
    weight_decay : float
        Weight decay; see `optimizer.adamw` for the parameters that it applies to.
    beta2 : float
        Decay of the squared gradients of AdamW.
    warmup_fraction : float or None
        Fraction of all updates in which the learning rate rises to `lr`; None keeps it constant.
    n_updates : int
        Total number of updates, over which the schedule extends. If 0, no optimizer is built.
    n_epochs_trained : int
        Number of epochs of earlier fits, with a warm start or `partial_fit`.
    scaler : Scaler or None
        Standardizes all sequences.
    processes : Processes
        The processes that train together.
    **kwargs
        Parameters of `skorch.NeuralNetClassifier`.
    """

    def __init__(
        self, *args, seed=0, precision="auto", augment=False, weight_decay=0.0,
        beta2=0.999, warmup_fraction=None, n_updates=1, n_epochs_trained=0, scaler=None,
        processes=ONE_PROCESS, **kwargs,
    ):  # fmt: skip
        self.seed, self.precision, self.augment = seed, precision, augment
        self.weight_decay, self.beta2, self.warmup_fraction = weight_decay, beta2, warmup_fraction
        self.n_updates, self.n_epochs_trained = n_updates, n_epochs_trained
        self.scaler, self.processes = scaler, processes
        super().__init__(*args, **kwargs)
        self.n_micro_batches = 1  # per batch; more once the device has run out of memory
        self.stop_requested = False  # whether a callback asked to end the training
        self.is_interrupted = False  # whether Ctrl-C ended the training
        self.resumed_from = None  # hash of the initial weights, if a checkpoint remains

    @property
    def _default_callbacks(self):
        return [
            ("train_loss", PassthroughScoring("train_loss", on_train=True)),
            ("valid_loss", PassthroughScoring("valid_loss")),
            # Must be last: an epoch with a recorded duration counts as finished.
            ("epoch_timer", EpochTimer()),
        ]

    def check_data(self, X, y=None):
        """Do nothing: the data are checked before the net is built."""

    def initialize_module(self):
        """Build the network from `seed`, with random generators of its own."""
        with initial_weights(self.seed):
            super().initialize_module()
        self.module_.to(self.device)
        seed_generators(self.module_, self.processes.seed(self.seed))
        return self

    def initialize_optimizer(self, triggered_directly=None):
        """Build AdamW and its learning rate schedule."""
        # Creating the first optimizer in a process imports torch._dynamo, which takes seconds.
        if self.n_updates > 0:
            self.optimizer_ = adamw(self.module_, self.lr, self.weight_decay, self.beta2)
            self.schedule_ = cosine_schedule(self.optimizer_, self.n_updates, self.warmup_fraction)
        return self

    def get_dataset(self, X, y=None):
        """Return sequences as a dataset."""
        if isinstance(X, SequenceDataset):
            return X
        return SequenceDataset.unlabeled(read_sequences(X))

    def get_iterator(self, dataset, training=False):
        """Return the standardized batches of a dataset, shuffled and augmented for training."""
        batches = partial(
            Batches, dataset.scaled(self.scaler), self.batch_size, torch.device(self.device),
            patch_size=self.module_.embedding.patch_size, processes=self.processes,
        )  # fmt: skip
        return batches(**shuffling(self)) if training else batches()

    def infer(self, x, **fit_params):
        """Return the logits of a batch, (B, K)."""
        with forward_autocast(self):
            return self.module_(x["x"], x["is_padding"])

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Return the mean weighted loss of a batch; with CutMix, targets are soft labels (B, K)."""
        losses = self.criterion_(y_pred.float(), X.get("target", y_true))
        losses = losses * X["sample_weight"]
        # In a fit in several processes, one may have no sequences of a batch.
        return losses.mean() if len(losses) else losses.sum()

    def _set_training(self, training=True):
        if self.module_.training != training:  # skorch sets the mode of all layers at every step
            super()._set_training(training)

    def train_step(self, batch, **fit_params):
        """Update the weights on one batch."""
        step = self._in_micro_batches(self.train_step_single, batch, self.gradient_sum_)
        named_parameters = TeeGenerator(self.get_all_learnable_params())
        self.notify(
            "on_grad_computed", named_parameters=named_parameters, batch=batch, training=True
        )
        parameters = [p for group in self.optimizer_.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        self.optimizer_.step()
        self.schedule_.step()
        return step

    def train_step_single(self, batch, fraction=1.0):
        """Accumulate the gradient of a micro-batch, which is a `fraction` of the batch."""
        self._set_training(True)
        if fraction == 1.0:
            return self.graphed_forward_backward_(*batch)
        return self.forward_backward(*batch, fraction)

    def forward_backward(self, inputs, y, fraction=1.0):
        """Accumulate the gradient of a micro-batch; return its loss and logits."""
        y_pred = self.infer(inputs)
        loss = self.get_loss(y_pred, y, X=inputs, training=True)
        if fraction != 1.0:
            loss = loss * fraction
        loss.backward()
        return {"loss": loss.detach(), "y_pred": y_pred.detach()}

    def validation_step(self, batch, **fit_params):
        """Return loss and logits of a validation batch."""
        return self._in_micro_batches(self.validation_step_single, batch)

    def validation_step_single(self, batch, fraction=1.0):
        """Return loss and logits of a micro-batch, which is a `fraction` of the batch."""
        step = super().validation_step(batch)
        return {**step, "loss": step["loss"] * fraction}

    def _in_micro_batches(self, step, batch, gradient_sum=None):
        result, n = run_in_micro_batches(
            step, batch, self.n_micro_batches, self.optimizer_.zero_grad, gradient_sum
        )
        if self.n_micro_batches == 1 and n > 1:
            warnings.warn(
                f"Out of memory on {self.device}: from now on, each batch of "
                f"batch_size={self.batch_size} is computed in micro-batches whose gradients are "
                "accumulated. Set a smaller batch_size to avoid this.",
                UserWarning,
                stacklevel=2,
            )
        self.n_micro_batches = n
        return result

    def fit_loop(self, X, y=None, epochs=None, **fit_params):
        """Train for the remaining epochs: `max_epochs`, less those restored from a checkpoint."""
        train, valid = self.get_split_datasets(X, y)
        datasets = {"dataset_train": train, "dataset_valid": valid}
        valid_batches = None if valid is None else self.get_iterator(valid)
        for _ in range(len(self.history), self.max_epochs):
            self.notify("on_epoch_begin", **datasets)
            self.run_single_epoch(self.train_batches_, True, "train", self.train_step)
            self.run_single_epoch(valid_batches, False, "valid", self.validation_step)
            self.notify("on_epoch_end", **datasets)
            self.gradient_sum_.raise_requests()
        return self

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Run one epoch; a GPU is synchronized only at its end."""
        if iterator is None:
            return
        # A list of small tensors, one per batch, would fragment the memory between large ones.
        losses = torch.empty(len(iterator), dtype=torch.float32, device=self.device)
        n_correct, sizes = torch.zeros((), dtype=torch.int64, device=self.device), []
        for i, batch in enumerate(iterator):
            stop_at_exit()
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch)
            losses[i] = step["loss"].detach()
            if not training:
                n_correct += (step["y_pred"].argmax(1) == batch[1]).sum()
            sizes.append(len(batch[1]))
            self.history.record_batch(prefix + "_batch_size", len(batch[1]))
            self.notify("on_batch_end", batch=batch, training=training, **step)
        losses, sizes, n_correct = self.gradient_sum_.sum_of_epoch(
            losses.tolist(), sizes, n_correct.item()
        )
        batches = self.history[-1]["batches"][-len(losses) :]
        for batch, loss, size in zip(batches, losses, sizes, strict=True):
            # PassthroughScoring averages the losses over the epoch.
            batch[prefix + "_loss"], batch[prefix + "_batch_size"] = loss, size
        check_losses(self, prefix, losses)
        if training:
            check_weights(self)
            self.history.record("lr", self.optimizer_.param_groups[0]["lr"])
        else:
            self.history.record("valid_accuracy", n_correct / sum(sizes))

    def notify(self, method_name, **cb_kwargs):
        """Call every callback, then raise StopTraining if one of them asked to stop.

        Several processes stop together, at the next sum over all of them.
        """
        getattr(self, method_name)(self, **cb_kwargs)
        for _, callback in self.callbacks_:
            try:
                getattr(callback, method_name)(self, **cb_kwargs)
            except StopTraining:
                self.stop_requested = True
            except KeyboardInterrupt as error:
                # skorch's callbacks ask to stop by raising KeyboardInterrupt, as Ctrl-C does.
                if isinstance(callback, PASSIVE) or not is_stop_request(error):
                    raise
                self.stop_requested = True
        if self.stop_requested and self.processes.size == 1:
            raise StopTraining

    def train(self, dataset, n_jobs):
        """Train on `dataset` for all epochs, or until a callback or Ctrl-C stops the training."""
        n_steps = min(self.batch_size, len(dataset)) * dataset.lengths.mean() / self.processes.size
        self.train_batches_ = self.get_iterator(dataset, training=True)
        self.graphed_forward_backward_ = GraphedFunction(
            self.forward_backward, torch.device(self.device), generators(self.module_), self.module_
        )
        if self.processes.size > 1:  # Batch norm communicates with the other processes.
            self.graphed_forward_backward_.is_enabled = False
        self.gradient_sum_ = GradientSum(self)
        n_threads = auto_n_threads(self.module_, self.device, n_jobs, n_steps)
        try:
            with (
                torch_threads(n_threads), stop_together(self.processes), self.gradient_sum_
            ):  # fmt: skip
                self.notify("on_train_begin", X=dataset, y=None)
                self.fit_loop(dataset)
        except StopTraining as stop:
            if not any(map(is_finished, self.history)):
                raise RuntimeError(
                    "A callback stopped training before the end of the first epoch, so there is "
                    "no fitted model; stop in on_epoch_end instead."
                ) from stop
        except KeyboardInterrupt:
            if not any(map(is_finished, self.history)):
                raise
            self.is_interrupted = True
        finally:
            del self.graphed_forward_backward_, self.gradient_sum_
        with suppress(StopTraining):
            self.notify("on_train_end", X=dataset, y=None)
        self.module_.eval()
        return self

    @torch_settings()
    def __getstate__(self):
        """Return the state that is pickled, see `pickle_state`."""
        return pickle_state(self)

    @torch_settings()
    def __setstate__(self, state):
        """Restore the state that was pickled, see `restore_pickled_state`."""
        restore_pickled_state(self, state)

    def load_weights(self, weights):
        """Copy weights and buffers from a state dict of the network."""
        self.module_.load_state_dict(weights)


def shuffling(net):
    """Return the parameters of `Batches` that shuffle and perhaps augment the training data."""
    rng = np.random.default_rng(net.seed)
    if not net.augment:
        return {"rng": rng}
    device = torch.device(net.device)
    # The seeds of dropout and of the [CLS] token are `seed` and `seed + 1`.
    generator = torch.Generator(device).manual_seed(net.processes.seed(net.seed + 2))
    embedding = net.module_.embedding
    if net.augment == "codes":
        n_categories = net.get_params_for("module")["n_categories"]
        can_be_hidden = can_hide_codes(embedding.n_numbers, n_categories).to(device)
        augmentation = partial(hide_codes, can_be_hidden=can_be_hidden)
    else:
        augmentation = partial(
            augment,
            n_classes=net.module_.head.out_features,
            n_codes=embedding.n_codes,
            # A segment of much larger scale would make the rest of a sequence look constant.
            use_cutmix=net.augment != "time_warp" and not embedding.use_instance_norm,
        )
    augmentation = GraphedFunction(augmentation, device, [generator])
    return {"rng": rng, "augmentation": augmentation, "generator": generator}


def new_net(network, **kwargs):
    """Return an initialized net; `network` holds the parameters of `CLSEncoder`."""
    net = Net(
        CLSEncoder,
        criterion=nn.CrossEntropyLoss,
        criterion__reduction="none",
        verbose=0,
        **{f"module__{name}": value for name, value in network.items()},
        **kwargs,
    )
    return net.initialize()


def restored_net(network, weights, **kwargs):
    """Return a net with trained `weights`, for prediction only."""
    net = strip_training_state(new_net(network, n_updates=0, **kwargs))
    net.load_weights(weights)
    net.module_.eval()
    return net


def build_net(network, training, *, train, valid=None, warm_start_net=None, **kwargs):
    """Return a net that is ready to train.

    Parameters
    ----------
    network : dict
        Parameters of `CLSEncoder`.
    training, **kwargs
        Parameters of `Net`.
    train : SequenceDataset
        Standardized training data, for the initial weights.
    valid : SequenceDataset or None
        Validation data of each epoch.
    warm_start_net : Net or None
        Training continues from the weights of this net, and from its optimizer if it still has one.
    """
    net = new_net(
        network,
        train_split=None if valid is None else predefined_split(valid),
        n_epochs_trained=0 if warm_start_net is None else warm_start_net.n_epochs_trained,
        **training,
        **kwargs,
    )
    if warm_start_net is None:
        zero_unreached_weights(net.module_.embedding, train)
    else:
        net.load_weights(warm_start_net.module_.state_dict())
        if hasattr(warm_start_net, "optimizer_"):  # kept by partial_fit in this process
            moments = deepcopy(warm_start_net.optimizer_.state_dict()["state"])
            groups = net.optimizer_.state_dict()["param_groups"]  # with the current lr
            net.optimizer_.load_state_dict({"state": moments, "param_groups": groups})
    return net


def zero_unreached_weights(embedding, dataset):
    """Set the weights of an untrained embedding to 0 that `dataset` does not reach.

    Whether an additional input is used is read from a sample: weights that are set to 0 by mistake
    are trained like any other.
    """
    sequences = dataset.sequences
    indices = sequences.held(sequences.sample(dataset.indices))
    n_numbers, device = embedding.n_numbers, embedding.project.weight.device
    n_inputs = (1 + embedding.has_missing + embedding.use_instance_norm) * n_numbers
    # The scaler makes the inputs of unused features 0, in training and in prediction.
    is_used = torch.arange(n_inputs, device="cpu") < n_numbers
    if n_inputs > n_numbers:
        for i in length_bucketed_batches(sequences.lengths[indices], STEPS_PER_BATCH):
            x, is_padding = padded_batch(sequences, indices[i], "cpu").values()
            inputs = embedding.number_inputs(x[..., :n_numbers], is_padding)
            is_used |= (inputs != 0).any(1).any(0)
        is_used = torch.stack(sequences.processes.gather(is_used)).any(0)
    is_used = is_used.to(device)
    if embedding.codes is not None:
        is_reached = reached_rows(embedding.codes, dataset)
        is_used = torch.cat([is_used, embedding.codes.zero_unreached_rows(is_reached)])
    embedding.zero_unreached_weights(is_used, int(dataset.lengths.max()))


def reached_rows(codes, dataset):
    """Return which rows of a `CodeEmbedding` the steps of `dataset` look up, (R,)."""
    is_reached = torch.zeros(len(codes.weight), dtype=torch.bool, device=codes.weight.device)
    n_codes = len(codes.n_rows)
    for steps in dataset.sequences.steps(dataset.indices):  # (S, F)
        values = torch.from_numpy(steps[:, -n_codes:].astype(np.float32)).to(is_reached.device)
        is_reached[codes.rows(values).flatten()] = True
    is_reached = torch.stack(dataset.sequences.processes.gather(is_reached.cpu())).any(0)
    return is_reached.to(codes.weight.device)
