"""What watches an epoch and may end the training: skorch callbacks."""

from copy import copy

from skorch.callbacks import Callback, EarlyStopping
from skorch.utils import noop
from tqdm.auto import tqdm

TAKEN = ("epoch_timer", "train_loss", "valid_loss")  # names of what `Net` calls itself


class StopTraining(KeyboardInterrupt):
    """What scikit-learn's callbacks ask for by returning True, and skorch's by an interrupt."""


class EpochBar(Callback):
    """A progress bar with epoch, loss and time left; a context that closes it."""

    bar_ = None  # none before the training: even one that is not shown starts a thread of tqdm's

    def __enter__(self):
        """Return itself."""
        return self

    def __exit__(self, *error):
        """Close the bar."""
        if self.bar_ is not None:
            self.bar_.close()

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Show how many epochs there will be."""
        self.bar_ = tqdm(desc="fit", unit="epoch", total=net.max_epochs)

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Move the bar on."""
        row = net.history[-1]
        losses = {k: f"{row[k]:.4f}" for k in ("train_loss", "valid_loss") if k in row}
        self.bar_.set_postfix(losses, refresh=False)
        self.bar_.update(len(net.history) - self.bar_.n)  # more, after those of a checkpoint


class ScikitLearnCallbacks(Callback):
    """Hands every epoch to scikit-learn's callbacks.

    Parameters
    ----------
    context : sklearn.callback.CallbackContext
        Of the fit.
    hooks : dict
        What every hook is called with: estimator, X, y, metadata.
    """

    def __init__(self, context, hooks):
        self.context, self.hooks = context, hooks

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Tell that an epoch begins."""
        self.epoch_ = self.context.subcontext(task_name="epoch")
        self.epoch_.call_on_fit_task_begin(**self.hooks)

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Tell that an epoch ended, and stop if a hook asks to."""
        stop = self.epoch_.call_on_fit_task_end(
            # A copy, for a hook that keeps the estimator it is given.
            reconstruction_attributes=lambda: {"net_": copy(net)},
            **self.hooks,
        )
        if stop:
            raise StopTraining


def early_stopping(n_iter_no_change):
    """Stop when the validation loss has not fallen for a while, and go back to the best epoch."""
    return EarlyStopping(
        monitor="valid_loss", patience=n_iter_no_change, threshold=0, load_best=True, sink=noop
    )


def check_callbacks(callbacks):
    """Return the user's callbacks as a list of what skorch takes."""
    for item in callbacks or []:
        callback = item[1] if isinstance(item, tuple) and len(item) == 2 else item
        if not isinstance(callback, Callback) and not (
            isinstance(callback, type) and issubclass(callback, Callback)
        ):
            raise ValueError(
                f"callbacks must be skorch callbacks, or tuples of a name and one, got {item!r}; "
                "those of scikit-learn go to set_callbacks."
            )
    names = [item[0] for item in callbacks or [] if isinstance(item, tuple)]
    for name in names:
        if not isinstance(name, str) or names.count(name) > 1 or name in TAKEN:
            raise ValueError(
                f"callbacks must have names that differ, and none of {TAKEN}, got {name!r}; choose "
                "another text."
            )
    return list(callbacks or [])


def without_training_state(callbacks):
    """Return the user's callbacks without what they keep of a training, such as the optimiser."""
    if callbacks is None:
        return None
    kept = []
    for item in callbacks:
        name, callback = item if isinstance(item, tuple) else (None, item)
        if not isinstance(callback, type):
            callback = copy(callback)
            for attribute in [k for k in vars(callback) if k.endswith("_")]:
                delattr(callback, attribute)
        kept.append(callback if name is None else (name, callback))
    return kept
