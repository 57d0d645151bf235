"""Options shared by training and testing, and the parser that models and data sets extend."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data
import models
from models.networks.layers import INITIALIZERS, NORMS
from options.parser import (
    Parser,
    check_names,
    check_numbers,
    image_size,
    options_text,
    read_saved_options,
)
from util.files import write_atomically
from util.pose import SIGMA
from util.run import distributed
from util.run.device import PRECISIONS

Add = Callable[..., Any]  # add_argument of a parser or of one of its groups

# Options that describe the trained networks and their inputs. Testing takes their values from the
# options saved beside the checkpoint; options added by the model's and the data set's hooks are
# treated alike.
ARCHITECTURE = (
    "model",
    "dataset_mode",
    "load_size",
    "annotation_size",
    "ngf",
    "ndf",
    "norm",
    "heatmap_sigma",
)


class BaseOptions:
    """Declares, parses, checks, prints and saves options; see TrainOptions and TestOptions."""

    is_train = False

    def add_options(self, parser: Parser) -> None:
        """Options of every command."""
        self._add_experiment(parser.add_argument_group("experiment").add_argument)
        add = parser.add_argument_group("data").add_argument
        self._add_data(add)
        self._add_sizes(add)
        add = parser.add_argument_group("networks").add_argument
        self._add_networks(add)
        self._add_computation(add)

    def _add_experiment(self, add: Add) -> None:
        """Name of the run, model, checkpoint, device, random numbers."""
        add(
            "--name",
            "--id",
            default="experiment",
            help="name of the run: its folder under --checkpoints_dir",
        )
        add("--model", default="DPTN", help="model; one of: " + ", ".join(models.list_models()))
        add("--checkpoints_dir", default="./checkpoints", help="folder of all runs")
        add(
            "--which_epoch",
            "--which_iter",
            default="latest",
            help="checkpoint to load: latest, best, or the number of an epoch",
        )
        add(
            "--gpu_ids",
            "--gpu_id",
            default="0",
            help="GPU of this process, -1 = CPU; without a GPU everything runs on the CPU",
        )
        add("--seed", type=int, default=0, help="seed of all random numbers")
        add(
            "--deterministic",
            action="store_true",
            help="bit-identical results from run to run (slower on a GPU)",
        )
        add(
            "--debug",
            action="store_true",
            help="full tracebacks; train.py: one epoch of 10 samples or a batch, every step shown",
        )

    def _add_data(self, add: Add) -> None:
        """Where the samples come from and how they are read."""
        add("--dataroot", default="./dataset/fashion", help="folder of the data set")
        add(
            "--dataset_mode",
            default="fashion",
            help="layout of the data set; one of: " + ", ".join(data.list_datasets()),
        )
        add(
            "--phase",
            default="train" if self.is_train else "test",
            help="which images and lists of the data set to use",
        )
        add(
            "--batchSize",
            "--batch_size",
            "--batchsize",
            type=int,
            default=1,
            help="samples per step and process (published: 32 to train, 1 to test)",
        )
        add("--nThreads", "--num_workers", type=int, default=2, help="loader processes")
        add(
            "--max_dataset_size",
            type=int,
            default=None,
            help="train.py: samples per epoch; test.py: use the first pairs only",
        )

    def _add_sizes(self, add: Add) -> None:
        """Sizes of images and pose maps."""
        add(
            "--loadSize",
            "--load_size",
            dest="load_size",
            type=int,
            nargs="+",
            default=None,
            metavar="N",
            help="size the network works at: one number (square) or height width; "
            "default: set by --dataset_mode",
        )
        add(
            "--old_size",
            "--annotation_size",
            dest="annotation_size",
            type=int,
            nargs="+",
            default=None,
            metavar="N",
            help="height width of the frame of the keypoints and of saved "
            "results; default: set by --dataset_mode",
        )
        add(
            "--heatmap_sigma",
            type=float,
            default=SIGMA,
            help="standard deviation of the pose heatmaps in pixels of --load_size; published: 6 "
            "at 256 x 256, smaller images learn faster with a smaller one",
        )

    def _add_networks(self, add: Add) -> None:
        """Width, normalisation and initialisation."""
        add("--ngf", type=int, default=64, help="width of the generator's first layer")
        add("--ndf", type=int, default=32, help="width of the discriminator's first layer")
        add(
            "--norm",
            default="instance",
            choices=sorted(NORMS),
            help="normalisation of the generator",
        )
        add(
            "--init_type",
            default="orthogonal",
            choices=sorted(INITIALIZERS),
            help="initialisation of the networks",
        )
        add(
            "--init_gain",
            type=float,
            default=0.02,
            help="gain of the initialisation (1.0 learns faster on small data)",
        )

    def _add_computation(self, add: Add) -> None:
        """Number formats, averaging, compilation."""
        add(
            "--precision",
            default="fp32",
            choices=sorted(PRECISIONS),
            help="number format of convolutions and attention; on a CPU bf16 is used for VGG-19 "
            "only, and only where the processor gains from it (AMX)",
        )
        add(
            "--tf32",
            action="store_true",
            help="on a GPU, let float32 products and convolutions use TensorFloat-32: faster, with "
            "a relative rounding of 1e-3",
        )
        add(
            "--ema",
            type=float,
            default=0.0,
            metavar="DECAY",
            help="train.py: also keep a moving average of G with this decay (0.999, say); test.py: "
            "any value but 0 generates with it",
        )
        add("--compile", action="store_true", help="compile the networks with torch.compile")

    # ---- parsing ---------------------------------------------------------------------------

    def parse(self, argv: list[str] | None = None, announce: bool = True) -> Namespace:
        """Options of the command line, completed and checked; printed on the main process."""
        argv = sys.argv[1:] if argv is None else list(argv)
        # torch.distributed.launch adds this; the environment, which torchrun sets too, says the
        # same
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
        parser.set_defaults(**{k: v for k, v in saved.items() if k in hooked or k in ARCHITECTURE})
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
        opt.load_size = image_size("--load_size", opt.load_size, dataset.load_size)
        frame = dataset.annotation_size or opt.load_size
        opt.annotation_size = image_size("--old_size", opt.annotation_size, frame)
        check_names(opt)
        check_numbers(opt)
        dataset.complete_options(opt)
        self.check(opt)
        opt.device = str(distributed.local_device(opt.gpu_ids))
        if announce and distributed.launched_rank() == 0:
            print(options_text(opt, parser))
        self._parser = parser
        return opt

    def check(self, opt: Namespace) -> None:
        """Checks that only one command needs."""

    def chosen(self, opt: Namespace) -> dict[str, object]:
        """The options that differ from their defaults."""
        values = sorted(vars(opt).items())
        return {k: v for k, v in values if self._parser.get_default(k) not in (v, None)}

    def save(self, opt: Namespace, folder: Path) -> None:
        """Write the options into ``folder`` as text (to read) and, of training, JSON (to reload).

        Call it on the main process once everything else is known to be right: a mistyped command
        must not replace the options of an earlier run.
        """
        kind = "train" if self.is_train else "test"
        write_atomically(folder / f"{kind}_opt.txt", options_text(opt, self._parser).encode())
        if self.is_train:
            content = json.dumps(vars(opt), indent=1, sort_keys=True)
            write_atomically(folder / "train_opt.json", content.encode())
