"""A person out of a photograph and back: the crop a network sees, and the pasted result.

First the crop around a person, of any generator; then :func:`fit`, the fixed 256 x 256 geometry of
MAGPT's published inference code. Boxes and keypoints are in pixels of the photo, (y, x).
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import uniform_filter1d

from util.errors import UserError
from util.image import OUTSIDE
from util.skeleton import MISSING, present

SIZE = 256  # of both sides of a picture that MAGPT's published API works on
WHITE = (255, 255, 255)

# Added around the joints, as shares of the larger of their height and (frame-shaped) width.
MARGIN_TOP = 0.15  # hair above the eyes
MARGIN_BOTTOM = 0.12  # feet below the ankles, and the seam below the feet
MARGIN_SIDE = 0.10
SEAM = 0.03  # share of the crop over which a pasted result fades into the photo
CAST = 30.0  # grey levels; edges that differ by much more show another background, not a cast


@dataclass(frozen=True)
class Box:
    """A rectangle in a photo, in pixels; it may reach beyond the photo."""

    top: int
    left: int
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


def whole_picture(image: Image.Image) -> Box:
    """The box of the uncropped picture."""
    return Box(0, 0, image.height, image.width)


def person_box(
    keypoints: np.ndarray,  # (K, 2), (y, x), -1 = missing
    frame: tuple[int, int],
    within: tuple[int, int] | None = None,  # (h, w) of the photo
) -> Box:
    """The box with the shape of ``frame`` (h, w) that holds a person with some margin.

    With ``within`` it lies inside the photo if that costs no more than two thirds of the margin.
    """
    points = np.asarray(keypoints)[present(np.asarray(keypoints))]
    if not len(points):
        raise UserError("no joint is given; a person cannot be cropped without any")
    (top, left), (bottom, right) = points.min(axis=0), points.max(axis=0)
    aspect = frame[0] / frame[1]
    extent = max(bottom - top, (right - left) * aspect, 8.0)

    def width_with(margin: float) -> int:
        high = bottom - top + margin * (MARGIN_TOP + MARGIN_BOTTOM) * extent
        wide = right - left + margin * 2 * MARGIN_SIDE * extent / aspect
        return math.ceil(max(wide, high / aspect))

    width = width_with(1.0)
    if within is not None:
        width = min(width, max(int(min(within[1], within[0] / aspect) + 1e-6), width_with(1 / 3)))
    height = round(width * aspect)
    middle_y = (top + bottom + (MARGIN_BOTTOM - MARGIN_TOP) * extent) / 2
    place = [round(middle_y - height / 2), round((left + right) / 2 - width / 2)]
    if within is not None:  # reaches beyond the photo as little as it can
        spare = np.array(within) - (height, width)
        place = np.clip(place, np.minimum(spare, 0), np.maximum(spare, 0)).tolist()
    return Box(*place, height, width)


def cut(image: Image.Image, box: Box) -> Image.Image:
    """The content of a box; :data:`util.image.OUTSIDE` where it reaches beyond the photo."""
    canvas = Image.new("RGB", (box.width, box.height), OUTSIDE)
    canvas.paste(image, (-box.left, -box.top))
    return canvas


def to_frame(keypoints: np.ndarray, box: Box, frame: tuple[int, int]) -> np.ndarray:
    """Photo keypoints (18, 2) as whole pixels of ``frame`` (h, w), onto which the box is scaled."""
    points = np.asarray(keypoints, dtype=np.float64)
    return marked(np.floor(_scaled(points, box, frame)), present(points), 1.0)


def in_photo(keypoints: np.ndarray, box: Box, frame: tuple[int, int]) -> np.ndarray:
    """Keypoints of a ``frame`` (h, w) in pixels of the photo; the other way of ``to_frame``."""
    points = np.asarray(keypoints, dtype=np.float64)
    moved = points * np.array(box.size) / np.array(frame) + (box.top, box.left)
    return marked(moved, present(points))


def _scaled(points: np.ndarray, box: Box, frame: tuple[int, int]) -> np.ndarray:
    return (points - (box.top, box.left)) * np.array(frame) / np.array(box.size)


def marked(points: np.ndarray, known: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """``points`` with -1 where they are not known, and only there: just outside is not missing."""
    points = np.where(points == MISSING, MISSING - step, points)
    return np.where(known[..., None], points, float(MISSING))


STILL = 1.35  # a movement that needs a box so many times as high as one pose's is followed
FOLLOWING = 1.0  # seconds over which the following box is averaged


def movement_to_frame(poses: np.ndarray, frame: tuple[int, int], fps: float) -> np.ndarray:
    """Poses (N, 18, 2) in pixels of a video -> the same person in ``frame`` (h, w), real numbers.

    Every pose is scaled alike: by the box that holds the whole movement or, when the person moves
    through the picture, by a box of one size that follows smoothly. Missing joints stay missing.
    """
    poses = np.asarray(poses, dtype=np.float64)
    known = present(poses)
    whole = person_box(poses.reshape(-1, 2), frame)
    seen = np.flatnonzero(known.any(axis=1))
    boxes = [person_box(poses[i], frame) for i in seen]
    height = float(np.quantile([box.height for box in boxes], 0.95))
    if whole.height <= STILL * height:
        scaled = _scaled(poses, whole, frame)
    else:
        centres = [(box.top + box.height / 2, box.left + box.width / 2) for box in boxes]
        times = np.arange(len(poses))
        path = np.stack([np.interp(times, seen, axis) for axis in np.array(centres).T], axis=1)
        path = uniform_filter1d(path, max(1, round(FOLLOWING * fps)), axis=0, mode="nearest")
        scaled = (poses - path[:, None]) * (frame[0] / height) + np.array(frame) / 2
    return marked(scaled, known)


def paste(image: Image.Image, result: Image.Image, box: Box) -> Image.Image:
    """A copy of the photo with ``result`` scaled into the box; its inner edges fade in.

    The colours of ``result`` are moved smoothly so that they meet the photo at those edges.
    """
    result = _without_cast(result, cut(image, box), _inner_sides(box, image.size))
    result = result.resize((box.width, box.height), Image.Resampling.BICUBIC)
    out = image.copy()
    mask = Image.fromarray((_fade(box, image.size) * 255).astype(np.uint8))
    out.paste(result, (box.left, box.top), mask)
    return out


def _inner_sides(box: Box, photo_size: tuple[int, int]) -> tuple[bool, bool, bool, bool]:
    """Whether the top, left, bottom, right edge of a box lies inside the photo (w, h)."""
    width, height = photo_size
    bottom, right = box.top + box.height, box.left + box.width
    return box.top > 0, box.left > 0, bottom < height, right < width


def _without_cast(
    result: Image.Image,
    under: Image.Image,  # what the photo shows there, any size
    sides: tuple[bool, bool, bool, bool],  # top, left, bottom, right: edges that must meet
) -> Image.Image:
    """``result`` plus its difference from ``under`` along the edges, spread over the inside.

    A plain wall that the generator paints a few levels too dark would otherwise show as a
    rectangle. The spread is the mean of the edges weighted by 1 / distance^2.
    """
    pixels = np.asarray(result, dtype=np.float32)
    gap = np.asarray(under.resize(result.size, Image.Resampling.BOX), dtype=np.float32) - pixels
    total, weights = np.zeros_like(pixels), np.zeros((*pixels.shape[:2], 1), np.float32)
    for turns, side in enumerate(sides):  # each edge is turned to the top
        if side:
            edge = _edge_profile(np.rot90(gap, -turns))
            distance = np.arange(pixels.shape[turns % 2], dtype=np.float32)[:, None, None] + 0.5
            total += np.rot90(edge / distance**2, turns)
            weights += np.rot90(np.broadcast_to(distance**-2, (len(distance), len(edge), 1)), turns)
    moved = pixels + total / np.maximum(weights, 1e-9)
    return Image.fromarray(np.rint(moved.clip(0, 255)).astype(np.uint8))


def _edge_profile(gap: np.ndarray) -> np.ndarray:
    """Smooth differences (w, 3) along the top edge of (h, w, 3); large ones count as none."""
    edge = gap[: max(1, round(SEAM * len(gap)))].mean(axis=0)
    window = max(1, len(edge) // 10)
    edge = uniform_filter1d(edge, window, axis=0, mode="nearest")
    return edge / (1 + (np.abs(edge) / CAST) ** 4)


def _fade(box: Box, photo_size: tuple[int, int]) -> np.ndarray:
    """Opacity (h, w) of a pasted box: 1 inside, falling to 0 at edges that are not the photo's."""
    top, left, bottom, right = _inner_sides(box, photo_size)

    def ramp(length: int, rises: bool, falls: bool) -> np.ndarray:
        rising = ((np.arange(length) + 0.5) / max(1.0, SEAM * length)).clip(max=1)
        return np.minimum(rising if rises else 1, rising[::-1] if falls else np.ones(length))

    return np.outer(ramp(box.height, top, bottom), ramp(box.width, left, right))


