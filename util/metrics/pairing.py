"""Which result belongs to which ground truth, and every reason why a folder cannot be measured.

Nothing is ever skipped in silence: a problem is an error that lists the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from util.errors import UserError
from util.names import parse_result_name, stem

EXTENSIONS = (".jpg", ".jpeg", ".png")
SHOWN = 20
UNREADABLE_NAME = (
    "without a readable target name (expected <source>_2_<target>_vis.png; for equal names in both "
    "folders there is --pairing same_name)"
)


@dataclass(frozen=True, slots=True)
class ImagePair:
    """A generated image and its ground truth; ``key`` is the stem of the ground truth.

    The key of an image in sub-folders is its path without slashes, MAGPT's file id.
    """

    result: Path
    gt: Path
    key: str

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


def list_images(folder: str | Path, recursive: bool = False) -> list[Path]:
    """All .jpg, .jpeg and .png files of a folder, sorted by path.

    Raises UserError when the folder does not exist or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder {str(folder)!r}; expected a folder of images.")
    found = folder.rglob("*") if recursive else folder.iterdir()
    # As text: comparing Path objects would leave a list of parts in each, for as long as it lives.
    images = sorted((p for p in found if p.suffix.lower() in EXTENSIONS), key=str)
    if not images:
        raise UserError(
            f"the folder {str(folder)!r} holds no {', '.join(EXTENSIONS)} file; "
            "check the path, or generate the images with test.py first."
        )
    return images


def pair_results(
    results: str | Path,
    gt: str | Path,
    rule: str = "result_name",
    allow_missing: bool = False,
    expected: Iterable[str] | None = None,
) -> Pairing:
    """Pair every image of ``results`` with its ground truth in the folder ``gt``.

    ``rule``: ``result_name`` takes the target from ``<source>_2_<target>_vis.<ext>``; ``same_name``
    wants equal stems in both folders (MAGPT's real and fake folders, ``<n>@<file id>``).
    ``expected`` are result stems that must exist. Unmatched and missing images raise one UserError
    with the list, or with ``allow_missing`` are returned in ``left_out``; duplicates always raise.
    """
    problems: dict[str, list[str]] = {}
    images = _without_twins(list_images(results), "results", problems)
    targets = _without_twins(list_images(gt, recursive=True), "ground truth", problems, Path(gt))
    report_problems(problems)
    pairs = []
    for key, path in images.items():
        target = _target_of(path, key, rule, targets)
        if target is None:
            problems.setdefault(UNREADABLE_NAME, []).append(path.name)
        elif target not in targets:
            missing = f"{path.name} (wants {target} in {gt})"
            problems.setdefault("without ground truth", []).append(missing)
        else:
            pairs.append(ImagePair(path, targets[target], target.rpartition("@")[2]))
    missing = sorted(set(expected or ()) - set(images))
    if missing:
        problems["expected but not generated"] = missing
    if problems and not allow_missing:
        report_problems(problems, "correct the folders, or leave them out with --allow_missing")
    if not pairs:
        raise UserError(f"no image of {str(results)!r} has a ground truth in {str(gt)!r}.")
    return Pairing(pairs, problems)


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


def _target_of(path: Path, key: str, rule: str, targets: dict[str, Path]) -> str | None:
    if rule == "same_name":
        return key
    try:
        target = parse_result_name(path.name)[1]
    except UserError:
        return None
    if target not in targets:
        try:  # names that hold "_2_" themselves: the split of which both halves are known
            return parse_result_name(path.name, known=targets)[1]
        except UserError:
            return target
    return target


def report_problems(problems: dict[str, list[str]], remedy: str = "correct the folders") -> None:
    """Raise one UserError that lists every problem by kind; do nothing when there is none."""
    if not problems:
        return
    lines = []
    for kind, names in problems.items():
        lines.append(f"{len(names)} {kind}:")
        lines += [f"  {name}" for name in names[:SHOWN]]
        if len(names) > SHOWN:
            lines.append(f"  … and {len(names) - SHOWN} more")
    kinds = ", ".join(f"{len(names)} {kind}" for kind, names in problems.items())
    raise UserError(f"the images cannot be measured: {kinds}; {remedy}.", lines)
