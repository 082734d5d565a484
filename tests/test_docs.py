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
from tests.conftest import DOCS, benchmark, small

report = benchmark("study_report")
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


def in_short():
    """Return the paragraph that answers the question for a reader in a hurry."""
    page = (DOCS / "the_answer.rst").read_text()
    return " ".join(re.search(r"admonition:: In short\n\n((?:   .+\n)+)", page)[1].split())


def test_the_readme_quotes_the_answer():
    lines = (DOCS.parent / "README.md").read_text().splitlines()
    assert " ".join(line[2:].strip() for line in lines if line.startswith("> ")) == in_short()


def test_the_numbers_of_the_answer_are_those_of_the_rows(report):
    runs = pd.read_csv(DOCS / "cls_value_runs.csv")
    average = report.differences(runs).set_index(["setting", "against learned"])
    order = report.again(runs).query("problem == 'order'").set_index("against learned")
    rows = [
        ("fixed", average.loc[(report.ALL, "fixed")]),
        ("random", average.loc[(report.ALL, "random")]),
        ("zeros", average.loc[(report.ALL, "zeros")]),
        ("zeros", average.loc[("default", "zeros")]),
        ("mean", average.loc[(report.ALL, "mean")]),
        ("max", average.loc[(report.ALL, "max")]),
        ("max", order.loc["max"]),
    ]
    expected = [
        f"{arm} - learned = {report.say(row[['points', 'low', 'high']])}" for arm, row in rows
    ]
    text = in_short()
    assert re.findall(r"\w+ - learned = \S+ \([^)]*\)", text) == expected
    flips = report.redrawn(runs)
    mean, most = flips["flipped, mean"], flips["flipped, most"].max()
    assert f"{mean.min():.1f} to {mean.max():.1f} % of the predictions" in text
    assert f"up to {most:.1f} % on one problem" in text
    assert len(re.findall(r"\d\.\d", text)) == 3 * len(expected) + 3
    assert "None of the four takes more time than another" in text
    of_four = report.cost(runs)[["learned", "zeros", "fixed", "random"]]
    assert of_four.stack().between(0.95, 1.05).all()
