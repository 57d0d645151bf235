"""Options without a command line: those a training run saved, completed for inference."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from options.base_options import BaseOptions


class InferenceOptions(BaseOptions):
    """Like the options of test.py, but the saved ones are given instead of found."""

    def __init__(self, saved: Mapping[str, Any]):
        self._saved = dict(saved)

    def saved_options(self, opt: Namespace) -> dict:
        return self._saved


def inference_options(
    saved: Mapping[str, Any],  # content of train_opt.json
    run_dir: Path,  # folder of the checkpoint
    device: str,
    overrides: Mapping[str, Any] | None = None,  # option names, without dashes, and values
) -> Namespace:
    """Options that build the trained model for inference; a mistake in them is a UserError."""
    run_dir = run_dir.resolve()
    argv = ["--checkpoints_dir", str(run_dir.parent), "--name", run_dir.name, "--gpu_ids", "-1"]
    for key, value in (overrides or {}).items():
        values = value if isinstance(value, (list, tuple)) else [] if value is True else [value]
        argv += [f"--{key}", *map(str, values)]
    opt = InferenceOptions(saved).parse(argv, announce=False)
    opt.device = device
    return opt
