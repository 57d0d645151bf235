"""``web/index.html``: curves and intermediate results of a training, newest first."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from dominate import document, tags
from dominate.util import raw, text

from util.files import write_atomically
from util.image import save_image
from util.show.curves import LossHistory, charts
from util.show.html import clean_text, facts, new_page, picture, write_page
from util.show.sinks import Losses, Metrics, Pictures, Sink

KEEP_RECENT = 24  # intermediate results; of older ones, the last of each epoch stays
KEEP_OLD = 200  # epochs; then every second one goes
RELOAD_SECONDS = 60
QUALITY = 90
SECTIONS = {"Metric": "Validation", "Loss": "Losses", "LR": "Learning rates"}


@dataclass(frozen=True)
class Entry:
    """One intermediate result: (caption, file name, height, width) a picture."""

    epoch: int
    total_samples: int
    pictures: tuple[tuple[str, str, int, int], ...]


class TrainingPage(Sink):
    """Writes the page whenever there is something new to see.

    ``history.json`` beside it lists the entries, so that a resumed run goes on with them. The
    number of entries and files is bounded (see ``KEEP_RECENT`` and ``KEEP_OLD``).

    :param resume: go on with the entries of ``history.json`` instead of starting an empty page.
    :param warn: told in one sentence when ``history.json`` cannot be used.
    """

    name = "training page"

    def __init__(
        self,
        folder: Path,
        title: str,
        history: LossHistory,
        epochs: int,
        resume: bool,
        warn: Callable[[str], None],
    ):
        self.folder = folder
        self.title = title
        self.history = history
        self.epochs = epochs
        self.entries: list[Entry] = []
        self.epoch = 0
        if resume:
            self._restore(warn)

    def losses(self, record: Losses) -> None:
        self.epoch = record.epoch

    def pictures(self, record: Pictures) -> None:
        self.epoch = record.epoch
        shown = []
        for number, (name, image) in enumerate(record.images.items(), 1):
            safe = re.sub(r"[^A-Za-z0-9_-]", "_", name)
            file = f"{record.total_samples:010d}_{number}_{safe}.jpg"
            save_image(self.folder / "images" / file, image, quality=QUALITY)
            shown.append((name, file, *image.shape[:2]))
        entry = Entry(record.epoch, record.total_samples, tuple(shown))
        self.entries = [e for e in self.entries if e.total_samples != entry.total_samples]
        self.entries.append(entry)
        self._write(drop=self._thin())

    def metrics(self, record: Metrics) -> None:
        self.epoch = record.epoch
        self._write()

    def rewind(self, total_samples: int) -> None:
        late = [entry for entry in self.entries if entry.total_samples > total_samples]
        self.entries = [entry for entry in self.entries if entry.total_samples <= total_samples]
        if late:
            self._write(drop=late)

    def close(self) -> None:
        """Write the final state, which no longer reloads itself."""
        if self.entries or self.history.curves:
            self._write(reload=None)

    def _thin(self) -> list[Entry]:
        """Shorten ``entries`` to the limits; returns what was removed."""
        old, recent = self.entries[:-KEEP_RECENT], self.entries[-KEEP_RECENT:]
        kept = list({entry.epoch: entry for entry in old}.values())
        if len(kept) > KEEP_OLD:
            kept = kept[-1::-2][::-1]
        before, self.entries = self.entries, kept + recent
        still_there = set(self.entries)
        return [entry for entry in before if entry not in still_there]

    def _write(self, drop: list[Entry] | None = None, reload: int | None = RELOAD_SECONDS) -> None:
        """Write page and list, then remove the files of ``drop``: nothing shown is missing."""
        write_page(self.folder / "index.html", self._page(reload))
        content = {"entries": [asdict(entry) for entry in self.entries]}
        write_atomically(self.folder / "history.json", json.dumps(content, indent=1).encode())
        for entry in drop or []:
            for _, file, _, _ in entry.pictures:
                (self.folder / "images" / file).unlink(missing_ok=True)

    def _page(self, reload: int | None) -> document:
        """The newest result first, then the curves: on a phone those are many screens long."""
        page = new_page(f"{self.title}: training", refresh_seconds=reload)
        page.add(tags.h1(clean_text(f"{self.title}: training")))
        page.add(facts(self._facts()))
        cards = [raw(_card(entry)) for entry in reversed(self.entries)]
        _add_cards(page, "Newest result", cards[:1])
        for group, heading in SECTIONS.items():
            curves = self.history.group(group)
            if curves:
                page.add(tags.section(tags.h2(heading), charts(curves)))
        _add_cards(page, "Earlier results, newest first", cards[1:])
        return page

    def _facts(self) -> dict[str, object]:
        curves = self.history.curves.values()
        seen = [c.samples[-1] for c in curves] + [e.total_samples for e in self.entries]
        updated = time.strftime("%Y-%m-%d %H:%M")
        return {
            "epoch": f"{self.epoch} of {self.epochs}",
            "training samples": f"{max(seen, default=0):,}",
            "page written": updated,
        }

    def _restore(self, warn: Callable[[str], None]) -> None:
        path = self.folder / "history.json"
        if not path.exists():
            return
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            self.entries = [_entry(item) for item in content["entries"]]
            self.epoch = max((entry.epoch for entry in self.entries), default=0)
        except (ValueError, KeyError, TypeError) as error:
            warn(f"{path} is damaged ({error}); the page of intermediate results starts anew")


def _add_cards(page: document, heading: str, cards: list[text]) -> None:
    if cards:
        page.add(tags.section(tags.h2(heading), tags.div(cards, cls="cards")))


def _entry(item: dict) -> Entry:
    """Check one entry of the list: its file names are deleted later, so they must be ours."""
    pictures = []
    for caption, file, height, width in item["pictures"]:
        if not re.fullmatch(r"[A-Za-z0-9_-]+\.jpg", file):
            raise ValueError(f"unexpected file name {file!r}")
        pictures.append((str(caption), file, int(height), int(width)))
    return Entry(int(item["epoch"]), int(item["total_samples"]), tuple(pictures))


@lru_cache(maxsize=2 * (KEEP_RECENT + KEEP_OLD))
def _card(entry: Entry) -> str:
    """HTML of one entry, kept: entries never change, and rendering hundreds takes a while."""
    heading = f"Epoch {entry.epoch}, {entry.total_samples:,} samples"
    figures = [
        picture(
            f"images/{file}", caption.replace("_", " "), f"{caption}, {heading}", (height, width)
        )
        for caption, file, height, width in entry.pictures
    ]
    return tags.article(
        tags.h3(tags.b(heading)), tags.div(figures, cls="pictures"), cls="card"
    ).render()
