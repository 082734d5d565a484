"""
Grid search with a progress bar
===============================

Which strategy for [CLS], and how deep a network? This search tries both, with two learning rates
for each: a shared one would favour whichever candidate it happens to suit.
"""

# %%
# A progress bar of scikit-learn (1.9 or newer) shows how far the search is. In a terminal or a
# notebook it moves; here only its end is shown.

import matplotlib.pyplot as plt
from sklearn.base import clone
from sklearn.callback import ProgressBar
from sklearn.model_selection import GridSearchCV, train_test_split

from sklearn_cls import CLSTransformerClassifier, StrategyDisplay, TrainingDisplay
from sklearn_cls.datasets import load_digit_sequences

X, y = load_digit_sequences()
X_train, X_test, y_train, y_test = train_test_split(
    X, y, train_size=600, stratify=y, random_state=0
)
clf = CLSTransformerClassifier(
    embedding="linear", augment=False, d_model=32, n_heads=2, batch_size=64, max_epochs=15,
    random_state=0,
)  # fmt: skip
strategies = ["learned", "zeros", "fixed", "random"]
grid = {"cls_strategy": strategies, "depth": [1, 2], "lr": [5e-3, 1.5e-2]}
# With 0 there is one bar for the whole search, with None one for every epoch of every fit too.
search = GridSearchCV(clf, grid, cv=3).set_callbacks(ProgressBar(max_propagation_depth=0))
search.fit(X_train, y_train)
search.best_params_, search.score(X_test, y_test)

# %%
# The accuracy of each candidate in cross-validation, at the better of the two learning rates. Bars
# are the standard deviation over folds, which is not a test: :doc:`/the_answer` compares the
# strategies on ten problems, and tests the differences.

StrategyDisplay.from_estimator(search)

# %%
# A search keeps the best model only. To see how the other strategies train, fit them again with the
# best parameters. A curve that still falls at its end asks for more epochs, one that jumps for a
# lower learning rate.

best = search.best_estimator_
fits = {
    name: clone(best).set_params(cls_strategy=name).fit(X_train, y_train) for name in strategies
}
TrainingDisplay.from_estimator(fits)
plt.show()
# sphinx_gallery_thumbnail_number = 2
