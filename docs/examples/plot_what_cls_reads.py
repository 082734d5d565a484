"""
What [CLS] attends to
=====================

A sensor records 24 steps. One of them is marked and decides the class; all others are noise. Does
[CLS] attend to the marked step?
"""

# %%
# Feature 0 is 1 at the marked step and 0 elsewhere. The signs of features 1 and 2 at this step
# decide the class. CutMix could replace the marked step, so augmentation is disabled.

import matplotlib.pyplot as plt
import numpy as np

from sklearn_cls import CLSAttentionDisplay, CLSTransformerClassifier
from sklearn_cls.datasets import make_sequences

X, y = make_sequences("marked", 1000, random_state=0)
X_train, y_train, X_test, y_test = X[:500], y[:500], X[500:], y[500:]
clf = CLSTransformerClassifier(depth=1, embedding="linear", augment=False, random_state=0)
clf.fit(X_train, y_train).score(X_test, y_test)

# %%
# The figure shows four test sequences and, below each, the attention of [CLS], averaged over heads.

names = ["mark", "left", "right"]
CLSAttentionDisplay.from_estimator(clf, X_test[:4], y_test[:4], feature_names=names)

# %%
# The attention of each head is shown for two of the sequences. Heads can attend to different steps.

CLSAttentionDisplay.from_estimator(clf, X_test[:2], y_test[:2], heads="each", feature_names=names)

# %%
# In how many of the test sequences does the marked step have the highest attention? The attention
# is an array, so this takes a few lines of NumPy.

attention = clf.cls_attention(X_test)[:, -1].mean(1)  # last block, mean of heads: (n, n_steps)
marked = X_test[..., 0].argmax(1)
of_marked = attention[np.arange(len(marked)), marked]
found = np.mean(attention.argmax(1) == marked)

figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.hist(100 * of_marked, bins=np.linspace(0, 100, 41), color="#0072B2")
ax.axvline(100 / X.shape[1], color="k", linestyle=":", label="uniform attention")
ax.set(
    xlabel="attention to the marked step (%)",
    ylabel="sequences",
    title=f"The marked step has the highest attention in {found:.1%} of sequences",
)
ax.legend()
plt.show()
# sphinx_gallery_thumbnail_number = 2
