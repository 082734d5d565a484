"""Drawing of one panel of `CLSAttentionDisplay`: values, codes and attention of a sequence.

The parts of a panel are, from top to bottom, the values, the attention and the codes. `part` is the
lower and the upper limit of one, as fractions of the height of the panel.

Shapes: T steps, F features, H heads.
"""

from dataclasses import dataclass

import numpy as np

from sklearn_cls._display.axes import COLORS, DASHES
from sklearn_cls._display.text import plain, shorten

LINES, LANES, HEAT_MAP = "lines", "lanes", "heat map"
MAX_SHARED_STEPS = 500  # Lines of longer sequences would hide each other.
MAX_RANGE_RATIO = 10  # between the range of all features and that of one, on a common scale
MAX_MARKED_STEPS = 100  # Markers of more steps would overlap.
MAX_CELLS = 1000  # steps of the attention that are drawn one by one
NAME_SIZE = 7  # points
MISSING_COLOR, ATTENTION_COLOR = COLORS[4], COLORS[5]


@dataclass(frozen=True)
class ValueScale:
    """How the features of all sequences are drawn.

    Attributes
    ----------
    kind : {"lines", "lanes", "heat map"}
        Lines on a common scale, lines below each other, or rows of an image.
    low, high : ndarray (F,)
        The lowest and the highest value of each feature.
    names : list of str
        Names of the features.
    """

    kind: str
    low: np.ndarray
    high: np.ndarray
    names: list

    @classmethod
    def of(cls, sequences, names):
        """Return the scale for sequences (T, F)."""
        values = np.concatenate(sequences).astype(np.float64, copy=False)
        is_known = np.isfinite(values)
        low = values.min(axis=0, where=is_known, initial=np.inf)
        high = values.max(axis=0, where=is_known, initial=-np.inf)
        is_empty = ~is_known.any(axis=0)
        low[is_empty], high[is_empty] = 0.0, 1.0
        kind = _kind(low[~is_empty], high[~is_empty], len(names), max(map(len, sequences)))
        return cls(kind, low, high, names)

    def __call__(self, x):
        """Return values (T, F) between 0 and 1, those of a constant feature 0.5."""
        is_constant = self.low == self.high
        ranges = np.where(is_constant, 1, self.high - self.low)
        return np.where(is_constant, x - self.low + 0.5, (x - self.low) / ranges)

    @property
    def limits(self):
        """Limits of a common scale of all features, with a margin."""
        low, high = self.low.min(initial=np.inf), self.high.max(initial=-np.inf)
        margin = 0.05 * (high - low) or 0.5
        return low - margin, high + margin


def _kind(low, high, n_features, n_steps):
    """Return how features of these ranges are drawn."""
    if n_features > len(DASHES):
        return HEAT_MAP
    ranges = (high - low)[high > low]
    if n_features < 2 or not len(ranges):
        return LINES
    is_unequal = high.max() - low.min() > MAX_RANGE_RATIO * ranges.min()
    return LANES if is_unequal or n_steps > MAX_SHARED_STEPS else LINES


def draw_values(ax, x, layout):
    """Draw the values of a sequence, (T, F); return the legend handles."""
    scale, part = layout.scale, layout.values
    ax.set_ylim(0, 1)
    if not scale.names:
        ax.set_yticks([])
        return []
    draw = {LINES: _draw_lines, LANES: _draw_lanes, HEAT_MAP: _draw_heat_map}[scale.kind]
    handles = draw(ax, x, scale, part)
    if np.isnan(x).any() and (scale.kind != LINES or x.shape[1] == 1):
        handles.append(missing_handle())
    return handles


def _draw_lines(ax, x, scale, part):
    """Draw the features as lines on a common scale."""
    from matplotlib.ticker import MaxNLocator

    low, high = scale.limits
    bottom, top = part
    height = (high - low) / (top - bottom)  # of the whole panel
    ax.set_ylim(low - bottom * height, high + (1 - top) * height)
    if x.shape[1] == 1:
        _draw_missing(ax, x, (low, high))
    lines = [_draw_line(ax, x[:, j], j, label=plain(name)) for j, name in enumerate(scale.names)]
    ticks = MaxNLocator(4).tick_values(low, high)
    # No tick is drawn close to the part below, which has ticks of its own.
    ax.set_yticks(ticks[(ticks >= low + 0.1 * (high - low)) & (ticks <= high)])
    label = "value" if len(lines) > 1 else plain(shorten(scale.names[0]))
    ax.set_ylabel(label, y=np.mean(part))
    return lines if len(lines) > 1 else []


def _draw_line(ax, values, j, **kwargs):
    """Draw the values of a feature; return the line."""
    style = {"color": COLORS[j], "linestyle": DASHES[j], "marker": ".", "markersize": 4, "lw": 1.3}
    if len(values) > MAX_MARKED_STEPS:
        # Without a marker, a single step between missing values would be invisible.
        is_known = np.concatenate([[False], ~np.isnan(values), [False]])
        is_isolated = is_known[1:-1] & ~is_known[:-2] & ~is_known[2:]
        style |= {"markevery": np.flatnonzero(is_isolated).tolist(), "markersize": 2}
        style |= {"lw": 0.8, "linestyle": "-"}
    return ax.plot(values, **style, **kwargs)[0]


