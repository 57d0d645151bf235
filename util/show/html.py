"""Self-contained web pages that open from disk: inline style, no script, all text escaped."""

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

STYLE = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
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
    sides = {} if size is None else {"height": size[0], "width": size[1]}
    image = tags.img(src=url, alt=clean_text(alt), loading="lazy", decoding="async", **sides)
    return tags.figure(tags.a(image, href=url), tags.figcaption(clean_text(caption)))


GIVEN = ("source", "source pose", "target pose")
RESULT = ("generated", "ground truth")  # always beside each other, however narrow the page
_STEP = re.compile(r"step[_ ]\d+")  # pictures of a model that paints in steps
Shown = Mapping[str, tuple[str, tuple[int, int] | None]]  # caption -> file, its (h, w)


def pair_pictures(shown: Shown, alt: str) -> list[tags.html_tag]:
    """The pictures of one pair: what was given, result beside truth, then what else there is.

    Underscores of captions become spaces.
    """

    def place(caption: str, file: str, size: tuple[int, int] | None) -> tags.figure:
        return picture(file, caption, f"{caption}, {alt}", size)

    steps = [caption for caption in shown if _STEP.fullmatch(caption)]
    others = [c for c in shown if c not in (*GIVEN, *RESULT, *steps)]
    groups = {
        "given": [c for c in GIVEN if c in shown],
        "result": [c for c in RESULT if c in shown],
        "strip": steps,
        "pictures": others,
    }
    blocks = {
        name: tags.div([place(c.replace("_", " "), *shown[c]) for c in captions], cls=name)
        for name, captions in groups.items()
        if captions
    }
    pair = [blocks.pop(name) for name in ("given", "result") if name in blocks]
    return [*([tags.div(pair, cls="pairs")] if pair else []), *blocks.values()]


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else clean_text(value)


def facts(values: Mapping[str, object]) -> tags.dl:
    """Names and values as a row of small boxes; floats are shown with four digits."""
    boxes = (tags.div(tags.dt(clean_text(k)), tags.dd(_text(v))) for k, v in values.items())
    return tags.dl(*boxes, cls="facts")


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> tags.table:
    """A table that becomes a list of name and value where the screen is narrow.

    Numbers are flush right; floats are shown with four digits. Short texts stay on one line.
    """
    body = tags.tbody()
    for row in rows:
        line = body.add(tags.tr())
        for head, value in zip(heads, row, strict=True):
            shown = _text(value)
            kinds = {
                "number": isinstance(value, int | float),
                "short": 0 < len(shown) <= SHORT,
                "none": shown == "",
            }
            names = " ".join(kind for kind, holds in kinds.items() if holds)
            line.add(tags.td(shown, data_name=clean_text(head), cls=names))
    titles = [tags.th(clean_text(h), cls="short" if len(h) <= SHORT_HEAD else "") for h in heads]
    return tags.table(tags.thead(tags.tr(titles)), body)


def write_page(path: str | Path, page: document) -> None:
    """Render a page to a UTF-8 file that appears complete or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page.render().encode("utf-8", "replace"))
