"""Which result belongs to which ground truth, and every reason why a folder cannot be measured.

Nothing is ever skipped in silence: a problem is an error that lists the files.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from skimage.draw import polygon
from tqdm import tqdm

from util.errors import UserError
from util.image import load_image, resize_linear
from util.metrics.protocols import Resize
from util.names import IMAGE_EXTENSIONS, parse_result_name, stem

# Limb list of the PATN, GFLA and DPTN scripts, joints counted from 1.
_LIMBS = (
    "2-3 2-6 3-4 4-5 6-7 7-8 2-9 9-10 10-11 2-12 12-13 13-14 2-1 1-15 15-17 1-16 16-18 2-17 2-18 "
    "9-12 12-6 9-3 17-18"
)
MASK_LIMBS = tuple(tuple(int(end) - 1 for end in limb.split("-")) for limb in _LIMBS.split())
RADIUS = 4
CLOSING = np.ones((5, 5), np.uint8)


def body_mask(keypoints: np.ndarray, size: tuple[int, int], radius: int = RADIUS) -> np.ndarray:
    """Mask of the body of 18 keypoints in an image of ``size`` (h, w): bool (H, W).

    ``keypoints`` (18, 2) are (y, x) in the image's frame, -1 = missing. Every limb with both ends
    is a bar ``2 * radius`` px wide, every joint a disc of the pixels nearer than ``radius``; then a
    dilation and an erosion with a 5x5 square. Limbs of length 0 have no direction and no bar.
    """
    joints = np.asarray(keypoints, dtype=np.float64).round().astype(int)
    present = (joints != -1).all(axis=1)
    mask = np.zeros(size, dtype=np.uint8)
    for a, b in MASK_LIMBS:
        if present[a] and present[b]:
            _fill_bar(mask, joints[a], joints[b], radius)
    rows, columns = np.ogrid[: size[0], : size[1]]
    for y, x in joints[present]:
        mask[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = 1
    # Outside the frame there is background for the dilation and body for the erosion.
    return cv2.morphologyEx(mask, cv2.MORPH_CLOSE, CLOSING).astype(bool)


def _fill_bar(mask: np.ndarray, start: np.ndarray, end: np.ndarray, radius: int) -> None:
    length = np.linalg.norm(end - start)
    if length == 0:
        return
    direction = (end - start) / length
    normal = np.array([-direction[1], direction[0]]) * radius
    corners = np.stack([start + normal, start - normal, end - normal, end + normal])
    mask[polygon(corners[:, 0], corners[:, 1], shape=mask.shape)] = 1


def apply_mask(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) with everything outside the mask (H, W) set to 0."""
    return image * mask[..., None].astype(image.dtype)


GENERATION_FILE = "generation.json"


