"""Measuring a folder of results: pairing, checks, scorers, and the evaluation they add up to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from util.errors import UserError
from util.manifest import differences, folder_record, problems
from util.metrics.generation import count_problem, read_generation
from util.metrics.inspection import ImageFacts, inspect_images
from util.metrics.measurement import SCORERS, Evaluation, Settings, Task
from util.metrics.pairing import (
    ImagePair,
    Pairing,
    list_images,
    pair_results,
    report_problems,
)
from util.metrics.protocols import Protocol
from util.metrics.registry import Column, MetricUnavailableError, columns_for
from util.metrics.weights import WEIGHTS, WeightStore

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
