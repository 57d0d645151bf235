"""Model registry: ``models/foo_model.py`` with ``class FooModel`` is ``--model foo``."""

from __future__ import annotations

import importlib
import pkgutil
from argparse import Namespace
from difflib import get_close_matches

from models.base_model import BaseModel
from util.errors import UserError

_SHARED = ("base", "gan")


def _normalise(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def list_models() -> list[str]:
    """Names accepted by ``--model`` (without regard to case)."""
    names = (m.name for m in pkgutil.iter_modules(__path__) if m.name.endswith("_model"))
    return sorted(n for n in (n.removesuffix("_model") for n in names) if n not in _SHARED)


def find_model(name: str) -> type[BaseModel]:
    """The model class of ``--model name``; an unknown name is a UserError with the nearest
    match."""
    by_key = {_normalise(n): n for n in list_models()}
    key = _normalise(name)
    if key not in by_key:
        near = get_close_matches(key, by_key, n=1)
        hint = f"; did you mean {by_key[near[0]]}?" if near else ""
        raise UserError(f"--model {name} is unknown; models: {', '.join(by_key.values())}{hint}")
    module = importlib.import_module(f"models.{by_key[key]}_model")
    wanted = key + "model"
    for attribute, value in vars(module).items():
        if attribute.lower() == wanted and isinstance(value, type):
            return value
    raise UserError(f"models/{by_key[key]}_model.py has no class named like {by_key[key]}Model")


def create_model(opt: Namespace) -> BaseModel:
    """Build the model that the options describe."""
    return find_model(opt.model)(opt)
