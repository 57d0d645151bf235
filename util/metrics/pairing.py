"""Which result belongs to which ground truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from util.errors import UserError
from util.metrics.folder import list_images, refuse
from util.names import result_name, result_splits, stem

UNREADABLE_NAME = (
    "without a readable target name (expected <source>_2_<target>_vis.png; for equal names in both "
    "folders there is --pairing same_name)"
)
AMBIGUOUS = "that fit several pairs of images (give the pairs file with --pairs)"
NOT_ASKED = "that no row of the pairs file asks for"


@dataclass(frozen=True, slots=True)
class ImagePair:
    """A generated image and its ground truth; ``key`` is the stem of the ground truth.

    The key of an image in sub-folders is its path without slashes, MAGPT's file id. ``source`` is
    the stem of the source image, "" where names do not tell.
    """

    result: Path
    gt: Path
    key: str
    source: str = ""

    @property
    def name(self) -> str:
        """File name of the generated image."""
        return self.result.name

    @property
    def target(self) -> str:
        """File name of the ground truth."""
        return self.gt.name


@dataclass
class Pairing:
    """Pairs in the order of the sorted result paths, and what ``allow_missing`` left out."""

    pairs: list[ImagePair]
    left_out: dict[str, list[str]] = field(default_factory=dict)


def asked_results(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Stem of the result -> stems of source and target, of the rows of a pairs file.

    Raises UserError when two rows have one result name.
    """
    asked: dict[str, tuple[str, str]] = {}
    rows: dict[str, tuple[str, str]] = {}
    for pair in pairs:
        name = Path(result_name(*pair)).stem
        if name in rows and rows[name] != pair:
            raise UserError(
                f"the pairs {' to '.join(rows[name])} and {' to '.join(pair)} have one result "
                f"name, {name}; expected a different one for each: rename the images."
            )
        rows[name] = pair
        asked[name] = stem(pair[0]), stem(pair[1])
    return asked


def pair_results(
    results: str | Path,
    gt: str | Path,
    rule: str = "result_name",
    allow_missing: bool = False,
    asked: Mapping[str, tuple[str, str]] | None = None,
) -> Pairing:
    """Pair every image of ``results`` with its ground truth in the folder ``gt``.

    ``rule``: ``result_name`` takes the target from ``<source>_2_<target>_vis.<ext>``; ``same_name``
    wants equal stems in both folders (MAGPT's real and fake folders, ``<n>@<file id>``). ``asked``
    (see :func:`asked_results`) are the results that must exist, and no others. Unmatched and
    missing images raise one UserError with the list, or with ``allow_missing`` are returned in
    ``left_out``; duplicates and names that fit several pairs always raise.
    """
    problems: dict[str, list[str]] = {}
    images = _without_twins(list_images(results), "results", problems)
    targets = _without_twins(list_images(gt), "ground truth", problems, Path(gt))
    refuse(problems)
    pairs = []
    for key, path in images.items():
        splits = [(key, key)] if rule == "same_name" else _splits(path.name, key, targets, asked)
        problem = _problem(path, splits, gt, targets, asked is not None)
        if problem:
            problems.setdefault(problem[0], []).append(problem[1])
            continue
        ((source, target),) = splits
        source = "" if rule == "same_name" else source
        pairs.append(ImagePair(path, targets[target], target.rpartition("@")[2], source))
    refuse({AMBIGUOUS: problems.get(AMBIGUOUS, [])}, "rename the images, or give --pairs")
    missing = sorted(set(asked or ()) - set(images))
    if missing:
        problems["expected but not generated"] = missing
    if not allow_missing:
        refuse(problems, "correct the folders, or leave them out with --allow_missing")
    if not pairs:
        raise UserError(f"no image of {str(results)!r} has a ground truth in {str(gt)!r}.")
    return Pairing(pairs, problems)


def _problem(
    path: Path,
    splits: Sequence[tuple[str, str]],
    gt: str | Path,
    targets: Mapping[str, Path],
    asked: bool,
) -> tuple[str, str] | None:
    """Kind of problem and a line about a result that is of no pair, or of several; else None."""
    if len(splits) != 1:
        kinds = {0: NOT_ASKED if asked else UNREADABLE_NAME}
        return kinds.get(len(splits), AMBIGUOUS), path.name
    if splits[0][1] not in targets:
        return "without ground truth", f"{path.name} (wants {splits[0][1]} in {gt})"
    return None


def _without_twins(
    images: Sequence[Path], what: str, problems: dict[str, list[str]], root: Path | None = None
) -> dict[str, Path]:
    """Images by stem (nested ones by their path without slashes); twins go to ``problems``."""
    by_stem: dict[str, Path] = {}
    for path in images:
        key = path.stem if root is None else stem(path.relative_to(root).as_posix())
        if key in by_stem:
            twins = f"{by_stem[key].name} and {path.name}"
            problems.setdefault(f"twice in the {what}", []).append(twins)
        by_stem[key] = path
    return by_stem


def _splits(
    name: str,
    key: str,
    targets: Mapping[str, Path],
    asked: Mapping[str, tuple[str, str]] | None,
) -> list[tuple[str, str]]:
    """Source and target that a result can show: one, none, or several when nothing decides."""
    if asked is not None:
        return [asked[key]] if key in asked else []
    splits = result_splits(name)
    known = [split for split in splits if split[1] in targets]
    known = [split for split in known if split[0] in targets] or known
    return known or splits[:1]
