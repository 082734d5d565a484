"""What watches an epoch and may end the training: skorch callbacks."""

from copy import copy

from skorch.callbacks import Callback, EarlyStopping
from skorch.utils import noop
from tqdm.auto import tqdm


class EpochBar(Callback):
    """A progress bar with epoch, loss and time left."""

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Open the bar."""
        self.bar_ = tqdm(total=net.max_epochs, desc="fit", unit="epoch")

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Move the bar on."""
        row = net.history[-1]
        losses = {k: f"{row[k]:.4f}" for k in ("train_loss", "valid_loss") if k in row}
        self.bar_.set_postfix(losses, refresh=False)
        self.bar_.update()

    def on_train_end(self, net, X=None, y=None, **kwargs):
        """Close the bar."""
        self.bar_.close()


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
            raise KeyboardInterrupt


def early_stopping(n_iter_no_change):
    """Stop when the validation loss has not fallen for a while, and go back to the best epoch."""
    return EarlyStopping(
        monitor="valid_loss", patience=n_iter_no_change, threshold=0, load_best=True, sink=noop
    )
