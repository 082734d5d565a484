"""The demonstration `python -m sklearn_cls`."""

from types import SimpleNamespace

import joblib
import numpy as np
import pandas as pd
import pytest

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls import __main__ as demo

QUICK = {"strategies": ("zeros", "learned"), "depths": (1,), "max_epochs": 2, "d_model": 16}


@pytest.fixture(scope="module", params=["quick", pytest.param("full", marks=pytest.mark.slow)])
def run(request, tmp_path_factory):
    """Run the demonstration: two small candidates in one process, or all of them."""
    folder = tmp_path_factory.mktemp("demo")
    is_quick = request.param == "quick"
    with pytest.MonkeyPatch.context() as patch:
        if is_quick:
            patch.setattr(joblib, "cpu_count", lambda: 1)
        search, accuracy = demo.main(folder, **(QUICK if is_quick else {}))
    results = pd.read_csv(folder / "results.csv")
    return SimpleNamespace(
        folder=folder, search=search, accuracy=accuracy, results=results, is_quick=is_quick
    )


def test_results_have_one_row_for_each_candidate(run):
    strategies = {"zeros", "learned"} if run.is_quick else set(demo.STRATEGIES)
    assert set(run.results["cls_strategy"]) == strategies
    assert set(run.results["depth"]) == ({1} if run.is_quick else {1, 2, 4})
    means = run.results["mean_test_score"]
    assert np.allclose(means, run.search.cv_results_["mean_test_score"])
    folds = run.results[[f"split{i}_test_score" for i in range(3)]]
    assert np.allclose(folds.mean(axis=1), means)


def test_saved_model_equals_the_best_one(run):
    model = CLSTransformerClassifier.load(run.folder / "model.safetensors")
    assert model.get_params() == run.search.best_estimator_.get_params()
    X, _ = demo.load_digit_sequences()
    expected = run.search.best_estimator_.predict_proba(X[:20])
    assert np.allclose(model.predict_proba(X[:20]), expected, atol=1e-6)
    assert run.is_quick or run.accuracy >= 0.97


def test_figure_shows_the_scores_and_the_attention(run):
    assert (run.folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    X, y = demo.load_digit_sequences()
    scores, *digits = demo.draw(run.search, X, y).axes
    assert scores.get_xlabel() == "depth (blocks)"
    table = run.results.pivot(index="cls_strategy", columns="depth", values="mean_test_score")
    expected = table.loc[[name for name in demo.STRATEGIES if name in table.index]]
    assert [text.get_text() for text in scores.get_legend().get_texts()] == list(expected.index)
    assert np.allclose([line[0].get_ydata() for line in scores.containers], expected)
    assert [ax.get_title() for ax in digits] == [str(digit) for digit in range(10)]
    attention = run.search.best_estimator_.cls_attention(X[y == 3])[:, -1].mean((0, 1))
    widths = np.array([bar.get_width() for bar in digits[3].patches])
    assert np.allclose(widths / widths.sum(), attention / attention.sum(), atol=1e-5)


@pytest.fixture
def results():
    """Return scores of all strategies at two depths."""
    means = {
        "random": {1: 0.50, 4: 0.93},
        "zeros": {1: 0.80, 4: 0.94},
        "fixed": {1: 0.89, 4: 0.96},
        "learned": {1: 0.90, 4: 0.95},
    }
    rows = [
        {"cls_strategy": name, "depth": depth, "mean_test_score": mean, "std_test_score": 0.01}
        for name, means_of_strategy in means.items()
        for depth, mean in means_of_strategy.items()
    ]
    return pd.DataFrame(rows)


def test_summary_ranks_the_strategies_at_the_smallest_and_the_largest_depth(results):
    assert demo.summarize(results) == (
        "Ranking of the [CLS] strategies: at depth 1, learned is ahead of fixed by 1.0, of zeros "
        "by 10.0, of random by 40.0 points; at depth 4, fixed is ahead of learned by 1.0, of zeros "
        "by 2.0, of random by 3.0 points. "
        "Differences below 2.0 points, twice the standard deviation over folds, are not conclusive."
    )


def test_table_has_one_row_for_each_strategy(results):
    lines = demo.format_table(results).splitlines()
    assert [line.split()[0] for line in lines[2:]] == list(demo.STRATEGIES)
    assert lines[2].split() == "learned 0.900 ± 0.010 0.950 ± 0.010".split()
