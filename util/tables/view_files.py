"""Where pictures of turned objects are: image folders, the ShapeNet HDF5 file, and their lists."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from util.errors import UserError
from util.image import load_image
from util.names import IMAGE_EXTENSIONS
from util.tables import views as naming

DEGREES = 360


class Store(Protocol):
    """Where the pictures of names come from."""

    where: str  # for messages

    def image(self, name: str) -> Image.Image:
        """One RGB picture."""


class FolderStore:
    """Image files below a folder."""

    def __init__(self, folder: Path):
        self.folder, self.where = folder, str(folder)

    def names(self) -> list[str]:
        """Paths of all images relative to the folder, sorted."""
        found = (p for p in self.folder.rglob("*") if p.suffix.lower() in IMAGE_EXTENSIONS)
        names = sorted(p.relative_to(self.folder).as_posix() for p in found)
        if not names:
            raise UserError(
                f"{self.folder} holds no {', '.join(IMAGE_EXTENSIONS)} file; expected one picture "
                "of every view of every object: check --dataroot and --phase"
            )
        return names

    def image(self, name: str) -> Image.Image:
        return load_image(self.folder / name)


class Hdf5Store:
    """One group an image, ``<object>_<h>_<v>`` with ``image`` uint8 (H, W, 3) and ``pose`` (h, v).

    Opened by each process when it first reads: a handle does not survive the fork of a worker.
    Only what is asked for is read, however large the file.
    """

    def __init__(self, path: Path):
        self.path, self.where = path, str(path)
        self._file, self._owner = None, -1

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_owner": -1}

    def _open(self) -> Any:
        if self._owner != os.getpid():
            self._file, self._owner = naming.open_hdf5(self.path), os.getpid()
        return self._file

    def close(self) -> None:
        """Give the file back; it is opened again when something is read."""
        if self._file is not None:
            self._file.close()
        self._file, self._owner = None, -1

    def check(self, keys: Sequence[str], listed_in: Path) -> None:
        """Refuse keys that have no picture or no pose; reads no picture."""
        file = self._open()
        for key in keys:
            for part in ("image", "pose"):
                if f"{key}/{part}" not in file:
                    lacking = f"no {part!r} in it" if key in file else "no such group"
                    raise UserError(
                        f"{self.path}, key {key} of {listed_in.name}: {lacking}; expected a group "
                        "with 'image' and 'pose': complete the file or correct the list"
                    )

    def image(self, name: str) -> Image.Image:
        group = self._open()[name]
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
        self.root, self.phase = root, phase
        if DEGREES % step or step % naming.STEP:
            raise UserError(
                f"--ang_skip {step}: expected a multiple of {naming.STEP} degrees that divides "
                f"{DEGREES}, such as 20"
            )
        self.store, self.category = self._find_store(category)
        self.list_path = self._list(f"id_{self.category}_{phase}.txt")
        self.object_list = self._list(f"name_{self.category}_{phase}.txt")
        names = self._names()
        self.naming = naming.find_naming(names, asked_naming)
        where = str(self.list_path or self.store.where)
        split = {name: naming.split_name(name, self.naming, where) for name in names}
        self.split = {n: s for n, s in split.items() if naming.is_used(s[1], self.naming, step)}
        if not self.split:
            raise UserError(f"{where}: none of its {len(names)} views is used; check --ang_skip")

    def _find_store(self, category: str | None) -> tuple[FolderStore | Hdf5Store, str | None]:
        """The image folder of the phase, or the HDF5 file; and the category of the lists."""
        root, folder = self.root, self.root / self.phase
        if root.is_file():
            self.root = root.parent
            return Hdf5Store(root), category or root.stem.removeprefix("data_")
        if not root.is_dir():
            raise UserError(
                f"--dataroot {root}: no such folder; get a data set or render one with "
                "python -m script.make_synthetic_dataset --layout chairs"
            )
        if folder.is_dir():
            lists = {p.stem.split("_")[1] for p in root.glob("id_*_*.txt")}
            return FolderStore(folder), category or (lists.pop() if len(lists) == 1 else None)
        files = sorted(root.glob("data_*.hdf5"))
        kinds = [path.stem.removeprefix("data_") for path in files]
        wanted = [p for p, kind in zip(files, kinds, strict=True) if category in (None, kind)]
        if len(wanted) != 1:
            found = f"data_*.hdf5 for {', '.join(kinds)}" if files else "no data_*.hdf5 file either"
            advice = "say which with --category" if wanted else "check --dataroot, --phase"
            raise UserError(
                f"{root} has no image folder {self.phase!r}, and {found}; expected one of them: "
                f"{advice}{' and --category' if category else ''}"
            )
        return Hdf5Store(wanted[0]), wanted[0].stem.removeprefix("data_")

    def _list(self, name: str) -> Path | None:
        path = self.root / name
        return path if self.category and path.is_file() else None

    def _names(self) -> list[str]:
        """Names of the list, or of all image files where there is none."""
        files = self.store.names() if isinstance(self.store, FolderStore) else None
        if self.list_path is None and files is None:
            raise UserError(
                f"{self.store.where} comes with lists, but id_{self.category}_{self.phase}.txt is "
                f"not in {self.root}; expected one key a line there: get it from the same place"
            )
        if self.list_path is None:
            return files
        keys = read_list(self.list_path)
        if files is None:
            return keys
        by_key = {str(Path(name).with_suffix("")): name for name in files}
        for row, key in enumerate(keys, 1):
            if key not in by_key:
                raise UserError(
                    f"{self.list_path}, line {row}: there is no image {key} in {self.store.where}; "
                    "add it or remove the line"
                )
        return [by_key[key] for key in keys]

    def views(self) -> naming.Views:
        """The labels found on each axis."""
        return naming.views_of((labels for _, labels in self.split.values()), self.naming)

    def objects(self) -> list[str] | None:
        """The list of test objects, where there is one."""
        return read_list(self.object_list) if self.object_list else None


def read_list(path: Path) -> list[str]:
    """The lines of a list; empty lists and repeated lines are UserErrors."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text ({error}); write it again") from error
    lines = [line for line in lines if line]
    if not lines:
        raise UserError(f"{path} is empty; expected one name a line")
    if len(set(lines)) < len(lines):
        twice = next(line for i, line in enumerate(lines) if line in lines[:i])
        raise UserError(f"{path} lists {twice} twice; remove one of the lines")
    return lines
