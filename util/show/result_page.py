"""The pages of test results: one card a pair, facts about the run, scores once they are known.

``rows.json`` in the folder of page pictures lists the pairs, ``generation.json`` says what made
them, ``scores.json`` comes from script/metrics.py. The pages are made of these files alone, so they
can be written again whenever one of them changes.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dominate import document, tags

from util.files import write_atomically
from util.names import PAGE_IMAGES, stem
from util.show.grid import in_rows
from util.show.html import (
    Shown,
    clean_text,
    facts,
    new_page,
    pair_pictures,
    relative_url,
    write_page,
)

PER_PAGE = 50
ROWS, SCORES = "rows.json", "scores.json"
GENERATION, TURNTABLES = "generation.json", "turntables.html"
ORDERED = 6  # scores that get pages of their own: the worst and the best pairs
_OURS = re.compile(r"page_\d+\.html|(worst|best)_[a-z0-9_.-]+\.html")
# Facts of generation.json, in the order in which they are shown.
_FACTS = {
    "name": "run", "model": "model", "which_epoch": "epoch", "checkpoint": "checkpoint",
    "sha256": "sha256", "dataset_mode": "data", "phase": "phase", "image_size": "image size",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One pair: names of its images and the file of the result."""

    number: int  # in the list, from 1
    source: str
    target: str
    file: str

    @property
    def caption(self) -> str:
        """For people."""
        return f"{self.source} → {self.target}"


@dataclass(frozen=True)
class Scores:
    """Scores of the results, by column and result file, as script/metrics.py measured them."""

    values: Mapping[str, Mapping[str, float]]
    higher_is_better: Mapping[str, bool]
    report: str | None = None  # the metrics page, relative to the folder of the results

    def ranked(self, column: str, rows: Iterable[Row]) -> list[Row]:
        """The rows that have a finite score, best first."""
        values = self.values[column]
        known = [row for row in rows if math.isfinite(values.get(row.file, math.nan))]
        sign = -1 if self.higher_is_better[column] else 1
        return sorted(known, key=lambda row: sign * values[row.file])


def write_rows(
    folder: Path, title: str, rows: Sequence[Sequence[str]], extras: Sequence[str]
) -> None:
    """List the results of a test run: (source, target, file) a pair, and names of more pictures."""
    (folder / PAGE_IMAGES).mkdir(parents=True, exist_ok=True)
    content = {"title": title, "rows": [list(row) for row in rows], "extras": list(extras)}
    write_atomically(folder / PAGE_IMAGES / ROWS, json.dumps(content).encode())


def add_scores(
    folder: str | Path,
    values: Mapping[str, Mapping[str, float]],  # column -> result file name -> score
    higher_is_better: Mapping[str, bool],
    report: Path | None = None,  # the page of the metrics run
) -> Path | None:
    """Show scores on the result page of ``folder``; its path, or None where there is no page."""
    folder = Path(folder)
    if not (folder / PAGE_IMAGES / ROWS).is_file():
        return None
    content = {
        "generation": _generation(folder).get("sha256"),
        "values": {k: {f: v for f, v in v.items() if math.isfinite(v)} for k, v in values.items()},
        "higher_is_better": dict(higher_is_better),
        "report": None if report is None else Path(os.path.relpath(report, folder)).as_posix(),
    }
    write_atomically(folder / PAGE_IMAGES / SCORES, json.dumps(content).encode())
    return write_pages(folder)


def refresh(folder: Path) -> None:
    """Write the pages again, where there are any, after something else to link was written."""
    if (folder / PAGE_IMAGES / ROWS).is_file():
        write_pages(folder)


def forget_earlier(folder: Path) -> None:
    """Remove the list and the scores of an earlier run in the same folder."""
    for name in (ROWS, SCORES):
        (folder / PAGE_IMAGES / name).unlink(missing_ok=True)


