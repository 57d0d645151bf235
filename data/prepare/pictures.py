"""What is wrong with the images of a data set: damaged, of another shape, too many, too few."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from data.prepare.checks import Phase
from util.errors import UserError
from util.image import load_image, upright_size
from util.names import is_image
from util.parallel import map_in_order
from util.tables.manifest import problems

LOOKED_AT = 200  # images whose headers are read when a training starts
ASPECT_TOLERANCE = 0.03  # 750 x 1101 files and 176 x 256 strips differ by 0.9 %

Progress = Callable[[Iterable, int], Iterable]  # (items, total) -> items, e.g. a progress bar


def examine(path: Path, quick: bool = False) -> tuple[tuple[int, int], str] | str:
    """((h, w), colour mode) of an image file as training would read it, or what is wrong with it.

    ``quick`` reads the header only, so that a truncated file goes unnoticed.
    """
    try:
        image = None if quick else load_image(path)
        with Image.open(path) as header:
            return (image.size if image else upright_size(header))[::-1], header.mode
    except UserError as error:
        return str(error)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"{path} is not a readable image ({error}); replace the file"


def shape_note(folder: Path, names: Sequence[str], frame: tuple[int, int]) -> str | None:
    """A sentence when images do not have the shape of the keypoint ``frame`` (h, w); else None.

    Only headers are read: of :data:`LOOKED_AT` images spread over the list and of every file that
    is many times larger than the others.
    """
    files = {name: (folder / name).stat().st_size for name in names}
    large = 8 * sorted(files.values())[len(files) // 2]
    spread = list(names)[:: max(1, len(names) // LOOKED_AT)]
    chosen = dict.fromkeys([*(name for name, size in files.items() if size > large), *spread])
    found = {name: examine(folder / name, quick=True) for name in chosen}
    odd = {
        name: result[0]
        for name, result in found.items()
        if not isinstance(result, str) and _is_odd(result[0], frame)
    }
    if not odd:
        return None
    name, (height, width) = next(iter(odd.items()))
    return (
        f"{len(odd):,} of {len(found):,} images looked at in {folder} do not have the shape of the "
        f"keypoint frame, {frame[1]}x{frame[0]} pixels (width x height): {name} has "
        f"{width}x{height}. They are stretched; see python script/check_dataset.py"
    )


def _is_odd(size: tuple[int, int], frame: tuple[int, int]) -> bool:
    return abs(size[1] / size[0] / (frame[1] / frame[0]) - 1) > ASPECT_TOLERANCE


def check_images(phase: Phase, quick: bool, workers: int, own: bool, progress: Progress) -> None:
    """Look at every image the pairs need, and count the files of the folder."""
    if not phase.folder.is_dir():
        return
    paths = {name: phase.folder / name for name in phase.names or _files(phase.folder)}
    missing = [name for name, path in paths.items() if not path.is_file()]
    if missing:
        where = f" (row {phase.row_of(missing[0])})" if phase.pairs else ""
        phase.error(
            f"{len(missing):,} images of {phase.pairs_path} are not in {phase.folder}, the first "
            f"is {missing[0]!r}{where}: prepare the images again or remove the pairs."
        )
    present = [path for name, path in paths.items() if path.is_file()]
    sizes: dict[tuple[int, int], list[Path]] = {}
    modes: Counter[str] = Counter()
    broken = []
    results = _examine_all(present, quick, workers)
    for path, result in progress(results, len(present)):
        if isinstance(result, str):
            broken.append(result)
            continue
        sizes.setdefault(result[0], []).append(path)
        modes[result[1]] += 1
    if broken:
        phase.error(f"{len(broken):,} images cannot be read: {broken[0]}.")
    _check_sizes(phase, sizes)
    if set(modes) - {"RGB"}:
        found = ", ".join(f"{count:,} {mode}" for mode, count in sorted(modes.items()))
        phase.note(f"{phase.folder}: {found}; all are read as 8-bit RGB.")
    _check_count(phase, own)


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if is_image(path.name))


def _examine_all(paths: list[Path], quick: bool, workers: int) -> Iterator[tuple[Path, object]]:
    workers = workers if len(paths) >= 200 else 1
    found = map_in_order(partial(examine, quick=quick), paths, workers, chunk=64)
    yield from zip(paths, found, strict=True)


def _check_sizes(phase: Phase, sizes: dict[tuple[int, int], list[Path]]) -> None:
    """Sizes that do not have the shape of the keypoint frame are errors, others notes."""
    height, width = phase.layout.annotation_size
    wrong = {size: paths for size, paths in sizes.items() if _is_odd(size, (height, width))}
    for size, paths in wrong.items():
        phase.error(
            f"{len(paths):,} images in {phase.folder} have {size[1]}x{size[0]} pixels (width x "
            f"height), the first is {paths[0].name!r}; expected the shape of the keypoint frame, "
            f"{width}x{height}: make them again (script/generate_fashion_datasets.py or "
            "script/prepare_market.py), or say --annotation_size for a table in another frame."
        )
    if len(sizes) > 1 and not wrong:
        found = ", ".join(f"{len(p):,} of {s[1]}x{s[0]}" for s, p in sorted(sizes.items())[:5])
        phase.warn(
            f"{phase.folder} holds images of {len(sizes)} sizes ({found}): they were made in "
            "different ways; make them again the same way."
        )
    elif sizes and not wrong and (height, width) not in sizes:
        (size,) = sizes
        phase.note(
            f"images of {phase.folder} have {size[1]}x{size[0]} pixels: resized when loaded."
        )


def _check_count(phase: Phase, own: bool) -> None:
    expected = phase.layout.image_counts.get(phase.name)
    for problem in problems(phase.folder):
        phase.warn(problem)
    if expected is None or own:
        return
    count = len(_files(phase.folder))
    if count != expected:
        phase.warn(
            f"{phase.folder} holds {count:,} images, the published set {expected:,}: results "
            "cannot be compared with published numbers; for your own data this is fine (--own)."
        )
