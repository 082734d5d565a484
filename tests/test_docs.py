"""The documentation: its links, numbers and messages. `docs/check_pages.py` checks the pages."""

import ast
import html
import re
import runpy
import zlib
from pathlib import Path
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

PACKAGE = Path(sklearn_cls.__file__).parent  # not the source tree if a wheel is tested
PAGE = "generated/sklearn_cls.CLSTransformerClassifier.html"


def pages():
    """Return the pages that autosummary generates from docs/api.rst."""
    module = None
    for line in (DOCS / "api.rst").read_text().splitlines():
        if match := re.match(r"\.\. (?:currentmodule|automodule):: (\S+)", line):
            module = match[1]
        elif match := re.fullmatch(r"   (\w+)", line):
            yield f"generated/{module}.{match[1]}.html"


def test_every_example_is_in_the_gallery_order_and_ends_with_a_figure():
    order = re.findall(r'"(plot_\w+\.py)"', (DOCS / "_sphinx.py").read_text())
    scripts = {path.name: path.read_text() for path in (DOCS / "examples").glob("plot_*.py")}
    assert sorted(order) == sorted(scripts)
    for name, text in scripts.items():
        last = text.rsplit("# %%", 1)[1]
        assert re.search(r"plt\.show\(\)|Display\.from_", last), name


def links(estimator):
    return [html.unescape(link) for link in re.findall(r'href="([^"]+)"', estimator._repr_html_())]


def test_every_public_name_has_a_page():
    public = {f"generated/sklearn_cls.{name}.html" for name in sklearn_cls.__all__}
    public |= {f"generated/sklearn_cls.datasets.{name}.html" for name in datasets.__all__}
    public |= {
        f"generated/sklearn_cls.{n}.CLSTransformerClassifier.html" for n in ("aeon", "sktime")
    }
    assert set(pages()) == public - {"generated/sklearn_cls.__version__.html"}


@pytest.mark.parametrize("fitted", [False, True])
def test_the_diagram_links_to_a_page_that_exists(fitted, data):
    estimator = small().fit(*data) if fitted else small()
    address = links(estimator)[0].partition("#")[0]
    assert PAGE in set(pages())
    assert address == DOCUMENTATION + PAGE


