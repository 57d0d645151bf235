"""GFLA's augmentation for Market-1501: one random affine map for an image and its keypoints."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from util.errors import UserError
from util.image import OUTSIDE
from util.kinds import flag, number, several
from util.skeleton import present

Range = tuple[float, float] | None  # (lowest, highest); None: off
# A target image moves less than a source image, and its size is never changed.
TARGET_ANGLE, TARGET_SHIFT = 0.2, 0.5


@dataclass(frozen=True)
class AffineRanges:
    """What may be drawn for a source image; ``None`` switches one kind of change off."""

    angle: Range = None  # degrees
    shift: Range = None  # pixels at load size, drawn for x and for y
    scale: Range = None


def add_augmentation_options(parser) -> None:
    """Options of training data sets; a model switches them on by ``set_defaults(augment=True)``."""
    add = parser.group("augmentation (default ranges: as the data set's paper has them)")
    moved = "random affine maps of training images (market: published ranges)"
    add("--augment | --no_augment", flag, False, moved)
    for name, unit in (("angle", "degrees"), ("shift", "pixels"), ("scale", "times the size")):
        line = f"range of the random {name} with --augment, in {unit}"
        add(f"--{name}", several(number(), 2), None, line, metavar=("LOW", "HIGH"))


def ranges_from_options(opt: Namespace, published: AffineRanges) -> AffineRanges:
    """The ranges that the options ask for, ``published`` where they say nothing."""
    if not getattr(opt, "augment", False):
        return AffineRanges()
    given = {name: getattr(opt, name) for name in ("angle", "shift", "scale")}
    for name, value in given.items():
        if value is not None and (value[0] > value[1] or (name == "scale" and value[0] <= 0)):
            raise UserError(
                f"--{name} {value[0]:g} {value[1]:g}: expected a lower and a higher bound"
                + (", both more than 0" if name == "scale" else "")
            )
    return replace(published, **{k: tuple(v) for k, v in given.items() if v is not None})


@dataclass(frozen=True)
class AffineMap:
    """Rotation and scaling about the centre (W/2 + 0.5, H/2 + 0.5), then a shift."""

    angle: float = 0.0  # degrees, clockwise on the screen
    shift_x: float = 0.0  # pixels
    shift_y: float = 0.0
    scale: float = 1.0

    def matrix(self, size: tuple[int, int]) -> np.ndarray:
        """3 x 3 map of (x, y, 1) in an image of ``size`` (h, w) to where it moves."""
        height, width = size
        centre = np.array([width / 2 + 0.5, height / 2 + 0.5])
        c, s = np.cos(np.deg2rad(self.angle)), np.sin(np.deg2rad(self.angle))
        matrix = np.eye(3)
        matrix[:2, :2] = self.scale * np.array([[c, -s], [s, c]])
        matrix[:2, 2] = np.add(centre, (self.shift_x, self.shift_y)) - matrix[:2, :2] @ centre
        return matrix

    def of_image(self, image: Image.Image) -> Image.Image:
        """The moved image: nearest neighbour in PIL's arithmetic, grey where nothing moved to."""
        inverse = np.linalg.inv(self.matrix((image.height, image.width)))[:2].flatten().tolist()
        affine, nearest = Image.Transform.AFFINE, Image.Resampling.NEAREST
        return image.transform(image.size, affine, inverse, nearest, fillcolor=OUTSIDE)

    def of_keypoints(self, keypoints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Moved keypoints (J, 2), (y, x) in the frame ``size`` (h, w); missing joints stay -1."""
        points = np.asarray(keypoints, dtype=np.float64)
        matrix = self.matrix(size)
        moved = (points[:, ::-1] @ matrix[:2, :2].T + matrix[:2, 2])[:, ::-1]
        return np.where(present(points)[:, None], moved, -1.0)


def draw_affine(rng: np.random.Generator, ranges: AffineRanges, is_target: bool) -> AffineMap:
    """Draw angle, scale, shift_x, shift_y in this order from ``rng``; nothing for what is off."""
    order = ((ranges.angle, 0.0), (ranges.scale, 1.0), (ranges.shift, 0.0), (ranges.shift, 0.0))
    angle, scale, x, y = (rng.uniform(*bounds) if bounds else off for bounds, off in order)
    if is_target:
        return AffineMap(angle * TARGET_ANGLE, x * TARGET_SHIFT, y * TARGET_SHIFT)
    return AffineMap(angle, x, y, scale)
