"""What is wrong with a data set: its tables, its images, people in both phases."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial, partialmethod
from pathlib import Path

import numpy as np
from PIL import Image

from data.prepare.identities import group_by_identity, is_distractor
from util.errors import UserError
from util.image import load_image
from util.names import file_id, is_image, parse_result_name, result_name, stem
from util.parallel import map_in_order
from util.skeleton import MISSING
from util.tables.layouts import Layout
from util.tables.magpt import read_magpt_keypoints
from util.tables.manifest import differences, folder_record, problems
from util.tables.patn import read_keypoints, read_pairs

ERROR, WARNING, NOTE = "error", "warning", "note"
MARGIN = 40  # pixels beyond the frame at which joints of the published tables still lie
ASPECT_TOLERANCE = 0.03  # 750 x 1101 files and 176 x 256 strips differ by 0.9 %

Progress = Callable[[Iterable, int], Iterable]  # (items, total) -> items, e.g. a progress bar


@dataclass(frozen=True)
class Finding:
    """One thing to know: what is wrong and what to do."""

    level: str
    text: str


@dataclass
class Phase:
    """The tables of one phase as far as they could be read."""

    name: str
    layout: Layout
    folder: Path  # of the images
    pairs_path: Path | None = None
    keypoints_path: Path | None = None
    pairs: list[tuple[str, str]] = field(default_factory=list)
    keypoints: dict[str, np.ndarray] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def add(self, level: str, text: str) -> None:
        self.findings.append(Finding(level, text))

    error = partialmethod(add, ERROR)
    warn = partialmethod(add, WARNING)
    note = partialmethod(add, NOTE)

    @property
    def names(self) -> list[str]:
        """Images the pairs ask for, in order of appearance."""
        return list(dict.fromkeys(name for pair in self.pairs for name in pair))

    def row_of(self, name: str) -> int:
        """Row of the pairs table in which a name appears first (the header is row 1)."""
        return next(i for i, pair in enumerate(self.pairs, start=2) if name in pair)


def read_phase(root: Path, layout: Layout, name: str) -> Phase:
    """Find and read the tables of one phase; what is missing or malformed becomes a finding."""
    phase = Phase(name, layout, root / layout.image_folder.format(phase=name))
    phase.pairs_path = _find(phase, root, "pairs", layout.pairs)
    phase.keypoints_path = _find(phase, root, "keypoints", layout.annotations)
    if not phase.folder.is_dir():
        phase.error(
            f"the image folder {phase.folder} does not exist; get {layout.origins['images']}."
        )
    if phase.pairs_path:
        _read_pairs(phase)
    if phase.keypoints_path:
        try:
            phase.keypoints = _read_keypoints(phase)
        except UserError as error:
            phase.error(str(error))
    return phase


def _find(phase: Phase, root: Path, kind: str, names: tuple[str, ...]) -> Path | None:
    path = phase.layout.find(root, names, phase.name)
    if path is None:
        wanted = " or ".join(name.format(phase=phase.name) for name in names)
        phase.error(
            f"the {kind} table {wanted} is missing in {root}; get it from "
            f"{phase.layout.origins[kind]}, or make your own with script/make_pairs.py."
        )
    return path


def _read_pairs(phase: Phase) -> None:
    columns = phase.layout.pair_columns
    try:
        phase.pairs = read_pairs(phase.pairs_path, columns)
    except UserError as error:
        phase.error(str(error))
        try:  # duplicated rows are an error, but the rest of the table can still be checked
            phase.pairs = read_pairs(phase.pairs_path, columns, allow_duplicates=True)
        except UserError:
            return


def _read_keypoints(phase: Phase) -> dict[str, np.ndarray]:
    if phase.layout.mode != "magpt":
        return read_keypoints(phase.keypoints_path)
    table = read_magpt_keypoints(phase.keypoints_path)
    size = phase.layout.annotation_size
    return {
        name: table[file_id(name)].in_frame(size) for name in phase.names if file_id(name) in table
    }


def check_tables(phase: Phase, own: bool) -> None:
    """Everything that can be said about one phase without opening an image."""
    _check_keypoint_rows(phase)
    _check_frame(phase)
    _check_pairs(phase)
    _check_result_names(phase)
    expected = phase.layout.pair_counts.get(phase.name)
    if phase.pairs and expected and len(phase.pairs) != expected and not own:
        phase.warn(
            f"{phase.pairs_path.name} holds {len(phase.pairs):,} pairs, the published one "
            f"{expected:,}: results cannot be compared with published numbers; for your own data "
            "this is fine (--own)."
        )


def _check_keypoint_rows(phase: Phase) -> None:
    if not (phase.pairs and phase.keypoints):
        return
    lacking = [name for name in phase.names if name not in phase.keypoints]
    if lacking:
        phase.error(
            f"{len(lacking):,} images of {phase.pairs_path} have no keypoints in "
            f"{phase.keypoints_path}, the first is {lacking[0]!r} (row "
            f"{phase.row_of(lacking[0])}): add their rows "
            "(script/extract_keypoints.py) or remove the pairs."
        )
    nobody = [n for n, points in phase.keypoints.items() if not _seen(points).any()]
    if nobody:
        phase.warn(
            f"{len(nobody):,} images in {phase.keypoints_path} have no joint at all, the first is "
            f"{nobody[0]!r}: their pose map is empty; remove their pairs if nobody is shown."
        )


def _seen(points: np.ndarray) -> np.ndarray:
    return (points != MISSING).all(axis=-1)


def _check_frame(phase: Phase) -> None:
    """Joints outside the annotation frame: few are normal, many mean another frame."""
    if not phase.keypoints:
        return
    points = np.stack(list(phase.keypoints.values()))  # (N, 18, 2)
    seen, frame = _seen(points), np.array(phase.layout.annotation_size)
    outside = seen & ((points < 0) | (points >= frame)).any(axis=-1)
    far = seen & ((points < -MARGIN) | (points >= frame + MARGIN)).any(axis=-1)
    if not outside.any():
        return
    many = outside.sum() > 0.1 * seen.sum()
    image, joint = (int(i) for i in np.argwhere(far if far.any() else outside)[0])
    y, x = points[image, joint]
    advice = "only their tail is drawn, as in the published tables."
    if many:
        advice = (
            "the table seems to be of images of another size; convert it "
            "(script/convert_annotations.py) or say --annotation_size."
        )
    elif far.any():
        advice = "correct the row."
    phase.add(
        WARNING if many or far.any() else NOTE,
        f"{outside.sum():,} of {seen.sum():,} joints in {phase.keypoints_path} lie outside the "
        f"{frame[0]} high, {frame[1]} wide frame ({far.sum():,} of them by more than {MARGIN} "
        f"pixels), for example {list(phase.keypoints)[image]!r} joint {joint} at y {y:g}, x {x:g}: "
        + advice,
    )


def _check_pairs(phase: Phase) -> None:
    same = [i for i, (a, b) in enumerate(phase.pairs, start=2) if a == b]
    if same:
        phase.warn(
            f"{len(same):,} pairs of {phase.pairs_path} have one image as source and target, the "
            f"first in row {same[0]}: such a pair is no test of anything; remove it."
        )
    if not phase.pairs or phase.layout.identities == "prefix":
        return
    try:
        people = _people(phase)
    except UserError:
        return  # names of own data say nothing about people
    mixed = [i for i, (a, b) in enumerate(phase.pairs, start=2) if people[a] != people[b]]
    if mixed:
        a, b = phase.pairs[mixed[0] - 2]
        phase.warn(
            f"{len(mixed):,} pairs of {phase.pairs_path} join two people, the first in row "
            f"{mixed[0]}: {a!r} and {b!r}; correct them."
        )


def _people(phase: Phase) -> dict[str, str]:
    groups = group_by_identity(phase.names, phase.layout.identities)
    return {name: person for person, names in groups.items() for name in names}


def _check_result_names(phase: Phase) -> None:
    """Names of results must tell the two images apart again: metrics pair by them."""
    owners: dict[str, str] = {}
    for name in phase.names:
        other = owners.setdefault(stem(name), name)
        if other != name:
            phase.error(
                f"{name!r} and {other!r} in {phase.pairs_path} give results of the same name; "
                "rename one of them."
            )
            return
    for target in dict.fromkeys(target for _, target in phase.pairs):
        if not _reads_back(target):
            phase.warn(
                f"{phase.pairs_path}: the target name {target!r} holds '_2_' or '_vis', so the "
                "published metric commands cannot read it back from a result name; rename the "
                "image if you use them."
            )
            return


def _reads_back(target: str) -> bool:
    try:
        return parse_result_name(result_name("a.jpg", target)) == ("a", stem(target))
    except UserError:  # too long
        return False


def examine(path: Path, quick: bool = False) -> tuple[tuple[int, int], str] | str:
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
    task = partial(examine, quick=quick)
    chunks = [paths[i : i + 64] for i in range(0, len(paths), 64)]
    found = map_in_order(partial(_each, task), chunks, workers if len(paths) >= 200 else 1)
    yield from zip(paths, itertools.chain.from_iterable(found), strict=True)


def _each(task: Callable[[Path], object], paths: list[Path]) -> list[object]:
    return [task(path) for path in paths]


def _check_sizes(phase: Phase, sizes: dict[tuple[int, int], list[Path]]) -> None:
    """Sizes that do not have the shape of the keypoint frame are errors, others notes."""
    height, width = phase.layout.annotation_size
    wrong = {
        size: paths
        for size, paths in sizes.items()
        if abs(size[1] / size[0] / (width / height) - 1) > ASPECT_TOLERANCE
    }
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


def check_between(train: Phase, test: Phase, rule: str | None) -> list[Finding]:
    """Images and people in both phases, and folders that were made in different ways."""
    findings = []
    both = sorted(set(train.names) & set(test.names))
    if both:
        findings.append(
            Finding(
                ERROR,
                f"{len(both):,} images are in the pairs of train and of test, the first is "
                f"{both[0]!r}: results on seen images prove nothing; remove them from one table.",
            )
        )
    people = _shared_people(train, test, rule) if not both else []
    if people:
        findings.append(
            Finding(
                WARNING,
                f"{len(people):,} people are in train and in test, the first is {people[0]!r}: "
                "results on seen people are too good; make a new split (script/make_pairs.py "
                "--test_share), or say with --identity how names tell people apart.",
            )
        )
    changes = differences(*(folder_record(phase.folder) for phase in (train, test)))
    if changes:
        findings.append(
            Finding(
                WARNING,
                f"{train.folder} and {test.folder} were made in different ways "
                f"({'; '.join(changes)}): FID and all comparisons change with it; make both the "
                "same way.",
            )
        )
    return findings


def _shared_people(train: Phase, test: Phase, rule: str | None) -> list[str]:
    def shared(rule: str) -> list[str]:
        kept = [[n for n in p.names if not is_distractor(n)] for p in (train, test)]
        first, second = (set(group_by_identity(names, rule)) for names in kept)
        return sorted(first & second)

    if rule is not None:
        return shared(rule)
    try:
        return shared(train.layout.identities)
    except UserError:  # names of own data
        return shared("prefix")
