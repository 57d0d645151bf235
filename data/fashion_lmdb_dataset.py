"""DeepFashion In-shop in LMDB, in the layout of NTED and PIDM: ``--dataset_mode fashion_lmdb``."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.base_dataset import BaseDataset
from util.errors import UserError
from util.files import existing_folder
from util.image import image_from_bytes
from util.kinds import choice, text
from util.tables.layouts import CROP_BOX, NTED_PAIRS_NAME, STRIP_SIZE
from util.tables.lmdb import LmdbReader, environment_name
from util.tables.patn import names_in
from util.tables.uncropped import ORDERS, pose_path, read_items, read_pose, shift, to_name
from util.tensors import image_to_tensor


class FashionLmdbDataset(BaseDataset):
    """Images of LMDB environment ``<root>/<h>-<w>``, items of ``<phase>_pairs.txt``, keypoints of
    ``pose/<path>.txt``; script/prepare_data.py makes the environment.

    An item has one target and one or several sources; each epoch draws one of them. Names are the
    flat ones of ``--dataset_mode fashion``, so results and metrics are the same for both.

    In the 256 x 176 frame the pose files count x from the left edge of the 256 x 256 release, 40
    pixels further left; with another ``annotation_size`` (own data) they use that frame itself.
    """

    load_size = annotation_size = STRIP_SIZE

    @staticmethod
    def modify_options(parser, is_train: bool) -> None:
        add = parser.group("fashion_lmdb data")
        add("--pairs_order", choice(ORDERS), "target_first", "of the lines of <phase>_pairs.txt")
        add("--lmdb_root", text, None, "folder of the <h>-<w> environments; default: --dataroot")

    def __init__(
        self, *args, pairs_order="target_first", lmdb_root: str | Path | None = None, **kwargs
    ):
        super().__init__(*args, **kwargs)
        framed = self.annotation_size == type(self).annotation_size
        self._offset = CROP_BOX[0] if framed else 0
        pairs_file = self.root / NTED_PAIRS_NAME.format(phase=self.phase)
        expected = f"expected {pairs_file.name}, pose/ and an LMDB environment in it"
        how = "see python -m script.prepare_data --help"
        existing_folder(self.root, "--dataroot", f"{expected}, {how}")
        self.items = read_items(pairs_file, pairs_order)[: self.max_pairs]
        self.images = LmdbReader(Path(lmdb_root or self.root) / environment_name(self.load_size))
        len(self.images)  # complete?
        self._check(pairs_file)

    @classmethod
    def own_arguments(cls, opt) -> dict[str, Any]:
        return {"pairs_order": opt.pairs_order, "lmdb_root": opt.lmdb_root}

    def _check(self, pairs_file: Path) -> None:
        """Refuse lists with images that are not in the environment or have no keypoints."""
        paths = sorted(names_in((target, *sources) for target, sources in self.items))
        for path in self.images.missing(paths):
            raise UserError(
                f"{pairs_file} names {path}, which is not in {self.images.folder}; run "
                "python -m script.prepare_data again"
            )
        for path in paths:
            if not pose_path(self.root, path).is_file():
                raise UserError(
                    f"{pairs_file} names {path}, but there are no keypoints "
                    f"{pose_path(self.root, path)}; add the file or remove the item"
                )

    def __len__(self) -> int:
        return len(self.items)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(source name, target name) of every item, with the source of the first epoch."""
        targets = (target for target, _ in self.items)
        return [(to_name(self._source(i)), to_name(target)) for i, target in enumerate(targets)]

    def _source(self, index: int) -> str:
        """The source drawn for sample ``index``, which counts on from epoch to epoch."""
        _, sources = self.items[index % len(self)]
        if len(sources) == 1:
            return sources[0]
        return sources[np.random.default_rng([self.seed, index]).integers(len(sources))]

    def image(self, path: str) -> torch.Tensor:
        image = image_from_bytes(self.images.read(path), f"{self.images.folder}: {path}")
        return image_to_tensor(image, self.load_size)

    def __getitem__(self, index: int) -> dict[str, Any]:
        target, _ = self.items[index % len(self)]
        sample: dict[str, Any] = {}
        for role, path in (("source", self._source(index)), ("target", target)):
            keypoints = shift(read_pose(pose_path(self.root, path)), -self._offset)
            sample[f"{role}_image"] = self.image(path)
            sample[f"{role}_keypoints"] = torch.from_numpy(keypoints)
            sample[f"{role}_name"] = to_name(path)
        return sample
