"""All logic of the data sets in PATN's layout: image folders, pairs table, keypoint table."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from data.augmentation import (
    AffineRanges,
    add_augmentation_options,
    draw_affine,
    ranges_from_options,
)
from data.base_dataset import BaseDataset
from data.prepare.checks import shape_note
from util.errors import UserError
from util.image import load_image
from util.skeleton import in_frame
from util.tables.manifest import folder_record
from util.tables.patn import find_row, read_keypoints, read_pairs
from util.tensors import image_to_tensor


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
        if not self.root.is_dir():
            found = "is a file, not a folder" if self.root.exists() else "no such folder"
            raise UserError(
                f"--dataroot {self.root}: {found}; prepare a data set or render one with "
                "python -m script.make_synthetic_dataset"
            )
        pairs_path = self._find("pairs table", self.pairs_files)
        annotation_path = self._find("keypoint table", self.annotation_files)
        self.folder = self._find("image folder", self.image_folders)
        self.record = folder_record(self.folder)
        self.pairs = self.read_pairs(pairs_path)[: self.max_pairs]
        keypoints = self.read_keypoints(annotation_path)
        self._check_names(keypoints, pairs_path, annotation_path)
        used = {name for pair in self.pairs for name in pair}
        self.keypoints = {name: torch.from_numpy(keypoints[name]) for name in used}

    @staticmethod
    def modify_options(parser: ArgumentParser, is_train: bool) -> None:
        if is_train:
            add_augmentation_options(parser)

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
        names = [c.format(phase=self.phase) for c in candidates]
        found = next((self.root / name for name in names if (self.root / name).exists()), None)
        if found is None:
            raise UserError(
                f"{self.root} has no {what}; looked for {', '.join(names)}. Check --dataroot, "
                "--dataset_mode and --phase, or run python script/check_dataset.py"
            )
        return found

    def _check_names(self, keypoints: dict[str, np.ndarray], pairs_path: Path, path: Path) -> None:
        """Refuse pairs without keypoints or without an image file, naming the row of the first."""
        if not self.folder.is_dir():
            raise UserError(
                f"{self.folder} is not a folder; expected the images of this phase there"
            )
        with os.scandir(self.folder) as entries:
            files = {entry.name for entry in entries if entry.is_file()}  # no pipe, no device
        for name in dict.fromkeys(name for pair in self.pairs for name in pair):
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
