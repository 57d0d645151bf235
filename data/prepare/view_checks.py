"""What is wrong with a data set of turned objects (--dataset_mode view)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from data.prepare.checks import Findings
from data.view_dataset import ViewDataset
from util.errors import UserError
from util.run.progress import progress_bar
from util.tables.views import Source


def check_views(root: Path, phases: list[str], found: Findings) -> dict[str, Source]:
    """The phases that can be opened as training and testing do; what is wrong goes to ``found``."""
    sources: dict[str, Source] = {}
    for name in sorted(phases, reverse=True):  # train first: test may show what train shows
        try:
            source = Source(root, name, None, "auto", 20)
            views = sources["train"].views() if "train" in sources else None
            ViewDataset(root, name, views=views, training=name == "train")
            sources[name] = source
        except UserError as error:
            found.error(f"{name}: {error.sentence}")
    for name, source in sources.items():
        _check_pictures(name, source, found)
        _check_complete(name, source, found)
    if len(sources) == 2:
        _check_between(sources["train"], sources["test"], found)
    return sources


def objects(source: Source) -> set[str]:
    """Everything that is shown."""
    return {thing for thing, _ in source.split.values()}


def _check_pictures(phase: str, source: Source, found: Findings) -> None:
    """Read every picture: damage, and sizes that differ."""
    sizes: Counter[tuple[int, int]] = Counter()
    broken = []
    for name in progress_bar(source.split, unit="image", leave=False):
        try:
            sizes[source.store.image(name).size] += 1
        except UserError as error:
            broken.append(str(error))
    if broken:
        found.error(f"{phase}: {len(broken):,} pictures cannot be read: {broken[0]}.")
    if len(sizes) > 1:
        counts = ", ".join(f"{count:,} of {w}x{h}" for (w, h), count in sizes.most_common(4))
        found.error(
            f"{phase}: pictures of {len(sizes)} sizes ({counts}, width x height); all views "
            "must have one size: make them again the same way."
        )


def _check_complete(phase: str, source: Source, found: Findings) -> None:
    """Objects that lack a view which others have."""
    full = int(np.prod([len(axis) for axis in source.views()]))
    counts = Counter(thing for thing, _ in source.split.values())
    lacking = [thing for thing, count in counts.items() if count < full]
    if lacking:
        found.warn(
            f"{phase}: {len(lacking):,} objects lack some of the {full} views, the first is "
            f"{lacking[0]} with {counts[lacking[0]]}: they are trained and turned with those they "
            "have."
        )


def _check_between(train: Source, test: Source, found: Findings) -> None:
    # The same face in another recording or under another light is the same person.
    key = (lambda thing: thing.split("_")[0]) if train.naming == "multipie" else str
    both = sorted(set(map(key, objects(train))) & set(map(key, objects(test))))
    if both:
        found.error(
            f"{len(both):,} objects are in train and in test, the first is {both[0]}: results on "
            "seen objects prove nothing; keep each in one phase."
        )
