r"""Style mixing with a DPTN_step model: different source people at different steps.

    python -m script.style_mixing --name RUN --dataroot dataset/fashion
    python -m script.style_mixing --name RUN --dataroot dataset/fashion \
        --styles a.jpg b.jpg --pose c.jpg [--assign 1,1,2,2,2]

Without --assign, two styles A and B are swept: steps 1..k paint A, the others B, for k = 0..J. One
row of the picture shows A, B, the target pose and the J + 1 results, from pure B to pure A. Without
--styles, test pairs spread over the list give a row each, 8 or --how_many: A is the source of the
pair, B the next source in the list that shows another person.

With --assign (one style number a step), one image is made instead of a row, under the usual name
<A>_2_<target>_vis. The noise is that of the pair A -> target, so assigning 1 to every step gives
exactly the image of test.py.
"""

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import numpy as np
import torch

from data import create_dataset
from models import load_for_test
from models.dptn_step_model import DPTNStepModel
from options.parser import Parser
from options.test_options import TestOptions
from script.baselines import other_person
from util.errors import UserError
from util.image import resize_linear, save_image
from util.kinds import several, text
from util.names import result_name, stem
from util.run.device import seed_everything
from util.run.main import run_main
from util.run.progress import progress_bar
from util.show.grid import grid
from util.skeleton import skeleton_picture
from util.tensors import to_uint8

ROWS = 8  # rows of the picture when --how_many does not say otherwise


class Portrait(NamedTuple):
    """One image of the data set with its keypoints."""

    name: str
    image: torch.Tensor  # (3, H, W) uint8
    keypoints: torch.Tensor  # (18, 2)


class MixingOptions(TestOptions):
    """Options of test.py, and what is mixed."""

    def add_options(self, parser: Parser) -> None:
        super().add_options(parser)
        add = parser.group("style mixing")
        add("--styles", several(text), None, "images of the data set; default: of test pairs")
        add("--pose", text, None, "image of the data set with the target pose, for --styles")
        add("--assign", text, None, "styles of the steps, from 1 on: 1,1,2; default: sweep")

    def check(self, opt: Namespace) -> None:
        opt.results_dir = opt.results_dir or f"./results/{opt.name}_mixing"
        rows, opt.how_many = opt.how_many, None  # the whole list is needed to find other people
        super().check(opt)
        opt.how_many = rows
        if (opt.styles is None) != (opt.pose is None):
            raise UserError("--styles and --pose belong together; give both or neither")


def parse_assignment(text: str, steps: int, styles: int) -> list[int]:
    """``"1,1,2"`` -> [0, 0, 1]: the style of every step, counted from 0."""
    try:
        numbers = [int(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != steps or not all(1 <= n <= styles for n in numbers):
        raise UserError(
            f"--assign {text}: expected {steps} numbers from 1 to {styles} separated by commas, "
            "one for each step"
        )
    return [n - 1 for n in numbers]


def sweep(steps: int) -> list[list[int]]:
    """Assignments of two styles with crossover k = 0..J: steps 1..k take the first."""
    return [[0] * k + [1] * (steps - k) for k in range(steps + 1)]


def person(sample: dict, role: str) -> Portrait:
    """Source or target of a sample."""
    return Portrait(*(sample[f"{role}_{part}"] for part in ("name", "image", "keypoints")))


def find_person(dataset, name: str) -> Portrait:
    """An image of the data set by name."""
    for index, pair in enumerate(dataset.pairs):
        if name in pair:
            return person(dataset[index], ("source", "target")[pair.index(name)])
    raise UserError(
        f"{name} is in no pair of the data set; expected a name such as {dataset.pairs[0][0]}"
    )


def cases(opt: Namespace, dataset) -> Iterator[tuple[list[Portrait], Portrait]]:
    """(styles, target) of every row."""
    if opt.styles is not None:
        *styles, target = (find_person(dataset, name) for name in [*opt.styles, opt.pose])
        yield styles, target
        return
    count = min(len(dataset), opt.how_many or ROWS)
    for index in np.linspace(0, len(dataset) - 1, count).astype(int).tolist():
        sample, other = dataset[index], dataset[other_person(dataset, index)]
        yield [person(sample, "source"), person(other, "source")], person(sample, "target")


def mix(
    model: DPTNStepModel, styles: Sequence[Portrait], target: Portrait, assignment: Sequence[int]
) -> np.ndarray:
    """uint8 image (H, W, 3) in ``target``'s pose, with style ``assignment[j - 1]`` at step j."""
    prepared = [  # image and pose of a style stay together: the key stream encodes both
        model.prepare({
            "source_image": style.image[None],
            "source_keypoints": style.keypoints[None],
            "source_name": [style.name],
            "target_keypoints": target.keypoints[None],
            "target_name": [target.name],
        })
        for style in styles
    ]  # fmt: skip
    pairs = [(prepared[i]["source_image"], prepared[i]["source_pose"]) for i in assignment]
    outputs = model.mix_styles(pairs, prepared[0]["target_pose"], model.noise(prepared[0]))
    return resize_linear(to_uint8(outputs["fake_target"][0]), model.opt.annotation_size)


def mix_all(opt: Namespace, model: DPTNStepModel, dataset) -> list[Path]:
    """Write the images of all cases; returns their paths."""
    steps, folder, size = len(model.divisors), Path(opt.results_dir), opt.annotation_size
    rows, written = [], []
    for styles, target in progress_bar(list(cases(opt, dataset)), desc="mix", unit="row"):
        if opt.assign is not None:
            assignment = parse_assignment(opt.assign, steps, len(styles))
            written.append(folder / result_name(styles[0].name, target.name, opt.save_format))
            save_image(written[-1], mix(model, styles, target, assignment))
            continue
        if len(styles) != 2:
            raise UserError(f"a sweep mixes 2 styles, not {len(styles)}; use --assign")
        photos = [np.ascontiguousarray(s.image.permute(1, 2, 0).numpy()) for s in styles]
        rows.append([
            *(resize_linear(photo, size) for photo in photos),
            skeleton_picture(target.keypoints, size),
            *(mix(model, styles, target, assignment) for assignment in sweep(steps)),
        ])  # fmt: skip
    if rows:
        captions = ["A", "B", "pose", *(f"A until {k}" for k in range(steps + 1))]
        name = "mixing" if opt.styles is None else "_".join(map(stem, [*opt.styles, opt.pose]))
        written.append(folder / f"{name[:200]}.png")
        save_image(written[-1], grid(rows, captions))
    return written


def main() -> None:
    opt = MixingOptions().parse()
    seed_everything(opt.seed, opt.deterministic)
    model = load_for_test(opt)
    if not isinstance(model, DPTNStepModel):
        raise UserError(f"--model {opt.model} paints in one step; style mixing needs DPTN_step")
    written = mix_all(opt, model, create_dataset(opt))
    print(f"written: {', '.join(map(str, written[-3:]))}; {len(written)} in all")


if __name__ == "__main__":
    run_main(main)
