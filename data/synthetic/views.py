"""Writes synthetic chairs and heads from many sides in the layouts of the published data.

chairs: ``<object>_<h>_<v>.png``, the keys of the ShapeNet files of "Multi-view to Novel view"
(Sun et al., ECCV 2018): h = azimuth / 10 degrees (0, 2 ... 34), v = elevation (0, 10, 20), the
lists ``id_chair_<phase>.txt`` and ``name_chair_test.txt``, and on demand ``data_chair.hdf5``.
faces: CMU Multi-PIE's ``<subject>_<session>_<recording>_<camera>_<illumination>.png``, 13 cameras.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from data.synthetic.chairs import sample_chair
from data.synthetic.heads import sample_head
from data.synthetic.solids import render_view
from data.synthetic.write import PHASES, DataKind, load_manifest, write_once
from util.errors import UserError
from util.files import replacing, write_file
from util.parallel import map_in_order
from util.run.progress import progress_bar
from util.show.grid import grid
from util.tables.views import AZIMUTHS, CAMERAS, ELEVATIONS, STEP, open_hdf5

RENDERER = 1  # raise it when the same settings begin to give other pictures
LAYOUTS = ("chairs", "faces")
HDF5 = "data_chair.hdf5"
ILLUMINATION = "07"  # Multi-PIE's frontal flash
LISTS = {phase: (f"id_chair_{phase}.txt", f"name_chair_{phase}.txt") for phase in PHASES}


@dataclass(frozen=True)
class ViewSettings:
    """Everything that decides the bytes of a set of turned objects."""

    layout: str = "chairs"
    identities: int = 300  # objects of the training split
    test_identities: int = 40
    seed: int = 0
    size: int = 256  # pixels, square
    hdf5: bool = False  # chairs: the HDF5 file instead of the image folders

    def check(self) -> None:
        """Raise UserError for a value that no data set can have."""
        limits = {"identities": (1, 9999), "test_identities": (1, 9999), "seed": (0, 2**32 - 1)}
        for name, (low, high) in {**limits, "size": (16, 1024)}.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f"--{name} is {value}; expected a number from {low} to {high}.")
        if self.hdf5 and self.layout != "chairs":
            raise UserError("--hdf5 is for --layout chairs: say that, or leave it out.")


def write_views(
    out: str | os.PathLike,
    settings: ViewSettings,
    workers: int = 1,
    overwrite: bool = False,
    progress: bool = False,
) -> dict:
    """Render the data set into the folder ``out``; returns its manifest, as write_dataset does."""
    settings.check()
    if settings.hdf5:
        open_hdf5(None)  # says how to get h5py before anything is rendered
    kind = DataKind(RENDERER, _is_complete, _remove)
    write = partial(_write, settings=settings, workers=workers, progress=progress)
    return write_once(Path(out), asdict(settings), kind, overwrite, write)


def _write(out: Path, settings: ViewSettings, workers: int, progress: bool) -> dict:
    """Render both splits; returns the counts of each."""
    counts: dict[str, dict[str, int]] = {}
    if not settings.hdf5:
        for phase in PHASES:
            (out / phase).mkdir(exist_ok=True)
            for name, image in _pictures(settings, phase, workers, progress, counts):
                write_file(out / phase / f"{name}.png", _png(image))
    else:
        with replacing(out / HDF5) as temporary, open_hdf5(temporary, "w") as file:
            for phase in PHASES:
                for name, image in _pictures(settings, phase, workers, progress, counts):
                    group = file.create_group(name)
                    group.create_dataset("image", data=image, track_times=False)
                    pose = [int(word) for word in name.split("_")[-2:]]
                    group.create_dataset("pose", data=np.array(pose, np.int64), track_times=False)
    if settings.layout == "chairs":
        for phase in PHASES:
            names = [_object_name(settings, phase, i) for i in range(_count(settings, phase))]
            keys = [f"{name}_{side}" for name in names for side, _, _ in _sides("chairs")]
            for file_name, lines in zip(LISTS[phase], (keys, names), strict=True):
                write_file(out / file_name, "".join(f"{line}\n" for line in lines).encode())
    return counts


def _pictures(
    settings: ViewSettings, phase: str, workers: int, progress: bool, counts: dict
) -> Iterator[tuple[str, np.ndarray]]:
    """(name, picture) of every view of every object of a split; fills ``counts``."""
    number = _count(settings, phase)
    done = map_in_order(partial(_render_object, settings, phase), range(number), workers)
    counts[phase] = {"objects": number, "images": 0}
    for views in progress_bar(done, total=number, desc=phase, unit="object", disable=not progress):
        counts[phase]["images"] += len(views)
        yield from views.items()


def _render_object(settings: ViewSettings, phase: str, index: int) -> dict[str, np.ndarray]:
    """All views of one object; each object has its own random numbers."""
    seeds = [settings.seed, PHASES.index(phase), index]
    sample = {"chairs": sample_chair, "faces": sample_head}[settings.layout]
    scene = sample(np.random.default_rng(seeds))
    name = _object_name(settings, phase, index)
    end = f"_{ILLUMINATION}" if settings.layout == "faces" else ""
    return {
        f"{name}_{side}{end}": render_view(scene, azimuth, elevation, settings.size)
        for side, azimuth, elevation in _sides(settings.layout)
    }


def _sides(layout: str) -> list[tuple[str, float, float]]:
    """Label in the name, azimuth and elevation in degrees of every view."""
    if layout == "faces":
        return [(camera, 15.0 * (i - 6), 0.0) for i, camera in enumerate(CAMERAS)]
    return [(f"{h}_{v}", h * STEP, v) for v in ELEVATIONS for h in AZIMUTHS]


def _object_name(settings: ViewSettings, phase: str, index: int) -> str:
    number = index + 1 + (settings.identities if phase == "test" else 0)
    return f"{number:03d}_01_01" if settings.layout == "faces" else f"chair{number:05d}"


def _count(settings: ViewSettings, phase: str) -> int:
    return settings.identities if phase == "train" else settings.test_identities


def _png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG", compress_level=6)
    return stream.getvalue()


def _is_complete(out: Path, manifest: dict) -> bool:
    if manifest["settings"]["hdf5"]:
        return (out / HDF5).is_file()
    return all(
        len(list((out / phase).glob("*.png"))) == manifest["counts"][phase]["images"]
        for phase in PHASES
    )


def _remove(out: Path) -> None:
    """Delete the pictures and lists of an earlier data set, nothing else."""
    for phase in PHASES:
        for path in (out / phase).glob("*.png"):
            path.unlink()
        for name in LISTS[phase]:
            (out / name).unlink(missing_ok=True)
    (out / HDF5).unlink(missing_ok=True)


def contact_sheet(out: str | os.PathLike, path: str | os.PathLike, objects: int = 6) -> None:
    """Write a PNG of the first objects, one row each with every second view."""
    settings = ViewSettings(**load_manifest(Path(out))["settings"])
    small = replace(settings, size=min(settings.size, 128))
    shown = range(min(objects, settings.identities))
    rows = [list(_render_object(small, "train", index).values())[:18:2] for index in shown]
    with replacing(Path(path)) as temporary:
        Image.fromarray(grid(rows, gap=0)).save(temporary, format="PNG")
