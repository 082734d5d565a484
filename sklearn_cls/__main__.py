"""`python -m sklearn_cls`: a grid search over the value of the [CLS] token and the depth.

The data are scikit-learn's digits, read as 8 steps (image rows) of 8 features (pixels). The results
are printed; a figure, a table and the best model are written to `demo/`.
"""

import time
from importlib.metadata import version
from pathlib import Path

import joblib
import numpy as np
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split

from sklearn_cls import CLSTransformerClassifier, StrategyDisplay, __version__
from sklearn_cls.datasets import load_digit_sequences

STRATEGIES = ("learned", "zeros", "fixed", "random")
DEPTHS = (1, 2, 4)
N_FOLDS = 3
BLUE = "#0072B2"


def main(folder="demo", strategies=STRATEGIES, depths=DEPTHS, **params):
    """Run the demonstration; return the fitted search and its test accuracy.

    `params` override parameters of the classifier.
    """
    start = time.perf_counter()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    X, y = load_digit_sequences()
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.25, stratify=y, random_state=0
    )
    search = make_search(strategies, depths, **params)
    versions = [f"{name} {version(name)}" for name in ("torch", "scikit-learn", "skorch")]
    print(
        f"sklearn_cls {__version__}, {', '.join(versions)}, {search.n_jobs} processes\n"
        f"Digits: {len(X_train)} training and {len(X_test)} test sequences of 8 rows x 8 pixels.\n"
        f"Searching {len(strategies)} strategies x {len(depths)} depths with {N_FOLDS} folds."
    )
    search.fit(X_train, y_train)
    accuracy = search.score(X_test, y_test)
    results = read_results(search)

    results.to_csv(folder / "results.csv", index=False)
    search.best_estimator_.save(folder / "model.safetensors")
    draw(search, X_test, y_test).savefig(folder / "figure.png", dpi=150)
    best = search.best_params_
    print(
        "\nAccuracy in cross-validation, mean ± standard deviation over folds:\n\n"
        f"{format_table(results)}\n\n"
        f"Best: cls_strategy={best['cls_strategy']!r}, depth={best['depth']}; test accuracy "
        f"{accuracy:.3f}.\n\n{summarize(results)}\n\n"
        f"Wrote {folder}/figure.png, {folder}/results.csv and {folder}/model.safetensors in "
        f"{time.perf_counter() - start:.0f} s."
    )
    return search, accuracy


def make_search(strategies, depths, **params):
    """Return the unfitted grid search, with a progress bar."""
    # With the linear embedding, only the encoder mixes the rows of an image.
    defaults = {"embedding": "linear", "augment": False, "max_epochs": 24, "batch_size": 64}
    search = GridSearchCV(
        CLSTransformerClassifier(**{**defaults, "random_state": 0, **params}),
        {"cls_strategy": strategies, "depth": depths},
        cv=StratifiedKFold(N_FOLDS, shuffle=True, random_state=0),
        n_jobs=min(2, joblib.cpu_count()),
    )
    try:
        from sklearn.callback import ProgressBar
    except ImportError:  # scikit-learn < 1.9
        search.verbose = 2
    else:
        search.set_callbacks(ProgressBar(max_propagation_depth=0))
    return search


def read_results(search):
    """Return scores and fit times of all candidates as a data frame."""
    import pandas as pd

    results = pd.DataFrame(search.cv_results_)
    results = results.rename(columns=lambda name: name.removeprefix("param_"))
    folds = [f"split{i}_test_score" for i in range(search.n_splits_)]
    return results[
        ["cls_strategy", "depth", "mean_test_score", "std_test_score", *folds, "mean_fit_time"]
    ]


def format_table(results):
    """Return the scores as text with one row per strategy and one column per depth."""
    means, stds = results["mean_test_score"], results["std_test_score"]
    cells = [f"{mean:.3f} ± {std:.3f}" for mean, std in zip(means, stds, strict=True)]
    table = results.assign(cell=cells).pivot(index="cls_strategy", columns="depth", values="cell")
    return table.loc[[name for name in STRATEGIES if name in table.index]].to_string()


def summarize(results):
    """Return the ranking of the strategies at the smallest and the largest depth as text."""
    means = results.pivot(index="cls_strategy", columns="depth", values="mean_test_score")

    def rank(depth):
        (best, best_mean), *others = means[depth].sort_values(ascending=False).items()
        gaps = [f"of {name} by {100 * (best_mean - mean):.1f}" for name, mean in others]
        return f"at depth {depth}, {best} is ahead {', '.join(gaps)} points"

    depths = dict.fromkeys((means.columns.min(), means.columns.max()))
    two_stds = 2 * 100 * results["std_test_score"].mean()
    return (
        f"Ranking of the [CLS] strategies: {'; '.join(map(rank, depths))}. Differences below "
        f"{two_stds:.1f} points, twice the standard deviation over folds, are not conclusive."
    )


def draw(search, X, y):
    """Return a figure of accuracy by strategy and depth, and of the attention to each row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.8), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(5, 6))
    StrategyDisplay.from_estimator(search, ax=left.subplots())

    # Attention of the last block, mean over heads: (B, T)
    attention = search.best_estimator_.cls_attention(X)[:, -1].mean(axis=1)
    right.suptitle("Attention of [CLS] to each row of the digits")
    for digit, ax in enumerate(right.subplots(2, 5).flat):
        mean_attention = attention[y == digit].mean(axis=0)
        ax.imshow(X[y == digit].mean(axis=0), cmap="Greys")
        widths = 5 * mean_attention / mean_attention.max()
        ax.barh(np.arange(8), widths, left=7.8, height=0.8, color=BLUE)
        ax.set(xlim=(-0.5, 13), xticks=[], yticks=[], title=str(digit))
        ax.spines[:].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
