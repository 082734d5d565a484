"""The state of a net, kept to resume training, to warm-start another fit, or to pickle it."""

from skorch.history import History

from sklearn_cls._network.dropout import generators
from sklearn_cls._training.history import is_finished

OPTIMIZER = ("optimizer_", "schedule_")


def training_state(net):
    """Return everything that the next update of `net` depends on, except its callbacks."""
    return {
        "module": net.module_.state_dict(),
        "optimizer": net.optimizer_.state_dict(),
        "schedule": net.schedule_.state_dict(),
        "generators": [generator.get_state() for generator in generators(net.module_)],
        "batches": net.train_batches_.state_dict(),
        "n_micro_batches": net.n_micro_batches,
        "n_epochs_trained": net.n_epochs_trained,
        "history": [
            {name: value for name, value in epoch.items() if name != "batches"}
            for epoch in filter(is_finished, net.history)
        ],
    }


def restore_training_state(net, state):
    """Restore what `training_state` returned into a net that is about to train."""
    net.module_.load_state_dict(state["module"])
    net.optimizer_.load_state_dict(state["optimizer"])
    net.schedule_.load_state_dict(state["schedule"])
    for generator, saved in zip(generators(net.module_), state["generators"], strict=True):
        generator.set_state(saved)
    net.train_batches_.load_state_dict(state["batches"])
    net.n_micro_batches = state["n_micro_batches"]
    net.n_epochs_trained = state["n_epochs_trained"]
    net.history.extend({**epoch, "batches": []} for epoch in state["history"])


def strip_training_state(net, *, keep_optimizer=False):
    """Remove datasets, callbacks, history and perhaps the optimizer; return the net."""
    net.__dict__.update(_stripped(net))
    for name in ("train_batches_", *(() if keep_optimizer else OPTIMIZER)):
        if hasattr(net, name):
            delattr(net, name)
    return net


def pickle_state(net):
    """Return what prediction needs, with the weights as arrays, which have no device."""
    state = {**vars(net), **_stripped(net)}
    for name in ("module_", "criterion_", "train_batches_", *OPTIMIZER):
        state.pop(name, None)
    state["weights"] = {k: v.cpu().numpy() for k, v in net.module_.state_dict().items()}
    return state


def _stripped(net):
    """Return the attributes of a net without data, callbacks, history and requests to stop."""
    return {
        "train_split": None,
        "callbacks": None,
        "callbacks_": [],
        "n_epochs_trained": net.n_epochs_trained + sum(map(is_finished, net.history)),
        "history_": History(),
        "stop_requested": False,
    }
