"""Joint sets of other estimators become our 18 joints: checked joint by joint."""

import numpy as np
import pytest

from util.errors import UserError
from util.keypoint_formats import JOINT_SETS, checked_keypoints, format_of, to_openpose18
from util.skeleton import JOINTS

# Index of each of our joints in the other set, from the documentation of each; None: it has
# no such joint. Order: nose, neck, R shoulder, elbow, wrist, L shoulder, elbow, wrist, R hip, knee,
# ankle, L hip, knee, ankle, R eye, L eye, R ear, L ear.
INDICES = {
    "openpose18": (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17),
    "body25": (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18),
    "coco17": (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3),
    "mediapipe33": (0, None, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7),
    "wholebody133": (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3),
}
COUNTS = {"openpose18": 18, "body25": 25, "coco17": 17, "mediapipe33": 33, "wholebody133": 133}
NECK = JOINTS.index("neck")
CASES = [
    (name, j) for name, indices in INDICES.items() for j, i in enumerate(indices) if i is not None
]


def numbered(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Joint i lies at x = 1000 + i, y = 2000 + i, with score 0.5 + i / 1000."""
    i = np.arange(COUNTS[name])
    return np.stack([1000.0 + i, 2000.0 + i], axis=1), 0.5 + i / 1000


@pytest.mark.parametrize(("name", "ours"), CASES)
def test_every_joint_comes_from_its_index_as_y_x(name, ours):
    keypoints, scores = to_openpose18(*numbered(name), name)
    theirs = INDICES[name][ours]
    assert keypoints[ours].tolist() == [2000 + theirs, 1000 + theirs]
    assert scores[ours] == pytest.approx(0.5 + theirs / 1000)


@pytest.mark.parametrize(("name", "ours"), CASES)
def test_a_joint_that_was_not_found_is_missing_and_no_other_is(name, ours):
    points, scores = numbered(name)
    scores[INDICES[name][ours]] = 0
    keypoints, out_scores = to_openpose18(points, scores, name)
    missing = {ours}
    if INDICES[name][NECK] is None and JOINTS[ours].endswith("shoulder"):
        missing.add(NECK)
    assert set(np.flatnonzero((keypoints == -1).all(axis=1))) == missing
    assert set(np.flatnonzero(out_scores == 0)) == missing


def test_the_table_of_formats_is_the_one_tested_here():
    assert {name: len(joints) for name, joints in JOINT_SETS.items()} == COUNTS


@pytest.mark.parametrize("name", ["coco17", "mediapipe33", "wholebody133"])
def test_the_neck_is_the_middle_of_the_shoulders_with_the_smaller_score(name):
    points, scores = numbered(name)
    left, right = INDICES[name][JOINTS.index("left shoulder")], INDICES[name][2]
    points[left], points[right] = (10, 40), (30, 50)
    scores[left], scores[right] = 0.9, 0.4
    keypoints, out_scores = to_openpose18(points, scores, name)
    assert keypoints[NECK].tolist() == [45, 20]
    assert out_scores[NECK] == 0.4


@pytest.mark.parametrize("side", ["left shoulder", "right shoulder"])
def test_there_is_no_neck_without_both_shoulders(side):
    points, scores = numbered("coco17")
    scores[JOINT_SETS["coco17"].index(side)] = 0
    keypoints, out_scores = to_openpose18(points, scores, "coco17")
    assert keypoints[NECK].tolist() == [-1, -1]
    assert out_scores[NECK] == 0


def test_scores_at_the_threshold_and_infinite_places_are_missing():
    points, scores = numbered("openpose18")
    scores[:] = 1
    scores[3] = 0.5
    points[4, 1] = np.nan
    keypoints, _ = to_openpose18(points, scores, "openpose18", threshold=0.5)
    assert np.flatnonzero((keypoints == -1).all(axis=1)).tolist() == [3, 4]


def test_many_people_are_converted_at_once():
    points, scores = numbered("coco17")
    keypoints, out_scores = to_openpose18(np.stack([points, points + 7]), np.stack([scores] * 2))
    assert keypoints.shape == (2, 18, 2)
    assert out_scores.shape == (2, 18)
    assert np.array_equal(keypoints[1], keypoints[0] + 7)


def test_points_are_not_changed():
    points, scores = numbered("coco17")
    before = points.copy(), scores.copy()
    to_openpose18(points, scores, "coco17")
    assert np.array_equal(points, before[0])
    assert np.array_equal(scores, before[1])


@pytest.mark.parametrize("name", COUNTS)
def test_the_number_of_joints_tells_the_format(name):
    assert format_of(COUNTS[name]) == name


def test_an_unknown_number_of_joints_is_refused():
    with pytest.raises(UserError, match=r"found 21 joints, expected 18 \(openpose18\), 17"):
        format_of(21)


def test_points_of_another_format_are_refused():
    with pytest.raises(UserError, match=r"expected .*17, 2"):
        to_openpose18(np.zeros((18, 2)), None, "coco17")


@pytest.mark.parametrize("wrong", [np.zeros((17, 2)), np.zeros((18, 3)), np.full((18, 2), np.nan)])
def test_given_keypoints_must_be_18_finite_pairs(wrong):
    with pytest.raises(UserError, match="source: keypoints have the shape"):
        checked_keypoints(wrong, "source")
