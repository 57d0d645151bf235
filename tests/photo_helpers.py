"""Shared by the tests of keypoints and transfers: photographs, people and made weight files."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from models import create_model
from models.estimators import Person
from tests.helpers import draw, random_batch, train_options
from util.skeleton import JOINTS, LIMBS

# A standing person in a box of height and width 1, (y, x).
STANDING = np.array([
    (0.12, 0.50), (0.22, 0.50), (0.23, 0.38), (0.37, 0.33), (0.50, 0.31),
    (0.23, 0.62), (0.37, 0.67), (0.50, 0.69), (0.52, 0.42), (0.73, 0.41), (0.93, 0.41),
    (0.52, 0.58), (0.73, 0.59), (0.93, 0.59),
    (0.10, 0.48), (0.10, 0.52), (0.11, 0.45), (0.11, 0.55),
])  # fmt: skip


def standing(top: float, left: float, height: float, width: float) -> np.ndarray:
    """Keypoints (18, 2), whole pixels, of a person who fills the box."""
    return np.round(STANDING * (height, width) + (top, left))


def photo(size: tuple[int, int] = (300, 400), seed: int = 0) -> Image.Image:
    """A stick figure on a plain background, size (width, height), at :func:`photo_keypoints`."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(rng.integers(150, 250, 3).tolist()))
    painter = ImageDraw.Draw(image)
    points = photo_keypoints(size)
    for a, b in LIMBS:
        ends = [(x, y) for y, x in points[[a, b]].tolist()]
        painter.line(
            ends, fill=tuple(rng.integers(0, 120, 3).tolist()), width=max(2, size[1] // 40)
        )
    return image


def photo_keypoints(size: tuple[int, int]) -> np.ndarray:
    """Where the joints of :func:`photo` are."""
    width, height = size
    return standing(0.1 * height, 0.2 * width, 0.8 * height, 0.6 * width)


def person(keypoints: np.ndarray, score: float = 1.0) -> Person:
    seen = (np.asarray(keypoints) != -1).all(axis=1)
    return Person(np.asarray(keypoints, dtype=np.float64), np.where(seen, score, 0.0))


class StickFigureEstimator:
    """An estimator in the estimators' interface: knows where :func:`photo` has its joints."""

    def estimate(self, image: Image.Image) -> list[Person]:
        return [person(photo_keypoints(image.size))]


class ListEstimator:
    """Gives prepared answers, one a call."""

    def __init__(self, *answers: list[Person]):
        self.answers = list(answers)
        self.seen: list[Image.Image] = []

    def estimate(self, image: Image.Image) -> list[Person]:
        self.seen.append(image)
        return self.answers.pop(0)


def make_run(folder: Path, model: str, **options) -> Path:
    """A run's folder with a small generator, its spectral norms settled, and its saved options."""
    torch.manual_seed(1)
    options = {
        "ngf": 8, "ndf": 8, "load_size": (64, 64), "gpu_ids": -1, "init_type": "xavier",
        "init_gain": 1.0, "checkpoints_dir": folder.parent, "name": folder.name,
    } | options  # fmt: skip
    opt = train_options(model=model, **options)
    folder.mkdir(parents=True)
    trained = create_model(opt)
    inputs = trained.prepare(random_batch(2, (64, 64)))
    for _ in range(5):  # power iterations and running statistics, as training would have done
        trained.infer(inputs)
    trained.save_networks("latest")
    (folder / "train_opt.json").write_text(json.dumps(vars(opt)))
    return folder


def openpose_state(keys: list[tuple[str, tuple[int, ...]]]) -> dict[str, torch.Tensor]:
    """Weights of the golden OpenPose arrays under the names of the released file."""
    state = {}
    for key, shape in keys:
        name = key.split(".", 1)[1]
        scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) == 4 else 0.1
        values = draw(f"openpose.{name}", shape) * scale
        state[name] = torch.from_numpy(values.astype(np.float32))
    return state


def magpt_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Weights of the golden API pictures: every kind of tensor by its rule."""
    state = {}
    for name, shape in shapes.items():
        z = draw(name, shape) if not name.endswith("tracked") else np.zeros(shape)
        if len(shape) == 4:
            z = 1.2 * z / np.sqrt(np.prod(shape[1:]))
        elif name.endswith("running_var"):
            z = np.exp(0.1 * z)
        elif name.endswith(".weight"):
            z = 1 + 0.1 * z
        elif not name.endswith("tracked"):
            z = 0.1 * z
        dtype = np.int64 if name.endswith("tracked") else np.float32
        state[name] = torch.from_numpy(np.asarray(z).astype(dtype))
    state["in2_conv1.0.weight"] *= 100
    return state


def joint(name: str) -> int:
    return JOINTS.index(name)
