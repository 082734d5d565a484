"""Ticks whose number depends on the size of the axes, so that their labels do not overlap.

This module imports matplotlib, so it is imported where a figure is drawn.
"""

import numpy as np
from matplotlib import rcParams
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import Formatter, Locator, MaxNLocator

from sklearn_cls._display.text import size_in_points

MAX_STEP_TICKS = 6
DIGIT_WIDTH, LINE_HEIGHT = 0.65, 1.15  # as multiples of the font size
UNITS = {"years": 31_557_600, "d": 86_400, "h": 3600, "min": 60, "s": 1, "ms": 1e-3}  # in seconds
MAX_DURATION_LENGTH = 9  # characters
LABEL_DISTANCE = 8  # points between two labels of the x-axis


class StepLocator(MaxNLocator):
    """At most 6 ticks at integers, fewer if there is no space for their labels.

    `n_characters` is the length of the longest label.
    """

    def __init__(self, n_characters):
        super().__init__(MAX_STEP_TICKS, integer=True, min_n_ticks=1)
        self.n_characters = n_characters

    def __call__(self):
        """Return the positions of the ticks."""
        font_size = FontProperties(size=rcParams["xtick.labelsize"]).get_size_in_points()
        label_width = DIGIT_WIDTH * font_size * self.n_characters + LABEL_DISTANCE
        n_labels = int(size_in_points(self.axis.axes)[0] / label_width)
        self.set_params(nbins=min(max(n_labels, 1), MAX_STEP_TICKS))
        ticks, (low, high) = super().__call__(), self.axis.get_view_interval()
        return ticks[(ticks >= low) & (ticks <= high)]


class DurationFormatter(Formatter):
    """Durations of steps in seconds, (T,), in the unit that suits each."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __call__(self, value, pos=None):
        """Return the duration of the step at a position, or nothing if it is missing."""
        step = round(value)
        if not 0 <= step < len(self.seconds) or np.isnan(self.seconds[step]):
            return ""
        seconds = self.seconds[step]
        unit = next((unit for unit, size in UNITS.items() if seconds >= size), "ms")
        return f"{seconds / UNITS[unit]:.3g} {unit}" if seconds else "0"


class RowLocator(Locator):
    """Ticks at the centers of rows of equal height: at all of them, or at every 2nd, 5th, 10th...

    `centers` are positions on the y-axis.
    """

    def __init__(self, centers, font_size):
        self.centers, self.font_size = np.asarray(centers), font_size

    def __call__(self):
        """Return the positions of the ticks."""
        return self.tick_values(*self.axis.get_view_interval())

    def tick_values(self, vmin, vmax):
        """Return the positions of the ticks if the axis goes from `vmin` to `vmax`."""
        if len(self.centers) < 2:
            return self.centers
        row_height = abs(self.centers[1] - self.centers[0]) / abs(vmax - vmin)
        row_height *= size_in_points(self.axis.axes)[1]
        n_rows = LINE_HEIGHT * self.font_size / row_height  # of the height of one label
        steps = np.outer(10.0 ** np.arange(8), (1, 2, 5)).ravel()
        step = steps[min(np.searchsorted(steps, n_rows), len(steps) - 1)]
        return self.centers[:: int(step)]


class RowFormatter(Formatter):
    """Names of the rows at `centers`."""

    def __init__(self, centers, names):
        self.centers, self.names = np.asarray(centers), names

    def __call__(self, value, pos=None):
        """Return the name of the row that is nearest to a position."""
        return self.names[int(np.abs(self.centers - value).argmin())]
