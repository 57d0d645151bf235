"""``web/index.html``: curves and intermediate results of a training, newest first."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from dominate import document, tags
from dominate.util import raw

from util.files import write_atomically
from util.image import save_image
from util.show.curves import LossHistory, charts
from util.show.html import (
    clean_text,
    facts,
    new_page,
    pair_pictures,
    picture,
    table,
    write_page,
)
from util.show.sinks import Images, Losses, Metrics, Pictures, Sink

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

    :ivar problem: one sentence when ``history.json`` cannot be used, else None.
    """

    name = "training page"

    def __init__(
        self,
        folder: Path,
        title: str,
        history: LossHistory,
        epochs: int,
        settings: Mapping[str, object] | None = None,  # of the run
        meanings: Mapping[str, str] | None = None,  # of the losses
    ):
        self.folder = folder
        self.path = folder / "index.html"
        self.title = title
        self.history = history
        self.epochs = epochs
        self.settings, self.meanings = settings or {}, meanings or {}
        self.entries: list[Entry] = []
        self.epoch = 0
        self.problem: str | None = None
        self._restore()

    def losses(self, record: Losses) -> None:
        self.epoch = record.epoch

    def pictures(self, record: Pictures) -> None:
        self.epoch = record.epoch
        stamp = f"{record.total_samples:010d}"
        shown = self._save(record.images, stamp)
        fixed = []
        for number, (name, images) in enumerate(record.fixed, 1):
            # What is given stays the same: one file for all updates.
            given = {k: v for k, v in images.items() if k != "generated"}
            files = {f[0]: f for f in self._save(given, f"fixed_{number}")}
            made = {k: v for k, v in images.items() if k == "generated"}
            files |= {f[0]: f for f in self._save(made, f"{stamp}_fixed_{number}")}
            fixed.append((name, tuple(files[caption] for caption in images)))
        entry = Entry(record.epoch, record.total_samples, shown, tuple(fixed))
        before = self.entries
        self.entries = [e for e in before if e.total_samples != entry.total_samples] + [entry]
        self._thin()
        self._write(before)

    def metrics(self, record: Metrics) -> None:
        self.epoch = record.epoch
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

    def _save(self, images: Images, stamp: str) -> Files:
        """Write pictures as ``images/<stamp>_<number>_<caption>.jpg``."""
        files = []
        for number, (caption, image) in enumerate(images.items(), 1):
            safe = re.sub(r"[^A-Za-z0-9_-]", "_", caption)
            file = f"{stamp}_{number}_{safe}.jpg"
            save_image(self.folder / "images" / file, image, quality=QUALITY)
            files.append((caption, file, *image.shape[:2]))
        return tuple(files)

    def _thin(self) -> None:
        """Shorten ``entries`` to the limits."""
        old, recent = self.entries[:-KEEP_RECENT], self.entries[-KEEP_RECENT:]
        kept = list({entry.epoch: entry for entry in old}.values())
        if len(kept) > KEEP_OLD:
            kept = kept[-1::-2][::-1]
        self.entries = kept + recent

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
        page.add(facts(self._facts()))
        self._add_fixed(page)
        cards = [raw(_card(entry)) for entry in reversed(self.entries)]
        _add_cards(page, "A pair of the last batch", cards[:1])
        for group, heading in SECTIONS.items():
            curves = self.history.group(group)
            if curves:
                meanings = RATES if group == "LR" else self.meanings
                page.add(tags.section(tags.h2(heading), charts(curves, meanings)))
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
            shown = {c: (f"images/{file}", (h, w)) for c, file, h, w in files}
            card = tags.article(tags.h3(tags.b(clean_text(name))), cls="card")
            card.add(pair_pictures(shown, f"{name}, {newest.heading}"))
            card.add(self._earlier(name, newest))
            cards.append(card)
        page.add(
            tags.section(
                tags.h2("The same pairs at every update"),
                tags.p(f"{newest.heading}. Below: what was generated after so many samples."),
                tags.div(cards, cls="cards"),
            )
        )

    def _earlier(self, name: str, newest: Entry) -> tags.div:
        """Generated pictures of one pair from the first to the newest update, evenly spread."""
        found = []
        for entry in self.entries:
            for other, files in entry.fixed:
                made = [f for f in files if f[0] == "generated"]
                if other == name and made and entry is not newest:
                    found.append((entry, made[0]))
        if len(found) > STRIP:
            found = [found[round(i * (len(found) - 1) / (STRIP - 1))] for i in range(STRIP)]
        figures = [
            picture(
                f"images/{file}", f"{entry.total_samples:,}",
                f"{name}, {entry.heading}", (height, width),
            )
            for entry, (_, file, height, width) in found
        ]  # fmt: skip
        return tags.div(figures, cls="strip")

    def _facts(self) -> dict[str, object]:
        curves = self.history.curves.values()
        seen = [c.samples[-1] for c in curves] + [e.total_samples for e in self.entries]
        return {
            "epoch": f"{self.epoch} of {self.epochs}",
            "training samples": f"{max(seen, default=0):,}",
            "page written": time.strftime("%Y-%m-%d %H:%M"),
        }

    def _restore(self) -> None:
        path = self.folder / "history.json"
        if not path.exists():
            return
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            self.entries = [_entry(item) for item in content["entries"]]
            self.epoch = max((entry.epoch for entry in self.entries), default=0)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            self.problem = (
                f"{path} is damaged ({error}); the page of intermediate results starts anew"
            )


def _add_cards(page: document, heading: str, cards: Sequence[object]) -> None:
    if cards:
        page.add(tags.section(tags.h2(heading), tags.div(cards, cls="cards")))


def _entry(item: dict) -> Entry:
    """One entry of the list; pages written before pairs stayed the same have none of those."""
    fixed = tuple((str(name), _files(files)) for name, files in item.get("fixed", ()))
    return Entry(int(item["epoch"]), int(item["total_samples"]), _files(item["pictures"]), fixed)


def _files(items: list) -> Files:
    """Check the list of an entry: its files are deleted later, so they must be ours."""
    files = []
    for caption, file, height, width in items:
        if not re.fullmatch(r"[A-Za-z0-9_-]+\.jpg", file):
            raise ValueError(f"unexpected file name {file!r}")
        files.append((str(caption), file, int(height), int(width)))
    return tuple(files)


@lru_cache(maxsize=2 * (KEEP_RECENT + KEEP_OLD))
def _card(entry: Entry) -> str:
    """HTML of one entry, kept: entries never change, and rendering hundreds takes a while."""
    shown = {c: (f"images/{file}", (h, w)) for c, file, h, w in entry.pictures}
    blocks = pair_pictures(shown, entry.heading)
    return tags.article(tags.h3(tags.b(entry.heading)), *blocks, cls="card").render()
