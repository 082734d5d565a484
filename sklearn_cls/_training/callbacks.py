"""skorch and scikit-learn callbacks: checks, progress bar, early stopping."""

from copy import copy

from skorch.callbacks import BatchScoring, Callback, EarlyStopping, EpochScoring
from skorch.utils import noop
from tqdm.auto import tqdm

from sklearn_cls._compat import FitCallback
from sklearn_cls._torch.launchers import progress_stream

RESERVED_NAMES = (  # of callbacks that the net and the estimator add
    "train_loss", "valid_loss", "epoch_timer",
    "_early_stopping", "_progress_bar", "_scikit_learn", "_checkpoint",
)  # fmt: skip


BAR_INTERVAL = 0.5  # seconds between two updates of the progress bar


class StopTraining(Exception):
    """Raised to stop training when a callback asks for it."""


class PassiveCallback(Callback):
    """A callback that never stops training.

    skorch callbacks stop training by raising KeyboardInterrupt, so a KeyboardInterrupt that is
    raised inside this callback can only come from Ctrl-C.
    """


class EpochBar(PassiveCallback):
    """A progress bar with epoch, losses and remaining time; a context manager that closes it."""

    bar_ = None  # created when training begins: even a hidden bar of tqdm starts a thread

    def __enter__(self):
        """Return the callback."""
        return self

    def __exit__(self, *error):
        """Close the bar."""
        if self.bar_ is not None:
            self.bar_.close()

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Show the number of epochs."""
        self.bar_ = tqdm(
            desc="fit", unit="epoch", total=net.max_epochs, file=progress_stream(),
            mininterval=BAR_INTERVAL,
        )  # fmt: skip

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Advance the bar, by several epochs if the fit was resumed."""
        epoch = net.history[-1]
        losses = {k: f"{epoch[k]:.4f}" for k in ("train_loss", "valid_loss") if k in epoch}
        self.bar_.set_postfix(losses, refresh=False)
        self.bar_.update(len(net.history) - self.bar_.n)


class ScikitLearnCallbacks(PassiveCallback):
    """Calls scikit-learn's callbacks at every epoch.

    Parameters
    ----------
    context : sklearn.callback.CallbackContext
        The context of the fit.
    hook_kwargs : dict
        Arguments of every hook: estimator, X, y, metadata.
    fitted_attributes : callable
        Called with the net; returns the fitted attributes that the estimator would have if training
        ended now, with a copy of the net.
    """

    def __init__(self, context, hook_kwargs, fitted_attributes):
        self.context, self.hook_kwargs = context, hook_kwargs
        self.fitted_attributes = fitted_attributes

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Open a task for the epoch."""
        self.epoch_ = self.context.subcontext(task_name="epoch")
        self.epoch_.call_on_fit_task_begin(**self.hook_kwargs)

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Close the task of the epoch, and stop training if a hook returns True."""
        stop = self.epoch_.call_on_fit_task_end(
            # A hook may keep the estimator that it is given, so it gets a copy of the net.
            reconstruction_attributes=lambda: self.fitted_attributes(net),
            **self.hook_kwargs,
        )
        if stop:
            raise StopTraining


def early_stopping(n_iter_no_change):
    """Return a callback that stops when the validation loss stalls, and restores the best epoch."""
    return EarlyStopping(
        monitor="valid_loss", patience=n_iter_no_change, threshold=0, load_best=True, sink=noop
    )


def check_callbacks(callbacks, *, has_validation):
    """Return the user's callbacks as two lists: those of skorch and those of scikit-learn.

    `has_validation` says whether a validation set is evaluated in every epoch.
    """
    skorch_callbacks, sklearn_callbacks = [], []
    for item in callbacks or []:
        callback = item[1] if isinstance(item, tuple) and len(item) == 2 else item
        is_class = isinstance(callback, type)
        if issubclass(callback if is_class else type(callback), Callback):
            skorch_callbacks.append(item)
        elif isinstance(callback, FitCallback) and not is_class and callback is item:
            sklearn_callbacks.append(item)
        else:
            raise ValueError(
                "callbacks must contain skorch callbacks, (name, callback) tuples of them, or "
                f"callbacks of scikit-learn 1.9 or newer, got {item!r}; see skorch.callbacks and "
                "sklearn.callback."
            )
    names = [item[0] for item in skorch_callbacks if isinstance(item, tuple)]
    for name in names:
        if not isinstance(name, str) or names.count(name) > 1 or name in RESERVED_NAMES:
            raise ValueError(
                f"callbacks must have unique names other than {RESERVED_NAMES}, got {name!r}; "
                "choose another name."
            )
    if not has_validation:
        for item in skorch_callbacks:
            _check_needs_no_validation(item[1] if isinstance(item, tuple) else item)
    return skorch_callbacks, sklearn_callbacks


def _check_needs_no_validation(callback):
    """Raise ValueError if a skorch callback reads what only a validation set provides."""
    name = callback.__name__ if isinstance(callback, type) else type(callback).__name__
    if isinstance(callback, type):
        try:
            callback = callback()
        except TypeError:  # skorch raises its own error
            return
    monitor = getattr(callback, "monitor", None)
    if isinstance(monitor, str) and monitor.startswith("valid_"):
        why = f"monitors {monitor!r}"
    elif isinstance(callback, EpochScoring | BatchScoring) and not callback.on_train:
        why = "scores the validation set (on_train=False)"
    else:
        return
    raise ValueError(
        f"callbacks has {name}, which {why}, but there is no validation set. Set "
        "early_stopping=True, which holds one out and stops training by itself; or monitor the "
        "training set: monitor='train_loss', on_train=True."
    )


def strip_callbacks(callbacks):
    """Return copies of the user's callbacks without attributes that training has set."""
    if callbacks is None:
        return None
    stripped = []
    for item in callbacks:
        name, callback = item if isinstance(item, tuple) else (None, item)
        if isinstance(callback, Callback):
            callback = copy(callback)
            for attribute in [k for k in vars(callback) if k.endswith("_")]:
                delattr(callback, attribute)
        stripped.append(callback if name is None else (name, callback))
    return stripped
