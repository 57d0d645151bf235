"""Measuring a folder of results: pairing, checks, scorers, and the evaluation they add up to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from util.metrics.inspection import ImageFacts, inspect_images
from util.metrics.pairing import ImagePair, list_images, pair_results, report_problems
from util.metrics.pairs import score_folder
from util.metrics.protocols import Protocol
from util.metrics.registry import Column, MetricUnavailableError, columns_for


@dataclass(frozen=True)
class Settings:
    """Everything about a measurement that does not change its definition.

    ``pairing`` is ``result_name`` or ``same_name``. ``keypoints``: target image name -> (18, 2)
    (y, x) in the frame of the images, for masks. ``expected``: stems of results that must exist.
    """

    device: str = "cpu"
    batch_size: int = 16
    workers: int = 1
    pairing: str = "result_name"
    allow_missing: bool = False
    keypoints: Mapping[str, np.ndarray] = field(default_factory=dict)
    expected: Sequence[str] | None = None


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
    scores: list[Score] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """What a scorer gets: columns of one protocol and the evaluation under way."""

    protocol: Protocol
    columns: list[Column]
    evaluation: Evaluation
    settings: Settings


Scorer = Callable[[Task], list[Score]]


def evaluate_folder(
    results: str | Path,
    gt: str | Path,
    real: str | Path | None,
    protocols: Sequence[Protocol],
    metrics: Sequence[str] | None = None,
    settings: Settings | None = None,
) -> Evaluation:
    """Measure the images in ``results`` against ``gt`` (pairs) and ``real`` (sets).

    A metric that cannot be computed here is refused and the others go on; wrong, missing or damaged
    images raise UserError with the list. Nothing is written into any of the folders.
    """
    settings = settings or Settings()
    columns = {p.label: columns_for(p, metrics) for p in protocols}
    pairing = pair_results(results, gt, settings.pairing, settings.allow_missing, settings.expected)
    evaluation = Evaluation(
        results=Path(results),
        gt=Path(gt),
        real=None if real is None else Path(real),
        protocols=list(protocols),
        pairs=pairing.pairs,
        left_out=pairing.left_out,
        images=_inspect(pairing.pairs, all(p.resize for p in protocols)),
    )
    for protocol in protocols:
        _run_scorers(protocol, columns[protocol.label], evaluation, settings)
    return evaluation


def _inspect(pairs: Sequence[ImagePair], resized: bool) -> dict[str, ImageFacts]:
    """Facts about result and ground-truth images; UserError lists unreadable and ill-sized ones."""
    results = inspect_images([pair.result for pair in pairs], "results")
    gt = inspect_images(sorted({pair.gt for pair in pairs}), "ground truth")
    problems = {"unreadable": results.unreadable + gt.unreadable}
    if not resized:
        problems["of another size than the rest"] = results.odd_sizes()
        problems["of another size than their ground truth"] = [
            f"{pair.name} is {found}, {pair.target} is {wanted}"
            for pair in pairs
            if (found := results.size_of.get(pair.result)) != (wanted := gt.size_of.get(pair.gt))
            and found
            and wanted
        ]
    report_problems({kind: names for kind, names in problems.items() if names})
    return {"results": results, "ground_truth": gt}


def _run_scorers(
    protocol: Protocol, columns: Sequence[Column], evaluation: Evaluation, settings: Settings
) -> None:
    for name in dict.fromkeys(column.scorer for column in columns):
        mine = [column for column in columns if column.scorer == name]
        task = Task(protocol, mine, evaluation, settings)
        try:
            evaluation.scores += SCORERS[name](task)
        except MetricUnavailableError as error:
            evaluation.refused |= {f"{protocol.label}.{c.name}": str(error) for c in mine}
    order = {f"{protocol.label}.{c.name}": i for i, c in enumerate(columns)}
    evaluation.scores.sort(key=lambda score: order.get(score.column, -1))


def per_image_score(protocol: Protocol, column: Column, values: np.ndarray) -> Score:
    """Mean, standard deviation (population) and standard error of one value per image."""
    count = len(values)
    with np.errstate(invalid="ignore"):
        std = float(values.std())
    return Score(
        column=f"{protocol.label}.{column.name}",
        definition=column.definition,
        higher_is_better=column.higher_is_better,
        value=float(values.mean()),
        count=count,
        std=std,
        standard_error=std / count**0.5,
        per_image=values,
    )


def _score_pairs(task: Task) -> list[Score]:
    scored = score_folder(
        task.evaluation.pairs,
        task.columns,
        task.protocol.resize,
        task.settings.keypoints,
        task.settings.workers,
    )
    prefix = task.protocol.label
    task.evaluation.refused |= {f"{prefix}.{name}": why for name, why in scored.refused.items()}
    return [
        per_image_score(task.protocol, column, scored.values[:, i])
        for i, column in enumerate(task.columns)
        if column.name not in scored.refused
    ]


SCORERS: dict[str, Scorer] = {"pairs": _score_pairs}


def count_images(folder: str | Path) -> int:
    """Number of images in a folder."""
    return len(list_images(folder))
