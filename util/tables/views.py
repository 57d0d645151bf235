"""Names of pictures of turned objects, and what of them is the view.

A naming splits the name of a picture into the thing that is shown and the labels of its view, one
label an axis. Each label becomes one channel of the pose map.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from util.errors import UserError
from util.names import IMAGE_EXTENSIONS

STEP = 10  # degrees of azimuth for each unit of h in a ShapeNet key
AZIMUTHS = tuple(range(0, 36, 2))  # the 18 values of h
ELEVATIONS = (0, 10, 20)
# Multi-PIE's cameras at head height, from -90 to +90 degrees in steps of 15; 051 is frontal.
CAMERAS = (
    "110", "120", "090", "080", "130", "140", "051", "050", "041", "190", "200", "010", "240",
)  # fmt: skip
UNUSED_CAMERAS = ("081", "191")  # above the head

Views = tuple[tuple[str, ...], ...]  # labels of each axis, in the order of the channels
Split = tuple[str, tuple[str, ...]]  # what all pictures of one thing share, labels of the view

_SHAPENET = re.compile(r"(.+)_(\d{1,2})_(\d{1,2})")
_MULTIPIE = re.compile(r"(\d+)_(\d+)_(\d+)_(\d{3})_(\d+)")
_OBJECT = re.compile(r"(.+)_([^_]+)")


def _base(name: str) -> str:
    """Name without folders and without the extension of an image."""
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in IMAGE_EXTENSIONS else path.name


def _shapenet(name: str) -> Split | None:
    match = _SHAPENET.fullmatch(_base(name))
    if not match or int(match[2]) >= 36 or int(match[3]) not in ELEVATIONS:
        return None
    return match[1], (str(int(match[2])), str(int(match[3])))


def _multipie(name: str) -> Split | None:
    match = _MULTIPIE.fullmatch(_base(name))
    if not match or match[4] not in (*CAMERAS, *UNUSED_CAMERAS):
        return None
    subject, session, recording, camera, illumination = match.groups()
    return f"{subject}_{session}_{recording}_{illumination}", (camera,)


def _object(name: str) -> Split | None:
    match = _OBJECT.fullmatch(_base(name))
    return (match[1], (match[2],)) if match else None


@dataclass(frozen=True)
class Naming:
    """How names tell things and views apart."""

    split: Callable[[str], Split | None]
    shape: str  # what a name looks like, for messages


NAMINGS: dict[str, Naming] = {
    "multipie": Naming(
        _multipie,
        "<subject>_<session>_<recording>_<camera>_<illumination>, cameras " + " ".join(CAMERAS),
    ),
    "shapenet": Naming(_shapenet, "<object>_<h>_<v> with h = azimuth/10, 0 to 35, v = 0, 10 or 20"),
    "object": Naming(_object, "<object>_<view>"),
}


def find_naming(names: Sequence[str], asked: str = "auto") -> str:
    """The naming asked for, or the first that fits every name."""
    if asked != "auto":
        return asked
    if names and all(_MULTIPIE.fullmatch(_base(name)) for name in names):
        return "multipie"
    return next(
        (key for key, naming in NAMINGS.items() if all(naming.split(name) for name in names)),
        "object",
    )


def split_name(name: str, naming: str, where: str) -> Split:
    """Thing and labels of a name; a UserError that begins with ``where`` when it has another
    shape."""
    found = NAMINGS[naming].split(name)
    if found is None:
        raise UserError(
            f"{where}: {name!r} does not name a view; expected {NAMINGS[naming].shape}: rename it, "
            "or say with --view_names what names mean"
        )
    return found


def is_used(labels: Sequence[str], naming: str, step: int) -> bool:
    """Whether a view takes part: not the two upper cameras, not azimuths between the steps."""
    if naming == "shapenet":
        return int(labels[0]) * STEP % step == 0
    return naming != "multipie" or labels[0] not in UNUSED_CAMERAS


def views_of(labels: Iterable[Sequence[str]], naming: str) -> Views:
    """The labels that occur on each axis, in the order of the channels."""
    order = CAMERAS.index if naming == "multipie" else _natural
    return tuple(tuple(sorted(set(axis), key=order)) for axis in zip(*labels, strict=True))


def _natural(label: str) -> tuple:
    """Numbers by value, before words."""
    try:
        return (0, float(label), label)
    except ValueError:
        return (1, 0.0, label)


def parse_views(text: str) -> list[list[str]]:
    """``0,2,4;0,10`` -> the labels of each axis."""
    axes = [[label.strip() for label in axis.split(",")] for axis in text.split(";")]
    if not all(label for axis in axes for label in axis) or any(
        len(set(axis)) < len(axis) for axis in axes
    ):
        raise ValueError(text)
    return axes


def open_hdf5(path: str | Path | None, mode: str = "r") -> Any:
    """An open HDF5 file; without a path only checks that h5py is there."""
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            "HDF5 files need the package h5py, which is not installed: pip install h5py, or use a "
            "folder of images"
        ) from error
    if path is None:
        return None
    try:
        return h5py.File(path, mode)
    except OSError as error:
        raise UserError(
            f"{path} is not a readable HDF5 file ({' '.join(str(error).split())[:120]}); copy it "
            "again or check --dataroot"
        ) from error


def looks_like_views(root: Path, phases: Iterable[str]) -> bool:
    """Whether a data root holds an HDF5 file or pictures whose names say a known view."""
    if root.is_file() or any(root.glob("data_*.hdf5")) or any(root.glob("id_*_*.txt")):
        return True
    names = [p.name for phase in phases for p in sorted((root / phase).glob("*_*.*"))[:200]]
    return bool(names) and find_naming(names) != "object"
