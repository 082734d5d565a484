"""The figure of the scores of the [CLS] strategies in a search."""

from collections import namedtuple
from textwrap import fill

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sklearn_cls._compat import check_matplotlib_support
from sklearn_cls._display.axes import add_legend, color_and_marker, make_axes
from sklearn_cls._display.text import plain
from sklearn_cls._network.cls_token import CLS_STRATEGIES
from sklearn_cls._network.encoder import POOLINGS

# Poolings other than "cls" ignore `cls_strategy`, and are drawn as additional strategies.
STRATEGIES = (*CLS_STRATEGIES, *(pooling for pooling in POOLINGS if pooling != "cls"))

MAX_DEPTH_TICKS = 20
MAX_LINE_LENGTH = 45  # characters of the label of the y-axis

# Names of the parameters in a search, with the prefix that they have in a pipeline.
Names = namedtuple("Names", ("strategy", "pooling", "depth"))


class StrategyDisplay:
    """Scores of the [CLS] strategies by depth, from a search.

    It is recommended to use :meth:`from_estimator`. All parameters are stored as attributes.

    Parameters
    ----------
    strategies : list of str of length n_strategies
        Values of `cls_strategy`, or of `pooling` if that is not "cls".

    depths : list of int of length n_depths or None
        Values of `depth`. If None, there is one depth, and the strategies are on the x-axis.

    scores : ndarray of shape (n_strategies, n_depths, n_folds)
        Test scores. NaN is drawn as a gap.

    score_name : str, default="score"
        Label of the y-axis.

    Attributes
    ----------
    errorbars_ : list of matplotlib ErrorbarContainer
        For each strategy, mean and standard deviation over folds.

    ax_ : matplotlib Axes
        Axes with the scores.

    figure_ : matplotlib Figure
        Figure that contains the axes.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn_cls import CLSTransformerClassifier, StrategyDisplay
    >>> from sklearn_cls.datasets import make_sequences
    >>> X, y = make_sequences("marked", n_sequences=100, random_state=0)
    >>> clf = CLSTransformerClassifier(max_epochs=3, random_state=0)
    >>> grid = {"cls_strategy": ["learned", "zeros"], "depth": [1, 2]}
    >>> search = GridSearchCV(clf, grid, cv=2, refit=False).fit(X, y)
    >>> display = StrategyDisplay.from_estimator(search)
    >>> display.scores.shape
    (2, 2, 2)
    """

    def __init__(self, strategies, depths, scores, *, score_name="score"):
        self.strategies = strategies
        self.depths = depths
        self.scores = scores
        self.score_name = score_name

    @classmethod
    def from_estimator(cls, estimator, *, metric=None, ax=None):
        """Draw the scores of a search over `cls_strategy`.

        Parameters
        ----------
        estimator : GridSearchCV or another search with `cv_results_`
            A fitted search over `cls_strategy` and optionally `depth`, of a
            :class:`CLSTransformerClassifier` or of a Pipeline with one. Candidates whose `pooling`
            is "mean", "max" or "attention" ignore `cls_strategy`, and are grouped by their pooling
            instead. If other parameters were searched too, the candidate with the best mean score
            is drawn.

        metric : str, default=None
            Metric to draw if the search has several. If None, that of `refit`.

        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        Returns
        -------
        display : :class:`StrategyDisplay`
            Object that stores what is drawn.

        Raises
        ------
        ValueError
            If `cls_strategy` was not searched, or the metric does not exist.

        TypeError
            If `estimator` is not a search.

        NotFittedError
            If the search is not fitted.
        """
        check_matplotlib_support("StrategyDisplay.from_estimator")
        names = _check_search(estimator)
        metric = _check_metric(estimator, metric)
        best, candidates = _best_candidates(estimator, names, metric)
        strategies = [name for name in STRATEGIES if name in {strategy for strategy, _ in best}]
        depths = sorted({depth for _, depth in best})
        missing = np.full(estimator.n_splits_, np.nan)
        scores = [[best.get((name, depth), missing) for depth in depths] for name in strategies]
        depths = depths if names.depth in _searched(estimator) else None
        score_name = _score_name(estimator, metric, names, candidates)
        return cls(strategies, depths, np.array(scores), score_name=score_name).plot(ax=ax)

    def plot(self, ax=None):
        """Draw mean and standard deviation over folds.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        Returns
        -------
        display : :class:`StrategyDisplay`
            Object that stores what is drawn.
        """
        axis = make_axes(self, ax)[0, 0]
        n_strategies, n_depths, n_folds = self.scores.shape
        self.errorbars_ = []
        for i, strategy in enumerate(self.strategies):
            x = [i]
            if self.depths is not None:
                # Strategies are shifted horizontally, so that their error bars do not overlap.
                x = np.arange(n_depths) + 0.08 * (i - (n_strategies - 1) / 2)
            means, stds = self.scores[i].mean(axis=-1), self.scores[i].std(axis=-1)
            style = color_and_marker(STRATEGIES.index(strategy) if strategy in STRATEGIES else i)
            self.errorbars_.append(
                axis.errorbar(x, means, stds, **style, capsize=3, label=strategy)
            )
        are_tokens = set(self.strategies) <= set(CLS_STRATEGIES)
        name = "cls_strategy" if are_tokens else "strategy or pooling"
        axis.set_title("Value of the [CLS] token")
        score_name = fill(plain(self.score_name), MAX_LINE_LENGTH)
        axis.set_ylabel(f"{score_name}\nmean ± standard deviation, {n_folds} folds")
        if self.depths is None:
            axis.set_xticks(range(n_strategies), self.strategies)
            axis.set(xlabel=name, xlim=(-0.5, n_strategies - 0.5))
        else:
            step = -(-n_depths // MAX_DEPTH_TICKS)
            axis.set_xticks(range(0, n_depths, step), self.depths[::step])
            axis.set(xlabel="depth (blocks)", xlim=(-0.5, n_depths - 0.5))
            add_legend(axis, self.errorbars_, is_new_figure=ax is None, title=name)
        return self


def _searched(search):
    """Return the names of all searched parameters, sorted."""
    return sorted({name for params in search.cv_results_["params"] for name in params})


def _check_search(estimator):
    """Return the names of the parameters in a fitted search over `cls_strategy`."""
    check_is_fitted(estimator)
    if not hasattr(estimator, "cv_results_"):
        raise TypeError(
            "estimator must be a fitted search, for example GridSearchCV, got "
            f"{type(estimator).__name__}."
        )
    searched = _searched(estimator)
    found = [name for name in searched if name.rpartition("__")[2] == "cls_strategy"]
    if not found:
        raise ValueError(
            f"cls_strategy is not among the searched parameters ({', '.join(searched)}); add "
            "'cls_strategy': ['learned', 'zeros', 'fixed', 'random'] to the grid."
        )
    prefix = found[0].removesuffix("cls_strategy")
    return Names(found[0], prefix + "pooling", prefix + "depth")


def _check_metric(search, metric):
    """Return the name of the metric in `cv_results_`."""
    prefix = "mean_test_"
    names = [key.removeprefix(prefix) for key in search.cv_results_ if key.startswith(prefix)]
    if metric is None:
        metric = names[0] if len(names) == 1 else search.refit
        metric = metric if metric in names else None
    if metric not in names:
        raise ValueError(f"metric must be one of {', '.join(map(repr, names))}, got {metric!r}.")
    return metric


def _best_candidates(search, names, metric):
    """Return the fold scores of the best candidate by (strategy, depth), and all candidates.

    A candidate is a dict of parameters; those without a strategy or pooling to draw are left out.
    """
    results = search.cv_results_
    scores = [results[f"split{i}_test_{metric}"] for i in range(search.n_splits_)]
    scores = np.stack(scores, axis=-1)  # (n_candidates, n_folds)
    means = np.nan_to_num(results[f"mean_test_{metric}"], nan=-np.inf)
    default = search.estimator.get_params()
    best, candidates = {}, []
    for i in np.argsort(-means, kind="stable"):
        params = results["params"][i]
        pooling = params.get(names.pooling, default.get(names.pooling, "cls"))
        strategy = params.get(names.strategy) if pooling == "cls" else pooling
        if strategy in STRATEGIES:
            depth = params.get(names.depth, default.get(names.depth))
            best.setdefault((strategy, depth), scores[i])
            candidates.append(params)
    return best, candidates


def _score_name(search, metric, names, candidates):
    """Return the name of the score, and of the other parameters that differ among candidates."""
    name = metric
    if metric == "score":
        name = search.scoring if isinstance(search.scoring, str) else "score"
        name = "accuracy" if search.scoring is None else name
    others = [
        other.rpartition("__")[2]
        for other in _searched(search)
        if other not in names and len({repr(params.get(other)) for params in candidates}) > 1
    ]
    return f"{name}, best {', '.join(others)}" if others else name
