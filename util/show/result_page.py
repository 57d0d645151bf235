"""The pages of test results: one card a pair, facts about the run, scores once they are known.

``rows.json`` in the folder of page pictures lists the pairs, ``generation.json`` says what made
them, ``scores.json`` comes from script/metrics.py. The pages are made of these files alone, so they
can be written again whenever one of them changes.
"""

import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dominate import tags

from util.files import write_atomically
from util.names import PAGE_IMAGES, stem
from util.show.grid import in_rows
from util.show.html import clean_text, facts, new_page, pair_pictures, relative_url, write_page

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


class Row(NamedTuple):
    """One pair: names of its images and the file of the result."""

    number: int  # in the list, from 1
    source: str
    target: str
    file: str


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
) -> None:
    """Show scores on the result page of ``folder``, if it has one."""
    folder = Path(folder)
    if not (folder / PAGE_IMAGES / ROWS).is_file():
        return
    content = {
        "generation": _read_json(folder / GENERATION).get("sha256"),
        "values": {k: {f: v for f, v in v.items() if math.isfinite(v)} for k, v in values.items()},
        "higher_is_better": dict(higher_is_better),
        "report": None if report is None else Path(os.path.relpath(report, folder)).as_posix(),
    }
    write_atomically(folder / PAGE_IMAGES / SCORES, json.dumps(content).encode())
    write_pages(folder)


def forget_earlier(folder: Path) -> None:
    """Remove the list and the scores of an earlier run in the same folder."""
    for name in (ROWS, SCORES):
        (folder / PAGE_IMAGES / name).unlink(missing_ok=True)


def write_pages(folder: str | Path) -> Path:
    """Write index.html, page_2.html … in the order of the list, and pages of worst and best pairs.

    Pages of an earlier run with more pairs or other scores are removed. Returns the first page.
    """
    pages = _Pages(Path(folder))
    pages.write_list()
    pages.write_ordered()
    for path in pages.folder.glob("*.html"):
        if path.name not in pages.written and _OURS.fullmatch(path.name):
            path.unlink()
    return pages.folder / page_name(1)


def page_name(number: int) -> str:
    """File name of a page in the order of the list, counted from 1."""
    return "index.html" if number == 1 else f"page_{number}.html"


def _ordered_name(kind: str, column: str) -> str:
    """File name of the page of the worst or best pairs by a score."""
    return f"{kind}_{re.sub(r'[^a-z0-9_.-]', '-', column.lower())}.html"


