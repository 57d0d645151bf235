"""Options shared by training and testing, and the parser that models and data sets extend."""

from __future__ import annotations

import argparse
import json
import sys
from argparse import Namespace
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

import data
import models
from models.networks.layers import INITIALIZERS, NORMS
from util import distributed
from util.checkpoint import write_atomically
from util.errors import UserError
from util.pose import SIGMA
from util.precision import PRECISIONS

# Options that describe the trained networks and their inputs. Testing takes their values from the options
# saved beside the checkpoint; options added by the model's and the data set's hooks are treated alike.
ARCHITECTURE = (
    "model", "dataset_mode", "load_size", "annotation_size", "ngf", "ndf", "norm",
    "heatmap_sigma",
)  # fmt: skip


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are UserErrors and which never guesses abbreviations."""

    def __init__(self, **kwargs):
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter, **kwargs
        )

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


class BaseOptions:
    """Declares, parses, checks, prints and saves options; see TrainOptions and TestOptions."""

    is_train = False

    def add_options(self, parser: Parser) -> None:
        """Options of every command."""
        add = parser.add_argument_group("experiment").add_argument
        add("--name", "--id", default="experiment",
            help="name of the run: its folder under --checkpoints_dir")
        add("--model", default="DPTN", help="model; one of: " + ", ".join(models.list_models()))
        add("--checkpoints_dir", default="./checkpoints", help="folder of all runs")
        add("--which_epoch", default="latest",
            help="checkpoint to load: latest, best, or the number of an epoch")
        add("--gpu_ids", "--gpu_id", default="0",
            help="GPU of this process, -1 = CPU; without a GPU everything runs on the CPU")
        add("--seed", type=int, default=0, help="seed of all random numbers")
        add("--deterministic", action="store_true",
            help="bit-identical results from run to run (slower on a GPU)")
        add("--debug", action="store_true",
            help="full tracebacks; train.py: one epoch of at most 10 samples, every step shown")

        add = parser.add_argument_group("data").add_argument
        add("--dataroot", default="./dataset/fashion", help="folder of the data set")
        add("--dataset_mode", default="fashion",
            help="layout of the data set; one of: " + ", ".join(data.list_datasets()))
        add("--phase", default="train" if self.is_train else "test",
            help="which images and lists of the data set to use")
        add("--batchSize", "--batch_size", "--batchsize", type=int, default=1,
            help="samples per step and process (published: 32 to train, 1 to test)")
        add("--nThreads", "--num_workers", type=int, default=2, help="loader processes")
        add("--max_dataset_size", type=int, default=None, help="train.py: samples per epoch; test.py: use the first pairs only")
        add("--loadSize", "--load_size", dest="load_size", type=int, nargs="+", default=None,
            metavar="N", help="size the network works at: one number (square) or height width; "
            "default: set by --dataset_mode")
        add("--old_size", "--annotation_size", dest="annotation_size", type=int, nargs="+",
            default=None, metavar="N", help="height width of the frame of the keypoints and of saved "
            "results; default: set by --dataset_mode")

        add("--heatmap_sigma", type=float, default=SIGMA,
            help="standard deviation of the pose heatmaps in pixels of --load_size; published: 6 at "
            "256 x 256, smaller images learn faster with a smaller one")

        add = parser.add_argument_group("networks").add_argument
        add("--ngf", type=int, default=64, help="width of the generator's first layer")
        add("--ndf", type=int, default=32, help="width of the discriminator's first layer")
        add("--norm", default="instance", choices=sorted(NORMS), help="normalisation of the generator")
        add("--precision", default="fp32", choices=sorted(PRECISIONS),
            help="number format of convolutions and attention; on a CPU bf16 is used for VGG-19 only, "
            "and only where the processor gains from it")
        add("--ema", type=float, default=0.0, metavar="DECAY",
            help="train.py: also keep a moving average of G with this decay (0.999, say); test.py: "
            "any value but 0 generates with it")
        add("--compile", action="store_true", help="compile the networks with torch.compile")
        add("--init_type", default="orthogonal", choices=sorted(INITIALIZERS),
            help="initialisation of the networks")
        add("--init_gain", type=float, default=0.02,
            help="gain of the initialisation (1.0 learns faster on small data)")  # fmt: skip

    # ---- parsing ---------------------------------------------------------------------------

    def parse(self, argv: list[str] | None = None, announce: bool = True) -> Namespace:
        """Options of the command line, completed and checked; printed on the main process."""
        argv = sys.argv[1:] if argv is None else list(argv)
        # torch.distributed.launch adds this; the environment, which torchrun sets too, says the same
        argv = [w for w in argv if not w.startswith(("--local_rank=", "--local-rank="))]
        parser = Parser(description=sys.modules["__main__"].__doc__)
        self.add_options(parser)
        if any(w.split("=")[0] == "--netG" for w in argv):
            parser.set_defaults(model="DPTN_step")  # its published commands name no model
        wants_help = any(word in ("-h", "--help") for word in argv)
        first, _ = parser.parse_known_args([w for w in argv if w not in ("-h", "--help")])
        saved = self.saved_options(first)
        parser.set_defaults(**{k: v for k, v in saved.items() if k in ARCHITECTURE})
        first, _ = parser.parse_known_args([w for w in argv if w not in ("-h", "--help")])
        known = set(vars(first))
        models.find_model(first.model).modify_options(parser, self.is_train)
        data.find_dataset(first.dataset_mode).modify_options(parser, self.is_train)
        hooked = {a.dest for a in parser._actions} - known
        parser.set_defaults(
            **{k: v for k, v in saved.items() if k in hooked or k in ARCHITECTURE}
        )
        opt = parser.parse_strictly([*argv, "--help"] if wants_help else argv)
        return self.complete(opt, parser, announce)

    def saved_options(self, opt: Namespace) -> dict:
        """Options saved with the checkpoint, when there are any and this command loads one."""
        path = Path(opt.checkpoints_dir) / opt.name / "train_opt.json"
        if self.is_train or not path.is_file():
            return {}
        return read_saved_options(path)

    def complete(self, opt: Namespace, parser: Parser, announce: bool) -> Namespace:
        """Fill in what follows from other options, check and print."""
        opt.is_train = self.is_train
        dataset = data.find_dataset(opt.dataset_mode)
        opt.load_size = _size("--load_size", opt.load_size, dataset.load_size)
        opt.annotation_size = _size("--old_size", opt.annotation_size, dataset.annotation_size)
        if Path(opt.name).name != opt.name or opt.name in ("", ".", ".."):
            raise UserError(f"--name {opt.name!r} must be a single folder name without slashes")
        _check_numbers(opt)
        self.check(opt)
        opt.device = str(distributed.local_device(opt.gpu_ids))
        if announce and distributed.launched_rank() == 0:
            print(options_text(opt, parser))
        self._parser = parser
        return opt

    def check(self, opt: Namespace) -> None:
        """Checks that only one command needs."""

    def save(self, opt: Namespace, folder: Path) -> None:
        """Write the options into ``folder`` as text (to read) and, of training, JSON (to reload).

        Call it on the main process once everything else is known to be right: a mistyped command must
        not replace the options of an earlier run.
        """
        kind = "train" if self.is_train else "test"
        try:
            write_atomically(folder / f"{kind}_opt.txt", options_text(opt, self._parser).encode())
            if self.is_train:
                content = json.dumps(vars(opt), indent=1, sort_keys=True)
                write_atomically(folder / "train_opt.json", content.encode())
        except OSError as error:
            raise UserError(
                f"cannot write to {folder} ({error.strerror}); choose another folder"
            ) from error


def read_saved_options(path: Path) -> dict:
    """The options saved by a training run."""
    try:
        saved = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it to pass all options") from error
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


def _size(flag: str, given, default: tuple[int, int]) -> tuple[int, int]:
    if given is None:
        return tuple(default)
    values = tuple(given)
    if len(values) == 1:
        values = values * 2
    if len(values) != 2 or min(values) < 1 or max(values) > 4096:
        raise UserError(
            f"{flag} {' '.join(map(str, given))}: expected one number or height and width, 1 to 4096"
        )
    return values


_POSITIVE = (
    "batchSize", "ngf", "ndf", "nhead", "max_dataset_size", "dis_layers", "display_freq", "print_freq",
    "save_latest_freq", "save_epoch_freq", "lr", "init_gain", "niter", "how_many",
    "max_minutes", "heatmap_sigma", "accumulate", "clip_grad", "val_pairs",
)  # fmt: skip
_NOT_NEGATIVE = ("nThreads", "val_freq", "niter_decay", "num_CABs", "num_TTBs", "seed")


def _check_numbers(opt: Namespace) -> None:
    for key, value in vars(opt).items():
        if isinstance(value, float) and value != value:
            raise UserError(f"--{key} is not a number; give a finite value")
        if key in _POSITIVE and value is not None and not value > 0:
            raise UserError(f"--{key} is {value}; expected more than 0")
        if (key in _NOT_NEGATIVE or key.startswith("lambda_")) and value is not None and value < 0:
            raise UserError(f"--{key} is {value}; expected 0 or more")
