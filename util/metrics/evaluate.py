"""Measuring a folder of results: checks, scorers, and the evaluation they add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from util.errors import UserError
from util.metrics.folder import (
    GENERATION_FILE,
    ImageFacts,
    ImagePair,
    Pairing,
    count_problem,
    inspect_images,
    list_images,
    pair_results,
    read_generation,
    refuse,
)
from util.metrics.keypoints import score_pckh, with_frame
from util.metrics.measure import Evaluation, Settings, Task
from util.metrics.pairs import score_files
from util.metrics.protocols import Protocol
from util.metrics.registry import Column, MetricUnavailableError, columns_for
from util.metrics.weights import WeightStore
from util.tables.manifest import differences, folder_record, problems

MARKET_SIZE = "64x128"
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
    images = _inspect(results, pairing.pairs, real, protocols, columns)
    _check_runs(results, images["results"], generation)
    evaluation = Evaluation(
        results=Path(results),
        gt=Path(gt),
        real=None if real is None else Path(real),
        protocols=list(protocols),
        pairs=pairing.pairs,
        left_out=pairing.left_out,
        images=images,
        weights=WeightStore(settings.weights, settings.offline),
        generation=generation,
    )
    evaluation.notes += _notes(evaluation)
    settings = _with_frames(evaluation, settings, [c for mine in columns.values() for c in mine])
    for protocol in protocols:
        _run_scorers(protocol, columns[protocol.label], evaluation, settings)
    evaluation.notes += evaluation.weights.notes()
    return evaluation


def _pair(
    results: str | Path, gt: str | Path, generation: Mapping | None, settings: Settings
) -> Pairing:
    """The pairs, after a look at how many results there should be."""
    pairing = pair_results(results, gt, settings.pairing, settings.allow_missing, settings.asked)
    problem = count_problem(generation, len(list_images(results)))
    if problem and not settings.allow_missing:
        raise UserError(
            f"{results}: {problem}; generate into an empty folder, or measure with --allow_missing."
        )
    if problem:
        pairing.left_out["other number of results than announced"] = [problem]
    return pairing


def _inspect(
    results: str | Path,
    pairs: Sequence[ImagePair],
    real: str | Path | None,
    protocols: Sequence[Protocol],
    columns: Mapping[str, Sequence[Column]],
) -> dict[str, ImageFacts]:
    """Facts about all images; UserError lists the unreadable and the ill-sized ones."""
    facts = {
        "results": inspect_images([pair.result for pair in pairs], "results"),
        "ground_truth": inspect_images(sorted({pair.gt for pair in pairs}), "ground truth"),
    }
    if real is not None and any(c.needs_real for mine in columns.values() for c in mine):
        facts["real"] = inspect_images(list_images(real), "real images")
    found = {"unreadable": [name for f in facts.values() for name in f.unreadable]}
    if not all(_resizes_all(protocol, columns[protocol.label]) for protocol in protocols):
        found |= _size_problems(pairs, facts)
    refuse(found)
    return facts


def _resizes_all(protocol: Protocol, columns: Sequence[Column]) -> bool:
    """Whether every one of these columns sees its images at a size of the protocol's."""
    if protocol.resize is not None:
        return True
    return protocol.network_resize is not None and all(column.scorer for column in columns)


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


def _check_runs(results: str | Path, facts: ImageFacts, generation: Mapping | None) -> None:
    """Refuse results that several runs of test.py have left in one folder, or an unfinished one."""
    runs = Counter(facts.runs)
    if len(runs) > 1:
        parts = [f"{count} of {'run ' + run if run else 'no known run'}" for run, count in
                 runs.most_common()]  # fmt: skip
        raise UserError(
            f"{results} holds the images of {len(runs)} runs of test.py ({', '.join(parts[:4])}); "
            "expected those of one: generate them again into an empty folder."
        )
    announced, (found,) = str((generation or {}).get("run") or ""), runs or ("",)
    if announced and found and announced != found:
        raise UserError(
            f"the images in {results} are of run {found}, its {GENERATION_FILE} describes run "
            f"{announced}: generate them again into an empty folder."
        )


