"""``web/index.html``: curves and intermediate results of a training, newest first."""

import json
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from dominate import document, svg, tags
from dominate.util import raw

from util.files import write_atomically
from util.image import save_image
from util.show.html import (
    Shown,
    clean_text,
    facts,
    new_page,
    pair_pictures,
    picture,
    table,
    write_page,
)
from util.show.sinks import Curve, FixedImages, Images, LossHistory, Sink

KEEP_RECENT = 24  # intermediate results; of older ones, the last of each epoch stays
KEEP_OLD = 200  # epochs; then every second one goes
STRIP = 8  # earlier results of a pair that is shown at every update
RELOAD_SECONDS = 60
QUALITY = 90
SECTIONS = {"Metric": "Validation", "Loss": "Losses", "LR": "Learning rates"}
RATES = {"G": "learning rate of the generator", "D": "learning rate of the discriminator"}

Files = tuple[tuple[str, str, int, int], ...]  # (caption, file name, height, width) a picture


@dataclass(frozen=True)
class Entry:
    """One update of the page: a pair of the last batch, and the pairs that stay the same."""

    epoch: int
    total_samples: int
    pictures: Files
    fixed: tuple[tuple[str, Files], ...] = ()  # name of the pair, its pictures

    @property
    def files(self) -> set[str]:
        """Names of all its pictures."""
        lists = (self.pictures, *(files for _, files in self.fixed))
        return {file for files in lists for _, file, _, _ in files}

    @property
    def heading(self) -> str:
        """When it was made."""
        return f"Epoch {self.epoch}, {self.total_samples:,} samples"


