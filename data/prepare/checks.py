"""What is wrong with a data set: its tables, its images, people in both phases."""

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partialmethod
from pathlib import Path

import numpy as np
from PIL import Image

from data.prepare.identities import identity_rule, is_distractor, recognise_rule
from util.errors import UserError
from util.image import load_image, upright_size
from util.names import is_image, refuse_alike, stem
from util.parallel import map_in_order
from util.run.progress import progress_bar
from util.skeleton import present
from util.tables.layouts import Layout, find_file
from util.tables.manifest import differences, folder_record, problems
from util.tables.patn import find_row, names_in, read_keypoints, read_pairs
from util.tables.uncropped import read_magpt_images
from util.tables.views import Source

LEVELS = ERROR, WARNING, NOTE = ("error", "warning", "note")
MARGIN = 40  # pixels beyond the frame at which joints of the published tables still lie
LOOKED_AT = 200  # images whose headers are read when a training starts
ASPECT_TOLERANCE = 0.03  # 750 x 1101 files and 176 x 256 strips differ by 0.9 %

Size = tuple[int, int]  # (h, w)


class Findings(list[tuple[str, str]]):
    """Things to know: level, and one sentence that says what is wrong and what to do."""

    def add(self, level: str, text: str) -> None:
        """Add one."""
        self.append((level, text))

    error = partialmethod(add, ERROR)
    warn = partialmethod(add, WARNING)
    note = partialmethod(add, NOTE)

    @contextlib.contextmanager
    def refusals(self, where: str = "") -> Iterator[None]:
        """A UserError of the block is an error found; ``where`` begins it."""
        try:
            yield
        except UserError as error:
            self.error(where + error.sentence)


class Phase:
    """The tables of one phase as far as they could be read; what is wrong becomes a finding."""

    def __init__(self, root: Path, layout: Layout, name: str, found: Findings):
        self.name, self.layout = name, layout
        self.folder = root / layout.image_folder.format(phase=name)  # of the images
        if not self.folder.is_dir():
            images = layout.origins["images"]
            found.error(f"the image folder {self.folder} does not exist; get {images}.")
        self.pairs: list[tuple[str, str]] = []
        self.keypoints: dict[str, np.ndarray] = {}
        with found.refusals():
            self.pairs_path = self._find("pairs", root)
            self.pairs = read_pairs(self.pairs_path, layout.pair_columns)
        self.names = names_in(self.pairs)  # images the pairs ask for
        with found.refusals():
            self.keypoints_path = self._find("keypoints", root)
            if layout.mode == "magpt":
                frame = layout.annotation_size
                self.keypoints = read_magpt_images(self.keypoints_path, self.names, frame)
            else:
                self.keypoints = read_keypoints(self.keypoints_path)

    def _find(self, kind: str, root: Path) -> Path:
        names = self.layout.files[kind]
        path = find_file(root, names, self.name)
        if path is None:
            wanted = " or ".join(names).format(phase=self.name)
            raise UserError(
                f"the {kind} table {wanted} is missing in {root}; get it from "
                f"{self.layout.origins[kind]}, or make your own with script/make_pairs.py."
            )
        return path

    def row(self, wanted: Callable[[tuple[str, str]], bool]) -> int | None:
        """The first row of the pairs table whose pair is wanted (the header is row 1)."""
        return find_row(self.pairs_path, self.layout.pair_columns, wanted)


def check_tables(phase: Phase, found: Findings) -> None:
    """Everything that can be said about one phase without opening an image."""
    if phase.pairs:
        _check_pairs(phase, found)
    if phase.keypoints:
        _check_keypoints(phase, found)
    expected = phase.layout.pair_counts.get(phase.name)
    if phase.pairs and expected and len(phase.pairs) != expected:
        found.warn(
            f"{phase.pairs_path.name} holds {len(phase.pairs):,} pairs, the published one "
            f"{expected:,}: results cannot be compared with published numbers; for your own data "
            "this is fine (--own)."
        )


