"""
Grid search with a progress bar
===============================

This search compares strategies for [CLS] and depths, with two learning rates for each, because a
shared learning rate would favor the candidates that it happens to suit.
"""

# %%
# A progress bar of scikit-learn (1.9 or newer) shows the progress of the search. It is updated in a
# terminal or a notebook; here, only its final state is shown.

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
# With max_propagation_depth=0, there is one bar for the whole search; with None, each fit has a
# bar for its epochs, too.
search = GridSearchCV(clf, grid, cv=3).set_callbacks(ProgressBar(max_propagation_depth=0))
search.fit(X_train, y_train)
search.best_params_, search.score(X_test, y_test)

# %%
# The figure shows the accuracy of each candidate in cross-validation, at the better of the two
# learning rates. The error bars are standard deviations over folds, and do not show which
# differences are significant: the :doc:`study of [CLS] </the_answer>` compares the strategies on
# ten problems and tests the differences.

StrategyDisplay.from_estimator(search)

# %%
# A search keeps only the best model. To compare the training of the other strategies, fit them
# again with the best parameters. If a loss curve still falls at the end, train for more epochs; if
# it jumps, lower the learning rate.

best = search.best_estimator_
fits = {
    name: clone(best).set_params(cls_strategy=name).fit(X_train, y_train) for name in strategies
}
TrainingDisplay.from_estimator(fits)
plt.show()
# sphinx_gallery_thumbnail_number = 2
