"""Sequences to try things on, and those of other libraries.

Sequences are (n_sequences, n_steps, n_features), or a list of (n_steps_i, n_features) where
lengths differ. aeon and sktime put channels first: see `from_channels_first`.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.utils import check_random_state

__all__ = ["from_channels_first", "load_digit_sequences", "load_ts", "make_sequences"]

RULES = ("marked", "spread", "order")

MISSING = ("?", "nan")  # in a .ts file, in any case


def load_digit_sequences():
    """Load the digits of scikit-learn as sequences of rows.

    Returns
    -------
    X : ndarray of shape (1797, 8, 8), float32
        Images of handwritten digits: 8 steps (rows) of 8 features (pixels, 0 to 16).

    y : ndarray of shape (1797,), int
        The digits, 0 to 9.

    Examples
    --------
    >>> from sklearn_cls.datasets import load_digit_sequences
    >>> X, y = load_digit_sequences()
    >>> X.shape
    (1797, 8, 8)
    """
    digits = load_digits()
    return digits.images.astype(np.float32), digits.target


def make_sequences(rule, n_sequences=500, *, n_steps=24, random_state=None):
    """Make sequences of which it is known what decides the class.

    Parameters
    ----------
    rule : {"marked", "spread", "order"}
        What decides which of the four classes a sequence is of:

        - "marked": one step. Feature 0 is 1 there and 0 elsewhere; the class is the signs of the
          other two features at this step. All other steps are noise.
        - "spread": all steps alike. The two features are noise, around means of ±0.4 whose signs
          are the class.
        - "order": two pairs of events, each a peak of one of four features at a random step. The
          class is which one of each pair comes first.

    n_sequences : int, default=500
        Sequences, of each class about a quarter.

    n_steps : int, default=24
        Steps of each, at least 2.

    random_state : int, RandomState instance or None, default=None
        An int makes the same sequences again.

    Returns
    -------
    X : ndarray of shape (n_sequences, n_steps, n_features), float32
        3 features if "marked", 2 if "spread", 4 if "order". Noise has deviation 1, in "order" 0.3.

    y : ndarray of shape (n_sequences,), int
        The classes, 0 to 3.

    Raises
    ------
    ValueError
        If there is no such rule, or `n_steps` is below 2.

    Examples
    --------
    >>> from sklearn_cls.datasets import make_sequences
    >>> X, y = make_sequences("marked", n_sequences=100, random_state=0)
    >>> X.shape
    (100, 24, 3)
    >>> step = X[0, :, 0].argmax()  # of the mark
    >>> (X[0, step, 1:] > 0).tolist(), int(y[0])
    ([False, True], 1)
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(map(repr, RULES))}, got {rule!r}.")
    if n_steps < 2:
        raise ValueError(f"n_steps must be at least 2, for an order of two, got {n_steps}.")
    rng = check_random_state(random_state)
    bits = rng.randint(2, size=(n_sequences, 2))  # of the class
    if rule == "spread":
        X = rng.normal(size=(n_sequences, n_steps, 2)) + 0.4 * (2 * bits[:, None] - 1)
    elif rule == "marked":
        X = np.zeros((n_sequences, n_steps, 3))
        X[..., 1:] = rng.normal(size=(n_sequences, n_steps, 2))
        rows, steps = np.arange(n_sequences), rng.randint(n_steps, size=n_sequences)
        X[rows, steps, 0] = 1
        X[rows, steps, 1:] = np.abs(X[rows, steps, 1:]) * (2 * bits - 1)
    else:
        X = rng.normal(scale=0.3, size=(n_sequences, n_steps, 4))
        for x, pairs in zip(X, bits, strict=True):
            for pair, bit in enumerate(pairs):
                early, late = sorted(rng.choice(n_steps, 2, replace=False))
                x[early, 2 * pair + bit] += 3
                x[late, 2 * pair + 1 - bit] += 3
    return X.astype(np.float32), bits @ (2, 1)


def from_channels_first(X):
    """Turn sequences of aeon and sktime, channels first, into those of this library.

    Parameters
    ----------
    X : array-like of shape (n_sequences, n_channels, n_steps), or list of arrays of shape \
            (n_channels, n_steps_i)
        "numpy3D" and "np-list" in aeon's words.

    Returns
    -------
    X : ndarray of shape (n_sequences, n_steps, n_channels), or list of arrays of shape \
            (n_steps_i, n_channels)
        Views: nothing is copied.

    Raises
    ------
    ValueError
        If X is neither 3-D nor a list of 2-D arrays.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_cls.datasets import from_channels_first
    >>> from_channels_first(np.zeros((10, 3, 50))).shape
    (10, 50, 3)
    >>> [x.shape for x in from_channels_first([np.zeros((3, 50)), np.zeros((3, 40))])]
    [(50, 3), (40, 3)]
    """
    if isinstance(X, list | tuple):
        X = [np.asarray(x) for x in X]
        for i, x in enumerate(X):
            if x.ndim != 2:
                raise ValueError(
                    f"X[{i}] has shape {x.shape}; each sequence of a list must be (n_channels, "
                    "n_steps), for one channel x[np.newaxis]."
                )
        return [x.T for x in X]
    X = np.asarray(X)
    if X.ndim != 3:
        raise ValueError(
            f"X has shape {X.shape}; it must be (n_sequences, n_channels, n_steps), or a list of "
            "(n_channels, n_steps). Without channels, (n_sequences, n_steps), X can be used as "
            "it is."
        )
    return X.transpose(0, 2, 1)


