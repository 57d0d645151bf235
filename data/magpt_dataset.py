"""DeepFashion In-shop in MAGPT's layout: ``--dataset_mode magpt``."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from data.pose_dataset import PoseDataset
from util.errors import UserError
from util.files import make_folder
from util.image import save_image
from util.kinds import flag
from util.names import file_id, refuse_alike, result_name
from util.tables.layouts import LAYOUTS
from util.tables.patn import names_in
from util.tables.uncropped import PAIR_COLUMNS, read_magpt_images
from util.tensors import SAVE_NORMS, normalise_uint8


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
        folders = "also <results>_published: fake_A, fake_B and the stretched real_A, real_B"
        parser.option("--published_folders", flag, False, folders)

    @classmethod
    def own_arguments(cls, opt) -> dict[str, Any]:
        if getattr(opt, "published_folders", False):
            asked = (opt.both_directions, opt.save_norm, opt.save_format)
            if asked != (True, "minmax", "jpg"):
                raise UserError(
                    "--published_folders also needs --both_directions --save_norm minmax "
                    "--save_format jpg, as MAGPT's test has them"
                )
        return {"both_directions": getattr(opt, "both_directions", False)}  # an option of test.py

    def read_pairs(self, path: Path) -> list[tuple[str, str]]:
        self.listed = super().read_pairs(path)
        if not self.both_directions:
            return self.listed
        return list(dict.fromkeys([*self.listed, *((b, a) for a, b in self.listed)]))

    def complete_results(self, results: Path, opt) -> None:
        """``--published_folders``: what MAGPT's test writes, beside ``results``.

        ``fake_images/iter_<checkpoint>/fake_B/<n>@<file id of the target>.jpg`` of the listed
        pairs, fake_A of the exchanged ones, and the true targets, stretched alike, in real_images.
        """
        if not opt.published_folders:
            return
        root, made = results.with_name(f"{results.name}_published"), set(self.pairs)
        exchanged = [(target, source) for source, target in self.listed]
        for side, pairs in (("A", exchanged), ("B", self.listed)):
            fake = make_folder(root / "fake_images" / f"iter_{opt.which_epoch}" / f"fake_{side}")
            real = root / "real_images" / f"real_{side}"
            for n, pair in enumerate(pairs):
                if pair in made:  # --how_many leaves some out
                    file = f"{n}@{file_id(pair[1])}.jpg"
                    shutil.copyfile(results / result_name(*pair, "jpg"), fake / file)
                    stretched = SAVE_NORMS["minmax"](normalise_uint8(self.image(pair[1])))
                    save_image(real / file, stretched)

    def read_keypoints(self, path: Path) -> dict[str, np.ndarray]:
        names = names_in(self.pairs)
        why = "share the file id {key}, so their keypoints cannot be told apart"
        refuse_alike(names, file_id, why)
        return read_magpt_images(path, names, self.annotation_size)
