"""What is wrong with the image files of a data set: missing, unreadable, of another shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image

from util.dataset_checks import ERROR, NOTE, WARNING, Phase
from util.errors import UserError
from util.image import load_image
from util.image_sources import EXTENSIONS
from util.manifest import problems
from util.workers import end_with_parent

ASPECT_TOLERANCE = 0.03  # 750 x 1101 files and 176 x 256 strips differ by 0.9 %

Progress = Callable[[Iterable, int], Iterable]  # (items, total) -> items, e.g. a progress bar


def inspect(path: Path, quick: bool = False) -> tuple[tuple[int, int], str] | str:
    """((h, w), colour mode) of an image file as training would read it, or what is wrong with it.

    ``quick`` reads the header only, so that a truncated file goes unnoticed.
    """
    try:
        image = None if quick else load_image(path)
        with Image.open(path) as header:
            size = (image or header).size
            return (size[1], size[0]), header.mode
    except UserError as error:
        return str(error)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"{path} is not a readable image ({error}); replace the file"


def check_images(
    phase: Phase, quick: bool, workers: int, own: bool, progress: Progress = lambda items, _: items
) -> None:
    """Look at every image the pairs need, and count the files of the folder."""
    if not phase.folder.is_dir():
        return
    paths = {name: phase.folder / name for name in phase.names or _files(phase.folder)}
    missing = [name for name, path in paths.items() if not path.is_file()]
    if missing:
        where = f" (row {phase.row_of(missing[0])})" if phase.pairs else ""
        phase.add(
            ERROR,
            "no image",
            f"{len(missing):,} images of {phase.pairs_path} are not in {phase.folder}, the first "
            f"is {missing[0]!r}{where}: prepare the images again or remove the pairs.",
        )
    present = [path for name, path in paths.items() if path.is_file()]
    sizes: dict[tuple[int, int], list[Path]] = {}
    modes: Counter[str] = Counter()
    broken = []
    results = _inspect_all(present, quick, workers)
    for path, result in progress(results, len(present)):
        if isinstance(result, str):
            broken.append(result)
            continue
        sizes.setdefault(result[0], []).append(path)
        modes[result[1]] += 1
    if broken:
        phase.add(ERROR, "unreadable", f"{len(broken):,} images cannot be read: {broken[0]}.")
    _check_sizes(phase, sizes)
    if set(modes) - {"RGB"}:
        found = ", ".join(f"{count:,} {mode}" for mode, count in sorted(modes.items()))
        phase.add(NOTE, "colours", f"{phase.folder}: {found}; all are read as 8-bit RGB.")
    _check_count(phase, own)


def _files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix.lower() in EXTENSIONS)


def _inspect_all(paths: list[Path], quick: bool, workers: int) -> Iterator[tuple[Path, object]]:
    task = partial(inspect, quick=quick)
    if workers <= 1 or len(paths) < 200:
        yield from zip(paths, map(task, paths), strict=True)
        return
    with ProcessPoolExecutor(workers, initializer=end_with_parent) as pool:
        yield from zip(paths, pool.map(task, paths, chunksize=64), strict=True)


def _check_sizes(phase: Phase, sizes: dict[tuple[int, int], list[Path]]) -> None:
    """Sizes that do not have the shape of the keypoint frame are errors, others notes."""
    height, width = phase.layout.annotation_size
    wrong = {
        size: paths
        for size, paths in sizes.items()
        if abs(size[1] / size[0] / (width / height) - 1) > ASPECT_TOLERANCE
    }
    for size, paths in wrong.items():
        phase.add(
            ERROR,
            "size",
            f"{len(paths):,} images in {phase.folder} have {size[1]}x{size[0]} pixels (width x "
            f"height), the first is {paths[0].name!r}; expected the shape of the keypoint frame, "
            f"{width}x{height}: make them again (script/generate_fashion_datasets.py or "
            "script/prepare_market.py), or say --annotation_size for a table in another frame.",
        )
    if len(sizes) > 1 and not wrong:
        found = ", ".join(f"{len(p):,} of {s[1]}x{s[0]}" for s, p in sorted(sizes.items())[:5])
        phase.add(
            WARNING,
            "sizes",
            f"{phase.folder} holds images of {len(sizes)} sizes ({found}): they were made in "
            "different ways; make them again the same way.",
        )
    elif sizes and not wrong and (height, width) not in sizes:
        (size,) = sizes
        phase.add(
            NOTE,
            "sizes",
            f"images of {phase.folder} have {size[1]}x{size[0]} pixels: resized when loaded.",
        )


def _check_count(phase: Phase, own: bool) -> None:
    expected = phase.layout.image_counts.get(phase.name)
    for problem in problems(phase.folder):
        phase.add(WARNING, "manifest", problem)
    if expected is None or own:
        return
    count = len(_files(phase.folder))
    if count != expected:
        phase.add(
            WARNING,
            "image count",
            f"{phase.folder} holds {count:,} images, the published set {expected:,}: results "
            "cannot be compared with published numbers; for your own data this is fine (--own).",
        )
