"""Options of test.py, and of every other command that loads a trained run."""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from options.base_options import SAVED, BaseOptions, read_saved_options
from options.parser import RESULTS, Parser, take_checkpoint
from util.kinds import choice, flag, folder_name, positive_int, size, text
from util.show.results import SAVE_FORMATS
from util.tensors import SAVE_NORMS


class TestOptions(BaseOptions):
    """Options of test.py; what was trained comes from the options saved beside the checkpoint."""

    __test__ = False  # not a test class

    def add_options(self, parser: Parser) -> None:
        super().add_options(parser)
        add = parser.group("testing")
        add(RESULTS, text, None, "folder of the images; default: ./results/<name>", "results_dir")
        add("--how_many", positive_int, None, "generate only the first pairs of the list")
        add("--save_format", choice(SAVE_FORMATS), "png", "jpg (quality 75) as published")
        add("--result_size", size, None, "size of saved images; default: as published, --old_size")
        norms = choice(sorted(SAVE_NORMS))
        add("--save_norm", norms, "fixed", "fixed, or minmax: each image fills 0 to 255")
        add("--resume", flag, False, "keep what the same run has made already, make the rest")
        add("--no_html --simple_test", flag, False, "no result page")
        add("--save_id", folder_name, None, "name of the images' folder in --results_dir")
        add("--save_steps", flag, False, "step models: also every step j, in <folder>_<j>")

    def check(self, opt: Namespace) -> None:
        if opt.save_id is not None:
            opt.results_dir = str(Path(opt.results_dir or "./results") / opt.save_id)
        opt.results_dir = opt.results_dir or f"./results/{opt.name}"
        if opt.how_many is not None:
            opt.max_dataset_size = min(opt.how_many, opt.max_dataset_size or opt.how_many)

    def saved_options(self, look: Namespace) -> tuple[dict[str, Any], str]:
        path = Path(look.checkpoints_dir) / look.name / SAVED
        return (read_saved_options(path), f"{path}: ") if path.is_file() else ({}, "")


def inference_options(
    saved: Mapping[str, Any],  # content of train_opt.json
    run_dir: Path,  # folder of the checkpoint
    device: str,
    changes: Mapping[str, Any] | None = None,  # option names, without dashes, and values
) -> Namespace:
    """Options that build the trained model for inference; a mistake in them is a UserError."""
    run_dir, origin = run_dir.resolve(), f"{run_dir}: option "
    values = {"model": "DPTN", "dataset_mode": "fashion"} | dict(saved) | dict(changes or {})
    options = TestOptions()
    parser = options.build_parser(values["model"], values["dataset_mode"], saved, origin)
    for key, value in (changes or {}).items():
        parser.take_defaults({parser.value_name(key): value}, "option ")
    parser.set_defaults(checkpoints_dir=str(run_dir.parent), name=run_dir.name, device="cpu")
    options.parser = parser
    opt = options.complete(take_checkpoint(parser.parse([])))
    opt.device = device
    return opt
