"""Self-contained web pages that open from disk: inline style, no script, all text escaped."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from dominate import document, tags
from dominate.util import raw

from util.errors import UserError
from util.files import write_atomically

# What a page of ours must never do, run a script or load from elsewhere, the browser refuses too.
POLICY = (
    "default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'; base-uri 'none'"
)

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5b6577; --line: #dfe3ea;
        --paper: #f5f6f9; --card: #ffffff; --accent: #1f5fbf; --on-accent: #ffffff;
        --raw: #a9c4ec; --good: #1a7f4b; --bad: #b3372f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --soft: #a2abbb; --line: #363d4a; --paper: #14171d; --card: #1d222b;
          --accent: #7db1ff; --on-accent: #10131a; --raw: #3b5784; --good: #5fcf95;
          --bad: #ff8f87; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 1680px; padding: 16px;
       background: var(--paper); color: var(--ink);
       font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 4px 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 28px 0 8px; overflow-wrap: anywhere; }
p { margin: 4px 0 12px; color: var(--soft); overflow-wrap: anywhere; }
a { color: var(--accent); }
figure { margin: 0; min-width: 0; }
figure img { display: block; width: 100%; height: auto; border-radius: 4px;
             background: var(--line); }
figcaption { margin-top: 3px; font-size: .78rem; line-height: 1.3; color: var(--soft);
             overflow-wrap: anywhere; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px;
        min-width: 0; }
.card > h3 { margin: 0 0 8px; font-size: .82rem; font-weight: 500; overflow-wrap: anywhere; }
.card > h3 b { font-size: .9rem; }
.cards { display: grid; gap: 12px;
         grid-template-columns: repeat(auto-fill, minmax(min(100%, 600px), 1fr)); }
.charts { display: grid; gap: 12px;
          grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); }
.pictures { display: grid; gap: 8px;
            grid-template-columns: repeat(auto-fill, minmax(min(100%, 88px), 1fr)); }
.pictures figure { max-width: 256px; }
.pairs { display: grid; gap: 8px; grid-template-columns: repeat(5, minmax(0, 1fr)); }
.pairs.many { grid-template-columns: repeat(auto-fill, minmax(88px, 1fr)); }
.pairs.four { grid-template-columns: repeat(4, minmax(0, 1fr)); }
.given, .result { display: contents; }
.pairs + .pictures { margin-top: 8px; }
@media (max-width: 640px) {
  .pairs { display: block; }
  .given, .result { display: grid; gap: 8px; grid-template-columns: repeat(3, minmax(0, 1fr)); }
  .result { grid-template-columns: repeat(2, minmax(0, 1fr)); margin-top: 8px; }
  .several { grid-template-columns: repeat(auto-fit, minmax(72px, 1fr)); }
}
.strip { display: flex; gap: 4px; margin-top: 8px; overflow-x: auto; }
.strip figure { flex: 1 1 0; min-width: 44px; max-width: 128px; }
.missing { display: grid; place-items: center; min-height: 88px; border: 1px dashed var(--soft);
           border-radius: 4px; color: var(--soft); font-size: .78rem; }
.facts { display: flex; flex-wrap: wrap; gap: 8px; margin: 12px 0; padding: 0; }
.facts div { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
             padding: 6px 12px; min-width: 0; }
.facts dt { font-size: .78rem; color: var(--soft); overflow-wrap: anywhere; }
.facts dd { margin: 0; font-size: 1.05rem; font-weight: 600; font-variant-numeric: tabular-nums;
            overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: 6px; margin: 12px 0; align-items: center; }
nav a, nav span { padding: 6px 11px; border: 1px solid var(--line); border-radius: 6px;
                  background: var(--card); text-decoration: none; }
nav .here { background: var(--accent); border-color: var(--accent); color: var(--on-accent);
            font-weight: 600; }
nav .order { display: flex; gap: 8px; color: var(--soft); }
nav .order > * { padding: 0 4px; border: 0; background: none; }
nav .order .here { background: var(--accent); }
nav .gap { border: 0; background: none; padding: 6px 2px; }
table { border-collapse: collapse; width: 100%; background: var(--card); font-size: .9rem;
        border: 1px solid var(--line); border-radius: 8px; margin: 8px 0; }
th, td { padding: 6px 10px; text-align: left; vertical-align: top; overflow-wrap: anywhere;
         border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; font-size: .8rem; }
.short { white-space: nowrap; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.best { font-weight: 700; color: var(--good); }
@media (max-width: 700px) {
  table, tbody, tr { display: block; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  tr { padding: 8px 0; border-bottom: 1px solid var(--line); }
  td, td.number { display: flex; justify-content: space-between; gap: 12px; border: 0;
                  padding: 3px 12px; text-align: right; white-space: normal; }
  td.none { display: none; }
  td::before { content: attr(data-name); color: var(--soft); text-align: left; flex: none;
               max-width: 45%; }
}
.scores { margin: -4px 0 8px; font-size: .82rem; font-variant-numeric: tabular-nums; }
.meaning { margin: 6px 0 0; font-size: .78rem; }
details { margin: 12px 0; }
summary { cursor: pointer; color: var(--accent); }
code { font-size: .88em; overflow-wrap: anywhere; }
.good { color: var(--good); }
.bad { color: var(--bad); }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 10px; }
svg .grid { stroke: var(--line); }
svg .raw { stroke: var(--raw); fill: none; stroke-width: 1; stroke-linecap: round; }
svg .smooth { stroke: var(--accent); fill: none; stroke-width: 1.8; stroke-linecap: round; }
"""

