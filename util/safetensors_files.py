"""Network files in the safetensors format: tensors and nothing else, without Python objects.

The format holds every tensor once. Networks that register a tensor under two names keep both in the
metadata of the file, from which they are restored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from util.errors import UserError

SUFFIX = ".safetensors"
_NAMES = "names"  # metadata key: JSON list of [name, name of its tensor in the file], in order


def write_safetensors(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Write a state dict, complete or not at all."""
    path = Path(path)
    first: dict[tuple, str] = {}
    names: dict[str, str] = {}
    for name, value in state.items():
        place = (value.data_ptr(), value.shape, value.stride()) if value.numel() else (name,)
        names[name] = first.setdefault(place, name)
    kept = {name: state[name].detach().cpu().contiguous().clone() for name in first.values()}
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        metadata = {"format": "pt", _NAMES: json.dumps(list(names.items()))}
        save_file(kept, temporary, metadata)
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a file, second names included; damage is a UserError naming the file."""
    try:
        with safe_open(path, framework="pt", device="cpu") as stream:
            state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
            names = json.loads((stream.metadata() or {}).get(_NAMES, "null"))
        return state if names is None else {str(name): state[kept] for name, kept in names}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not a readable safetensors file ({error}); replace it or export it again"
        ) from error
