"""Model files of every format, with the predictions that the code which wrote them made.

    python -m tests.golden_files FOLDER

writes files of the current format. When the format is raised, add them to tests/golden.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from tests.helpers import Hook, bumps, small

FOLDER = Path(__file__).parent / "golden"


def record(net, **kwargs):
    """Record values of different types, of which some are missing."""
    epoch = len(net.history)
    net.history.record("note", f"epoch {epoch}")
    net.history.record("mixed", [1, 2.5, True, "text"][epoch % 4])
    if epoch == 2:
        net.history.record("rare", {"values": [1, None, float("nan")]})


def sequences():
    """Return a model with text labels, missing values, and a history of many types.

    One feature is constant, and all have a large mean.
    """
    X, y = bumps(n=24, n_steps=15, n_features=3, seed=5)
    X = 100 + 5 * X
    X[:, :, 2] = 7
    X[::3, 4:6, 1] = np.nan
    clf = small(
        max_epochs=5, pooling="attention", positions="rope", patch_size=2, precision="float32",
        class_weight={"early": 1.0, "late": 1.5}, random_state=np.random.RandomState(3),
        callbacks=[Hook(on_epoch_end=record)],
    )  # fmt: skip
    return clf.fit(X, np.array(["early", "late"])[y]), X[:6]


def table():
    """Return a model fitted on a data frame, with early stopping and learned positions."""
    X, y = bumps(n=40, n_steps=12, seed=6)
    frame = pd.DataFrame(X[:, :, 0]).add_prefix("t")
    clf = small(
        positions="learned", cls_strategy="random", embedding="linear", early_stopping=True,
        n_jobs=2, lr="auto", batch_size="auto", standardize=False,
    )  # fmt: skip
    return clf.fit(frame, y).set_output(transform="pandas"), frame[:6]


def events():
    """Return a model of numbers, codes of every type, a clock and single values of sequences."""
    rng = np.random.default_rng(7)
    y = np.arange(40) % 2
    lengths = rng.integers(4, 8, size=40)
    start = np.datetime64("2024-03-01T08:00", "ms")
    frame = pd.DataFrame(
        {
            "value": [rng.normal(10, 2, size=n) for n in lengths],
            "event": [["in", "buy" if c else "read", *rng.choice(["go", "out"], n - 2)]
                      for c, n in zip(y, lengths, strict=True)],
            "time": [start + 1000 * rng.integers(1, 99, size=n).cumsum() for n in lengths],
            "place": [rng.integers(3, size=n) for n in lengths],
            "is_new": y == rng.integers(2, size=40),
            "age": rng.integers(20, 60, size=40),
        }
    )  # fmt: skip
    frame.loc[3, "value"][1] = np.nan
    frame.loc[0, "event"][2] = None
    clf = small(max_epochs=8, categorical_features=["event", "place", "is_new"])
    return clf.fit(frame, y), frame[:6]


def listed(X):
    """Return X as lists for JSON; times as milliseconds."""
    if not isinstance(X, pd.DataFrame) or X.dtypes.map(lambda dtype: dtype.kind != "O").all():
        return np.asarray(X).tolist()
    columns = X.assign(time=[cell.astype("int64") for cell in X["time"]])
    return [[getattr(cell, "tolist", lambda cell=cell: cell)() for cell in row]
            for row in columns.to_numpy()]  # fmt: skip


def write(folder):
    """Write the files, and for each file what it must hold."""
    from sklearn_cls._persistence.model_file import FORMAT

    for function in (sequences, table, events):
        clf, X = function()
        path = Path(folder) / f"format_{FORMAT}_{function.__name__}.safetensors"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # callbacks are not saved
            clf.save(path)
        expected = {
            "X": listed(X),
            "columns": list(X.columns) if isinstance(X, pd.DataFrame) else None,
            "classes": clf.predict(X).tolist(),
            "probabilities": clf.predict_proba(X).tolist(),
            "history": clf.history_,
            "n_epochs_trained": clf.net_.n_epochs_trained,
        }
        path.with_suffix(".json").write_text(json.dumps(expected))


if __name__ == "__main__":
    write(sys.argv[1])
