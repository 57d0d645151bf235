"""Options of test.py."""

from __future__ import annotations

from argparse import Namespace

from options.base_options import BaseOptions, Parser

SAVE_FORMATS = ("png", "jpg")


class TestOptions(BaseOptions):
    """Options of test.py; the architecture comes from the options saved beside the checkpoint."""

    __test__ = False  # not a test class

    def add_options(self, parser: Parser) -> None:
        super().add_options(parser)
        add = parser.add_argument_group("testing").add_argument
        add("--results_dir", default=None,
            help="folder the generated images are written to; default: ./results/<name>")
        add("--how_many", type=int, default=None, help="generate only the first pairs of the list")
        add("--save_format", default="png", choices=SAVE_FORMATS,
            help="png, or jpg (quality 75) as the published protocol has it")
        add("--no_html", action="store_true", help="no result page")  # fmt: skip

    def check(self, opt: Namespace) -> None:
        opt.results_dir = opt.results_dir or f"./results/{opt.name}"
        if opt.how_many is not None:
            opt.max_dataset_size = min(opt.how_many, opt.max_dataset_size or opt.how_many)
