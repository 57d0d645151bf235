"""The page of an evaluation: its numbers, and the best, median and worst pairs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from dominate import tags

from util.files import make_folder
from util.html import clean_text, new_page, picture, write_page
from util.metrics.measurement import Evaluation, Score

IMAGES = "page_images"
SHOWN = 8


def ranked_pairs(score: Score, shown: int = SHOWN) -> dict[str, list[int]]:
    """Indices of the best, median and worst pairs of a per-image score, best first in each."""
    values = np.nan_to_num(score.per_image, nan=-np.inf if score.higher_is_better else np.inf)
    order = np.argsort(-values if score.higher_is_better else values, kind="stable")
    shown = min(shown, len(order))
    middle = (len(order) - shown) // 2
    return {
        "Best pairs": order[:shown].tolist(),
        "Median pairs": order[middle : middle + shown].tolist(),
        "Worst pairs": order[len(order) - shown :].tolist(),
    }


def ranking_score(evaluation: Evaluation, rank_by: str | None) -> Score | None:
    """The score that orders the pairs: ``rank_by`` (with or without protocol), or the first."""
    candidates = [score for score in evaluation.scores if score.per_image is not None]
    if rank_by is not None:
        candidates = [s for s in candidates if rank_by in (s.column, s.column.split(".", 1)[1])]
    return candidates[0] if candidates else None


def write_evaluation_page(
    evaluation: Evaluation, output: Path, rank_by: str | None = None, title: str = "Evaluation"
) -> Path:
    """Write index.html into ``output``; the images shown are copied beside it."""
    page = new_page(title)
    page.add(tags.h1(clean_text(title)))
    page.add(tags.p(clean_text(f"{len(evaluation.pairs)} pairs of {evaluation.results}")))
    page.add(_table(evaluation))
    for text in (*evaluation.notes, *_refusals(evaluation.refused)):
        page.add(tags.p(clean_text(text)))
    score = ranking_score(evaluation, rank_by)
    for heading, indices in ({} if score is None else ranked_pairs(score)).items():
        page.add(tags.h2(f"{heading} by {score.column}"))
        cards = tags.div(cls="cards")
        for i in indices:
            cards.add(_card(evaluation, score, i, output))
        page.add(cards)
    write_page(output / "index.html", page)
    return output / "index.html"


def _refusals(refused: Mapping[str, str]) -> list[str]:
    return [f"{name}: not computed: {reason}" for name, reason in refused.items()]


def _table(evaluation: Evaluation) -> tags.div:
    table = tags.table(cellpadding="5")
    heads = ("column", "value", "± standard error", "images", "definition")
    table.add(tags.thead(tags.tr([tags.th(head, align="left") for head in heads])))
    body = table.add(tags.tbody())
    for score in evaluation.scores:
        error = "" if score.standard_error is None else f"{score.standard_error:.2g}"
        cells = (score.column, f"{score.value:.4f}", error, score.count, score.definition)
        body.add(tags.tr([tags.td(clean_text(cell)) for cell in cells]))
    return tags.div(table, style="overflow-x: auto")


def _card(evaluation: Evaluation, score: Score, index: int, output: Path) -> tags.article:
    pair = evaluation.pairs[index]
    make_folder(output / IMAGES)
    names = {}
    for kind, path in (("gt", pair.gt), ("result", pair.result)):
        names[kind] = f"{IMAGES}/{index:06d}_{kind}{path.suffix.lower()}"
        shutil.copyfile(path, output / names[kind])
    pictures = tags.div(
        picture(names["gt"], "ground truth", f"ground truth {pair.target}"),
        picture(names["result"], "generated", f"generated {pair.name}"),
        cls="pictures",
    )
    heading = tags.h3(clean_text(f"{score.per_image[index]:.4f} · {pair.name}"))
    return tags.article(heading, pictures, cls="card")
