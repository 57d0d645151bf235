"""The page of a measurement: scores, and the best, median and worst pairs with all pictures."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dominate import tags

from util.files import make_folder
from util.image import save_image
from util.metrics.folder import ImagePair
from util.metrics.keypoints import KeypointTable
from util.metrics.registry import Evaluation
from util.metrics.report import HEADS, comparison, counted, origin, remarks, score_rows
from util.names import IMAGE_EXTENSIONS, PAGE_IMAGES, POSE_PICTURE
from util.show import html
from util.show.result_page import add_scores
from util.skeleton import skeleton_picture

if TYPE_CHECKING:
    from pandas import DataFrame

SHOWN = 8  # pairs in each of the three groups


def rank(evaluations: Mapping[str, Evaluation], rank_by: str | None = None) -> DataFrame | None:
    """Scores of the pairs that all folders have, best mean first: a row for each stem of a result.

    They are those of ``rank_by`` (with or without protocol) or the first, ``attrs["column"]``; None
    where a folder has none or no pair is in all.
    """
    from pandas import Series, concat  # slow to import

    columns, found = {}, {}
    for label, evaluation in evaluations.items():
        for score in reversed(evaluation.image_scores):
            if rank_by in (None, score.column, score.column.split(".", 1)[1]):
                stems = [pair.result.stem for pair in evaluation.pairs]
                columns[label], found[label] = score, Series(score.per_image, stems)
    if len(found) < len(evaluations):
        return None
    frame, first = concat(found, axis=1, join="inner"), columns[next(iter(evaluations))]
    means = frame.mean(axis=1, skipna=False)
    frame = frame.loc[means.sort_values(ascending=not first.higher_is_better, kind="stable").index]
    frame.attrs["column"] = first.column
    return frame if len(frame) else None


def groups(ranking: DataFrame, shown: int = SHOWN) -> dict[str, DataFrame]:
    """The best, median and worst pairs, best first in each; no pair twice."""
    shown = min(shown, -(-len(ranking) // 3))
    middle = max(shown, (len(ranking) - shown) // 2)
    last = max(middle + shown, len(ranking) - shown)
    parts = {
        "Best pairs": ranking[:shown],
        "Median pairs": ranking[middle : middle + shown],
        "Worst pairs": ranking[last:],
    }
    return {heading: part for heading, part in parts.items() if len(part)}


def write_evaluation_page(
    evaluations: Mapping[str, Evaluation],  # label of a folder -> what measuring it gave
    output: Path,
    rank_by: str | None = None,
    title: str = "Evaluation",
) -> Path:
    """Write index.html into ``output``; the images shown are copied beside it."""
    folder = make_folder(output / PAGE_IMAGES)
    for old in folder.iterdir():
        if re.fullmatch(r"\d{6}_\w+\.\w+", old.name):
            old.unlink()
    page = html.new_page(title)
    page.add(tags.h1(html.clean_text(title)))
    several, first = len(evaluations) > 1, next(iter(evaluations.values()))
    about: dict[str, list[str]] = {}  # remark -> labels of the folders that it is about
    for label, evaluation in evaluations.items():
        line = f"{f'{label}: ' * several}{origin(evaluation)}. {counted(evaluation)}. "
        page.add(tags.p(html.clean_text(line), _link(evaluation.results / "index.html", output)))
        for text in remarks(evaluation):
            about.setdefault(text, []).append(label)
    heads, *rows = comparison(evaluations, "{} ★") if several else [HEADS, *score_rows(first)]
    page.add(html.table(heads, rows))
    for text, labels in about.items():
        of = f"{', '.join(labels)}: " if len(labels) < len(evaluations) else ""
        page.add(tags.p(html.clean_text(of + text)))
    ranking = rank(evaluations, rank_by)
    if ranking is not None:
        for heading, rows in groups(ranking).items():
            page.add(tags.h2(f"{heading} by {ranking.attrs['column']}"))
            page.add(tags.div(list(_cards(evaluations, rows, output)), cls="cards"))
    html.write_page(output / "index.html", page)
    return output / "index.html"


def show_on_result_page(evaluation: Evaluation, report: Path) -> None:
    """Add the scores of every pair, and a link to ``report``, to the page of the results.

    Results without a page of ours and folders that may not be written stay as they are.
    """
    names = [pair.name for pair in evaluation.pairs]
    scores = {score.column: score for score in evaluation.image_scores}
    values = {c: dict(zip(names, s.per_image.tolist(), strict=True)) for c, s in scores.items()}
    upward = {column: score.higher_is_better for column, score in scores.items()}
    with contextlib.suppress(OSError):
        add_scores(evaluation.results, values, upward, report)


def _link(page: Path, output: Path) -> tags.a | str:
    """A link to the page of the results, where there is one."""
    if page.is_file():
        with contextlib.suppress(ValueError):  # another drive of Windows
            url = html.relative_url(os.path.relpath(page.resolve(), output.resolve()))
            return tags.a("All results", href=url)
    return ""


def _cards(
    evaluations: Mapping[str, Evaluation], rows: DataFrame, output: Path
) -> Iterator[tags.article]:
    """Each pair: source, pose and ground truth, then what every folder has for it."""
    pairs = {label: {p.result.stem: p for p in e.pairs} for label, e in evaluations.items()}
    first, several = next(iter(evaluations.values())), len(pairs) > 1
    places = {pair.result.stem: i for i, pair in enumerate(first.pairs)}
    for stem, values in rows.iterrows():
        pair, name = first.pairs[places[stem]], f"{PAGE_IMAGES}/{places[stem]:06d}"
        given = [
            _copied(_source(pair), f"{name}_source", output, "source", pair.source),
            _pose(pair, f"{name}_pose", output, first.settings.keypoints),
        ]
        made = [_copied(pair.gt, f"{name}_gt", output, "ground truth", pair.gt.name)]
        for i, (label, mine) in enumerate(pairs.items()):
            caption = f"{label}: {values[label]:.4f}" if several else "generated"
            file, own = f"{name}_result{i if several else ''}", mine[stem]
            made.append(_copied(own.result, file, output, caption, own.name))
        names = f"{pair.source} → {pair.key}" if pair.source else pair.name
        mean = values.mean(skipna=False)
        heading = tags.h3(tags.b(f"{mean:.4f}"), html.clean_text(f" · {names}"))
        pictures = [
            tags.div([figure for figure in given if figure], cls="given"),
            tags.div(made, cls="result several" if several else "result"),
        ]
        shown = tags.div(pictures, cls="pairs many" if several else "pairs four")
        yield tags.article(heading, shown, cls="card")


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
    """The file of the source image: beside the ground truth, or of the result page."""
    if not pair.source:
        return None
    places = [pair.gt.with_name(pair.source + extension) for extension in IMAGE_EXTENSIONS]
    places.append(pair.result.parent / PAGE_IMAGES / f"{pair.source}.jpg")
    return next((path for path in places if path.is_file()), None)


def _pose(
    pair: ImagePair, name: str, output: Path, keypoints: KeypointTable | None
) -> tags.figure | None:
    """The target's skeleton, taken from the result page or drawn from its keypoints."""
    shown = pair.result.parent / PAGE_IMAGES / f"{pair.key}{POSE_PICTURE}.jpg"
    if shown.is_file():
        return _copied(shown, name, output, "pose", pair.key)
    person = keypoints and keypoints.people.get(pair.key)
    if not person:
        return None
    size = tuple(int(side) for side in person.frame)
    save_image(output / f"{name}.png", skeleton_picture(person.points, size, person.frame))
    return html.picture(f"{name}.png", "pose", f"pose of {pair.key}")
