"""The one table of data set files: names, sizes, published counts, and where people get them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

PHASES = ("train", "test")
MANIFEST_NAME = "dataset_manifest.json"
SYNTHETIC_NAME = "synthetic.json"  # the manifest of script/make_synthetic_dataset.py
LIST_NAME = "{phase}.lst"  # the images of a phase, one name a line
MAGPT_LIST_NAME = "{phase}_img_list.csv"
NTED_PAIRS_NAME = "{phase}_pairs.txt"

_DEEPFASHION = (
    "DeepFashion In-shop Clothes Retrieval, https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion.html "
    "(img.zip; img_highres.zip needs the password that its authors send after the signed "
    "agreement), then python script/generate_fashion_datasets.py"
)
_PATN = "the data links of https://github.com/tengteng95/Pose-Transfer (PATN)"
_MARKET = (
    "Market-1501 (Market-1501-v15.09.15.zip, its authors' page is linked from "
    "https://github.com/tengteng95/Pose-Transfer), then python script/prepare_market.py"
)
_MAGPT = "the data set archive linked from https://github.com/prasunroy/pose-transfer"


@dataclass(frozen=True)
class Layout:
    """Files of one ``--dataset_mode`` below its data root; ``{phase}`` is train or test."""

    mode: str
    pairs: tuple[str, ...]  # accepted names; the first that exists is used
    annotations: tuple[str, ...]
    image_folder: str
    annotation_size: tuple[int, int]  # (h, w): the frame of the keypoints
    pair_columns: tuple[str, str] = ("from", "to")
    image_counts: dict[str, int] = field(default_factory=dict)  # published, by phase
    pair_counts: dict[str, int] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)  # what -> where people get it

    @property
    def files(self) -> dict[str, tuple[str, ...]]:
        """What -> its accepted names."""
        return {"images": (self.image_folder,), "pairs": self.pairs, "keypoints": self.annotations}


def find_file(root: Path, names: Iterable[str], phase: str) -> Path | None:
    """The first of the accepted ``names`` that exists below ``root``."""
    paths = (root / name.format(phase=phase) for name in names)
    return next((path for path in paths if path.exists()), None)


_FASHION = tuple(
    f"{word}{kind}-%s-{{phase}}.csv" for kind in ("-resize", "") for word in ("fasion", "fashion")
)  # "fasion" is the spelling of the published files

LAYOUTS: dict[str, Layout] = {
    "fashion": Layout(
        mode="fashion",
        pairs=tuple(name % "pairs" for name in _FASHION),
        annotations=tuple(name % "annotation" for name in _FASHION),
        image_folder="{phase}",
        annotation_size=(256, 176),
        image_counts={"train": 48_674, "test": 4_038},
        pair_counts={"train": 101_966, "test": 8_570},
        origins={"images": _DEEPFASHION, "pairs": _PATN, "keypoints": _PATN, "list": _PATN},
    ),
    "market": Layout(
        mode="market",
        pairs=("market-pairs-{phase}.csv",),
        annotations=("market-annotation-{phase}.csv",),
        image_folder="{phase}",
        annotation_size=(128, 64),
        image_counts={"train": 12_936, "test": 19_732},
        pair_counts={"train": 263_632, "test": 12_000},
        origins={"images": _MARKET, "pairs": _PATN, "keypoints": _PATN},
    ),
    "magpt": Layout(
        mode="magpt",
        pairs=("{phase}_img_pairs.csv",),
        annotations=("{phase}_img_keypoints.csv",),
        image_folder=".",
        annotation_size=(256, 256),
        pair_columns=("imgA", "imgB"),
        pair_counts={"train": 101_966, "test": 8_570},
        origins={"images": _DEEPFASHION, "pairs": _MAGPT, "keypoints": _MAGPT},
    ),
}


def detect_layout(root: Path) -> Layout | None:
    """The layout most of whose tables exist below ``root``; None when there is none."""

    def present(layout: Layout) -> int:
        kinds = (layout.pairs, layout.annotations)
        return sum(find_file(root, names, p) is not None for names in kinds for p in PHASES)

    best = max(LAYOUTS.values(), key=present)
    return best if present(best) else None


def guess_layout(root: Path) -> Layout:
    """The layout that a root without tables, or one still to be made, is meant for: by its images,
    its release folders and its name."""
    folders = [root, *(root / phase for phase in PHASES)]
    names = [path.name for folder in folders if folder.is_dir() for path in folder.iterdir()]
    market = re.compile(r"(-1|[0-9]{4})_c[0-9]|bounding_box_|market", re.IGNORECASE)
    is_market = any(map(market.match, [*names, root.resolve().name]))
    return LAYOUTS["market" if is_market else "fashion"]


# --- images made from the DeepFashion and Market-1501 releases ----------------------------------

CROP_BOX = (40, 0, 216, 256)  # left, top, right, bottom of the person in the 256 x 256 release
RELEASE_SIZE = (256, 256)  # (h, w)
STRIP_SIZE = LAYOUTS["fashion"].annotation_size
MARKET_SIZE = LAYOUTS["market"].annotation_size


@dataclass(frozen=True)
class Preparation:
    """How the images of one folder are made from a release; ``size`` is (h, w)."""

    folder: str  # {phase} is train or test
    steps: tuple[str, ...]  # of: copy, crop, resize, pad
    size: tuple[int, int] | None
    file_format: str = "JPEG"
    resampling: str = "bicubic"  # a name of Pillow's filters


_STRIP = {"img": ("crop",), "img_highres": ("resize",)}
# system -> release -> folders. GFLA trains on unresized high-resolution files and is measured on
# 256 x 256 stretched ones; MAGPT is measured on the uncropped 256 x 256 files; NTED and PIDM on
# 176 x 256 PNG files.
PREPARATIONS: dict[str, dict[str, tuple[Preparation, ...]]] = {
    "dptn": {kind: (Preparation("{phase}", steps, STRIP_SIZE),) for kind, steps in _STRIP.items()},
    "gfla": {
        "img": (
            Preparation("{phase}", ("crop",), STRIP_SIZE),
            Preparation("{phase}_256", ("crop", "resize"), (256, 256)),
        ),
        "img_highres": (
            Preparation("{phase}", ("copy",), None),
            Preparation("{phase}_256", ("resize",), (256, 256)),
        ),
    },
    "magpt": {
        "img": (Preparation("{phase}_256", ("copy",), RELEASE_SIZE),),
        "img_highres": (Preparation("{phase}_256", ("resize", "pad"), STRIP_SIZE),),
    },
    "nted": {
        kind: (Preparation("{phase}_256", steps, STRIP_SIZE, "PNG"),)
        for kind, steps in _STRIP.items()
    },
}
MARKET_PREPARATIONS = (
    Preparation("{phase}", ("copy",), None),
    Preparation("{phase}_12864", ("copy",), MARKET_SIZE),  # named by the published metric commands
)
