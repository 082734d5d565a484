"""
First fit
=========

A small transformer classifies handwritten digits, which it reads row by row. For which digits is it
least certain?
"""

# %%
# Sequences
# ---------
#
# An image has 8 rows of 8 pixels. Each row is a step, and each pixel of a row is a feature, so a
# digit is a sequence of 8 steps with 8 features.

from sklearn.model_selection import train_test_split

from sklearn_cls.datasets import load_digit_sequences

X, y = load_digit_sequences()
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
X_train.shape

# %%
# Fit
# ---
#
# The defaults work without tuning. Here, `max_epochs` is smaller than the default to save time, and
# `random_state` makes the fit reproducible.

from sklearn_cls import CLSTransformerClassifier

clf = CLSTransformerClassifier(max_epochs=20, random_state=0)
clf.fit(X_train, y_train)

# %%
# This is the accuracy on the test set:

clf.score(X_test, y_test)

# %%
# The least certain predictions
# -----------------------------
#
# `predict_proba` returns the probability of each class. The figure shows the eight test digits
# whose predicted class has the lowest probability.

import matplotlib.pyplot as plt

probabilities = clf.predict_proba(X_test)
predicted = clf.classes_[probabilities.argmax(axis=1)]
unsure = probabilities.max(axis=1).argsort()[:8]

fig, axes = plt.subplots(2, 4, figsize=(6, 4), layout="constrained")
for ax, i in zip(axes.flat, unsure, strict=True):
    ax.imshow(X_test[i], cmap="gray_r")
    ax.set_axis_off()
    wrong = predicted[i] != y_test[i]
    ax.set_title(
        f"{predicted[i]} ({probabilities[i].max():.0%})"
        + (f"\ntrue: {y_test[i]}" if wrong else "\n"),
        color="tab:red" if wrong else "black",
    )
fig.suptitle("Predicted digit and its probability")
plt.show()
