"""Options shared by training and testing, and the parser that models and data sets extend."""

import json
import sys
from argparse import SUPPRESS, Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import data
import models
from models.networks.layers import INITIALIZERS, NORMS
from options.parser import BATCH, DATA, WORKERS, Parser, add_device, add_run, take_checkpoint
from util.errors import UserError
from util.files import read_json, write_atomically
from util.kinds import (
    choice,
    flag,
    folder_name,
    natural,
    number,
    positive,
    positive_int,
    size,
    text,
    whole_number,
)
from util.person.maps import SIGMA
from util.run import distributed
from util.run.device import PRECISIONS

SAVED = "train_opt.json"  # in the folder of a run


class BaseOptions:
    """Declares, parses, checks, prints and saves options; see TrainOptions and TestOptions."""

    is_train = False
    parser: Parser  # of the last parse
    changed: Mapping[str, Any]  # defaults of the options that were given another value
    wanted_device: str | None  # as given

    def add_options(self, parser: Parser) -> None:
        """Options of both commands."""
        add = parser.group("run")
        add_run(add)
        add("--which_epoch --which_iter", folder_name, "latest", "checkpoint: latest, best, epoch")
        add_device(add)
        add("--seed", whole_number(0, 2**32 - 1), 0, "seed of all random numbers")
        add("--deterministic", flag, False, "bit-identical from run to run (slower on a GPU)")
        add("--precision", choice(PRECISIONS), "fp32", "bf16 on a CPU: of VGG-19 only")
        tf32 = "multiply with TensorFloat-32 (1e-3); default: train.py on a GPU, as published"
        add("--tf32 | --no_tf32", flag, None, tf32)
        add("--compile", flag, False, "compile the networks with torch.compile")
        add("--ema", number(0, 0.999999), 0.0, "decay of an average of G; test.py: not 0 = use it")
        # of torch.distributed.launch; the environment, which torchrun sets too, says the same
        add("--local_rank --local-rank", text, None, SUPPRESS)

        add = parser.group("data")
        add(DATA, text, "./dataset/fashion", "folder of the data set")
        phase = "train" if self.is_train else "test"
        add("--phase", folder_name, phase, "which images and lists of the data set to use")
        add(BATCH, positive_int, 1, "samples per step and process", "batchSize")
        add(WORKERS, natural, 2, "loader processes", "nThreads")
        add("--max_dataset_size", positive_int, None, "samples an epoch; test.py: first pairs only")

        add = parser.group("networks (test.py takes these from the run)", trained=True)
        add("--model", text, "DPTN", "one of: " + ", ".join(models.list_models()))
        add("--dataset_mode", text, "fashion", "one of: " + ", ".join(data.list_datasets()))
        add("--loadSize --load_size", size, None, "size of the networks' images", "load_size")
        add("--old_size --annotation_size", size, None, "frame of the keypoints", "annotation_size")
        add("--heatmap_sigma", positive, SIGMA, "width of the pose heatmaps, pixels of --load_size")
        add("--ngf", positive_int, 64, "width of the generator's first layer")
        add("--ndf", positive_int, 32, "width of the discriminator's first layer")
        add("--norm", choice(sorted(NORMS)), "instance", "normalisation of the generator")
        add("--init_type", choice(sorted(INITIALIZERS)), "orthogonal", "initial weights")
        add("--init_gain", positive, 0.02, "gain of the initial weights")

    def check(self, opt: Namespace) -> None:
        """What follows from several options, and checks that only one command needs."""

    # ---- parsing ---------------------------------------------------------------------------

    def parse(self, argv: Sequence[str] | None = None) -> Namespace:
        """Options of the command line, completed and checked.

        Which options there are depends on the model and the data set, and these on the command
        line or on the options of the run: a first look decides, then everything is parsed once.
        """
        argv = sys.argv[1:] if argv is None else list(argv)
        look = _first_look(argv)
        saved, origin = self.saved_options(look)
        default = "DPTN_step" if look.netG else "DPTN"  # its published commands name no model
        model = look.model or saved.get("model", default)
        mode = look.dataset_mode or saved.get("dataset_mode", "fashion")
        self.parser = self.build_parser(model, mode, saved, origin)
        return self.complete(take_checkpoint(self.parser.parse(argv)))

    def build_parser(
        self, model: str, mode: str, saved: Mapping[str, Any], origin: str = ""
    ) -> Parser:
        """The parser of a model and a layout; ``saved`` are options of a run, read from
        ``origin``, whose trained ones become the defaults."""
        for word, value in (("model", model), ("dataset_mode", mode)):
            if not isinstance(value, str):
                raise UserError(f"{origin}{word}: expected a name, found {value!r}")
        parser = Parser(sys.modules["__main__"].__doc__, usage="python %(prog)s [options]")
        self.add_options(parser)
        parser.set_defaults(model=model, dataset_mode=mode)
        known = set(parser.kinds())
        models.find_model(model).modify_options(parser, self.is_train)
        data.find_dataset(mode).modify_options(parser, self.is_train)
        parser.trained |= set(parser.kinds()) - known
        parser.take_defaults({k: v for k, v in saved.items() if k in parser.trained}, origin)
        parser.epilog = (
            f"These are the options with --model {model} and --dataset_mode {mode}; name others "
            "before --help to see theirs."
        )
        return parser

    def parsers(self) -> Iterator[tuple[str, Parser]]:
        """Parsers that together have all options, the one of the default model first, and for
        which model or data set."""
        for model in ["dptn", *models.list_models()]:
            yield f" --model {model}", self.build_parser(model, "fashion", {})
        for mode in data.list_datasets():
            yield f" --dataset_mode {mode}", self.build_parser("dptn", mode, {})

    def saved_options(self, look: Namespace) -> tuple[dict[str, Any], str]:
        """Options saved with the checkpoint that this command loads, and the file's name."""
        return {}, ""

    def complete(self, opt: Namespace) -> Namespace:
        """Fill in what follows from other options, and check."""
        del opt.local_rank  # the environment says the same
        defaults = {key: self.parser.get_default(key) for key in vars(opt)}
        self.changed = {k: v for k, v in defaults.items() if getattr(opt, k) != v}
        opt.is_train = self.is_train
        dataset = data.find_dataset(opt.dataset_mode)
        for word in ("load_size", "annotation_size"):
            if getattr(opt, word) is None and not hasattr(dataset, word):
                raise UserError(
                    f"class {dataset.__name__} has no {word} = (height, width); add it, or give "
                    f"--{word}"
                )
        opt.load_size = opt.load_size or tuple(dataset.load_size)
        opt.annotation_size = tuple(opt.annotation_size or dataset.annotation_size or opt.load_size)
        dataset.complete_options(opt)
        self.wanted_device, opt.device = opt.device, str(distributed.local_device(opt.device))
        if opt.tf32 is None:
            opt.tf32 = self.is_train and opt.device != "cpu" and not opt.deterministic
        self.check(opt)
        return opt

    def chosen(self, opt: Namespace) -> dict[str, Any]:
        """The options that were given another value than their default."""
        return {key: getattr(opt, key) for key in sorted(self.changed)}

    # ---- telling and saving ----------------------------------------------------------------

    def record(self, opt: Namespace, folder: Path) -> None:
        """Print what differs from the defaults; write all options into ``folder`` as text (to
        read) and, of training, as JSON (to reload).

        Call it on the main process once everything else is known to be right: a mistyped command
        must not replace the options of an earlier run.
        """
        path = folder / f"{'train' if self.is_train else 'test'}_opt.txt"
        lines = []
        for key, value in sorted(vars(opt).items()):
            mark = f"   [default: {self.changed[key]}]" if key in self.changed else ""
            lines.append(f"{key:>24}: {value!s:<28}{mark}".rstrip())
        changed = [line for line in lines if line.endswith("]")]
        print("\n".join([f"options that are not the default (all: {path}):", *changed]))
        if opt.device == "cpu" and self.wanted_device not in (None, "cpu", "-1"):
            print(f"--gpu_ids {self.wanted_device}: there is no GPU here, so the CPU computes")
        write_atomically(path, "\n".join([*lines, ""]).encode("utf-8", "backslashreplace"))
        if self.is_train:
            content = json.dumps(vars(opt), indent=1, sort_keys=True)
            write_atomically(folder / SAVED, content.encode())


def _first_look(argv: Sequence[str]) -> Namespace:
    """The options that decide which other options there are; ``netG`` if it is given."""
    parser = Parser(add_help=False)
    add_run(parser.option)
    for word in ("--model", "--dataset_mode", "--netG"):
        parser.option(word, text, None, "")
    return take_checkpoint(parser.parse_known_args(list(argv))[0])


def read_saved_options(path: Path) -> dict[str, Any]:
    """The options saved by a training run, as they are in the file."""
    remedy = "delete it to pass all options yourself"
    saved = read_json(path, remedy)
    if not isinstance(saved, dict):
        raise UserError(f"{path} does not hold options; {remedy}")
    return saved
