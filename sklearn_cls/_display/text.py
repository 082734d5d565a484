"""Text that is drawn as it is, and fits into the space that it has. Sizes are in points."""

from functools import lru_cache

MAX_LABEL_LENGTH = 24  # characters
POINTS_PER_INCH = 72
HINTING = 1.06  # Small letters are wider on the screen, where they begin at whole pixels.
MIN_TITLE_SIZE = 7
MIN_WIDTH_OF_LONG_TITLES = 350  # All lines of a title are joined into one.


def shorten(label, max_length=MAX_LABEL_LENGTH):
    """Return a label as text of at most `max_length` characters, without some in the middle."""
    text = " ".join(str(label).split())
    if len(text) <= max_length:
        return text
    n_last = max_length // 3  # Names often differ at their end.
    return f"{text[: max_length - n_last - 1]}…{text[-n_last:]}"


def plain(label):
    """Return a label as text that matplotlib neither reads as a formula nor leaves out."""
    text = str(label).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def size_in_points(ax):
    """Return the width and the height of axes."""
    scale = POINTS_PER_INCH / ax.figure.dpi
    return ax.bbox.width * scale, ax.bbox.height * scale


@lru_cache(maxsize=2**14)
def relative_width(text):
    """Return the width of a line of text divided by its font size."""
    from matplotlib.textpath import TextPath

    if not text.strip():
        return 0
    return HINTING * TextPath((0, 0), plain(text), size=100).get_extents().width / 100


def cut(text, max_width):
    """Return a line of text that is at most `max_width` times as wide as its font size."""
    if relative_width(text) <= max_width:
        return text
    for n in range(len(text) - 1, 0, -1):
        if relative_width(text[:n] + "…") <= max_width:
            return text[:n] + "…"
    return ""


def set_title(ax, title, width):
    """Set the title of axes, in a font that is small enough for a width in points."""
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties

    size = FontProperties(size=rcParams["axes.titlesize"]).get_size_in_points()
    lines = str(title).split("\n")
    if width >= MIN_WIDTH_OF_LONG_TITLES:
        lines = [", ".join(lines)]
    widest = max(map(relative_width, lines))
    size = max(min(size, width / max(widest, 1)), MIN_TITLE_SIZE)
    ax.set_title(plain("\n".join(cut(line, width / size) for line in lines)), size=size)
