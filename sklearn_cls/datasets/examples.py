"""Example sequences: real digits, and problems whose rule is known."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.utils import check_random_state

RULES = ("marked", "spread", "order")


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
