"""The figure of the [CLS] vectors of sequences in two dimensions."""

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
from sklearn_cls._display.text import plain, shorten

MAX_LEGEND_ROWS = 18
MAX_NAME_LENGTH = 40  # characters of a class in the legend


class EmbeddingDisplay:
    """The [CLS] vectors of sequences in two dimensions, colored by class.

    It is recommended to use :meth:`from_estimator` or :meth:`from_embeddings`. All parameters are
    stored as attributes. Up to 56 classes differ in color or marker; with more classes there is no
    legend.

    Parameters
    ----------
    points : ndarray of shape (n_sequences, 2)
        Coordinates of the sequences.

    labels : array-like of shape (n_sequences,)
        Class labels.

    is_unseen : array-like of bool of shape (n_sequences,), default=None
        True for sequences that were not used for training, which are drawn as hollow markers. If
        None, all were used.

    axis_names : tuple of 2 str, default=("dimension 1", "dimension 2")
        Labels of the axes.

    label_name : str, default="class"
        Title of the legend.

    Attributes
    ----------
    scatters_ : list of matplotlib PathCollection
        For each class, in the order of the legend, the points of its sequences that were used for
        training, then those of its unseen sequences. Empty ones are left out.

    ax_ : matplotlib Axes
        Axes with the points.

    figure_ : matplotlib Figure
        Figure that contains the axes.

    See Also
    --------
    CLSTransformerClassifier.transform : Compute the [CLS] vectors.

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
        """Draw the [CLS] vectors that a fitted model computes.

        Parameters
        ----------
        estimator : estimator
            A fitted :class:`CLSTransformerClassifier`, or a Pipeline or a search that ends in one.

        X : array-like or list of arrays
            Sequences as in `fit`.

        y : array-like of shape (n_sequences,), default=None
            Class labels. If None, the predicted labels are used.

        X_unseen : array-like or list of arrays, default=None
            Sequences that were not used for training, drawn hollow.

        y_unseen : array-like of shape (n_unseen,), default=None
            Class labels of `X_unseen`. If None, the predicted labels are used.

        reducer : estimator, default=None
            Estimator that reduces the vectors to two dimensions. A clone is fitted on those of X
            and on `y`, and transforms those of `X_unseen`. One without `transform`, such as
            :class:`~sklearn.manifold.TSNE`, is fitted on all vectors. Only the first two output
            dimensions are drawn. If None, :class:`~sklearn.decomposition.PCA`.

        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        Returns
        -------
        display : :class:`EmbeddingDisplay`
            Object that stores what is drawn.

        Raises
        ------
        ValueError
            If `y_unseen` is given without `X_unseen` or `y`, the number of labels differs from that
            of sequences, or the output of `reducer` has one dimension.

        NotFittedError
            If the estimator is not fitted.
        """
        check_matplotlib_support("EmbeddingDisplay.from_estimator")
        parts = _read_estimator(estimator, X, y, X_unseen, y_unseen)
        return cls.from_embeddings(**parts, reducer=reducer, ax=ax)

    @classmethod
    def from_embeddings(
        cls, embeddings, y, *, embeddings_unseen=None, y_unseen=None, reducer=None,
        label_name="class", ax=None,
    ):  # fmt: skip
        """Draw vectors that `transform` has returned.

        Parameters
        ----------
        embeddings : array-like of shape (n_sequences, n_dimensions)
            Vectors of the sequences.

        y : array-like of shape (n_sequences,)
            Class labels.

        embeddings_unseen : array-like of shape (n_unseen, n_dimensions), default=None
            Vectors of sequences that were not used for training, drawn hollow.

        y_unseen : array-like of shape (n_unseen,), default=None
            Class labels of `embeddings_unseen`.

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
            If only one of `embeddings_unseen` and `y_unseen` is given, the number of labels differs
            from that of vectors, or the output of `reducer` has one dimension.
        """
        unseen = embeddings_unseen, y_unseen
        vectors, labels, is_unseen = _concatenate(embeddings, y, *unseen)
        points, axis_names = _reduce(vectors, labels, is_unseen, reducer)
        names = {"axis_names": axis_names, "label_name": label_name}
        return cls(points, labels, is_unseen=is_unseen, **names).plot(ax=ax)

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
        axis = make_axes(self, ax)[0, 0]
        points, labels = np.asarray(self.points), np.asarray(self.labels)
        is_unseen = np.zeros(len(points), dtype=bool)
        if self.is_unseen is not None:
            is_unseen = np.asarray(self.is_unseen, dtype=bool)
        classes = np.unique(labels)
        self.scatters_ = []
        for i, label in enumerate(classes):
            for unseen in (False, True):
                chosen = points[(labels == label) & (is_unseen == unseen)]
                if len(chosen):
                    self.scatters_.append(_scatter(axis, chosen, i, unseen, len(points)))
        axis.set(xlabel=self.axis_names[0], ylabel=self.axis_names[1])
        axis.set_title("[CLS] vectors of the sequences")
        handles = _legend_handles(classes, is_unseen.any())
        n_columns = -(-len(handles) // MAX_LEGEND_ROWS)
        kwargs = {"title": self.label_name, "ncols": n_columns}
        add_legend(axis, handles, is_new_figure=ax is None, **kwargs)
        return self


def _read_estimator(estimator, X, y, X_unseen, y_unseen):
    """Return the arguments of `from_embeddings`, with predicted labels where none are given."""
    if y_unseen is not None and (X_unseen is None or y is None):
        raise ValueError(
            "y_unseen was given without X_unseen or y; pass all three, or leave out y_unseen."
        )
    steps, classifier = steps_and_classifier(estimator)

    def read(X, y):
        X = X if steps is None else steps.transform(X)
        return np.asarray(classifier.transform(X)), classifier.predict(X) if y is None else y

    parts = dict(zip(("embeddings", "y"), read(X, y), strict=True))
    if X_unseen is not None:
        parts["embeddings_unseen"], parts["y_unseen"] = read(X_unseen, y_unseen)
    parts["label_name"] = "class"
    if y is None:
        parts["label_name"] = "predicted class"
    elif X_unseen is not None and y_unseen is None:
        parts["label_name"] = "class (unseen: predicted)"
    return parts


def _check_embeddings(embeddings, y, name):
    """Return vectors and their labels as arrays; raise if a label is missing."""
    check_consistent_length(embeddings, y)
    labels = column_or_1d(y)
    for i, label in enumerate(labels):
        if label is None or label != label:
            raise ValueError(
                f"{name}[{i}] is {label}, but every sequence needs a label; leave out {name} to "
                "draw the predicted classes."
            )
    return np.asarray(embeddings), labels


def _concatenate(embeddings, y, embeddings_unseen, y_unseen):
    """Return all vectors, their labels, and whether they are of unseen sequences."""
    if (embeddings_unseen is None) != (y_unseen is None):
        raise ValueError("embeddings_unseen and y_unseen go together; pass both or neither.")
    vectors, labels = _check_embeddings(embeddings, y, "y")
    n_seen = len(vectors)
    if y_unseen is not None:
        unseen_vectors, unseen_labels = _check_embeddings(embeddings_unseen, y_unseen, "y_unseen")
        if (labels.dtype.kind in "biuf") != (unseen_labels.dtype.kind in "biuf"):
            raise ValueError(
                "y and y_unseen must both be numbers or both be strings, got "
                f"{labels.dtype} and {unseen_labels.dtype}."
            )
        vectors = np.concatenate([vectors, unseen_vectors])
        labels = np.concatenate([labels, unseen_labels])
    return vectors, labels, np.arange(len(vectors)) >= n_seen


def _reduce(vectors, labels, is_unseen, reducer):
    """Return points, (B, 2), and the axis names of a reducer fitted on the seen sequences.

    The labels of unseen sequences are not passed to the reducer.
    """
    reducer = _check_reducer(reducer, vectors[~is_unseen])
    if hasattr(reducer, "transform"):
        points = reducer.fit(vectors[~is_unseen], labels[~is_unseen]).transform(vectors)
    else:
        points = reducer.fit_transform(vectors)
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] < 2:
        raise ValueError(
            f"reducer={reducer!r} returned points of shape {points.shape}, but a figure needs two "
            "dimensions; set n_components=2."
        )
    return points[:, :2], _axis_names(reducer)


def _check_reducer(reducer, vectors):
    """Return a clone of the reducer; PCA if it is None."""
    from sklearn.decomposition import PCA

    if reducer is None:
        if min(vectors.shape) < 2:
            raise ValueError(
                "PCA to two dimensions needs at least 2 sequences and d_model >= 2, got vectors of "
                f"shape {vectors.shape}."
            )
        return PCA(2, svd_solver="full")
    if isinstance(reducer, type) or not hasattr(reducer, "fit_transform"):
        raise TypeError(
            "reducer must be an instance of a scikit-learn transformer, for example PCA(2), got "
            f"{reducer!r}."
        )
    return clone(reducer)


def _axis_names(reducer):
    """Return names of both dimensions, with their explained variance if the reducer has it."""
    from sklearn.pipeline import Pipeline

    last = reducer[-1] if isinstance(reducer, Pipeline) else reducer
    names = [f"{type(last).__name__} {i}" for i in (1, 2)]
    ratios = getattr(last, "explained_variance_ratio_", None)
    if ratios is None:
        return tuple(names)
    return tuple(
        f"{name} ({ratio:.0%} of the variance)" for name, ratio in zip(names, ratios, strict=False)
    )


def _scatter(axis, points, i, is_unseen, n_points):
    """Draw points of the i-th class, filled or hollow, smaller if the figure has many points."""
    style = color_and_marker(i)
    return axis.scatter(
        *points.T,
        s=float(np.clip(8000 / n_points, 2, 36)),
        marker=style["marker"],
        alpha=0.8,
        facecolors="none" if is_unseen else style["color"],
        edgecolors=style["color"],
        linewidths=0.8,
    )


def _legend_handles(classes, has_unseen):
    """Return handles for the classes and for seen and unseen sequences."""
    from matplotlib.lines import Line2D

    handles = []
    if len(classes) <= N_STYLES:
        handles += [
            Line2D(
                [], [], ls="", **color_and_marker(i), label=plain(shorten(label, MAX_NAME_LENGTH))
            )
            for i, label in enumerate(classes)
        ]
    if has_unseen:
        for name, face in (("seen", "black"), ("unseen", "none")):
            style = {"marker": "o", "markeredgecolor": "black", "markerfacecolor": face}
            handles.append(Line2D([], [], ls="", **style, label=name))
    return handles
