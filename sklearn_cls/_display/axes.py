"""Colors, axes and legends of the figures, and the classifier inside a pipeline or a search."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sklearn_cls._classifier import CLSTransformerClassifier
from sklearn_cls._compat import check_matplotlib_support

# Okabe-Ito palette (color-blind safe), with yellow replaced by gray. The numbers of colors, markers
# and dashes are coprime: 8 colors x 7 markers give 56 styles, 8 colors x 5 dashes give 40.
COLORS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#999999",
)  # fmt: skip
GRAY = "0.45"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
N_STYLES = len(COLORS) * len(MARKERS)
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def color_and_marker(i):
    """Return the color and the marker of the i-th class or curve."""
    return {"color": COLORS[i % len(COLORS)], "marker": MARKERS[i % len(MARKERS)]}


def make_axes(display, ax, shape=(1, 1), size=(6.4, 4.8), **kwargs):
    """Set and return `display.axes_`, an array of Axes of shape (n_rows, n_columns).

    If `ax` is None, create a new figure of `size` inches. Otherwise `ax` has one Axes for each
    panel, or is a single one, which is divided into the panels. `kwargs` go to `subplots`.
    """
    check_matplotlib_support(f"{type(display).__name__}.plot")
    if ax is None:
        import matplotlib.pyplot as plt

        _, axes = plt.subplots(*shape, squeeze=False, figsize=size, layout="constrained", **kwargs)
    else:
        axes = _arrange(_check_axes(ax), shape, **kwargs)
    display.axes_ = axes
    display.ax_ = axes[0, 0]
    display.figure_ = display.ax_.figure
    return axes


def _check_axes(ax):
    """Return Axes as an array."""
    from matplotlib.axes import Axes

    axes = np.array(ax, dtype=object)
    for each in axes.flat:
        if not isinstance(each, Axes):
            raise TypeError(
                f"ax must be Axes, for example from plt.subplots(), got {type(each).__name__}."
            )
    return axes


def _arrange(axes, shape, **kwargs):
    """Return the caller's Axes as an array of `shape`, after dividing a single one if needed."""
    n_panels = np.prod(shape)
    if axes.size == n_panels:
        return axes.reshape(shape)
    cell = axes.item().get_subplotspec() if axes.size == 1 else None
    if cell is None:
        expected = "a single Axes"
        if n_panels > 1:
            expected = f"{n_panels} Axes, one for each panel, or a single one from plt.subplots()"
        raise ValueError(f"ax must be {expected}, got {axes.size}.")
    axes.item().set_axis_off()
    return cell.subgridspec(*shape).subplots(squeeze=False, **kwargs)


def label_outer(axes):
    """Keep the labels of the left and lower panels only; return whether the panels are a grid.

    Without a grid, all labels are kept. `Axes.label_outer` relies on the position in the figure and
    would remove the only labels of panels that the caller has arranged differently.
    """
    is_grid = _is_grid(axes)
    if is_grid:
        for ax in axes[:-1].flat:
            ax.tick_params(labelbottom=False)
            ax.set_xlabel("")
        for ax in axes[:, 1:].flat:
            ax.tick_params(labelleft=False)
            ax.set_ylabel("")
    return is_grid


def _is_grid(axes):
    """Return whether the panels are adjacent cells of one grid, in the order of the array."""
    cells = [[ax.get_subplotspec() for ax in row] for row in axes]
    if any(cell is None for row in cells for cell in row):
        return False
    positions = [[(cell.rowspan.start, cell.colspan.start) for cell in row] for row in cells]
    n_rows, n_columns = axes.shape
    top, left = positions[0][0]
    return (
        positions == [[(top + i, left + j) for j in range(n_columns)] for i in range(n_rows)]
        and len({id(cell.get_gridspec()) for row in cells for cell in row}) == 1
    )


def add_legend(ax, handles, *, is_new_figure, is_below=False, inside="best", **kwargs):
    """Add a legend outside the axes, or at the location `inside` if there is no space outside.

    A new figure is enlarged until the legend fits beside the axes, or below if `is_below`.
    """
    if not handles:
        return
    if is_new_figure and is_below:
        _add_legend_below(ax.figure, handles, **kwargs)
    elif is_new_figure:
        _add_legend_beside(ax.figure, handles, **kwargs)
    elif ax.figure.get_layout_engine() is not None:
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1), **kwargs)
    else:
        ax.legend(handles=handles, loc=inside, **kwargs)


def _add_legend_below(figure, handles, **kwargs):
    """Add a legend below the axes, in as many columns as fit."""
    width, height = figure.get_size_inches()
    for n_columns in range(len(handles), 0, -1):
        legend = figure.legend(
            handles=handles, loc="outside lower center", ncols=n_columns, **kwargs
        )
        legend_width, legend_height = _size_in_inches(legend)
        if legend_width < width or n_columns == 1:
            break
        legend.remove()
    figure.set_size_inches(max(width, legend_width + 0.1), height + max(0, legend_height - 0.4))


def _add_legend_beside(figure, handles, **kwargs):
    """Add a legend to the right of the axes."""
    width, height = figure.get_size_inches()
    legend = figure.legend(handles=handles, loc="outside right upper", **kwargs)
    legend_width, legend_height = _size_in_inches(legend)
    figure.set_size_inches(
        width + max(0, legend_width - width / 4), max(height, legend_height + 0.2)
    )


def _size_in_inches(legend):
    box = legend.get_window_extent()
    return box.width / legend.figure.dpi, box.height / legend.figure.dpi


def steps_and_classifier(estimator):
    """Return the steps before a fitted classifier as a Pipeline, or None, and the classifier.

    A search is replaced by its best estimator. Pipelines and searches may be nested.
    """
    from sklearn.pipeline import Pipeline

    check_is_fitted(estimator)
    if hasattr(estimator, "cv_results_") and not hasattr(estimator, "best_estimator_"):
        raise ValueError(
            f"{type(estimator).__name__} has no best_estimator_ because of "
            f"refit={estimator.refit!r}; fit it with refit=True."
        )
    if hasattr(estimator, "best_estimator_"):
        return steps_and_classifier(estimator.best_estimator_)
    if isinstance(estimator, Pipeline):
        inner_steps, classifier = steps_and_classifier(estimator[-1])
        steps = estimator.steps[:-1]
        if inner_steps is not None:
            steps = [*steps, ("inner", inner_steps)]
        return Pipeline(steps) if steps else None, classifier
    if not isinstance(estimator, CLSTransformerClassifier):
        raise TypeError(
            "estimator must be a fitted CLSTransformerClassifier, or a Pipeline or a search that "
            f"ends in one, got {type(estimator).__name__}."
        )
    return None, estimator
