"""Model registry: ``models/foo_model.py`` with ``class FooModel`` is ``--model foo``."""

import sys
from argparse import Namespace

from models.base_model import BaseModel
from util.errors import UserError
from util.names import find_plugin, plugin_names

_SHARED = ("base", "gan")


def list_models() -> list[str]:
    """Names accepted by ``--model`` (without regard to case)."""
    return plugin_names(sys.modules[__name__], "model", _SHARED)


def find_model(name: str) -> type[BaseModel]:
    """The class of ``--model name``; an unknown name is a UserError with the nearest match."""
    return find_plugin(sys.modules[__name__], "model", _SHARED, "--model", name)


def create_model(opt: Namespace) -> BaseModel:
    """Build the model that the options describe; a UserError says what its class lacks."""
    kind = find_model(opt.model)
    missing = ", ".join(sorted(getattr(kind, "__abstractmethods__", ())))
    if missing:
        raise UserError(f"class {kind.__name__} lacks {missing}; see docs/extending.md")
    model = kind(opt)
    for label in model.needed if opt.is_train else model.needed[:1]:
        if label not in model.networks:
            raise UserError(
                f"class {kind.__name__} has no network {label}; its __init__ must call "
                f'self.add_network("{label}", network, config), see docs/extending.md'
            )
    return model


def load_for_test(opt: Namespace) -> BaseModel:
    """The model with the trained generator of ``--which_epoch``, in evaluation mode."""
    model = create_model(opt)
    model.load_networks(opt.which_epoch, labels=("G",))
    model.eval_mode()
    return model
