"""The figure of where a model puts sequences."""

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_consistent_length, column_or_1d

from sklearn_cls._compat import check_matplotlib_support
from sklearn_cls._display.axes import (
    N_STYLES,
    add_legend,
    color_and_marker,
    make_axes,
    steps_and_classifier,
)


class EmbeddingDisplay:
    """The [CLS] vectors of sequences in two dimensions, coloured by class.

    It is recommended to use :meth:`from_estimator` or :meth:`from_embeddings`. All parameters are
    stored as attributes. Colours and markers tell 56 classes apart; of more there is no legend.

    Parameters
    ----------
    points : ndarray of shape (n_sequences, 2)
        Where each sequence is.

    labels : array-like of shape (n_sequences,)
        Class labels.

    is_unseen : array-like of bool of shape (n_sequences,), default=None
        True for data that was not trained on, drawn hollow. None is False for all.

    axis_names : tuple of 2 str, default=("dimension 1", "dimension 2")
        Labels of the axes.

    label_name : str, default="class"
        Title of the legend.

    Attributes
    ----------
    scatters_ : list of matplotlib PathCollection
        A scatter for the seen and the unseen sequences of each class, in the order of the legend.

    ax_ : matplotlib Axes
        Axes with the points.

    figure_ : matplotlib Figure
        The figure they are in.

    See Also
    --------
    CLSTransformerClassifier.transform : The vectors.

    Examples
    --------
    >>> from sklearn_cls import CLSTransformerClassifier, EmbeddingDisplay
    >>> from sklearn_cls.datasets import make_sequences
    >>> X, y = make_sequences("marked", n_sequences=300, random_state=0)
    >>> clf = CLSTransformerClassifier(max_epochs=5, random_state=0).fit(X[:200], y[:200])
    >>> display = EmbeddingDisplay.from_estimator(
    ...     clf, X[:200], y[:200], X_unseen=X[200:], y_unseen=y[200:]
    ... )
    >>> display.points.shape
    (300, 2)
    """

    def __init__(
        self,
        points,
        labels,
        *,
        is_unseen=None,
        axis_names=("dimension 1", "dimension 2"),
        label_name="class",
    ):
        self.points = points
        self.labels = labels
        self.is_unseen = is_unseen
        self.axis_names = axis_names
        self.label_name = label_name

    @classmethod
    def from_estimator(
        cls, estimator, X, y=None, *, X_unseen=None, y_unseen=None, reducer=None, ax=None
    ):
        """Draw where a fitted model puts sequences.

        Parameters
        ----------
        estimator : estimator
            A fitted :class:`CLSTransformerClassifier`, or a Pipeline or a search that ends in one.

        X : array-like or list of arrays
            Sequences as in `fit`.

        y : array-like of shape (n_sequences,), default=None
            Their classes. None colours by the predicted ones.

        X_unseen : array-like or list of arrays, default=None
            Sequences that were not trained on, drawn hollow.

        y_unseen : array-like of shape (n_unseen,), default=None
            Their classes. None colours by the predicted ones.

        reducer : estimator, default=None
            What makes two dimensions of `d_model`, of which a copy is fitted on the vectors of X
            and `y`, and applied to those of `X_unseen`. One without `transform`, such as
            :class:`~sklearn.manifold.TSNE`, is fitted on both together. Of more dimensions the
            first two are drawn. None is :class:`~sklearn.decomposition.PCA`.

        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        Returns
        -------
        display : :class:`EmbeddingDisplay`
            Object that stores what is drawn.

        Raises
        ------
        ValueError
            If `y_unseen` is given without `X_unseen` or `y`, labels are not as many as
            sequences, or `reducer` leaves a single dimension.
        NotFittedError
            If the estimator is not fitted.
        """
        check_matplotlib_support("EmbeddingDisplay.from_estimator")
        before, classifier = steps_and_classifier(estimator)
        if y_unseen is not None and (X_unseen is None or y is None):
            raise ValueError("y_unseen needs X_unseen, the sequences it labels, and y, of X.")

        def look_at(X, y):
            X = X if before is None else before.transform(X)
            return np.asarray(classifier.transform(X)), classifier.predict(X) if y is None else y

        embeddings, labels = look_at(X, y)
        unseen = {}
        if X_unseen is not None:
            names = "embeddings_unseen", "y_unseen"
            unseen = dict(zip(names, look_at(X_unseen, y_unseen), strict=True))
        label_name = "class"
        if y is None:
            label_name = "predicted class"
        elif X_unseen is not None and y_unseen is None:
            label_name = "class (unseen: predicted)"
        return cls.from_embeddings(
            embeddings, labels, **unseen, reducer=reducer, label_name=label_name, ax=ax
        )

    @classmethod
    def from_embeddings(
        cls,
        embeddings,
        y,
        *,
        embeddings_unseen=None,
        y_unseen=None,
        reducer=None,
        label_name="class",
        ax=None,
    ):
        """Draw vectors that are there already.

        Parameters
        ----------
        embeddings : array-like of shape (n_sequences, n_dimensions)
            What `transform` returned.

        y : array-like of shape (n_sequences,)
            Class labels.

        embeddings_unseen : array-like of shape (n_unseen, n_dimensions), default=None
            Those of sequences that were not trained on, drawn hollow.

        y_unseen : array-like of shape (n_unseen,), default=None
            Their class labels.

        reducer : estimator, default=None
            As in :meth:`from_estimator`.

        label_name : str, default="class"
            Title of the legend.

        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        Returns
        -------
        display : :class:`EmbeddingDisplay`
            Object that stores what is drawn.

        Raises
        ------
        ValueError
            If only one of `embeddings_unseen` and `y_unseen` is given, labels are not as many as
            vectors, or `reducer` leaves a single dimension.
        """
        from sklearn.decomposition import PCA

        if (embeddings_unseen is None) != (y_unseen is None):
            raise ValueError("embeddings_unseen and y_unseen go together; pass both or neither.")
        check_consistent_length(embeddings, y)
        seen, labels = np.asarray(embeddings), _check_labels(y, "y")
        if min(seen.shape) < 2 and reducer is None:
            raise ValueError(
                f"Two dimensions take at least 2 sequences and d_model=2, got vectors of shape "
                f"{seen.shape}."
            )
        every, is_unseen = seen, np.zeros(len(seen), dtype=bool)
        if y_unseen is not None:
            check_consistent_length(embeddings_unseen, y_unseen)
            every = np.concatenate([seen, embeddings_unseen])
            is_unseen = np.arange(len(every)) >= len(seen)
            unseen = _check_labels(y_unseen, "y_unseen")
            if (labels.dtype.kind in "biuf") != (unseen.dtype.kind in "biuf"):
                raise ValueError(
                    "y and y_unseen must be labels of one kind, got "
                    f"{labels.dtype} and {unseen.dtype}."
                )
            labels = np.concatenate([labels, unseen])
        if reducer is not None and (
            isinstance(reducer, type) or not hasattr(reducer, "fit_transform")
        ):
            raise TypeError(
                f"reducer must be a scikit-learn reducer, such as PCA(2), got {reducer!r}."
            )
        reducer = PCA(2, svd_solver="full") if reducer is None else clone(reducer)
        if hasattr(reducer, "transform"):
            points = reducer.fit(seen, labels[~is_unseen]).transform(every)
        else:
            points = reducer.fit_transform(every)
        points = np.asarray(points)
        if points.ndim != 2 or points.shape[1] < 2:
            raise ValueError(
                f"reducer={reducer!r} leaves points of shape {points.shape}, and a figure has two "
                "dimensions; set its n_components=2."
            )
        display = cls(
            points[:, :2],
            labels,
            is_unseen=is_unseen,
            axis_names=_axis_names(reducer),
            label_name=label_name,
        )
        return display.plot(ax=ax)

    def plot(self, ax=None):
        """Draw the points.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        Returns
        -------
        display : :class:`EmbeddingDisplay`
            Object that stores what is drawn.
        """
        axis = make_axes(self, ax, size=(6.4, 4.8))[0, 0]
        from matplotlib.lines import Line2D

        points, labels = np.asarray(self.points), np.asarray(self.labels)
        is_unseen = np.zeros(len(points), dtype=bool)
        if self.is_unseen is not None:
            is_unseen = np.asarray(self.is_unseen, dtype=bool)
        size = float(np.clip(8000 / len(points), 9, 36))
        handles, self.scatters_ = [], []
        classes = np.unique(labels)
        for i, label in enumerate(classes):
            style = color_and_marker(i)
            for unseen in (False, True):
                chosen = points[(labels == label) & (is_unseen == unseen)]
                if not len(chosen):
                    continue
                face = "none" if unseen else style["color"]
                colors = {"facecolors": face, "edgecolors": style["color"], "linewidths": 0.8}
                self.scatters_.append(
                    axis.scatter(*chosen.T, s=size, marker=style["marker"], alpha=0.8, **colors)
                )
            if len(classes) <= N_STYLES:
                handles.append(Line2D([], [], ls="", **style, label=str(label)))
        if is_unseen.any():
            for name, face in (("seen", "black"), ("unseen", "none")):
                dot = {"marker": "o", "markeredgecolor": "black", "markerfacecolor": face}
                handles.append(Line2D([], [], ls="", **dot, label=name))
        axis.set(xlabel=self.axis_names[0], ylabel=self.axis_names[1])
        axis.set_title("[CLS] vectors of the sequences")
        columns = -(-len(handles) // 18)
        add_legend(axis, handles, is_own=ax is None, title=self.label_name, ncols=columns)
        return self


def _check_labels(y, name):
    """Return labels as an array, all of them there."""
    labels = column_or_1d(y)
    for i, label in enumerate(labels):
        if label is None or label != label:
            raise ValueError(
                f"{name}[{i}] is {label}, and every sequence needs a label. Leave {name} out to "
                "draw the predicted classes."
            )
    return labels


def _axis_names(reducer):
    """Return what the two dimensions are, with their share of the variance if it is known."""
    from sklearn.pipeline import Pipeline

    last = reducer[-1] if isinstance(reducer, Pipeline) else reducer
    names = [f"{type(last).__name__} {i}" for i in (1, 2)]
    shares = getattr(last, "explained_variance_ratio_", None)
    if shares is None:
        return tuple(names)
    return tuple(
        f"{name} ({share:.0%} of the variance)" for name, share in zip(names, shares, strict=False)
    )