def read_generation(results: str | Path) -> dict[str, object] | None:
    """The content of generation.json (model, checkpoint, sha256 …), or None without that file."""
    path = Path(results) / GENERATION_FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(
            f"{path} is not readable ({error}); delete it or run test.py again."
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold a JSON object; delete it or run test.py again.")
    return content


def count_problem(generation: dict[str, object] | None, found: int) -> str | None:
    """Why ``found`` images are not what test.py was to generate, or None."""
    expected = (generation or {}).get("pairs")
    if not isinstance(expected, int) or expected == found:
        return None
    why = "test.py was interrupted" if found < expected else "images of another run are among them"
    return f"{found} images, while {GENERATION_FILE} announces {expected}: {why}"


def describe_generation(generation: dict[str, object] | None) -> str:
    """One line for the screen: what made the images."""
    if not generation:
        return f"generator: unknown (no {GENERATION_FILE})"
    parts = [f"{key} {generation[key]}" for key in ("model", "name", "checkpoint", "which_epoch")
             if generation.get(key) is not None]  # fmt: skip
    digest = str(generation.get("sha256") or "")[:12]
    return "generator: " + ", ".join(parts + ([f"sha256 {digest}…"] if digest else []))


@dataclass(frozen=True)
class ImageReader:
    """Reads results, references (ground truth and real set) and masks; travels to worker processes.

    ``reference``: a picklable function of a uint8 image (H, W, 3), applied to every reference after
    the resize (step-wise generation measures against quantised images). ``annotation_size`` (h, w):
    frame of the keypoints; None means the frame of the images.
    """

    resize: Resize | None = None
    reference: Callable[[np.ndarray], np.ndarray] | None = None
    annotation_size: tuple[int, int] | None = None

    def read_result(self, path: Path) -> np.ndarray:
        """A generated image as uint8 (H, W, 3)."""
        image = load_image(path)
        if self.resize is None:
            return np.asarray(image)
        height, width = self.resize.size
        if self.resize.library == "opencv":
            return resize_linear(np.asarray(image), self.resize.size)
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))

    def read_reference(self, path: Path) -> np.ndarray:
        """A ground-truth or real image as uint8 (H, W, 3)."""
        image = self.read_result(path)
        return image if self.reference is None else self.reference(image)

    def mask(self, keypoints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Body mask (H, W) of keypoints for an image of ``size`` (h, w)."""
        return body_mask(scale_keypoints(keypoints, self.annotation_size, size), size)


def scale_keypoints(
    keypoints: np.ndarray, frame: tuple[int, int] | None, size: tuple[int, int]
) -> np.ndarray:
    """Keypoints (18, 2) (y, x) of a ``frame`` (h, w) in an image of ``size`` (h, w); -1 stays."""
    keypoints = np.asarray(keypoints, dtype=np.float64)
    if frame is None or tuple(frame) == tuple(size):
        return keypoints
    missing = (keypoints == -1).any(axis=-1, keepdims=True)
    return np.where(missing, -1.0, keypoints / np.array(frame) * np.array(size))


_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


@dataclass
class ImageFacts:
    """Counts of sizes ("WxH") and formats, the size of every file, and unreadable files."""

    sizes: Counter = field(default_factory=Counter)
    formats: Counter = field(default_factory=Counter)
    size_of: dict[Path, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    @property
    def usual_size(self) -> str:
        """The most frequent size, "WxH"."""
        return self.sizes.most_common(1)[0][0]

    def odd_sizes(self) -> list[str]:
        """Files whose size differs from the most frequent one, as lines for an error."""
        if len(self.sizes) < 2:
            return []
        usual = self.usual_size
        return [f"{p.name} is {s}, most are {usual}" for p, s in self.size_of.items() if s != usual]

    def summary(self) -> dict[str, object]:
        """The facts that go into the report."""
        return {
            "count": len(self.size_of),
            "sizes": dict(self.sizes.most_common()),
            "formats": dict(self.formats.most_common()),
        }


def inspect_images(paths: Sequence[Path], what: str) -> ImageFacts:
    """Read the header of every image; unreadable ones are listed, not raised."""
    facts = ImageFacts()
    for path in tqdm(paths, desc=f"checking {what}", unit="image"):
        try:
            with Image.open(path) as image:
                width, height = image.size
                if image.getexif().get(_ORIENTATION, 1) in _TURNED:
                    width, height = height, width
                facts.formats[image.format] += 1
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = str(error).replace(str(path), path.name)
            facts.unreadable.append(f"{path.name} ({reason})")
            continue
        facts.size_of[path] = sys.intern(f"{width}x{height}")  # one text for thousands of files
        facts.sizes[facts.size_of[path]] += 1
    return facts


SHOWN = 20
UNREADABLE_NAME = (
    "without a readable target name (expected <source>_2_<target>_vis.png; for equal names in both "
    "folders there is --pairing same_name)"
)


@dataclass(frozen=True, slots=True)
class ImagePair:
    """A generated image and its ground truth; ``key`` is the stem of the ground truth.

    The key of an image in sub-folders is its path without slashes, MAGPT's file id.
    """

    result: Path
    gt: Path
    key: str

    @property
    def name(self) -> str:
        """File name of the generated image."""
        return self.result.name

    @property
    def target(self) -> str:
        """File name of the ground truth."""
        return self.gt.name


@dataclass
class Pairing:
    """Pairs in the order of the sorted result paths, and what ``allow_missing`` left out."""

    pairs: list[ImagePair]
    left_out: dict[str, list[str]] = field(default_factory=dict)


def list_images(folder: str | Path, recursive: bool = False) -> list[Path]:
    """All .jpg, .jpeg and .png files of a folder, sorted by path.

    Raises UserError when the folder does not exist or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder {str(folder)!r}; expected a folder of images.")
    found = folder.rglob("*") if recursive else folder.iterdir()
    # As text: comparing Path objects would leave a list of parts in each, for as long as it lives.
    images = sorted((p for p in found if p.suffix.lower() in IMAGE_EXTENSIONS), key=str)
    if not images:
        raise UserError(
            f"the folder {str(folder)!r} holds no {', '.join(IMAGE_EXTENSIONS)} file; "
            "check the path, or generate the images with test.py first."
        )
    return images


def pair_results(
    results: str | Path,
    gt: str | Path,
    rule: str = "result_name",
    allow_missing: bool = False,
    expected: Iterable[str] | None = None,
) -> Pairing:
    """Pair every image of ``results`` with its ground truth in the folder ``gt``.

    ``rule``: ``result_name`` takes the target from ``<source>_2_<target>_vis.<ext>``; ``same_name``
    wants equal stems in both folders (MAGPT's real and fake folders, ``<n>@<file id>``).
    ``expected`` are result stems that must exist. Unmatched and missing images raise one UserError
    with the list, or with ``allow_missing`` are returned in ``left_out``; duplicates always raise.
    """
    problems: dict[str, list[str]] = {}
    images = _without_twins(list_images(results), "results", problems)
    targets = _without_twins(list_images(gt, recursive=True), "ground truth", problems, Path(gt))
    report_problems(problems)
    pairs = []
    for key, path in images.items():
        target = _target_of(path, key, rule, targets)
        if target is None:
            problems.setdefault(UNREADABLE_NAME, []).append(path.name)
        elif target not in targets:
            missing = f"{path.name} (wants {target} in {gt})"
            problems.setdefault("without ground truth", []).append(missing)
        else:
            pairs.append(ImagePair(path, targets[target], target.rpartition("@")[2]))
    missing = sorted(set(expected or ()) - set(images))
    if missing:
        problems["expected but not generated"] = missing
    if problems and not allow_missing:
        report_problems(problems, "correct the folders, or leave them out with --allow_missing")
    if not pairs:
        raise UserError(f"no image of {str(results)!r} has a ground truth in {str(gt)!r}.")
    return Pairing(pairs, problems)


def _without_twins(
    images: Sequence[Path], what: str, problems: dict[str, list[str]], root: Path | None = None
) -> dict[str, Path]:
    """Images by stem (nested ones by their path without slashes); twins go to ``problems``."""
    by_stem: dict[str, Path] = {}
    for path in images:
        key = path.stem if root is None else stem(path.relative_to(root).as_posix())
        if key in by_stem:
            twins = f"{by_stem[key].name} and {path.name}"
            problems.setdefault(f"twice in the {what}", []).append(twins)
        by_stem[key] = path
    return by_stem


def _target_of(path: Path, key: str, rule: str, targets: dict[str, Path]) -> str | None:
    if rule == "same_name":
        return key
    try:
        target = parse_result_name(path.name)[1]
    except UserError:
        return None
    if target not in targets:
        try:  # names that hold "_2_" themselves: the split of which both halves are known
            return parse_result_name(path.name, known=targets)[1]
        except UserError:
            return target
    return target


def report_problems(problems: dict[str, list[str]], remedy: str = "correct the folders") -> None:
    """Raise one UserError that lists every problem by kind; do nothing when there is none."""
    if not problems:
        return
    lines = []
    for kind, names in problems.items():
        lines.append(f"{len(names)} {kind}:")
        lines += [f"  {name}" for name in names[:SHOWN]]
        if len(names) > SHOWN:
            lines.append(f"  … and {len(names) - SHOWN} more")
    kinds = ", ".join(f"{len(names)} {kind}" for kind, names in problems.items())
    raise UserError(f"the images cannot be measured: {kinds}; {remedy}.", lines)
