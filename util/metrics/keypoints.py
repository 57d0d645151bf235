"""What keypoints tell about results: the mask of the body, and PCKh, the agreement of two poses."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from util.errors import UserError
from util.metrics.folder import ImageFacts, refuse
from util.metrics.protocols import Protocol
from util.metrics.registry import Column, MetricUnavailableError, Score, Task, register_metric
from util.names import stem
from util.run.progress import progress_bar
from util.skeleton import in_frame, present
from util.tables.layouts import LAYOUTS, PHASES
from util.tables.patn import read_keypoints
from util.tables.uncropped import FramedKeypoints, read_magpt_keypoints

Size = tuple[float, float]  # (h, w)


@dataclass(frozen=True)
class KeypointTable:
    """The keypoints of a file by stem of their image; their frame is None while unknown."""

    where: str  # the file, for messages
    people: Mapping[str, FramedKeypoints]


def read_table(path: Path, frame: Size | None = None) -> KeypointTable:
    """PATN's or MAGPT's keypoint file; only the latter says in which frame its keypoints are."""
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            is_magpt = stream.readline().startswith("file_id")
    except OSError as error:
        raise UserError(f"the keypoint file {path} cannot be read ({error.strerror}).") from error
    if not is_magpt:
        people = {stem(k): FramedKeypoints(v, frame) for k, v in read_keypoints(path).items()}
        return KeypointTable(str(path), people)
    table = KeypointTable(str(path), read_magpt_keypoints(path))
    return table if frame is None else _in(frame, table)


def _in(frame: Size, table: KeypointTable) -> KeypointTable:
    """The table with all keypoints in one frame."""
    people = {name: person._replace(frame=frame) for name, person in table.people.items()}
    return replace(table, people=people)


def default_table(gt: Path) -> Path | None:
    """The annotation file beside a ground-truth folder, when there is exactly one."""
    found = list(gt.resolve().parent.glob(f"*annotation-{gt.resolve().name}.csv"))
    return found[0] if len(found) == 1 else None


PUBLISHED = [LAYOUTS[mode] for mode in ("fashion", "market")]
INSIDE = 0.8  # least share of joints inside their frame: the published tables have a few outside
REACHED = 0.8  # least share of height and width that the joints of a whole table reach
REACHED_BY_NAME = 0.5  # the same where the name of the file speaks for the frame


def with_frame(
    table: KeypointTable | None, facts: ImageFacts, files: Mapping[str, Path], option: str
) -> KeypointTable | None:
    """The table with its frame, found from the images that it describes where nothing says it.

    ``files``: stem -> image, of which ``facts`` knows the size. A frame is believed when the images
    have the size of a published table, when the file has its name, or when the joints reach over
    the images. UserError, naming ``option``, when none of this holds or the joints do not lie in
    the frame.
    """
    known = [name for name in files if table and name in table.people]
    if not known:
        return table
    given = [table.people[name] for name in known]
    points = np.concatenate([person.points for person in given])
    found = present(points)
    reached = points[found].max(axis=0, initial=0)
    images = sorted({facts.frame(files[name]) for name in known})
    frame = given[0].frame or _guess(Path(table.where).name, reached, images)
    if frame is None:
        shown = " and ".join(f"{h:g}x{w:g}" for h, w in images[:3])
        raise UserError(
            f"{table.where} does not say in which frame its keypoints are: they reach y = "
            f"{reached[0]:g} and x = {reached[1]:g}, the images are {shown} (height x width); give "
            f"the frame with {option} HEIGHT WIDTH (256 176 for the published fashion tables)."
        )
    frames = np.repeat([person.frame or frame for person in given], len(points) // len(given), 0)
    inside = ((points >= 0) & (points <= frames)).all(axis=1)[found]
    if len(inside) and inside.mean() < INSIDE:
        raise UserError(
            f"only {inside.mean():.0%} of the joints in {table.where} lie inside their frame of "
            f"{frame[0]:g}x{frame[1]:g} (height x width); give the right frame with {option}."
        )
    return table if given[0].frame else _in(frame, table)


def _guess(file: str, reached: np.ndarray, images: list[Size]) -> Size | None:
    """The frame of a table's keypoints, which reach ``reached`` (y, x) on images of these sizes."""
    size = images[0] if len(images) == 1 else None
    if size in [layout.annotation_size for layout in PUBLISHED]:
        return size
    for layout in PUBLISHED:
        names = {name.format(phase=phase) for name in layout.annotations for phase in PHASES}
        share = (reached / layout.annotation_size).min()
        if file in names and share >= REACHED_BY_NAME:
            return layout.annotation_size
    return size if size and (reached / size).min() >= REACHED else None


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
    if length > 0:
        normal = (end - start)[::-1] * (-1, 1) / length * RADIUS
        corners = np.stack([start + normal, start - normal, end - normal, end + normal])
        mask[polygon(corners[:, 0], corners[:, 1], shape=mask.shape)] = 1


