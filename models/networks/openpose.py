"""The OpenPose COCO-18 body network (Cao et al., CVPR 2017) under its released weight names.

A VGG trunk at stride 8 feeds six stages of two branches: L1 predicts 38 part affinity maps, L2 19
heat maps. The released weights are for non-commercial research.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

SCALE = 0.5  # of BOX_HEIGHT: 184 pixels high
BOX_HEIGHT = 368
STRIDE = 8
PAD_VALUE = 128
HEAT_THRESHOLD = 0.1
PAF_THRESHOLD = 0.05
SAMPLES = 10  # points at which the affinity field is read along a limb
MIN_JOINTS = 4
MIN_MEAN_SCORE = 0.4
JOINT_COUNT = 18

# (joint A, joint B, paf channel of x, paf channel of y), in the order of assembly.
AFFINITIES = (
    (1, 2, 12, 13), (1, 5, 20, 21), (2, 3, 14, 15), (3, 4, 16, 17), (5, 6, 22, 23), (6, 7, 24, 25),
    (1, 8, 0, 1), (8, 9, 2, 3), (9, 10, 4, 5), (1, 11, 6, 7), (11, 12, 8, 9), (12, 13, 10, 11),
    (1, 0, 28, 29), (0, 14, 30, 31), (14, 16, 34, 35), (0, 15, 32, 33), (15, 17, 36, 37),
    (2, 16, 18, 19), (5, 17, 26, 27),
)  # fmt: skip
STARTING_LIMBS = 17  # the two ear-shoulder limbs never start a person
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))  # a pixel and its four neighbours


class Peak(NamedTuple):
    """A local maximum of one joint's heat map."""

    x: int
    y: int
    score: float
    id: int  # running number over all joints


def network_input(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) -> float32 (1, 3, h, w): 184 rows, padded to a multiple of 8."""
    factor = SCALE * BOX_HEIGHT / image.shape[0]
    small = cv2.resize(image, (0, 0), fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    bottom, right = (-small.shape[0] % STRIDE, -small.shape[1] % STRIDE)
    padded = np.pad(small, ((0, bottom), (0, right), (0, 0)), constant_values=PAD_VALUE)
    values = padded.astype(np.float32) / 255 - 0.5
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def maps_to_image(maps: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Network output (1, C, h/8, w/8) -> float64 (H, W, C) in the image frame, bicubic twice."""
    height, width = image_size
    factor = SCALE * BOX_HEIGHT / height
    large = cv2.resize(
        np.ascontiguousarray(maps[0].transpose(1, 2, 0)),
        (0, 0), fx=STRIDE, fy=STRIDE, interpolation=cv2.INTER_CUBIC,
    )  # fmt: skip
    # The size that the resize in network_input rounded to, i.e. without the padding.
    rows, columns = (max(1, round(side * factor)) for side in (height, width))
    cut = large[:rows, :columns]
    return cv2.resize(cut, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float64)


def find_peaks(heat: np.ndarray) -> list[list[Peak]]:
    """Peaks of each of the 18 joints: no lower than the four neighbours after a blur of sigma 3.

    The threshold applies to the blurred map, the score is that of the unblurred one.
    """
    peaks: list[list[Peak]] = []
    ids = itertools.count()
    for joint in range(JOINT_COUNT):
        blurred = gaussian_filter(heat[:, :, joint], sigma=3)
        is_peak = (blurred > HEAT_THRESHOLD) & (blurred == cv2.dilate(blurred, CROSS))
        places = np.argwhere(is_peak).tolist()
        peaks.append([Peak(x, y, float(heat[y, x, joint]), next(ids)) for y, x in places])
    return peaks


