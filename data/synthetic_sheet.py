"""A contact sheet of a written data set: pictures and the same pictures with skeletons."""

from __future__ import annotations

import os
import re
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

from data.synthetic_writer import TABLES
from util.annotations import read_keypoints


def contact_sheet(
    root: str | os.PathLike, path: str | os.PathLike, layout: str = "fashion", phase: str = "train",
    people: int = 6, columns: int = 5,
) -> None:  # fmt: skip
    """Write a PNG of the first people: a row each, pictures left, the same with skeletons right."""
    from util.pose import draw_skeleton  # pulls in torch, which rendering does not need

    root = Path(root)
    keypoints = read_keypoints(root / TABLES[layout][1].format(phase))
    rows: list[np.ndarray] = []
    for _, names in groupby(keypoints, key=lambda name: _person(name, layout)):
        names = list(names)[:columns]
        pictures = [np.asarray(Image.open(root / phase / name).convert("RGB")) for name in names]
        drawn = [draw_skeleton(p, keypoints[n]) for p, n in zip(pictures, names, strict=True)]
        rows.append(np.concatenate(pictures + drawn, axis=1))
        if len(rows) == people:
            break
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows, axis=0)).save(path, format="PNG")


def _person(name: str, layout: str) -> str:
    """The part of a file name that all pictures of a person share."""
    return name.split("_")[0] if layout == "market" else re.split(r"(?<=id\d{8})", name)[0]
