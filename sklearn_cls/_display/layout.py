"""The size of the figure of `CLSAttentionDisplay`, and what its panels show and where."""

from dataclasses import dataclass

import numpy as np

from sklearn_cls._display.codes import comfortable_width, row_height
from sklearn_cls._display.panels import HEAT_MAP, ValueScale
from sklearn_cls._display.text import POINTS_PER_INCH

MAX_COLUMNS = 4
# Width of the axes in inches, for sequences of up to this number of steps.
WIDTHS = ((100, 2.35), (1000, 4.7), (np.inf, 9.4))
MAX_WIDTH, MIN_WIDTH_OF_ONE = 9.4, 3.6
VALUES_HEIGHT, ATTENTION_HEIGHT = 1.4, 0.8  # inches
ROW_HEIGHT = 0.12  # inches of a feature in the heat map, or of a head, with its name
MAX_VALUES_HEIGHT = 8  # inches of the heat maps of all panels below each other
MARGINS = 0.8, 0.6  # inches on all sides of a figure
GAPS = 0.15, 0.4  # inches between axes, for titles and ticks


@dataclass(frozen=True)
class Layout:
    """What the panels show, and where.

    Attributes
    ----------
    scale : ValueScale
        How the values are drawn.
    codes : list of list of list of str or None
        The codes of all steps, for each sequence and each code feature.
    code_names : list of str
        Names of the code features.
    n_columns, n_rows : int
        Number of panels side by side and below each other.
    axes_size : tuple of float
        Width and height of the axes of a panel in inches.
    values, attention : tuple of float
        Limits of these parts, as fractions of the height of the axes.
    code_rows : list of tuple of float
        Limits of the row of each code feature.
    """

    scale: ValueScale
    codes: list
    code_names: list
    n_columns: int
    n_rows: int
    axes_size: tuple
    values: tuple
    attention: tuple
    code_rows: list

    @classmethod
    def of(cls, lengths, scale, codes, code_names, n_blocks, n_heads):
        """Return the layout for sequences of some lengths.

        `n_blocks` is the number of blocks that are drawn, and `n_heads` the number of heads, or 0
        if their mean is drawn.
        """
        width = max(_axes_width(n, each) for n, each in zip(lengths, codes, strict=True))
        n_columns = min(int(MAX_WIDTH / width + 1e-6), MAX_COLUMNS, len(lengths))
        if len(lengths) == 1:
            width = max(width, MIN_WIDTH_OF_ONE)
        n_rows = n_blocks * -(-len(lengths) // n_columns)
        heights = [_values_height(scale, n_rows), max(ATTENTION_HEIGHT, ROW_HEIGHT * n_heads)]
        for j in range(len(codes[0])):
            rows = [row_height(each[j], width * POINTS_PER_INCH / len(each[j])) for each in codes]
            heights.append(max(rows) / POINTS_PER_INCH)
        tops = 1 - np.cumsum([0, *heights]) / sum(heights)
        values, attention, *code_rows = zip(tops[1:].tolist(), tops[:-1].tolist(), strict=True)
        return cls(
            scale, codes, code_names, n_columns, n_rows, (width, sum(heights)), values, attention,
            code_rows,
        )  # fmt: skip

    @property
    def figure_size(self):
        """Approximate width and height of the figure in inches."""
        n_panels = self.n_columns, self.n_rows
        return [
            margin + n * (size + gap)
            for n, size, gap, margin in zip(n_panels, self.axes_size, GAPS, MARGINS, strict=True)
        ]


def _axes_width(n_steps, codes):
    """Return the width in inches of the axes with a sequence and its codes."""
    width = next(width for n_max, width in WIDTHS if n_steps <= n_max)
    points = max(map(comfortable_width, codes), default=0)
    return min(max(width, points / POINTS_PER_INCH), MAX_WIDTH)


def _values_height(scale, n_rows):
    """Return the height in inches of the values, if there are `n_rows` panels below each other."""
    if not scale.names:
        return 0
    n_features = len(scale.names) if scale.kind == HEAT_MAP else 0
    return max(VALUES_HEIGHT, min(ROW_HEIGHT * n_features, MAX_VALUES_HEIGHT / n_rows))
