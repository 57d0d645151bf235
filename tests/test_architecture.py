"""The rules of the house: who may import whom, no dead options, no star imports, small pieces.

A rule is one test that lists all offenders.
"""

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

from options.test_options import TestOptions
from options.train_options import TrainOptions
from tests.conftest import ROOT

PARTS = ("options", "models", "data", "util", "script", "train.py", "test.py", "api.py")
SOURCES = sorted(p for p in ROOT.rglob("*.py") if p.relative_to(ROOT).parts[0] in PARTS)
# room -> rooms of the project that it may import from, its own included
BELOW = {"util": {"util", "util.errors"}}
BELOW["util.errors"] = {"util.errors"}
BELOW["util.run"] = {"util.run", *BELOW["util"]}
BELOW["util.tables"] = {"util.tables", *BELOW["util.run"]}
BELOW["util.show"] = {"util.show", *BELOW["util.run"]}
BELOW["util.person"] = {"util.person", *BELOW["util"]}
BELOW["util.metrics"] = {"util.metrics", *BELOW["util.show"], *BELOW["util.tables"]}
BELOW["models.networks"] = {"models.networks", *BELOW["util.metrics"]}
BELOW["models.losses"] = {"models.losses", *BELOW["util.metrics"]}
BELOW["models"] = {"models", "util.person", *BELOW["models.networks"], *BELOW["models.losses"]}
BELOW["data"] = {"data", *BELOW["util.metrics"]}
BELOW["options"] = {"options", *BELOW["models"], *BELOW["data"]}
for _entry in ("train", "test", "api"):
    BELOW[_entry] = {_entry, *BELOW["options"]}
BELOW["script"] = {"script", "train", "test", "api", *BELOW["options"]}
TOP = {"options", "models", "data", "util", "script", "tests", "train", "test", "api"}
# Networks and losses are what other projects may want to copy.
LAYER_2 = {"torch", "torchvision", "numpy", "scipy", "cv2"}
MAY_PRINT = ("options/", "script/", "test.py", "util/show/visualizer.py", "util/run/main.py")
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 400, 40


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def nodes(path: Path, kind: type | tuple[type, ...]) -> Iterator[ast.AST]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, kind))


def module_of(path: Path) -> str:
    return name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def room(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[:2]) if ".".join(parts[:2]) in BELOW else parts[0]


def in_rooms(*rooms: str) -> list[Path]:
    """Files of the named rooms and of those inside them."""
    return [p for p in SOURCES if any(f"{room(module_of(p))}.".startswith(f"{r}.") for r in rooms)]


