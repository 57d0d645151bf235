"""Convert network files between PyTorch's format and safetensors.

    python -m script.export_safetensors checkpoints/RUN --which_epoch latest
    python -m script.export_safetensors latest_net_G.safetensors -o latest_net_G.pth

A run's folder converts ``<which_epoch>_net_*.pth``, the published and the own ones alike. test.py,
--continue_train and the API read ``<which_epoch>_net_G.safetensors`` where there is no .pth file.
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

from options.parser import OUTPUT, Parser
from util.errors import UserError
from util.kinds import REQUIRED, flag, folder_name, text
from util.run import checkpoint
from util.run.checkpoint import SAFETENSORS
from util.run.main import run_main


def convert(source: Path, target: Path, overwrite: bool) -> None:
    """Write the state dict of ``source`` to ``target`` in the format of its suffix."""
    if target.suffix not in (SAFETENSORS, ".pth"):
        raise UserError(f"{target}: expected a name that ends in .pth or {SAFETENSORS}")
    if target.exists() and not overwrite:
        raise UserError(f"{target} exists; pass --overwrite to replace it, or another --output")
    state = checkpoint.state_dict_of(checkpoint.load(source), str(source))
    write = checkpoint.save_state if target.suffix == ".pth" else checkpoint.write_safetensors
    write(state, target)


def main() -> None:
    """Convert every file that the command line names, and say where the results are."""
    parser = Parser(__doc__)
    add = parser.option
    add("source --checkpoint", text, REQUIRED, "a run's folder, a .pth file or a .safetensors file")
    add(OUTPUT, text, None, "file to write; default: beside it")
    add("--which_epoch", folder_name, "latest", "checkpoint of a folder")
    add("--overwrite", flag, False, "replace existing files")
    opt = parser.parse()
    source, pattern = Path(opt.source), f"{opt.which_epoch}_net_*.pth"
    sources = sorted(source.glob(pattern)) if source.is_dir() else [source]
    if not sources:
        raise UserError(f"{source} holds no {pattern}; check the folder and --which_epoch")
    if opt.output is not None and len(sources) > 1:
        raise UserError(f"--output names one file, but {source} holds {len(sources)} networks")
    for file in sources:
        suffix = ".pth" if file.suffix == SAFETENSORS else SAFETENSORS
        target = Path(opt.output) if opt.output is not None else file.with_suffix(suffix)
        convert(file, target, opt.overwrite)
        print(target)


if __name__ == "__main__":
    run_main(main)