class TrainingPage(Sink):
    """Writes the page whenever there is something new to see.

    ``history.json`` beside it lists the entries, so that a resumed run goes on with them;
    ``rewind`` drops those that the run does not continue. The number of entries and files is
    bounded (see ``KEEP_RECENT`` and ``KEEP_OLD``).
    """

    name = "training page"
    shows_pictures = True

    def __init__(
        self,
        folder: Path,
        title: str,
        history: LossHistory,
        epochs: int,
        settings: Mapping[str, object],  # of the run
        meanings: Mapping[str, str],  # of the losses
        warn: Callable[[str], None],  # told once when ``history.json`` cannot be used
    ):
        self.folder, self.path = folder, folder / "index.html"
        self.title, self.history, self.epochs = title, history, epochs
        self.settings, self.meanings = settings, meanings
        self.entries: list[Entry] = []
        self.epoch = 0
        self._restore(warn)

    def pictures(self, epoch: int, total_samples: int, images: Images, fixed: FixedImages) -> None:
        self.epoch = epoch
        stamp = f"{total_samples:010d}"
        shown = self._save(images, stamp)
        same = tuple(
            (name, self._save(pictures, f"{stamp}_fixed_{number}", f"fixed_{number}"))
            for number, (name, pictures) in enumerate(fixed, 1)
        )
        before = self.entries
        entries = [e for e in before if e.total_samples != total_samples]
        entries.append(Entry(epoch, total_samples, shown, same))
        kept = list({entry.epoch: entry for entry in entries[:-KEEP_RECENT]}.values())
        if len(kept) > KEEP_OLD:
            kept = kept[-1::-2][::-1]
        self.entries = kept + entries[-KEEP_RECENT:]
        self._write(before)

    def metrics(self, epoch: int, total_samples: int, values: Mapping[str, float]) -> None:
        self.epoch = epoch
        self._write()

    def rewind(self, total_samples: int) -> None:
        before = self.entries
        self.entries = [entry for entry in before if entry.total_samples <= total_samples]
        if len(self.entries) < len(before):
            self._write(before)

    def close(self) -> None:
        """Write the final state, which no longer reloads itself."""
        if self.entries or self.history.curves:
            self._write(reload=None)

    def _save(self, images: Images, stamp: str, given: str = "") -> Files:
        """Write pictures as ``images/<stamp>_<number>_<caption>.jpg``.

        With ``given`` all but the generated one get that for a stamp: one file for all updates.
        """
        files = []
        for number, (caption, image) in enumerate(images.items(), 1):
            safe = re.sub(r"[^A-Za-z0-9_-]", "_", caption)
            start = given if given and caption != "generated" else stamp
            file = f"{start}_{number}_{safe}.jpg"
            save_image(self.folder / "images" / file, image, quality=QUALITY)
            files.append((caption, file, *image.shape[:2]))
        return tuple(files)

    def _write(self, before: Sequence[Entry] = (), reload: int | None = RELOAD_SECONDS) -> None:
        """Write page and list, then remove files that only ``before`` showed: none is missing."""
        write_page(self.path, self._page(reload))
        content = {"entries": [asdict(entry) for entry in self.entries]}
        write_atomically(self.folder / "history.json", json.dumps(content, indent=1).encode())
        old = set().union(*(entry.files for entry in before))
        for file in old - set().union(*(entry.files for entry in self.entries)):
            (self.folder / "images" / file).unlink(missing_ok=True)

    def _page(self, reload: int | None) -> document:
        """The newest results first, then the curves: on a phone those are many screens long."""
        page = new_page(f"{self.title}: training", refresh_seconds=reload)
        page.add(tags.h1(clean_text(f"{self.title}: training")))
        curves = self.history.curves.values()
        seen = [c.samples[-1] for c in curves] + [e.total_samples for e in self.entries]
        position = {
            "epoch": f"{self.epoch} of {self.epochs}",
            "training samples": f"{max(seen, default=0):,}",
            "page written": time.strftime("%Y-%m-%d %H:%M"),
        }
        page.add(facts(position))
        self._add_fixed(page)
        cards = [raw(_card(entry)) for entry in reversed(self.entries)]
        _add_cards(page, "A pair of the last batch", cards[:1])
        for group, heading in SECTIONS.items():
            curves = self.history.group(group)
            if curves:
                meanings = RATES if group == "LR" else self.meanings
                page.add(tags.section(tags.h2(heading), _charts(curves, meanings)))
        _add_cards(page, "Pairs of earlier batches, newest first", cards[1:])
        if self.settings:
            rows = [(name, str(value)) for name, value in self.settings.items()]
            details = tags.details(tags.summary("Settings of the run"))
            details.add(table(("option", "value"), rows))
            page.add(details)
        return page

    def _add_fixed(self, page: document) -> None:
        """The pairs that every update shows: newest result, and how it came about."""
        newest = next((entry for entry in reversed(self.entries) if entry.fixed), None)
        if newest is None:
            return
        cards = []
        for name, files in newest.fixed:
            earlier = [
                (entry, file)
                for entry in self.entries if entry is not newest
                for file in dict(entry.fixed).get(name, ()) if file[0] == "generated"
            ]  # fmt: skip
            card = tags.article(tags.h3(tags.b(clean_text(name))), cls="card")
            card.add(pair_pictures(_shown(files), f"{name}, {newest.heading}"))
            strip = card.add(tags.div(cls="strip"))
            spread = np.linspace(0, len(earlier) - 1, min(STRIP, len(earlier)))
            for entry, (_, file, *size) in (earlier[round(i)] for i in spread):
                caption, alt = f"{entry.total_samples:,}", f"{name}, {entry.heading}"
                strip.add(picture(f"images/{file}", caption, alt, tuple(size)))
            cards.append(card)
        text = f"{newest.heading}. Below: what was generated after so many samples."
        heading = tags.h2("The same pairs at every update")
        page.add(tags.section(heading, tags.p(text), tags.div(cards, cls="cards")))

    def _restore(self, warn: Callable[[str], None]) -> None:
        path = self.folder / "history.json"
        if not path.exists():
            return
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            self.entries = [_entry(**item) for item in content["entries"]]
            self.epoch = max((entry.epoch for entry in self.entries), default=0)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            warn(f"{path} is damaged ({error}); the page of intermediate results starts anew")


def _add_cards(page: document, heading: str, cards: Sequence[object]) -> None:
    if cards:
        page.add(tags.section(tags.h2(heading), tags.div(cards, cls="cards")))


def _entry(epoch: int, total_samples: int, pictures: list, fixed: Sequence[list] = ()) -> Entry:
    """One entry of the list; pages written before pairs stayed the same have none of those."""
    same = tuple((str(name), _files(files)) for name, files in fixed)
    return Entry(int(epoch), int(total_samples), _files(pictures), same)


def _files(items: list) -> Files:
    """Check the list of an entry: its files are deleted later, so they must be ours."""
    for _, file, _, _ in items:
        if not re.fullmatch(r"[A-Za-z0-9_-]+\.jpg", file):
            raise ValueError(f"unexpected file name {file!r}")
    return tuple((str(caption), file, int(h), int(w)) for caption, file, h, w in items)


def _shown(files: Files) -> Shown:
    return {caption: (f"images/{file}", (h, w)) for caption, file, h, w in files}


