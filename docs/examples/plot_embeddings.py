"""
Embeddings for clustering and retrieval
=======================================

``transform`` gives the [CLS] vector, which any estimator of scikit-learn takes. Is it good for
more than the classes it was trained on? Here it has seen the digits 0 to 7 only.
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
# In two dimensions: what it was trained on, and hollow what it has not seen, among it the digits
# that are new to it. Where they fall says what the network takes them for.

EmbeddingDisplay.from_estimator(
    clf, X_train[known], y_train[known], X_unseen=X_test, y_unseen=y_test,
    reducer=TSNE(random_state=0),
)  # fmt: skip

# %%
# Clustering: ten clusters of vectors, and of the pixels as they are, against the digits.

pixels = X_test.reshape(len(X_test), -1)
for name, vectors in [("pixels", pixels), ("[CLS] vectors", embeddings)]:
    clusters = KMeans(10, n_init=10, random_state=0).fit_predict(vectors)
    print(f"{name:14} adjusted Rand index {adjusted_rand_score(y_test, clusters):.2f}")

# %%
# Retrieval: of the test digits most similar to one, how many are the same digit? Those that the
# network was trained on are found better by their vectors than by their pixels; 8 and 9 are found
# worse. It keeps what tells its own classes apart, and drops the rest: train on classes like those
# to be found.


def precision(vectors, metric, k=10):
    """Share of the k nearest neighbours of each sequence that are of its class."""
    search = NearestNeighbors(n_neighbors=k + 1, metric=metric).fit(vectors)
    neighbours = search.kneighbors(vectors, return_distance=False)[:, 1:]  # without itself
    return (y_test[neighbours] == y_test[:, np.newaxis]).mean(1)


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
ax.text(7.6, 1.02, "never seen in training")
ax.set(
    xticks=digits, xlabel="digit", ylabel="share of the 10 nearest that are the same", ylim=(0, 1.1)
)
ax.set_title("Finding the same digit again")
ax.legend(loc="lower left")
plt.show()
