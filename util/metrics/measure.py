"""What goes into measuring a folder (settings) and what comes out (scores)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from util.errors import UserError
from util.metrics.folder import ImageFacts, ImagePair, ImageReader, report_problems
from util.metrics.protocols import Protocol
from util.metrics.registry import Column, MetricUnavailableError

if TYPE_CHECKING:  # worker processes need this file, but not torchvision
    from util.metrics.weights import WeightStore

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


def read_ahead(
    items: Iterable[Item], read: Callable[[Item], Loaded], threads: int, ahead: int = 64
) -> Iterator[Loaded]:
    """``read`` of every item, in order, at most ``ahead`` of them waiting in memory."""
    items = iter(items)
    with ThreadPoolExecutor(max(1, threads)) as pool:
        waiting = deque(pool.submit(read, item) for item in islice(items, ahead))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(read, item) for item in islice(items, 1))


def batches(
    items: Sequence[Item],
    read: Callable[[Item], tuple[np.ndarray, ...]],
    batch_size: int,
    threads: int,
    description: str,
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Stack what ``read`` gives (tuples of equal arrays) into tensors of ``batch_size`` items.

    Images that cannot be read do not stop the pass; at its end they raise one UserError with the
    list, so that nothing is measured without them.
    """

    def read_or_complain(item: Item) -> tuple[np.ndarray, ...] | str:
        try:
            return read(item)
        except UserError as error:
            return str(error)

    damaged: list[str] = []
    pending: list[tuple[np.ndarray, ...]] = []
    stream = read_ahead(items, read_or_complain, threads, ahead=max(2 * batch_size, 8))
    for loaded in tqdm(stream, total=len(items), desc=description, unit="image"):
        if isinstance(loaded, str):
            damaged.append(loaded)
            continue
        pending.append(loaded)
        if len(pending) == batch_size:
            yield _stack(pending)
            pending = []
    if pending:
        yield _stack(pending)
    report_problems({"unreadable": damaged} if damaged else {})


def measure_all(
    stream: Iterable[tuple[torch.Tensor, ...]],
    measure: Callable[..., np.ndarray],
    count: int,
) -> np.ndarray:
    """``measure(*batch)`` of every batch, one value an image: (count,) float64.

    The values of a batch are copied at once. Kept as they are, each would lie in the heap behind
    the large temporaries of a network, whose memory then grows with the number of images.
    """
    values, done = np.empty(count), 0
    for batch in stream:
        part = measure(*batch)
        values[done : done + len(part)] = part
        done += len(part)
    return values[:done]


def _stack(rows: list[tuple[np.ndarray, ...]]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True))


@dataclass(frozen=True)
class Settings:
    """Everything about a measurement that does not change its definition.

    ``pairing`` is ``result_name`` or ``same_name``; ``expected`` are stems of results that must
    exist. ``keypoints``: stem of a target image -> (18, 2) (y, x), -1 = missing, in the frame
    ``annotation_size`` (h, w) or, when None, of the images; ``result_keypoints``: the same for
    result images, in their own frame. ``estimator``: RGB uint8 (H, W, 3) -> (18, 2), asked about
    images without keypoints.
    ``reference`` and its name for the cache: see :class:`ImageReader`.
    ``cache_dir`` None: statistics of real sets are not kept.
    """

    device: str = "cpu"
    batch_size: int = 16
    workers: int = 1
    pairing: str = "result_name"
    allow_missing: bool = False
    expected: Sequence[str] | None = None
    keypoints: Mapping[str, np.ndarray] = field(default_factory=dict)
    result_keypoints: Mapping[str, np.ndarray] = field(default_factory=dict)
    annotation_size: tuple[int, int] | None = None
    estimator: Callable[[np.ndarray], np.ndarray] | None = None
    estimator_name: str = ""
    reference: Callable[[np.ndarray], np.ndarray] | None = None
    reference_name: str = ""
    weights: Mapping[str, str | Path | None] = field(default_factory=dict)
    offline: bool = False
    cache_dir: Path | None = None


@dataclass
class Score:
    """One measured column. ``per_image`` (pairs,) is None for numbers that belong to whole sets."""

    column: str
    definition: str
    higher_is_better: bool
    value: float
    count: int
    std: float | None = None
    standard_error: float | None = None
    per_image: np.ndarray | None = None
    details: dict[str, object] = field(default_factory=dict)


@dataclass
class Evaluation:
    """What measuring one folder gave; ``refused`` maps columns to the sentence that says why."""

    results: Path
    gt: Path
    real: Path | None
    protocols: list[Protocol]
    pairs: list[ImagePair]
    left_out: dict[str, list[str]]
    images: dict[str, ImageFacts]
    weights: WeightStore
    generation: dict[str, object] | None = None
    scores: list[Score] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Task:
    """What a scorer gets: columns of one protocol and the evaluation under way."""

    protocol: Protocol
    columns: list[Column]
    evaluation: Evaluation
    settings: Settings

    @property
    def reader(self) -> ImageReader:
        """How images are read under this task's protocol."""
        return ImageReader(
            self.protocol.resize, self.settings.reference, self.settings.annotation_size
        )

    def name(self, column: Column) -> str:
        """Full name of a column: never without its protocol."""
        return f"{self.protocol.label}.{column.name}"

    def refuse(self, column: Column, error: MetricUnavailableError) -> None:
        """Note that a column cannot be computed, and why."""
        self.evaluation.refused[self.name(column)] = str(error)

    def score(self, column: Column, value: float, count: int, **more) -> Score:
        """A score of one number."""
        return Score(
            self.name(column), column.definition, column.higher_is_better, value, count, **more
        )

    def per_image_score(self, column: Column, values: np.ndarray, used: int | None = None) -> Score:
        """Mean, population standard deviation and standard error of the first ``used`` values."""
        counted = values[:used]
        with np.errstate(invalid="ignore"):  # infinite PSNR of equal images
            mean, std = float(counted.mean()), float(counted.std())
        error = std / len(counted) ** 0.5
        return self.score(
            column, mean, len(counted), std=std, standard_error=error, per_image=values
        )


Scorer = Callable[[Task], list[Score]]
SCORERS: dict[str, Scorer] = {}


def register_scorer(name: str) -> Callable[[Scorer], Scorer]:
    """Decorator: ``scorer(task) -> list[Score]`` computes columns whose ``scorer`` is ``name``."""

    def register(scorer: Scorer) -> Scorer:
        SCORERS[name] = scorer
        return scorer

    return register