SHORT, SHORT_HEAD = 24, 12  # letters of a cell and of a column's head that stay on one line
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def clean_text(text: object) -> str:
    """Text that HTML can hold: control characters and broken unicode become a replacement sign.

    It is not escaped yet: dominate escapes every string it is given.
    """
    printable = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text))
    return printable.encode("utf-8", "replace").decode("utf-8")


def relative_url(path: str | Path) -> str:
    """Percent-encoded URL of a file, given its path relative to the page.

    Every character with a meaning in URLs is encoded: ``javascript:…`` or ``a.png?b#c`` are names.
    Absolute paths raise :class:`UserError`: a page has to keep working when its folder moves.
    """
    posix = PurePosixPath(path)
    if posix.is_absolute() or not posix.parts:
        raise UserError(f"{str(path)!r} cannot be linked from a page; expected a relative path")
    return "/".join(quote(os.fsencode(part), safe="") for part in posix.parts)


def new_page(title: str, refresh_seconds: int | None = None) -> document:
    """An empty page with our style; ``refresh_seconds`` makes an open browser reload it."""
    page = document(title=None, lang="en")
    head = [
        tags.meta(charset="utf-8"),  # first: browsers look for it in the first 1024 bytes
        tags.title(clean_text(title)),
        tags.meta(name="viewport", content="width=device-width, initial-scale=1"),
        tags.meta(http_equiv="Content-Security-Policy", content=POLICY),
        tags.meta(name="referrer", content="no-referrer"),
        tags.style(raw(STYLE)),
    ]
    if refresh_seconds is not None:
        head.append(tags.meta(http_equiv="refresh", content=str(refresh_seconds)))
    page.head.add(head)
    return page


def picture(
    path: str | Path, caption: str, alt: str, size: tuple[int, int] | None = None
) -> tags.figure:
    """A captioned image that loads when scrolled to and opens in full size when clicked.

    ``path`` is relative to the page; ``size`` (h, w) reserves its place before it is loaded.
    """
    url = relative_url(path)
    image = tags.img(src=url, alt=clean_text(alt), loading="lazy", decoding="async")
    if size is not None:
        image.set_attribute("height", size[0])
        image.set_attribute("width", size[1])
    return tags.figure(tags.a(image, href=url), tags.figcaption(clean_text(caption)))


def missing_picture(caption: str) -> tags.figure:
    """The place of an image that a row does not have."""
    return tags.figure(tags.div("none", cls="missing"), tags.figcaption(clean_text(caption)))


GIVEN = ("source", "source pose", "target pose")
RESULT = ("generated", "ground truth")  # always beside each other, however narrow the page
_STEP = re.compile(r"step[_ ]\d+")  # pictures of a model that paints in steps
Shown = Mapping[str, tuple[str, tuple[int, int] | None] | None]  # caption -> file, its (h, w)


def pair_pictures(shown: Shown, alt: str) -> list[tags.html_tag]:
    """The pictures of one pair: what was given, result beside truth, then what else there is.

    ``None`` in place of a file keeps its place. Underscores of captions become spaces.
    """
    steps = [caption for caption in shown if _STEP.fullmatch(caption)]
    others = [c for c in shown if c not in (*GIVEN, *RESULT, *steps)]
    groups = {
        "given": [c for c in GIVEN if c in shown],
        "result": [c for c in RESULT if c in shown],
        "strip": steps,
        "pictures": others,
    }
    blocks = {
        name: tags.div([_place(shown[c], c, alt) for c in captions], cls=name)
        for name, captions in groups.items()
        if captions
    }
    pair = [blocks.pop(name) for name in ("given", "result") if name in blocks]
    return [*([tags.div(pair, cls="pairs")] if pair else []), *blocks.values()]


def _place(file: tuple[str, tuple[int, int] | None] | None, caption: str, alt: str) -> tags.figure:
    caption = caption.replace("_", " ")
    if file is None:
        return missing_picture(caption)
    return picture(file[0], caption, f"{caption}, {alt}", file[1])


def facts(values: Mapping[str, object]) -> tags.dl:
    """Names and values as a row of small boxes; floats are shown with four digits."""
    boxes = []
    for name, value in values.items():
        shown = f"{value:.4g}" if isinstance(value, float) else clean_text(value)
        boxes.append(tags.div(tags.dt(clean_text(name)), tags.dd(shown)))
    return tags.dl(boxes, cls="facts")


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> tags.table:
    """A table that becomes a list of name and value where the screen is narrow.

    Numbers are flush right; floats are shown with four digits. Short texts stay on one line.
    """
    body = tags.tbody()
    for row in rows:
        line = body.add(tags.tr())
        for head, value in zip(heads, row, strict=True):
            shown = f"{value:.4g}" if isinstance(value, float) else clean_text(value)
            kinds = {
                "number": isinstance(value, int | float),
                "short": 0 < len(str(shown)) <= SHORT,
                "none": shown == "",
            }
            cell = line.add(tags.td(shown, data_name=clean_text(head)))
            cell.set_attribute("class", " ".join(kind for kind, holds in kinds.items() if holds))
    titles = [tags.th(clean_text(h), cls="short" if len(h) <= SHORT_HEAD else "") for h in heads]
    return tags.table(tags.thead(tags.tr(titles)), body)


def write_page(path: str | Path, page: document) -> None:
    """Render a page to a UTF-8 file that appears complete or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page.render().encode("utf-8", "replace"))
