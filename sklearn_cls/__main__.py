"""`python -m sklearn_cls`: which value should the [CLS] token have? A grid search on real data.

Searches CLS strategy x depth on scikit-learn's digits, read as 8 steps (rows) of 8 features
(pixels), prints what it found, and writes a figure, a table and the best model to `demo/`.
"""

import time
from pathlib import Path

import joblib
import numpy as np
import sklearn
import skorch
import torch
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split

from sklearn_cls import CLSTransformerClassifier, StrategyDisplay, __version__
from sklearn_cls.datasets import load_digit_sequences

STRATEGIES = ("learned", "zeros", "fixed", "random")
DEPTHS = (1, 2, 4)
BLUE = "#0072B2"


def main(folder="demo", depths=DEPTHS, **params):
    """Run the demonstration and return the fitted search and its test accuracy."""
    import pandas as pd

    start = time.perf_counter()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    X, y = load_digit_sequences()
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.25, stratify=y, random_state=0
    )
    n_jobs = min(2, joblib.cpu_count())
    print(
        f"sklearn_cls {__version__}, torch {torch.__version__}, scikit-learn "
        f"{sklearn.__version__}, skorch {skorch.__version__}, {n_jobs} processes\n"
        f"Digits: {len(X_train)} sequences of 8 rows x 8 pixels to learn from, {len(X_test)} to "
        f"test on. Searching {len(STRATEGIES)} strategies x {len(depths)} depths, 3 folds each."
    )
    # A plain linear embedding: all that mixes the rows is the encoder, and [CLS].
    plain = {"embedding": "linear", "augment": False, "max_epochs": 24, "batch_size": 64}
    clf = CLSTransformerClassifier(**{**plain, "random_state": 0, **params})
    search = GridSearchCV(
        clf,
        {"cls_strategy": STRATEGIES, "depth": depths},
        cv=StratifiedKFold(3, shuffle=True, random_state=0),
        n_jobs=n_jobs,
    )
    show_progress(search)
    search.fit(X_train, y_train)
    accuracy = search.score(X_test, y_test)

    results = pd.DataFrame(search.cv_results_)
    results = results.rename(columns=lambda name: name.removeprefix("param_"))
    columns = ["cls_strategy", "depth", "mean_test_score", "std_test_score"]
    results = results[[*columns, *(f"split{i}_test_score" for i in range(3)), "mean_fit_time"]]
    results.to_csv(folder / "results.csv", index=False)
    search.best_estimator_.save(folder / "model.safetensors")
    draw(search, X_test, y_test).savefig(folder / "figure.png", dpi=150)

    print(f"\nAccuracy in cross-validation, mean ± deviation over folds:\n\n{table(results)}\n")
    best = search.best_params_
    print(
        f"Best: cls_strategy={best['cls_strategy']!r}, depth={best['depth']}; test accuracy "
        f"{accuracy:.3f}.\n\n{conclusion(results)}\n\n"
        f"Wrote {folder}/figure.png, {folder}/results.csv and {folder}/model.safetensors in "
        f"{time.perf_counter() - start:.0f} s."
    )
    return search, accuracy


def show_progress(search):
    """Put scikit-learn's progress bar on the search, where there is one."""
    try:
        from sklearn.callback import ProgressBar
    except ImportError:  # scikit-learn < 1.9
        search.verbose = 2
    else:
        search.set_callbacks(ProgressBar(max_propagation_depth=0))


def table(results):
    """Return the scores as text, a row a strategy and a column a depth."""
    cells = results.assign(
        cell=[
            f"{mean:.3f} ± {std:.3f}"
            for mean, std in zip(results["mean_test_score"], results["std_test_score"], strict=True)
        ]
    )
    return (
        cells.pivot(index="cls_strategy", columns="depth", values="cell")
        .loc[list(STRATEGIES)]
        .to_string()
    )


def conclusion(results):
    """Return in a sentence what the table says about the value of [CLS]."""
    means = results.pivot(index="cls_strategy", columns="depth", values="mean_test_score")
    noise = 100 * results["std_test_score"].mean()

    def ranking(depth):
        first, *others = means[depth].sort_values(ascending=False).items()
        gaps = [f"{name} by {100 * (first[1] - mean):.1f}" for name, mean in others]
        return f"at depth {depth} {first[0]} leads {', '.join(gaps)} points"

    depths = dict.fromkeys((means.columns.min(), means.columns.max()))
    return (
        f"The value of [CLS]: {'; '.join(map(ranking, depths))}; less than {2 * noise:.1f} points, "
        "twice the deviation over folds, says nothing."
    )


def draw(search, X, y):
    """Return the figure: accuracy by strategy and depth, and which rows [CLS] reads."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.8), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(5, 6))
    StrategyDisplay.from_estimator(search, ax=left.subplots())

    clf = search.best_estimator_
    attention = clf.cls_attention(X)[:, -1].mean(1)  # (n, 8): last block, mean of heads
    of_digits = [attention[y == digit].mean(0) for digit in range(10)]
    right.suptitle("What [CLS] reads: attention to each row of the mean digit")
    for digit, ax in enumerate(right.subplots(2, 5).flat):
        ax.imshow(X[y == digit].mean(0), cmap="Greys")
        widths = 5 * of_digits[digit] / np.max(of_digits)
        ax.barh(np.arange(8), widths, left=7.8, height=0.8, color=BLUE)
        ax.set(xlim=(-0.5, 13), xticks=[], yticks=[], title=str(digit))
        ax.spines[:].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
