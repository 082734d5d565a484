"""
What [CLS] reads
================

A sensor records 24 steps, of which one is marked and decides the class; all others are noise. Does
[CLS] read the marked step, or has the network found another way?
"""

# %%
# Feature 0 is 1 at the marked step and 0 elsewhere. The signs of features 1 and 2 at this step are
# the class. A single step decides, so it must not be cut out by the augmentation.

import matplotlib.pyplot as plt
import numpy as np

from sklearn_cls import CLSAttentionDisplay, CLSTransformerClassifier
from sklearn_cls.datasets import make_sequences

X, y = make_sequences("marked", 1000, random_state=0)
X_train, y_train, X_test, y_test = X[:500], y[:500], X[500:], y[500:]
clf = CLSTransformerClassifier(depth=1, embedding="linear", augment=False, random_state=0)
clf.fit(X_train, y_train).score(X_test, y_test)

# %%
# Four sequences it has not seen, with the mean attention of the four heads.

CLSAttentionDisplay.from_estimator(
    clf, X_test[:4], y_test[:4], feature_names=["mark", "left", "right"]
)

# %%
# Each head by itself: heads may share the work, or read other steps.

CLSAttentionDisplay.from_estimator(
    clf, X_test[:4], y_test[:4], heads="each", feature_names=["mark", "left", "right"]
)

# %%
# And over all sequences that it has not seen: how often is the step that [CLS] reads most the
# marked one? Attention is an array, so this is a line of NumPy.

attention = clf.cls_attention(X_test)[:, -1].mean(1)  # (n_sequences, n_steps)
marked = X_test[..., 0].argmax(1)
share = attention[np.arange(len(marked)), marked]
found = np.mean(attention.argmax(1) == marked)

figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.hist(100 * share, bins=np.linspace(0, 100, 41), color="#0072B2")
ax.axvline(100 / X.shape[1], color="k", linestyle=":", label="if all steps got the same")
ax.set(
    xlabel="attention to the marked step (%)",
    ylabel="sequences",
    title=f"The marked step is read most in {found:.1%} of sequences",
)
ax.legend()
plt.show()
# sphinx_gallery_thumbnail_number = 2
