"""The figure of the training history of one or several fits."""

import numpy as np

from sklearn_cls._compat import check_matplotlib_support
from sklearn_cls._display.axes import (
    GRAY,
    add_legend,
    color_and_marker,
    label_outer,
    make_axes,
    steps_and_classifier,
)
from sklearn_cls._display.text import plain, shorten

PANELS = {  # keys of a history and their line styles, by the label of their panel
    "loss": {"train_loss": "-", "valid_loss": "--"},
    "validation accuracy": {"valid_accuracy": "--"},
    "learning rate": {"lr": "-"},
}
STAR = {"ls": "", "marker": "*", "markersize": 13, "markeredgecolor": "white"}
N_MARKERS = 8  # approximate number on each curve
MAX_NAME_LENGTH = 60  # characters of a fit in the legend
MAX_VALUE_LENGTH = 30  # characters of a parameter in the legend


class TrainingDisplay:
    """Loss, validation accuracy and learning rate over the epochs of one or several fits.

    It is recommended to use :meth:`from_estimator`. All parameters are stored as attributes.

    With early stopping, loss and accuracy on the validation set are drawn too, with a star at the
    epoch whose weights were restored.

    Parameters
    ----------
    histories : dict of str to dict
        The attribute `history_` of each fit, by the name of its curves in the legend.

    Attributes
    ----------
    axes_ : ndarray of shape (n_panels, 1), dtype=matplotlib Axes
        Axes with the loss, the validation accuracy if there is one, and the learning rate.

    ax_ : matplotlib Axes
        The first of `axes_`.

    figure_ : matplotlib Figure
        Figure that contains the axes.

    See Also
    --------
    sklearn.callback.ScoringMonitor : Score an estimator at every epoch.

    Examples
    --------
    >>> from sklearn_cls import CLSTransformerClassifier, TrainingDisplay
    >>> from sklearn_cls.datasets import make_sequences
    >>> X, y = make_sequences("marked", n_sequences=100, random_state=0)
    >>> params = {"max_epochs": 5, "early_stopping": True, "random_state": 0}
    >>> clfs = [CLSTransformerClassifier(depth=d, **params).fit(X, y) for d in (1, 2)]
    >>> display = TrainingDisplay.from_estimator(clfs)
    >>> list(display.histories)
    ['depth=1', 'depth=2']
    """

    def __init__(self, histories):
        self.histories = histories

    @classmethod
    def from_estimator(cls, estimator, *, ax=None):
        """Draw the training history of fitted estimators.

        Parameters
        ----------
        estimator : estimator, list of estimators, or dict of str to estimator
            A fitted :class:`CLSTransformerClassifier`, or a Pipeline or a search that ends in one;
            for a search, its `best_estimator_` is drawn. Several are drawn in the same panels,
            named by the keys of the dict, or by the parameters in which the estimators of a list
            differ.

        ax : matplotlib Axes or array-like of Axes, default=None
            One Axes for each panel, or a single one, which is divided into the panels. If None, a
            new figure is created.

        Returns
        -------
        display : :class:`TrainingDisplay`
            Object that stores what is drawn.

        Raises
        ------
        ValueError
            If the list or the dict is empty.

        NotFittedError
            If an estimator is not fitted.
        """
        check_matplotlib_support("TrainingDisplay.from_estimator")
        is_one = not isinstance(estimator, dict | list | tuple)
        estimators = [estimator] if is_one else estimator
        if not len(estimators):
            raise ValueError(
                f"estimator must have at least one fitted estimator, got {estimator!r}."
            )
        if isinstance(estimators, dict):
            names = map(str, estimators)
            estimators = estimators.values()
        else:
            names = _names(estimators)
        classifiers = [steps_and_classifier(each)[1] for each in estimators]
        histories = [classifier.history_ for classifier in classifiers]
        return cls(dict(zip(names, histories, strict=True))).plot(ax=ax)

    def plot(self, ax=None):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of Axes, default=None
            One Axes for each panel, or a single one, which is divided into the panels. If None, a
            new figure is created.

        Returns
        -------
        display : :class:`TrainingDisplay`
            Object that stores what is drawn.
        """
        recorded = {key for history in self.histories.values() for key in history}
        panels = {label: keys for label, keys in PANELS.items() if recorded & set(keys)}
        size = 6.4, 1 + 1.9 * len(panels)
        axes = make_axes(self, ax, (len(panels), 1), size, sharex=True)
        for (label, keys), axis in zip(panels.items(), axes[:, 0], strict=True):
            self._draw_panel(axis, keys)
            axis.set(xlabel="epoch", ylabel=label)
        label_outer(axes)
        self.ax_.set_title("Training")
        # If there is no space beside the axes, the legend goes into the upper right corner of the
        # learning rate, which is empty because the learning rate decreases.
        has_layout = self.figure_.get_layout_engine() is not None
        axis = axes[0, 0] if has_layout else axes[-1, 0]
        handles = self._legend_handles("valid_loss" in recorded)
        add_legend(axis, handles, is_new_figure=ax is None, inside="upper right")
        return self

    def _draw_panel(self, axis, keys):
        """Draw some keys of all histories."""
        from matplotlib.ticker import MaxNLocator

        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        for i, (name, history) in enumerate(self.histories.items()):
            for key in [key for key in keys if key in history]:
                values = history[key]
                spacing = max(1, len(values) // N_MARKERS)
                # Markers are at different epochs, so that curves that coincide remain visible.
                first = i * spacing // len(self.histories)
                style = {**color_and_marker(i), "linestyle": keys[key], "lw": 1.3, "markersize": 4}
                epochs = np.arange(1, len(values) + 1)
                axis.plot(epochs, values, **style, markevery=(first, spacing), label=name)
                best = _restored_epoch(history)
                if best is not None and "valid" in key:
                    axis.plot(best, values[best - 1], color=style["color"], **STAR, zorder=3)

    def _legend_handles(self, has_validation):
        """Return handles for the fits, and for the line styles if there are several."""
        from matplotlib.lines import Line2D

        handles = []
        if len(self.histories) > 1:
            for i, name in enumerate(self.histories):
                label = plain(shorten(name, MAX_NAME_LENGTH))
                handles.append(Line2D([], [], **color_and_marker(i), label=label))
        if has_validation:
            handles.append(Line2D([], [], color=GRAY, ls="-", label="training"))
            handles.append(Line2D([], [], color=GRAY, ls="--", label="validation"))
            handles.append(Line2D([], [], color=GRAY, **STAR, label="restored epoch"))
        return handles


def _restored_epoch(history):
    """Return the epoch with the best validation loss, counted from 1; None without one."""
    best = np.flatnonzero(history.get("valid_loss_best", []))
    return int(best[-1]) + 1 if len(best) else None


def _names(estimators):
    """Return a name for each estimator: the parameters in which they differ."""
    params = [steps_and_classifier(each)[1].get_params() for each in estimators]
    differing = [key for key in params[0] if len({repr(each[key]) for each in params}) > 1]
    names = [", ".join(f"{key}={_format(each[key])}" for key in differing) for each in params]
    if len(set(names)) < len(names):
        return [f"fit {i}: {name}" if name else f"fit {i}" for i, name in enumerate(names)]
    return names


def _format(value):
    """Return a short text of a parameter."""
    value = value.item() if isinstance(value, np.generic) else value
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:MAX_VALUE_LENGTH]
