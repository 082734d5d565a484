"""
From aeon and sktime
====================

In a dataset that comes with aeon, nine speakers say the same vowels. How much of an utterance is
needed to recognize the speaker?
"""

# %%
# aeon and sktime store sequences as (channels, steps).
# :func:`~sklearn_cls.datasets.from_channels_first` converts them to (steps, features) without
# copying. This dataset is a list of arrays with 12 channels and 7 to 29 steps.

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
# Sequences of unequal length need no padding, either for training or for prediction.

clf = CLSTransformerClassifier(random_state=0).fit(X_train, y_train)
clf.score(X_test, y_test)

# %%
# The first steps of a sequence are a sequence too, so the same model can recognize the speaker
# before the utterance ends.

fractions = np.linspace(0.1, 1, 10)
scores = [clf.score([x[: max(1, round(f * len(x)))] for x in X_test], y_test) for f in fractions]

figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.plot(100 * fractions, scores, color="#0072B2", marker="o", label="start of the utterance")
most_frequent = np.unique(y_test, return_counts=True)[1].max() / len(y_test)
ax.axhline(most_frequent, color="k", linestyle=":", label="most frequent speaker")
ax.set(
    xlabel="part of the utterance heard (%)",
    ylabel="test accuracy",
    ylim=(0, 1.05),
    title="Recognizing the speaker before the utterance ends",
)
ax.legend()
plt.show()
