"""What a figure shows: its texts, and whether they overlap."""

import numpy as np


def render(display):
    display.figure_.canvas.draw()
    return display


def texts(legend):
    return [text.get_text() for text in legend.get_texts()]


def legend_of(display):
    return display.figure_.legends[0]


def tick_texts(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def visible_texts(figure):
    """Return all texts of a drawn figure."""
    found = [figure.texts, *(legend.get_texts() for legend in figure.legends)]
    for ax in figure.axes:
        found += [[ax.title], ax.texts]
        for axis in (ax.xaxis, ax.yaxis):
            if axis.get_visible():
                low, high = sorted(axis.get_view_interval())
                labels = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=False)
                found.append([axis.label, axis.get_offset_text()])
                found.append([label for position, label in labels if low <= position <= high])
    return [text for texts in found for text in texts if text.get_text().strip()]


def overlaps(artists):
    """Return the pairs of texts that overlap by more than a pixel."""
    boxes = np.array([text.get_window_extent().extents for text in artists])
    low = np.maximum(boxes[:, None, :2], boxes[:, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[:, 2:])
    first, second = np.triu_indices(len(boxes), 1)
    is_overlap = (high - low > 1).all(axis=2)[first, second]
    pairs = zip(first[is_overlap], second[is_overlap], strict=True)
    return [(artists[i].get_text(), artists[j].get_text()) for i, j in pairs]


def is_inside(artist, figure):
    box, whole = artist.get_window_extent(), figure.bbox
    return box.x0 >= 0 and box.y0 >= 0 and box.x1 <= whole.x1 and box.y1 <= whole.y1
