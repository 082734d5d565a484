"""Example sequences, and readers for the formats of other libraries.

Sequences are an array of shape (n_sequences, n_steps, n_features), or a list of arrays of shape
(n_steps_i, n_features) if their lengths differ. aeon and sktime put channels before steps: see
`from_channels_first`.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.utils import check_random_state

__all__ = ["from_channels_first", "load_digit_sequences", "load_ts", "make_sequences"]

RULES = ("marked", "spread", "order")

MISSING = ("?", "nan")  # missing values of a .ts file, in lower case


def load_digit_sequences():
    """Load scikit-learn's digits as sequences of image rows.

    Returns
    -------
    X : ndarray of shape (1797, 8, 8), float32
        Images of handwritten digits: 8 steps (rows) of 8 features (pixels from 0 to 16).

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
    """Generate sequences of four classes by a known rule.

    Parameters
    ----------
    rule : {"marked", "spread", "order"}
        Rule that determines the class:

        - "marked": the signs of features 1 and 2 at one step, which feature 0 marks with a 1.
          Feature 0 is 0 at all other steps, where features 1 and 2 are noise.
        - "spread": the signs of the means, +0.4 or -0.4, of two noisy features.
        - "order": which of features 0 and 1, and which of 2 and 3, has the earlier peak. Each
          feature has one peak at a random step, and is noise elsewhere.

    n_sequences : int, default=500
        Number of sequences, about a quarter of them in each class.

    n_steps : int, default=24
        Number of steps in each sequence, at least 2.

    random_state : int, RandomState instance or None, default=None
        Pass an int to get the same sequences from every call.

    Returns
    -------
    X : ndarray of shape (n_sequences, n_steps, n_features), float32
        "marked" has 3 features, "spread" 2 and "order" 4. The noise is normal with standard
        deviation 1 ("order": 0.3).

    y : ndarray of shape (n_sequences,), int
        The classes, 0 to 3.

    Examples
    --------
    >>> from sklearn_cls.datasets import make_sequences
    >>> X, y = make_sequences("marked", n_sequences=100, random_state=0)
    >>> X.shape
    (100, 24, 3)
    >>> marked_step = X[0, :, 0].argmax()
    >>> (X[0, marked_step, 1:] > 0).tolist(), int(y[0])
    ([False, True], 1)
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(map(repr, RULES))}, got {rule!r}.")
    if n_steps < 2:
        raise ValueError(f"n_steps must be at least 2, got {n_steps}.")
    rng = check_random_state(random_state)
    class_bits = rng.randint(2, size=(n_sequences, 2))
    make = {"marked": _make_marked, "spread": _make_spread, "order": _make_order}[rule]
    return make(rng, class_bits, n_steps).astype(np.float32), class_bits @ (2, 1)


def _make_marked(rng, class_bits, n_steps):
    """Return sequences with one marked step, at which two signs determine the class."""
    n_sequences = len(class_bits)
    X = np.zeros((n_sequences, n_steps, 3))
    X[..., 1:] = rng.normal(size=(n_sequences, n_steps, 2))
    indices, steps = np.arange(n_sequences), rng.randint(n_steps, size=n_sequences)
    X[indices, steps, 0] = 1
    X[indices, steps, 1:] = np.abs(X[indices, steps, 1:]) * (2 * class_bits - 1)
    return X


def _make_spread(rng, class_bits, n_steps):
    """Return noise around two means, whose signs determine the class."""
    noise = rng.normal(size=(len(class_bits), n_steps, 2))
    return noise + 0.4 * (2 * class_bits[:, None] - 1)


def _make_order(rng, class_bits, n_steps):
    """Return noise with a peak in each of 4 features; their order in pairs determines the class."""
    X = rng.normal(scale=0.3, size=(len(class_bits), n_steps, 4))
    for x, bits in zip(X, class_bits, strict=True):
        for pair, bit in enumerate(bits):
            early, late = sorted(rng.choice(n_steps, 2, replace=False))
            x[early, 2 * pair + bit] += 3
            x[late, 2 * pair + 1 - bit] += 3
    return X


def from_channels_first(X):
    """Convert sequences with channels before steps, the format of aeon and sktime.

    Parameters
    ----------
    X : array-like of shape (n_sequences, n_channels, n_steps), or list of arrays of shape \
            (n_channels, n_steps_i)
        Sequences of aeon's type "numpy3D" or "np-list".

    Returns
    -------
    X : ndarray of shape (n_sequences, n_steps, n_channels), or list of arrays of shape \
            (n_steps_i, n_channels)
        Views of the input, without a copy.

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
                    f"X[{i}] has shape {x.shape}, but every sequence of a list must have shape "
                    "(n_channels, n_steps); for one channel, pass x[np.newaxis]."
                )
        return [x.T for x in X]
    X = np.asarray(X)
    if X.ndim != 3:
        raise ValueError(
            f"X has shape {X.shape}, but must be (n_sequences, n_channels, n_steps), or a list of "
            "(n_channels, n_steps). An X of shape (n_sequences, n_steps) needs no conversion."
        )
    return X.transpose(0, 2, 1)


