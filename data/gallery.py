"""People and poses to choose from: those of a data set, synthetic ones, and posed by hand."""

import numpy as np
from PIL import Image

from data.base_dataset import BaseDataset
from data.synthetic.identity import Body, sample_identity
from data.synthetic.picture import pose_keypoints, render
from data.synthetic.pose import ARMS, LEGS, Pose, sample_pose

SYNTHETIC_SAMPLES = 96

# name -> arms right and left, legs, turn of the body in degrees
PRESETS: dict[str, tuple[str, str, str, float]] = {
    "Stand": ("relaxed", "relaxed", "stand", 0),
    "Arms out": ("wide", "wide", "wide", 0),
    "Arms up": ("raised", "raised", "wide", 0),
    "Wave": ("wave", "relaxed", "ease", -10),
    "On hips": ("hip", "hip", "wide", 0),
    "Think": ("folded", "phone", "ease", 20),
    "Knee up": ("hip", "wave", "lift", 15),
    "Stride": ("apart", "relaxed", "step", 70),
    "Turn": ("apart", "apart", "ease", -45),
    "Side": ("forward", "relaxed", "step", -90),
    "Back": ("apart", "apart", "wide", 180),
    "Look back": ("hip", "relaxed", "ease", 140),
}
NEUTRAL_BODY = Body(height=1.72, shoulders=1.0, hips=1.0, waist=0.95, bulk=1.0, bust=0.0)


def preset(name: str, frame: tuple[int, int]) -> np.ndarray:
    """Keypoints (18, 2), (y, x) in tenths of pixels, of one of the :data:`PRESETS`.

    Only the parts of an averted face are missing.
    """
    right, left, legs, turn = PRESETS[name]
    pose = Pose(yaw=float(np.radians(turn)), arms=(ARMS[right], ARMS[left]), legs=LEGS[legs])
    return pose_keypoints(NEUTRAL_BODY, pose, frame).round(1)


# name, image at load size, picture to show, keypoints
Sample = tuple[str, Image.Image, Image.Image, np.ndarray]


class DatasetSamples:
    """The source images of a data set, each once, people mixed."""

    def __init__(self, dataset: BaseDataset):
        self.dataset = dataset
        rows = {pair[0]: row for row, pair in reversed(list(enumerate(dataset.pairs)))}
        self.rows = np.random.default_rng(0).permutation(sorted(rows.values()))

    def __len__(self) -> int:
        return len(self.rows)

    def __call__(self, index: int) -> Sample:
        sample = self.dataset[int(self.rows[index])]
        name = sample["source_name"]
        image = Image.fromarray(sample["source_image"].permute(1, 2, 0).contiguous().numpy())
        photograph = self.dataset.photograph(name)
        shown = image if photograph is None else Image.fromarray(photograph)
        return name, image, shown, sample["source_keypoints"].numpy()


class SyntheticSamples:
    """Synthetic people, drawn when they are first looked at."""

    def __init__(self, load_size: tuple[int, int], frame: tuple[int, int]):
        self.load_size, self.frame = load_size, frame

    def __len__(self) -> int:
        return SYNTHETIC_SAMPLES

    def __call__(self, index: int) -> Sample:
        rng = np.random.default_rng((2025, index))
        pixels, keypoints, _ = render(sample_identity(rng), sample_pose(rng), self.frame, rng=rng)
        shown = Image.fromarray(pixels)
        image = shown.resize(self.load_size[::-1], Image.Resampling.BILINEAR)
        return f"synthetic person {index}", image, shown, keypoints.astype(np.float64)


Samples = DatasetSamples | SyntheticSamples  # people that are there from the start
