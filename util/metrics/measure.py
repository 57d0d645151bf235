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

from util.errors import UserError
from util.metrics.folder import ImageFacts, ImagePair, ImageReader, refuse
from util.metrics.protocols import Protocol
from util.metrics.registry import Column
from util.run.progress import progress_bar

if TYPE_CHECKING:
    from util.metrics.keypoints import KeypointTable
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
    for loaded in progress_bar(stream, total=len(items), desc=description, unit="image"):
        if isinstance(loaded, str):
            damaged.append(loaded)
            continue
        pending.append(loaded)
        if len(pending) == batch_size:
            yield _stack(pending)
            pending = []
    if pending:
        yield _stack(pending)
    refuse({"unreadable": damaged})


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

    ``pairing`` is ``result_name`` or ``same_name``; ``asked``: stem of a result that must exist ->
    stems of its source and target. ``keypoints`` are those of the target images,
    ``result_keypoints`` those of the results; ``estimator``: RGB uint8 (H, W, 3) -> (18, 2), asked
    about images without keypoints. ``reference`` and its name for the cache: see
    :class:`util.metrics.folder.ImageReader`. ``cache_dir`` None: statistics of real sets are not
    kept.
    """

    device: str = "cpu"
    batch_size: int = 16
    workers: int = 1
    pairing: str = "result_name"
    allow_missing: bool = False
    asked: Mapping[str, tuple[str, str]] | None = None
    keypoints: KeypointTable | None = None
    result_keypoints: KeypointTable | None = None
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
    published: float | None = None  # the paper's value of this column
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

    def of(self, protocol: Protocol) -> list[Score]:
        """The scores of one protocol."""
        return [s for s in self.scores if s.column.startswith(f"{protocol.label}.")]


@dataclass(frozen=True)
class Task:
    """What a scorer gets: columns of one protocol and the evaluation under way."""

    protocol: Protocol
    columns: list[Column]
    evaluation: Evaluation
    settings: Settings

    @property
    def reader(self) -> ImageReader:
        """How images are read for the metrics of two images."""
        return ImageReader(self.protocol.resize, self.settings.reference)

    @property
    def network_reader(self) -> ImageReader:
        """How images are read for LPIPS, FID and the other metrics of features."""
        resize = self.protocol.network_resize or self.protocol.resize
        return ImageReader(resize, self.settings.reference)

    def name(self, column: Column) -> str:
        """Full name of a column: never without its protocol."""
        return f"{self.protocol.label}.{column.name}"

    def not_computed(self, column: Column, reason: str | Exception) -> None:
        """Note that a column cannot be computed, and why."""
        self.evaluation.refused[self.name(column)] = str(reason)

    def score(self, column: Column, value: float, count: int, **more) -> Score:
        """A score of one number."""
        published = self.protocol.published.get(column.name)
        return Score(
            self.name(column), column.definition, column.higher_is_better, value, count,
            published=published, **more,
        )  # fmt: skip

    def per_image_score(self, column: Column, values: np.ndarray, used: int | None = None) -> Score:
        """Mean, population standard deviation and standard error of the first ``used`` values.

        Infinite ones, the PSNR of equal images, are named in a note and left out of the mean.
        """
        counted = values[:used]
        finite = averaged(counted)
        details: dict[str, object] = {}
        if np.isinf(counted).any():
            endless = np.flatnonzero(np.isinf(counted))
            names = ", ".join(self.evaluation.pairs[i].name for i in endless[:3])
            more = ", …" if len(endless) > 3 else ""
            rest = "; the mean is over the rest" if len(finite) < len(counted) else ""
            details["note"] = f"{len(endless)} infinite ({names}{more}){rest}"
        with np.errstate(invalid="ignore"):
            mean, std = float(finite.mean()), float(finite.std())
        return self.score(
            column,
            mean,
            len(finite),
            std=std,
            standard_error=std / len(finite) ** 0.5,
            per_image=values,
            details=details,
        )


def averaged(values: np.ndarray) -> np.ndarray:
    """The values (N,) that enter a mean: without the infinite ones, unless all of them are."""
    endless = np.isinf(values)
    return values if endless.all() else values[~endless]
