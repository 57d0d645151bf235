"""The text formats of PATN / DPTN, GFLA, MAGPT and NTED: how each is read and written.

All are converted through PATN's representation: flat names, keypoints in the frame of the cropped
image. MAGPT and NTED name images by path and count x from the edge of the uncropped 256 x 256
DeepFashion image, 40 pixels further left.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from util.errors import UserError
from util.names import file_id, refuse_alike
from util.skeleton import in_frame, present
from util.tables.layouts import (
    CROP_BOX,
    LAYOUTS,
    LIST_NAME,
    MAGPT_LIST_NAME,
    NTED_PAIRS_NAME,
    RELEASE_SIZE,
    find_file,
)
from util.tables.patn import (
    names_in,
    read_keypoints,
    read_list,
    read_pairs,
    read_table,
    write_keypoints,
    write_lines,
    write_pairs,
    write_table,
)
from util.tables.uncropped import (
    PAIR_COLUMNS,
    pose_path,
    read_items,
    read_magpt_keypoints,
    read_pose,
    shift,
    to_name,
    to_path,
    write_items,
    write_magpt_keypoints,
    write_pose,
)


@dataclass
class Annotations:
    """Pairs, keypoints (18, 2) (y, x) of the cropped frame and image names of one phase.

    ``notes`` tells, sentence by sentence, what a reader or writer could not keep.
    """

    pairs: list[tuple[str, str]] = field(default_factory=list)
    keypoints: dict[str, np.ndarray] = field(default_factory=dict)
    images: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _offset(mode: str) -> int:
    """Pixels from the edge of the uncropped frame to the edge of the cropped one."""
    return CROP_BOX[0] if mode == "fashion" else 0


def _find(
    root: Path, phase: str, kinds: Sequence[Sequence[str]], notes: list[str]
) -> list[Path | None]:
    """The first of each kind of names that exists; a UserError when there is none at all."""
    found = [find_file(root, names, phase) for names in kinds]
    if not any(found):
        wanted = " nor ".join(names[0] for names in kinds).format(phase=phase)
        raise UserError(
            f"{root} holds neither {wanted}: check --input, --from, --dataset_mode and --phase."
        )
    for names, path in zip(kinds, found, strict=True):
        if path is None:
            absent = root / " or ".join(names).format(phase=phase)
            notes.append(f"{absent} does not exist: nothing to convert from it.")
    return found


def _note_aliased(
    notes: list[str], before: dict[str, np.ndarray], after: dict[str, np.ndarray], where: str
) -> None:
    """Tell how many joints read -1 in their new frame."""
    lost = sum(int((present(before[name]) & ~present(after[name])).sum()) for name in before)
    if lost:
        notes.append(f"{lost} joints {where}, which is written -1: they became missing.")


# --- PATN and GFLA: the same tables under two names ---------------------------------------------


def _table_names(mode: str, resize: bool) -> list[Sequence[str]]:
    """Accepted names of the pairs and of the annotations, those to write first."""
    kinds = (LAYOUTS[mode].pairs, LAYOUTS[mode].annotations)
    return [[n for n in names if ("-resize" in n) == resize] or names for names in kinds]


def _read_tables(root: Path, phase: str, mode: str, resize: bool) -> Annotations:
    result = Annotations()
    pairs, keypoints = _find(root, phase, _table_names(mode, resize), result.notes)
    if pairs:
        result.pairs = read_pairs(pairs, allow_duplicates=True)
    if keypoints:
        result.keypoints = read_keypoints(keypoints, any_separator=True)
    path = root / LIST_NAME.format(phase=phase)
    result.images = read_list(path) if path.exists() else list(result.keypoints)
    return result


def _write_tables(root: Path, phase: str, data: Annotations, mode: str, resize: bool) -> None:
    names = _table_names(mode, resize)
    pairs, keypoints = (root / accepted[0].format(phase=phase) for accepted in names)
    if data.pairs:
        write_pairs(pairs, data.pairs)
    if data.keypoints:
        write_keypoints(keypoints, data.keypoints)
    if data.images and mode == "fashion":
        write_lines(root / LIST_NAME.format(phase=phase), (f"{n}\n" for n in data.images))


# --- MAGPT --------------------------------------------------------------------------------------

_MAGPT_TABLES = LAYOUTS["magpt"].pairs + LAYOUTS["magpt"].annotations + (MAGPT_LIST_NAME,)
_MAGPT_ID = re.compile(r"(?:img)?((?:WOMEN|MEN)[^0-9/]+id)_([0-9]{10}_[0-9]+)_([A-Za-z]+)")


def _read_magpt(root: Path, phase: str, mode: str) -> Annotations:
    result = Annotations()
    *tables, listed = (name.format(phase=phase) for name in _MAGPT_TABLES)
    pairs, keypoints = _find(root, phase, [[name] for name in tables], result.notes)
    listed = root / listed
    paths = [p for _, (p,) in read_table(listed, ",", ("img",))] if listed.exists() else []
    if pairs:
        read = read_pairs(pairs, PAIR_COLUMNS, allow_duplicates=True)
        paths += names_in(read)
        result.pairs = [(to_name(a), to_name(b)) for a, b in read]
    names = {file_id(path): to_name(path) for path in paths}
    full = {}
    for key, framed in (read_magpt_keypoints(keypoints) if keypoints else {}).items():
        match = _MAGPT_ID.fullmatch(key)  # of DeepFashion, whose extension is always .jpg
        name = names.get(key) or (match and match.expand(r"fashion\1\2\3.jpg"))
        if name:
            full[name] = in_frame(*framed, _full_frame(mode))
        else:
            result.notes.append(f"no path is known for the file id {key!r}: its row is lost.")
    _crop(result, full, mode)
    result.images = list(dict.fromkeys([*names.values(), *result.keypoints]))
    return result


def _full_frame(mode: str) -> tuple[int, int]:
    return RELEASE_SIZE if mode == "fashion" else LAYOUTS[mode].annotation_size


def _crop(result: Annotations, full: dict[str, np.ndarray], mode: str) -> None:
    """Enter keypoints of the uncropped frame."""
    offset = _offset(mode)
    result.keypoints = {name: shift(points, -offset) for name, points in full.items()}
    _note_aliased(result.notes, full, result.keypoints, f"lie at x = {offset - 1}")


def _uncropped(data: Annotations, mode: str) -> dict[str, np.ndarray]:
    return {name: shift(points, _offset(mode)) for name, points in data.keypoints.items()}


def _write_magpt(root: Path, phase: str, data: Annotations, mode: str) -> None:
    pairs, keypoints, listed = (root / name.format(phase=phase) for name in _MAGPT_TABLES)
    if data.pairs:
        write_pairs(pairs, ((to_path(a), to_path(b)) for a, b in data.pairs), PAIR_COLUMNS)
    if data.images:
        write_table(listed, ",", ("img",), ([to_path(name)] for name in data.images))
    keys = {name: file_id(to_path(name)) for name in data.keypoints}
    why = "share the file id '{key}', so MAGPT's table cannot tell them apart"
    refuse_alike(keys, keys.get, why)
    full = _uncropped(data, mode)
    whole = {name: np.rint(points) for name, points in full.items()}
    rounded = sum(int((full[name] != whole[name]).any(axis=1).sum()) for name in full)
    if full:
        table = {keys[name]: points for name, points in whole.items()}
        write_magpt_keypoints(keypoints, table, _full_frame(mode))
    if rounded:
        data.notes.append(f"{rounded} joints were rounded to whole pixels, as MAGPT needs.")
    _note_aliased(data.notes, data.keypoints, whole, "lie far outside the frame at -1")


# --- NTED and PIDM ------------------------------------------------------------------------------


def _read_nted(root: Path, phase: str, mode: str) -> Annotations:
    result = Annotations()
    items = read_items(root / NTED_PAIRS_NAME.format(phase=phase))
    result.pairs = [(to_name(s), to_name(target)) for target, sources in items for s in sources]
    several = sum(len(sources) > 1 for _, sources in items)
    if several:
        result.notes.append(
            f"{several} items had several possible sources: each became a pair of its own."
        )
    listed = root / LIST_NAME.format(phase=phase)
    names = read_list(listed) if listed.exists() else []
    result.images = list(dict.fromkeys([*names, *names_in(result.pairs)]))
    paths = {to_name(p): p for target, sources in items for p in (target, *sources)}
    poses = {n: pose_path(root, paths.get(n) or to_path(n)) for n in result.images}
    there = {name: path for name, path in poses.items() if path.exists()}
    if len(there) < len(poses):
        first = next(name for name in poses if name not in there)
        result.notes.append(
            f"{len(poses) - len(there)} images have no file below {root / 'pose'}, the first is "
            f"{first}: they have no row in the keypoint table."
        )
    _crop(result, {name: read_pose(path) for name, path in there.items()}, mode)
    return result


def _write_nted(root: Path, phase: str, data: Annotations, mode: str) -> None:
    if data.pairs:
        pairs = ((to_path(a), to_path(b)) for a, b in data.pairs)
        write_items(root / NTED_PAIRS_NAME.format(phase=phase), pairs)
    if data.images:
        write_lines(root / LIST_NAME.format(phase=phase), (f"{n}\n" for n in data.images))
    full = _uncropped(data, mode)
    for name, points in full.items():
        write_pose(pose_path(root, to_path(name)), points)
    _note_aliased(data.notes, data.keypoints, full, "lie far outside the frame at -1")


class TextFormat(NamedTuple):
    """How the annotations of one phase are read and written, and in which tables."""

    read: Callable[[Path, str, str], Annotations]  # root, phase, mode: fashion or market
    write: Callable[[Path, str, Annotations, str], None]
    tables: Callable[[str], Iterable[str]]  # mode -> names, {phase} is train or test


def _patn(resize: bool) -> TextFormat:
    return TextFormat(
        partial(_read_tables, resize=resize),
        partial(_write_tables, resize=resize),
        lambda mode: chain(*_table_names(mode, resize)),
    )


TEXT_FORMATS = {
    "patn": _patn(resize=True),
    "gfla": _patn(resize=False),
    "magpt": TextFormat(_read_magpt, _write_magpt, lambda _: _MAGPT_TABLES),
    "nted": TextFormat(_read_nted, _write_nted, lambda _: [NTED_PAIRS_NAME]),
}