def _limb_score(start: Peak, end: Peak, field: np.ndarray) -> float:
    """How well the affinity ``field`` (H, W, 2) supports a limb; 0 when it does not."""
    vector = np.array([end.x - start.x, end.y - start.y], dtype=np.float64)
    length = float(np.hypot(*vector))
    if length == 0:
        return 0.0
    columns = np.rint(np.linspace(start.x, end.x, SAMPLES)).astype(int)
    rows = np.rint(np.linspace(start.y, end.y, SAMPLES)).astype(int)
    along = field[rows, columns] @ (vector / length)
    supported = np.count_nonzero(along > PAF_THRESHOLD) > 0.8 * SAMPLES
    score = float(along.mean() + min(0.5 * field.shape[0] / length - 1, 0))
    return max(score, 0.0) if supported else 0.0


Link = tuple[float, int, int]  # score of a limb, ids of the peaks at its ends A and B


def _connect(starts: list[Peak], ends: list[Peak], field: np.ndarray) -> list[Link]:
    """The greedy matching of the ends of one kind of limb, best score first."""
    links = [(_limb_score(a, b, field), a.id, b.id) for a in starts for b in ends]
    chosen: list[Link] = []
    for score, a, b in sorted(links, key=lambda link: link[0], reverse=True):
        if score > 0 and all(a != link[1] and b != link[2] for link in chosen):
            chosen.append((score, a, b))
    return chosen


class _Person:
    """Joints collected so far: ``ids[j]`` is the peak id of joint j or -1."""

    def __init__(self) -> None:
        self.ids = np.full(JOINT_COUNT, -1)
        self.score = 0.0
        self.count = 0

    def set_joint(self, joint: int, peak: int, score: float) -> None:
        self.ids[joint] = peak
        self.count += 1
        self.score += score

    def absorb(self, other: _Person, score: float) -> None:
        """Merge a person with no joint in common."""
        self.ids = np.maximum(self.ids, other.ids)
        self.count += other.count
        self.score += other.score + score


def _assemble(peaks: list[list[Peak]], paf: np.ndarray, scores: list[float]) -> list[_Person]:
    """Join limbs to people, limb by limb in the order of :data:`AFFINITIES`."""
    people: list[_Person] = []
    for limb, (joint_a, joint_b, *channels) in enumerate(AFFINITIES):
        for score, a, b in _connect(peaks[joint_a], peaks[joint_b], paf[:, :, channels]):
            touching = [p for p in people if p.ids[joint_a] == a or p.ids[joint_b] == b]
            if len(touching) >= 2 and not np.logical_and(*(p.ids >= 0 for p in touching[:2])).any():
                touching[0].absorb(touching[1], score)
                people.remove(touching[1])
            elif touching:
                if len(touching) >= 2 or touching[0].ids[joint_b] != b:
                    touching[0].set_joint(joint_b, b, scores[b] + score)
            elif limb < STARTING_LIMBS:
                people.append(_Person())
                people[-1].set_joint(joint_a, a, scores[a])
                people[-1].set_joint(joint_b, b, scores[b])
                people[-1].score += score
    return [p for p in people if p.count >= MIN_JOINTS and p.score / p.count >= MIN_MEAN_SCORE]


def decode_people(
    heat: np.ndarray,  # (1, 19, h/8, w/8)
    paf: np.ndarray,  # (1, 38, h/8, w/8)
    image_size: tuple[int, int],  # (h, w)
) -> tuple[np.ndarray, np.ndarray]:
    """People in a picture: int keypoints (P, 18, 2), (y, x), -1 = missing, and peak scores (P, 18).

    The order is that in which people were started, the published one, not that of their scores.
    """
    peaks = find_peaks(maps_to_image(heat, image_size))
    flat = [peak for of_joint in peaks for peak in of_joint]
    people = _assemble(peaks, maps_to_image(paf, image_size), [peak.score for peak in flat])
    table = np.array([*((peak.y, peak.x, peak.score) for peak in flat), (-1.0, -1.0, 0.0)])
    ids = np.array([person.ids for person in people], dtype=int).reshape(-1, JOINT_COUNT)
    found = table[ids]  # id -1, a missing joint: the last row
    return found[..., :2].astype(int), found[..., 2]


