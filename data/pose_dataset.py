"""All logic of the data sets in PATN's layout: image folders, pairs table, keypoint table; and
GFLA's augmentation for Market-1501: one random affine map for an image and its keypoints."""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from data.base_dataset import BaseDataset
from data.prepare.checks import shape_note
from util.errors import UserError
from util.files import existing_folder
from util.image import OUTSIDE, load_image
from util.kinds import flag, number, several
from util.skeleton import in_frame, present
from util.tables.layouts import find_file
from util.tables.manifest import folder_record
from util.tables.patn import find_row, names_in, read_keypoints, read_pairs
from util.tensors import image_to_tensor

Range = tuple[float, float] | None  # (lowest, highest); None: off
# A target image moves less than a source image, and its size is never changed.
TARGET_ANGLE, TARGET_SHIFT = 0.2, 0.5


@dataclass(frozen=True)
class AffineRanges:
    """What may be drawn for a source image; ``None`` switches one kind of change off."""

    angle: Range = None  # degrees
    shift: Range = None  # pixels at load size, drawn for x and for y
    scale: Range = None


def ranges_from_options(opt: Namespace, published: AffineRanges) -> AffineRanges:
    """The ranges that the options ask for, ``published`` where they say nothing."""
    if not getattr(opt, "augment", False):
        return AffineRanges()
    given = {name: getattr(opt, name) for name in ("angle", "shift", "scale")}
    for name, value in given.items():
        if value is not None and (value[0] > value[1] or (name == "scale" and value[0] <= 0)):
            raise UserError(
                f"--{name} {value[0]:g} {value[1]:g}: expected a lower and a higher bound"
                + (", both more than 0" if name == "scale" else "")
            )
    return replace(published, **{k: tuple(v) for k, v in given.items() if v is not None})


