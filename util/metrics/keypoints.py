"""What keypoints tell about results: the mask of the body, and PCKh, the agreement of two poses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from util.errors import UserError
from util.metrics.folder import refuse
from util.metrics.measure import Score, Task
from util.metrics.protocols import Protocol
from util.metrics.registry import Column, MetricUnavailableError, register_metric
from util.names import stem
from util.run.progress import progress_bar
from util.skeleton import in_frame, present
from util.tables.layouts import LAYOUTS, PHASES
from util.tables.patn import read_keypoints
from util.tables.uncropped import read_magpt_keypoints

Size = tuple[float, float]  # (h, w)


@dataclass(frozen=True)
class KeypointTable:
    """Keypoints (18, 2) (y, x), -1 = missing, by stem of their image.

    ``frames``: the size (h, w) they live in, one for all or one for each; None while unknown.
    """

    where: str  # the file, for messages
    points: Mapping[str, np.ndarray]
    frames: Mapping[str, Size] | Size | None = None

    def frame(self, name: str) -> Size:
        """(h, w) of the frame of one image's keypoints."""
        return self.frames[name] if isinstance(self.frames, Mapping) else self.frames

    def in_frame(self, name: str, size: Size) -> np.ndarray:
        """The keypoints of an image in a frame of ``size`` (h, w)."""
        return in_frame(self.points[name], self.frame(name), size)


def read_table(path: Path, frame: Size | None = None) -> KeypointTable:
    """PATN's or MAGPT's keypoint file; only the latter says in which frame its keypoints are."""
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            is_magpt = stream.readline().startswith("file_id")
    except OSError as error:
        raise UserError(f"the keypoint file {path} cannot be read ({error.strerror}).") from error
    if not is_magpt:
        points = {stem(name): keypoints for name, keypoints in read_keypoints(path).items()}
        return KeypointTable(str(path), points, frame)
    table = read_magpt_keypoints(path)
    frames = {name: keypoints.frame for name, keypoints in table.items()}
    return KeypointTable(str(path), {name: k.points for name, k in table.items()}, frame or frames)


def default_table(gt: Path) -> Path | None:
    """The annotation file beside a ground-truth folder, when there is exactly one."""
    found = sorted(gt.resolve().parent.glob(f"*annotation-{gt.resolve().name}.csv"))
    return found[0] if len(found) == 1 else None


PUBLISHED = [LAYOUTS[mode] for mode in ("fashion", "market")]
INSIDE = 0.8  # least share of joints inside their frame: the published tables have a few outside
REACHED = 0.8  # least share of height and width that the joints of a whole table reach
REACHED_BY_NAME = 0.5  # the same where the name of the file speaks for the frame


def with_frame(table: KeypointTable, sizes: Mapping[str, Size], option: str) -> KeypointTable:
    """The table with its frame, found from the images that it describes where nothing says it.

    ``sizes``: stem -> (h, w) of the image files. A frame is believed when the images have the size
    of a published table, when the file has its name, or when the joints reach over the images.
    UserError, naming ``option``, when none of this holds or the joints do not lie in the frame.
    """
    names = [name for name in sizes if name in table.points]
    if not names:
        return table
    points = np.concatenate([table.points[name] for name in names])
    points = points[present(points)]
    if table.frames is None:
        table = replace(table, frames=_guess(table, points, {sizes[name] for name in names}))
    if table.frames is None:
        y, x = points.max(axis=0, initial=0)
        found = " and ".join(f"{h:g}x{w:g}" for h, w in sorted({sizes[name] for name in names})[:3])
        raise UserError(
            f"{table.where} does not say in which frame its keypoints are: they reach y = {y:g} "
            f"and x = {x:g}, the images are {found} (height x width); give the frame with {option} "
            "HEIGHT WIDTH (256 176 for the published fashion tables)."
        )
    frames = np.concatenate([np.tile(table.frame(n), (len(table.points[n]), 1)) for n in names])
    frames = frames[present(np.concatenate([table.points[name] for name in names]))]
    inside = ((points >= 0) & (points <= frames)).all(axis=1)
    if len(inside) and inside.mean() < INSIDE:
        height, width = table.frame(names[0])
        raise UserError(
            f"only {inside.mean():.0%} of the joints in {table.where} lie inside their frame of "
            f"{height:g}x{width:g} (height x width); give the right frame with {option}."
        )
    return table


