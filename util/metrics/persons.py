"""Detection score: how sure a person detector is that the generated image shows somebody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torchvision.models.detection import ssd300_vgg16
from tqdm import tqdm

from util.errors import UserError
from util.metrics.folder import ImagePair, report_problems, scale_keypoints
from util.metrics.measure import Score, Task, batches, measure_all, register_scorer
from util.metrics.protocols import Protocol
from util.metrics.registry import Column, MetricUnavailableError, register_metric
from util.metrics.weights import WeightStore
from util.names import stem
from util.run.device import exact_arithmetic
from util.tables.magpt import read_magpt_keypoints
from util.tables.patn import read_keypoints

COMMON_FRAME = (256, 256)  # (h, w) to which keypoints with frames of their own are brought
Keypoints = dict[str, np.ndarray]


def read_target_table(path: Path) -> tuple[Keypoints, tuple[int, int] | None]:
    """Keypoints (18, 2) (y, x) of target images, and their frame (h, w) when the file knows it."""
    if _is_magpt(path):
        framed = read_magpt_keypoints(path)
        return {name: k.in_frame(COMMON_FRAME) for name, k in framed.items()}, COMMON_FRAME
    return _plain(path), None


def read_result_table(path: Path) -> Keypoints:
    """Keypoints (18, 2) (y, x) of generated images, in their pixels."""
    if _is_magpt(path):
        return {name: keypoints.points for name, keypoints in read_magpt_keypoints(path).items()}
    return _plain(path)


def default_table(gt: Path) -> Path | None:
    """The annotation file beside a ground-truth folder, when there is exactly one."""
    found = sorted(gt.resolve().parent.glob(f"*annotation-{gt.resolve().name}.csv"))
    return found[0] if len(found) == 1 else None


def _plain(path: Path) -> Keypoints:
    return {stem(name): keypoints for name, keypoints in read_keypoints(path).items()}


def _is_magpt(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return stream.readline().startswith("file_id")
    except OSError as error:
        raise UserError(f"the keypoint file {path} cannot be read ({error.strerror}).") from error


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
    joints of nose, neck, eyes and ears; images with fewer than two of them are left out.
    """
    actual, predicted = (np.asarray(x, dtype=np.float64) for x in (actual, predicted))
    present = (actual != -1).all(axis=2)
    found = (predicted != -1).all(axis=2)
    head, in_head = actual[:, HEAD], present[:, HEAD, None]
    low = np.where(in_head, head, np.inf).min(axis=1)
    high = np.where(in_head, head, -np.inf).max(axis=1)
    measurable = in_head[..., 0].sum(axis=1) >= 2
    box = np.where(measurable[:, None], high - low, 0.0)
    near = (np.abs(actual - predicted) < THRESHOLD * box[:, None]).all(axis=2)
    valid = present & measurable[:, None]
    return PCKh((valid & found & near).sum(axis=1), valid.sum(axis=1))


@register_scorer("keypoints")
def score_keypoints(task: Task) -> list[Score]:
    """PCKh of every pair, from keypoint files or the estimator."""
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
        for column in task.columns
    ]


