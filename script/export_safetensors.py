"""Convert network files between PyTorch's format and safetensors.

    python -m script.export_safetensors checkpoints/RUN --which_epoch latest
    python -m script.export_safetensors latest_net_G.safetensors -o latest_net_G.pth

A run's folder converts ``<which_epoch>_net_*.pth``, the published and the own ones alike. test.py,
--continue_train and the API read ``<which_epoch>_net_G.safetensors`` where there is no .pth file.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import torch

from options.parser import OUTPUT, Parser, add_debug
from util.errors import UserError
from util.kinds import REQUIRED, flag, folder_name, text
from util.run import checkpoint
from util.run.checkpoint import SAFETENSORS, write_safetensors
from util.run.main import run_main


def build_parser() -> Parser:
    """The command line of this script."""
    parser = Parser(__doc__)
    add = parser.option
    add("source --checkpoint", text, REQUIRED, "a run's folder, a .pth file or a .safetensors file")
    add(OUTPUT, text, None, "file to write; default: beside it")
    add("--which_epoch", folder_name, "latest", "checkpoint of a folder")
    add("--overwrite", flag, False, "replace existing files")
    add_debug(add)
    return parser


def convert(source: Path, target: Path, overwrite: bool = False) -> Path:
    """Write the state dict of ``source`` to ``target`` in the format of its suffix."""
    if target.suffix not in (SAFETENSORS, ".pth"):
        raise UserError(f"{target}: expected a name that ends in .pth or {SAFETENSORS}")
    if target.exists() and not overwrite:
        raise UserError(f"{target} exists; pass --overwrite to replace it, or another --output")
    state = checkpoint.load(source)
    if not isinstance(state, Mapping) or not all(torch.is_tensor(v) for v in state.values()):
        raise UserError(
            f"{source} holds more than a network; expected a *_net_*.pth or {SAFETENSORS} file"
        )
    if target.suffix == SAFETENSORS:
        write_safetensors(target, state)
    else:
        checkpoint.save_state(state, target)
    return target


def sources_of(source: Path, which: str) -> list[Path]:
    """The files that are meant: one, or the networks of a checkpoint in a folder."""
    if not source.is_dir():
        return [source]
    files = sorted(source.glob(f"{which}_net_*.pth"))
    if not files:
        raise UserError(f"{source} holds no {which}_net_*.pth; check the folder and --which_epoch")
    return files


def main() -> None:
    """Convert every file that the command line names, and say where the results are."""
    opt = build_parser().parse()
    sources = sources_of(Path(opt.source), opt.which_epoch)
    if opt.output is not None and len(sources) > 1:
        raise UserError(f"--output names one file, but {opt.source} holds {len(sources)} networks")
    for source in sources:
        suffix = ".pth" if source.suffix == SAFETENSORS else SAFETENSORS
        target = Path(opt.output) if opt.output is not None else source.with_suffix(suffix)
        print(convert(source, target, opt.overwrite))


if __name__ == "__main__":
    run_main(main)