@dataclass(frozen=True)
class AffineMap:
    """Rotation and scaling about the centre (W/2 + 0.5, H/2 + 0.5), then a shift."""

    angle: float = 0.0  # degrees, clockwise on the screen
    shift_x: float = 0.0  # pixels
    shift_y: float = 0.0
    scale: float = 1.0

    def matrix(self, size: tuple[int, int]) -> np.ndarray:
        """3 x 3 map of (x, y, 1) in an image of ``size`` (h, w) to where it moves."""
        height, width = size
        centre = np.array([width / 2 + 0.5, height / 2 + 0.5])
        c, s = np.cos(np.deg2rad(self.angle)), np.sin(np.deg2rad(self.angle))
        matrix = np.eye(3)
        matrix[:2, :2] = self.scale * np.array([[c, -s], [s, c]])
        matrix[:2, 2] = np.add(centre, (self.shift_x, self.shift_y)) - matrix[:2, :2] @ centre
        return matrix

    def of_image(self, image: Image.Image) -> Image.Image:
        """The moved image: nearest neighbour in PIL's arithmetic, grey where nothing moved to."""
        inverse = np.linalg.inv(self.matrix((image.height, image.width)))[:2].flatten().tolist()
        affine, nearest = Image.Transform.AFFINE, Image.Resampling.NEAREST
        return image.transform(image.size, affine, inverse, nearest, fillcolor=OUTSIDE)

    def of_keypoints(self, keypoints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Moved keypoints (J, 2), (y, x) in the frame ``size`` (h, w); missing joints stay -1."""
        points = np.asarray(keypoints, dtype=np.float64)
        matrix = self.matrix(size)
        moved = (points[:, ::-1] @ matrix[:2, :2].T + matrix[:2, 2])[:, ::-1]
        return np.where(present(points)[:, None], moved, -1.0)


def draw_affine(rng: np.random.Generator, ranges: AffineRanges, is_target: bool) -> AffineMap:
    """Draw angle, scale, shift_x, shift_y in this order from ``rng``; nothing for what is off."""
    order = ((ranges.angle, 0.0), (ranges.scale, 1.0), (ranges.shift, 0.0), (ranges.shift, 0.0))
    angle, scale, x, y = (rng.uniform(*bounds) if bounds else off for bounds, off in order)
    if is_target:
        return AffineMap(angle * TARGET_ANGLE, x * TARGET_SHIFT, y * TARGET_SHIFT)
    return AffineMap(angle, x, y, scale)


class PoseDataset(BaseDataset):
    """Pairs from ``<root>/<pairs file>``, keypoints from ``<root>/<annotation file>``, images from
    ``<root>/<phase>/``. Subclasses set sizes and file names only.

    Every image and keypoint row that the pairs need is looked up when the data set is opened.
    """

    # accepted names, {phase} is filled in; the first that exists is used
    pairs_files: tuple[str, ...]
    annotation_files: tuple[str, ...]
    pair_columns: tuple[str, str] = ("from", "to")
    image_folders: tuple[str, ...] = ("{phase}",)
    augmentation = AffineRanges()  # the published ranges, used with --augment

    def __init__(self, *args, augmentation: AffineRanges | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.ranges = augmentation or AffineRanges()  # without them images stay as they are
        remedy = "prepare a data set or render one with python -m script.make_synthetic_dataset"
        existing_folder(self.root, "--dataroot", remedy)
        pairs_path = self._find("pairs table", self.pairs_files)
        annotation_path = self._find("keypoint table", self.annotation_files)
        self.folder = self._find("image folder", self.image_folders)
        self.record = folder_record(self.folder)
        self.pairs = self.read_pairs(pairs_path)[: self.max_pairs]
        keypoints = self.read_keypoints(annotation_path)
        names = names_in(self.pairs)
        self._check_names(names, keypoints, pairs_path, annotation_path)
        self.keypoints = {name: torch.from_numpy(keypoints[name]) for name in names}

    @staticmethod
    def modify_options(parser: ArgumentParser, is_train: bool) -> None:
        if not is_train:
            return
        add = parser.group("augmentation (default ranges: as the data set's paper has them)")
        moved = "random affine maps of training images (market: published ranges)"
        add("--augment | --no_augment", flag, False, moved)
        for name, unit in (("angle", "degrees"), ("shift", "pixels"), ("scale", "times the size")):
            line = f"range of the random {name} with --augment, in {unit}"
            add(f"--{name}", several(number(), 2), None, line, metavar=("LOW", "HIGH"))

    @classmethod
    def own_arguments(cls, opt: Namespace) -> dict[str, Any]:
        if not opt.is_train:
            return {}
        return {"augmentation": ranges_from_options(opt, cls.augmentation)}

    def read_pairs(self, path: Path) -> list[tuple[str, str]]:
        """(source name, target name) in order."""
        return read_pairs(path, self.pair_columns)

    def read_keypoints(self, path: Path) -> dict[str, np.ndarray]:
        """Name -> keypoints (18, 2) in the annotation frame; ``self.pairs`` is already there."""
        return read_keypoints(path)

    def _find(self, what: str, candidates: tuple[str, ...]) -> Path:
        found = find_file(self.root, candidates, self.phase)
        if found is None:
            names = ", ".join(candidates).format(phase=self.phase)
            raise UserError(
                f"{self.root} has no {what}; looked for {names}. Check --dataroot, --dataset_mode "
                "and --phase, or run python script/check_dataset.py"
            )
        return found

    def _check_names(
        self, names: list[str], keypoints: Collection[str], pairs_path: Path, path: Path
    ) -> None:
        """Refuse pairs without keypoints or without an image file, naming the row of the first."""
        if not self.folder.is_dir():
            raise UserError(
                f"{self.folder} is not a folder; expected the images of this phase there"
            )
        with os.scandir(self.folder) as entries:
            files = {entry.name for entry in entries if entry.is_file()}  # no pipe, no device
        for name in names:
            if name not in keypoints:
                raise UserError(
                    f"{self._row(name, pairs_path)}: {name} has no keypoints in {path}; add its "
                    "row there or remove the pair"
                )
            if name not in files and not (self.folder / name).is_file():
                place = self.folder / name
                what = f"{place} is no file" if place.exists() else f"there is no image {place}"
                raise UserError(f"{self._row(name, pairs_path)}: {what}; add it or remove the pair")

    def _row(self, name: str, path: Path) -> str:
        """The table and, where it is one of ours, the first row that holds a name."""
        row = find_row(path, self.pair_columns, lambda pair: name in pair)
        return f"{path}, row {row}" if row else str(path)

    def notes(self) -> list[str]:
        note = shape_note(self.folder, list(self.keypoints), self.annotation_size)
        return [note] if note else []

    def __len__(self) -> int:
        return len(self.pairs)

    def decoded(self, name: str) -> Image.Image:
        return load_image(self.folder / name)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample: dict[str, Any] = {}
        epoch, row = divmod(index, len(self))
        augmented = self.ranges != AffineRanges()
        rng = np.random.default_rng((self.seed, epoch, row)) if augmented else None
        for role, name in zip(("source", "target"), self.pairs[row], strict=True):
            image, keypoints = self.image(name), self.keypoints[name]
            if augmented:
                image, keypoints = self._augment(image, keypoints, rng, role == "target")
            sample[f"{role}_image"] = image
            sample[f"{role}_keypoints"] = keypoints
            sample[f"{role}_name"] = name
        return sample

    def _augment(
        self, image: torch.Tensor, keypoints: torch.Tensor, rng: np.random.Generator, target: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Image and keypoints (annotation frame) after one random affine map at load size."""
        affine = draw_affine(rng, self.ranges, target)
        picture = affine.of_image(Image.fromarray(image.permute(1, 2, 0).numpy()))
        points = in_frame(keypoints, self.annotation_size, self.load_size)
        points = affine.of_keypoints(points, self.load_size)
        points = in_frame(points, self.load_size, self.annotation_size)
        return image_to_tensor(picture, self.load_size), torch.from_numpy(points)
