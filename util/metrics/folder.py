"""What is in the measured folders: their images, which result belongs to which ground truth, and
every reason why they cannot be measured.

Nothing is ever skipped in silence: a problem is an error that lists the files.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from util.errors import UserError
from util.files import read_json
from util.image import load_image, mark_of, resize_linear, upright_size
from util.metrics.protocols import Resize
from util.names import IMAGE_EXTENSIONS, PAGE_IMAGES, is_image, result_name, result_splits, stem
from util.run.progress import progress_bar

SHOWN = 20  # files of one kind in an error


def refuse(problems: Mapping[str, Sequence[str]], remedy: str = "correct the folders") -> None:
    """Raise one UserError that lists every problem by kind, unless there is none."""
    problems = {kind: names for kind, names in problems.items() if names}
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


def list_images(folder: str | Path) -> list[Path]:
    """All .jpg, .jpeg and .png files of a folder and those in it, sorted by path.

    Hidden files and folders and the pictures of our own pages are none of them. Raises UserError
    when the folder does not exist or holds no image, or a link to nothing or a pipe with the name
    of one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder {str(folder)!r}; expected a folder of images.")
    found = (p for p in folder.rglob("*") if _is_result(p.relative_to(folder)) and not p.is_dir())
    # As text: comparing Path objects would leave a list of parts in each, for as long as it lives.
    images = sorted(found, key=str)
    refuse({f"in {folder} that are no files": [p.name for p in images if not p.is_file()]})
    if not images:
        raise UserError(
            f"the folder {str(folder)!r} holds no {', '.join(IMAGE_EXTENSIONS)} file; "
            "check the path, or generate the images with test.py first."
        )
    return images


def _is_result(path: PurePath) -> bool:
    return is_image(path.as_posix()) and PAGE_IMAGES not in path.parts


GENERATION_FILE = "generation.json"


def read_generation(results: str | Path) -> dict[str, object] | None:
    """The content of generation.json (model, checkpoint, sha256 …), or None without that file."""
    path = Path(results) / GENERATION_FILE
    if not path.is_file():
        return None
    content = read_json(path, "delete it or run test.py again.")
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold a JSON object; delete it or run test.py again.")
    return content


def count_problem(generation: Mapping[str, object] | None, found: int) -> str | None:
    """Why ``found`` images are not what test.py was to generate, or None."""
    expected = (generation or {}).get("pairs")
    if not isinstance(expected, int) or expected == found:
        return None
    why = "test.py was interrupted" if found < expected else "images of another run are among them"
    return f"{found} images, while {GENERATION_FILE} announces {expected}: {why}"


def describe_generation(generation: Mapping[str, object] | None) -> str:
    """One line for the screen: what made the images."""
    if not generation:
        return f"generator: unknown (no {GENERATION_FILE})"
    parts = [f"{key} {generation[key]}" for key in ("model", "name", "checkpoint", "which_epoch")
             if generation.get(key) is not None]  # fmt: skip
    digest = str(generation.get("sha256") or "")[:12]
    return "generator: " + ", ".join(parts + ([f"sha256 {digest}…"] if digest else []))


@dataclass(frozen=True)
class ImageReader:
    """Reads results and references (ground truth and real set); travels to worker processes.

    ``reference``: a picklable function of a uint8 image (H, W, 3), applied to every reference after
    the resize (step-wise generation measures against quantised images).
    """

    resize: Resize | None = None
    reference: Callable[[np.ndarray], np.ndarray] | None = None

    def read_result(self, path: Path) -> np.ndarray:
        """A generated image as uint8 (H, W, 3)."""
        image = load_image(path)
        if self.resize is None:
            return np.asarray(image)
        height, width = self.resize.size
        if self.resize.library == "opencv":
            return resize_linear(np.asarray(image), self.resize.size)
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))

    def read_reference(self, path: Path) -> np.ndarray:
        """A ground-truth or real image as uint8 (H, W, 3)."""
        image = self.read_result(path)
        return image if self.reference is None else self.reference(image)


@dataclass
class ImageFacts:
    """What the headers of a folder's images say.

    Counts of sizes ("WxH"), formats and marks of runs, the size of every file, unreadable files.
    """

    sizes: Counter = field(default_factory=Counter)
    formats: Counter = field(default_factory=Counter)
    runs: Counter = field(default_factory=Counter)
    size_of: dict[Path, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    @property
    def usual_size(self) -> str:
        """The most frequent size, "WxH"."""
        return self.sizes.most_common(1)[0][0]

    def odd_sizes(self) -> list[str]:
        """Files whose size differs from the most frequent one, as lines for an error."""
        if len(self.sizes) < 2:
            return []
        usual = self.usual_size
        return [f"{p.name} is {s}, most are {usual}" for p, s in self.size_of.items() if s != usual]

    def frame(self, path: Path) -> tuple[int, int]:
        """(h, w) of one file."""
        width, height = self.size_of[path].split("x")
        return int(height), int(width)

    def summary(self) -> dict[str, object]:
        """The facts that go into the report."""
        return {
            "count": len(self.size_of),
            "sizes": dict(self.sizes.most_common()),
            "formats": dict(self.formats.most_common()),
        }


def inspect_images(paths: Sequence[Path], what: str) -> ImageFacts:
    """Read the header of every image; unreadable ones are listed, not raised."""
    facts = ImageFacts()
    for path in progress_bar(paths, desc=f"checking {what}", unit="image"):
        try:
            with Image.open(path) as image:
                width, height = upright_size(image)
                facts.formats[image.format] += 1
                facts.runs[mark_of(image)] += 1
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = str(error).replace(str(path), path.name)
            facts.unreadable.append(f"{path.name} ({reason})")
            continue
        facts.size_of[path] = sys.intern(f"{width}x{height}")  # one text for thousands of files
        facts.sizes[facts.size_of[path]] += 1
    return facts


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