@lru_cache(maxsize=2 * (KEEP_RECENT + KEEP_OLD))
def _card(entry: Entry) -> str:
    """HTML of one entry, kept: entries never change, and rendering hundreds takes a while."""
    blocks = pair_pictures(_shown(entry.pictures), entry.heading)
    return tags.article(tags.h3(tags.b(entry.heading)), *blocks, cls="card").render()


WIDTH, HEIGHT = 340, 180  # of a chart
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 8, 24
SMOOTHING = 40  # the dark curve averages over 1/40 of the points to each side
LOG_RATIO = 30.0  # curves that span more than this factor get a logarithmic axis
HUGE = 1e30  # losses beyond it have diverged; the axis could not show them beside others


def _charts(curves: Mapping[str, Curve], meanings: Mapping[str, str]) -> tags.div:
    """One chart a curve: losses differ by orders of magnitude and would hide each other in one."""
    cards = []
    for name, curve in curves.items():
        finite = [value for value in curve.values if math.isfinite(value)]
        last = f"{finite[-1]:.4g}" if finite else "no finite value"
        heading = tags.h3(clean_text(f"{name}: {last}"))
        card = tags.div(heading, chart(curve, name), cls="card")
        if name in meanings:
            card.add(tags.p(clean_text(meanings[name]), cls="meaning"))
        cards.append(card)
    return tags.div(cards, cls="charts")


def chart(curve: Curve, name: str) -> svg.svg:
    """The points of one curve (pale) and their local mean (dark) over training samples.

    Values that are not finite (or beyond ``HUGE``) interrupt the line. The axis is logarithmic
    where all values are positive and span a large factor.
    """
    figure = svg.svg(
        viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=clean_text(f"curve of {name}")
    )
    samples, values = np.array(curve.samples), np.array(curve.values)
    drawn = np.abs(values) < HUGE  # not NaN either
    if not drawn.any():
        return figure
    known, known_samples = values[drawn], samples[drawn]
    logarithmic = known.min() > 1 / HUGE and known.max() / known.min() > LOG_RATIO
    scale = np.log10 if logarithmic else np.asarray
    low, high = scale(known.min()), scale(known.max())
    margin = 0.05 * (high - low) or max(abs(high) * 0.05, 1e-6)
    low, high = low - margin, high + margin
    if known.min() >= 0 and not logarithmic:
        low = max(low, 0.0)
    left, right = known_samples[0], max(known_samples[-1], known_samples[0] + 1)

    def line(x: np.ndarray, y: np.ndarray, style: str) -> svg.path:
        across = LEFT + (x - left) / (right - left) * (WIDTH - LEFT - RIGHT)
        up = (scale(y) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return svg.path(d=_path(zip(across, HEIGHT - BOTTOM - up, strict=True)), cls=style)

    figure.add(_axes(low, high, left, right, logarithmic))
    figure.add(line(samples, np.where(drawn, values, np.nan), "raw"))
    figure.add(line(known_samples, _smoothed(known), "smooth"))
    return figure


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Mean over the neighbours on both sides, which does not lag; few points stay as they are."""
    reach = [min(len(values) // SMOOTHING, i, len(values) - 1 - i) for i in range(len(values))]
    return np.array([values[i - r : i + r + 1].mean() for i, r in enumerate(reach)])


def _path(points: Iterable[tuple[float, float]]) -> str:
    """Lines through points (x, y); y = NaN lifts the pen. A single point becomes a dot."""
    commands, pen_down = [], False
    for x, y in points:
        if not math.isnan(y):
            commands.append(f"L{x:.1f} {y:.1f}" if pen_down else f"M{x:.1f} {y:.1f} h0")
        pen_down = not math.isnan(y)
    return " ".join(commands)


def _axes(low: float, high: float, left: int, right: int, logarithmic: bool) -> list[svg.svg_tag]:
    marks: list[svg.svg_tag] = []

    def label(text: str, x: float, y: float, anchor: str) -> None:
        marks.append(svg.text(text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor))

    for step in range(4):
        y = HEIGHT - BOTTOM - step / 3 * (HEIGHT - TOP - BOTTOM)
        value = low + step / 3 * (high - low)
        marks.append(svg.line(x1=LEFT, x2=WIDTH - RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", cls="grid"))
        label(f"{10**value if logarithmic else value:.3g}", LEFT - 5, y + 3.5, "end")
    label(f"{left:,}", LEFT, HEIGHT - 8, "start")
    unit = "samples, log scale" if logarithmic else "samples"
    label(f"{right:,} {unit}", WIDTH - RIGHT, HEIGHT - 8, "end")
    return marks
