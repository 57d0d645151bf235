"""Is the source image really used? Compare a model with two baselines on the test pairs.

For every pair the generated image is scored against the ground truth (PSNR and SSIM of the
``standard`` view of the images: no padding), beside two baselines: the source photo itself
("copy"), and the image that the same model makes of a *different person's* photo in the same pose
("wrong source").

    python -m script.baselines --name RUN --dataroot dataset/synthetic
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from tqdm import tqdm

from data import create_dataset
from data.loader import create_dataloader
from models import create_model
from options.test_options import TestOptions
from util.errors import UserError
from util.files import write_atomically
from util.image import resize_linear
from util.metrics.evaluate import score_pairs
from util.names import is_flat_deepfashion_name, stem, unflatten_deepfashion_name
from util.run.main import run_main
from util.tensors import to_uint8

VIEWS = ("generated", "copy", "wrong source")
Pair = tuple[np.ndarray, np.ndarray]


def identity_of(name: str) -> str:
    """The person in a flat DeepFashion name (gender, category and id) or a Market name (the first
    field)."""
    if is_flat_deepfashion_name(name):
        return unflatten_deepfashion_name(name).rpartition("/")[0]
    return stem(name).split("_")[0]


def other_person(dataset, index: int) -> int:
    """Index of the next pair whose source shows a different person."""
    person = identity_of(dataset.pairs[index][0])
    for step in range(1, len(dataset)):
        other = (index + step) % len(dataset)
        if identity_of(dataset.pairs[other][0]) != person:
            return other
    raise UserError("all test pairs show the same person; a second one is needed for comparison")


def generated_views(model, dataset, loader, size: tuple[int, int]) -> Iterator[dict[str, Pair]]:
    """Per test pair: (ground truth, image) for each of VIEWS, uint8 (h, w, 3) at ``size``."""
    index = 0
    for batch in tqdm(loader, desc="compare", unit="batch"):
        inputs = model.prepare(batch)
        own = to_uint8(model.generate(inputs)["fake_target"])
        count = len(own)
        others = [dataset[other_person(dataset, i)] for i in range(index, index + count)]
        swapped = dict(batch)
        for key in ("source_image", "source_keypoints"):
            swapped[key] = batch[key].new_empty(batch[key].shape)
            for i, other in enumerate(others):
                swapped[key][i] = other[key]
        swapped["source_name"] = [other["source_name"] for other in others]
        wrong = to_uint8(model.generate(model.prepare(swapped))["fake_target"])
        for i in range(count):
            pixels = {
                role: batch[f"{role}_image"][i].permute(1, 2, 0).numpy()
                for role in ("source", "target")
            }
            truth = resize_linear(pixels["target"], size)
            images = (own[i], pixels["source"], wrong[i])
            yield {v: (truth, resize_linear(x, size)) for v, x in zip(VIEWS, images, strict=True)}
        index += count


def compare(opt) -> dict[str, dict[str, float]]:
    """PSNR (dB) and SSIM of the three views, means over all test pairs."""
    model = create_model(opt)
    model.load_networks(opt.which_epoch, labels=("G",))
    model.eval_mode()
    dataset = create_dataset(opt)
    loader = create_dataloader(dataset, opt)
    sums: dict[str, dict[str, float]] = {view: {} for view in VIEWS}
    count = 0
    for pair in generated_views(model, dataset, loader, opt.annotation_size):
        count += 1
        for view in VIEWS:
            scores = score_pairs([pair[view]], "standard", ("psnr", "ssim"))
            for name, value in scores.items():
                sums[view][name] = sums[view].get(name, 0.0) + value
    return {
        v: {k: total / count for k, total in s.items()} | {"pairs": count} for v, s in sums.items()
    }


def main() -> None:
    """Print the comparison and write it to ``<results_dir>/baselines.json``."""
    opt = TestOptions().parse(announce=False)
    table = compare(opt)
    columns = [k for k in table["generated"] if k != "pairs"]
    print(
        f"{table['generated']['pairs']} test pairs".ljust(28)
        + "".join(c.rjust(14) for c in columns)
    )
    for view, row in table.items():
        print(view.ljust(28) + "".join(f"{row[c]:14.4f}" for c in columns))
    for view in VIEWS[1:]:
        gains = (table["generated"][c] - table[view][c] for c in columns)
        print(f"generated minus {view}".ljust(28) + "".join(f"{g:+14.4f}" for g in gains))
    folder = Path(opt.results_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "baselines.json", json.dumps(table, indent=1).encode())


if __name__ == "__main__":
    run_main(main)
