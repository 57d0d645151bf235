"""PCKh of MAGPT and PATN: how many joints of the generated person are where they should be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from util.metrics.measurement import Score, Task, register_scorer
from util.metrics.pairing import report_problems
from util.metrics.protocols import Protocol
from util.metrics.reading import scale_keypoints
from util.metrics.registry import Column, MetricUnavailableError, register_metric

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
