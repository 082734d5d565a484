"""The figure of what value [CLS] should have."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sklearn_cls._compat import check_matplotlib_support
from sklearn_cls._display.axes import color_and_marker, make_axes
from sklearn_cls._network.cls_token import CLS_STRATEGIES
from sklearn_cls._network.encoder import POOLINGS

ARMS = (*CLS_STRATEGIES, *(pooling for pooling in POOLINGS if pooling != "cls"))


class StrategyDisplay:
    """Scores of the strategies for the value of [CLS], by depth, from a search.

    It is recommended to use :meth:`from_estimator`. All parameters are stored as attributes.

    Parameters
    ----------
    strategies : list of str of length n_strategies
        Values of `cls_strategy`, or of `pooling` if that is not "cls".

    depths : list of int of length n_depths or None
        Values of `depth`. None if there is only one, which has no axis.

    scores : ndarray of shape (n_strategies, n_depths, n_folds)
        Test scores. NaN is drawn as a gap.

    score_name : str, default="score"
        Label of the axis.

    Attributes
    ----------
    errorbars_ : list of matplotlib ErrorbarContainer
        For each strategy, mean and standard deviation over folds.

    ax_ : matplotlib Axes
        Axes with the scores.

    figure_ : matplotlib Figure
        The figure they are in.

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
        """Draw what a search over `cls_strategy` found.

        Parameters
        ----------
        estimator : GridSearchCV or another with `cv_results_`
            A fitted search over `cls_strategy`, and `depth` or not, of a
            :class:`CLSTransformerClassifier` or of a pipeline with one. Where `pooling` is "mean",
            "max" or "attention" it is drawn in place of the strategy, which makes no difference
            there. Of other parameters, those with the best mean score are drawn.

        metric : str, default=None
            Of a search with several metrics, the one to draw. None is that of `refit`.

        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        Returns
        -------
        display : :class:`StrategyDisplay`
            Object that stores what is drawn.

        Raises
        ------
        ValueError
            If `cls_strategy` was not searched, or there is no such metric.
        TypeError
            If `estimator` is not a search.
        NotFittedError
            If the search is not fitted.
        """
        check_matplotlib_support("StrategyDisplay.from_estimator")
        check_is_fitted(estimator)
        if not hasattr(estimator, "cv_results_"):
            raise TypeError(
                "estimator must be a fitted search, such as GridSearchCV, got "
                f"{type(estimator).__name__}."
            )
        results = estimator.cv_results_
        searched = sorted({key for params in results["params"] for key in params})
        found = [key for key in searched if key.rpartition("__")[2] == "cls_strategy"]
        if not found:
            raise ValueError(
                f"cls_strategy is not among the parameters searched, {', '.join(searched)}; add "
                "'cls_strategy': ['learned', 'zeros', 'fixed', 'random'] to the grid."
            )
        of_strategy = found[0]
        of_pooling, of_depth = (
            of_strategy.removesuffix("cls_strategy") + name for name in ("pooling", "depth")
        )
        metric = _check_metric(estimator, metric)
        folds = np.stack(
            [results[f"split{i}_test_{metric}"] for i in range(estimator.n_splits_)], axis=-1
        )
        means = np.nan_to_num(results[f"mean_test_{metric}"], nan=-np.inf)
        default = estimator.estimator.get_params()
        best, drawn = {}, []
        for i in np.argsort(-means, kind="stable"):
            params = results["params"][i]
            pooling = params.get(of_pooling, default.get(of_pooling, "cls"))
            strategy = params.get(of_strategy) if pooling == "cls" else pooling
            if strategy in ARMS:
                cell = strategy, params.get(of_depth, default.get(of_depth))
                best.setdefault(cell, folds[i])
                drawn.append(params)
        strategies = [s for s in ARMS if any(s == cell[0] for cell in best)]
        depths = sorted({depth for _, depth in best})
        missing = np.full(folds.shape[1], np.nan)
        scores = [[best.get((s, depth), missing) for depth in depths] for s in strategies]
        others = [
            key.rpartition("__")[2]
            for key in searched
            if key not in (of_strategy, of_pooling, of_depth)
            and len({repr(params.get(key)) for params in drawn}) > 1
        ]
        name = _score_name(estimator, metric) + (f", best {', '.join(others)}" if others else "")
        depths = depths if of_depth in searched else None
        return cls(strategies, depths, np.array(scores), score_name=name).plot(ax=ax)

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
        n, n_depths, n_folds = self.scores.shape
        means, deviations = self.scores.mean(axis=-1), self.scores.std(axis=-1)
        self.errorbars_ = []
        for i, strategy in enumerate(self.strategies):
            # Side by side, so that bars stay apart.
            x = np.arange(n_depths) + 0.08 * (i - (n - 1) / 2) if self.depths is not None else [i]
            style = color_and_marker(ARMS.index(strategy) if strategy in ARMS else i)
            self.errorbars_.append(
                axis.errorbar(x, means[i], deviations[i], **style, capsize=3, label=strategy)
            )
        of = (
            "cls_strategy" if set(self.strategies) <= set(CLS_STRATEGIES) else "strategy or pooling"
        )
        axis.set_title("Value of the [CLS] token")
        axis.set_ylabel(f"{self.score_name}\nmean ± deviation over {n_folds} folds")
        if self.depths is None:
            axis.set_xticks(range(n), self.strategies)
            axis.set(xlabel=of, xlim=(-0.5, n - 0.5))
        else:
            axis.set_xticks(range(n_depths), self.depths)
            axis.set(xlabel="depth (blocks)", xlim=(-0.5, n_depths - 0.5))
            axis.legend(title=of)
        return self


def _check_metric(search, metric):
    """Return the name of the scores in `cv_results_`."""
    names = [
        key.removeprefix("mean_test_") for key in search.cv_results_ if key.startswith("mean_test_")
    ]
    if metric is None:
        metric = names[0] if len(names) == 1 else search.refit
        metric = metric if metric in names else None
    if metric not in names:
        raise ValueError(f"metric must be one of {', '.join(map(repr, names))}, got {metric!r}.")
    return metric


def _score_name(search, metric):
    """Return what the scores are."""
    if metric != "score":
        return metric
    if search.scoring is None:
        return "accuracy"
    return search.scoring if isinstance(search.scoring, str) else "score"
