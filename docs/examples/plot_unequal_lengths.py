"""
Unequal lengths and gaps
========================

Recordings stop early, and sensors drop out. Sequences of unequal length go in as a list, missing
values as NaN; nothing has to be cut, padded or filled in before. How much of the values may be
missing until it costs accuracy?
"""

# %%
# Three features; the class is how fast the first of them swings. Each recording has 30 to 90 steps.

import matplotlib.pyplot as plt
import numpy as np

from sklearn_cls import CLSTransformerClassifier

rng = np.random.default_rng(0)


def record(period):
    """One recording (n_steps, 3)."""
    n_steps = rng.integers(30, 91)
    swing = np.sin(2 * np.pi * (np.arange(n_steps) / period + rng.random()))
    return np.c_[swing, rng.normal(size=(n_steps, 2))] + 0.5 * rng.normal(size=(n_steps, 3))


y = np.repeat(["slow", "middle", "fast"], 150)
X = [record({"slow": 18, "middle": 14, "fast": 11}[label]) for label in y]
train, test = np.arange(len(y)) % 2 == 0, np.arange(len(y)) % 2 == 1
X[0].shape, X[1].shape

# %%
# Speed is what tells the classes apart, so training must not vary it: ``augment=False``.


def with_gaps(X, share):
    """Copies of sequences with a share of their values missing, in stretches of 5 steps."""
    holes = []
    for x in X:
        hole = rng.random((-(-len(x) // 5), x.shape[1])) < share
        holes.append(np.where(hole.repeat(5, axis=0)[: len(x)], np.nan, x))
    return holes


shares = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
tests = [with_gaps([X[i] for i in np.flatnonzero(test)], share) for share in shares]
accuracy = {}
for name, share in [("complete", 0), ("with 30 % missing", 0.3)]:
    clf = CLSTransformerClassifier(augment=False, max_epochs=30, random_state=0)
    clf.fit(with_gaps([X[i] for i in np.flatnonzero(train)], share), y[train])
    accuracy[name] = [clf.score(X_test, y[test]) for X_test in tests]

# %%
# A network that has seen gaps in training is also told which values are missing. That pays where
# much will be missing later; where little will be, complete training data are worth more. Train on
# what is as complete as what is to be predicted.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for x, offset in zip(tests[3][:3], (0, 5, 10), strict=True):
    left.plot(x[:, 0] + offset, color="#0072B2", marker=".")
left.set(xlabel="step", yticks=[], title="First feature of three sequences, 30 % missing")
for (name, scores), style in zip(accuracy.items(), ("o--", "s-"), strict=True):
    right.plot(100 * np.array(shares), scores, style, label=name)
right.legend(title="training data")
right.set(xlabel="missing in the test data (%)", ylabel="test accuracy", title="What gaps cost")
plt.show()