def _strip(width: int, height: int) -> tuple[int, int, int]:
    """Of a width x height picture at SIZE rows: its columns, how many of them are kept (at most
    11/16 of SIZE), and where these begin."""
    columns = SIZE * width // height
    if columns < 1:
        raise UserError(
            f"the picture is {width} x {height} pixels, too narrow for a person; crop it to the "
            "person"
        )
    kept = min(columns, SIZE * 11 // 16)
    return columns, kept, round((columns - kept) / 2)


def fit(image: Image.Image) -> Image.Image:
    """An RGB picture as SIZE x SIZE: scaled to that height, at most 11:16 wide, on white.

    Wider pictures lose their left and right sides.
    """
    columns, kept, left = _strip(*image.size)
    image = image.resize((columns, SIZE), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (SIZE, SIZE), WHITE)
    canvas.paste(image.crop((left, 0, left + kept, SIZE)), (_margin(kept), 0))
    return canvas


def fit_keypoints(
    keypoints: np.ndarray,  # (18, 2), (y, x) pixels of the picture, -1 = missing
    image_size: tuple[int, int],  # (h, w) of the picture
) -> np.ndarray:
    """Whole-pixel keypoints after :func:`fit`; joints in a side that is cut off become missing."""
    height, width = image_size
    columns, kept, left = _strip(width, height)
    points = np.asarray(keypoints, dtype=np.float64)
    scale = np.array([SIZE / height, columns / width])
    moved = np.rint((points + 0.5) * scale - 0.5) - np.array([0, left])  # pixel centres
    inside = ((moved >= 0) & (moved < (SIZE, kept))).all(axis=-1)
    placed = moved + np.array([0, _margin(kept)])
    return np.where((inside & present(points))[:, None], placed, MISSING)


def crop_result(image: Image.Image, reference_size: tuple[int, int]) -> Image.Image:
    """Middle columns of a result, as wide as the reference picture (w, h) is after :func:`fit`."""
    _, kept, _ = _strip(*reference_size)
    left = round((image.width - kept) / 2)
    return image.crop((left, 0, left + kept, image.height))


def _margin(kept: int) -> int:
    """White columns left of a strip: the published code pads by p all around, crops the centre.

    For odd p this is one more than :func:`crop_result` cuts off; both are as published.
    """
    padding = SIZE - kept
    return padding - round(padding / 2)
