"""What is wrong with the tables of a data set: pairs, keypoints, people in both phases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partialmethod
from pathlib import Path

import numpy as np

from data.prepare.identities import group_by_identity, is_distractor, recognise_rule
from util.errors import UserError
from util.names import file_id, parse_result_name, result_name, stem
from util.skeleton import present
from util.tables.layouts import Layout
from util.tables.magpt import read_magpt_keypoints
from util.tables.manifest import differences, folder_record
from util.tables.patn import find_row, read_keypoints, read_pairs

ERROR, WARNING, NOTE = "error", "warning", "note"
MARGIN = 40  # pixels beyond the frame at which joints of the published tables still lie


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

    def row_of(self, name: str) -> int | None:
        """Row of the pairs table in which a name appears first (the header is row 1)."""
        return self.row_where(lambda pair: name in pair)

    def row_where(self, wanted: Callable[[tuple[str, str]], bool]) -> int | None:
        """The first row whose pair is wanted."""
        return find_row(self.pairs_path, self.layout.pair_columns, wanted)


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
    nobody = [n for n, points in phase.keypoints.items() if not present(points).any()]
    if nobody:
        phase.warn(
            f"{len(nobody):,} images in {phase.keypoints_path} have no joint at all, the first is "
            f"{nobody[0]!r}: their pose map is empty; remove their pairs if nobody is shown."
        )


def _check_frame(phase: Phase) -> None:
    """Joints outside the annotation frame: few are normal, many mean another frame."""
    if not phase.keypoints:
        return
    points = np.stack(list(phase.keypoints.values()))  # (N, 18, 2)
    seen, frame = present(points), np.array(phase.layout.annotation_size)
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
    same = sum(a == b for a, b in phase.pairs)
    if same:
        row = phase.row_where(lambda pair: pair[0] == pair[1])
        phase.warn(
            f"{same:,} pairs of {phase.pairs_path} have one image as source and target, the "
            f"first in row {row}: such a pair is no test of anything; remove it."
        )
    if not phase.pairs or phase.layout.identities == "prefix":
        return
    try:
        people = _people(phase)
    except UserError:
        return  # names of own data say nothing about people
    mixed = [pair for pair in phase.pairs if people[pair[0]] != people[pair[1]]]
    if mixed:
        a, b = mixed[0]
        phase.warn(
            f"{len(mixed):,} pairs of {phase.pairs_path} join two people, the first in row "
            f"{phase.row_where(mixed[0].__eq__)}: {a!r} and {b!r}; correct them."
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
    known = train.layout.identities
    try:
        return shared(recognise_rule([*train.names, *test.names]) if known == "prefix" else known)
    except UserError:  # names of own data
        return shared("prefix")
