"""The rules of the house: who may import whom, no dead options, no star imports."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

SOURCES = sorted(
    p
    for p in ROOT.rglob("*.py")
    if p.relative_to(ROOT).parts[0]
    in ("options", "models", "data", "util", "script", "train.py", "test.py", "api.py")
)
# room -> rooms of the project it may import from (its own included)
ALLOWED = {
    "util": {"util"},
    "util.metrics": {"util", "util.metrics"},
    "models.networks": {"models.networks", "util"},
    "models.losses": {"models.losses", "util"},
    "models": {"models", "models.networks", "models.losses", "util"},
    "data": {"data", "util"},
    "options": {
        "options", "models", "models.networks", "models.losses", "data", "util", "util.metrics",
    },
}  # fmt: skip
TOP = {"options", "models", "data", "util", "script", "tests", "train", "test", "api"}


def room(module: str) -> str:
    parts = module.split(".")
    if parts[0] in ("models", "util") and len(parts) > 1 and parts[1] in (
        "networks", "losses", "metrics",
    ):  # fmt: skip
        return ".".join(parts[:2])
    return parts[0]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in TOP}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downward_only(path):
    own = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if own not in ALLOWED:
        return  # entry points may import everything below them
    wrong = {name for name in imports(path) if room(name) not in ALLOWED[own]}
    if own == "util":  # the training run and its validation may use the metrics
        wrong = {name for name in wrong if room(name) != "util.metrics"}
    assert not wrong


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_star_imports_no_bare_except_no_eval(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert all(alias.name != "*" for alias in node.names)
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec")


@pytest.mark.parametrize(
    "path",
    [p for p in SOURCES if "networks" in p.parts or "losses" in p.parts or "util" in p.parts],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_options_stop_at_the_models_and_data_sets(path):
    names = {n.arg for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.arg)}
    assert "opt" not in names


def declared_options() -> dict[str, Path]:
    """Destination of every option of train.py and test.py, and where it is declared."""
    found = {}
    for path in SOURCES:
        if path.relative_to(ROOT).parts[0] not in ("options", "models", "data"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not ast.unparse(node.func).startswith(
                ("add", "group.add_argument", "parser.add_argument")
            ):
                continue
            flags = [
                a.value for a in node.args
                if isinstance(a, ast.Constant) and str(a.value).startswith("--")
            ]  # fmt: skip
            if not flags:
                continue
            dest = [k.value.value for k in node.keywords if k.arg == "dest"]
            found[dest[0] if dest else flags[0].lstrip("-")] = path
    return found


def test_every_declared_option_has_a_reader():
    text = "\n".join(p.read_text() for p in SOURCES)
    readers = set(re.findall(r"(?:opt|options|settings|args)\.(\w+)", text))
    readers |= set(re.findall(r"getattr\(opt, \"(\w+)\"", text))
    # read as vars(opt) by the option printer, or through the parser itself
    dead = {name for name in declared_options() if name not in readers}
    assert not dead


def test_train_and_test_are_tables_of_contents():
    assert len((ROOT / "train.py").read_text().splitlines()) <= 90
    assert len((ROOT / "test.py").read_text().splitlines()) <= 80


def test_files_and_functions_stay_small():
    long = {}
    for path in SOURCES:
        text = path.read_text()
        if len(text.splitlines()) > 320:
            long[str(path.relative_to(ROOT))] = len(text.splitlines())
    assert not long
