"""The figure of the attention of [CLS] to the steps of a few sequences."""

from numbers import Integral

import numpy as np
from sklearn.utils import check_consistent_length, column_or_1d

from sklearn_cls._compat import check_matplotlib_support
from sklearn_cls._display.axes import (
    COLORS,
    DASHES,
    add_legend,
    label_outer,
    make_axes,
    steps_and_classifier,
)

MAX_SEQUENCES = 8
MAX_LABEL_LENGTH = 24  # characters
MAX_FEATURE_TICKS = 8


class CLSAttentionDisplay:
    """Attention of [CLS] to the steps of a few sequences, drawn below each sequence.

    It is recommended to use :meth:`from_estimator`. All parameters are stored as attributes.

    Up to five features are drawn as lines. More are drawn as an image with one row per feature:
    dark where the value is high, blue where it is missing. The dashed line is uniform attention.

    Parameters
    ----------
    sequences : list of ndarray of shape (n_steps_i, n_features)
        The sequences; NaN is a missing value.

    attention : ndarray of shape (n_sequences, n_blocks, n_heads, n_steps)
        Attention as returned by `CLSTransformerClassifier.cls_attention`.

    titles : list of str, default=None
        Titles of the sequences. If None, they are numbered.

    feature_names : list of str, default=None
        Names of the features. If None, they are numbered.

    Attributes
    ----------
    axes_ : ndarray of shape (n_blocks_drawn, n_sequences), dtype=matplotlib Axes
        Axes with the sequences.

    attention_axes_ : ndarray of shape (n_blocks_drawn, n_sequences), dtype=matplotlib Axes
        Axes with the attention, on the same time axis.

    ax_ : matplotlib Axes
        The first of `axes_`.

    figure_ : matplotlib Figure
        Figure that contains the axes.

    See Also
    --------
    CLSTransformerClassifier.cls_attention : Compute the attention.

    Examples
    --------
    >>> from sklearn_cls import CLSAttentionDisplay, CLSTransformerClassifier
    >>> from sklearn_cls.datasets import make_sequences
    >>> X, y = make_sequences("marked", n_sequences=200, random_state=0)
    >>> clf = CLSTransformerClassifier(max_epochs=5, random_state=0).fit(X, y)
    >>> display = CLSAttentionDisplay.from_estimator(clf, X[:3], y[:3])
    >>> display.axes_.shape
    (1, 3)
    """

    def __init__(self, sequences, attention, *, titles=None, feature_names=None):
        self.sequences = sequences
        self.attention = attention
        self.titles = titles
        self.feature_names = feature_names

    @classmethod
    def from_estimator(
        cls, estimator, X, y=None, *, block=-1, heads="mean", feature_names=None, ax=None
    ):
        """Draw the attention of [CLS] in a few sequences.

        Parameters
        ----------
        estimator : estimator
            A fitted :class:`CLSTransformerClassifier`, or a Pipeline or a search that ends in one.
            The sequences are drawn as transformed by the preceding steps of a Pipeline.

        X : array-like or list of arrays
            At most 8 sequences, in a form that `predict` accepts.

        y : array-like of shape (n_sequences,), default=None
            Classes of the sequences, shown in the titles beside the predicted ones.

        block : int or "all", default=-1
            Encoder block, counted from 0, or from the last if negative; "all" draws one row of
            panels for each block.

        heads : {"mean", "each"}, default="mean"
            Draw the mean over the heads as an area, or an image with one row per head.

        feature_names : list of str, default=None
            Names of the features. If None, they are numbered.

        ax : matplotlib Axes or array-like of Axes, default=None
            One Axes for each panel, or a single one, which is divided into the panels. If None, a
            new figure is created.

        Returns
        -------
        display : :class:`CLSAttentionDisplay`
            Object that stores what is drawn.

        Raises
        ------
        ValueError
            If X has more than 8 sequences, the block does not exist, or `pooling` is "mean" or
            "max", which have no [CLS] token.

        NotFittedError
            If the estimator is not fitted.
        """
        check_matplotlib_support("CLSAttentionDisplay.from_estimator")
        sequences, attention, titles = _read_estimator(estimator, X, y)
        display = cls(sequences, attention, titles=titles, feature_names=feature_names)
        return display.plot(block=block, heads=heads, ax=ax)

    def plot(self, ax=None, *, block=-1, heads="mean"):
        """Draw the sequences and the attention.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of Axes, default=None
            One Axes for each panel, or a single one, which is divided into the panels. If None, a
            new figure is created.

        block : int or "all", default=-1
            Encoder block, counted from 0, or from the last if negative; "all" draws one row of
            panels for each block.

        heads : {"mean", "each"}, default="mean"
            Draw the mean over the heads as an area, or an image with one row per head.

        Returns
        -------
        display : :class:`CLSAttentionDisplay`
            Object that stores what is drawn.

        Raises
        ------
        ValueError
            If there are more than 8 sequences, or the block does not exist.
        """
        _check_n_sequences(self.sequences, "sequences")
        if heads not in ("mean", "each"):
            raise ValueError(f"heads must be 'mean' or 'each', got {heads!r}.")
        blocks = _check_block(block, n_blocks=self.attention.shape[1])
        n_rows, n_columns = len(blocks), len(self.sequences)
        size = 1.4 + max(2.6 * n_columns, 4), 0.6 + 2.6 * n_rows
        axes = make_axes(self, ax, (n_rows, n_columns), size)
        self.attention_axes_ = np.array([[ax.twinx() for ax in row] for row in axes])
        handles = self._draw_panels(blocks, heads)
        self._label_panels(blocks, heads)
        if heads == "each":
            image = self.attention_axes_[0, 0].collections[0]
            self.figure_.colorbar(image, ax=list(axes.flat), label="attention of [CLS]")
        if ax is None:
            self.figure_.suptitle(self._figure_title(blocks, heads))
        # In the upper right corner the legend hides no attention.
        kwargs = {"is_below": True, "inside": "upper right"}
        add_legend(self.attention_axes_[0, -1], handles, is_new_figure=ax is None, **kwargs)
        return self

    def _draw_panels(self, blocks, heads):
        """Draw each sequence and its attention; return the legend handles of one panel."""
        attention = self.attention[:, blocks]
        if heads == "mean":
            attention = attention.mean(axis=2, keepdims=True)
        draw = _draw_area if heads == "mean" else _draw_heads
        limits = _value_limits(self.sequences)
        for i, x in enumerate(self.sequences):
            names = self._feature_names(x.shape[1])
            for row in range(len(blocks)):
                handles = _draw_sequence(self.axes_[row, i], x, limits, names)
                weights = attention[i, row, :, : len(x)]  # (H, T); padding is left out
                handles += draw(self.attention_axes_[row, i], weights, attention.max())
        return handles

    def _label_panels(self, blocks, heads):
        """Set titles and axis labels."""
        titles = self.titles
        if titles is None:
            titles = [f"sequence {i}" for i in range(len(self.sequences))]
        for ax, title in zip(self.axes_[0], titles, strict=True):
            ax.set_title(title)
        for ax in self.axes_.flat:
            ax.set_xlabel("time step")
        label = "attention" if heads == "mean" else "head"
        for block, row in zip(blocks, self.attention_axes_, strict=True):
            for ax in row:
                ax.set_ylabel(label if len(blocks) == 1 else f"block {block}\n{label}", y=1 / 6)
                ax.yaxis.set_label_position("left")
                ax.tick_params(left=True, right=False, labelleft=True, labelright=False)
        if label_outer(self.axes_):
            label_outer(self.attention_axes_)

    def _figure_title(self, blocks, heads):
        """Return the title of a new figure."""
        n_blocks, n_heads = self.attention.shape[1:3]
        title = "Attention of [CLS]: "
        if len(blocks) > 1:
            title += "each block"
        else:
            title += "last block" if blocks == [n_blocks - 1] else f"block {blocks[0]}"
        return title if n_heads == 1 else f"{title}, {heads} of {n_heads} heads"

    def _feature_names(self, n_features):
        """Return a name for each feature."""
        if self.feature_names is None:
            return [f"feature {i}" for i in range(n_features)]
        if len(self.feature_names) != n_features:
            raise ValueError(
                f"feature_names must have one name for each of the {n_features} features, got "
                f"{len(self.feature_names)}."
            )
        return list(self.feature_names)