def load_ts(path):
    r"""Load sequences from a `.ts` file, the format of the UEA and UCR archives.

    The file has header lines `@name value`, a line `@data`, and one line per sequence: the features
    (dimensions) separated by `:`, their values separated by `,`, and the class label last. Missing
    values are `?` or `NaN`. Lines that start with `#` are comments.

    Parameters
    ----------
    path : str or path-like
        Path of the file.

    Returns
    -------
    X : ndarray of shape (n_sequences, n_steps, n_features) or list of ndarray, float32
        A list of arrays of shape (n_steps_i, n_features) if lengths differ. Missing values are NaN.

    y : ndarray of shape (n_sequences,), str, or None
        The labels; None if the header has `@classLabel false`.

    Raises
    ------
    ValueError
        If a line does not follow the format; the message gives the line number.

    FileNotFoundError
        If the file does not exist.

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
    with Path(path).open("rb") as file:
        lines = enumerate(map(_decode, file), start=1)
        classes = _read_header(path, lines)
        X, y = _read_data(path, lines, classes)
    if not X:
        raise ValueError(f"{path}: no sequences after @data.")
    if len({len(x) for x in X}) == 1:
        X = np.stack(X)
    return X, None if classes is None else np.array(y)


def _decode(line):
    """Return a line as text. Older files of the archives have comments in Latin-1."""
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError:
        return line.decode("latin-1")


def _read_header(path, lines):
    """Read the lines up to `@data`; return the declared classes.

    They are an empty tuple if the file does not declare them, and None if it has no labels.
    """
    classes = ()
    for number, line in lines:
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, *values = line.split()
        name, flag = name.lower(), values[0].lower() if values else ""
        if name == "@data":
            return classes
        problem = _header_problem(line, name, flag)
        if problem:
            raise ValueError(f"{path}, line {number}: {problem}.")
        if name == "@classlabel":
            classes = tuple(values[1:]) if flag == "true" else None
    raise ValueError(f"{path}: the file has no line @data.")


def _header_problem(line, name, flag):
    """Return what is wrong with a header line, or None."""
    if not name.startswith("@"):
        return f"expected a header line that starts with @ before @data, got {line[:40]!r}"
    if name not in ("@timestamps", "@targetlabel", "@classlabel"):
        return None
    if flag not in ("true", "false"):
        return f"{line[:40]!r} has neither true nor false"
    if name == "@timestamps" and flag == "true":
        return "time stamps are not supported; resample the sequences to equal time steps"
    if name == "@targetlabel" and flag == "true":
        return "the targets are numbers, but only classification is supported"
    return None


def _read_data(path, lines, classes):
    """Read the lines after `@data`; return lists of sequences and labels."""
    X, y = [], []
    for number, line in lines:
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            x, label = _read_sequence(line, classes)
            if X and x.shape[1] != X[0].shape[1]:
                raise ValueError(
                    f"{x.shape[1]} features, but the previous sequences have {X[0].shape[1]}"
                )
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}.") from error
        X.append(x)
        y.append(label)
    return X, y


def _read_sequence(line, classes):
    """Return the sequence of a line, (T, F), and its label, None if the file has no labels."""
    features, label = line.split(":"), None
    if classes is not None:
        *features, label = features
        label = label.strip()
        _check_label(line, features, label, classes)
    columns = [_read_values(text, feature) for feature, text in enumerate(features)]
    for feature, column in enumerate(columns):
        if len(column) != len(columns[0]):
            raise ValueError(
                f"feature {feature} has {len(column)} values, but feature 0 has {len(columns[0])}"
            )
    return np.stack(columns, axis=1), label


def _check_label(line, features, label, classes):
    """Raise if a line has no label, or one that the header does not declare."""
    if not features:
        raise ValueError(f"{line[:40]!r} must end in a colon and a label")
    if not label:
        raise ValueError("no label after the last colon")
    if classes and label not in classes:
        raise ValueError(
            f"label {label[:40]!r} is not declared by @classLabel ({', '.join(classes)})"
        )


def _read_values(text, feature):
    """Return the values of a feature."""
    words = [word.strip() for word in text.split(",")]
    try:
        # Overflow gives infinity, for which the estimator raises an error that names the sequence.
        with np.errstate(over="ignore"):
            return np.array([np.nan if w.lower() in MISSING else w for w in words], np.float32)
    except ValueError as error:
        raise ValueError(f"feature {feature}: {error}; write ? for a missing value") from error