def target_mask(person: FramedKeypoints, size: tuple[int, int]) -> np.ndarray:
    """Body mask (H, W) of a target's keypoints for images of ``size`` (h, w)."""
    return body_mask(in_frame(*person, size), size)


def apply_mask(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) with everything outside the mask (H, W) set to 0."""
    return image * mask[..., None].astype(image.dtype)


HEAD = (0, 1, 14, 15, 16, 17)  # nose, neck, eyes, ears
THRESHOLD = 0.5  # of the head box


def pckh(actual: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of correct and of valid joints (N,); PCKh is their ratio over all images.

    Keypoints are (N, 18, 2) (y, x), -1 = missing, in one frame for each image.

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
    return (valid & present(predicted) & near).sum(axis=1), valid.sum(axis=1)


def score_pckh(task: Task) -> list[Score]:
    """PCKh of every pair, from keypoint files or the estimator."""
    (column,), settings, pairs = task.columns, task.settings, task.evaluation.pairs
    _check_sources(task)
    actual, predicted = np.empty((2, len(pairs), 18, 2))
    for i, pair in enumerate(progress_bar(pairs, desc=task.name(column), unit="pair")):
        truth = _person(task, settings.keypoints, pair.key, pair.gt)
        found = _person(task, settings.result_keypoints, pair.result.stem, pair.result)
        actual[i], predicted[i] = truth.points, in_frame(*found, truth.frame)
    correct, valid = pckh(actual, predicted)
    if not valid.sum():
        raise MetricUnavailableError(
            "no ground-truth image has a joint and two joints of the head; check the keypoint file."
        )
    details = {
        "correct": int(correct.sum()),
        "valid": int(valid.sum()),
        "images_without_head": int((valid == 0).sum()),
    }
    value = float(correct.sum() / valid.sum())
    # Of a ratio, from the spread of the images around it.
    error = float(np.sqrt(((correct - value * valid) ** 2).sum()) / valid.sum())
    with np.errstate(invalid="ignore"):
        more = {"standard_error": error, "per_image": correct / valid, "details": details}
    return [task.score(column, value, int((valid > 0).sum()), **more)]


def _person(task: Task, table: KeypointTable | None, name: str, path: Path) -> FramedKeypoints:
    """The keypoints of an image, from its table or the estimator."""
    if table is not None and name in table.people:
        return table.people[name]
    image = task.reader(network=False).read_result(path)
    try:
        found = task.settings.estimator(Image.fromarray(image), path.name)
    except UserError as error:
        raise MetricUnavailableError(f"keypoints cannot be estimated: {error}") from error
    return FramedKeypoints(found, image.shape[:2])


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
    known = settings.keypoints.people, settings.result_keypoints.people
    problems = {
        "targets without keypoints": sorted({p.key for p in pairs} - set(known[0])),
        "results without keypoints": sorted({p.result.stem for p in pairs} - set(known[1])),
    }
    refuse(problems, "complete the keypoint files, or give --estimator")


@register_metric("pckh")
def _pckh(protocol: Protocol) -> list[Column]:
    words = "PCKh at half the head box on each axis, all 18 joints, over all joints of the set"
    return [Column("pckh", words, None, higher_is_better=True, scorer=score_pckh)]
