"""What the training and test loops expect of a data set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from util.tensors import image_to_tensor


class BaseDataset(Dataset, ABC):
    """Pairs of photographs of one person with the keypoints of both.

    A sample is a dict: ``source_image``, ``target_image`` uint8 (3, H, W); ``source_keypoints``,
    ``target_keypoints`` float64 (18, 2), (y, x) in the annotation frame, -1 = missing;
    ``source_name``, ``target_name`` file names. Data sets of turned objects have ``source_view``,
    ``target_view`` int64 (K,) in place of the keypoints (data/view_dataset.py).
    """

    load_size: tuple[int, int]  # (h, w) of the images of a sample, unless an option says otherwise
    # (h, w) of the frame of the keypoints; None: the load size
    annotation_size: tuple[int, int] | None
    cached: str | None = None  # where its images are kept in memory, in words
    folder: Path | None = None  # of the image files, where it is one
    full_turn = False  # whether turns() ends beside where it begins
    record: dict[str, Any] | None = None  # how that folder was prepared (util/tables/manifest.py)

    def __init__(
        self,
        root: str | Path,
        phase: str = "train",
        load_size: tuple[int, int] | None = None,  # default: that of the class
        annotation_size: tuple[int, int] | None = None,
        max_pairs: int | None = None,  # the first ones only
        seed: int = 0,
    ):
        self.root, self.phase, self.max_pairs, self.seed = Path(root), phase, max_pairs, seed
        self.load_size = tuple(load_size or self.load_size)
        self.annotation_size = tuple(annotation_size or self.annotation_size or self.load_size)

    @staticmethod
    def modify_options(parser: ArgumentParser, is_train: bool) -> None:
        """Add the data set's own options to ``parser`` and change defaults."""

    @classmethod
    def complete_options(cls, opt: Namespace) -> None:
        """Fill in what follows from the data: ``opt.view_counts``, () where poses are keypoints."""
        opt.view_counts = ()

    def complete_results(self, results: Path, opt: Namespace) -> None:
        """Write what this data set's own test program writes beside the results; nothing here."""

    @classmethod
    def from_options(cls, opt: Namespace) -> BaseDataset:
        """Open the data set that the options describe.

        In training ``--max_dataset_size`` bounds an epoch, which is drawn from all pairs.
        """
        return cls(
            root=opt.dataroot,
            phase=opt.phase,
            load_size=opt.load_size,
            annotation_size=opt.annotation_size,
            max_pairs=None if opt.is_train else opt.max_dataset_size,
            seed=opt.seed,
            **cls.own_arguments(opt),
        )

    @classmethod
    def own_arguments(cls, opt: Namespace) -> dict[str, Any]:
        """Further arguments of the constructor, by name."""
        return {}

    def decoded(self, name: str) -> Image.Image | None:
        """An image as its file holds it; None where it is no file."""
        return None

    def image(self, name: str) -> torch.Tensor:
        """uint8 image (3, H, W) at ``load_size``."""
        return image_to_tensor(self.decoded(name), self.load_size)

    def photograph(self, name: str) -> np.ndarray | None:
        """The file of an image, uint8 (H, W, 3) at ``annotation_size``; None where it is no file.

        Unlike the image of a sample it has not been through ``load_size``: it is the ground truth
        of a result.
        """
        image = self.decoded(name)
        if image is None:
            return None
        planes = image_to_tensor(image, self.annotation_size)
        return planes.permute(1, 2, 0).contiguous().numpy()

    def turns(self) -> dict[str, list[tuple[str, str]]]:
        """Pairs (source name, target name) that turn one object, by its source; none of people."""
        return {}

    def notes(self) -> list[str]:
        """Sentences that a person should read before a training."""
        return []

    @abstractmethod
    def __len__(self) -> int:
        """Number of pairs."""

    @abstractmethod
    def __getitem__(self, index: int) -> dict[str, Any]:
        """Sample ``index % len(self)`` of epoch ``index // len(self)``."""
