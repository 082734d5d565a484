"""Where diagrams of estimators link to; the links between pages are checked in a browser."""

import html
import re
from urllib.parse import unquote

import numpy as np
import pytest
import sklearn
from sklearn.utils.fixes import parse_version

import sklearn_cls
from sklearn_cls import CLSTransformerClassifier, datasets
from sklearn_cls._version import DOCUMENTATION
from tests.conftest import DOCS, small

PAGE = "generated/sklearn_cls.CLSTransformerClassifier.html"


def pages():
    """Return the pages that autosummary makes of docs/api.rst."""
    module = None
    for line in (DOCS / "api.rst").read_text().splitlines():
        if match := re.match(r"\.\. (?:currentmodule|automodule):: (\S+)", line):
            module = match[1]
        elif match := re.fullmatch(r"   (\w+)", line):
            yield f"generated/{module}.{match[1]}.html"


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


def test_the_numbers_of_the_answer_are_those_of_its_tables():
    tables = "".join(
        (DOCS / "cls_value" / f"{name}.csv").read_text() for name in ("expectations", "zeros")
    )
    found = re.findall(r"[+-]\d+\.\d \([^)]*\)|\d+\.\d to \d+\.\d %", in_short())
    assert len(found) >= 5
    assert [text for text in found if text not in tables] == []
    assert len(re.findall(r"\d\.\d", in_short())) == len(re.findall(r"\d\.\d", "".join(found)))
    ahead, of_all = re.search(r"ahead of learned on (\d+) of (\d+) problems", in_short()).groups()
    gaps = (DOCS / "cls_value" / "differences.csv").read_text()
    wins, ties, losses = re.search(r"^default,max,.*,(\d+) / (\d+) / (\d+),", gaps, re.M).groups()
    assert (int(ahead), int(of_all)) == (int(wins), int(wins) + int(ties) + int(losses))