class _Pages:
    """What all pages of one folder share."""

    def __init__(self, folder: Path):
        self.folder = folder
        content = json.loads((folder / PAGE_IMAGES / ROWS).read_text(encoding="utf-8"))
        self.title, self.extras = content["title"], content["extras"]
        self.rows = [Row(number, *row) for number, row in enumerate(content["rows"], 1)]
        self.generation = _read_json(folder / GENERATION)
        scores = _read_json(folder / PAGE_IMAGES / SCORES)
        if scores.get("generation") != self.generation.get("sha256"):
            scores = {}  # of images of another checkpoint
        self.values: Mapping[str, Mapping[str, float]] = scores.get("values", {})
        self.higher_is_better: Mapping[str, bool] = scores.get("higher_is_better", {})
        self.report: str | None = scores.get("report")
        self.ordered = list(self.values)[:ORDERED]
        self.written: set[str] = set()

    def write_list(self) -> None:
        """The pages in the order of the list; the first one has the facts."""
        parts = in_rows(self.rows, PER_PAGE) or [[]]
        for number, part in enumerate(parts, 1):
            title = self.title if number == 1 else f"{self.title}, page {number}"
            text = "No pairs were generated."
            if part:
                text = (
                    f"Pairs {part[0].number:,} to {part[-1].number:,} of {len(self.rows):,}. "
                    "Click a picture for its full size."
                )
            self._write(page_name(number), title, text, part, (number, len(parts)))

    def write_ordered(self) -> None:
        """The worst and the best pairs by every score, of those with a finite one."""
        for column in self.ordered:
            values, higher = self.values[column], self.higher_is_better[column]
            known = [row for row in self.rows if row.file in values]
            best = sorted(known, key=lambda row: values[row.file], reverse=higher)
            for kind, part in (("worst", best[::-1][:PER_PAGE]), ("best", best[:PER_PAGE])):
                text = (
                    f"The {kind} {len(part):,} of {len(best):,} pairs by {column} "
                    f"({'higher' if higher else 'lower'} is better)."
                )
                title = f"{self.title}, {kind} pairs by {column}"
                self._write(_ordered_name(kind, column), title, text, part)

    def _write(
        self, name: str, title: str, text: str, rows: Iterable[Row], place: tuple[int, int] = (0, 0)
    ) -> None:
        """One page; ``place``: its number in the order of the list, and how many those are."""
        page = new_page(title)
        page.add(tags.h1(clean_text(self.title)))
        if name == page_name(1):
            page.add(facts(self._facts()))
        page.add(self._orders(page_name(1) if place[0] else name))
        page.add(tags.p(clean_text(text)))
        page.add(_numbers(*place))
        page.add(tags.main([self._card(row) for row in rows], cls="cards"))
        page.add(_numbers(*place))
        write_page(self.folder / name, page)
        self.written.add(name)

    def _facts(self) -> dict[str, object]:
        """What generation.json says, and the mean of every score."""
        made = self.generation
        found = {"pairs": f"{len(self.rows):,}", **{_FACTS[k]: made.get(k) for k in _FACTS}}
        if "sha256" in made:
            found["sha256"] = f"{str(made['sha256'])[:12]}…"
        if isinstance(made.get("image_size"), list):
            found["image size"] = " × ".join(map(str, made["image_size"]))
        if "date" in made:
            found["date"] = f"{str(made['date'])[:16].replace('T', ' ')} UTC"
        for column, values in self.values.items():
            if values:
                found[f"{column}, mean"] = sum(values.values()) / len(values)
        return {name: value for name, value in found.items() if value is not None}

    def _orders(self, here: str) -> tags.nav:
        """Links to the orders there are, to the metrics page and to turned objects."""
        nav = tags.nav(aria_label="orders")
        if self.ordered:
            nav.add(_link(page_name(1), "in the order of the list", here))
        for column in self.ordered:
            words = [_link(_ordered_name(kind, column), kind, here) for kind in ("worst", "best")]
            nav.add(tags.span(clean_text(f"{column} "), *words, cls="order"))
        if self.report is not None:
            nav.add(tags.a("metrics", href=relative_url(self.report)))
        if (self.folder / TURNTABLES).is_file():
            nav.add(tags.a("turned objects", href=TURNTABLES))
        return nav

    def _card(self, row: Row) -> tags.article:
        heading = tags.h3(tags.b(f"{row.number}. "), clean_text(f"{row.source} → {row.target}"))
        shown = [f"{c} {v[row.file]:.4g}" for c, v in self.values.items() if row.file in v]
        card = tags.article(heading, cls="card", id=f"pair-{row.number}")
        if shown:
            card.add(tags.p(clean_text(" · ".join(shown)), cls="scores"))
        shown = {caption: (file, None) for caption, file in self._files(row).items()}
        card.add(pair_pictures(shown, f"pair {row.number}"))
        return card

    def _files(self, row: Row) -> dict[str, str]:
        """Captions and files of a pair's pictures."""
        source, target = (f"{PAGE_IMAGES}/{stem(name)}" for name in (row.source, row.target))
        files = {
            "source": f"{source}.jpg", "source pose": f"{source}_pose.jpg",
            "target pose": f"{target}_pose.jpg", "generated": row.file,
            "ground truth": f"{target}.jpg",
        }  # fmt: skip
        base = f"{PAGE_IMAGES}/{Path(row.file).stem}"
        files |= {key: f"{base}_{key}.jpg" for key in self.extras}
        if not (self.folder / files["target pose"]).is_file():  # turned objects
            return {caption: file for caption, file in files.items() if "pose" not in caption}
        return files


def _link(name: str, text: str, here: str) -> tags.html_tag:
    """A link to a page beside this one; of the page ``here`` itself only its text."""
    if name == here:
        return tags.span(text, cls="here", aria_current="page")
    return tags.a(text, href=relative_url(name))


def _numbers(here: int, last: int) -> tags.nav | str:
    """Links to the neighbours, the ends, and the pages around this one; none to a single page."""
    if last < 2:
        return ""
    nav = tags.nav(aria_label="pages")
    if here > 1:
        nav.add(tags.a("‹ previous", href=page_name(here - 1), rel="prev"))
    shown = sorted({1, last, *range(max(1, here - 2), min(last, here + 2) + 1)})
    for number, before in zip(shown, [0, *shown], strict=False):
        if number > before + 1:
            nav.add(tags.span("…", cls="gap"))
        nav.add(_link(page_name(number), str(number), page_name(here)))
    if here < last:
        nav.add(tags.a("next ›", href=page_name(here + 1), rel="next"))
    return nav


def _read_json(path: Path) -> Mapping[str, Any]:
    """The object in a file; empty where there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