def _draw_lanes(ax, x, scale, part):
    """Draw the features as lines below each other, each on its own scale."""
    bottom, top = part
    height = (top - bottom) / len(scale.names)
    for j in range(len(scale.names)):
        y = top - (j + 1) * height
        _draw_missing(ax, x[:, [j]], (y + 0.1 * height, y + 0.9 * height))
        _draw_line(ax, y + height * (0.1 + 0.8 * scale(x)[:, j]), j)
    names = [
        f"{plain(shorten(name))}\n{_number(low)} to {_number(high)}"
        for name, low, high in zip(scale.names, scale.low, scale.high, strict=True)
    ]
    label_rows(ax, names, part, n_lines=2)
    return []


def _number(value):
    """Return a number as short text."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def _draw_missing(ax, x, limits):
    """Color the steps at which a feature, (T, 1), is missing."""
    from matplotlib.colors import ListedColormap

    is_missing = np.isnan(x.T)
    if is_missing.any():
        image = np.ma.masked_equal(is_missing, False)
        draw_image(ax, image, len(x), limits, cmap=ListedColormap([MISSING_COLOR]), alpha=0.5)


def _draw_heat_map(ax, x, scale, part):
    """Draw each feature as a row of an image."""
    from matplotlib import colormaps
    from matplotlib.patches import Patch

    greys = colormaps["Greys"].with_extremes(bad=MISSING_COLOR)
    draw_image(ax, scale(x).T, len(x), part, cmap=greys, vmin=0, vmax=1)
    names = [plain(shorten(name.removeprefix("feature "))) for name in scale.names]
    label_rows(ax, names, part)
    ax.set_ylabel("feature", y=np.mean(part))
    return [
        Patch(facecolor="white", edgecolor="black", lw=0.5, label="lowest value of a feature"),
        Patch(facecolor="black", edgecolor="black", lw=0.5, label="highest"),
    ]


def draw_image(ax, values, n_steps, part, **kwargs):
    """Draw values of `n_steps` steps, or of intervals of them, as an image."""
    extent = (-0.5, n_steps - 0.5, *part)
    ax.imshow(values, extent=extent, aspect="auto", origin="upper", **kwargs)


def draw_mean_attention(ax, attention, max_attention, layout):
    """Draw the mean attention of the heads, (1, T), as an area; return the legend handles."""
    bottom, top = layout.attention
    n_steps = attention.shape[1]
    values, edges = pool(attention)
    # The edge makes a single step visible that is narrower than a pixel.
    style = {"color": ATTENTION_COLOR, "lw": 0.8 * (n_steps > MAX_MARKED_STEPS)}
    area = ax.stairs(values[0], edges, fill=True, label="attention of [CLS]", **style)
    uniform = ax.plot(
        edges[[0, -1]], [1 / n_steps] * 2, "--", color="black", lw=0.8, label="uniform attention"
    )
    height = 1.2 * max_attention / (top - bottom)  # of the whole panel
    ax.set_ylim(-bottom * height, (1 - bottom) * height)
    # A tick at 0 would be close to the name of the first code.
    ticks = [max_attention] if layout.code_rows else [0, max_attention]
    ax.set_yticks(ticks, [f"{tick:.2g}" for tick in ticks])
    return [area, *uniform]


def draw_heads(ax, attention, max_attention, layout):
    """Draw the attention of each head, (H, T), as a row of an image."""
    bottom, top = layout.attention
    ax.set_ylim(0, 1)
    values, _ = pool(attention)
    gap = 0.1 * (top - bottom)
    part = bottom + gap * bool(layout.code_rows), top - gap
    style = {"cmap": "Oranges", "vmin": 0, "vmax": max_attention}
    draw_image(ax, values, attention.shape[1], part, **style)
    label_rows(ax, [str(i) for i in range(len(attention))], part)
    return []


def label_steps(ax, n_steps, seconds=None):
    """Set the limits of the axis of the steps, and ticks with their numbers or times, (T,)."""
    from sklearn_cls._display.ticks import MAX_DURATION_LENGTH, DurationFormatter, StepLocator

    ax.set_xlim(-0.5, n_steps - 0.5)
    ax.xaxis.set_major_locator(StepLocator(len(str(n_steps))))
    if seconds is not None:
        ax.xaxis.set_major_locator(StepLocator(MAX_DURATION_LENGTH))
        ax.xaxis.set_major_formatter(DurationFormatter(seconds))


def label_rows(ax, names, part, n_lines=1):
    """Set ticks with names, shortened and of `n_lines` lines, of the rows of a part."""
    from sklearn_cls._display.ticks import RowFormatter, RowLocator

    edges = np.linspace(part[1], part[0], len(names) + 1)
    centers = (edges[:-1] + edges[1:]) / 2
    ax.yaxis.set_major_locator(RowLocator(centers, n_lines * NAME_SIZE))
    ax.yaxis.set_major_formatter(RowFormatter(centers, names))
    ax.tick_params(axis="y", labelsize=NAME_SIZE)


def missing_handle():
    """Return the legend handle of missing values."""
    from matplotlib.patches import Patch

    return Patch(color=MISSING_COLOR, label="missing")


def pool(weights):
    """Return the highest weights, (H, T), of at most 1000 intervals, and the edges of these."""
    n_steps = weights.shape[1]
    starts = np.linspace(0, n_steps, min(n_steps, MAX_CELLS) + 1).round().astype(int)
    return np.maximum.reduceat(weights, starts[:-1], axis=1), starts - 0.5
