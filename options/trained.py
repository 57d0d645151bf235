"""A trained model by the path of its checkpoint: options saved beside it, then its weights."""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from models import create_model
from models.base_model import BaseModel
from models.onnx_graph import OnnxGenerator
from options.base_options import SAVED, read_saved_options
from options.test_options import inference_options
from util.errors import UserError
from util.run.checkpoint import load_network


def load_model(
    path: Path, which_epoch: str, device: torch.device, options: Mapping[str, Any] | None = None
) -> BaseModel:
    """A trained model in evaluation mode; arguments as in ``PoseTransfer.from_checkpoint``."""
    check_exists(path)
    folder = path if path.is_dir() else path.parent
    saved: dict[str, Any] = {}
    if (folder / SAVED).is_file():
        saved = read_saved_options(folder / SAVED)
    elif "model" not in (options or {}):
        raise UserError(
            f"{folder} holds no {SAVED}, so the model is unknown; expected the folder of a "
            'training run, or for a published file its model: --model, options={"model": ...}'
        )
    model = _build(inference_options(saved, folder, str(device), options))
    which, is_named, rest = path.name.partition("_net")
    if path.is_dir():
        model.load_networks(which_epoch, ("G",))
    elif is_named and rest in (".pth", "_G.pth"):  # the model knows its published containers
        model.load_networks(which, ("G",))
    else:
        load_network(model.networks["G"], path)
    model.eval_mode()
    return model


def check_exists(path: Path) -> None:
    """UserError unless something is at the path of a checkpoint."""
    if not path.exists():
        raise UserError(
            f"there is no checkpoint {path}; expected the folder of a training run, a generator "
            "file or an .onnx file"
        )


def _build(opt: Namespace) -> BaseModel:
    """The model, without a trace of its random initial weights in the caller's random state."""
    with torch.random.fork_rng(devices=[]):  # networks are initialised on the CPU
        return create_model(opt)


def empty_model(generator: OnnxGenerator, options: Mapping[str, Any] | None) -> BaseModel:
    """The model of an ONNX file for its ``prepare`` alone: its networks have no weights at all."""
    opt = inference_options(generator.saved_options(), generator.path.parent, "meta", options)
    with torch.device("meta"):
        model = _build(opt)
    model.device = torch.device("cpu")
    return model