def _notes(evaluation: Evaluation) -> list[str]:
    """What a reader of the numbers has to know about the image sets."""
    notes = _preparation_notes(evaluation)
    formats, sizes = evaluation.images["results"].formats, evaluation.images["results"].sizes
    if len(formats) > 1:
        found = ", ".join(f"{count} {name}" for name, count in formats.most_common())
        notes.append(f"the results are not of one format ({found}): their compression differs.")
    for protocol in evaluation.protocols:
        if protocol.image_format and set(formats) != {protocol.image_format}:
            notes.append(
                f"{protocol.label}: the published table was measured on {protocol.image_format} "
                f"results, these are {', '.join(formats)}; compression changes all numbers."
            )
        if set(sizes) == {MARKET_SIZE} and "market" not in protocol.variants and protocol.counts:
            notes.append(
                f"{protocol.label}: images of {MARKET_SIZE} are those of Market-1501, whose "
                "published numbers are without padding and resizing: use --market."
            )
        notes += _count_notes(evaluation, protocol)
    return notes


def _count_notes(evaluation: Evaluation, protocol: Protocol) -> list[str]:
    """How far the numbers of images are from those of the published table."""
    if not protocol.counts:
        return []
    real, found = evaluation.images.get("real"), len(evaluation.pairs)
    text = f"{protocol.label}: the published table has {protocol.counts[1]:,} result images"
    if real is None:
        same = found == protocol.counts[1]
        return [] if same else [f"{text}, here are {found:,}: compare with no published number."]
    if (len(real.size_of), found) == protocol.counts:
        return []
    return [
        f"{text} and {protocol.counts[0]:,} real ones, here are {found:,} and "
        f"{len(real.size_of):,}; FID depends on both: compare with no published number."
    ]


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


def _with_frames(evaluation: Evaluation, settings: Settings, columns: Sequence[Column]) -> Settings:
    """The settings with keypoints whose frames are known, where a column asks for keypoints.

    UserError when the keypoints of a target are missing for a mask, or frames are unknown.
    """
    masked = any(column.masked for column in columns)
    if not (masked or any(column.scorer is score_pckh for column in columns)):
        return settings
    pairs, images, table = evaluation.pairs, evaluation.images, settings.keypoints
    if table is not None:
        missing = sorted({pair.key for pair in pairs} - set(table.points)) if masked else []
        refuse({"without keypoints": missing}, "complete the annotation file")
        sizes = {pair.key: images["ground_truth"].frame(pair.gt) for pair in pairs}
        settings = replace(settings, keypoints=with_frame(table, sizes, "--annotation_size"))
    theirs = settings.result_keypoints
    if theirs is not None:
        sizes = {pair.result.stem: images["results"].frame(pair.result) for pair in pairs}
        theirs = with_frame(theirs, sizes, "--result_keypoints_size")
        settings = replace(settings, result_keypoints=theirs)
    return settings


def _run_scorers(
    protocol: Protocol, columns: Sequence[Column], evaluation: Evaluation, settings: Settings
) -> None:
    scores = {}
    for scorer in dict.fromkeys(column.scorer for column in columns):
        mine = [column for column in columns if column.scorer is scorer]
        task = Task(protocol, mine, evaluation, settings)
        for column in [c for c in mine if c.masked and settings.keypoints is None]:
            task.not_computed(column, NO_KEYPOINTS)
            mine.remove(column)
        try:
            scores |= {s.column: s for s in (scorer or score_files)(task)} if mine else {}
        except MetricUnavailableError as error:
            for column in mine:
                task.not_computed(column, error)
    order = [f"{protocol.label}.{column.name}" for column in columns]
    evaluation.scores += [scores[name] for name in order if name in scores]
