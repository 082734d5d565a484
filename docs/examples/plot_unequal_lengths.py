"""
Unequal lengths and missing values
==================================

Recordings stop early, and sensors fail. Sequences of unequal length are passed as a list, and
missing values as NaN; nothing has to be truncated, padded or imputed first. How does the accuracy
depend on the fraction of missing values?
"""

# %%
# Each recording has 30 to 90 steps and three features. The class is the frequency of a wave in the
# first feature; everything else is noise.

import matplotlib.pyplot as plt
import numpy as np

from sklearn_cls import CLSTransformerClassifier

rng = np.random.default_rng(0)


def record(period):
    """Return one recording of shape (n_steps, 3)."""
    n_steps = rng.integers(30, 91)
    wave = np.sin(2 * np.pi * (np.arange(n_steps) / period + rng.random()))
    return np.c_[wave, rng.normal(size=(n_steps, 2))] + 0.5 * rng.normal(size=(n_steps, 3))


y = np.repeat(["slow", "middle", "fast"], 150)
X = [record({"slow": 18, "middle": 14, "fast": 11}[label]) for label in y]
train, test = np.arange(len(y)) % 2 == 0, np.arange(len(y)) % 2 == 1
X[0].shape, X[1].shape

# %%
# The figure shows the first feature of three recordings in which 30 % of the values are missing, in
# gaps of 5 steps.


def with_gaps(X, fraction):
    """Return copies of sequences in which a fraction of the values is missing."""
    copies = []
    for x in X:
        is_missing = rng.random((-(-len(x) // 5), x.shape[1])) < fraction
        copies.append(np.where(is_missing.repeat(5, axis=0)[: len(x)], np.nan, x))
    return copies


fractions = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
tests = [with_gaps([X[i] for i in np.flatnonzero(test)], fraction) for fraction in fractions]
figure, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
for x, offset in zip(tests[3][:3], (0, 5, 10), strict=True):
    ax.plot(x[:, 0] + offset, color="#0072B2", marker=".")
ax.set(xlabel="step", yticks=[], title="First feature of three recordings, 30 % missing")
plt.show()

# %%
# The frequency of the wave decides the class, so augmentation must not change it: ``augment=False``
# disables time warping. One model is trained on complete data, the other one on data with missing
# values.

accuracy = {}
for name, fraction in [("complete", 0), ("30 % missing", 0.3)]:
    clf = CLSTransformerClassifier(augment=False, max_epochs=30, random_state=0)
    clf.fit(with_gaps([X[i] for i in np.flatnonzero(train)], fraction), y[train])
    accuracy[name] = [clf.score(X_test, y[test]) for X_test in tests]

# %%
# If the training data have missing values, the network also receives missing-value indicators. This
# improves the accuracy if many values of the test data are missing. If few of them are missing,
# complete training data are better. So train on data with about the same fraction of missing values
# as in the data to predict.

figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for (name, scores), style in zip(accuracy.items(), ("o--", "s-"), strict=True):
    ax.plot(100 * np.array(fractions), scores, style, label=name)
ax.legend(title="training data")
ax.set(
    xlabel="missing values in the test data (%)",
    ylabel="test accuracy",
    title="Accuracy with missing values",
)
plt.show()
# sphinx_gallery_thumbnail_number = 2