def _collect(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted keypoints of all pairs, (N, 18, 2) each, in pixels of the results."""
    settings, pairs = task.settings, task.evaluation.pairs
    _check_sources(task)
    actual, predicted = np.empty((2, len(pairs), 18, 2))
    for i, pair in enumerate(tqdm(pairs, desc=task.name(task.columns[0]), unit="pair")):
        size = None
        if pair.result.stem in settings.result_keypoints:
            predicted[i] = settings.result_keypoints[pair.result.stem]
        else:
            predicted[i], size = _estimate(task, pair.result)
        if pair.key in settings.keypoints:
            size = size or _size(task, pair.result)
            frame = settings.annotation_size
            actual[i] = scale_keypoints(settings.keypoints[pair.key], frame, size)
        else:
            actual[i], _ = _estimate(task, pair.gt)
    return actual, predicted


def _check_sources(task: Task) -> None:
    """Without an estimator, keypoint files must cover everything or nothing."""
    settings, pairs = task.settings, task.evaluation.pairs
    if settings.estimator is not None:
        return
    if not settings.keypoints or not settings.result_keypoints:
        raise MetricUnavailableError(
            "PCKh needs keypoints of the targets and of the generated images; give --annotation "
            "and --result_keypoints, or --estimator."
        )
    problems: dict[str, list[str]] = {}
    for what, names, known in (
        ("targets without keypoints", [p.key for p in pairs], settings.keypoints),
        ("results without keypoints", [p.result.stem for p in pairs], settings.result_keypoints),
    ):
        missing = _missing(names, known)
        if missing:
            problems[what] = missing
    report_problems(problems, "complete the keypoint files, or give --estimator")


def _missing(names: list[str], known: Mapping[str, np.ndarray]) -> list[str]:
    return sorted({name for name in names if name not in known})


def _estimate(task: Task, path: Path) -> tuple[np.ndarray, tuple[int, int]]:
    image = task.reader.read_result(path)
    return np.asarray(task.settings.estimator(image), dtype=np.float64), image.shape[:2]


def _size(task: Task, path: Path) -> tuple[int, int]:
    if task.protocol.resize is not None:
        return task.protocol.resize.size
    width, height = task.evaluation.images["results"].size_of[path].split("x")
    return int(height), int(width)


@register_metric("pckh")
def _pckh(protocol: Protocol) -> list[Column]:
    words = "PCKh at half the head box on each axis, all 18 joints, over all joints of the set"
    return [Column("pckh", words, None, higher_is_better=True, scorer="keypoints")]


PERSON = 1  # COCO label


class PersonDetector:
    """torchvision's SSD300 with MAGPT's rule: scores above 0.05, NMS at IoU 0.5, 20 detections."""

    def __init__(self, store: WeightStore, device: str = "cpu"):
        state = store.load("ssd300")
        with torch.random.fork_rng(devices=[]):
            network = ssd300_vgg16(
                weights=None,
                weights_backbone=None,
                num_classes=91,
                score_thresh=0.05,
                nms_thresh=0.5,
                detections_per_img=20,
            )
        try:
            network.load_state_dict(state, strict=True)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise MetricUnavailableError(
                f"the weight file of SSD300 does not fit the network ({reason}); use the published "
                "file."
            ) from error
        self.network = network.eval().requires_grad_(False).to(device)
        self.device = device

    @torch.no_grad()
    def scores(self, images: torch.Tensor) -> np.ndarray:
        """Highest person score (B,) of uint8 images (B, H, W, 3); 0 where nobody is found."""
        inputs = images.to(self.device).permute(0, 3, 1, 2).float() / 255
        with exact_arithmetic(inputs.device):
            found = self.network(list(inputs))
        return np.array([_best_person(one["labels"], one["scores"]) for one in found])


def _best_person(labels: torch.Tensor, scores: torch.Tensor) -> float:
    people = scores[labels == PERSON]
    return float(people.max()) if len(people) else 0.0


@register_scorer("detector")
def score_detection(task: Task) -> list[Score]:
    """Detection score of every result."""
    detector = PersonDetector(task.evaluation.weights, task.settings.device)
    settings, reader = task.settings, task.reader

    def read(pair: ImagePair) -> tuple[np.ndarray]:
        return (reader.read_result(pair.result),)

    what = task.name(task.columns[0])
    stream = batches(task.evaluation.pairs, read, settings.batch_size, settings.workers, what)
    values = measure_all(stream, detector.scores, len(task.evaluation.pairs))
    return [task.per_image_score(column, values) for column in task.columns]


@register_metric("detection_score")
def _detection_score(protocol: Protocol) -> list[Column]:
    # The published tables used other detectors (MAGPT: NVIDIA's SSD300 on ResNet-50; PATN: a Keras
    # SSD300), so the network is part of the column's name.
    words = "highest person confidence of torchvision's SSD300 (VGG-16, COCO), 0 without a person"
    return [Column("detection_score_ssd300vgg16", words, None, True, scorer="detector")]
