"""The figure of a training, or of all those of a search."""

import zlib

import numpy as np
import sklearn
from sklearn.base import clone

from sklearn_cls._compat import ScoringMonitor, check_matplotlib_support
from sklearn_cls._display.axes import (
    GREY,
    add_legend,
    color_and_marker,
    label_outer,
    make_axes,
    steps_and_classifier,
)

PANELS = {  # what is drawn of `history_`
    "loss": {"train_loss": "-", "valid_loss": "--"},
    "validation accuracy": {"valid_accuracy": "--"},
    "learning rate": {"lr": "-"},
}
MONITORED = ("epoch", "train_loss", "valid_loss", "valid_loss_best", "valid_accuracy", "lr")
STAR = {"ls": "", "marker": "*", "markersize": 13, "markeredgecolor": "white"}


class TrainingDisplay:
    """Loss, validation accuracy and learning rate over the epochs of one or several fits.

    It is recommended to use :meth:`from_estimator`. All parameters are stored as attributes.

    With early stopping there is a loss and an accuracy on the held-out sequences, and a star at
    the epoch whose weights were restored.

    Parameters
    ----------
    histories : dict of str to list
        By the name of each curve, a list of the fits it is the mean of, each as in the
        attribute `history_`. Fits that stopped earlier count on with their last values, and the
        star is at the mean of the restored epochs.

    Attributes
    ----------
    axes_ : ndarray of shape (n_panels, 1), dtype=matplotlib Axes
        Axes with the loss, the validation accuracy if there is any, and the learning rate.

    ax_ : matplotlib Axes
        The first of `axes_`.

    figure_ : matplotlib Figure
        The figure they are in.

    See Also
    --------
    sklearn.callback.ScoringMonitor : Scores of every epoch, on the training data.

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

    A search forgets its candidates, a monitor on the classifier does not (scikit-learn 1.9):

    >>> from sklearn.model_selection import GridSearchCV
    >>> monitor = TrainingDisplay.monitor()  # doctest: +SKIP
    >>> clf = CLSTransformerClassifier().set_callbacks(monitor)  # doctest: +SKIP
    >>> search = GridSearchCV(clf, {"depth": [1, 2]}).fit(X, y)  # doctest: +SKIP
    >>> TrainingDisplay.from_estimator(search, monitor=monitor)  # doctest: +SKIP
    <...>
    """

    def __init__(self, histories):
        self.histories = histories

    @staticmethod
    def monitor():
        """Return a callback that records what :meth:`from_estimator` draws of a search.

        It goes to the `set_callbacks` of the classifier, in a pipeline too, before the search is
        fitted.

        Returns
        -------
        monitor : sklearn.callback.ScoringMonitor
            Whose scores are the last row of `history_`.

        Raises
        ------
        ImportError
            If scikit-learn is older than 1.9.
        """
        if ScoringMonitor is None:
            raise ImportError(
                "TrainingDisplay.monitor needs scikit-learn 1.9 or later, and this is "
                f"{sklearn.__version__}; pip install -U scikit-learn, or draw "
                "search.best_estimator_ alone."
            )
        return ScoringMonitor(scoring=_last_epoch)

    @classmethod
    def from_estimator(cls, estimator, *, monitor=None, ax=None):
        """Draw how fitted estimators were trained.

        Parameters
        ----------
        estimator : estimator, list or dict of estimators
            A fitted :class:`CLSTransformerClassifier`, or a Pipeline that ends in one. Several
            are laid over each other, named by the keys of a dict, or by the parameters in which
            those of a list differ. Or a GridSearchCV or RandomizedSearchCV, of which all
            candidates are drawn, each as the mean over its folds.

        monitor : sklearn.callback.ScoringMonitor, default=None
            For a search, and needed there: what :meth:`monitor` made, and what watched its fit.
            Of several searches that it watched, the latest with the same candidates, folds and
            refit is taken to be this one.

        ax : matplotlib Axes or array-like of Axes, default=None
            Axes for each panel, or one that they share out. If None, a new figure is created.

        Returns
        -------
        display : :class:`TrainingDisplay`
            Object that stores what is drawn.

        Raises
        ------
        ValueError
            If a search comes without its monitor, or a monitor without its search.
        NotFittedError
            If an estimator is not fitted.
        """
        check_matplotlib_support("TrainingDisplay.from_estimator")
        if hasattr(estimator, "cv_results_"):
            return cls(_histories_of_search(estimator, monitor)).plot(ax=ax)
        if monitor is not None:
            raise ValueError(
                "monitor is for a fitted search; leave it out, as history_ has it all."
            )
        several = estimator if isinstance(estimator, dict | list | tuple) else [estimator]
        if not len(several):
            raise ValueError(f"estimator must be one or several fitted estimators, got {several}.")
        if not isinstance(several, dict):
            params = [steps_and_classifier(each)[1].get_params() for each in several]
            several = dict(zip(_tell_apart(params), several, strict=True))
        histories = {
            str(name): [steps_and_classifier(each)[1].history_] for name, each in several.items()
        }
        return cls(histories).plot(ax=ax)

    def plot(self, ax=None):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of Axes, default=None
            Axes for each panel, or one that they share out. If None, a new figure is created.

        Returns
        -------
        display : :class:`TrainingDisplay`
            Object that stores what is drawn.
        """
        curves = {
            name: {key: _mean_curve(fits, key) for keys in PANELS.values() for key in keys}
            for name, fits in self.histories.items()
        }
        recorded = {k for of in curves.values() for k, curve in of.items() if curve is not None}
        panels = {label: keys for label, keys in PANELS.items() if recorded & set(keys)}
        n_panels = len(panels)
        axes = make_axes(self, ax, (n_panels, 1), (6.4, 1 + 1.9 * n_panels), sharex=True)
        from matplotlib.ticker import MaxNLocator

        for (label, keys), axis in zip(panels.items(), axes[:, 0], strict=True):
            for i, (name, of_name) in enumerate(curves.items()):
                for key, dash in keys.items():
                    if of_name[key] is not None:
                        best = _restored_epoch(self.histories[name]) if "valid" in key else None
                        _draw_curve(axis, of_name[key], i, len(curves), dash, name, best)
            axis.set(xlabel="epoch", ylabel=label)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        label_outer(axes)
        self.ax_.set_title("Training")
        # Where there is no room beside the axes, it hides least above a learning rate that falls.
        place = axes[0, 0] if self.figure_.get_layout_engine() is not None else axes[-1, 0]
        add_legend(place, self._handles(recorded), is_own=ax is None, inside="upper right")
        return self

    def _handles(self, recorded):
        """Return what the legend explains."""
        from matplotlib.lines import Line2D

        handles = []
        if len(self.histories) > 1:
            for i, name in enumerate(self.histories):
                handles.append(Line2D([], [], **color_and_marker(i), label=name))
        if "valid_loss" in recorded:
            handles.append(Line2D([], [], color=GREY, ls="-", label="training"))
            handles.append(Line2D([], [], color=GREY, ls="--", label="validation"))
            handles.append(Line2D([], [], color=GREY, **STAR, label="restored epoch"))
        return handles


def _draw_curve(ax, curve, i, n_curves, dash, name, best):
    """Draw the i-th of several curves over the epochs, with a star at the `best`."""
    style = {**color_and_marker(i), "linestyle": dash, "lw": 1.3, "markersize": 4}
    every = max(1, len(curve) // 8)
    # Each has its markers at other epochs, so that equal curves show all of theirs.
    first = i * every // n_curves
    ax.plot(np.arange(1, len(curve) + 1), curve, **style, markevery=(first, every), label=name)
    if best is not None:
        ax.plot(best, curve[best - 1], color=style["color"], **STAR, zorder=3)


def _mean_curve(fits, key):
    """Return the mean over fits at each epoch, None if nothing was recorded.

    A fit that has stopped counts on with its last value, or the mean would jump.
    """
    values = np.full((len(fits), max(map(len, fits))), np.nan)
    for row, fit in zip(values, fits, strict=True):
        row[: len(fit)] = [epoch.get(key, np.nan) for epoch in fit]
        row[len(fit) :] = row[len(fit) - 1]
    mean = np.ma.masked_invalid(values).mean(axis=0).filled(np.nan)
    return None if np.isnan(mean).all() else mean


def _restored_epoch(fits):
    """Return the epoch whose weights were restored, counted from 1; of several fits the mean."""
    best = [
        max((i for i, epoch in enumerate(fit, start=1) if epoch.get("valid_loss_best")), default=0)
        for fit in fits
    ]
    return round(np.mean(best)) if all(best) else None


def _tell_apart(params):
    """Return a name for each dict of parameters: those in which they differ."""
    every = dict.fromkeys(key for of_one in params for key in of_one)
    keys = [key for key in every if len({repr(of_one.get(key)) for of_one in params}) > 1]
    short = [key.rpartition("__")[2] for key in keys]
    short = short if len(set(short)) == len(short) else keys

    def show(value):
        value = value.item() if isinstance(value, np.generic) else value
        return f"{value:.4g}" if isinstance(value, float) else str(value)[:30]

    names = [
        ", ".join(f"{name}={show(p[k])}" for name, k in zip(short, keys, strict=True) if k in p)
        for p in params
    ]
    if len(set(names)) < len(names) or "" in names:
        return [f"fit {i}: {name}" if name else f"fit {i}" for i, name in enumerate(names)]
    return names


def _last_epoch(estimator, X, y, **metadata):
    """Return, as if they were scores, what was recorded of the last epoch, and by whom."""
    recorded = {key: value for key, value in estimator.history_[-1].items() if key in MONITORED}
    return {**recorded, "fingerprint": _fingerprint(estimator)}


def _fingerprint(classifier):
    """Return a number that tells classifiers with other parameters apart."""
    params = classifier.get_params(deep=False).items()
    plain = {key: value for key, value in params if value is None or np.isscalar(value)}
    return zlib.crc32(repr(plain).encode())


def _histories_of_search(search, monitor):
    """Return the histories of all folds by the name of their candidate."""
    from sklearn.model_selection import GridSearchCV, RandomizedSearchCV

    if monitor is None:
        raise ValueError(
            f"{type(search).__name__} forgets how its candidates were trained. Before its fit, "
            "call clf.set_callbacks(monitor) with monitor = TrainingDisplay.monitor(), and pass "
            "monitor=monitor here; or draw search.best_estimator_ alone."
        )
    if not isinstance(search, GridSearchCV | RandomizedSearchCV):
        raise ValueError(
            "estimator must be a GridSearchCV or RandomizedSearchCV where there is a monitor, got "
            f"{type(search).__name__}; draw search.best_estimator_ alone."
        )
    params = search.cv_results_["params"]
    candidates = [{} for _ in params]
    for path, row in _rows_of_search(search, monitor):
        # Under the search, the first of its two tasks, a fit of a candidate to a fold each.
        if len(path) > 2 and path[1] == 0:
            fits = candidates[path[2] // search.n_splits_]
            fits.setdefault(path, {})[row["epoch"]] = row
    histories = [
        [[fit[epoch] for epoch in sorted(fit)] for fit in fits.values()] for fits in candidates
    ]
    return {name: fits for name, fits in zip(_tell_apart(params), histories, strict=True) if fits}


def _rows_of_search(search, monitor):
    """Return what `monitor` recorded of `search`: the path of tasks to a fit, and an epoch."""
    try:
        logs = monitor.get_logs(select="all")
    except ValueError:  # there are none
        logs = []
    candidates = (_candidate(search, params) for params in search.cv_results_["params"])
    fingerprints = np.repeat([_fingerprint(each) for each in candidates], search.n_splits_)
    expected = dict(enumerate(fingerprints.tolist()))
    for log in reversed(logs):
        # The end of a fit has a row too: of its last epoch, which early stopping leaves out.
        rows = [
            (row["task_id_path"][: -1 if row["task_name"] == "epoch" else None], row)
            for row in log.data
        ]
        if log.estimator_name == type(search).__name__ and _are_of(rows, search, expected):
            return rows
    raise ValueError(
        f"monitor has recorded nothing of this {type(search).__name__}. It must be on the "
        "classifier, clf.set_callbacks(monitor), when the search is fitted; or draw "
        "search.best_estimator_ alone."
    )


def _candidate(search, params):
    """Return the unfitted classifier of a candidate."""
    last = clone(search.estimator).set_params(**clone(params, safe=False))
    while hasattr(last, "steps"):
        last = last.steps[-1][1]
    return last


def _are_of(rows, search, expected):
    """Return whether fits to folds are those `expected`, and the last fit is that of `search`."""
    fits = {path[2]: row["fingerprint"] for path, row in rows if len(path) > 2 and path[1] == 0}
    results = search.cv_results_
    means = next(results[key] for key in results if key.startswith("mean_test_"))
    scored = np.flatnonzero(np.repeat(np.isfinite(means), search.n_splits_))  # others may be failed
    if not (fits.items() <= expected.items() and set(scored) <= fits.keys()):
        return False
    if not search.refit:
        return True
    last = {row["epoch"]: row["train_loss"] for path, row in rows if path[1] == 1}
    history = steps_and_classifier(search)[1].history_
    return last == {row["epoch"]: row["train_loss"] for row in history}