def _read_estimator(estimator, X, y):
    """Return the sequences as drawn, their attention and their titles."""
    steps, classifier = steps_and_classifier(estimator)
    if hasattr(X, "__len__") and len(X) > MAX_SEQUENCES:
        # If X is a single sequence (n_steps, n_features), the classifier's error is more specific.
        classifier.predict(X[:1] if steps is None else steps.transform(X[:1]))
        _check_n_sequences(X, "X")
    X = X if steps is None else steps.transform(X)
    titles = [f"predicted {_shorten(label)}" for label in classifier.predict(X)]
    if y is not None:
        check_consistent_length(X, y)
        labels = column_or_1d(y)
        titles = [
            f"class {_shorten(label)}\n{title}" for label, title in zip(labels, titles, strict=True)
        ]
    attention = classifier.cls_attention(X)
    X = X.to_numpy() if hasattr(X, "to_numpy") else X
    return [_trim_padding(x) for x in X], attention, titles


def _shorten(label):
    """Return a class label as text that fits above a panel."""
    text = str(label)
    return text if len(text) <= MAX_LABEL_LENGTH else text[: MAX_LABEL_LENGTH - 1] + "…"


def _check_n_sequences(sequences, name):
    """Raise if there are too many sequences for one figure."""
    if len(sequences) > MAX_SEQUENCES:
        raise ValueError(
            f"{name} has {len(sequences)} sequences, but at most {MAX_SEQUENCES} can be drawn side "
            "by side; pass fewer, for example X[:4]."
        )


