"""A data set of six small noise pictures in the published fashion layout, made in milliseconds."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from util.names import flatten_deepfashion_path, unflatten_deepfashion_name
from util.tables.patn import write_keypoints, write_pairs

PEOPLE = {"train": (1, 2), "test": (3,)}
VIEWS = ("1_front", "7_additional")


def paths(phase: str) -> list[str]:
    """DeepFashion paths of the images of one phase, two of each person."""
    return [
        f"WOMEN/Blouses_Shirts/id_{person:08d}/01_{view}.jpg"
        for person in PEOPLE[phase]
        for view in VIEWS
    ]


def names(phase: str) -> list[str]:
    return [flatten_deepfashion_path(path) for path in paths(phase)]


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    """A smooth random picture of size (width, height)."""
    small = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def keypoints(seed: int) -> np.ndarray:
    """Whole coordinates inside the 256 x 176 frame, one joint missing."""
    points = np.random.default_rng(seed).integers(0, 176, (18, 2)).astype(np.float64)
    points[seed % 18] = -1
    return points


def pairs(phase: str) -> list[tuple[str, str]]:
    images = names(phase)
    return [(a, b) for a in images for b in images if a != b and _person(a) == _person(b)]


def _person(name: str) -> str:
    return unflatten_deepfashion_name(name).split("/")[2]


def write(root: Path) -> Path:
    """Write images and tables of both phases."""
    for phase in PEOPLE:
        (root / phase).mkdir(parents=True)
        for seed, name in enumerate(names(phase)):
            picture(seed, (176, 256)).save(root / phase / name)
        write_pairs(root / f"fasion-resize-pairs-{phase}.csv", pairs(phase))
        table = {name: keypoints(seed) for seed, name in enumerate(names(phase))}
        write_keypoints(root / f"fasion-resize-annotation-{phase}.csv", table)
    return root


def write_release(root: Path, size: tuple[int, int] = (256, 256), folder: str = "img") -> Path:
    """Write the original files of the same people, and the lists."""
    for phase in PEOPLE:
        for seed, path in enumerate(paths(phase)):
            file = root / folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            picture(seed, size).save(file, quality=95)
        (root / f"{phase}.lst").write_text("".join(f"{name}\n" for name in names(phase)))
    return root


def contents(folder: Path) -> dict[str, bytes]:
    """File name -> bytes of everything in a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def jpeg(image: Image.Image) -> bytes:
    """An image as Pillow saves it by default."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()