@pytest.mark.skipif(
    parse_version(sklearn.__version__) < parse_version("1.8"), reason="needs scikit-learn 1.8"
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
    return pd.read_csv(DOCS / "cls_value" / "differences.csv").set_index(["setting", "arm"])


@pytest.mark.parametrize("page", ["README.md", "docs/the_answer.rst"])
def test_table_of_strategies_has_the_numbers_of_the_study(page, differences):
    average = differences.loc["mean of all settings"]
    expected = {name: as_text(average.loc[name]) for name in STRATEGIES[1:]}
    found = differences_of((DOCS.parent / page).read_text())
    assert len(found) == len(STRATEGIES)
    assert dict(found) == {"learned": "0 (reference)", **expected}


def test_numbers_in_the_text_of_the_study_page_equal_those_of_the_tables(differences):
    page = " ".join((DOCS / "the_answer.rst").read_text().split())
    opening, details = page.partition(".. list-table::")[0], page.partition("In more detail")[2]
    details = details.partition("The study compares")[0]
    average = differences.loc["mean of all settings"]
    again = pd.read_csv(DOCS / "cls_value" / "replications.csv").set_index(["problem", "arm"])
    expected = [
        ("zeros", as_text(differences.loc["default", "zeros"])),
        ("mean", as_text(average.loc["mean"])),
        ("max", as_text(average.loc["max"])),
        ("max", as_text(again.loc["order", "max"])),
    ]
    assert re.findall(r"(\w+) - learned = (\S+ \([^)]*\))", details) == expected
    flips = pd.read_csv(DOCS / "cls_value" / "redrawn.csv")
    mean, most = flips["changed, mean"], flips["changed, highest"].max()
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


def messages_of_the_library():
    """Return the constant parts of all strings in the source, one per line."""
    parts = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                parts.append(node.value)
    return "\n".join(parts)


def test_messages_on_the_troubleshooting_page_are_those_of_the_library():
    page = (DOCS / "troubleshooting.rst").read_text()
    quoted = re.findall(r"^``(.+)``$", page, re.MULTILINE)
    assert len(quoted) > 10
    messages = messages_of_the_library()
    missing = [
        part
        for text in quoted
        for part in re.split(r"\s?…\s?|(?<=The )train(?= loss)", text)
        if part not in messages
    ]
    assert not missing


def table(name, index):
    """Return a table of the documentation."""
    return pd.read_csv(DOCS / name).set_index(index)


def test_front_page_has_the_numbers_of_the_tables(differences):
    page = " ".join((DOCS / "index.rst").read_text().split())
    mean = table("defaults_problems.csv", "problem").loc["mean of the first eight"] * 100
    assert f"card:: {mean['default']:.0f} % accuracy" in page
    assert f"MiniRocket reaches {mean['minirocket']:.0f} %" in page
    assert f"a plain transformer {mean['textbook']:.0f} %" in page
    assert f"with dynamic time warping {mean['1nn']:.0f} %" in page
    speed = (
        table("speed.csv", "benchmark").query("baseline == 'skorch'").filter(like="fit ", axis=0)
    )
    ratios = speed["ratio"]
    assert f"card:: {ratios.min():.1f} to {ratios.max():.1f} times faster" in page
    long = speed.loc["fit 120x315x3, dropout 0.1"]
    assert f"{long['ours']:.1f} s instead of {long['theirs']:.1f} s for 120 sequences" in page
    assert (
        f"card:: {-differences.loc['mean of all settings', 'random']['points']:.1f} points" in page
    )


def test_the_measured_growth_is_at_most_that_which_the_page_states():
    exponents = pd.read_csv(DOCS / "growth.csv")[["fit_exponent", "predict_exponent"]]
    assert "at most with the power 1.2 of the size" in (DOCS / "speed.rst").read_text()
    assert exponents.notna().any().all()
    assert exponents.max(axis=None) <= 1.2


def test_the_page_on_clusters_says_what_its_tables_do():
    page = " ".join((DOCS / "cluster.rst").read_text().split())
    hours = table("cluster_hours.csv", "parameters").filter(like=" workers").loc["0.1 million"]
    assert "up to 128 CPU cores on Ethernet: more make a fit slower" in page
    assert hours.iloc[0].idxmin() == "128 workers"
    sums = table("sums.csv", ["network", "values", "dtype"])["median_ms"].loc[:, 30_000_000]
    assert "longer than in float32 unless the network is slower than 10 Gbit/s" in page
    assert sums["loopback", "bfloat16"] > sums["loopback", "float32"]
    assert sums["10 Gbit/s", "bfloat16"] > sums["10 Gbit/s", "float32"]
    assert sums["1 Gbit/s", "bfloat16"] < sums["1 Gbit/s", "float32"]
    equality = pd.read_csv(DOCS / "equality.csv")
    assert 'agree with those of one process to 1e-7 (``embedding="linear"``) or 5e-6' in page
    assert equality["loss_linear"].max() <= 1e-7
    assert equality["loss_conv"].max() <= 5e-6


def test_each_parameter_is_justified():
    page = (DOCS / "defaults.rst").read_text()
    section = page.partition("Why each parameter exists")[2].partition("\n---")[2]
    rows = re.findall(r"^   \* - `(\w+)`\n     - (.+)", section, re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(CLSTransformerClassifier().get_params())


@pytest.fixture(scope="module")
def inventories():
    """Return the text of each inventory by the name of the project."""
    return {
        path.stem: zlib.decompress(path.read_bytes().split(b"\n", 4)[4]).decode()
        for path in (DOCS / "_inventories").glob("*.inv")
    }


def test_inventories_are_up_to_date(inventories):
    written = runpy.run_path(str(DOCS / "_inventories" / "write.py"))
    assert set(inventories) == set(written["PROJECTS"])
    for project, (name, objects) in written["PROJECTS"].items():
        text = zlib.decompress(written["inventory"](name, objects).split(b"\n", 4)[4])
        assert inventories[project] == text.decode(), "run docs/_inventories/write.py"


def test_references_to_other_projects_are_in_the_inventories(inventories):
    sources = [*DOCS.glob("*.rst"), *DOCS.glob("examples/*.py")]
    sources += PACKAGE.rglob("*.py")
    known = {line.split()[0] for text in inventories.values() for line in text.splitlines()}
    role = re.compile(r":(?:class|func|meth|mod|exc|obj):`(?:[^`<]*<)?~?([\w.]+)>?`")
    see_also = re.compile(r"^ +((?:numpy|sklearn|skorch|torch)\.[\w.]+) : ", re.MULTILINE)
    unknown = {
        name
        for path in sources
        for name in role.findall(path.read_text()) + see_also.findall(path.read_text())
        if name.split(".")[0] in inventories and name not in known
    }
    assert not unknown
