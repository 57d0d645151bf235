"""The parser of every command: an option is one line, and every complaint is one sentence.

    parser = Parser(__doc__)
    add = parser.group("training")
    add("--lr", positive, 2e-4, "initial learning rate of the generator")
    add("--use_spect_d | --no_spect_d", flag, True, "spectral norm in the discriminator")
    opt = parser.parse()

The line holds all spellings (of a flag: those that switch it on | those that switch it off), the
kind of the value (util/kinds.py), the default and what the option is for. Words that several
commands share are declared below, once.
"""

import argparse
import re
import sys
from argparse import ArgumentError, ArgumentTypeError, Namespace
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from util.errors import UserError
from util.kinds import REQUIRED, Add, Kind, flag, folder_name, natural, positive_int, text

# What other programs call it -> ours; the first of these that a command has is meant.
SYNONYMS = {
    foreign: ours.split()
    for words, ours in (
        ("resume restart resume_training continue continue_train", "--continue_train --resume"),
        ("epochs n_epochs num_epochs max_epochs", "--niter"),
        ("n_epochs_decay", "--niter_decay"),
        ("gpu gpus cuda", "--gpu_ids"),
        ("bs train_batch_size", "--batchSize"),
        ("learning_rate", "--lr"),
        ("data data_dir data_root data_path dataset dataset_dir", "--dataroot"),
        ("ckpt ckpt_path checkpoint_path model_path load_path", "--checkpoint"),
        ("output_dir out_dir save_dir save_path", "--results_dir --output --checkpoints_dir"),
        ("fp16 amp mixed_precision", "--precision"),
        ("img_size image_size crop_size resolution", "--load_size"),
        ("limit max_samples num_samples num_test", "--how_many --max_dataset_size"),
        ("log_freq log_interval", "--print_freq"),
        ("save_freq save_every", "--save_latest_freq"),
        ("eval_freq validate_every", "--val_freq"),
    )
    for foreign in words.split()
}


class _Help(argparse.RawDescriptionHelpFormatter):
    """Spellings of an option once, with one value; defaults where they say something."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        if isinstance(action, _Switch) and action.off:
            on = [word for word in action.option_strings if word not in action.off]
            return " | ".join((", ".join(on), ", ".join(action.off)))
        value = "" if action.nargs == 0 else " " + self._format_args(action, action.metavar)
        return ", ".join(action.option_strings) + value

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        silent = (None, False, argparse.SUPPRESS)
        if any(default is value for value in silent) or action.help == argparse.SUPPRESS:
            return action.help
        if isinstance(default, (list, tuple)):
            default = " ".join(map(str, default))
        default = "on" if default is True else default
        return f"{action.help} (default: {default})".replace("%", "%%")


class _Store(argparse.Action):
    """Keep a value; of a list also as a whole."""

    def __call__(self, parser, namespace, values, option_string=None):
        try:
            whole = self.type.listed(values) if isinstance(values, list) else values
        except ArgumentTypeError as error:
            raise ArgumentError(self, str(error)) from error
        setattr(namespace, self.dest, whole)


class _Switch(argparse.Action):
    """Flags that switch on, and others that switch off."""

    def __init__(self, option_strings: Sequence[str], dest: str, off: Sequence[str] = (), **more):
        super().__init__(option_strings, dest, nargs=0, type=flag, **more)
        self.off = off

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, option_string not in self.off)


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are UserErrors and which never guesses abbreviations."""

    def __init__(self, description: str | None = None, **more):
        super().__init__(description=description, allow_abbrev=False, formatter_class=_Help, **more)
        self.also_positional: tuple[str, ...] = ()
        self.trained: set[str] = set()  # options whose values belong to the trained networks
        self.option("--debug", flag, False, "full tracebacks; train.py: and one short epoch")

    def group(self, title: str, trained: bool = False) -> Add:
        """Begin a group of options; returns its :meth:`option`.

        ``trained``: testing takes the values from the options saved beside the checkpoint.
        """
        group = self.add_argument_group(title)
        return lambda *line, **more: self.option(*line, to=group, trained=trained, **more)

    def option(
        self,
        spellings: str,  # "--name --id", "--augment | --no_augment", "photos --dataroot"
        kind: Kind,
        default: Any,  # REQUIRED: there is none
        help: str,
        dest: str | None = None,  # name of the value; default: the first long spelling
        metavar: str | tuple[str, ...] | None = None,
        to: Any = None,  # group
        trained: bool = False,  # see :meth:`group`
    ) -> None:
        """Declare an option."""
        on, _, off = (part.split() for part in spellings.partition("|"))
        line: dict[str, Any] = {"help": help, "default": default}
        if on[0].startswith("-"):
            line |= {"dest": dest} if dest else {}
            line |= {"required": True, "default": None} if default is REQUIRED else {}
        else:  # without dashes, but also accepted with them
            line |= {"default": None}
            on, self.also_positional = on[:1], tuple(on[1:])
        if kind is flag:
            line |= {"action": _Switch, "off": off}
        else:
            line |= {"action": _Store, "type": kind, "metavar": metavar}
            line |= {"nargs": kind.nargs} if kind.nargs else {}
            if metavar is None and on[0].startswith("-"):
                few = 0 < len(" ".join(kind.choices)) < 60
                word = {int: "N", float: "X"}.get(kind.python, "WORD")
                line |= {"metavar": "{" + ",".join(kind.choices) + "}" if few else word}
        action = (to or self).add_argument(*on, *off, **line)
        # a model may have set it before the data set declares it
        action.default = self._defaults.get(action.dest, action.default)
        if trained:
            self.trained.add(action.dest)

    def kinds(self) -> dict[str, Kind]:
        """Kind of every option, by the name of its value."""
        return {action.dest: action.type for action in self._actions if action.dest != "help"}

    def value_name(self, word: str) -> str:
        """The name of the value of an option, from one of its spellings without dashes."""
        action = self._option_string_actions.get(f"--{word}")
        if action is None:
            raise UserError(f"unknown option {word}{self._hint('--' + word)}")
        return action.dest

    def take_defaults(self, values: Mapping[str, Any], origin: str) -> None:
        """Take ``values`` as defaults of the options that exist; others are left alone.

        A value that its option cannot have is a UserError which begins with ``origin``.
        """
        kinds = self.kinds()
        for key, value in values.items():
            if key not in kinds or (value is None and self.get_default(key) is None):
                continue
            try:
                self.set_defaults(**{key: kinds[key].whole(value)})
            except ArgumentTypeError as error:
                raise UserError(f"{origin}{key}: {error}") from error

    def error(self, message: str) -> NoReturn:
        problem = re.sub(r"^argument (?:-\w/)?([^/:]+)[^:]*: ", r"\1: ", message)
        raise UserError(f"{problem}; see --help")

    def parse(self, argv: Sequence[str] | None = None) -> Namespace:
        """Parse ``argv``, by default the command line; an unknown option is a UserError that
        names the nearest known one."""
        argv = sys.argv[1:] if argv is None else list(argv)
        for i, word in enumerate(argv):  # --dataroot X or --dataroot=X as X
            if word.split("=")[0] in self.also_positional:
                value = [word.partition("=")[2]] if "=" in word else argv[i + 1 : i + 2]
                argv = [*value, *argv[:i], *argv[i + 2 - ("=" in word) :]]
                break
        opt, unknown = self.parse_known_args(argv)
        if unknown:
            word = unknown[0].split("=")[0]
            raise UserError(f"unknown option {word}{self._hint(word)} (--help lists all)")
        return opt

    def _hint(self, word: str) -> str:
        """What an unknown option may have been meant for."""
        for meant in SYNONYMS.get(word.lstrip("-").replace("-", "_").lower(), ()):
            if meant in self._option_string_actions and meant != word:
                return f"; here it is called {meant}"
        owners = {} if word in ("-", "--") or not word.startswith("-") else options_elsewhere()
        if word in owners:
            return f": it is an option of {owners[word]}"
        near = get_close_matches(word, [*self._option_string_actions, *owners], n=1)
        if not near:
            return ""
        where = "" if near[0] in self._option_string_actions else f" of {owners[near[0]]}"
        return f"; did you mean {near[0]}{where}?"


