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
N_STYLES = len(COLORS) * len(MARKERS)
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
    from matplotlib.axes import Axes

    if ax is None:
        import matplotlib.pyplot as plt

        kwargs |= {"figsize": size, "layout": "constrained"}
        _, axes = plt.subplots(*shape, squeeze=False, **kwargs)
    else:
        axes = np.array(ax, dtype=object)
        for each in axes.flat:
            if not isinstance(each, Axes):
                raise TypeError(
                    f"ax must be Axes, such as plt.subplots() gives, got {type(each).__name__}."
                )
        cell = axes.item().get_subplotspec() if axes.size == 1 else None
        n_panels = np.prod(shape)
        if axes.size == n_panels:
            axes = axes.reshape(shape)
        elif cell is not None:
            axes.item().set_axis_off()
            axes = cell.subgridspec(*shape).subplots(squeeze=False, **kwargs)
        else:
            wanted = "a single Axes"
            if n_panels > 1:
                wanted = (
                    f"{n_panels} Axes, one for each panel, or one of plt.subplots() for all of them"
                )
            raise ValueError(f"ax must be {wanted}, got {axes.size}.")
    display.axes_ = axes
    display.ax_ = axes[0, 0]
    display.figure_ = display.ax_.figure
    return axes


def label_outer(axes):
    """Leave labels between panels out, and return True, if they lie in rows and columns."""
    # Matplotlib's own goes by the place in the figure: it would take from panels that a caller has
    # laid out in another way the only labels they have.
    cells = [[ax.get_subplotspec() for ax in row] for row in axes]
    if any(cell is None for row in cells for cell in row):
        return False
    places = [[(cell.rowspan.start, cell.colspan.start) for cell in row] for row in cells]
    n_rows, n_columns = axes.shape
    top, left = places[0][0]
    in_grid = (
        places == [[(top + i, left + j) for j in range(n_columns)] for i in range(n_rows)]
        and len({id(cell.get_gridspec()) for row in cells for cell in row}) == 1
    )
    if in_grid:
        for ax in axes[:-1].flat:
            ax.tick_params(labelbottom=False)
            ax.set_xlabel("")
        for ax in axes[:, 1:].flat:
            ax.tick_params(labelleft=False)
            ax.set_ylabel("")
    return in_grid


def add_legend(ax, handles, *, is_own, side="right upper", inside="best", **kwargs):
    """Explain `handles`, outside the axes wherever the layout of the figure makes room there."""
    if not handles:
        return
    if is_own:
        _add_legend_outside(ax.figure, handles, side, **kwargs)
    elif ax.figure.get_layout_engine() is not None:
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1), **kwargs)
    else:
        ax.legend(handles=handles, loc=inside, **kwargs)


def _add_legend_outside(figure, handles, side, **kwargs):
    """Explain `handles` beside the axes, and make the figure as large as that takes."""

    def size_of(legend):
        box = legend.get_window_extent()
        return box.width / figure.dpi, box.height / figure.dpi

    width, height = figure.get_size_inches()
    if side.startswith("lower"):
        for n_columns in range(len(handles), 0, -1):
            legend = figure.legend(
                handles=handles, loc=f"outside {side}", ncols=n_columns, **kwargs
            )
            if size_of(legend)[0] < width or n_columns == 1:
                break
            legend.remove()
        below = size_of(legend)
        figure.set_size_inches(max(width, below[0] + 0.1), height + max(0, below[1] - 0.4))
    else:
        beside = figure.legend(handles=handles, loc=f"outside {side}", **kwargs)
        more = max(0, size_of(beside)[0] - width / 4)
        figure.set_size_inches(width + more, max(height, size_of(beside)[1] + 0.2))


def steps_and_classifier(estimator):
    """Return a fitted classifier and the steps before it, None if there are none.

    Of a search it is the best estimator, of a pipeline the last step, and so on within.
    """
    from sklearn.pipeline import Pipeline

    check_is_fitted(estimator)
    if hasattr(estimator, "cv_results_") and not hasattr(estimator, "best_estimator_"):
        raise ValueError(
            f"estimator is a {type(estimator).__name__} that has kept no model, as "
            f"refit={estimator.refit!r}; fit it with refit=True."
        )
    if hasattr(estimator, "best_estimator_"):
        return steps_and_classifier(estimator.best_estimator_)
    if isinstance(estimator, Pipeline):
        before, classifier = steps_and_classifier(estimator[-1])
        steps = [*estimator.steps[:-1], *([] if before is None else [("within", before)])]
        return Pipeline(steps) if steps else None, classifier
    if not isinstance(estimator, CLSTransformerClassifier):
        raise TypeError(
            "estimator must be a fitted CLSTransformerClassifier, or a Pipeline or a search that "
            f"ends in one, got {type(estimator).__name__}."
        )
    return None, estimator
