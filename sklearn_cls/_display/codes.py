"""Drawing of codes: each is written at its step, over a color that shows the attention to it.

Shapes: T steps.
"""

from dataclasses import dataclass

import numpy as np

from sklearn_cls._display.panels import (
    ATTENTION_COLOR,
    MISSING_COLOR,
    NAME_SIZE,
    draw_image,
    missing_handle,
    pool,
)
from sklearn_cls._display.text import cut, plain, relative_width, shorten, size_in_points

SIZES = (9, 8, 7, 6)  # of fonts, in points
LINE_HEIGHT = 1.2  # as a multiple of the font size
MARGIN = 2  # points between two labels, and around them
SHORT_LABEL_DISTANCE = 2.5  # between labels if only some are written, in widths of a label
SHORT = 2.2  # Labels that are wider than this multiple of their font size are rotated.
N_MEASURED = 50  # the longest labels, the widest of which is looked for


@dataclass(frozen=True)
class LabelPlan:
    """How the labels of a sequence are written.

    Attributes
    ----------
    steps : ndarray of int
        The steps that have a label.
    positions : ndarray of float
        Where the label is on the axis of the steps.
    size : float
        Size of the font in points.
    is_rotated : bool
    """

    steps: np.ndarray
    positions: np.ndarray
    size: float
    is_rotated: bool


def plan_labels(labels, weights, step_width):
    """Return a `LabelPlan` for the labels of a sequence, some of which may be None.

    All of them are written if there is space, side by side if they are short, otherwise rotated. If
    there is not, those with the highest weights are. `step_width` is in points.
    """
    steps = np.array([i for i, label in enumerate(labels) if label is not None], dtype=int)
    width = widest(labels)
    for size in SIZES:
        if width * size + MARGIN <= step_width:
            return LabelPlan(steps, steps, size, is_rotated=False)
    is_rotated = width > SHORT
    if is_rotated:
        for size in SIZES:
            if LINE_HEIGHT * size <= step_width:
                return LabelPlan(steps, steps, size, is_rotated)
    size = SIZES[-2]
    label_width = LINE_HEIGHT * size if is_rotated else width * size + MARGIN
    # At less than uniform attention no label is needed.
    steps = steps[weights[steps] >= (1 - 1e-6) / len(weights)]
    steps = steps[np.argsort(-weights[steps], kind="stable")]
    return _thinned(steps, len(labels), label_width / step_width, size, is_rotated)


def _thinned(steps, n_steps, label_width, size, is_rotated):
    """Return a plan for the first of `steps`, and all later ones that are not too close to others.

    `label_width` is in steps.
    """
    # Short labels beside each other would look like a sequence without gaps.
    distance = label_width if is_rotated else SHORT_LABEL_DISTANCE * label_width
    # A label at the first or the last step is moved into the axes.
    margin = min(label_width, n_steps) / 2 - 0.5
    positions = np.clip(steps, margin, n_steps - 1 - margin)
    is_taken = np.zeros(n_steps, dtype=bool)
    chosen = []
    for i, position in enumerate(positions.tolist()):
        if not is_taken[round(position)]:
            chosen.append(i)
            first, last = np.floor(position - distance), np.ceil(position + distance)
            is_taken[max(int(first), 0) : int(last) + 1] = True
    chosen = sorted(chosen, key=steps.__getitem__)
    return LabelPlan(steps[chosen], positions[chosen], size, is_rotated)


def widest(labels):
    """Return the width of the widest label, divided by the font size."""
    texts = sorted({shorten(label) for label in labels if label is not None}, key=len)
    return max(map(relative_width, texts[-N_MEASURED:]), default=0)


def row_height(labels, step_width):
    """Return the height in points of a row with these labels."""
    weights = np.full(len(labels), 1 / len(labels))
    plan = plan_labels(labels, weights, step_width)
    lines = widest(labels) if plan.is_rotated else LINE_HEIGHT
    return lines * plan.size + 2 * MARGIN + 1  # a point for rounding


def comfortable_width(labels):
    """Return the width in points in which all labels of a sequence are written in a large font."""
    width = widest(labels)
    step_width = LINE_HEIGHT if width > SHORT else width
    return len(labels) * (step_width * SIZES[0] + MARGIN)


def draw_codes(ax, layout, i, weights):
    """Draw the codes of sequence `i` as rows of cells, which are colored by weights, (1, T).

    The labels are written by `write_codes`, once the size of the axes is known. Return the legend
    handles.
    """
    from matplotlib.colors import LinearSegmentedColormap, ListedColormap
    from matplotlib.ticker import FixedFormatter, FixedLocator

    ax.set_ylim(0, 1)
    # Black text is legible on the darkest color.
    colors = LinearSegmentedColormap.from_list("attention", ["white", ATTENTION_COLOR])
    cells, _ = pool(weights)
    handles = []
    for labels, row in zip(layout.codes[i], layout.code_rows, strict=True):
        draw_image(ax, cells, len(labels), row, cmap=colors, vmin=0, vmax=1)
        is_missing = np.array([[label is None for label in labels]])
        if is_missing.any():
            missing = np.ma.masked_equal(is_missing, False)
            draw_image(ax, missing, len(labels), row, cmap=ListedColormap([MISSING_COLOR]))
            handles = [missing_handle()]
    names = [plain(shorten(name)) for name in layout.code_names]
    ax.yaxis.set_major_locator(FixedLocator([np.mean(row) for row in layout.code_rows]))
    ax.yaxis.set_major_formatter(FixedFormatter(names))
    ax.tick_params(axis="y", labelsize=NAME_SIZE)
    return handles


def write_codes(ax, layout, i, weights):
    """Write the codes of sequence `i` into their cells, those with high weights, (T,), first."""
    width, height = size_in_points(ax)
    for labels, (bottom, top) in zip(layout.codes[i], layout.code_rows, strict=True):
        plan = plan_labels(labels, weights, width / len(labels))
        length = (top - bottom) * height if plan.is_rotated else width
        style = {"ha": "center", "va": "center", "size": plan.size}
        y = (bottom + top) / 2
        if plan.is_rotated:
            y = top - MARGIN / height
            style |= {"rotation": 90, "va": "top"}
        for step, position in zip(plan.steps.tolist(), plan.positions.tolist(), strict=True):
            text = cut(shorten(labels[step]), (length - 2 * MARGIN) / plan.size)
            ax.text(position, y, plain(text), **style)
