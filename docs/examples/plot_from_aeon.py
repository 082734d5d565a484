"""
From aeon and sktime
====================

Nine speakers say the same vowels; the data come with aeon. It and sktime put channels before steps,
:func:`~sklearn_cls.datasets.from_channels_first` turns them round without a copy. How much of
an utterance does it take to know who speaks?
"""

# %%
# A list of arrays (12 channels, 7 to 29 steps), and then of arrays (steps, 12 features).

import matplotlib.pyplot as plt
import numpy as np
from aeon.datasets import load_japanese_vowels

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls.datasets import from_channels_first

X_train, y_train = load_japanese_vowels(split="train")
X_test, y_test = load_japanese_vowels(split="test")
X_train, X_test = from_channels_first(X_train), from_channels_first(X_test)
len(X_train), X_train[0].shape, X_train[1].shape

# %%
# Lengths may stay as they are, in training and in prediction.

clf = CLSTransformerClassifier(random_state=0).fit(X_train, y_train)
clf.score(X_test, y_test)

# %%
# The first steps of a sequence are a sequence too. So the same model says who speaks while the
# utterance goes on.

shares = np.linspace(0.1, 1, 10)
known = [clf.score([x[: max(1, round(s * len(x)))] for x in X_test], y_test) for s in shares]

figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.plot(100 * shares, known, color="#0072B2", marker="o", label="first part of an utterance")
most_frequent = np.unique(y_test, return_counts=True)[1].max() / len(y_test)
ax.axhline(most_frequent, color="k", linestyle=":", label="always the most frequent speaker")
ax.set(
    xlabel="share of the utterance that was heard (%)",
    ylabel="test accuracy",
    ylim=(0, 1.05),
    title="How much it takes to know who speaks",
)
ax.legend()
plt.show()
