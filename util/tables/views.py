"""Turned objects: where their pictures are (image folders, ShapeNet's HDF5 file, their lists), and
what of the name of a picture is the view.

A naming splits the name of a picture into the thing that is shown and the labels of its view, one
label an axis. Each label becomes one channel of the pose map.
"""

import functools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from util.errors import UserError
from util.files import existing_folder
from util.image import load_image
from util.names import IMAGE_EXTENSIONS, is_image
from util.tables.patn import read_list

DEGREES = 360
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
_MULTIPIE = re.compile(r"(\d+_\d+_\d+)_(\d{3})_(\d+)")


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
    if not match or match[2] not in (*CAMERAS, *UNUSED_CAMERAS):
        return None
    return f"{match[1]}_{match[3]}", (match[2],)


def _object(name: str) -> Split | None:
    thing, _, view = _base(name).rpartition("_")
    return (thing, (view,)) if thing and view else None


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
    """Thing and labels of a name; a UserError, beginning with ``where``, for another shape."""
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
    if any("" in axis or len(set(axis)) < len(axis) for axis in axes):
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
    if root.is_file():
        return root.suffix.lower() in (".hdf5", ".h5")
    if any(root.glob("data_*.hdf5")) or any(root.glob("id_*_*.txt")):
        return True
    names = [p.name for phase in phases for p in sorted((root / phase).glob("*_*.*"))[:200]]
    return bool(names) and find_naming(names) != "object"


class FolderStore:
    """Image files below a folder."""

    def __init__(self, folder: Path):
        self.folder, self.where = folder, str(folder)

    def names(self) -> list[str]:
        """Paths of all images relative to the folder, sorted."""
        paths = (path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*"))
        names = sorted(filter(is_image, paths))
        if not names:
            raise UserError(
                f"{self.folder} holds no {', '.join(IMAGE_EXTENSIONS)} file; expected one picture "
                "of every view of every object: check --dataroot and --phase"
            )
        return names

    def image(self, name: str) -> Image.Image:
        return load_image(self.folder / name)


_opened = functools.lru_cache(maxsize=2)(open_hdf5)  # by each process when it first reads

# A handle does not survive the fork of a worker.
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(before=_opened.cache_clear)


class Hdf5Store:
    """One group an image, ``<object>_<h>_<v>`` with ``image`` uint8 (H, W, 3) and ``pose`` (h, v).

    Only what is asked for is read, however large the file.
    """

    def __init__(self, path: Path):
        self.path, self.where = path, str(path)

    def check(self, keys: Iterable[str], listed_in: Path) -> None:
        """Refuse keys that have no picture or no pose; reads no picture."""
        file = _opened(self.path)
        for key in keys:
            for part in ("image", "pose"):
                if f"{key}/{part}" not in file:
                    lacking = f"no {part!r} in it" if key in file else "no such group"
                    raise UserError(
                        f"{self.path}, key {key} of {listed_in.name}: {lacking}; expected a group "
                        "with 'image' and 'pose': complete the file or correct the list"
                    )

    def image(self, name: str) -> Image.Image:
        group = _opened(self.path)[name]
        pixels, pose = group["image"][...], np.ravel(group["pose"][...]).tolist()
        named = [int(word) for word in name.split("_")[-2:]]
        if pose != named:
            raise UserError(
                f"{self.path}, key {name}: its pose is {pose}, its name says {named}; correct one"
            )
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise UserError(
                f"{self.path}, key {name}: the image is {pixels.dtype} of shape {pixels.shape}; "
                "expected uint8 (height, width, 3)"
            )
        return Image.fromarray(pixels)


class Source:
    """The pictures of one phase: where they are, their names, what they show from where."""

    def __init__(self, root: Path, phase: str, category: str | None, asked_naming: str, step: int):
        if DEGREES % step or step % STEP:
            raise UserError(
                f"--ang_skip {step}: expected a multiple of {STEP} degrees that divides "
                f"{DEGREES}, such as 20"
            )
        self.store, category = _find_store(root, phase, category)
        place = root.parent if root.is_file() else root
        lists = [place / f"{kind}_{category}_{phase}.txt" for kind in ("id", "name")]
        self.list_path, self.object_list = (p if p.is_file() else None for p in lists)
        names = self._names(lists[0])
        self.naming = find_naming(names, asked_naming)
        where = str(self.list_path or self.store.where)
        split = {name: split_name(name, self.naming, where) for name in names}
        self.split = {n: s for n, s in split.items() if is_used(s[1], self.naming, step)}
        if not self.split:
            raise UserError(f"{where}: none of its {len(names)} views is used; check --ang_skip")

    def _names(self, wanted: Path) -> list[str]:
        """Names of the list, or of all image files where there is none."""
        if isinstance(self.store, Hdf5Store):
            if self.list_path is None:
                raise UserError(
                    f"{self.store.where} comes with lists, but {wanted.name} is not in "
                    f"{wanted.parent}; expected one key a line there: get it from the same place"
                )
            return read_list(self.list_path)
        files = self.store.names()
        if self.list_path is None:
            return files
        by_key = {str(Path(name).with_suffix("")): name for name in files}
        keys = read_list(self.list_path)
        for row, key in enumerate(keys, 1):
            if key not in by_key:
                raise UserError(
                    f"{self.list_path}, line {row}: there is no image {key} in {self.store.where}; "
                    "add it or remove the line"
                )
        return [by_key[key] for key in keys]

    def views(self) -> Views:
        """The labels found on each axis."""
        return views_of((labels for _, labels in self.split.values()), self.naming)

    def things(self) -> Counter[str]:
        """How many views there are of each thing, in order of appearance."""
        return Counter(thing for thing, _ in self.split.values())

    def objects(self) -> list[str]:
        """The test objects: those of the list, where there is one, or all."""
        return read_list(self.object_list) if self.object_list else list(self.things())


def _find_store(
    root: Path, phase: str, category: str | None
) -> tuple[FolderStore | Hdf5Store, str | None]:
    """The image folder of the phase, or the HDF5 file; and the category of the lists."""
    if root.is_file():
        return Hdf5Store(root), category or root.stem.removeprefix("data_")
    render = "python -m script.make_synthetic_dataset --layout chairs"
    existing_folder(root, "--dataroot", f"get a data set or render one with {render}")
    if (root / phase).is_dir():
        lists = {p.stem.split("_")[1] for p in root.glob("id_*_*.txt")}
        return FolderStore(root / phase), category or (lists.pop() if len(lists) == 1 else None)
    files = {path.stem.removeprefix("data_"): path for path in sorted(root.glob("data_*.hdf5"))}
    wanted = [kind for kind in files if category in (None, kind)]
    if len(wanted) != 1:
        found = f"data_*.hdf5 for {', '.join(files)}" if files else "no data_*.hdf5 file either"
        advice = "say which with --category" if wanted else "check --dataroot, --phase"
        raise UserError(
            f"{root} has no image folder {phase!r}, and {found}; expected one of them: "
            f"{advice}{' and --category' if category else ''}"
        )
    return Hdf5Store(files[wanted[0]]), wanted[0]
