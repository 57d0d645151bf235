"""The OpenPose COCO-18 body network (Cao et al., CVPR 2017) under its released weight names.

A VGG trunk at stride 8 feeds six stages of two branches: L1 predicts 38 part affinity maps, L2 19
heat maps. The released weights are for non-commercial research.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
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


class Peak(NamedTuple):
    """A local maximum of one joint's heat map."""

    x: int
    y: int
    score: float
    id: int  # running number over all joints


class Connection(NamedTuple):
    """Two peaks accepted as the ends of one limb."""

    a: int  # peak id
    b: int
    score: float


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
    count = 0
    for joint in range(JOINT_COUNT):
        blurred = gaussian_filter(heat[:, :, joint], sigma=3)
        padded = np.pad(blurred, 1)
        is_peak = blurred > HEAT_THRESHOLD
        for neighbour in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
            is_peak &= blurred >= neighbour
        found = [
            Peak(int(x), int(y), float(heat[y, x, joint]), count + i)
            for i, (y, x) in enumerate(np.argwhere(is_peak))
        ]
        peaks.append(found)
        count += len(found)
    return peaks


def _limb_score(start: Peak, end: Peak, field: np.ndarray) -> float | None:
    """How well the affinity ``field`` (H, W, 2) supports a limb; None when it does not."""
    vector = np.array([end.x - start.x, end.y - start.y], dtype=np.float64)
    length = float(np.hypot(*vector))
    if length == 0:
        return None
    columns = np.rint(np.linspace(start.x, end.x, SAMPLES)).astype(int)
    rows = np.rint(np.linspace(start.y, end.y, SAMPLES)).astype(int)
    along = field[rows, columns] @ (vector / length)
    score = along.mean() + min(0.5 * field.shape[0] / length - 1, 0)
    supported = np.count_nonzero(along > PAF_THRESHOLD) > 0.8 * SAMPLES
    return float(score) if supported and score > 0 else None


def find_connections(peaks: list[list[Peak]], paf: np.ndarray) -> list[list[Connection]]:
    """For each of :data:`AFFINITIES` the greedy matching of its ends, best score first."""
    result = []
    for joint_a, joint_b, channel_x, channel_y in AFFINITIES:
        field = paf[:, :, [channel_x, channel_y]]
        candidates = []
        for a in peaks[joint_a]:
            for b in peaks[joint_b]:
                score = _limb_score(a, b, field)
                if score is not None:
                    candidates.append(Connection(a.id, b.id, score))
        candidates.sort(key=lambda c: c.score, reverse=True)
        chosen: list[Connection] = []
        for candidate in candidates:
            if all(candidate.a != c.a and candidate.b != c.b for c in chosen):
                chosen.append(candidate)
        result.append(chosen)
    return result


class _Person:
    """Joints collected so far: ``ids[j]`` is the peak id of joint j or -1."""

    def __init__(self) -> None:
        self.ids = np.full(JOINT_COUNT, -1)
        self.score = 0.0
        self.count = 0

    def set_joint(self, joint: int, connection: Connection, peak_score: float) -> None:
        """Take over end B of a connection."""
        self.ids[joint] = connection.b
        self.count += 1
        self.score += peak_score + connection.score

    def overlaps(self, other: _Person) -> bool:
        """Whether some joint is present in both."""
        return bool(((self.ids >= 0) & (other.ids >= 0)).any())

    def absorb(self, other: _Person, connection: Connection) -> None:
        """Merge a person with no joint in common."""
        self.ids = np.maximum(self.ids, other.ids)
        self.count += other.count
        self.score += other.score + connection.score


def _assemble(connections: list[list[Connection]], scores: list[float]) -> list[_Person]:
    """Join limbs to people, limb by limb in the order of :data:`AFFINITIES`."""
    people: list[_Person] = []
    for limb, (joint_a, joint_b, _, _) in enumerate(AFFINITIES):
        for link in connections[limb]:
            touching = [p for p in people if p.ids[joint_a] == link.a or p.ids[joint_b] == link.b]
            if len(touching) >= 2 and not touching[0].overlaps(touching[1]):
                touching[0].absorb(touching[1], link)
                people.remove(touching[1])
            elif touching:
                if len(touching) >= 2 or touching[0].ids[joint_b] != link.b:
                    touching[0].set_joint(joint_b, link, scores[link.b])
            elif limb < STARTING_LIMBS:
                person = _Person()
                person.ids[[joint_a, joint_b]] = link.a, link.b
                person.count = 2
                person.score = scores[link.a] + scores[link.b] + link.score
                people.append(person)
    return [p for p in people if p.count >= MIN_JOINTS and p.score / p.count >= MIN_MEAN_SCORE]