def _check_keypoints(phase: Phase, found: Findings) -> None:
    lacking = [name for name in phase.names if name not in phase.keypoints]
    if lacking:
        found.error(
            f"{len(lacking):,} images of {phase.pairs_path} have no keypoints in "
            f"{phase.keypoints_path}, the first is {lacking[0]!r} (row "
            f"{phase.row(lambda pair: lacking[0] in pair)}): add their rows "
            "(script/extract_keypoints.py) or remove the pairs."
        )
    nobody = [n for n, points in phase.keypoints.items() if not present(points).any()]
    if nobody:
        found.warn(
            f"{len(nobody):,} images in {phase.keypoints_path} have no joint at all, the first is "
            f"{nobody[0]!r}: their pose map is empty; remove their pairs if nobody is shown."
        )
    points = np.stack(list(phase.keypoints.values()))  # (N, 18, 2)
    seen, frame = present(points), np.array(phase.layout.annotation_size)
    outside = seen & ((points < 0) | (points >= frame)).any(axis=-1)
    far = seen & ((points < -MARGIN) | (points >= frame + MARGIN)).any(axis=-1)
    if not outside.any():
        return
    many = outside.sum() > 0.1 * seen.sum()
    advice = "only their tail is drawn, as in the published tables."
    if many:
        advice = (
            "the table seems to be of images of another size; convert it "
            "(script/convert_annotations.py) or say --annotation_size."
        )
    elif far.any():
        advice = "correct the row."
    image, joint = (int(i) for i in np.argwhere(far if far.any() else outside)[0])
    y, x = points[image, joint]
    found.add(
        WARNING if many or far.any() else NOTE,
        f"{outside.sum():,} of {seen.sum():,} joints in {phase.keypoints_path} lie outside the "
        f"{frame[0]} high, {frame[1]} wide frame ({far.sum():,} of them by more than {MARGIN} "
        f"pixels), for example {list(phase.keypoints)[image]!r} joint {joint} at y {y:g}, x {x:g}: "
        + advice,
    )


def _check_pairs(phase: Phase, found: Findings) -> None:
    same = sum(a == b for a, b in phase.pairs)
    if same:
        found.warn(
            f"{same:,} pairs of {phase.pairs_path} have one image as source and target, the "
            f"first in row {phase.row(lambda pair: pair[0] == pair[1])}: such a pair is no test of "
            "anything; remove it."
        )
    with found.refusals():  # metrics pair by the names of results
        why = f"in {phase.pairs_path} give results of the same name"
        refuse_alike(phase.names, stem, why)
    rule = _known_rule(phase.names)
    if rule == "prefix":  # names of own data say nothing about people
        return
    person = identity_rule(rule)
    people = {name: person(name) for name in phase.names}
    mixed = [pair for pair in phase.pairs if people[pair[0]] != people[pair[1]]]
    if mixed:
        a, b = mixed[0]
        found.warn(
            f"{len(mixed):,} pairs of {phase.pairs_path} join two people, the first in row "
            f"{phase.row(mixed[0].__eq__)}: {a!r} and {b!r}; correct them."
        )


def _known_rule(names: Sequence[str]) -> str:
    try:
        return recognise_rule(names)
    except UserError:  # a mixture
        return "prefix"


def check_between(train: Phase, test: Phase, rule: str | None, found: Findings) -> None:
    """Images and people in both phases, and folders that were made in different ways.

    ``rule`` tells people apart, see :func:`identity_rule`; None: as the names do.
    """
    both = sorted(set(train.names) & set(test.names))
    person = identity_rule(rule or _known_rule([*train.names, *test.names]))
    people = [{person(n) for n in p.names if not is_distractor(n)} for p in (train, test)]
    shared = sorted(people[0] & people[1])
    if both:
        found.error(
            f"{len(both):,} images are in the pairs of train and of test, the first is {both[0]!r}:"
            " results on seen images prove nothing; remove them from one table."
        )
    elif shared:
        found.warn(
            f"{len(shared):,} people are in train and in test, the first is {shared[0]!r}: "
            "results on seen people are too good; make a new split (script/make_pairs.py "
            "--test_share), or say with --identity how names tell people apart."
        )
    changes = differences(*(folder_record(phase.folder) for phase in (train, test)))
    if changes:
        found.warn(
            f"{train.folder} and {test.folder} were made in different ways ({'; '.join(changes)}): "
            "FID and all comparisons change with it; make both the same way."
        )


# --- images -------------------------------------------------------------------------------------


def examine(path: Path) -> Size | str:
    """(h, w) of an image as training reads it, or what is wrong with it."""
    try:
        image = load_image(path)
    except UserError as error:
        return str(error)
    return image.height, image.width


