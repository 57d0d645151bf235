"""Strict parsing, checks of values, and how options are printed and read back."""

from __future__ import annotations

import argparse
import json
import math
from argparse import Namespace
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from util.errors import UserError


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but not those that say nothing: None and the False of a flag."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are UserErrors and which never guesses abbreviations."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, formatter_class=_Help, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")

    def parse_strictly(self, argv: list[str]) -> Namespace:
        """Parse; an unknown option is an error that names the nearest known one."""
        opt, unknown = self.parse_known_args(argv)
        if unknown:
            word = unknown[0].split("=")[0]
            near = get_close_matches(word, self._option_string_actions, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"unknown option {word}{hint} (--help lists all)")
        return opt


def read_saved_options(path: Path) -> dict:
    """The options saved by a training run."""
    try:
        saved = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(
            f"{path} is not valid JSON ({error}); delete it to pass all options"
        ) from error
    if not isinstance(saved, dict):
        raise UserError(f"{path} does not hold options; delete it to pass all options yourself")
    return saved


def options_text(opt: Namespace, parser: Parser) -> str:
    """All options, one a line, non-default values marked with the default."""
    lines = ["----------------- options -----------------"]
    for key, value in sorted(vars(opt).items()):
        default = parser.get_default(key)
        mark = "" if default in (value, None) or key == "device" else f"   [default: {default}]"
        lines.append(f"{key:>24}: {value!s:<28}{mark}".rstrip())
    lines.append("-------------------------------------------")
    return "\n".join(lines)


def image_size(flag: str, given, default: tuple[int, int]) -> tuple[int, int]:
    """(h, w) of an option that takes one number (a square), two, or nothing."""
    if given is None:
        return tuple(default)
    values = tuple(given)
    if len(values) == 1:
        values = values * 2
    if len(values) != 2 or min(values) < 1 or max(values) > 4096:
        raise UserError(
            f"{flag} {' '.join(map(str, given))}: expected one number or height and width, 1 to "
            f"4096"
        )
    return values


_POSITIVE = (
    "batchSize",
    "ngf",
    "ndf",
    "nhead",
    "max_dataset_size",
    "dis_layers",
    "display_freq",
    "print_freq",
    "save_latest_freq",
    "save_epoch_freq",
    "lr",
    "init_gain",
    "niter",
    "how_many",
    "max_minutes",
    "heatmap_sigma",
    "accumulate",
    "clip_grad",
    "val_pairs",
)
_NOT_NEGATIVE = (
    "display_seconds",
    "nThreads",
    "val_freq",
    "niter_decay",
    "num_CABs",
    "num_TTBs",
    "keep_last",
)
_WITHIN = {  # lowest and highest value
    "beta1": (0, 0.9999),
    "beta2": (0, 0.999999),
    "ema": (0, 0.999999),
    "t_s_ratio": (0, 1),
    "vgg_width": (1 / 64, 1),
    "display_port": (1, 65535),
    "seed": (0, 2**32 - 1),
}
_FOLDER_NAMES = ("name", "phase", "val_phase", "which_epoch")


def check_numbers(opt: Namespace) -> None:
    """Refuse values that no option can have: NaN, zero or negative counts and weights."""
    for key, value in vars(opt).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"--{key} is {value}, not a number to compute with; give a finite one")
        if key in _POSITIVE and value is not None and not value > 0:
            raise UserError(f"--{key} is {value}; expected more than 0")
        if (key in _NOT_NEGATIVE or key.startswith("lambda_")) and value is not None and value < 0:
            raise UserError(f"--{key} is {value}; expected 0 or more")
        low, high = _WITHIN.get(key, (None, None))
        if low is not None and value is not None and not low <= value <= high:
            raise UserError(f"--{key} is {value}; expected {low} to {high}")


def check_names(opt: Namespace) -> None:
    """Refuse names that would lead to another folder."""
    for key in _FOLDER_NAMES:
        name = getattr(opt, key, None)
        if name is not None and (Path(name).name != name or name in ("", "..")):
            kind = "folder name" if key == "name" else "name"
            raise UserError(f"--{key} {name!r} must be a single {kind} without slashes")
