"""The page of a measurement: scores, and the best, median and worst pairs with all pictures."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from dominate import tags

from util.errors import UserError
from util.files import make_folder
from util.image import save_image
from util.metrics.folder import ImagePair, describe_generation
from util.metrics.keypoints import KeypointTable, with_frame
from util.metrics.measure import Evaluation, Score
from util.metrics.report import HEADS, cells, compare, counted, remarks, score_rows
from util.names import IMAGE_EXTENSIONS, PAGE_IMAGES
from util.show import html
from util.show.result_page import add_scores
from util.skeleton import BACKDROP, draw_skeleton

SHOWN = 8  # pairs in each of the three groups


@dataclass(frozen=True)
class Ranking:
    """Pairs that all folders have, in the order of the pairs of the first, and their scores.

    ``rows``: label of a folder -> index of each common pair in it; ``values``: label -> its scores
    of them. Pairs are ordered by the mean over the folders.
    """

    column: str
    higher_is_better: bool
    rows: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray]

    def groups(self, shown: int = SHOWN) -> dict[str, list[int]]:
        """Positions of the best, median and worst pairs, best first in each; no pair twice."""
        values = np.mean(list(self.values.values()), axis=0)
        values = values if self.higher_is_better else -values
        order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable").tolist()
        shown = min(shown, -(-len(order) // 3))
        middle = max(shown, (len(order) - shown) // 2)
        last = max(middle + shown, len(order) - shown)
        groups = {
            "Best pairs": order[:shown],
            "Median pairs": order[middle : middle + shown],
            "Worst pairs": order[last:],
        }
        return {heading: places for heading, places in groups.items() if places}


def rank(evaluations: Mapping[str, Evaluation], rank_by: str | None = None) -> Ranking | None:
    """The order of the pairs by ``rank_by`` (with or without protocol) or the first such score."""
    found = {label: _ranking_score(e, rank_by) for label, e in evaluations.items()}
    names = [{p.result.stem: i for i, p in enumerate(e.pairs)} for e in evaluations.values()]
    common = [name for name in names[0] if all(name in other for other in names[1:])]
    if None in found.values() or not common:
        return None
    rows = {
        label: np.array([places[name] for name in common])
        for label, places in zip(evaluations, names, strict=True)
    }
    first = next(iter(found.values()))
    values = {label: score.per_image[rows[label]] for label, score in found.items()}
    return Ranking(first.column, first.higher_is_better, rows, values)


def _ranking_score(evaluation: Evaluation, rank_by: str | None) -> Score | None:
    candidates = [score for score in evaluation.scores if score.per_image is not None]
    if rank_by is not None:
        candidates = [s for s in candidates if rank_by in (s.column, s.column.split(".", 1)[1])]
    return candidates[0] if candidates else None


def write_evaluation_page(
    evaluations: Mapping[str, Evaluation],  # label of a folder -> what measuring it gave
    output: Path,
    rank_by: str | None = None,
    title: str = "Evaluation",
    keypoints: KeypointTable | None = None,  # of the target images, for their poses
) -> Path:
    """Write index.html into ``output``; the images shown are copied beside it."""
    folder = make_folder(output / PAGE_IMAGES)
    for old in folder.iterdir():
        if re.fullmatch(r"\d{6}_\w+\.\w+", old.name):
            old.unlink()
    page = html.new_page(title)
    page.add(tags.h1(html.clean_text(title)))
    for label, evaluation in evaluations.items():
        _introduce(page, label if len(evaluations) > 1 else "", evaluation, output)
    page.add(_scores(evaluations))
    for text in _remarks(evaluations):
        page.add(tags.p(html.clean_text(text)))
    keypoints = _framed(next(iter(evaluations.values())), keypoints)
    ranking = rank(evaluations, rank_by)
    if ranking is not None:
        for heading, places in ranking.groups().items():
            page.add(tags.h2(f"{heading} by {ranking.column}"))
            cards = [_card(evaluations, ranking, i, output, keypoints) for i in places]
            page.add(tags.div(cards, cls="cards"))
    html.write_page(output / "index.html", page)
    return output / "index.html"


def show_on_result_page(evaluation: Evaluation, report: Path) -> None:
    """Add the scores of every pair, and a link to ``report``, to the page of the results.

    Results without a page of ours and folders that may not be written stay as they are.
    """
    scores = [score for score in evaluation.scores if score.per_image is not None]
    names = [pair.result.name for pair in evaluation.pairs]
    values = {
        s.column: dict(zip(names, s.per_image.astype(float).tolist(), strict=True)) for s in scores
    }
    upward = {score.column: score.higher_is_better for score in scores}
    with contextlib.suppress(OSError):
        add_scores(evaluation.results, values, upward, report)


def _remarks(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """What belongs to the numbers; a remark about one of several folders begins with its name."""
    texts = {label: remarks(evaluation) for label, evaluation in evaluations.items()}
    lines = []
    for text in dict.fromkeys(text for mine in texts.values() for text in mine):
        about = [label for label, mine in texts.items() if text in mine]
        lines.append(text if len(about) == len(texts) else f"{', '.join(about)}: {text}")
    return lines


def _framed(evaluation: Evaluation, keypoints: KeypointTable | None) -> KeypointTable | None:
    """The keypoints when their frame is known; a page without poses is better than no page."""
    if keypoints is None:
        return None
    sizes = {p.key: evaluation.images["ground_truth"].frame(p.gt) for p in evaluation.pairs}
    try:
        keypoints = with_frame(keypoints, sizes, "--annotation_size")
    except UserError:
        return None
    return keypoints if keypoints.frames is not None else None


def _introduce(page, label: str, evaluation: Evaluation, output: Path) -> None:
    """What was measured, with a link to the page of the results."""
    heading = f"{label}: " if label else ""
    line = tags.p(html.clean_text(f"{heading}{describe_generation(evaluation.generation)}. "))
    line.add(html.clean_text(f"{counted(evaluation)}. "))
    other = evaluation.results / "index.html"
    if other.is_file():
        try:
            url = html.relative_url(os.path.relpath(other.resolve(), output.resolve()))
            line.add(tags.a("All results", href=url))
        except ValueError:
            pass  # another drive of Windows
    page.add(line)


def _scores(evaluations: Mapping[str, Evaluation]) -> tags.table:
    """One folder: a row for each column with its definition; several: a row for each folder."""
    if len(evaluations) == 1:
        return html.table(HEADS, score_rows(next(iter(evaluations.values()))))
    comparison = compare(evaluations)
    upward = comparison.attrs["higher_is_better"].items()
    heads = ["results", *(f"{name} {'↑' if higher else '↓'}" for name, higher in upward)]
    return html.table(heads, cells(comparison, "{} ★"))


def _card(
    evaluations: Mapping[str, Evaluation],
    ranking: Ranking,
    place: int,
    output: Path,
    keypoints: KeypointTable | None,
) -> tags.article:
    """One pair: source, pose and ground truth, then what every folder has for it."""
    label, evaluation = next(iter(evaluations.items()))
    pair = evaluation.pairs[ranking.rows[label][place]]
    name = f"{PAGE_IMAGES}/{int(ranking.rows[label][place]):06d}"
    given = [_copied(_source(pair), f"{name}_source", output, "source", pair.source)]
    given.append(_pose(pair, name, output, keypoints))
    made = [_copied(pair.gt, f"{name}_gt", output, "ground truth", pair.target)]
    several = len(evaluations) > 1
    for i, (label, evaluation) in enumerate(evaluations.items()):
        result = evaluation.pairs[ranking.rows[label][place]].result
        value = f"{ranking.values[label][place]:.4f}"
        caption = f"{label}: {value}" if several else "generated"
        file = f"{name}_result{i if several else ''}"
        made.append(_copied(result, file, output, caption, result.name))
    values = [float(v[place]) for v in ranking.values.values()]
    names = f"{pair.source} → {pair.key}" if pair.source else pair.name
    heading = tags.h3(tags.b(f"{np.mean(values):.4f}"), html.clean_text(f" · {names}"))
    pictures = [
        tags.div([figure for figure in given if figure], cls="given"),
        tags.div(made, cls="result several" if several else "result"),
    ]
    pairs = tags.div(pictures, cls="pairs many" if several else "pairs four")
    return tags.article(heading, pairs, cls="card")


def _copied(
    path: Path | None, name: str, output: Path, caption: str, what: str
) -> tags.figure | None:
    """A copy of a picture beside the page, as a figure; None without a picture."""
    if path is None:
        return None
    name += path.suffix.lower()
    shutil.copyfile(path, output / name)
    return html.picture(name, caption, f"{caption} {what}")


def _source(pair: ImagePair) -> Path | None:
    """The file of the source image: of the result page, or beside the ground truth."""
    if not pair.source:
        return None
    shown = pair.result.parent / PAGE_IMAGES / f"{pair.source}.jpg"
    others = [pair.gt.with_name(pair.source + extension) for extension in IMAGE_EXTENSIONS]
    return next((path for path in (*others, shown) if path.is_file()), None)


def _pose(
    pair: ImagePair, name: str, output: Path, keypoints: KeypointTable | None
) -> tags.figure | None:
    """The target's skeleton, drawn from its keypoints or taken from the result page."""
    shown = pair.result.parent / PAGE_IMAGES / f"{pair.key}_pose.jpg"
    if shown.is_file():
        return _copied(shown, f"{name}_pose", output, "pose", pair.key)
    if keypoints is None or pair.key not in keypoints.points:
        return None
    frame = tuple(int(side) for side in keypoints.frame(pair.key))
    canvas = np.full((*frame, 3), BACKDROP, np.uint8)
    save_image(output / f"{name}_pose.png", draw_skeleton(canvas, keypoints.points[pair.key]))
    return html.picture(f"{name}_pose.png", "pose", f"pose of {pair.key}")
