"""What all figures share: colours, axes, legends, and the classifier in what they are given."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sklearn_cls._classifier import CLSTransformerClassifier
from sklearn_cls._compat import check_matplotlib_support

# Okabe and Ito's, told apart by everyone, with grey for their yellow, which is not seen on white;
# on paper without colour, by marker or dash. The number of colours has no divisor in common with
# those of markers and dashes: 56 and 40 pairs come before one comes again.
COLORS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#999999",
)  # fmt: skip
GREY = "0.45"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def color_and_marker(i):
    """Return the style of the i-th of several things."""
    return {"color": COLORS[i % len(COLORS)], "marker": MARKERS[i % len(MARKERS)]}


def make_axes(display, ax, shape=(1, 1), size=(6.4, 4.8), **kwargs):
    """Set and return `display.axes_`, of the shape (rows, columns): in `ax`, or a new figure.

    `ax` is as many Axes as there are panels, or one that they share out. `size` is that of the
    figure, in inches.
    """
    check_matplotlib_support(f"{type(display).__name__}.plot")
    if ax is None:
        import matplotlib.pyplot as plt

        kwargs |= {"figsize": size, "layout": "constrained"}
        _, axes = plt.subplots(*shape, squeeze=False, **kwargs)
    else:
        axes = np.array(ax, dtype=object)
        cell = axes.item().get_subplotspec() if axes.size == 1 else None
        if axes.size == np.prod(shape):
            axes = axes.reshape(shape)
        elif cell is not None:
            axes.item().set_axis_off()
            axes = cell.subgridspec(*shape).subplots(squeeze=False, **kwargs)
        else:
            raise ValueError(
                f"ax must be {np.prod(shape)} Axes, one for each panel, or one of plt.subplots() "
                f"for all of them, got {axes.size}."
            )
    display.axes_ = axes
    display.ax_ = axes[0, 0]
    display.figure_ = display.ax_.figure
    return axes


def add_legend(ax, handles, *, is_own, side="right upper", inside="best", **kwargs):
    """Explain `handles`, outside the axes wherever the layout of the figure makes room there."""
    if not handles:
        return
    if is_own:
        kwargs = {"ncols": len(handles) if side.startswith("lower") else 1, **kwargs}
        ax.figure.legend(handles=handles, loc=f"outside {side}", **kwargs)
    elif ax.figure.get_layout_engine() is not None:
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1), **kwargs)
    else:
        ax.legend(handles=handles, loc=inside, **kwargs)


def steps_and_classifier(estimator):
    """Return a fitted classifier and the steps before it, None if there are none.

    Of a search it is the best estimator, of a pipeline the last step.
    """
    from sklearn.pipeline import Pipeline

    check_is_fitted(estimator)
    if hasattr(estimator, "cv_results_") and not hasattr(estimator, "best_estimator_"):
        raise ValueError(
            f"estimator is a {type(estimator).__name__} that has kept no model, as "
            f"refit={estimator.refit!r}; fit it with refit=True."
        )
    last = getattr(estimator, "best_estimator_", estimator)
    before = None
    if isinstance(last, Pipeline):
        before, last = last[:-1] if len(last) > 1 else None, last[-1]
    if not isinstance(last, CLSTransformerClassifier):
        got = " of ".join(dict.fromkeys([type(estimator).__name__, type(last).__name__]))
        raise TypeError(
            "estimator must be a fitted CLSTransformerClassifier, or a Pipeline that ends in one, "
            f"got {got}."
        )
    return before, last