def decode_people(
    heat: np.ndarray,  # (1, 19, h/8, w/8)
    paf: np.ndarray,  # (1, 38, h/8, w/8)
    image_size: tuple[int, int],  # (h, w)
) -> tuple[np.ndarray, np.ndarray]:
    """People in a picture: int keypoints (P, 18, 2), (y, x), -1 = missing, and peak scores (P, 18).

    The order is that in which people were started, the published one, not that of their scores.
    """
    heat_map = maps_to_image(heat, image_size)
    peaks = find_peaks(heat_map)
    connections = find_connections(peaks, maps_to_image(paf, image_size))
    flat = [peak for of_joint in peaks for peak in of_joint]
    people = _assemble(connections, [peak.score for peak in flat])
    keypoints = np.full((len(people), JOINT_COUNT, 2), -1)
    scores = np.zeros((len(people), JOINT_COUNT))
    for i, person in enumerate(people):
        for joint in np.flatnonzero(person.ids >= 0):
            peak = flat[person.ids[joint]]
            keypoints[i, joint] = peak.y, peak.x
            scores[i, joint] = peak.score
    return keypoints, scores


PAF_MAPS = 38  # branch L1
HEAT_MAPS = 19  # branch L2: 18 joints and the background
STAGES = 6

# (name, input channels, output channels); None is a 2x2 max-pool.
_TRUNK = (
    ("conv1_1", 3, 64), ("conv1_2", 64, 64), None,
    ("conv2_1", 64, 128), ("conv2_2", 128, 128), None,
    ("conv3_1", 128, 256), ("conv3_2", 256, 256), ("conv3_3", 256, 256), ("conv3_4", 256, 256),
    None,
    ("conv4_1", 256, 512), ("conv4_2", 512, 512),
    ("conv4_3_CPM", 512, 256), ("conv4_4_CPM", 256, 128),
)  # fmt: skip


def _conv(in_channels: int, out_channels: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)


def _with_relu(layers: OrderedDict[str, nn.Module], relu_at_end: bool) -> nn.Sequential:
    """A ReLU after every convolution; after the last one only if ``relu_at_end``."""
    out: OrderedDict[str, nn.Module] = OrderedDict()
    for name, layer in layers.items():
        out[name] = layer
        if isinstance(layer, nn.Conv2d):
            out[f"relu_{name}"] = nn.ReLU(inplace=True)
    if not relu_at_end:
        out.popitem()
    return nn.Sequential(out)


def _trunk() -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, layer in enumerate(_TRUNK):
        if layer is None:
            layers[f"pool{i}"] = nn.MaxPool2d(2)
        else:
            layers[layer[0]] = _conv(layer[1], layer[2], 3)
    return _with_relu(layers, relu_at_end=True)


def _branch(stage: int, branch: int) -> nn.Sequential:
    """Stage 1 has three 3x3 convolutions, later stages five 7x7; both end with two 1x1."""
    maps = PAF_MAPS if branch == 1 else HEAT_MAPS
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if stage == 1:
        sizes = [(128, 128, 3)] * 3 + [(128, 512, 1), (512, maps, 1)]
        names = [f"conv5_{i}_CPM_L{branch}" for i in range(1, 6)]
    else:
        first = (PAF_MAPS + HEAT_MAPS + 128, 128, 7)
        sizes = [first] + [(128, 128, 7)] * 4 + [(128, 128, 1), (128, maps, 1)]
        names = [f"Mconv{i}_stage{stage}_L{branch}" for i in range(1, 8)]
    for name, size in zip(names, sizes, strict=True):
        layers[name] = _conv(*size)
    # The released network rectifies its last heat maps; the decoder's thresholds expect that.
    return _with_relu(layers, relu_at_end=stage == STAGES and branch == 2)


class OpenPoseBody(nn.Module):
    """(B, 3, H, W), v/255 - 0.5 -> affinity (B, 38, H/8, W/8), heat maps (B, 19, H/8, W/8)."""

    def __init__(self) -> None:
        super().__init__()
        self.model0 = _trunk()
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