def load_ts(path):
    r"""Load sequences from a `.ts` file, the form of the UEA and UCR archives.

    A header of lines `@name value`, `@data`, and a sequence a line: features (the archive says
    dimensions) separated by `:`, their values by `,`, `?` or `NaN` where missing, the class label
    last. Lines that start with `#` are comments.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    X : ndarray of shape (n_sequences, n_steps, n_features) or list of ndarray, float32
        A list of (n_steps_i, n_features) if lengths differ. Missing values are NaN.

    y : ndarray of shape (n_sequences,), str, or None
        The labels; None if the header says `@classLabel false`.

    Raises
    ------
    ValueError
        If a line is not as described; the message has its number.

    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> from pathlib import Path
    >>> from sklearn_cls.datasets import load_ts
    >>> lines = ["@classLabel true up down", "@data", "1,2,3:0,?,0:up", "3,2:1,1:down"]
    >>> _ = Path("small.ts").write_text("\n".join(lines))
    >>> X, y = load_ts("small.ts")
    >>> [x.shape for x in X], y.tolist()
    ([(3, 2), (2, 2)], ['up', 'down'])
    """
    X, y = [], []
    with Path(path).open("rb") as file:
        lines = enumerate(map(_decode, file), start=1)
        labels = _read_labels(path, lines)
        for number, line in lines:
            line = line.strip()
            if line and not line.startswith("#"):
                try:
                    x, label = _read_sequence(line, labels)
                    if X and x.shape[1] != X[0].shape[1]:
                        raise ValueError(
                            f"{x.shape[1]} features, but the sequences before it have "
                            f"{X[0].shape[1]}"
                        )
                except ValueError as error:
                    raise ValueError(f"{path}, line {number}: {error}.") from error
                X.append(x)
                y.append(label)
    if not X:
        raise ValueError(f"{path}: no sequences after @data.")
    if len({len(x) for x in X}) == 1:
        X = np.stack(X)
    return X, None if labels is None else np.array(y)


def _decode(line):
    """Return a line of bytes as text; older files of the archives have comments in Latin-1."""
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError:
        return line.decode("latin-1")


def _read_labels(path, lines):
    """Read lines up to `@data`; return the declared labels, empty if any may be, None if none."""
    labels = ()
    for number, line in lines:
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, *values = line.split()
        name, flag = name.lower(), values[0].lower() if values else ""
        if name == "@data":
            return labels
        problem = None
        if not name.startswith("@"):
            problem = f"{line[:40]!r} before @data; a header line starts with @"
        elif name in ("@timestamps", "@targetlabel", "@classlabel"):
            if flag not in ("true", "false"):
                problem = f"{line[:40]!r} says neither true nor false"
            elif name == "@classlabel":
                labels = tuple(values[1:]) if flag == "true" else None
            elif flag == "true" and name == "@timestamps":
                problem = "time stamps are not supported; sample the sequences at equal steps"
            elif flag == "true":
                problem = "the targets are numbers, but this library classifies"
        if problem:
            raise ValueError(f"{path}, line {number}: {problem}.")
    raise ValueError(f"{path}: the file ends without a line @data.")


def _read_sequence(line, labels):
    """Read a line of data: (T, F) and its label, None if there are no labels."""
    *features, label = line.split(":") if labels is not None else [*line.split(":"), None]
    if not features:
        raise ValueError(f"no label after a colon at the end of {line[:40]!r}")
    if labels is not None:
        label = label.strip()
        if not label:
            raise ValueError("no label after the last colon")
        if labels and label not in labels:
            raise ValueError(
                f"label {label[:40]!r} is not one that @classLabel declares ({', '.join(labels)})"
            )
    values = [_read_values(text, feature) for feature, text in enumerate(features)]
    for feature, column in enumerate(values):
        if len(column) != len(values[0]):
            raise ValueError(
                f"feature {feature} has {len(column)} values, but feature 0 has {len(values[0])}"
            )
    return np.stack(values, axis=1), label


def _read_values(text, feature):
    words = [word.strip() for word in text.split(",")]
    try:
        with np.errstate(over="ignore"):  # the estimator refuses what is infinite, and says where
            return np.array([np.nan if w.lower() in MISSING else w for w in words], np.float32)
    except ValueError as error:
        raise ValueError(f"feature {feature}: {error}; write ? if a value is missing") from error
