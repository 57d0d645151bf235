"""Small data sets of turned objects in every layout; the colour of a picture tells its view."""

from pathlib import Path

import h5py
import numpy as np
from PIL import Image

AZIMUTHS = range(0, 36, 2)
ELEVATIONS = (0, 10, 20)


def picture(thing: int, azimuth: int, elevation: int, size: int = 16) -> np.ndarray:
    """uint8 (size, size, 3): red is the object, green the azimuth, blue the elevation."""
    image = np.empty((size, size, 3), np.uint8)
    image[:] = (60 * thing % 256, 7 * azimuth, 12 * elevation)
    image[thing % size] = 255
    return image


def keys(thing: int) -> list[tuple[str, int, int]]:
    """ShapeNet keys of all views of an object, with h and v."""
    return [(f"chair_{thing}_{h}_{v}", h, v) for v in ELEVATIONS for h in AZIMUTHS]


def write_lists(root: Path, objects: dict[str, list[int]]) -> None:
    for phase, things in objects.items():
        names = [key for thing in things for key, _, _ in keys(thing)]
        (root / f"id_chair_{phase}.txt").write_text("".join(f"{name}\n" for name in names))
        objects_of = "".join(f"chair_{thing}\n" for thing in things)
        (root / f"name_chair_{phase}.txt").write_text(objects_of)


OBJECTS = {"train": [0, 1], "test": [2, 3]}


def write_folder(root: Path, objects: dict[str, list[int]] = OBJECTS, size: int = 16) -> Path:
    """Image folders with the lists."""
    for phase, things in objects.items():
        (root / phase).mkdir(parents=True)
        for thing in things:
            for key, h, v in keys(thing):
                Image.fromarray(picture(thing, h, v, size)).save(root / phase / f"{key}.png")
    write_lists(root, objects)
    return root


def write_hdf5(root: Path, objects: dict[str, list[int]] = OBJECTS, size: int = 16) -> Path:
    """The HDF5 file with the lists."""
    root.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / "data_chair.hdf5", "w") as file:
        for thing in (thing for things in objects.values() for thing in things):
            for key, h, v in keys(thing):
                file[f"{key}/image"] = picture(thing, h, v, size)
                file[f"{key}/pose"] = np.array([h, v])
    write_lists(root, objects)
    return root


def write_named(root: Path, names: list[str], phase: str = "train", size: int = 16) -> Path:
    """Pictures of the given names in one phase."""
    for i, name in enumerate(names):
        path = root / phase / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(i % 4, i % 36, 0, size)).save(path)
    return root
