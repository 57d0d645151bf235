"""Is the source image really used? Compare a model with two baselines on the test pairs.

    python -m script.baselines --name RUN --dataroot dataset/synthetic

For every pair the generated image is scored against the photograph of the target, beside two
baselines: the source photograph itself ("copy"), and the image that the same model makes of a
*different person's* photograph in the same pose ("wrong source"). PSNR and SSIM are those of
``script/metrics.py --protocol standard`` on the files that test.py writes. With --result_size all
are compared at that size, such as that of a small network, to which photographs are brought with
antialiasing; without it at the photographs' own.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import numpy as np
import torch
from PIL import Image

from data import create_dataset
from data.loader import create_dataloader
from data.prepare.identities import identity_of
from models import load_for_test
from options.test_options import TestOptions
from util.errors import UserError
from util.files import check_writable, make_folder, write_file
from util.image import resize_linear
from util.metrics.pairs import ArrayPair, score_pair
from util.metrics.protocols import find_protocol
from util.metrics.registry import averaged, columns_for
from util.run.main import run_main
from util.run.progress import progress_bar
from util.show.visualizer import one_colour, spread, warn
from util.tensors import to_uint8

VIEWS = ("generated", "copy", "wrong source")


def other_person(dataset, index: int) -> int:
    """Index of the next pair whose source shows a different person."""
    identity = str if dataset.turns() else identity_of  # an object is turned from one source
    person = identity(dataset.pairs[index][0])
    for step in range(1, len(dataset)):
        other = (index + step) % len(dataset)
        if identity(dataset.pairs[other][0]) != person:
            return other
    raise UserError("all test pairs show the same person; a second one is needed for comparison")


def generated_views(
    model, dataset, loader, size: tuple[int, int]
) -> Iterator[dict[str, ArrayPair]]:
    """Per test pair: (ground truth, image) for each of VIEWS, uint8 (h, w, 3) at ``size``."""
    index = 0
    for batch in progress_bar(loader, desc="compare", unit="batch"):
        own = to_uint8(model.generate(model.prepare(batch))["fake_target"])
        count = len(own)
        others = [dataset[other_person(dataset, i)] for i in range(index, index + count)]
        swapped = dict(batch)
        for key in (k for k in batch if k.startswith("source_") and torch.is_tensor(batch[k])):
            swapped[key] = torch.stack([other[key] for other in others])
        swapped["source_name"] = [other["source_name"] for other in others]
        wrong = to_uint8(model.generate(model.prepare(swapped))["fake_target"])
        for i in range(count):
            if batch["source_name"][i] == batch["target_name"][i]:
                continue  # a copy would be perfect: one view of a turned object is its source
            photos = []  # files, which the network's size has not touched, where there are any
            for role in ("source", "target"):
                pixels = dataset.photograph(batch[f"{role}_name"][i])
                sample = batch[f"{role}_image"][i].permute(1, 2, 0).numpy()
                photos.append(sample if pixels is None else pixels)
            truth = resized(photos[1], size)
            images = (own[i], photos[0], wrong[i])
            yield {v: (truth, resized(x, size)) for v, x in zip(VIEWS, images, strict=True)}
        index += count


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, 3) -> (h, w, 3): enlarged as test.py does, made smaller with antialiasing."""
    if image.shape[0] <= size[0] and image.shape[1] <= size[1]:
        return resize_linear(image, size)
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def compare(opt) -> dict[str, dict[str, float]]:
    """PSNR (dB) and SSIM of the three views, means over all test pairs, and how many there are."""
    model, dataset = load_for_test(opt), create_dataset(opt)
    loader = create_dataloader(dataset, opt)
    columns = columns_for(find_protocol("standard"), ("psnr", "ssim"))
    values: dict[str, list[list[float]]] = {view: [] for view in VIEWS}
    spreads = []
    size = tuple(opt.result_size or dataset.annotation_size)
    for pair in generated_views(model, dataset, loader, size):
        spreads.append(spread(pair["generated"][1]))
        for view, images in pair.items():
            values[view].append(score_pair(*images, columns))
    if sentence := one_colour(spreads, "generated images"):
        warn(sentence)
    print(headline(size, tuple(opt.result_size or model.result_size), dataset.annotation_size))
    table = {}
    for view, rows in values.items():
        means = [float(averaged(each).mean()) for each in np.array(rows).T]
        table[view] = dict(zip((column.name for column in columns), means, strict=True))
        table[view]["pairs"] = len(rows)
    return table


def headline(
    size: tuple[int, int], of_results: tuple[int, int], of_photographs: tuple[int, int]
) -> str:
    """What the numbers are, and when metrics gives others for the files of test.py."""
    text = f"protocol standard, images of {size[0]} x {size[1]} px (height x width)"
    if size != of_results:
        return text + (
            f"; test.py writes {of_results[0]} x {of_results[1]}, of which script/metrics.py gives "
            "other numbers"
        )
    if size != tuple(of_photographs):
        return text + (
            f"; photographs of {of_photographs[0]} x {of_photographs[1]} px are brought to this "
            "size, which script/metrics.py does not do"
        )
    return text


def main() -> None:
    """Print the comparison and write it to ``<results_dir>/baselines.json``."""
    from pandas import DataFrame  # slow to import

    opt = TestOptions().parse()
    output = Path(opt.results_dir) / "baselines.json"
    check_writable(output)
    table = compare(opt)
    frame = DataFrame(table).drop("pairs").T
    gains = frame.loc["generated"] - frame.loc[list(VIEWS[1:])]
    gains = gains.rename(index="generated minus {}".format)
    print(f"{table['generated']['pairs']} test pairs")
    for rows, number in ((frame, "{:.4f}"), (gains, "{:+.4f}")):
        print(rows.to_string(float_format=number.format))
    make_folder(output.parent)
    write_file(output, json.dumps(table, indent=1).encode())


if __name__ == "__main__":
    run_main(main)
