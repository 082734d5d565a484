"""Fit a fixed set of classifiers and compare their probabilities with recorded ones.

`python -m tests.reference_fits` compares them with `tests/reference_fits.json` and prints the
largest difference of each; `--record` writes that file. It was recorded before the code was divided
into packages. Since then, soft labels and the fused attention kernel have changed the rounding.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import torch

from sklearn_cls import CLSTransformerClassifier

RECORDED = Path(__file__).with_suffix(".json")
TOLERANCE = 1e-3  # differences of rounding are below 1e-5, and grow with training
N_SHOWN = 6  # sequences whose probabilities are recorded in full


def sequences(n=90, n_steps=24, n_features=3):
    """Return noisy sequences of three classes, which have a bump early, in the middle or late."""
    rng = np.random.default_rng(7)
    X = rng.normal(scale=0.5, size=(n, n_steps, n_features)).astype(np.float32)
    y = np.arange(n) % 3
    for x, label in zip(X, y, strict=True):
        start = 8 * label + rng.integers(4)
        x[start : start + 3, 0] += 2
    return X, y


def classifier(**params):
    """Return a small classifier."""
    small = {"d_model": 16, "n_heads": 2, "dim_feedforward": 32, "max_epochs": 6, "batch_size": 16}
    return CLSTransformerClassifier(**{**small, "n_jobs": 1, "random_state": 0, **params})


def variants():
    """Yield the name, the fitted classifier and the sequences to predict of each variant."""
    X, y = sequences()
    ragged = [x[: 12 + i % 13] for i, x in enumerate(X)]
    gaps = X.copy()
    gaps[np.random.default_rng(1).random(X.shape) < 0.1] = np.nan
    scales = X * np.logspace(-3, 2, len(X), dtype=np.float32)[:, np.newaxis, np.newaxis]
    weight = np.linspace(0.5, 2, len(y))

    for augment in (False, True):

        def fit(X=X, y=y, augment=augment, sample_weight=None, **params):
            clf = classifier(augment=augment, **params)
            return clf.fit(X, y, sample_weight=sample_weight), X

        end = ", augmented" if augment else ""
        for strategy in ("learned", "zeros", "fixed", "random"):
            yield f"{strategy}{end}", *fit(cls_strategy=strategy)
        for pooling in ("mean", "max", "attention"):
            yield f"pooling {pooling}{end}", *fit(pooling=pooling)
        for positions in ("learned", "rope", None):
            yield f"positions {positions}{end}", *fit(positions=positions, depth=3)
        yield f"linear{end}", *fit(embedding="linear", patch_size=3, depth=1)
        yield f"unequal lengths{end}", *fit(ragged)
        yield f"gaps{end}", *fit(gaps, cls_strategy="fixed")
        yield f"unequal scales{end}", *fit(scales)
        yield f"not standardized{end}", *fit(standardize=False, label_smoothing=0.0)
        yield f"univariate{end}", *fit(X[:, :, 0])
        yield (
            f"early stopping{end}",
            *fit(ragged, early_stopping=True, n_iter_no_change=2, max_epochs=20, lr=0.02),
        )
        yield (
            f"weights{end}",
            *fit(class_weight={0: 2.0, 1: 1.0, 2: 0.5}, sample_weight=weight),
        )
        clf = classifier(augment=augment)
        for part in (slice(0, 45), slice(45, 90), slice(0, 45)):
            clf.partial_fit(ragged[part], y[part], classes=[0, 1, 2])
        yield f"partial_fit{end}", clf, ragged
        clf = classifier(augment=augment, warm_start=True, max_epochs=2).fit(X, y)
        yield f"warm start{end}", clf.fit(X, y), X


def measure(clf, X):
    """Return the values that are recorded for a fitted classifier."""
    probabilities = clf.predict_proba(X)
    outputs = (probabilities, clf.transform(X))
    return {
        "sha256": hashlib.sha256(b"".join(np.ascontiguousarray(x) for x in outputs)).hexdigest(),
        "probabilities": np.float64(probabilities[:N_SHOWN]).tolist(),
        "loss_curve": [float(loss) for loss in clf.loss_curve_],
    }


def largest_difference(found, expected):
    """Return the largest difference between the probabilities of a variant and recorded ones."""
    return float(np.abs(np.subtract(found["probabilities"], expected["probabilities"])).max())


def compare():
    """Yield the name of each variant, its largest difference, and whether all bits are equal."""
    expected = json.loads(RECORDED.read_text())
    for name, clf, X in variants():
        found = measure(clf, X)
        yield name, largest_difference(found, expected[name]), found == expected[name]


def main():
    """Record the probabilities, or compare them; return 1 if they differ by more than rounding."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--record", action="store_true", help="write the file")
    is_recording = parser.parse_args().record
    torch.set_num_threads(1)
    if is_recording:
        found = {name: measure(clf, X) for name, clf, X in variants()}
        RECORDED.write_text(json.dumps(found, indent=1) + "\n")
        return 0
    results = list(compare())
    for name, difference, is_identical in results:
        print(f"{'identical' if is_identical else 'different':9} {difference:9.2e}  {name}")
    n_identical = sum(is_identical for _, _, is_identical in results)
    largest = max(difference for _, difference, _ in results)
    print(
        f"{n_identical} of {len(results)} are bitwise identical; largest difference {largest:.2e}"
    )
    return int(largest > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
