"""What is in the measured folders: their images, which result belongs to which ground truth, and
every reason why they cannot be measured.

Nothing is ever skipped in silence: a problem is an error that lists the files.
"""

import sys
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from util.errors import UserError
from util.files import read_json
from util.image import load_image, mark_of, resize_linear, upright_size
from util.metrics.protocols import Resize
from util.names import (
    IMAGE_EXTENSIONS,
    PAGE_IMAGES,
    check_result_names,
    is_image,
    result_name,
    result_splits,
    stem,
)
from util.run.progress import progress_bar

GENERATION_FILE = "generation.json"
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
    # As text: comparing Path objects would leave a list of parts in each, for as long as it lives.
    found = (path for path in folder.rglob("*") if is_image(path.relative_to(folder).as_posix()))
    images = [p for p in found if PAGE_IMAGES not in p.relative_to(folder).parts and not p.is_dir()]
    images.sort(key=str)
    refuse({f"in {folder} that are no files": [p.name for p in images if not p.is_file()]})
    if not images:
        raise UserError(
            f"the folder {str(folder)!r} holds no {', '.join(IMAGE_EXTENSIONS)} file; "
            "check the path, or generate the images with test.py first."
        )
    return images


def read_generation(results: str | Path) -> dict[str, object]:
    """The content of generation.json (model, checkpoint, sha256 …), empty without that file."""
    path = Path(results) / GENERATION_FILE
    if not path.is_file():
        return {}
    content = read_json(path, "delete it or run test.py again.")
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold a JSON object; delete it or run test.py again.")
    return content


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


Item = TypeVar("Item")


def batches(
    items: Sequence[Item],
    read: Callable[[Item], tuple[np.ndarray, ...]],
    batch_size: int,
    threads: int,
    description: str,
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Stack what ``read`` gives (tuples of equal arrays) into tensors of ``batch_size`` items.

    A bounded number of images is read ahead. Images that cannot be read do not stop the pass; at
    its end they raise one UserError with the list, so that nothing is measured without them.
    """
    damaged, rows, rest = [], [], iter(items)
    bar = progress_bar(total=len(items), desc=description, unit="image")
    with bar, ThreadPoolExecutor(max(1, threads)) as pool:
        waiting = deque(pool.submit(read, item) for item in islice(rest, max(2 * batch_size, 8)))
        while waiting:
            try:
                rows.append(waiting.popleft().result())
            except UserError as error:
                damaged.append(str(error))
            bar.update()
            waiting.extend(pool.submit(read, item) for item in islice(rest, 1))
            if rows and (len(rows) == batch_size or not waiting):
                yield tuple(torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True))
                rows = []
    refuse({"unreadable": damaged})


@dataclass
class ImageFacts:
    """What the headers of a folder's images say: size ("WxH") of every readable file, counts of
    formats and marks of runs."""

    formats: Counter = field(default_factory=Counter)
    runs: Counter = field(default_factory=Counter)
    size_of: dict[Path, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    @property
    def sizes(self) -> Counter:
        """How many files have each size."""
        return Counter(self.size_of.values())

    def frame(self, path: Path) -> tuple[int, int]:
        """(h, w) of one file."""
        width, height = self.size_of[path].split("x")
        return int(height), int(width)


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


Stems = tuple[str, str]  # of a source and a target


def asked_results(pairs: Sequence[tuple[str, str]]) -> dict[str, Stems]:
    """Stem of the result -> stems of source and target, of the rows of a pairs file.

    Raises UserError when two rows have one result name.
    """
    check_result_names(pairs, page=False)
    return {Path(result_name(*pair)).stem: (stem(pair[0]), stem(pair[1])) for pair in pairs}


def pair_results(
    results: str | Path,
    gt: str | Path,
    rule: str = "result_name",
    allow_missing: bool = False,
    asked: Mapping[str, Stems] | None = None,
) -> tuple[list[ImagePair], dict[str, list[str]]]:
    """Pair every image of ``results`` with its ground truth in the folder ``gt``.

    ``rule``: ``result_name`` takes the target from ``<source>_2_<target>_vis.<ext>``; ``same_name``
    wants equal stems in both folders (MAGPT's real and fake folders, ``<n>@<file id>``). ``asked``
    (see :func:`asked_results`) are the results that must exist, and no others. Returns the pairs in
    the order of the sorted result paths, and what was left out by kind: unmatched and missing
    images raise one UserError with the list unless ``allow_missing``; duplicates and names that fit
    several pairs always do.
    """
    images, twins = _by_stem(list_images(results))
    targets, twins_of_gt = _by_stem(list_images(gt), Path(gt))
    refuse({"twice in the results": twins, "twice in the ground truth": twins_of_gt})
    pairs, ambiguous, left_out = [], [], defaultdict(list)
    for key, path in images.items():
        splits = [("", key)] if rule == "same_name" else _splits(path.name, key, targets, asked)
        if not splits:
            left_out[UNREADABLE_NAME if asked is None else NOT_ASKED].append(path.name)
            continue
        source, target = splits[0]
        if len(splits) > 1:
            ambiguous.append(path.name)
        elif target not in targets:
            left_out["without ground truth"].append(f"{path.name} (wants {target} in {gt})")
        else:
            pairs.append(ImagePair(path, targets[target], target.rpartition("@")[2], source))
    refuse({AMBIGUOUS: ambiguous}, "rename the images, or give --pairs")
    left_out["expected but not generated"] += sorted(set(asked or ()) - set(images))
    if not allow_missing:
        refuse(left_out, "correct the folders, or leave them out with --allow_missing")
    if not pairs:
        raise UserError(f"no image of {str(results)!r} has a ground truth in {str(gt)!r}.")
    return pairs, {kind: names for kind, names in left_out.items() if names}


def _by_stem(images: Sequence[Path], root: Path | None = None) -> tuple[dict[str, Path], list[str]]:
    """Images by stem (below ``root`` by their path without slashes), and which have the same."""
    by_stem: dict[str, Path] = {}
    twins = []
    for path in images:
        key = path.stem if root is None else stem(path.relative_to(root).as_posix())
        if key in by_stem:
            twins.append(f"{by_stem[key].name} and {path.name}")
        by_stem[key] = path
    return by_stem, twins


def _splits(
    name: str, key: str, targets: Mapping[str, Path], asked: Mapping[str, Stems] | None
) -> list[Stems]:
    """Source and target that a result can show: one, none, or several when nothing decides."""
    if asked is not None:
        return [asked[key]] if key in asked else []
    splits = result_splits(name)
    known = [split for split in splits if split[1] in targets]
    known = [split for split in known if split[0] in targets] or known
    return known or splits[:1]