def _size_in_header(path: Path) -> Size | None:
    try:
        with Image.open(path) as header:
            return upright_size(header)[::-1]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def shape_note(folder: Path, names: Sequence[str], frame: Size) -> str | None:
    """A sentence when images do not have the shape of the keypoint ``frame`` (h, w); else None.

    Only headers are read: of :data:`LOOKED_AT` images spread over the list and of every file that
    is many times larger than the others.
    """
    files = {name: (folder / name).stat().st_size for name in names}
    large = 8 * sorted(files.values())[len(files) // 2]
    spread = list(names)[:: max(1, len(names) // LOOKED_AT)]
    chosen = dict.fromkeys([*(name for name, size in files.items() if size > large), *spread])
    sizes = {name: _size_in_header(folder / name) for name in chosen}
    odd = {name: size for name, size in sizes.items() if size and _is_odd(size, frame)}
    if not odd:
        return None
    name, (height, width) = next(iter(odd.items()))
    return (
        f"{len(odd):,} of {len(sizes):,} images looked at in {folder} do not have the shape of the "
        f"keypoint frame, {frame[1]}x{frame[0]} pixels (width x height): {name} has "
        f"{width}x{height}. They are stretched; see python script/check_dataset.py"
    )


def _is_odd(size: Size, frame: Size) -> bool:
    return abs(size[1] / size[0] / (frame[1] / frame[0]) - 1) > ASPECT_TOLERANCE


def check_images(phase: Phase, workers: int, found: Findings) -> None:
    """Look at every image the pairs need, and count the files of the folder."""
    if not phase.folder.is_dir():
        return
    files = [path.name for path in phase.folder.iterdir() if is_image(path.name)]
    names = phase.names or sorted(files)
    missing = {name: None for name in phase.names if not (phase.folder / name).is_file()}
    if missing:
        first = next(iter(missing))
        found.error(
            f"{len(missing):,} images of {phase.pairs_path} are not in {phase.folder}, the first "
            f"is {first!r} (row {phase.row(lambda pair: first in pair)}): prepare the images again "
            "or remove the pairs."
        )
    paths = [phase.folder / name for name in names if name not in missing]
    results = map_in_order(examine, paths, workers if len(paths) >= 200 else 1, chunk=64)
    results = list(progress_bar(results, total=len(paths), unit="image", leave=False))
    broken = [result for result in results if isinstance(result, str)]
    if broken:
        found.error(f"{len(broken):,} images cannot be read: {broken[0]}.")
    sizes = {p: r for p, r in zip(paths, results, strict=True) if not isinstance(r, str)}
    _check_sizes(phase, sizes, found)
    for problem in problems(phase.folder):
        found.warn(problem)
    expected = phase.layout.image_counts.get(phase.name, len(files))
    if len(files) != expected:
        found.warn(
            f"{phase.folder} holds {len(files):,} images, the published set {expected:,}: results "
            "cannot be compared with published numbers; for your own data this is fine (--own)."
        )


def _check_sizes(phase: Phase, sizes: dict[Path, Size], found: Findings) -> None:
    """Sizes that do not have the shape of the keypoint frame are errors, others notes."""
    height, width = frame = phase.layout.annotation_size
    counts = Counter(sizes.values())
    wrong = [size for size in counts if _is_odd(size, frame)]
    for size in wrong:
        first = next(path for path in sizes if sizes[path] == size)
        found.error(
            f"{counts[size]:,} images in {phase.folder} have {size[1]}x{size[0]} pixels (width x "
            f"height), the first is {first.name!r}; expected the shape of the keypoint frame, "
            f"{width}x{height}: make them again (script/generate_fashion_datasets.py or "
            "script/prepare_market.py), or say --annotation_size for a table in another frame."
        )
    if len(counts) > 1 and not wrong:
        kinds = ", ".join(f"{n:,} of {w}x{h}" for (h, w), n in sorted(counts.items())[:5])
        found.warn(
            f"{phase.folder} holds images of {len(counts)} sizes ({kinds}): they were made in "
            "different ways; make them again the same way."
        )
    elif counts and not wrong and frame not in counts:
        ((h, w),) = counts
        found.note(f"images of {phase.folder} have {w}x{h} pixels: resized when loaded.")


# --- turned objects (--dataset_mode view) -------------------------------------------------------


def check_views(root: Path, phases: list[str], found: Findings) -> dict[str, Source]:
    """The phases of turned objects that can be opened as training and testing open them."""
    from data.view_dataset import ViewDataset  # needs torch

    sources: dict[str, Source] = {}
    for name in sorted(phases, reverse=True):  # train first: test may show what train shows
        with found.refusals(f"{name}: "):
            views = sources["train"].views() if "train" in sources else None
            dataset = ViewDataset(root, name, views=views, training=name == "train")
            sources[name] = dataset.source
    for name, source in sources.items():
        _check_pictures(name, source, found)
    if len(sources) == 2:
        _check_objects(sources["train"], sources["test"], found)
    return sources


def _check_pictures(phase: str, source: Source, found: Findings) -> None:
    """Read every picture: damage, sizes that differ, and objects without views that others have."""
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
    full = math.prod(len(axis) for axis in source.views())
    views = source.things()
    lacking = [thing for thing, count in views.items() if count < full]
    if lacking:
        found.warn(
            f"{phase}: {len(lacking):,} objects lack some of the {full} views, the first is "
            f"{lacking[0]} with {views[lacking[0]]}: they are trained and turned with those they "
            "have."
        )


def _check_objects(train: Source, test: Source, found: Findings) -> None:
    # The same face in another recording or under another light is the same person.
    key = (lambda thing: thing.split("_")[0]) if train.naming == "multipie" else str
    both = sorted(set(map(key, train.things())) & set(map(key, test.things())))
    if both:
        found.error(
            f"{len(both):,} objects are in train and in test, the first is {both[0]}: results on "
            "seen objects prove nothing; keep each in one phase."
        )
