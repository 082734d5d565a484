"""
Embeddings for clustering and retrieval
=======================================

``transform`` returns the [CLS] vectors, which any scikit-learn estimator accepts. Are they useful
for classes that were not in the training data? Here, the network is trained on the digits 0 to 7
only.
"""

# %%
# Train on eight of the ten digits.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans
from sklearn.manifold import TSNE
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors

from sklearn_cls import CLSTransformerClassifier, EmbeddingDisplay
from sklearn_cls.datasets import load_digit_sequences

X, y = load_digit_sequences()
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
known = y_train < 8
clf = CLSTransformerClassifier(max_epochs=20, random_state=0).fit(X_train[known], y_train[known])
embeddings = clf.transform(X_test)
embeddings.shape

# %%
# The figure shows the vectors in two dimensions. Filled markers are training digits; hollow markers
# are test digits, which include the digits 8 and 9 that were not in the training data.

EmbeddingDisplay.from_estimator(
    clf, X_train[known], y_train[known], X_unseen=X_test, y_unseen=y_test,
    reducer=TSNE(random_state=0),
)  # fmt: skip

# %%
# For clustering, ten clusters of the vectors and of the raw pixels are compared with the digits.

pixels = X_test.reshape(len(X_test), -1)
for name, vectors in [("pixels", pixels), ("[CLS] vectors", embeddings)]:
    clusters = KMeans(10, n_init=10, random_state=0).fit_predict(vectors)
    print(f"{name:14} adjusted Rand index {adjusted_rand_score(y_test, clusters):.2f}")

# %%
# For retrieval, how many of the ten nearest neighbors of a test digit are the same digit? For the
# digits in the training data, the vectors are better than the pixels; for 8 and 9 they are worse.
# The network keeps what separates its classes and discards the rest. So train on classes that
# resemble those to be retrieved.


def precision(vectors, metric, k=10):
    """Return the precision at k: the fraction of the neighbors that have the same class."""
    search = NearestNeighbors(n_neighbors=k + 1, metric=metric).fit(vectors)
    neighbors = search.kneighbors(vectors, return_distance=False)[:, 1:]  # without itself
    return (y_test[neighbors] == y_test[:, np.newaxis]).mean(1)


of_pixels, of_vectors = precision(pixels, "euclidean"), precision(embeddings, "cosine")
figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
digits = np.arange(10)
for offset, (name, values, color) in zip(
    (-0.2, 0.2),
    [("pixels", of_pixels, "#999999"), ("[CLS] vectors", of_vectors, "#0072B2")],
    strict=True,
):
    heights = [values[y_test == digit].mean() for digit in digits]
    ax.bar(digits + offset, heights, 0.4, color=color, label=name)
ax.axvline(7.5, color="k", linestyle=":")
ax.text(7.6, 1.02, "not in training")
ax.set(xticks=digits, xlabel="digit", ylabel="precision at 10", ylim=(0, 1.1))
ax.set_title("Retrieving the same digit")
ax.legend(loc="lower left")
plt.show()
