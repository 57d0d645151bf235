"""The architecture settings saved beside the checkpoints of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from util.checkpoint import write_atomically
from util.errors import UserError

FILE = "architecture.json"
Configs = Mapping[str, Mapping[str, Any]]  # settings of each network, by its label


def save_architecture(run_dir: Path, configs: Configs) -> None:
    """Write the settings of all networks."""
    write_atomically(run_dir / FILE, json.dumps(configs, indent=1).encode())


def check_architecture(run_dir: Path, configs: Configs) -> None:
    """Refuse settings that contradict the saved ones; a folder without any says nothing."""
    path = run_dir / FILE
    if not path.is_file():
        return
    try:
        saved = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(
            f"{path} is not valid JSON ({error}); delete it, keys and shapes are checked anyway"
        ) from error
    for label, config in configs.items():
        for key, value in saved.get(label, {}).items():
            if key in config and json.loads(json.dumps(config[key])) != value:
                raise UserError(
                    f"{key} is {config[key]} by the options, but the checkpoint in {run_dir} was "
                    f"trained with {value}: leave the option out or set it to that"
                )