def write_pages(folder: str | Path, per_page: int = PER_PAGE) -> Path:
    """Write index.html, page_2.html … in the order of the list, and pages of worst and best pairs.

    Pages of an earlier run with more pairs or other scores are removed. Returns the first page.
    """
    folder = Path(folder)
    content = json.loads((folder / PAGE_IMAGES / ROWS).read_text(encoding="utf-8"))
    rows = [Row(number, *row) for number, row in enumerate(content["rows"], 1)]
    pages = _Pages(folder, content["title"], content["extras"], _scores(folder))
    parts = in_rows(rows, per_page) or [[]]
    written = {page_name(1)}
    for number, part in enumerate(parts, 1):
        written.add(page_name(number))
        pages.write_part(number, len(parts), part, len(rows))
    for column in pages.ordered:
        best = pages.scores.ranked(column, rows)
        for kind, part in (("worst", best[::-1]), ("best", best)):
            written.add(ordered_name(kind, column))
            pages.write_ordered(kind, column, part[:per_page], len(best))
    for path in folder.glob("*.html"):
        if path.name not in written and _OURS.fullmatch(path.name):
            path.unlink()
    return folder / page_name(1)


def page_name(number: int) -> str:
    """File name of a page in the order of the list, counted from 1."""
    return "index.html" if number == 1 else f"page_{number}.html"


def ordered_name(kind: str, column: str) -> str:
    """File name of the page of the worst or best pairs by a score."""
    return f"{kind}_{re.sub(r'[^a-z0-9_.-]', '-', column.lower())}.html"


class _Pages:
    """What all pages of one folder share."""

    def __init__(self, folder: Path, title: str, extras: Sequence[str], scores: Scores):
        self.folder, self.title, self.extras, self.scores = folder, title, extras, scores
        self.ordered = list(scores.values)[:ORDERED]

    def write_part(self, number: int, pages: int, rows: Sequence[Row], total: int) -> None:
        """One page in the order of the list; the first one has the facts."""
        page = self._begin(self.title if number == 1 else f"{self.title}, page {number}")
        if number == 1:
            page.add(facts(self._facts(total)))
        page.add(self._orders(page_name(1)))
        if not rows:
            page.add(tags.p("No pairs were generated."))
        else:
            first, last = rows[0].number, rows[-1].number
            text = f"Pairs {first:,} to {last:,} of {total:,}. Click a picture for its full size."
            page.add(tags.p(text))
        self._finish(page, page_name(number), rows, lambda: _numbers(number, pages))

    def write_ordered(self, kind: str, column: str, rows: Sequence[Row], total: int) -> None:
        """The page of the worst or best pairs by one score."""
        page = self._begin(f"{self.title}, {kind} pairs by {column}")
        page.add(self._orders(ordered_name(kind, column)))
        better = "higher" if self.scores.higher_is_better[column] else "lower"
        text = f"The {kind} {len(rows):,} of {total:,} pairs by {column} ({better} is better)."
        page.add(tags.p(text))
        self._finish(page, ordered_name(kind, column), rows, lambda: "")

    def _begin(self, title: str) -> document:
        page = new_page(title)
        page.add(tags.h1(clean_text(self.title)))
        return page

    def _finish(
        self, page: document, name: str, rows: Sequence[Row], links: Callable[[], object]
    ) -> None:
        """Links, cards, links."""
        page.add(links())
        page.add(tags.main([self._card(row) for row in rows], cls="cards"))
        page.add(links())
        write_page(self.folder / name, page)

    def _facts(self, total: int) -> dict[str, object]:
        """What generation.json says, and the mean of every score."""
        generation = _generation(self.folder)
        found: dict[str, object] = {"pairs": f"{total:,}"}
        for key, name in _FACTS.items():
            value = generation.get(key)
            if key == "sha256" and value:
                value = f"{str(value)[:12]}…"
            if key == "image_size" and isinstance(value, list):
                value = " × ".join(map(str, value))
            if value is not None:
                found[name] = value
        if isinstance(generation.get("date"), str):
            found["date"] = f"{generation['date'][:16].replace('T', ' ')} UTC"
        for column, values in self.scores.values.items():
            if values:
                found[f"{column}, mean"] = sum(values.values()) / len(values)
        return found

    def _orders(self, here: str) -> tags.nav:
        """Links to the orders there are, to the metrics page and to turned objects."""
        nav = tags.nav(aria_label="orders")
        if self.ordered:
            nav.add(_link(page_name(1), "in the order of the list", here))
        for column in self.ordered:
            words = [_link(ordered_name(kind, column), kind, here) for kind in ("worst", "best")]
            nav.add(tags.span(clean_text(f"{column} "), *words, cls="order"))
        if self.scores.report is not None:
            nav.add(tags.a("metrics", href=relative_url(self.scores.report)))
        if (self.folder / TURNTABLES).is_file():
            nav.add(tags.a("turned objects", href=TURNTABLES))
        return nav

    def _card(self, row: Row) -> tags.article:
        heading = tags.h3(tags.b(f"{row.number}. "), clean_text(row.caption))
        shown = [
            f"{column} {values[row.file]:.4g}"
            for column, values in self.scores.values.items()
            if row.file in values
        ]
        card = tags.article(heading, cls="card", id=f"pair-{row.number}")
        if shown:
            card.add(tags.p(clean_text(" · ".join(shown)), cls="scores"))
        card.add(pair_pictures(self._pictures(row), f"pair {row.number}"))
        return card

    def _pictures(self, row: Row) -> Shown:
        source, target = (f"{PAGE_IMAGES}/{stem(name)}" for name in (row.source, row.target))
        files = {
            "source": f"{source}.jpg", "source pose": f"{source}_pose.jpg",
            "target pose": f"{target}_pose.jpg", "generated": row.file,
            "ground truth": f"{target}.jpg",
        }  # fmt: skip
        base = f"{PAGE_IMAGES}/{Path(row.file).stem}"
        files |= {key: f"{base}_{key}.jpg" for key in self.extras}
        if not (self.folder / files["target pose"]).is_file():  # turned objects
            files = {caption: file for caption, file in files.items() if "pose" not in caption}
        return {caption: (file, None) for caption, file in files.items()}


