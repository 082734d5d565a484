"""The declared dependencies, their pinned versions, and the metadata of a release."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import sklearn_cls
from sklearn_cls._version import DOCUMENTATION

ROOT = Path(__file__).parents[1]
PACKAGE = Path(sklearn_cls.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = {"scikit-learn": "sklearn"}  # packages whose module has another name


def minimum_versions(*extras):
    """Return the minimum version of each dependency in pyproject.toml, by package name."""
    lists = [PROJECT["optional-dependencies"][extra] for extra in extras]
    requirements = sum(lists, start=PROJECT["dependencies"])
    matches = [re.match(r"([\w-]+)[>=]=([\d.]+)", requirement) for requirement in requirements]
    return dict(match.groups() for match in matches if match)


def pinned_versions(name):
    """Return the versions that a constraints file pins, by package name."""
    return dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / name).read_text(), re.MULTILINE))


def imported_packages(path):
    """Yield the top-level package of every import in a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.partition(".")[0]


def test_all_dependencies_have_a_pinned_version():
    assert minimum_versions(*PROJECT["optional-dependencies"]).keys() <= (
        pinned_versions("constraints.txt").keys()
    )


def test_minimum_versions_are_the_ones_that_test_floor_installs():
    minimum = minimum_versions("plot", "test")
    del minimum["torch"]  # test-floor has no older build of torch to install
    pinned = pinned_versions("constraints-floor.txt")
    for name, version in minimum.items():
        assert f"{pinned[name]}.0".startswith(f"{version}."), name


def test_package_imports_its_dependencies_and_nothing_undeclared():
    imported = {name for path in PACKAGE.rglob("*.py") for name in imported_packages(path)}
    third_party = imported - sys.stdlib_module_names - {"sklearn_cls"}
    required = {MODULES.get(name, name) for name in minimum_versions()}
    allowed = {MODULES.get(name, name) for name in minimum_versions("plot")}
    allowed |= {"awkward", "polars", "pyarrow"}  # imported if X is of these libraries
    allowed |= {"aeon", "dask", "distributed", "sktime"}  # imported by modules of these names
    allowed |= {"onnx", "onnxscript"}  # imported by export_onnx
    assert required <= third_party <= allowed


def test_citation_has_the_version_and_the_license_of_the_package():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {sklearn_cls.__version__}\n" in citation
    assert f"\nlicense: {PROJECT['license']}\n" in citation


def test_project_page_links_to_the_documentation():
    assert PROJECT["urls"]["Documentation"] == DOCUMENTATION
