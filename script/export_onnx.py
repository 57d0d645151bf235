"""Write a trained generator as one ONNX file and compare it with PyTorch.

    python -m script.export_onnx --checkpoint checkpoints/RUN -o model.onnx

The batch size is free, the picture size is that of the training. The file also holds the training
options: PoseTransfer.from_checkpoint("model.onnx") and python -m script.transfer --checkpoint
model.onnx need nothing else.
"""

import copy
import sys
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import torch

from api import PoseTransfer
from models.base_model import BaseModel, Batch
from models.onnx_graph import OUTPUT, OnnxGenerator, export, with_noise
from options import parser as words
from options.parser import Parser
from script.transfer import add_checkpoint_options, load
from util.errors import UserError
from util.files import check_writable, make_folder, replacing
from util.kinds import REQUIRED, text
from util.run.main import run_main
from util.skeleton import JOINTS

TOLERANCE = 1e-4  # of outputs in [-1, 1]
GREY_LEVEL = 2 / 255


def random_batch(
    count: int, load_size: tuple[int, int], annotation_size: tuple[int, int], seed: int
) -> dict[str, Any]:
    """A batch as a data set gives it, of noise."""
    draw = torch.Generator().manual_seed(seed)
    frame = torch.tensor(annotation_size, dtype=torch.float64)

    def keypoints() -> torch.Tensor:
        points = torch.rand(count, len(JOINTS), 2, generator=draw, dtype=torch.float64) * frame
        points[:, ::7] = -1
        return points

    pixels = torch.randint(0, 256, (count, 3, *load_size), generator=draw, dtype=torch.uint8)
    return {
        "source_image": pixels,
        "source_keypoints": keypoints(),
        "target_keypoints": keypoints(),
        "source_name": [f"source {i}" for i in range(count)],
        "target_name": [f"target {i}" for i in range(count)],
    }


def rounding_of(model: BaseModel, inputs: Batch, output: torch.Tensor) -> float:
    """How far a float32 output is from the float64 one: a network that amplifies rounding (an
    unfinished step-by-step one) cannot agree better with any other library."""
    exact = copy.deepcopy(model)
    for network in exact.networks.values():
        network.double()
    doubles = {
        k: v.double() if torch.is_tensor(v) and v.is_floating_point() else v
        for k, v in inputs.items()
    }
    return (exact.infer(doubles)[OUTPUT] - output).abs().max().item()


def export_checked(transfer: PoseTransfer, path: Path) -> tuple[list[str], float, float]:
    """Export, then run 1 and 3 random samples through PyTorch and ONNX Runtime.

    Returns the names of the inputs, the largest difference from PyTorch's float32 output, and of
    that output from float64, which is measured where the first is too large.

    Raises a UserError, and leaves no file, when they differ by more than the tolerance, unless it
    is rounding: less than a grey level, and not far from what PyTorch itself differs from float64.
    """
    model, sizes = transfer.model, (transfer.load_size, transfer.annotation_size)
    with replacing(path) as temporary:
        example = model.prepare(random_batch(2, *sizes, seed=0))
        names, most, rounding = export(model, example, temporary, vars(model.opt)), 0.0, 0.0
        generator = OnnxGenerator(temporary)
        for count in (1, 3):
            inputs = with_noise(model, model.prepare(random_batch(count, *sizes, seed=count)))
            expected = model.infer(inputs)[OUTPUT]
            difference = (expected - generator.infer(inputs)[OUTPUT]).abs().max().item()
            most = max(most, difference)
            if not difference <= TOLERANCE:
                rounding = max(rounding, rounding_of(model, inputs, expected))
        if not most <= max(TOLERANCE, min(20 * rounding, GREY_LEVEL)):
            raise UserError(
                f"{path} was not written: ONNX Runtime and PyTorch differ by {most:.1e} on random "
                f"inputs, expected at most {TOLERANCE:.0e}; try other versions of torch and "
                "onnxruntime"
            )
    return names, most, rounding


def main(argv: list[str] | None = None) -> None:
    """Load, export, check, report."""
    parser = Parser(__doc__)
    add_checkpoint_options(parser)
    parser.option(words.OUTPUT, text, REQUIRED, "file to write, .onnx")
    opt = parser.parse(argv)
    path = Path(opt.output)
    if path.suffix != ".onnx":
        raise UserError(f"--output {path}: expected a name that ends in .onnx")
    check_writable(path)
    transfer = load(opt, "cpu")
    make_folder(path.parent)
    names, difference, rounding = export_checked(transfer, path)
    size = path.stat().st_size / 1e6
    print(f"wrote {path} ({size:.1f} MB), inputs {', '.join(names)}; output {OUTPUT}")
    print(f"largest difference from PyTorch on random inputs: {difference:.1e} of -1 ... 1")
    if rounding:
        print(
            f"that is rounding, which this generator amplifies: PyTorch's own float32 result is "
            f"{rounding:.1e} from the float64 one"
        )


if __name__ == "__main__":
    run_main(main)
