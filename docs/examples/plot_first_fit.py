"""
First fit
=========

Handwritten digits, read row by row, and the ones that a small transformer is least sure of.
"""

# %%
# Sequences
# ---------
#
# An image has 8 rows of 8 pixels. Here a row is a step and a pixel is a feature, so that a digit
# is a sequence of 8 steps.

from sklearn.model_selection import train_test_split

from sklearn_cls.datasets import load_digit_sequences

X, y = load_digit_sequences()
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
X_train.shape

# %%
# Fit
# ---
#
# No parameter has to be set. `max_epochs` is lower than its default to be quick, and
# `random_state` makes the fit repeat itself.

from sklearn_cls import CLSTransformerClassifier

clf = CLSTransformerClassifier(max_epochs=20, random_state=0)
clf.fit(X_train, y_train)

# %%
# The share of test digits that it names:

clf.score(X_test, y_test)

# %%
# Which digits are hard?
# ----------------------
#
# `predict_proba` says how sure it is. The twelve test digits with the lowest highest probability:

import matplotlib.pyplot as plt

probabilities = clf.predict_proba(X_test)
predicted = clf.classes_[probabilities.argmax(axis=1)]
unsure = probabilities.max(axis=1).argsort()[:12]

fig, axes = plt.subplots(2, 6, figsize=(8, 3.6), layout="constrained")
for ax, i in zip(axes.flat, unsure, strict=True):
    ax.imshow(X_test[i], cmap="gray_r")
    ax.set_axis_off()
    wrong = predicted[i] != y_test[i]
    ax.set_title(
        f"{predicted[i]} ({probabilities[i].max():.0%})"
        + (f"\nis a {y_test[i]}" if wrong else "\n"),
        color="tab:red" if wrong else "black",
        fontsize=10,
    )
fig.suptitle("What was predicted, and how surely")
plt.show()
