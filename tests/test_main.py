"""The demonstration, and the pages a newcomer types from."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls import __main__ as demo

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run the demonstration once, at its largest depth."""
    folder = tmp_path_factory.mktemp("demo")
    search, accuracy = demo.main(folder, depths=(4,))
    return folder, search, accuracy


def test_the_demonstration_writes_a_table_a_figure_and_a_model(run):
    folder, search, accuracy = run
    table = pd.read_csv(folder / "results.csv")
    assert set(table["cls_strategy"]) == {"learned", "zeros", "fixed", "random"}
    assert np.allclose(table["mean_test_score"], search.cv_results_["mean_test_score"])
    folds = table[[f"split{i}_test_score" for i in range(3)]]
    assert np.allclose(folds.mean(axis=1), table["mean_test_score"])
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    model = CLSTransformerClassifier.load(folder / "model.safetensors")
    assert model.get_params() == search.best_estimator_.get_params()
    assert accuracy >= 0.97


def test_the_figure_shows_the_table_and_the_attention(run):
    folder, search, _ = run
    X, y = demo.load_digit_sequences()
    results = pd.read_csv(folder / "results.csv")
    figure = demo.draw(search, X, y)
    accuracy, *digits = figure.axes
    assert accuracy.get_xlabel() == "depth (blocks)"
    assert [t.get_text() for t in accuracy.get_legend().get_texts()] == list(demo.STRATEGIES)
    drawn = [line[0].get_ydata()[0] for line in accuracy.containers]
    expected = results.set_index("cls_strategy")["mean_test_score"][list(demo.STRATEGIES)]
    assert np.allclose(drawn, expected)
    assert [ax.get_title() for ax in digits] == [str(digit) for digit in range(10)]
    attention = search.best_estimator_.cls_attention(X[y == 3])[:, -1].mean((0, 1))
    widths = np.array([bar.get_width() for bar in digits[3].patches])
    assert np.allclose(widths / widths.sum(), attention / attention.sum(), atol=1e-5)


def results(means, deviation=0.01):
    rows = [
        {"cls_strategy": s, "depth": d, "mean_test_score": m, "std_test_score": deviation}
        for s, of_strategy in means.items()
        for d, m in of_strategy.items()
    ]
    return pd.DataFrame(rows)


def test_the_conclusion_says_what_the_table_shows():
    table = results(
        {
            "learned": {1: 0.90, 4: 0.95},
            "zeros": {1: 0.80, 4: 0.94},
            "fixed": {1: 0.89, 4: 0.96},
            "random": {1: 0.50, 4: 0.93},
        }
    )
    assert demo.conclusion(table) == (
        "The value of [CLS]: at depth 1 learned leads fixed by 1.0, zeros by 10.0, random by 40.0 "
        "points; at depth 4 fixed leads learned by 1.0, zeros by 2.0, random by 3.0 points; less "
        "than 2.0 points, twice the deviation over folds, says nothing."
    )
    assert "learned       0.900 ± 0.010" in demo.table(table)


def test_every_version_is_pinned_that_the_commands_install():
    pins = (ROOT / "constraints.txt").read_text()
    assert re.search(r"^torch==2\.13\.0$", pins, re.MULTILINE)
    project = (ROOT / "pyproject.toml").read_text()
    for name in re.findall(r'"([a-z-]+)[>=<]+[\d.]+"', project):
        if name != "setuptools":
            assert re.search(rf"^{name}==", pins, re.MULTILINE), name
