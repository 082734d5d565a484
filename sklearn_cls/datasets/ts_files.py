"""Reader of `.ts` files, the format of the UEA and UCR archives."""

from pathlib import Path

import numpy as np

MISSING = ("?", "nan")  # missing values of a .ts file, in lower case


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
        return (
            "time stamps are not supported; resample the sequences to equal time steps, or use "
            "from_long with a table that has a row for each step"
        )
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
