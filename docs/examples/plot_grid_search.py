"""
Grid search with a progress bar
===============================

Which strategy for [CLS], and how deep? A search over both is a line of code; this one also shows
how far it is, and keeps how each candidate was trained. The step size is searched too: a shared one
would favour whatever it happens to suit.
"""

# %%
# Scikit-learn's callbacks (1.9 or newer) see every epoch of every candidate. The progress bar goes
# to the search; the monitor to the classifier. In a terminal or a notebook the bar moves; here only
# its end is shown.

import matplotlib.pyplot as plt
from sklearn.callback import ProgressBar
from sklearn.model_selection import GridSearchCV, train_test_split

from sklearn_cls import CLSTransformerClassifier, StrategyDisplay, TrainingDisplay
from sklearn_cls.datasets import load_digit_sequences

X, y = load_digit_sequences()
X_train, X_test, y_train, y_test = train_test_split(
    X, y, train_size=600, stratify=y, random_state=0
)
monitor = TrainingDisplay.monitor()
clf = CLSTransformerClassifier(
    embedding="linear", augment=False, d_model=32, n_heads=2, batch_size=64, max_epochs=15,
    random_state=0,
).set_callbacks(monitor)  # fmt: skip
# 0 shows a bar of the whole search, None one of every epoch of every fit as well.
progress = ProgressBar(max_propagation_depth=0)
grid = {
    "cls_strategy": ["learned", "zeros", "fixed", "random"], "depth": [1, 2], "lr": [5e-3, 1.5e-2],
}  # fmt: skip
search = GridSearchCV(clf, grid, cv=3).set_callbacks(progress)
search.fit(X_train, y_train)
search.best_params_, search.score(X_test, y_test)

# %%
# How they were trained, each the mean of three folds. A curve that is still falling at its end asks
# for more epochs, one that jumps for a smaller step size.

TrainingDisplay.from_estimator(search, monitor=monitor)

# %%
# What they reach, each at the better of the two step sizes. Bars are the deviation over folds,
# which is no test: :doc:`/the_answer` asks the same of ten problems, and tests the differences.

StrategyDisplay.from_estimator(search)
plt.show()
# sphinx_gallery_thumbnail_number = 2