def options_elsewhere() -> dict[str, str]:
    """Spellings of the options of train.py and test.py, and where they belong."""
    from options.test_options import TestOptions
    from options.train_options import TrainOptions

    owners: dict[str, str] = {}
    for command, options in (("train.py", TrainOptions()), ("test.py", TestOptions())):
        for owner, parser in options.parsers():
            for word in parser._option_string_actions:
                owners.setdefault(word, f"{command}{owner}")
    return owners


# ---- words that several commands share -----------------------------------------------------------

BATCH = "--batchSize --batch_size --batchsize --batch"
DATA = "--dataroot --root"
DEVICE = "--gpu_ids --gpu_id --device"
OUTPUT = "-o --output --out"
RESULTS = "--results_dir --results --distorated_path"
WORKERS = "--nThreads --num_workers --workers"


def add_device(add: Add) -> None:
    """Where to compute; ``opt.device`` is a word for ``choose_device``."""
    add(DEVICE, text, None, "cpu or -1, cuda, 0, cuda:1; default: a GPU, if any", "device")


def add_batch(add: Add, default: int, help: str) -> None:
    """Samples at once, as ``opt.batch_size``."""
    add(BATCH, positive_int, default, help, "batch_size")


def add_workers(add: Add, default: int, help: str) -> None:
    """Processes besides this one, as ``opt.workers``."""
    add(WORKERS, natural, default, help, "workers")


def add_run(add: Add) -> None:
    """Which run: ``opt.checkpoints_dir`` and ``opt.name``; :func:`take_checkpoint` completes it."""
    add("--name --id", folder_name, "experiment", "name of the run, a folder in --checkpoints_dir")
    add("--checkpoints_dir", text, "./checkpoints", "folder of all runs")
    add("--checkpoint", text, None, "folder of the run, instead of --checkpoints_dir and --name")


def take_checkpoint(opt: Namespace) -> Namespace:
    """``--checkpoint FOLDER`` said as ``--checkpoints_dir`` and ``--name``."""
    if opt.checkpoint is not None:
        path = Path(opt.checkpoint)
        opt.checkpoints_dir, opt.name = str(path.parent), path.name or path.resolve().name
    del opt.checkpoint
    return opt
