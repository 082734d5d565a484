import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FLOOR = r"([\w-]+)>=([\d.]+)"
IMPORTED_AS = {"scikit-learn": "sklearn"}


def floors(*extras):
    """Return what is promised, by name."""
    lists = [PROJECT["optional-dependencies"][extra] for extra in extras]
    items = sum(lists, start=PROJECT["dependencies"])
    return dict(match.groups() for item in items if (match := re.match(FLOOR, item)))


def pins(name):
    return dict(re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / name).read_text(), re.MULTILINE))


def imports(path):
    """Return what a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.partition(".")[0]


def test_every_floor_but_that_of_torch_is_tested():
    promised = floors("plot", "test")
    del promised["torch"]  # whose pin is the only build there is to test with
    tested = pins("constraints-floor.txt")
    for name, version in promised.items():
        assert f"{tested[name]}.0".startswith(f"{version}."), name


def test_what_is_imported_is_what_is_declared():
    imported = {name for path in (ROOT / "sklearn_cls").glob("*.py") for name in imports(path)}
    declared = {IMPORTED_AS.get(name, name) for name in floors()}
    plotting = {IMPORTED_AS.get(name, name) for name in floors("plot")}
    others = imported - sys.stdlib_module_names - {"sklearn_cls"}
    assert declared <= others <= plotting
