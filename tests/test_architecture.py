"""The rules of the house: who may import whom, no dead options, no star imports, small pieces."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
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
# One arrow upward: the training run stops on the validation, which measures.
EXCEPTIONS = {("models/training.py", "models.training")}
# Networks and losses are what other projects may want to copy.
LAYER_2 = {"torch", "torchvision", "numpy", "lpips", "pytorch_fid", *sys.stdlib_module_names}
MAY_PRINT = ("options/", "script/", "test.py", "util/show/console.py", "util/errors.py")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def nodes(path: Path, kind: type | tuple[type, ...]) -> Iterator[ast.AST]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, kind))


def module_of(path: Path) -> str:
    return name_of(path).removesuffix(".py").replace("/", ".")


def in_rooms(*rooms: str) -> list[Path]:
    return [p for p in SOURCES if room(module_of(p)) in rooms]


def room(module: str) -> str:
    parts = module.split(".")
    if parts[0] in ("models", "util") and len(parts) > 1 and parts[1] in (
        "networks", "losses", "metrics",
    ):  # fmt: skip
        return ".".join(parts[:2])
    return parts[0]


def imports(path: Path) -> set[str]:
    """Every module that a file imports, and every name from a module, anywhere in it."""
    found = set()
    for node in nodes(path, (ast.Import, ast.ImportFrom)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
            assert not node.level, "relative imports hide where they lead"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_downward_only(path):
    found = {name for name in imports(path) if name.split(".")[0] in TOP}
    own = room(module_of(path))
    if own not in ALLOWED:
        assert own in ("script", "train", "test", "api")
        return  # entry points may import everything below them
    for name in found:
        if room(name) not in ALLOWED[own]:
            assert any(f"{name}.".startswith(f"{to}.") for where, to in EXCEPTIONS
                       if where == name_of(path)), name  # fmt: skip


def test_every_exception_is_needed():
    for where, target in EXCEPTIONS:
        assert target in imports(ROOT / where)


@pytest.mark.parametrize("path", in_rooms("models.networks", "models.losses"), ids=name_of)
def test_networks_and_losses_need_little_else(path):
    assert {name.split(".")[0] for name in imports(path)} <= LAYER_2 | {"models", "util"}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_star_imports_no_bare_except_no_eval_no_exit(path):
    for node in nodes(path, (ast.ImportFrom, ast.ExceptHandler, ast.Call)):
        if isinstance(node, ast.ImportFrom):
            assert all(alias.name != "*" for alias in node.names)
        elif isinstance(node, ast.ExceptHandler):
            assert node.type is not None
        elif isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec", "exit", "quit")
            assert node.func.id != "print" or name_of(path).startswith(MAY_PRINT)


@pytest.mark.parametrize(
    "path", in_rooms("models.networks", "models.losses", "util", "util.metrics"), ids=name_of
)
def test_options_stop_at_the_models_and_data_sets(path):
    names = {node.arg for node in nodes(path, ast.arg)}
    names |= {node.id for node in nodes(path, ast.Name)}
    names |= {node.attr for node in nodes(path, ast.Attribute)}
    assert "opt" not in names


def declared_options(paths: list[Path]) -> set[str]:
    """Destination of every option that the files declare."""
    found = set()
    for path in paths:
        for node in nodes(path, ast.Call):
            if ast.unparse(node.func).rpartition(".")[2] not in ("add", "add_argument"):
                continue
            flags = [
                a.value for a in node.args
                if isinstance(a, ast.Constant) and str(a.value).startswith("-")
            ]  # fmt: skip
            named = [k.value for k in node.keywords if k.arg == "dest"]
            long = [flag for flag in flags if flag.startswith("--")]
            if named and isinstance(named[0], ast.Constant):
                found.add(named[0].value)
            elif long and not named:
                found.add(long[0].lstrip("-").replace("-", "_"))
    return found


def read_options(paths: list[Path]) -> set[str]:
    """What the files read of an object of options: ``opt.name`` or ``getattr(opt, "name")``.

    A file that reads names from a list, ``getattr(opt, name)``, may read every word in it.
    """
    owners, found = ("opt", "options", "settings", "args"), set()
    for path in paths:
        for node in nodes(path, (ast.Attribute, ast.Call)):
            if isinstance(node, ast.Attribute):
                if ast.unparse(node.value).rpartition(".")[2] in owners:
                    found.add(node.attr)
            elif ast.unparse(node.func) == "getattr":
                name = node.args[1]
                by_name = isinstance(name, ast.Constant)
                found |= {c.value for c in ([name] if by_name else nodes(path, ast.Constant))}
    return found


def test_every_option_of_training_and_testing_has_a_reader():
    paths = [p for p in SOURCES if not name_of(p).startswith("script/")]
    declared = declared_options(in_rooms("options", "models", "data"))
    assert {"batchSize", "lambda_style", "save_format"} <= declared
    assert declared - read_options(paths) == set()


@pytest.mark.parametrize("path", in_rooms("script"), ids=name_of)
def test_every_option_of_a_command_has_a_reader(path):
    helpers = [p for p in in_rooms("script") if f"script.{p.stem}" in imports(path)]
    if "vars(" in path.read_text() or "__dataclass_fields__" in path.read_text():
        return  # reads its options as a mapping
    shared = {"debug"}  # run_main looks for it
    assert declared_options([path]) - read_options([path, *helpers]) - shared == set()


def test_train_and_test_are_tables_of_contents():
    assert len((ROOT / "train.py").read_text().splitlines()) <= 90
    assert len((ROOT / "test.py").read_text().splitlines()) <= 80


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_and_functions_stay_small(path):
    assert len(path.read_text().splitlines()) <= 300
    functions = nodes(path, (ast.FunctionDef, ast.AsyncFunctionDef))
    assert {f.name for f in functions if f.end_lineno - f.lineno >= 40} == set()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_modules_classes_and_functions_say_what_they_are(path):
    kinds = ast.ClassDef if name_of(path).startswith("script/") else (ast.ClassDef, ast.FunctionDef)
    public = [n for n in tree(path).body if isinstance(n, kinds) and not n.name.startswith("_")]
    assert ast.get_docstring(tree(path))
    assert [n.name for n in public if not ast.get_docstring(n)] == []


def commands() -> list[Path]:
    return [p for p in in_rooms("script") if 'if __name__ == "__main__"' in p.read_text()]


@pytest.mark.parametrize("path", commands(), ids=name_of)
def test_a_command_starts_as_a_file_and_as_a_module(path):
    """``python script/x.py`` finds the project: its root enters the path before our imports."""
    body = tree(path).body
    ours = [n.lineno for n in body if isinstance(n, (ast.Import, ast.ImportFrom))
            and (getattr(n, "module", None) or n.names[0].name).split(".")[0] in TOP]  # fmt: skip
    paths = [
        n.lineno for n in body if isinstance(n, ast.If) and "sys.path.insert" in ast.unparse(n)
    ]
    assert len(paths) == 1
    assert paths[0] < min(ours)
