"""The figure of the attention of [CLS] to the steps of a few sequences."""

from numbers import Integral

import numpy as np
from sklearn.utils import check_consistent_length, column_or_1d

from sklearn_cls._compat import check_matplotlib_support
from sklearn_cls._data.step_values import step_values
from sklearn_cls._data.validation import check_sequences
from sklearn_cls._display.axes import add_legend, label_outer, make_axes, steps_and_classifier
from sklearn_cls._display.codes import draw_codes, write_codes
from sklearn_cls._display.layout import Layout
from sklearn_cls._display.panels import (
    ValueScale,
    draw_heads,
    draw_mean_attention,
    draw_values,
    label_steps,
)
from sklearn_cls._display.text import POINTS_PER_INCH, set_title, shorten, size_in_points

MAX_SEQUENCES = 8
MIN_DARKEST = 3  # A code with less than this multiple of uniform attention is not darkest.


class CLSAttentionDisplay:
    """Attention of [CLS] to the steps of a few sequences, drawn below each sequence.

    It is recommended to use :meth:`from_estimator`. All parameters are stored as attributes.

    Up to five features are drawn as lines; below each other, each on its own scale, if their ranges
    differ much or the sequences are long. More are drawn as an image with one row per feature:
    white is its lowest and black its highest value in all sequences. Blue is a missing value. Codes
    are written at their steps, in cells that are the darker the higher the attention is; if there
    is no space for all of them, those with the highest attention are. "?" is a code that `fit` has
    not seen.

    The dashed line is uniform attention. Sequences of equal length share the scale of the
    attention. Of more than 1000 steps, the highest attention in each of 1000 intervals is drawn.

    Parameters
    ----------
    sequences : list of ndarray of shape (n_steps_i, n_features)
        The sequences; NaN is a missing value. `n_features` may be 0 if there are `codes`.

    attention : ndarray of shape (n_sequences, n_blocks, n_heads, n_steps)
        Attention as returned by `CLSTransformerClassifier.cls_attention`.

    titles : list of str, default=None
        Titles of the sequences. If None, they are numbered.

    feature_names : list of str, default=None
        Names of the features. If None, they are numbered.

    codes : list of list of list of str, default=None
        For each sequence and each code feature, the codes of all steps. None is a missing code. A
        string is a list of characters.

    code_names : list of str, default=None
        Names of the code features. If None, they are numbered.

    times : list of ndarray of shape (n_steps_i,), default=None
        For each sequence, the seconds since its start, shown at the ticks of the steps. NaN is a
        missing time. If None, the steps are numbered.

    Attributes
    ----------
    axes_ : ndarray of shape (n_blocks_drawn, n_sequences), dtype=matplotlib Axes
        Axes with the sequences.

    attention_axes_ : ndarray of shape (n_blocks_drawn, n_sequences), dtype=matplotlib Axes
        Axes with the attention, on the same time axis.

    code_axes_ : ndarray of shape (n_blocks_drawn, n_sequences), dtype=matplotlib Axes, or None
        Axes with the codes, on the same time axis. None if there are no codes.

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

    def __init__(
        self, sequences, attention, *, titles=None, feature_names=None, codes=None,
        code_names=None, times=None,
    ):  # fmt: skip
        self.sequences = sequences
        self.attention = attention
        self.titles = titles
        self.feature_names = feature_names
        self.codes = codes
        self.code_names = code_names
        self.times = times

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
            Names of the features, in the order of X. If None, those seen in `fit`; if X had no
            column names, the features are numbered.

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
            If X has more than 8 sequences, the block does not exist, the number of names is wrong,
            or `pooling` is "mean" or "max", which have no [CLS] token.

        NotFittedError
            If the estimator is not fitted.
        """
        check_matplotlib_support("CLSAttentionDisplay.from_estimator")
        display = cls(**_read_estimator(estimator, X, y, feature_names))
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
        codes = _check_codes(self.codes, self.sequences)
        code_names = _check_names(self.code_names, len(codes[0]), "code", "code")
        n_features = self.sequences[0].shape[1]
        names = _check_names(self.feature_names, n_features, "feature", "value")
        scale = ValueScale.of(self.sequences, names)
        n_heads = self.attention.shape[2] if heads == "each" else 0
        lengths = [len(x) for x in self.sequences]
        layout = Layout.of(lengths, scale, codes, code_names, len(blocks), n_heads)
        is_new_figure = ax is None
        n_columns = self._make_axes(ax, layout, len(blocks))
        handles = self._draw_panels(blocks, heads, layout)
        self._label_panels(blocks, heads, layout, n_columns, is_new_figure)
        if is_new_figure:
            self.figure_.suptitle(self._figure_title(blocks, heads))
        # In the upper right corner the legend hides no attention.
        kwargs = {"is_below": True, "inside": "upper right"}
        add_legend(self.attention_axes_[0, -1], handles, is_new_figure=is_new_figure, **kwargs)
        if is_new_figure:
            self._enlarge(layout)
        if codes[0]:
            self._write_codes(blocks, layout)
        return self

    def _make_axes(self, ax, layout, n_blocks):
        """Set the arrays of axes; return how many sequences are side by side."""
        n_sequences, n_columns = len(self.sequences), layout.n_columns
        if ax is not None and np.size(ax) > 1:
            n_columns = n_sequences  # The caller has arranged the panels.
        n_bands = -(-n_sequences // n_columns)
        grid = make_axes(self, ax, (n_bands * n_blocks, n_columns), layout.figure_size)
        grid = np.hstack(np.split(grid, n_bands))  # (n_blocks, n_bands * n_columns)
        self.axes_ = grid[:, :n_sequences]
        for unused in grid[:, n_sequences:].flat:
            unused.remove()
        self.attention_axes_ = _twins(self.axes_)
        self.code_axes_ = _twins(self.axes_) if layout.code_rows else None
        return n_columns

    def _draw_panels(self, blocks, heads, layout):
        """Draw each sequence and its attention; return the legend handles."""
        weights = self.attention[:, blocks]  # (n, n_blocks, H, T)
        means = weights.mean(axis=2, keepdims=True)
        if heads == "mean":
            weights = means
        elif not self._has_common_scale():
            weights = weights / self._attention_limits(weights)[:, None, None, None]
        draw_attention = draw_mean_attention if heads == "mean" else draw_heads
        limits, mean_limits = self._attention_limits(weights), self._attention_limits(means)
        handles = {}
        for i, x in enumerate(self.sequences):
            for row in range(len(blocks)):
                ax = self.axes_[row, i]
                label_steps(ax, len(x), None if self.times is None else self.times[i])
                new = draw_values(ax, x, layout)
                args = weights[i, row, :, : len(x)], limits[i]  # Padding is left out.
                new += draw_attention(self.attention_axes_[row, i], *args, layout)
                if layout.code_rows:
                    # Nearly uniform attention is pale.
                    limit = max(mean_limits[i], MIN_DARKEST / len(x))
                    cells = means[i, row, :, : len(x)] / limit
                    new += draw_codes(self.code_axes_[row, i], layout, i, cells)
                handles |= {handle.get_label(): handle for handle in new}
        return sorted(handles.values(), key=lambda handle: handle.get_label() == "missing")

    def _write_codes(self, blocks, layout):
        """Write the codes of all sequences."""
        means = self.attention[:, blocks].mean(axis=2)
        for i, x in enumerate(self.sequences):
            for row, ax in enumerate(self.code_axes_[:, i]):
                write_codes(ax, layout, i, means[i, row, : len(x)])

    def _enlarge(self, layout):
        """Enlarge a new figure, so that its axes have the size in which all texts fit."""
        engine = self.figure_.get_layout_engine()
        engine.execute(self.figure_)  # sets the size of the axes
        size = np.array(size_in_points(self.ax_)) / POINTS_PER_INCH
        lacking = np.maximum(np.array(layout.axes_size) - size, 0)
        n_panels = np.array([layout.n_columns, layout.n_rows])
        self.figure_.set_size_inches(self.figure_.get_size_inches() + n_panels * lacking)
        engine.execute(self.figure_)

    def _has_common_scale(self):
        """Return whether the attention of all sequences is drawn on the same scale."""
        return len({len(x) for x in self.sequences}) == 1

    def _attention_limits(self, weights):
        """Return the highest attention on the scale of each sequence, (n,)."""
        highest = weights.max(axis=(1, 2, 3))
        return np.full_like(highest, highest.max()) if self._has_common_scale() else highest

    def _label_panels(self, blocks, heads, layout, n_columns, is_new_figure):
        """Set titles and axis labels."""
        titles = self.titles
        if titles is None:
            titles = [f"sequence {i}" for i in range(len(self.sequences))]
        for ax, title in zip(self.axes_[0], titles, strict=True):
            width = size_in_points(ax)[0]
            if is_new_figure:
                width = layout.axes_size[0] * POINTS_PER_INCH
            set_title(ax, title, width)
        for ax in self.axes_.flat:
            ax.set_xlabel("time step" if self.times is None else "time since the start")
        label = "attention" if heads == "mean" else "head"
        for block, row in zip(blocks, self.attention_axes_, strict=True):
            for ax in row:
                text = label if len(blocks) == 1 else f"block {block}\n{label}"
                ax.set_ylabel(text, y=np.mean(layout.attention))
        for start in range(0, len(self.sequences), n_columns):
            band = slice(start, start + n_columns)
            if label_outer(self.axes_[:, band]):
                label_outer(self.attention_axes_[:, band])
                if layout.code_rows:
                    label_outer(self.code_axes_[:, band])
        if heads == "mean" and not self._has_common_scale():
            for ax in self.attention_axes_.flat:
                ax.tick_params(labelleft=True)
        if heads == "each":
            label = "attention of [CLS]"
            if not self._has_common_scale():
                label = "relative attention of [CLS]"
            image = self.attention_axes_[0, 0].images[0]
            # Beside all panels of a high figure it would be very wide.
            axes = self.axes_[0, :n_columns] if is_new_figure else self.axes_.flat
            self.figure_.colorbar(image, ax=list(axes), label=label)

    def _figure_title(self, blocks, heads):
        """Return the title of a new figure."""
        n_blocks, n_heads = self.attention.shape[1:3]
        title = "Attention of [CLS]: "
        if len(blocks) > 1:
            title += "each block"
        else:
            title += "last block" if blocks == [n_blocks - 1] else f"block {blocks[0]}"
        return title if n_heads == 1 else f"{title}, {heads} of {n_heads} heads"


def _twins(axes):
    """Return axes on the same time axes, with their ticks and labels on the left."""
    twins = np.array([[ax.twinx() for ax in row] for row in axes])
    for ax in twins.flat:
        ax.yaxis.set_label_position("left")
        ax.tick_params(left=True, right=False, labelleft=True, labelright=False)
    return twins


def _read_estimator(estimator, X, y, feature_names):
    """Return the parameters of the display."""
    steps, classifier = steps_and_classifier(estimator)
    if hasattr(X, "__len__") and len(X) > MAX_SEQUENCES:
        # If X is a single sequence (n_steps, n_features), the classifier's error is more specific.
        classifier.predict(X[:1] if steps is None else steps.transform(X[:1]))
        _check_n_sequences(X, "X")
    X = X if steps is None else steps.transform(X)
    titles = [f"predicted {shorten(label)}" for label in classifier.predict(X)]
    if y is not None:
        check_consistent_length(titles, y)
        labels = column_or_1d(y)
        titles = [
            f"class {shorten(label)}\n{title}" for label, title in zip(labels, titles, strict=True)
        ]
    features = classifier._fitted_model().features
    sequences, _ = check_sequences(X, type(classifier).__name__, features)
    values = step_values(sequences, features, feature_names)
    return {
        "sequences": values.numbers,
        "attention": classifier.cls_attention(X),
        "titles": titles,
        "feature_names": values.number_names,
        "codes": values.codes if features.vocabularies else None,
        "code_names": values.code_names,
        "times": values.times,
    }


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


def _check_codes(codes, sequences):
    """Return the lists of codes of each sequence, which are empty if there are none."""
    if codes is None:
        return [[] for _ in sequences]
    codes = [[list(labels) for labels in each] for each in codes]
    for i, (each, x) in enumerate(zip(codes, sequences, strict=True)):
        if any(len(labels) != len(x) for labels in each):
            raise ValueError(
                f"codes[{i}] must have lists of {len(x)} codes, one for each step of "
                f"sequences[{i}], got {[len(labels) for labels in each]} codes."
            )
    return codes


def _check_names(names, n, kind, default):
    """Return a name for each of `n` features, or codes; `default` for a single one without name."""
    if names is None:
        return [f"{kind} {i}" for i in range(n)] if n > 1 else [default] * n
    if len(names) != n:
        raise ValueError(
            f"{kind}_names must have one name for each of the {n} {kind}s, got {len(names)}."
        )
    return [str(name) for name in names]