def _link(name: str, text: str, here: str) -> tags.html_tag:
    """A link to a page beside this one; of the page ``here`` itself only its text."""
    if name == here:
        return tags.span(text, cls="here", aria_current="page")
    return tags.a(text, href=relative_url(name))


def _numbers(here: int, last: int) -> tags.nav | str:
    """Links to the neighbours, the ends, and the pages around this one; none to a single page."""
    if last == 1:
        return ""
    links: list[tags.html_tag] = []
    if here > 1:
        links.append(tags.a("‹ previous", href=page_name(here - 1), rel="prev"))
    shown = sorted({1, last, *range(max(1, here - 2), min(last, here + 2) + 1)})
    for number, before in zip(shown, [0, *shown], strict=False):
        if number > before + 1:
            links.append(tags.span("…", cls="gap"))
        if number == here:
            links.append(tags.span(str(number), cls="here", aria_current="page"))
        else:
            links.append(tags.a(str(number), href=page_name(number)))
    if here < last:
        links.append(tags.a("next ›", href=page_name(here + 1), rel="next"))
    return tags.nav(links, aria_label="pages")


def _generation(folder: Path) -> Mapping[str, object]:
    """The content of generation.json; empty where there is none that can be read."""
    return _read_json(folder / GENERATION)


def _scores(folder: Path) -> Scores:
    """The scores of these results; none when they are of images of another checkpoint."""
    content = _read_json(folder / PAGE_IMAGES / SCORES)
    if not content or content.get("generation") != _generation(folder).get("sha256"):
        return Scores({}, {})
    try:
        values = {
            str(column): {str(file): float(value) for file, value in scores.items()}
            for column, scores in content["values"].items()
        }
        upward = {column: bool(content["higher_is_better"][column]) for column in values}
        report = content["report"] and str(content["report"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return Scores({}, {})
    return Scores(values, upward, report)


def _read_json(path: Path) -> Mapping[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
