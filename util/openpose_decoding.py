"""Input and output of the OpenPose COCO body network (Cao et al., CVPR 2017).

Follows the single-scale, repackaged decoder with which the published MAGPT keypoints were made,
including its order of people. Maps are (H, W, C) arrays; part affinity maps ("paf") have 38
channels, heat maps 19.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

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
LIMBS = (
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
    """For each of :data:`LIMBS` the greedy one-to-one matching of its ends, best score first."""
    result = []
    for joint_a, joint_b, channel_x, channel_y in LIMBS:
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
    """Join limbs to people, limb by limb in the order of :data:`LIMBS`."""
    people: list[_Person] = []
    for limb, (joint_a, joint_b, _, _) in enumerate(LIMBS):
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
