"""Measuring a folder of results: pairing, checks, scorers, and the evaluation they add up to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from util.errors import UserError
from util.metrics.folder import (
    ImageFacts,
    ImagePair,
    ImageReader,
    Pairing,
    apply_mask,
    count_problem,
    inspect_images,
    list_images,
    pair_results,
    read_generation,
    report_problems,
)
from util.metrics.measure import SCORERS, Evaluation, Score, Settings, Task, register_scorer
from util.metrics.protocols import Protocol, find_protocol
from util.metrics.reconstruction import pad_to_square, size_of
from util.metrics.registry import Column, MetricUnavailableError, columns_for, list_metrics
from util.metrics.weights import WEIGHTS, WeightStore
from util.parallel import map_in_order
from util.tables.manifest import differences, folder_record, problems

CHEAP_METRICS = ("psnr", "ssim", "l1", "mae")
BATCH = 8
ArrayPair = tuple[np.ndarray, np.ndarray]


def score_pairs(
    pairs: Iterable[ArrayPair],
    protocol: str | Protocol = "dptn",
    metrics: Sequence[str] = CHEAP_METRICS,
    market: bool = False,
    device: str | torch.device = "cpu",
    weights: Mapping[str, str | Path | None] | None = None,
) -> dict[str, float]:
    """Mean of each metric over pairs ``(gt, pred)`` of uint8 arrays (H, W, 3).

    Works on a generator: a few pairs are held at a time. Keys are column names (``ssim`` of the
    dptn protocol gives ``ssim`` and ``ssim_256``), in the order asked for. ``device`` and
    ``weights`` (key of util.metrics.weights.WEIGHTS -> path) are for LPIPS.
    Raises UserError when there is no pair, a metric is unknown or needs whole folders, and
    MetricUnavailableError when the images are too small for one or a network's weights are missing.
    """
    columns = columns_for(find_protocol(protocol, market), metrics)
    _check_columns(columns)
    networks = _networks([c for c in columns if c.scorer == "lpips"], device, weights)
    two_images = [c for c in columns if c.scorer == "pairs"]
    totals, count = {column.name: 0.0 for column in columns}, 0
    for batch in _batches(pairs):
        for gt, pred in batch:
            values, refused = score_pair(gt, pred, two_images)
            if refused:
                raise MetricUnavailableError(next(iter(refused.values())))
            for column, value in zip(two_images, values, strict=True):
                totals[column.name] += value
        for name, distances in networks.items():
            totals[name] += distances(batch)
        count += len(batch)
    if not count:
        raise UserError("there is no pair to score; expected at least one.")
    return {name: total / count for name, total in totals.items()}


def _check_columns(columns: Sequence[Column]) -> None:
    for column in columns:
        if column.scorer not in ("pairs", "lpips") or column.masked:
            raise UserError(
                f"{column.name} cannot be computed from pairs of arrays; expected metrics of two "
                "images such as psnr, ssim, l1, lpips: measure a folder with script/metrics.py "
                "instead."
            )


def _networks(columns: Sequence[Column], device, weights) -> dict:
    """Column name -> function of a batch of pairs that gives the sum of their LPIPS distances."""
    if not columns:
        return {}
    from util.metrics.lpips import build_lpips, lpips_distances  # only when LPIPS is asked for
    from util.metrics.weights import WeightStore

    store = WeightStore(weights)

    def summed(network):
        def distances(batch: Sequence[ArrayPair]) -> float:
            gt, pred = (torch.from_numpy(np.stack(side)) for side in zip(*batch, strict=True))
            return float(lpips_distances(network, gt, pred).sum())

        return distances

    return {c.name: summed(build_lpips(c.settings, store, device)) for c in columns}


def _batches(pairs: Iterable[ArrayPair]) -> Iterator[list[ArrayPair]]:
    """Up to BATCH neighbouring pairs of one size."""
    pairs = iter(pairs)
    batch: list[ArrayPair] = []
    for pair in pairs:
        if batch and (len(batch) == BATCH or pair[0].shape != batch[0][0].shape):
            yield batch
            batch = []
        batch.append(pair)
    if batch:
        yield batch


def higher_is_better(column: str, protocol: str | Protocol = "dptn") -> bool:
    """Whether more is better in a column, for ``--best_metric``; UserError for an unknown name."""
    columns = {c.name: c for c in columns_for(find_protocol(protocol), list_metrics())}
    if column not in columns:
        raise UserError(f"there is no column {column!r}; choose from {', '.join(columns)}.")
    return columns[column].higher_is_better


CHUNK = 16  # pairs a worker takes at once
AHEAD = 4  # chunks in the queue for each worker: bounds memory whatever the number of images

Item = tuple[ImagePair, "np.ndarray | None"]  # a pair and the keypoints of its target


@dataclass
class Scored:
    """Rows of values, refused columns with the reason, and complaints about unusable images."""

    rows: list[list[float]] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)


def score_pair(
    gt: np.ndarray, pred: np.ndarray, columns: Sequence[Column], mask: np.ndarray | None = None
) -> tuple[list[float], dict[str, str]]:
    """Values of the ``pairs`` columns for one pair (NaN where refused) and the refusals.

    ``mask`` (H, W) bool is needed by masked columns only.
    """
    views: dict[tuple[bool, bool], tuple[np.ndarray, np.ndarray]] = {}
    values, refused = [], {}
    for column in columns:
        form = (column.padded, column.masked)
        try:
            if form not in views:
                views[form] = _view(gt, column, mask), _view(pred, column, mask)
            values.append(float(column.settings(*views[form])))
        except MetricUnavailableError as error:
            values.append(float("nan"))
            refused[column.name] = str(error)
    return values, refused


def _view(image: np.ndarray, column: Column, mask: np.ndarray | None) -> np.ndarray:
    if column.masked:
        if mask is None:
            raise MetricUnavailableError(f"{column.name} needs a body mask, there is none.")
        image = apply_mask(image, mask)
    return pad_to_square(image) if column.padded else image


def _score_chunk(reader: ImageReader, columns: Sequence[Column], chunk: Iterable[Item]) -> Scored:
    """A few pairs; runs in a worker process."""
    scored = Scored()
    for pair, keypoints in chunk:
        try:
            pred, gt = reader.read_result(pair.result), reader.read_reference(pair.gt)
            if pred.shape != gt.shape:
                raise UserError(f"{pair.name} has {size_of(pred)}, {pair.target} has {size_of(gt)}")
        except UserError as error:
            scored.damaged.append(str(error))
            continue
        mask = None if keypoints is None else reader.mask(keypoints, gt.shape[:2])
        values, refused = score_pair(gt, pred, columns, mask)
        scored.rows.append(values)
        scored.refused.update(refused)
    return scored


@register_scorer("pairs")
def score_pairs_of_files(task: Task) -> list[Score]:
    """Score every pair of files with ``settings.workers`` processes.

    Raises UserError listing every image that cannot be read or has another size than its target.
    """
    pairs, columns = task.evaluation.pairs, tuple(task.columns)
    values = np.full((len(pairs), len(columns)), np.nan)
    masked = any(column.masked for column in columns)
    items = ((pair, task.settings.keypoints.get(pair.key) if masked else None) for pair in pairs)
    work = partial(_score_chunk, task.reader, columns)
    workers = min(task.settings.workers, len(pairs) // (2 * CHUNK))  # starting one must be worth it
    total, done = Scored(), 0
    with tqdm(total=len(pairs), desc="pairs", unit="pair") as bar:
        for scored in _map_chunks(work, items, workers):
            if scored.rows:
                values[done : done + len(scored.rows)] = scored.rows
            done += len(scored.rows)
            total.refused |= scored.refused
            total.damaged += scored.damaged
            bar.update(len(scored.rows) + len(scored.damaged))
    report_problems({"unreadable or of another size": total.damaged} if total.damaged else {})
    return _scores(task, values, total.refused)


def _scores(task: Task, values: np.ndarray, refused: dict[str, str]) -> list[Score]:
    """A score for each column of ``values`` (pairs, columns) that is defined for all pairs."""
    scores = []
    for i, column in enumerate(task.columns):
        undefined = np.flatnonzero(np.isnan(values[:, i]))
        if column.name in refused:
            task.refuse(column, MetricUnavailableError(refused[column.name]))
        elif len(undefined):
            names = [task.evaluation.pairs[j].name for j in undefined[:5]]
            more = ", …" if len(undefined) > len(names) else ""
            reason = (
                f"undefined for {len(undefined)} results of one flat colour ({', '.join(names)}"
                f"{more}), of which maximum minus minimum is 0; ask for another SSIM."
            )
            task.refuse(column, MetricUnavailableError(reason))
        else:
            scores.append(task.per_image_score(column, values[:, i]))
    return scores


def _map_chunks(
    work: Callable[[Iterable[Item]], Scored], items: Iterable[Item], workers: int
) -> Iterator[Scored]:
    """``work`` over chunks of items, in order, with a bounded number of them in flight."""
    items = iter(items)
    chunks = iter(lambda: tuple(islice(items, CHUNK)), ())
    yield from map_in_order(work, chunks, workers)


NO_KEYPOINTS = (
    "the body mask needs the keypoints of the target images; give their file with --annotation."
)


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
    generation = read_generation(results)
    pairing = _pair(results, gt, generation, settings)
    needs_real = any(c.needs_real for mine in columns.values() for c in mine)
    evaluation = Evaluation(
        results=Path(results),
        gt=Path(gt),
        real=None if real is None else Path(real),
        protocols=list(protocols),
        pairs=pairing.pairs,
        left_out=pairing.left_out,
        images=_inspect(
            pairing.pairs, real if needs_real else None, all(p.resize for p in protocols)
        ),
        weights=WeightStore(settings.weights, settings.offline),
        generation=generation,
    )
    evaluation.notes += _notes(evaluation, needs_real)
    if any(column.masked for mine in columns.values() for column in mine):
        _check_keypoints(evaluation.pairs, settings)
    for protocol in protocols:
        _run_scorers(protocol, columns[protocol.label], evaluation, settings)
    evaluation.notes += _weights_notes(evaluation.weights)
    return evaluation


def _pair(results, gt, generation: dict[str, object] | None, settings: Settings) -> Pairing:
    """The pairs, after a look at how many results there should be."""
    pairing = pair_results(results, gt, settings.pairing, settings.allow_missing, settings.expected)
    problem = count_problem(generation, len(list_images(results)))
    if problem and not settings.allow_missing:
        raise UserError(
            f"{results}: {problem}; generate into an empty folder, or measure with --allow_missing."
        )
    if problem:
        pairing.left_out["other number of results than announced"] = [problem]
    return pairing


def _inspect(
    pairs: Sequence[ImagePair], real: str | Path | None, resized: bool
) -> dict[str, ImageFacts]:
    """Facts about all images; UserError lists the unreadable and the ill-sized ones."""
    facts = {
        "results": inspect_images([pair.result for pair in pairs], "results"),
        "ground_truth": inspect_images(sorted({pair.gt for pair in pairs}), "ground truth"),
    }
    if real is not None:
        facts["real"] = inspect_images(list_images(real), "real images")
    problems = {"unreadable": [name for f in facts.values() for name in f.unreadable]}
    if not resized:
        problems |= _size_problems(pairs, facts)
    report_problems({kind: names for kind, names in problems.items() if names})
    return facts


def _size_problems(
    pairs: Sequence[ImagePair], facts: dict[str, ImageFacts]
) -> dict[str, list[str]]:
    results, gt = facts["results"], facts["ground_truth"]
    problems = {
        "of another size than the other results": results.odd_sizes(),
        "of another size than their ground truth": [
            f"{pair.name} is {found}, {pair.target} is {wanted}"
            for pair in pairs
            if (found := results.size_of.get(pair.result)) != (wanted := gt.size_of.get(pair.gt))
            and found
            and wanted
        ],
    }
    if "real" in facts and results.sizes:
        usual = results.usual_size
        problems["of the real set of another size than the results"] = [
            f"{path.name} is {size}, the results are {usual}"
            for path, size in facts["real"].size_of.items()
            if size != usual
        ]
    return problems


def _notes(evaluation: Evaluation, uses_real: bool) -> list[str]:
    """What a reader of the numbers has to know about the image sets."""
    notes = _preparation_notes(evaluation)
    real_facts = evaluation.images.get("real")
    formats = evaluation.images["results"].formats
    if len(formats) > 1:
        found = ", ".join(f"{count} {name}" for name, count in formats.most_common())
        notes.append(f"the results are not of one format ({found}): their compression differs.")
    for protocol in evaluation.protocols:
        if protocol.image_format and set(formats) != {protocol.image_format}:
            notes.append(
                f"{protocol.label}: the published table was measured on {protocol.image_format} "
                f"results, these are {', '.join(formats)}; compression changes all numbers."
            )
        if not (uses_real and protocol.counts and real_facts):
            continue
        found = (len(real_facts.size_of), len(evaluation.pairs))
        if found != protocol.counts:
            notes.append(
                f"{protocol.label}: the published table has {protocol.counts[0]} real and "
                f"{protocol.counts[1]} result images, here are {found[0]} and {found[1]}; "
                "FID depends on both."
            )
    return notes


def _preparation_notes(evaluation: Evaluation) -> list[str]:
    """Where the manifests of the folders disagree with each other or with their folders."""
    folders = list(filter(None, (evaluation.gt, evaluation.real)))
    notes = [problem for folder in dict.fromkeys(folders) for problem in problems(folder)]
    truth = folder_record(evaluation.gt)
    others = {"the real set": folder_record(folders[-1])}
    prepared = (evaluation.generation or {}).get("prepared")
    if isinstance(prepared, dict):
        others["the data the images were generated from"] = prepared
    for what, record in others.items():
        changes = differences(truth, record)
        if changes:
            notes.append(f"ground truth and {what} were not prepared alike ({'; '.join(changes)}).")
    return notes


def _check_keypoints(pairs: Sequence[ImagePair], settings: Settings) -> None:
    """Keypoints must be there for all targets or for none; UserError lists the missing."""
    if not settings.keypoints:
        return
    missing = sorted({pair.key for pair in pairs if pair.key not in settings.keypoints})
    if missing:
        report_problems({"without keypoints": missing}, "complete the annotation file")


def _weights_notes(store: WeightStore) -> list[str]:
    return [
        f"the weights of {WEIGHTS[key].file.what} ({used['file']}) are not the published file: "
        "numbers of this network compare with nothing published."
        for key, used in store.used.items()
        if not used["published"]
    ]


def _run_scorers(
    protocol: Protocol, columns: Sequence[Column], evaluation: Evaluation, settings: Settings
) -> None:
    scores = {}
    for name in dict.fromkeys(column.scorer for column in columns):
        mine = [column for column in columns if column.scorer == name]
        task = Task(protocol, mine, evaluation, settings)
        for column in [c for c in mine if c.masked and not settings.keypoints]:
            task.refuse(column, MetricUnavailableError(NO_KEYPOINTS))
            mine.remove(column)
        try:
            scores |= {score.column: score for score in SCORERS[name](task)}
        except MetricUnavailableError as error:
            for column in mine:
                task.refuse(column, error)
    order = [f"{protocol.label}.{column.name}" for column in columns]
    evaluation.scores += [scores[name] for name in order if name in scores]
