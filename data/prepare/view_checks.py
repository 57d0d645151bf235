"""What is wrong with a data set of turned objects (--dataset_mode view)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data.prepare.checks import ERROR, NOTE, WARNING, Finding
from data.view_dataset import ViewDataset
from util.errors import UserError
from util.show.grid import grid
from util.tables.views import NAMINGS, Source, Views
from util.tensors import image_to_tensor

WIDTH = 96  # of a picture on the sheet
Progress = Callable[[Iterable, int], Iterable]  # (items, total) -> items, e.g. a progress bar


@dataclass
class ViewPhase:
    """One phase as far as it could be opened."""

    name: str
    source: Source | None = None
    problem: str = ""

    @property
    def objects(self) -> set[str]:
        """Everything that is shown."""
        return {thing for thing, _ in self.source.split.values()} if self.source else set()

    def summary(self) -> str:
        """Counts, in one line."""
        if self.source is None:
            return f"{self.name}: cannot be used"
        axes = " x ".join(str(len(axis)) for axis in self.source.views())
        return (
            f"{self.name}: {len(self.source.split):,} pictures of {len(self.objects):,} objects in "
            f"{self.source.store.where}, names as in {self.source.naming}: {axes} views"
        )


def open_phase(root: Path, name: str) -> ViewPhase:
    """Open one phase as training (or testing, for ``test``) would."""
    try:
        source = Source(root, name, None, "auto", 20)
        ViewDataset(root, name, training=name == "train")
    except UserError as error:
        return ViewPhase(name, problem=error.sentence)
    return ViewPhase(name, source)


def check_views(phases: list[ViewPhase], progress: Progress) -> list[Finding]:
    """All findings, errors first: what cannot be opened, pictures, sizes, views, leaks."""
    findings = [Finding(ERROR, f"{p.name}: {p.problem}") for p in phases if p.problem]
    usable = [phase for phase in phases if phase.source]
    for phase in usable:
        findings += _check_pictures(phase, progress)
        findings += _check_complete(phase)
    if len(usable) == 2:
        findings += _check_between(*usable)
    return sorted(findings, key=lambda finding: (ERROR, WARNING, NOTE).index(finding.level))


def _check_pictures(phase: ViewPhase, progress: Progress) -> list[Finding]:
    """Read every picture: damage, and sizes that differ."""
    store, names = phase.source.store, list(phase.source.split)
    sizes: Counter[tuple[int, int]] = Counter()
    broken = []
    for name in progress(names, len(names)):
        try:
            sizes[store.image(name).size] += 1
        except UserError as error:
            broken.append(str(error))
    findings = []
    if broken:
        text = f"{phase.name}: {len(broken):,} pictures cannot be read: {broken[0]}."
        findings.append(Finding(ERROR, text))
    if len(sizes) > 1:
        found = ", ".join(f"{count:,} of {w}x{h}" for (w, h), count in sizes.most_common(4))
        text = (
            f"{phase.name}: pictures of {len(sizes)} sizes ({found}, width x height); all views "
            "must have one size: make them again the same way."
        )
        findings.append(Finding(ERROR, text))
    return findings


def _check_complete(phase: ViewPhase) -> list[Finding]:
    """Objects that lack a view which others have."""
    views: Views = phase.source.views()
    full = int(np.prod([len(axis) for axis in views]))
    counts = Counter(thing for thing, _ in phase.source.split.values())
    lacking = [thing for thing, count in counts.items() if count < full]
    if not lacking:
        return []
    text = (
        f"{phase.name}: {len(lacking):,} objects lack some of the {full} views, the first is "
        f"{lacking[0]} with {counts[lacking[0]]}: they are trained and turned with those they have."
    )
    return [Finding(WARNING, text)]


def _check_between(train: ViewPhase, test: ViewPhase) -> list[Finding]:
    findings = []
    one, two = train.source, test.source
    if one.naming != two.naming:
        text = (
            f"names of train are read as {NAMINGS[one.naming].shape}, those of test as "
            f"{NAMINGS[two.naming].shape}: rename one of them."
        )
        return [Finding(ERROR, text)]
    for axis, known in zip(two.views(), one.views(), strict=True):
        unknown = [label for label in axis if label not in known]
        if unknown:
            text = f"test shows views that train does not have: {', '.join(unknown)}; remove them."
            findings.append(Finding(ERROR, text))
    # The same face in another recording or under another light is the same person.
    key = (lambda thing: thing.split("_")[0]) if one.naming == "multipie" else str
    both = sorted({key(t) for t in train.objects} & {key(t) for t in test.objects})
    if both:
        text = (
            f"{len(both):,} objects are in train and in test, the first is {both[0]}: results on "
            "seen objects prove nothing; keep each in one phase."
        )
        findings.append(Finding(ERROR, text))
    return findings


def view_sheet(phases: list[ViewPhase], objects: int) -> np.ndarray | None:
    """The first objects of each phase, one a row, from up to nine sides; None without any."""
    rows = []
    for phase in (p for p in phases if p.source):
        shown: dict[tuple, list[tuple[int, str]]] = {}
        first = phase.source.views()[0]
        for name, (thing, labels) in phase.source.split.items():
            shown.setdefault((thing, *labels[1:]), []).append((first.index(labels[0]), name))
        for names in list(shown.values())[:objects]:
            names = [name for _, name in sorted(names)]
            chosen = names[:: -(-len(names) // 9)]
            rows.append([_tile(phase.source.store.image(name)) for name in chosen])
    return grid(rows) if rows else None


def _tile(image: Image.Image) -> np.ndarray:
    size = (round(WIDTH * image.height / image.width), WIDTH)
    return image_to_tensor(image, size).permute(1, 2, 0).numpy()
