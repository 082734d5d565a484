"""Where diagrams of estimators link to; the links between pages are checked in a browser."""

import html
import re
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.utils.fixes import parse_version

import sklearn_cls
from sklearn_cls import CLSTransformerClassifier, datasets
from sklearn_cls._version import DOCUMENTATION
from tests.helpers import DOCS, small

PAGE = "generated/sklearn_cls.CLSTransformerClassifier.html"


def pages():
    """Return the pages that autosummary makes of docs/api.rst."""
    module = None
    for line in (DOCS / "api.rst").read_text().splitlines():
        if match := re.match(r"\.\. (?:currentmodule|automodule):: (\S+)", line):
            module = match[1]
        elif match := re.fullmatch(r"   (\w+)", line):
            yield f"generated/{module}.{match[1]}.html"


def test_every_example_has_its_place_and_ends_in_a_figure():
    order = re.findall(r'"(plot_\w+\.py)"', (DOCS / "_sphinx.py").read_text())
    scripts = {path.name: path.read_text() for path in (DOCS / "examples").glob("plot_*.py")}
    assert sorted(order) == sorted(scripts)
    for name, text in scripts.items():
        last = text.rsplit("# %%", 1)[1]
        assert re.search(r"plt\.show\(\)|Display\.from_", last), name


def links(estimator):
    return [html.unescape(link) for link in re.findall(r'href="([^"]+)"', estimator._repr_html_())]


def test_all_that_is_public_has_a_page():
    public = {f"generated/sklearn_cls.{name}.html" for name in sklearn_cls.__all__}
    public |= {f"generated/sklearn_cls.datasets.{name}.html" for name in datasets.__all__}
    assert set(pages()) == public - {"generated/sklearn_cls.__version__.html"}


@pytest.mark.parametrize("fitted", [False, True])
def test_the_diagram_links_to_a_page_that_exists(fitted, data):
    estimator = small().fit(*data) if fitted else small()
    address = links(estimator)[0].partition("#")[0]
    assert PAGE in set(pages())
    assert address == DOCUMENTATION + PAGE


@pytest.mark.skipif(
    parse_version(sklearn.__version__) < parse_version("1.8"), reason="scikit-learn has none"
)
def test_the_diagram_links_to_every_parameter():
    fragments = [unquote(link.partition("#:~:text=")[2]) for link in links(small())]
    entries = [fragment.replace(",-", " : ", 1) for fragment in fragments if fragment]
    assert [entry.partition(" : ")[0] for entry in sorted(entries)] == sorted(small().get_params())
    lines = [line.strip() for line in CLSTransformerClassifier.__doc__.splitlines()]
    assert np.isin(entries, lines).all()


STRATEGIES = ("learned", "zeros", "fixed", "random")


def differences_of(table):
    """Return the numbers that a table gives for each strategy, and their order."""
    return re.findall(r'`"(\w+)"`: .*?([-+]\S+ \([^)]*\)|0 \(reference\))', table, re.DOTALL)


def as_text(row):
    """Return a difference and its confidence interval as the documentation writes them."""
    return f"{row['points']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f})"


# That these tables follow from the committed runs is tested in test_study.py.
@pytest.fixture(scope="module")
def differences():
    return pd.read_csv(DOCS / "cls_value" / "differences.csv").set_index(
        ["setting", "against learned"]
    )


@pytest.mark.parametrize("page", ["README.md", "docs/the_answer.rst"])
def test_table_of_the_answer_has_the_numbers_of_the_study(page, differences):
    average = differences.loc["mean of all"]
    expected = {name: as_text(average.loc[name]) for name in STRATEGIES[1:]}
    found = differences_of((DOCS.parent / page).read_text())
    assert len(found) == len(STRATEGIES)
    assert dict(found) == {"learned": "0 (reference)", **expected}


def test_details_of_the_answer_have_the_numbers_of_the_study(differences):
    page = " ".join((DOCS / "the_answer.rst").read_text().split())
    opening, details = page.partition(".. list-table::")[0], page.partition("In more detail")[2]
    details = details.partition("The study compares")[0]
    average = differences.loc["mean of all"]
    again = pd.read_csv(DOCS / "cls_value" / "again.csv").set_index(["problem", "against learned"])
    expected = [
        ("zeros", as_text(differences.loc["default", "zeros"])),
        ("mean", as_text(average.loc["mean"])),
        ("max", as_text(average.loc["max"])),
        ("max", as_text(again.loc["order", "max"])),
    ]
    assert re.findall(r"(\w+) - learned = (\S+ \([^)]*\))", details) == expected
    flips = pd.read_csv(DOCS / "cls_value" / "redrawn.csv")
    mean, most = flips["flipped, mean"], flips["flipped, most"].max()
    assert f"{mean.min():.1f} to {mean.max():.1f} % of the predictions change" in details
    assert f"up to {most:.1f} % on one problem" in details
    n_decimals = 3 * len(expected) + 3  # No other number is quoted.
    assert len(re.findall(r"\d\.\d", details)) == n_decimals
    assert f"costs {-average.loc['random', 'points']:.0f} points of accuracy" in opening
    assert f"Zeros cost {-average.loc['zeros', 'points']:.0f} points" in opening


def test_no_strategy_takes_more_time_than_another():
    assert "None of the four values takes more time" in (DOCS / "the_answer.rst").read_text()
    cost = pd.read_csv(DOCS / "cls_value" / "cost.csv")
    assert cost[list(STRATEGIES)].stack().between(0.95, 1.05).all()


def test_readme_is_short():
    assert len((DOCS.parent / "README.md").read_text().split()) <= 500
