"""The state of a net, kept to resume training, to warm-start another fit, or to pickle it."""

from numbers import Real

import numpy as np
import skorch
import torch
from skorch.history import History

from sklearn_cls._network.dropout import generators
from sklearn_cls._torch.device import device_or_cpu
from sklearn_cls._torch.processes import ONE_PROCESS
from sklearn_cls._training.history import NUMERIC_COLUMNS, is_finished

SKORCH_VERSION = skorch.__version__  # only this package imports skorch
OPTIMIZER = ("optimizer_", "schedule_")
TRAINING = ("train_batches_", "graphed_forward_backward_", "gradient_sum_")


def training_state(net):
    """Return everything that the next update of `net` depends on, except its callbacks.

    In a fit in several processes, all of them must call this.
    """
    return {
        "module": net.module_.state_dict(),
        "optimizer": net.optimizer_.state_dict(),
        "schedule": net.schedule_.state_dict(),
        "random_states": net.processes.gather(random_states(net)),
        "batch_size": net.batch_size,
        "n_micro_batches": net.n_micro_batches,
        "n_epochs_trained": net.n_epochs_trained,
        "history": [
            {name: value for name, value in epoch.items() if name != "batches"}
            for epoch in filter(is_finished, net.history)
        ],
    }


def restore_training_state(net, state):
    """Restore what `training_state` returned into a net that is about to train."""
    check_training_state(net, state)
    net.module_.load_state_dict(state["module"])
    net.optimizer_.load_state_dict(state["optimizer"])
    net.schedule_.load_state_dict(state["schedule"])
    restore_random_states(net, state["random_states"])
    net.n_micro_batches = state["n_micro_batches"]
    net.n_epochs_trained = state["n_epochs_trained"]
    net.history.extend({**epoch, "batches": []} for epoch in state["history"])


def random_states(net):
    """Return the states of all random number generators of this process."""
    return {
        "generators": [generator.get_state() for generator in generators(net.module_)],
        "batches": net.train_batches_.state_dict(),
    }


def restore_random_states(net, states):
    """Restore the states of the random number generators, which are those of each process.

    With another number of processes than before, only the order of the sequences is restored.
    """
    processes = net.processes
    if len(states) == processes.size:
        own = states[processes.rank]
        for generator, saved in zip(generators(net.module_), own["generators"], strict=True):
            generator.set_state(saved)
        net.train_batches_.load_state_dict(own["batches"])
        return
    net.train_batches_.load_state_dict(states[0]["batches"])
    for generator in (*generators(net.module_), net.train_batches_.generator):
        if generator is not None:
            entropy = generator.initial_seed(), len(states), processes.rank
            generator.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))


def check_training_state(net, state):
    """Raise ValueError unless `state` can be one that `training_state` returned for `net`."""
    ignored = {"history": [], "random_states": []}
    expected = training_state(net)
    check_structure({**state, **ignored}, {**expected, **ignored}, "state")
    if not isinstance(state["random_states"], list) or not state["random_states"]:
        raise ValueError("random_states is not a list")
    for own in state["random_states"]:
        check_structure(own, random_states(net), "random_states")
    parameters = [p for group in net.optimizer_.param_groups for p in group["params"]]
    for i, moments in state["optimizer"]["state"].items():
        if i not in range(len(parameters)):
            raise ValueError(f"the optimizer has {len(parameters)} parameters, but not {i!r}")
        moment = parameters[i].detach()
        like = {"step": torch.zeros(()), "exp_avg": moment, "exp_avg_sq": moment}
        check_structure(moments, like, f"moments[{i}]")
    if min(state["batch_size"], state["n_micro_batches"]) < 1 or state["n_epochs_trained"] < 0:
        raise ValueError("a number of epochs or micro-batches is negative or 0")
    for epoch in state["history"]:
        check_structure(epoch, dict.fromkeys(NUMERIC_COLUMNS, 0), "history")


def check_structure(value, expected, name):
    """Raise ValueError unless `value` has the keys, lengths, shapes and types of `expected`.

    Tensors must be finite, and a dict may have more keys.
    """
    children = ()
    if isinstance(expected, dict):
        is_similar = isinstance(value, dict) and expected.keys() <= value.keys()
        children = expected.items()
    elif isinstance(expected, list | tuple):
        is_similar = isinstance(value, list | tuple) and len(value) == len(expected)
        children = enumerate(expected)
    elif isinstance(expected, torch.Tensor):
        is_similar = (
            isinstance(value, torch.Tensor)
            and (value.shape, value.dtype) == (expected.shape, expected.dtype)
            and bool(value.isfinite().all())
        )
    else:
        is_similar = isinstance(value, Real if isinstance(expected, Real) else type(expected))
    if not is_similar:
        raise ValueError(f"{name} does not match the network")
    for key, child in children:
        check_structure(value[key], child, f"{name}[{key!r}]")


def strip_training_state(net, *, keep_optimizer=False):
    """Remove datasets, callbacks, history and perhaps the optimizer; return the net."""
    net.__dict__.update(_stripped(net))
    for name in (*TRAINING, *(() if keep_optimizer else OPTIMIZER)):
        if hasattr(net, name):
            delattr(net, name)
    return net


def pickle_state(net):
    """Return what prediction needs, with the weights as arrays, which have no device."""
    state = {**vars(net), **_stripped(net)}
    for name in ("module_", "criterion_", *TRAINING, *OPTIMIZER):
        state.pop(name, None)
    state["weights"] = {k: v.cpu().numpy() for k, v in net.module_.state_dict().items()}
    return state


def restore_pickled_state(net, state):
    """Rebuild a net from what `pickle_state` returned, on the CPU if its device is missing."""
    weights = state.pop("weights")
    net.__dict__.update(state)
    net.device = str(device_or_cpu(net.device))
    net.initialize_module()
    net.initialize_criterion()
    net.load_weights({k: torch.from_numpy(np.array(v)) for k, v in weights.items()})
    net.module_.eval()


def _stripped(net):
    """Return the attributes of a net without data, callbacks, history and requests to stop."""
    return {
        "train_split": None,
        "callbacks": None,
        "callbacks_": [],
        "n_epochs_trained": net.n_epochs_trained + sum(map(is_finished, net.history)),
        "history_": History(),
        "stop_requested": False,
        "processes": ONE_PROCESS,
    }