def imports(path: Path) -> set[str]:
    """Every module that a file imports, and every name from a module, anywhere in it."""
    found = set()
    for node in nodes(path, (ast.Import, ast.ImportFrom)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_imports_point_downward_only():
    offenders = [
        f"{name_of(path)} imports {name}"
        for path in SOURCES
        for name in sorted(imports(path))
        if name.split(".")[0] in TOP and room(name) not in BELOW[room(module_of(path))]
    ]
    assert offenders == []


def test_no_module_imports_itself_by_way_of_others():
    modules = {module_of(path): path for path in SOURCES}

    def at_start(path: Path) -> set[str]:
        found = set()
        for node in tree(path).body:
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        return {name for name in found if name in modules and name != module_of(path)}

    arrows = {name: at_start(path) for name, path in modules.items()}
    while leaves := {name for name, targets in arrows.items() if not targets & set(arrows)}:
        arrows = {name: targets for name, targets in arrows.items() if name not in leaves}
    assert sorted(arrows) == []


def test_networks_and_losses_need_little_else():
    allowed = LAYER_2 | sys.stdlib_module_names | {"models", "util"}
    offenders = [
        f"{name_of(path)} imports {name}"
        for path in in_rooms("models.networks", "models.losses")
        for name in imports(path)
        if name.split(".")[0] not in allowed
    ]
    assert offenders == []


def test_no_star_imports_no_relative_imports_no_bare_except_no_eval_no_exit():
    offenders = []
    for path in SOURCES:
        for node in nodes(path, (ast.ImportFrom, ast.ExceptHandler, ast.Call)):
            if isinstance(node, ast.ImportFrom):
                bad = node.level or any(alias.name == "*" for alias in node.names)
            elif isinstance(node, ast.ExceptHandler):
                bad = node.type is None
            elif isinstance(node.func, ast.Name):
                banned = {"eval", "exec", "exit", "quit"}
                banned |= set() if name_of(path).startswith(MAY_PRINT) else {"print"}
                bad = node.func.id in banned
            else:
                bad = False
            if bad:
                offenders.append(f"{name_of(path)}:{node.lineno} {ast.unparse(node)[:60]}")
    assert offenders == []


def test_options_stop_at_the_models_and_data_sets():
    offenders = []
    for path in in_rooms("models.networks", "models.losses", "util"):
        names = {node.arg for node in nodes(path, ast.arg)}
        names |= {node.id for node in nodes(path, ast.Name)}
        names |= {node.attr for node in nodes(path, ast.Attribute)}
        offenders += [name_of(path)] * ("opt" in names)
    assert offenders == []


def declared_options(paths: list[Path]) -> set[str]:
    """Destination of every option that the files declare."""
    found = set()
    for path in paths:
        for node in nodes(path, ast.Call):
            if ast.unparse(node.func).rpartition(".")[2] not in ("add", "option") or not node.args:
                continue
            first = getattr(node.args[0], "value", "")
            flags = first.partition("|")[0].split() if isinstance(first, str) else []
            named = [k.value.value for k in node.keywords if k.arg == "dest"]
            named += [a.value for a in node.args[4:5] if isinstance(a, ast.Constant)]
            long = [flag for flag in flags if flag.startswith("--")]
            long = flags[:1] if flags and not flags[0].startswith("-") else long
            if named or long:
                found.add((named or [long[0].lstrip("-").replace("-", "_")])[0])
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
    parsers = [parser for o in (TrainOptions(), TestOptions()) for _, parser in o.parsers()]
    declared = {name for parser in parsers for name in parser.kinds()}
    declared -= {"checkpoint", "local_rank", "debug"}  # said in other words before it is read
    assert {"batchSize", "lambda_style", "save_format"} <= declared
    assert declared - read_options(paths) == set()


def test_every_option_of_a_command_has_a_reader():
    offenders = {}
    for path in in_rooms("script"):
        helpers = [p for p in in_rooms("script") if module_of(p) in imports(path)]
        if "vars(" in path.read_text() or "__dataclass_fields__" in path.read_text():
            continue  # reads its options as a mapping
        shared = {"debug"}  # run_main looks for it
        unread = declared_options([path]) - read_options([path, *helpers]) - shared
        offenders |= {name_of(path): unread} if unread else {}
    assert offenders == {}


def test_train_and_test_are_tables_of_contents():
    assert len((ROOT / "train.py").read_text().splitlines()) <= 90
    assert len((ROOT / "test.py").read_text().splitlines()) <= 80


def test_files_and_functions_stay_small():
    offenders = []
    for path in SOURCES:
        lines = len(path.read_text().splitlines())
        offenders += [f"{name_of(path)}: {lines} lines"] * (lines > MOST_LINES)
        for function in nodes(path, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = function.end_lineno - function.lineno + 1
            if lines > MOST_LINES_OF_A_FUNCTION:
                offenders.append(f"{name_of(path)}, {function.name}: {lines} lines")
    assert offenders == []


def test_modules_classes_and_functions_say_what_they_are():
    offenders = []
    for path in SOURCES:
        in_script = name_of(path).startswith("script/")
        kinds = ast.ClassDef if in_script else (ast.ClassDef, ast.FunctionDef)
        public = [n for n in tree(path).body if isinstance(n, kinds) and n.name[0] != "_"]
        offenders += [name_of(path)] * (not ast.get_docstring(tree(path)))
        offenders += [f"{name_of(path)}, {n.name}" for n in public if not ast.get_docstring(n)]
    assert offenders == []


def test_commands_in_help_texts_can_be_copied():
    """``\\`` at the end of a line survives in raw docstrings only: else two lines become one."""
    longest = {name_of(p): max(map(len, ast.get_docstring(tree(p)).splitlines())) for p in SOURCES}
    assert [name for name, length in longest.items() if length > 100] == []


def test_every_file_of_script_is_a_command_that_starts_as_a_file_and_as_a_module():
    """``python script/x.py`` finds the project: its root enters the path before our imports."""
    offenders = []
    for path in in_rooms("script"):
        if path.name == "__init__.py":
            continue
        body = tree(path).body
        ours = [
            n.lineno
            for n in body
            if isinstance(n, (ast.Import, ast.ImportFrom))
            and (getattr(n, "module", None) or n.names[0].name).split(".")[0] in TOP
        ]
        paths = [
            n.lineno for n in body if isinstance(n, ast.If) and "sys.path.insert" in ast.unparse(n)
        ]
        is_command = 'if __name__ == "__main__"' in path.read_text()
        if not is_command or len(paths) != 1 or (ours and paths[0] > min(ours)):
            offenders.append(name_of(path))
    assert offenders == []


def test_tests_use_public_names_only():
    """A test that calls a private helper stands in the way of every change of it."""
    offenders = []
    for path in sorted((ROOT / "tests").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or node.module.split(".")[0] not in TOP:
                continue
            private = [a.name for a in node.names if a.name.startswith("_") and a.name != "__all__"]
            offenders += [f"{path.name}: {node.module}.{name}" for name in private]
    assert offenders == []
