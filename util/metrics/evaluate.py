"""Measuring a folder of results: checks, scorers, and the evaluation they add up to."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from util.errors import UserError
from util.metrics.folder import (
    GENERATION_FILE,
    inspect_images,
    list_images,
    pair_results,
    read_generation,
    refuse,
)
from util.metrics.keypoints import score_pckh, with_frame
from util.metrics.networks import WEIGHTS, WeightStore
from util.metrics.pairs import score_files
from util.metrics.protocols import Protocol
from util.metrics.registry import (
    Column,
    Evaluation,
    MetricUnavailableError,
    Settings,
    Task,
    columns_for,
)
from util.tables.manifest import differences, folder_record, problems

SETS = {"results": "results", "ground_truth": "ground truths", "real": "real set"}
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
    plan = [(protocol, columns_for(protocol, metrics)) for protocol in protocols]
    columns = [column for _, mine in plan for column in mine]
    real = None if real is None else Path(real)
    settings, generation = settings or Settings(), read_generation(results)
    evaluation = Evaluation(Path(results), Path(gt), real, list(protocols), settings, generation)
    evaluation.weights = WeightStore(settings.weights, settings.offline)
    _pair(evaluation)
    _inspect(evaluation, any(column.needs_real for column in columns))
    if not all(  # the columns of a protocol see their images at one size
        protocol.resize or (protocol.network_resize and all(column.scorer for column in mine))
        for protocol, mine in plan
    ):
        refuse(_size_problems(evaluation))
    _check_runs(evaluation)
    evaluation.notes += _notes(evaluation)
    _find_frames(evaluation, columns)
    for protocol, mine in plan:
        _run_scorers(Task(protocol, mine, evaluation))
    evaluation.notes += [
        f"the weights of {WEIGHTS[key].what} ({used['file']}) are not the published file: numbers "
        "of this network compare with nothing published."
        for key, used in evaluation.weights.used.items()
        if not used["published"]
    ]
    return evaluation


def _pair(evaluation: Evaluation) -> None:
    """Find the pairs, and refuse another number of results than test.py announced."""
    results, settings = evaluation.results, evaluation.settings
    rules = settings.pairing, settings.allow_missing, settings.asked
    evaluation.pairs, evaluation.left_out = pair_results(results, evaluation.gt, *rules)
    found, expected = len(list_images(results)), evaluation.generation.get("pairs")
    if not isinstance(expected, int) or expected == found:
        return
    why = "test.py was interrupted" if found < expected else "images of another run are among them"
    problem = f"{found} images, while {GENERATION_FILE} announces {expected}: {why}"
    if not settings.allow_missing:
        raise UserError(
            f"{results}: {problem}; generate into an empty folder, or measure with --allow_missing."
        )
    evaluation.left_out["other number of results than announced"] = [problem]


def _inspect(evaluation: Evaluation, with_real: bool) -> None:
    """Find the facts about all images; UserError lists the unreadable ones."""
    facts, pairs = evaluation.images, evaluation.pairs
    facts["results"] = inspect_images([pair.result for pair in pairs], "results")
    facts["ground_truth"] = inspect_images(sorted({pair.gt for pair in pairs}), "ground truth")
    if with_real and evaluation.real is not None:
        facts["real"] = inspect_images(list_images(evaluation.real), "real images")
    refuse({"unreadable": [name for each in facts.values() for name in each.unreadable]})


def _size_problems(evaluation: Evaluation) -> dict[str, list[str]]:
    """Images of another size than most results: where there is none, all pairs are of one size."""
    usual = evaluation.images["results"].sizes.most_common(1)[0][0]
    return {
        f"of the {SETS[what]} of another size than most results": [
            f"{path.name} is {size}, most results are {usual}"
            for path, size in facts.size_of.items()
            if size != usual
        ]
        for what, facts in evaluation.images.items()
    }


def _check_runs(evaluation: Evaluation) -> None:
    """Refuse results that several runs of test.py have left in one folder, or an unfinished one."""
    results, runs = evaluation.results, evaluation.images["results"].runs
    if len(runs) > 1:
        parts = [
            f"{n} of {f'run {run}' if run else 'no known run'}" for run, n in runs.most_common(4)
        ]
        raise UserError(
            f"{results} holds the images of {len(runs)} runs of test.py ({', '.join(parts)}); "
            "expected those of one: generate them again into an empty folder."
        )
    announced, (found,) = evaluation.generation.get("run"), runs
    if announced and found and announced != found:
        raise UserError(
            f"the images in {results} are of run {found}, its {GENERATION_FILE} describes run "
            f"{announced}: generate them again into an empty folder."
        )


def _notes(evaluation: Evaluation) -> list[str]:
    """What a reader of the numbers has to know about the image sets."""
    notes, facts = _preparation_notes(evaluation), evaluation.images["results"]
    if len(facts.formats) > 1:
        found = ", ".join(f"{count} {name}" for name, count in facts.formats.most_common())
        notes.append(f"the results are not of one format ({found}): their compression differs.")
    for protocol in evaluation.protocols:
        label = protocol.label
        if protocol.image_format and set(facts.formats) != {protocol.image_format}:
            notes.append(
                f"{label}: the published table was measured on {protocol.image_format} results, "
                f"these are {', '.join(facts.formats)}; compression changes all numbers."
            )
        if protocol.counts is None:
            continue
        if set(facts.sizes) == {MARKET_SIZE} and "market" not in protocol.variants:
            notes.append(
                f"{label}: images of {MARKET_SIZE} are those of Market-1501, whose published "
                "numbers are without padding and resizing: use --market."
            )
        notes += _count_notes(evaluation, protocol)
    return notes


def _count_notes(evaluation: Evaluation, protocol: Protocol) -> list[str]:
    """How far the numbers of images are from those of the published table."""
    real, results = protocol.counts
    counts = {what: len(facts.size_of) for what, facts in evaluation.images.items()}
    found, found_real = counts["results"], counts.get("real", real)
    if (found, found_real) == (results, real):
        return []
    text = f"{protocol.label}: the published table has {results:,} result images"
    if "real" not in counts:
        return [f"{text}, here are {found:,}: compare with no published number."]
    return [
        f"{text} and {real:,} real ones, here are {found:,} and {found_real:,}; FID depends on "
        "both: compare with no published number."
    ]


def _preparation_notes(evaluation: Evaluation) -> list[str]:
    """Where the manifests of the folders disagree with each other or with their folders."""
    folders = list(filter(None, (evaluation.gt, evaluation.real)))
    notes = [problem for folder in dict.fromkeys(folders) for problem in problems(folder)]
    others = {"the real set": folder_record(folders[-1])}
    prepared = evaluation.generation.get("prepared")
    if isinstance(prepared, dict):
        others["the data the images were generated from"] = prepared
    for what, record in others.items():
        changes = differences(folder_record(evaluation.gt), record)
        if changes:
            notes.append(f"ground truth and {what} were not prepared alike ({'; '.join(changes)}).")
    return notes


def _find_frames(evaluation: Evaluation, columns: Sequence[Column]) -> None:
    """Find the frames of the keypoints; those of targets are left out where no column needs them.

    UserError when the keypoints of a target are missing for a mask, or frames are unknown.
    """
    masked = any(column.masked for column in columns)
    needed = masked or any(column.scorer is score_pckh for column in columns)
    pairs, images, settings = evaluation.pairs, evaluation.images, evaluation.settings
    table, theirs = settings.keypoints, settings.result_keypoints
    targets, results = {p.key: p.gt for p in pairs}, {p.result.stem: p.result for p in pairs}
    if table and masked:
        missing = {"without keypoints": sorted(set(targets) - set(table.people))}
        refuse(missing, "complete the annotation file")
    try:
        table = with_frame(table, images["ground_truth"], targets, "--annotation_size")
        theirs = with_frame(theirs, images["results"], results, "--result_keypoints_size")
    except UserError:
        if needed:
            raise
        table = None  # the page has no poses then
    evaluation.settings = replace(settings, keypoints=table, result_keypoints=theirs)


def _run_scorers(task: Task) -> None:
    scores, columns = {}, list(task.columns)
    if task.settings.keypoints is None:
        for column in [column for column in columns if column.masked]:
            task.not_computed(column, NO_KEYPOINTS)
            columns.remove(column)
    for way in dict.fromkeys((column.scorer, column.share) for column in columns):
        mine = [column for column in columns if (column.scorer, column.share) == way]
        try:
            part = (way[0] or score_files)(replace(task, columns=mine))
            scores |= {score.column: score for score in part}
        except MetricUnavailableError as error:
            for column in mine:
                task.not_computed(column, error)
    task.evaluation.scores += [scores[n] for n in map(task.name, task.columns) if n in scores]
