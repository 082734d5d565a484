"""The figure of what [CLS] reads."""

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

MAX_SEQUENCES = 8  # side by side


class CLSAttentionDisplay:
    """Sequences, and below each the steps that [CLS] reads.

    It is recommended to use :meth:`from_estimator`. All parameters are stored as attributes.

    Up to five features are lines; more are rows of an image, dark where a value is high and blue
    where it is missing. The dashed line is the attention of a [CLS] that reads all steps alike.

    Parameters
    ----------
    sequences : list of ndarray of shape (n_steps_i, n_features)
        The sequences; NaN is a missing value.

    attention : ndarray of shape (n_sequences, n_blocks, n_heads, n_steps)
        What `CLSTransformerClassifier.cls_attention` returns for them.

    titles : list of str, default=None
        Of the sequences. None numbers them.

    feature_names : list of str, default=None
        None numbers the features.

    Attributes
    ----------
    axes_ : ndarray of shape (n_blocks_drawn, n_sequences), dtype=matplotlib Axes
        Axes with the sequences.

    attention_axes_ : ndarray of shape (n_blocks_drawn, n_sequences), dtype=matplotlib Axes
        Axes with the attention, on the same time axis.

    ax_ : matplotlib Axes
        The first of `axes_`.

    figure_ : matplotlib Figure
        The figure they are in.

    See Also
    --------
    CLSTransformerClassifier.cls_attention : The numbers.

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
        """Draw what [CLS] reads in a few sequences.

        Parameters
        ----------
        estimator : estimator
            A fitted :class:`CLSTransformerClassifier`, a search over one, or a Pipeline that ends
            in one: drawn is then what the steps before it make of X.

        X : array-like of shape (n_sequences, n_steps, n_features) or (n_sequences, n_steps), \
                or list of arrays of shape (n_steps_i, n_features) or (n_steps_i,)
            At most 8 sequences.

        y : array-like of shape (n_sequences,), default=None
            Their classes, for the titles, which also say what is predicted.

        block : int or "all", default=-1
            The encoder block, counted from 0, or from the end if negative; "all" is a row each.

        heads : {"mean", "each"}, default="mean"
            The mean over the heads as an area, or each head as a row of an image.

        feature_names : list of str, default=None
            None numbers the features.

        ax : matplotlib Axes or array-like of Axes, default=None
            Axes for the panel, or one for each. A single one is shared out among several. If
            None, a new figure is created.

        Returns
        -------
        display : :class:`CLSAttentionDisplay`
            Object that stores what is drawn.

        Raises
        ------
        ValueError
            If X holds more than 8 sequences, there is no such block, or the estimator's
            `pooling` is "mean" or "max": nothing attends there.
        NotFittedError
            If the estimator is not fitted.
        """
        check_matplotlib_support("CLSAttentionDisplay.from_estimator")
        before, classifier = steps_and_classifier(estimator)

        def prepare(X):
            return X if before is None else before.transform(X)

        if hasattr(X, "__len__") and len(X) > MAX_SEQUENCES:
            classifier.predict(prepare(X[:1]))  # complains of a single one, whose steps are many
            _check_few(X, "X")
        X = prepare(X)
        titles = [f"predicted {_brief(label)}" for label in classifier.predict(X)]
        if y is not None:
            check_consistent_length(X, y)
            classes = column_or_1d(y)
            titles = [
                f"class {_brief(label)}\n{title}"
                for label, title in zip(classes, titles, strict=True)
            ]
        attention = classifier.cls_attention(X)
        X = X.to_numpy() if hasattr(X, "to_numpy") else X
        display = cls(
            [_as_table(x) for x in X], attention, titles=titles, feature_names=feature_names
        )
        return display.plot(block=block, heads=heads, ax=ax)

    def plot(self, ax=None, *, block=-1, heads="mean"):
        """Draw the sequences and the attention.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of Axes, default=None
            Axes for the panel, or one for each. A single one is shared out among several. If
            None, a new figure is created.

        block : int or "all", default=-1
            The encoder block, counted from 0, or from the end if negative; "all" is a row each.

        heads : {"mean", "each"}, default="mean"
            The mean over the heads as an area, or each head as a row of an image.

        Returns
        -------
        display : :class:`CLSAttentionDisplay`
            Object that stores what is drawn.

        Raises
        ------
        ValueError
            If there are more than 8 sequences, or no such block.
        """
        _check_few(self.sequences, "sequences")
        if heads not in ("mean", "each"):
            raise ValueError(f"heads must be 'mean' or 'each', got {heads!r}.")
        blocks = self._blocks(block)
        shape = len(blocks), len(self.sequences)
        size = 1.4 + max(2.6 * shape[1], 4), 0.6 + 2.6 * shape[0]
        axes = make_axes(self, ax, shape, size)
        self.attention_axes_ = np.array([[ax.twinx() for ax in row] for row in axes])

        attention = self.attention[:, blocks]
        if heads == "mean":
            attention = attention.mean(axis=2, keepdims=True)
        draw = _draw_area if heads == "mean" else _draw_heads
        limits = _limits(self.sequences)
        titles = self.titles
        if titles is None:
            titles = [f"sequence {i}" for i in range(shape[1])]
        label = "attention" if heads == "mean" else "head"
        for i, x in enumerate(self.sequences):
            for b, ax_, below, of_block in zip(
                blocks, axes[:, i], self.attention_axes_[:, i], attention[i], strict=True
            ):
                handles = _draw_sequence(ax_, x, limits, self._names(x))
                handles += draw(below, of_block[:, : len(x)], attention.max())
                ax_.set_xlabel("time step")
                below.set_ylabel(label if len(blocks) == 1 else f"block {b}\n{label}", y=1 / 6)
                below.yaxis.set_label_position("left")
                below.tick_params(left=True, right=False, labelleft=True, labelright=False)
            axes[0, i].set_title(titles[i])
        if label_outer(axes):
            label_outer(self.attention_axes_)
        if heads == "each":
            mesh = self.attention_axes_[0, 0].collections[0]
            self.figure_.colorbar(mesh, ax=list(axes.flat), label="attention of [CLS]")
        if ax is None:
            n_blocks, n_heads = self.attention.shape[1:3]
            which = "last block" if blocks == [n_blocks - 1] else f"block {blocks[0]}"
            which = "each block" if len(blocks) > 1 else which
            which += f", {heads} of {n_heads} heads" if n_heads > 1 else ""
            self.figure_.suptitle(f"What [CLS] reads: {which}")
        at = {"side": "lower center", "inside": "upper right"}  # where no attention is
        add_legend(self.attention_axes_[0, -1], handles, is_own=ax is None, **at)
        return self

    def _blocks(self, block):
        """Return the blocks to draw, counted from 0."""
        n_blocks = self.attention.shape[1]
        if isinstance(block, str) and block == "all":
            return list(range(n_blocks))
        if not isinstance(block, Integral) or not -n_blocks <= block < n_blocks:
            raise ValueError(
                f"block must be 'all' or from {-n_blocks} to {n_blocks - 1}, got {block!r}."
            )
        return [int(block) % n_blocks]

    def _names(self, x):
        """Return a name for each feature."""
        n_features = x.shape[1]
        if self.feature_names is None:
            return [f"feature {i}" for i in range(n_features)]
        if len(self.feature_names) != n_features:
            raise ValueError(
                f"feature_names must name the {n_features} features of a step, got "
                f"{len(self.feature_names)} names."
            )
        return list(self.feature_names)


def _brief(label):
    """Return a label as text that fits over a panel."""
    text = str(label)
    return text if len(text) <= 24 else text[:23] + "…"


def _check_few(sequences, name):
    """Refuse more sequences than a figure has room for."""
    if len(sequences) > MAX_SEQUENCES:
        raise ValueError(
            f"{name} holds {len(sequences)} sequences, and {MAX_SEQUENCES} fit side by side; draw "
            "a few, such as X[:4]."
        )


def _as_table(x):
    """Return a sequence as (n_steps, n_features), without the padding at its end."""
    x = np.asarray(x, dtype=float)
    x = x[:, None] if x.ndim == 1 else x
    is_seen = ~np.isnan(x).all(axis=1)
    return x[: len(x) - is_seen[::-1].argmax()] if is_seen.any() else x


def _limits(sequences):
    """Return the least and the greatest value, with some room."""
    values = np.concatenate([x[np.isfinite(x)] for x in sequences])
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    room = 0.05 * (high - low) or 0.5
    return low - room, high + room


def _draw_sequence(ax, x, limits, names):
    """Draw a sequence, (n_steps, n_features), above the lower third; return what needs a name."""
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator

    low, high = limits
    ax.set(xlim=(-0.5, len(x) - 0.5), ylim=(low - (high - low) / 2, high))
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if len(names) > len(DASHES):
        edges = np.linspace(high, low, len(names) + 1)
        greys = colormaps["Greys"].with_extremes(bad=COLORS[4])
        steps = np.arange(len(x) + 1) - 0.5
        ax.pcolormesh(steps, edges, x.T, cmap=greys, vmin=low, vmax=high)
        some = np.unique(np.linspace(0, len(names) - 1, 8).round().astype(int))
        centers = (edges[:-1] + edges[1:]) / 2
        ax.set_yticks(centers[some], [names[i].removeprefix("feature ") for i in some])
        ax.set_ylabel("feature", y=2 / 3)
        return []
    lines = []
    for values, name, color, dash in zip(x.T, names, COLORS, DASHES, strict=False):
        # Dots, or a step between two that are missing would not be seen.
        lines += ax.plot(
            values, color=color, linestyle=dash, marker=".", markersize=4, lw=1.3, label=name
        )
    ticks = MaxNLocator(4).tick_values(low, high)
    # None just above the attention, whose ticks are there.
    ax.set_yticks(ticks[(ticks >= low + 0.1 * (high - low)) & (ticks <= high)])
    ax.set_ylabel("value", y=2 / 3)
    return lines if len(lines) > 1 else []


def _draw_area(ax, attention, peak):
    """Draw the attention of the mean head, (1, n_steps), in the lower third."""
    n_steps = attention.shape[1]
    area = ax.stairs(
        attention[0],
        np.arange(n_steps + 1) - 0.5,
        fill=True,
        color=COLORS[5],
        label="attention of [CLS]",
    )
    ends = -0.5, n_steps - 0.5
    even = ax.plot(ends, [1 / n_steps] * 2, "--", color="black", lw=0.8, label="uniform attention")
    ax.set(ylim=(0, 3.3 * peak), yticks=[0, peak], yticklabels=["0", f"{peak:.2g}"])
    return [area, *even]


def _draw_heads(ax, attention, peak):
    """Draw the attention of each head, (n_heads, n_steps), in the lower third."""
    n_heads, n_steps = attention.shape
    edges = np.arange(n_steps + 1) - 0.5, np.arange(n_heads + 1) - 0.5
    ax.pcolormesh(*edges, attention, cmap="Oranges", vmin=0, vmax=peak)
    ax.set(ylim=(n_heads - 0.5, -0.5 - 2.1 * n_heads), yticks=range(n_heads))
    return []
