"""DeepFashion In-shop in MAGPT's layout: ``--dataset_mode magpt``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.pose_dataset import PoseDataset
from util.errors import UserError
from util.kinds import flag
from util.names import file_id
from util.tables.layouts import LAYOUTS
from util.tables.magpt import PAIR_COLUMNS, read_magpt_keypoints


class MagptDataset(PoseDataset):
    """256 x 256 photographs in their original ``img/`` tree, pairs and keypoints in two tables.

    Names are paths relative to the root (``img/WOMEN/...``), keypoints are keyed by file id.
    ``both_directions`` appends every pair with source and target exchanged, the published test.
    """

    load_size = annotation_size = LAYOUTS["magpt"].annotation_size
    pairs_files = LAYOUTS["magpt"].pairs
    annotation_files = LAYOUTS["magpt"].annotations
    pair_columns = PAIR_COLUMNS
    image_folders = (LAYOUTS["magpt"].image_folder,)

    def __init__(self, *args, both_directions: bool = False, **kwargs):
        self.both_directions = both_directions
        super().__init__(*args, **kwargs)

    @staticmethod
    def modify_options(parser, is_train: bool) -> None:
        if is_train:
            return
        both = "after all pairs also every pair with source and target exchanged"
        parser.option("--both_directions", flag, False, both)

    @classmethod
    def from_options(cls, opt) -> MagptDataset:
        return cls(
            opt.dataroot,
            opt.phase,
            opt.load_size,
            opt.annotation_size,
            cls.listed_pairs(opt),
            opt.seed,
            both_directions=getattr(opt, "both_directions", False),  # an option of test.py
        )

    def read_pairs(self, path: Path) -> list[tuple[str, str]]:
        pairs = super().read_pairs(path)
        if not self.both_directions:
            return pairs
        return list(dict.fromkeys([*pairs, *((b, a) for a, b in pairs)]))

    def read_keypoints(self, path: Path) -> dict[str, np.ndarray]:
        table = read_magpt_keypoints(path)
        owners: dict[str, str] = {}
        keypoints = {}
        for name in dict.fromkeys(name for pair in self.pairs for name in pair):
            key = file_id(name)
            if owners.setdefault(key, name) != name:
                raise UserError(
                    f"{name} and {owners[key]} share the file id {key}, so their keypoints cannot "
                    "be told apart; rename one of the files"
                )
            if key in table:
                keypoints[name] = table[key].in_frame(self.annotation_size)
        return keypoints