PAF_MAPS = 38  # branch L1
HEAT_MAPS = 19  # branch L2: 18 joints and the background
STAGES = 6

# Layers of a sequence: (name, input channels, output channels, kernel); None is a 2x2 max-pool.
Layers = Sequence[tuple[str, int, int, int] | None]
TRUNK: Layers = (
    ("conv1_1", 3, 64, 3), ("conv1_2", 64, 64, 3), None,
    ("conv2_1", 64, 128, 3), ("conv2_2", 128, 128, 3), None,
    ("conv3_1", 128, 256, 3), *((f"conv3_{i}", 256, 256, 3) for i in (2, 3, 4)), None,
    ("conv4_1", 256, 512, 3), ("conv4_2", 512, 512, 3),
    ("conv4_3_CPM", 512, 256, 3), ("conv4_4_CPM", 256, 128, 3),
)  # fmt: skip


def _sequence(layers: Layers, relu_at_end: bool) -> nn.Sequential:
    """A ReLU after every convolution; after the last one only if ``relu_at_end``."""
    out: OrderedDict[str, nn.Module] = OrderedDict()
    for i, layer in enumerate(layers):
        if layer is None:
            out[f"pool{i}"] = nn.MaxPool2d(2)
        else:
            name, inputs, outputs, kernel = layer
            out[name] = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
            out[f"relu_{name}"] = nn.ReLU(inplace=True)
    if not relu_at_end:
        out.popitem()
    return nn.Sequential(out)


def _branch(stage: int, branch: int) -> nn.Sequential:
    """Stage 1 has three 3x3 convolutions, later stages five 7x7; both end with two 1x1."""
    maps = PAF_MAPS if branch == 1 else HEAT_MAPS
    if stage == 1:
        sizes = [(128, 128, 3)] * 3 + [(128, 512, 1), (512, maps, 1)]
        name = f"conv5_{{}}_CPM_L{branch}"
    else:
        first = (PAF_MAPS + HEAT_MAPS + 128, 128, 7)
        sizes = [first] + [(128, 128, 7)] * 4 + [(128, 128, 1), (128, maps, 1)]
        name = f"Mconv{{}}_stage{stage}_L{branch}"
    layers = [(name.format(i), *size) for i, size in enumerate(sizes, 1)]
    # The released network rectifies its last heat maps; the decoder's thresholds expect that.
    return _sequence(layers, relu_at_end=stage == STAGES and branch == 2)


class OpenPoseBody(nn.Module):
    """(B, 3, H, W), v/255 - 0.5 -> affinity (B, 38, H/8, W/8), heat maps (B, 19, H/8, W/8)."""

    def __init__(self) -> None:
        super().__init__()
        self.model0 = _sequence(TRUNK, relu_at_end=True)
        for branch in (1, 2):
            for stage in range(1, STAGES + 1):
                setattr(self, f"model{stage}_{branch}", _branch(stage, branch))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        trunk = self.model0(image)  # (B, 128, H/8, W/8)
        paf, heat = self.model1_1(trunk), self.model1_2(trunk)
        for stage in range(2, STAGES + 1):
            x = torch.cat([paf, heat, trunk], dim=1)  # (B, 185, H/8, W/8)
            paf = getattr(self, f"model{stage}_1")(x)
            heat = getattr(self, f"model{stage}_2")(x)
        return paf, heat


def from_file_keys(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names of the released file -> names of :class:`OpenPoseBody`.

    The file's key is ours without its first component: ``model0.conv1_1.weight`` is
    ``conv1_1.weight``. Unknown keys are kept as they are, for a strict load to report.
    """
    with torch.device("meta"):
        ours = {key.split(".", 1)[1]: key for key in OpenPoseBody().state_dict()}
    return {ours.get(key, key): value for key, value in state.items()}
