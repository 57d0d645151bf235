"""A file name is a plug-in name: ``models/foo_model.py`` with ``class FooModel`` is ``foo``."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection
from difflib import get_close_matches
from types import ModuleType

from util.errors import UserError


def _key(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def plugin_names(package: ModuleType, suffix: str, shared: Collection[str]) -> list[str]:
    """Names of the files ``<name>_<suffix>.py`` of ``package`` but those of base classes."""
    modules = (m.name for m in pkgutil.iter_modules(package.__path__))
    names = (m.removesuffix(f"_{suffix}") for m in modules if m.endswith(f"_{suffix}"))
    return sorted(name for name in names if name not in shared)


def find_plugin(
    package: ModuleType, suffix: str, shared: Collection[str], option: str, name: str
) -> type:
    """The class of ``option name``, without regard to case; UserError with the nearest match."""
    known = {_key(n): n for n in plugin_names(package, suffix, shared)}
    if _key(name) not in known:
        near = get_close_matches(_key(name), known, n=1)
        hint = f"; did you mean {known[near[0]]}?" if near else ""
        raise UserError(f"{option} {name} is unknown; choices: {', '.join(known.values())}{hint}")
    place = f"{package.__name__}.{known[_key(name)]}_{suffix}"
    for attribute, value in vars(importlib.import_module(place)).items():
        if attribute.lower() == _key(name) + suffix and isinstance(value, type):
            return value
    wanted = "".join(word.capitalize() for word in known[_key(name)].split("_")) + suffix.title()
    raise UserError(f"{place.replace('.', '/')}.py has no class {wanted}; add it or rename it")
