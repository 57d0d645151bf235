"""Options of test.py."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from options.base_options import BaseOptions
from options.parser import Parser, image_size
from util.errors import UserError
from util.tensors import SAVE_NORMS


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


SAVE_FORMATS = ("png", "jpg")


class TestOptions(BaseOptions):
    """Options of test.py; the architecture comes from the options saved beside the checkpoint."""

    __test__ = False  # not a test class

    def add_options(self, parser: Parser) -> None:
        super().add_options(parser)
        add = parser.add_argument_group("testing").add_argument
        add(
            "--results_dir",
            default=None,
            help="folder the generated images are written to; default: ./results/<name>",
        )
        add("--how_many", type=int, default=None, help="generate only the first pairs of the list")
        add(
            "--save_format",
            default="png",
            choices=SAVE_FORMATS,
            help="png, or jpg (quality 75) as the published protocol has it",
        )
        add(
            "--result_size",
            type=int,
            nargs="+",
            default=None,
            metavar="N",
            help="height width of the saved images; default: as the published system saves them, "
            "--old_size (pose, poseflownet: --load_size)",
        )
        add(
            "--save_norm",
            default="fixed",
            choices=sorted(SAVE_NORMS),
            help="range of the saved images: fixed = [-1, 1]; minmax = each image fills 0 to "
            "255, as the "
            "published MAGPT test has it",
        )
        add("--no_html", "--simple_test", action="store_true", help="no result page")
        add("--save_id", default=None, help="name of the folder of the images below --results_dir")
        add(
            "--save_steps",
            action="store_true",
            help="step models: also save every step j, in <folder of the images>_<j>",
        )

    def check(self, opt: Namespace) -> None:
        if opt.save_id is not None:
            if Path(opt.save_id).name != opt.save_id or opt.save_id == "..":
                raise UserError(f"--save_id {opt.save_id!r} must be a folder name without slashes")
            opt.results_dir = str(Path(opt.results_dir or "./results") / opt.save_id)
        if opt.result_size is not None:
            opt.result_size = image_size("--result_size", opt.result_size, ())
        opt.results_dir = opt.results_dir or f"./results/{opt.name}"
        if opt.how_many is not None:
            opt.max_dataset_size = min(opt.how_many, opt.max_dataset_size or opt.how_many)
