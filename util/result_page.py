"""The pages of test results: one card a pair, written while the test runs, in constant memory."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from dominate import tags
from dominate.util import raw

from util.checkpoint import write_atomically
from util.html import clean_text, facts, missing_picture, new_page, picture, write_page

RESULT_COLUMNS = ("source", "source pose", "target pose", "generated", "ground truth")

_STEP = re.compile(r"step_\d+")  # columns of a model that paints in steps

# Text in a page is escaped, so neither mark can come from a caption.
_OPEN, _CLOSE = "<!-- navigation -->", "<!-- end of navigation -->"
_NAVIGATION = re.compile(re.escape(_OPEN) + ".*?" + re.escape(_CLOSE), re.DOTALL)


class ResultPage:
    """Writes ``index.html``, ``page_2.html`` … into ``out_dir`` with ``per_page`` rows each.

    A page is written as soon as it is full, so an interrupted test leaves readable pages. ``close``
    adds the summary and the links to all pages; leaving the context calls it::

        with ResultPage(out_dir, RESULT_COLUMNS, "dptn: 8570 test pairs") as page:
            page.add("a.jpg → b.jpg", {"source": "page_images/a.png", "generated": "a_2_b_vis.png"})
            page.summary["PSNR"] = 19.1

    :param columns: names of the pictures of a row, in the order in which they are shown.
    """

    def __init__(
        self,
        out_dir: str | Path,
        columns: Sequence[str] = RESULT_COLUMNS,
        title: str = "Test results",
        per_page: int = 50,
    ):
        if per_page < 1:
            raise ValueError(f"per_page is {per_page}; expected at least 1")
        self.out_dir = Path(out_dir)
        self.columns = tuple(columns)
        self.title = title
        self.per_page = per_page
        self.summary: dict[str, object] = {}
        self.rows = 0
        self._pages = 0
        self._pending: list[tags.article] = []

    def add(self, caption: str, images: Mapping[str, str | Path]) -> None:
        """Append a row: ``images`` maps column names to paths relative to ``out_dir``.

        A column without an image is shown as "none"; an unknown column is a ``ValueError``.
        """
        unknown = set(images) - set(self.columns)
        if unknown:
            raise ValueError(f"unknown columns {sorted(unknown)}; expected some of {self.columns}")
        if len(self._pending) == self.per_page:
            self._write_pending()
        self.rows += 1
        self._pending.append(self._card(caption, images))

    def close(self, summary: Mapping[str, object] | None = None) -> Path:
        """Write the rest, link all pages, show ``summary`` on the first one; returns its path."""
        self.summary.update(summary or {})
        if self._pending or not self._pages:
            self._write_pending()
        for number in range(1, self._pages + 1):
            self._link(number)
        self._remove_older_pages()
        return self.out_dir / page_name(1)

    def __enter__(self) -> ResultPage:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _card(self, caption: str, images: Mapping[str, str | Path]) -> tags.article:
        heading = tags.h3(tags.b(f"{self.rows}. "), clean_text(caption))
        steps = [column for column in self.columns if _STEP.fullmatch(column)]
        others = [column for column in self.columns if column not in steps]
        rows = [tags.div(self._figures(others, images), cls="pictures")]
        if steps:  # side by side, however narrow the page: they are one strip
            rows.append(tags.div(self._figures(steps, images), cls="strip"))
        return tags.article(heading, *rows, cls="card")

    def _figures(self, columns: Sequence[str], images: Mapping[str, str | Path]) -> list:
        return [
            picture(images[column], column, f"{column}, pair {self.rows}")
            if column in images
            else missing_picture(column)
            for column in columns
        ]

    def _write_pending(self) -> None:
        self._pages += 1
        page = new_page(self.title if self._pages == 1 else f"{self.title}, page {self._pages}")
        last = self.rows
        first = last - len(self._pending) + 1
        page.add(tags.h1(clean_text(self.title)))
        page.add(raw(_OPEN + _provisional_navigation(self._pages) + _CLOSE))
        if self._pending:
            page.add(tags.p(f"Pairs {first:,} to {last:,}. Click a picture for its full size."))
            page.add(tags.main(self._pending, cls="cards"))
        else:
            page.add(tags.p("No pairs were generated."))
        page.add(raw(_OPEN + _CLOSE))
        write_page(self.out_dir / page_name(self._pages), page)
        self._pending = []

    def _link(self, number: int) -> None:
        """Replace the provisional links of one page: the pages are read back one at a time."""
        path = self.out_dir / page_name(number)
        links = _navigation(number, self._pages) if self._pages > 1 else ""
        top = facts({"pairs": f"{self.rows:,}", **self.summary}).render() if number == 1 else ""
        parts = iter((top + links, links))
        html = path.read_text(encoding="utf-8")
        write_atomically(path, _NAVIGATION.sub(lambda _: next(parts), html).encode("utf-8"))

    def _remove_older_pages(self) -> None:
        """An earlier test in the same folder may have had more pages; they would show its pairs."""
        for path in self.out_dir.glob("page_*.html"):
            match = re.fullmatch(r"page_(\d+)\.html", path.name)
            if match and int(match[1]) > self._pages:
                path.unlink()


def page_name(number: int) -> str:
    """File name of a page, counted from 1."""
    return "index.html" if number == 1 else f"page_{number}.html"


def _provisional_navigation(number: int) -> str:
    """Links of a page while the test still runs: the number of pages is not known yet."""
    if number == 1:
        return ""
    return tags.nav(tags.a("‹ previous", href=page_name(number - 1))).render()


def _navigation(here: int, last: int) -> str:
    """Links to the neighbours, the ends, and the pages around this one."""
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
    return tags.nav(links, aria_label="pages").render()
