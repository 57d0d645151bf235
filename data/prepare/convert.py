"""The text formats of PATN / DPTN, GFLA, MAGPT and NTED: how each is read and written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from util.errors import UserError
from util.files import make_folder, write_file
from util.names import file_id, flatten_deepfashion_path
from util.skeleton import MISSING
from util.tables.frames import (
    Annotations,
    Conversion,
    to_cropped_frame,
    to_full_frame,
    to_name,
    to_path,
)
from util.tables.layouts import LAYOUTS, LIST_NAME, MAGPT_LIST_NAME, NTED_PAIRS_NAME
from util.tables.magpt import PAIR_COLUMNS, read_magpt_keypoints, write_magpt_keypoints
from util.tables.nted import pose_path, read_items, read_pose, write_items, write_pose
from util.tables.patn import (
    read_keypoints,
    read_list,
    read_pairs,
    read_table,
    write_keypoints,
    write_pairs,
    write_table,
)

_MAGPT_ID = re.compile(r"(?:img)?(WOMEN|MEN)([^0-9/]+)id_([0-9]{8})([0-9]{2})_([0-9]+)_([A-Za-z]+)")


# --- PATN and GFLA: the same tables under two names ---------------------------------------------


def _table_names(kind: str, conversion: Conversion, resize: bool) -> list[str]:
    """Accepted names of the pairs or the annotations, the one to write first."""
    layout = LAYOUTS[conversion.mode]
    names = layout.pairs if kind == "pairs" else layout.annotations
    return [name for name in names if ("-resize" in name) == resize] or list(names)


def _read_tables(root: Path, phase: str, conversion: Conversion, resize: bool) -> Annotations:
    result = Annotations()
    names = {kind: _table_names(kind, conversion, resize) for kind in ("pairs", "annotation")}
    paths = {k: LAYOUTS[conversion.mode].find(root, found, phase) for k, found in names.items()}
    if not any(paths.values()):
        first, second = (found[0].format(phase=phase) for found in names.values())
        raise UserError(
            f"{root} holds neither {first} nor {second}: check --input, --from, --dataset_mode and "
            "--phase."
        )
    for kind, path in paths.items():
        if path is None:
            lacking = " or ".join(name.format(phase=phase) for name in names[kind])
            result.notes.append(f"{root / lacking} does not exist: nothing to convert from it.")
    if paths["pairs"]:
        result.pairs = read_pairs(paths["pairs"], allow_duplicates=True)
    if paths["annotation"]:
        result.keypoints = read_keypoints(paths["annotation"], any_separator=True)
    path = root / LIST_NAME.format(phase=phase)
    result.images = read_list(path) if path.exists() else list(result.keypoints)
    return result


def _write_tables(
    root: Path, phase: str, data: Annotations, conversion: Conversion, resize: bool
) -> None:
    pairs, keypoints = (
        root / _table_names(kind, conversion, resize)[0].format(phase=phase)
        for kind in ("pairs", "annotation")
    )
    if data.pairs:
        write_pairs(pairs, data.pairs)
    if data.keypoints:
        write_keypoints(keypoints, data.keypoints)
    if data.images and conversion.mode == "fashion":
        _write_lines(root / LIST_NAME.format(phase=phase), data.images)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    make_folder(path.parent)
    write_file(path, "".join(f"{line}\n" for line in lines).encode("utf-8"))


# --- MAGPT --------------------------------------------------------------------------------------


def _magpt_paths(root: Path, phase: str) -> dict[str, Path]:
    magpt = LAYOUTS["magpt"]
    names = {"pairs": magpt.pairs[0], "keypoints": magpt.annotations[0], "list": MAGPT_LIST_NAME}
    return {kind: root / name.format(phase=phase) for kind, name in names.items()}


def _read_magpt(root: Path, phase: str, conversion: Conversion) -> Annotations:
    result = Annotations()
    tables = _magpt_paths(root, phase)
    if not (tables["pairs"].exists() or tables["keypoints"].exists()):
        raise UserError(
            f"{root} holds neither {tables['pairs'].name} nor {tables['keypoints'].name}: check "
            "--input, --from and --phase."
        )
    paths: list[str] = []
    if tables["list"].exists():
        paths = [path for _, (path,) in read_table(tables["list"], ",", ("img",))]
    if tables["pairs"].exists():
        pairs = read_pairs(tables["pairs"], PAIR_COLUMNS, allow_duplicates=True)
        paths += [path for pair in pairs for path in pair]
        result.pairs = [(to_name(a), to_name(b)) for a, b in pairs]
    names = {file_id(path): to_name(path) for path in paths}
    if tables["keypoints"].exists():
        full = {}
        for key, framed in read_magpt_keypoints(tables["keypoints"]).items():
            name = names.get(key) or _name_of_id(key)
            if name is None:
                result.notes.append(f"no path is known for the file id {key!r}: its row is lost.")
            else:
                full[name] = framed.in_frame(conversion.full_frame)
        result.keypoints = to_cropped_frame(full, conversion, result.notes)
    result.images = list(dict.fromkeys([*names.values(), *result.keypoints]))
    return result


def _name_of_id(key: str) -> str | None:
    """Flat name of a DeepFashion file id, whose extension is always .jpg."""
    match = _MAGPT_ID.fullmatch(key)
    if not match:
        return None
    gender, category, identity, number, view, word = match.groups()
    return flatten_deepfashion_path(f"{gender}/{category}/id_{identity}/{number}_{view}_{word}.jpg")


def _write_magpt(root: Path, phase: str, data: Annotations, conversion: Conversion) -> None:
    tables = _magpt_paths(root, phase)
    if data.pairs:
        pairs = ((to_path(a), to_path(b)) for a, b in data.pairs)
        write_pairs(tables["pairs"], pairs, PAIR_COLUMNS)
    if data.images:
        rows = ([to_path(name)] for name in data.images)
        write_table(tables["list"], ",", ("img",), rows)
    if not data.keypoints:
        return
    keypoints, owners, rounded, aliased = {}, {}, 0, 0
    for name, points in data.keypoints.items():
        key = file_id(to_path(name))
        if owners.setdefault(key, name) != name:
            raise UserError(
                f"{name!r} and {owners[key]!r} share the file id {key!r}, so MAGPT's table cannot "
                "tell them apart: rename one of the files."
            )
        full = to_full_frame(points, conversion)
        rounded += int((full != np.rint(full)).any(axis=1).sum())
        full = np.rint(full)
        aliased += int(((full == MISSING).any(axis=1) & (points != MISSING).all(axis=1)).sum())
        keypoints[key] = full
    write_magpt_keypoints(tables["keypoints"], keypoints, conversion.full_frame)
    if rounded:
        data.notes.append(f"{rounded} joints were rounded to whole pixels, as MAGPT needs.")
    _note_aliased(data.notes, aliased)


def _note_aliased(notes: list[str], count: int) -> None:
    if count:
        notes.append(f"{count} joints far outside the frame read -1 there: they became missing.")


# --- NTED and PIDM ------------------------------------------------------------------------------


def _read_nted(root: Path, phase: str, conversion: Conversion) -> Annotations:
    result = Annotations()
    list_path = root / LIST_NAME.format(phase=phase)
    items = read_items(root / NTED_PAIRS_NAME.format(phase=phase), conversion.pairs_order)
    result.pairs = [(to_name(s), to_name(target)) for target, sources in items for s in sources]
    several = sum(len(sources) > 1 for _, sources in items)
    if several:
        result.notes.append(
            f"{several} items had several possible sources: each became a pair of its own."
        )
    named = [name for pair in result.pairs for name in pair]
    listed = read_list(list_path) if list_path.exists() else []
    result.images = list(dict.fromkeys([*listed, *named]))
    paths = {to_name(p): p for target, sources in items for p in (target, *sources)}
    full, without = {}, []
    for name in result.images:
        path = pose_path(root, paths.get(name) or to_path(name))
        if path.exists():
            full[name] = read_pose(path)
        else:
            without.append(name)
    if without:
        result.notes.append(
            f"{len(without)} images have no file below {root / 'pose'}, the first is {without[0]}: "
            "they have no row in the keypoint table."
        )
    result.keypoints = to_cropped_frame(full, conversion, result.notes)
    return result


def _write_nted(root: Path, phase: str, data: Annotations, conversion: Conversion) -> None:
    if data.pairs:
        pairs = ((to_path(a), to_path(b)) for a, b in data.pairs)
        write_items(root / NTED_PAIRS_NAME.format(phase=phase), pairs, conversion.pairs_order)
    if data.images:
        _write_lines(root / LIST_NAME.format(phase=phase), data.images)
    aliased = 0
    for name, points in data.keypoints.items():
        full = to_full_frame(points, conversion)
        aliased += int(((full == MISSING).any(axis=1) & (points != MISSING).all(axis=1)).sum())
        write_pose(pose_path(root, to_path(name)), full)
    _note_aliased(data.notes, aliased)


@dataclass(frozen=True)
class TextFormat:
    """How the annotations of one phase are read and written, and in which tables."""

    read: Callable[[Path, str, Conversion], Annotations]
    write: Callable[[Path, str, Annotations, Conversion], None]
    tables: Callable[[Conversion], list[str]]  # {phase} is train or test


def _patn_tables(resize: bool) -> TextFormat:
    def names(conversion: Conversion) -> list[str]:
        kinds = ("pairs", "annotation")
        return [name for kind in kinds for name in _table_names(kind, conversion, resize)]

    return TextFormat(
        partial(_read_tables, resize=resize), partial(_write_tables, resize=resize), names
    )


TEXT_FORMATS: dict[str, TextFormat] = {
    "patn": _patn_tables(resize=True),
    "gfla": _patn_tables(resize=False),
    "magpt": TextFormat(
        _read_magpt,
        _write_magpt,
        lambda _: [*LAYOUTS["magpt"].pairs, *LAYOUTS["magpt"].annotations, MAGPT_LIST_NAME],
    ),
    "nted": TextFormat(_read_nted, _write_nted, lambda _: [NTED_PAIRS_NAME]),
}