def _guess(table: KeypointTable, points: np.ndarray, sizes: set[Size]) -> Size | None:
    published = [layout.annotation_size for layout in PUBLISHED]
    if len(sizes) == 1 and next(iter(sizes)) in published:
        return next(iter(sizes))
    reached = points.max(axis=0, initial=0)
    for layout in PUBLISHED:
        names = {name.format(phase=phase) for name in layout.annotations for phase in PHASES}
        share = (reached / layout.annotation_size).min()
        if Path(table.where).name in names and share >= REACHED_BY_NAME:
            return layout.annotation_size
    if len(sizes) == 1 and (reached / next(iter(sizes))).min() >= REACHED:
        return next(iter(sizes))
    return None


# Limb list of the PATN, GFLA and DPTN scripts, joints counted from 1.
_LIMBS = (
    "2-3 2-6 3-4 4-5 6-7 7-8 2-9 9-10 10-11 2-12 12-13 13-14 2-1 1-15 15-17 1-16 16-18 2-17 2-18 "
    "9-12 12-6 9-3 17-18"
)
MASK_LIMBS = tuple(tuple(int(end) - 1 for end in limb.split("-")) for limb in _LIMBS.split())
RADIUS = 4
CLOSING = np.ones((5, 5), np.uint8)


def body_mask(keypoints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Mask of the body of 18 keypoints in an image of ``size`` (h, w): bool (H, W).

    ``keypoints`` (18, 2) are (y, x) in the image's frame, -1 = missing. Every limb with both ends
    is a bar ``2 * RADIUS`` px wide, every joint a disc of the pixels nearer than ``RADIUS``; then a
    dilation and an erosion with a 5x5 square. Limbs of length 0 have no direction and no bar.
    """
    joints = np.asarray(keypoints, dtype=np.float64).round().astype(int)
    found = present(joints)
    mask = np.zeros(size, dtype=np.uint8)
    for a, b in MASK_LIMBS:
        if found[a] and found[b]:
            _fill_bar(mask, joints[a], joints[b])
    rows, columns = np.ogrid[: size[0], : size[1]]
    for y, x in joints[found]:
        mask[(rows - y) ** 2 + (columns - x) ** 2 < RADIUS**2] = 1
    # Outside the frame there is background for the dilation and body for the erosion.
    return cv2.morphologyEx(mask, cv2.MORPH_CLOSE, CLOSING).astype(bool)


def _fill_bar(mask: np.ndarray, start: np.ndarray, end: np.ndarray) -> None:
    from skimage.draw import polygon  # slow to import, seldom needed

    length = np.linalg.norm(end - start)
    if length == 0:
        return
    direction = (end - start) / length
    normal = np.array([-direction[1], direction[0]]) * RADIUS
    corners = np.stack([start + normal, start - normal, end - normal, end + normal])
    mask[polygon(corners[:, 0], corners[:, 1], shape=mask.shape)] = 1


def target_mask(table: KeypointTable, name: str, size: tuple[int, int]) -> np.ndarray:
    """Body mask (H, W) of a target image's keypoints for images of ``size`` (h, w)."""
    return body_mask(table.in_frame(name, size), size)


def apply_mask(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) with everything outside the mask (H, W) set to 0."""
    return image * mask[..., None].astype(image.dtype)


HEAD = (0, 1, 14, 15, 16, 17)  # nose, neck, eyes, ears
THRESHOLD = 0.5  # of the head box


@dataclass(frozen=True)
class PCKh:
    """Correct and valid joints of every image, (N,) each; the score is their ratio over the set."""

    correct: np.ndarray
    valid: np.ndarray

    @property
    def value(self) -> float:
        """Sum of correct over sum of valid joints; NaN without a valid joint."""
        total = self.valid.sum()
        return float(self.correct.sum() / total) if total else float("nan")

    @property
    def standard_error(self) -> float:
        """Standard error of the ratio, from the spread of the images around it."""
        spread = self.correct - self.value * self.valid
        return float(np.sqrt((spread**2).sum()) / max(self.valid.sum(), 1))


def pckh(actual: np.ndarray, predicted: np.ndarray) -> PCKh:
    """PCKh of keypoints (N, 18, 2) (y, x), -1 = missing, in one frame for each image.

    A joint that the ground truth has is valid; it is correct when the prediction has it too and is
    nearer than half the head box on each axis (strictly, not Euclidean). The box spans the present
    joints of nose, neck, eyes and ears; images where it has no width or height are left out.
    """
    actual, predicted = (np.asarray(x, dtype=np.float64) for x in (actual, predicted))
    head, in_head = actual[:, HEAD], present(actual)[:, HEAD, None]
    low = np.where(in_head, head, np.inf).min(axis=1)
    high = np.where(in_head, head, -np.inf).max(axis=1)
    box = np.where(in_head[..., 0].sum(axis=1, keepdims=True) >= 2, high - low, 0.0)
    measurable = (box > 0).all(axis=1)
    near = (np.abs(actual - predicted) < THRESHOLD * box[:, None]).all(axis=2)
    valid = present(actual) & measurable[:, None]
    return PCKh((valid & present(predicted) & near).sum(axis=1), valid.sum(axis=1))


def score_pckh(task: Task) -> list[Score]:
    """PCKh of every pair, from keypoint files or the estimator."""
    (column,) = task.columns
    actual, predicted = _collect(task)
    result = pckh(actual, predicted)
    if not result.valid.sum():
        raise MetricUnavailableError(
            "no ground-truth image has a joint and two joints of the head; check the keypoint file."
        )
    details = {
        "correct": int(result.correct.sum()),
        "valid": int(result.valid.sum()),
        "images_without_head": int((result.valid == 0).sum()),
    }
    with np.errstate(invalid="ignore"):
        per_image = result.correct / result.valid
    return [
        task.score(
            column,
            result.value,
            int((result.valid > 0).sum()),
            standard_error=result.standard_error,
            per_image=per_image,
            details=details,
        )
    ]


def _collect(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted keypoints of all pairs, (N, 18, 2) each, in the frame of the true ones."""
    settings, pairs = task.settings, task.evaluation.pairs
    _check_sources(task)
    actual, predicted = np.empty((2, len(pairs), 18, 2))
    for i, pair in enumerate(progress_bar(pairs, desc=task.name(task.columns[0]), unit="pair")):
        table = settings.keypoints
        if table is not None and pair.key in table.points:
            actual[i], frame = table.points[pair.key], table.frame(pair.key)
        else:
            actual[i], frame = _estimate(task, pair.gt)
        table = settings.result_keypoints
        if table is not None and pair.result.stem in table.points:
            predicted[i] = table.in_frame(pair.result.stem, frame)
        else:
            predicted[i] = in_frame(*_estimate(task, pair.result), frame)
    return actual, predicted


def _check_sources(task: Task) -> None:
    """Without an estimator, keypoint files must cover everything or nothing."""
    settings, pairs = task.settings, task.evaluation.pairs
    if settings.estimator is not None:
        return
    if settings.keypoints is None or settings.result_keypoints is None:
        raise MetricUnavailableError(
            "PCKh needs keypoints of the targets and of the generated images; give --annotation "
            "and --result_keypoints, or --estimator."
        )
    known = settings.keypoints.points, settings.result_keypoints.points
    problems = {
        "targets without keypoints": sorted({p.key for p in pairs} - set(known[0])),
        "results without keypoints": sorted({p.result.stem for p in pairs} - set(known[1])),
    }
    refuse(problems, "complete the keypoint files, or give --estimator")


def _estimate(task: Task, path: Path) -> tuple[np.ndarray, Size]:
    image = task.reader.read_result(path)
    return np.asarray(task.settings.estimator(image), dtype=np.float64), image.shape[:2]


@register_metric("pckh")
def _pckh(protocol: Protocol) -> list[Column]:
    words = "PCKh at half the head box on each axis, all 18 joints, over all joints of the set"
    return [Column("pckh", words, None, higher_is_better=True, scorer=score_pckh)]