def _check_block(block, n_blocks):
    """Return the blocks to draw, counted from 0."""
    if isinstance(block, str) and block == "all":
        return list(range(n_blocks))
    if not isinstance(block, Integral) or not -n_blocks <= block < n_blocks:
        raise ValueError(
            f"block must be 'all' or an integer from {-n_blocks} to {n_blocks - 1}, got {block!r}."
        )
    return [int(block) % n_blocks]


def _trim_padding(x):
    """Return a sequence as (T, F), without the steps at its end that are all NaN."""
    x = np.asarray(x, dtype=float)
    x = x[:, None] if x.ndim == 1 else x
    is_observed = ~np.isnan(x).all(axis=1)
    return x[: len(x) - is_observed[::-1].argmax()] if is_observed.any() else x


def _value_limits(sequences):
    """Return the lowest and the highest value of all sequences, with a margin."""
    values = np.concatenate([x[np.isfinite(x)] for x in sequences])
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _draw_sequence(ax, x, limits, names):
    """Draw a sequence, (T, F), in the upper two thirds; return its legend handles."""
    from matplotlib.ticker import MaxNLocator

    low, high = limits
    ax.set(xlim=(-0.5, len(x) - 0.5), ylim=(low - (high - low) / 2, high))
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if len(names) > len(DASHES):
        _draw_image(ax, x, limits, names)
        return []
    lines = []
    for values, name, color, dash in zip(x.T, names, COLORS, DASHES, strict=False):
        # Without markers, a single step between missing values would be invisible.
        lines += ax.plot(
            values, color=color, linestyle=dash, marker=".", markersize=4, lw=1.3, label=name
        )
    ticks = MaxNLocator(4).tick_values(low, high)
    # No tick is drawn close to the lower third, which has the ticks of the attention.
    ax.set_yticks(ticks[(ticks >= low + 0.1 * (high - low)) & (ticks <= high)])
    ax.set_ylabel("value", y=2 / 3)
    return lines if len(lines) > 1 else []


def _draw_image(ax, x, limits, names):
    """Draw a sequence, (T, F), as an image with one row per feature."""
    from matplotlib import colormaps

    low, high = limits
    edges = np.linspace(high, low, len(names) + 1)
    greys = colormaps["Greys"].with_extremes(bad=COLORS[4])
    ax.pcolormesh(np.arange(len(x) + 1) - 0.5, edges, x.T, cmap=greys, vmin=low, vmax=high)
    ticks = np.linspace(0, len(names) - 1, MAX_FEATURE_TICKS).round().astype(int)
    ticks = np.unique(ticks)
    centers = (edges[:-1] + edges[1:]) / 2
    ax.set_yticks(centers[ticks], [names[i].removeprefix("feature ") for i in ticks])
    ax.set_ylabel("feature", y=2 / 3)


def _draw_area(ax, attention, max_attention):
    """Draw the mean attention of the heads, (1, T), in the lower third; return legend handles."""
    n_steps = attention.shape[1]
    edges = np.arange(n_steps + 1) - 0.5
    area = ax.stairs(attention[0], edges, fill=True, color=COLORS[5], label="attention of [CLS]")
    uniform = ax.plot(
        edges[[0, -1]], [1 / n_steps] * 2, "--", color="black", lw=0.8, label="uniform attention"
    )
    ticks = {"yticks": [0, max_attention], "yticklabels": ["0", f"{max_attention:.2g}"]}
    ax.set(ylim=(0, 3.3 * max_attention), **ticks)
    return [area, *uniform]


def _draw_heads(ax, attention, max_attention):
    """Draw the attention of each head, (H, T), as an image in the lower third."""
    n_heads, n_steps = attention.shape
    edges = np.arange(n_steps + 1) - 0.5, np.arange(n_heads + 1) - 0.5
    ax.pcolormesh(*edges, attention, cmap="Oranges", vmin=0, vmax=max_attention)
    ax.set(ylim=(n_heads - 0.5, -0.5 - 2.1 * n_heads), yticks=range(n_heads))
    return []
