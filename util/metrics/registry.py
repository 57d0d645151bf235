"""What a metric is, what it is given and what it gives; ``--metrics`` finds it by its name.

A file in this folder registers a name. A metric turns a protocol into columns. A column is one
number of the report with its definition. It is the mean of a function of two images, or a scorer of
its own computes it: a function of a :class:`Task` that returns the scores of all its columns.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from util.errors import UserError
from util.metrics.folder import ImageFacts, ImagePair, ImageReader, batches
from util.metrics.protocols import Protocol

if TYPE_CHECKING:
    from PIL import Image

    from util.metrics.keypoints import KeypointTable
    from util.metrics.networks import WeightStore


class MetricUnavailableError(UserError):
    """A metric cannot be computed here; the others still can. The text says what would help."""


@dataclass(frozen=True)
class Column:
    """One number of the report.

    ``settings``: without a ``scorer``, a picklable function ``(gt, pred) -> float`` of two uint8
    images (H, W, 3); otherwise what the scorer needs to know. ``padded`` and ``masked`` say what
    happens to images before; ``needs_real`` that the column compares with the real set. Columns of
    one scorer that ``share`` a value are measured together, and refused together.
    """

    name: str
    definition: str
    settings: Any
    higher_is_better: bool
    scorer: Callable[[Task], list[Score]] | None = None
    padded: bool = False
    masked: bool = False
    needs_real: bool = False
    share: Any = None


Builder = Callable[[Protocol], list[Column]]
_BUILDERS: dict[str, Builder] = {}


def register_metric(name: str) -> Callable[[Builder], Builder]:
    """Decorator: make ``builder(protocol) -> list[Column]`` available as ``--metrics name``."""

    def register(builder: Builder) -> Builder:
        if name in _BUILDERS and _BUILDERS[name] is not builder:
            raise ValueError(f"two metrics are called {name!r}")
        _BUILDERS[name] = builder
        return builder

    return register


def list_metrics() -> list[str]:
    """Names that ``--metrics`` accepts; imports each file of this package once."""
    package = importlib.import_module("util.metrics")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"util.metrics.{module.name}")
    return sorted(_BUILDERS)


def columns_for(protocol: Protocol, metrics: Sequence[str] | None = None) -> list[Column]:
    """Columns of the asked metrics (the protocol's defaults when None), in order, each once.

    Raises UserError for an unknown metric.
    """
    known = list_metrics()
    columns: dict[str, Column] = {}
    for name in protocol.defaults if metrics is None else metrics:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known)}."
            raise UserError(f"there is no metric {name!r}; {hint}")
        for column in _BUILDERS[name](protocol):
            columns.setdefault(column.name, column)
    return list(columns.values())


@dataclass(frozen=True)
class Settings:
    """Everything about a measurement that does not change its definition.

    ``asked``: stem of a result that must exist -> stems of its source and target. ``keypoints`` are
    those of the target images, ``result_keypoints`` those of the results; ``estimator``: an
    RGB picture and its name -> (18, 2), asked about images without keypoints. ``reference`` and its
    name for the cache: see :class:`util.metrics.folder.ImageReader`. ``cache_dir`` None: statistics
    of real sets are not kept.
    """

    device: str = "cpu"
    batch_size: int = 16
    workers: int = 1
    pairing: str = "result_name"  # or "same_name"
    allow_missing: bool = False
    asked: Mapping[str, tuple[str, str]] | None = None
    keypoints: KeypointTable | None = None
    result_keypoints: KeypointTable | None = None
    estimator: Callable[[Image.Image, str], np.ndarray] | None = None
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
    settings: Settings
    generation: dict[str, object]  # content of generation.json
    weights: WeightStore | None = None
    pairs: list[ImagePair] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    images: dict[str, ImageFacts] = field(default_factory=dict)  # results, ground_truth, real
    scores: list[Score] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def image_scores(self) -> list[Score]:
        """The scores that have a value for every pair."""
        return [score for score in self.scores if score.per_image is not None]


@dataclass(frozen=True)
class Task:
    """What a scorer gets: columns of one protocol and the evaluation under way."""

    protocol: Protocol
    columns: list[Column]
    evaluation: Evaluation

    @property
    def settings(self) -> Settings:
        return self.evaluation.settings

    def reader(self, network: bool) -> ImageReader:
        """How images are read for the metrics of two images, or for those of a ``network``."""
        resize = (network and self.protocol.network_resize) or self.protocol.resize
        return ImageReader(resize, self.settings.reference)

    def measured(
        self,
        column: Column,
        read: Callable[[ImagePair], tuple[np.ndarray, ...]],
        measure: Callable[..., np.ndarray],
    ) -> np.ndarray:
        """``measure(*batch)`` of batches of what ``read`` gives: a value a pair, (N,) float64.

        The values of a batch are copied at once. Kept as they are, each would lie in the heap
        behind the large temporaries of a network, whose memory then grows with the images.
        """
        pairs, settings = self.evaluation.pairs, self.settings
        size, threads, done = settings.batch_size, settings.workers, 0
        values = np.empty(len(pairs))
        for batch in batches(pairs, read, size, threads, self.name(column)):
            part = measure(*batch)
            values[done : done + len(part)] = part
            done += len(part)
        return values

    def name(self, column: Column) -> str:
        """Full name of a column: never without its protocol."""
        return f"{self.protocol.label}.{column.name}"

    def not_computed(self, column: Column, reason: str | Exception) -> None:
        """Note that a column cannot be computed, and why; the first reason stays."""
        self.evaluation.refused.setdefault(self.name(column), str(reason))

    def score(self, column: Column, value: float, count: int, **more) -> Score:
        published = self.protocol.published.get(column.name)
        return Score(
            self.name(column), column.definition, column.higher_is_better, value, count,
            published=published, **more,
        )  # fmt: skip

    def per_image_score(self, column: Column, values: np.ndarray, used: int | None = None) -> Score:
        """Mean, population standard deviation and standard error of the first ``used`` values.

        Infinite ones, the PSNR of equal images, are named in a note and left out of the mean.
        """
        finite = averaged(values[:used])
        endless = np.flatnonzero(np.isinf(values[:used]))
        details = {}
        if len(endless):
            names = ", ".join(self.evaluation.pairs[i].name for i in endless[:3])
            more = ", …" if len(endless) > 3 else ""
            rest = "" if np.isinf(finite).any() else "; the mean is over the rest"
            details["note"] = f"{len(endless)} infinite ({names}{more}){rest}"
        with np.errstate(invalid="ignore"):
            mean, std = float(finite.mean()), float(finite.std())
        error = std / len(finite) ** 0.5
        return self.score(
            column, mean, len(finite), std=std, standard_error=error, per_image=values,
            details=details,
        )  # fmt: skip


def averaged(values: np.ndarray) -> np.ndarray:
    """The values (N,) that enter a mean: without the infinite ones, unless all of them are."""
    endless = np.isinf(values)
    return values if endless.all() else values[~endless]
