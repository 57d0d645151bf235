"""Poses from JSON and CSV files in the formats that estimators write."""

import json

import numpy as np
import pytest

from util.errors import UserError
from util.tables.patn import write_keypoints
from util.tables.poses import pose_text, poses_in, read_poses


def flat(count: int) -> list[float]:
    """x, y, score of ``count`` joints: joint i at (10 i, 10 i + 1)."""
    return [v for i in range(count) for v in (10.0 * i, 10.0 * i + 1, 0.9)]


def write(tmp_path, content) -> str:
    path = tmp_path / "pose.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(("count", "right_hip"), [(18, 8), (25, 9)])
def test_openpose_files_hold_people_with_18_or_25_joints(tmp_path, count, right_hip):
    person = {"pose_keypoints_2d": flat(count), "face_keypoints_2d": []}
    poses = read_poses(write(tmp_path, {"version": 1.3, "people": [person, person]}))
    assert [pose.name for pose in poses] == ["pose_0", "pose_1"]
    assert poses[0].keypoints[8].tolist() == [10 * right_hip + 1, 10 * right_hip]
    assert not poses[0].in_annotation_frame


def test_openpose_zeros_are_missing_joints(tmp_path):
    values = flat(18)
    values[9:12] = [0, 0, 0]
    poses = read_poses(write(tmp_path, {"people": [{"pose_keypoints_2d": values}]}))
    assert poses[0].keypoints[3].tolist() == [-1, -1]


@pytest.mark.parametrize("count", [17, 133])
@pytest.mark.parametrize("wrap", [lambda p: [p], lambda p: {"annotations": [p]}, lambda p: p])
def test_coco_annotations_and_results(tmp_path, count, wrap):
    person = {"image_id": 3, "category_id": 1, "keypoints": flat(count), "score": 0.8}
    (pose,) = read_poses(write(tmp_path, wrap(person)))
    assert pose.keypoints[2].tolist() == [61, 60]  # right shoulder is COCO's joint 6
    assert pose.keypoints[1].tolist() == [56, 55]  # neck: between 5 and 6


def test_ultralytics_results(tmp_path):
    table = {"x": [float(i) for i in range(17)], "y": [2.0 * i for i in range(17)]}
    table["visible"] = [0.9] * 16 + [0.0]
    person = {"name": "person", "class": 0, "keypoints": table}
    (pose,) = read_poses(write(tmp_path, [person]))
    assert pose.keypoints[2].tolist() == [12, 6]
    assert pose.keypoints[10].tolist() == [-1, -1]  # right ankle is COCO's joint 16


def test_mediapipe_landmarks_are_fractions_of_the_picture(tmp_path):
    marks = [{"x": 0.5, "y": i / 100, "z": 0, "visibility": 0.99} for i in range(33)]
    marks[28]["visibility"] = 0.2
    (pose,) = read_poses(write(tmp_path, {"width": 200, "height": 400, "landmarks": marks}))
    assert pose.keypoints[2].tolist() == [pytest.approx(48), 100]  # right shoulder: landmark 12
    assert pose.keypoints[10].tolist() == [-1, -1]


@pytest.mark.parametrize("width", [2, 3])
def test_a_plain_list_of_points(tmp_path, width):
    points = [[float(i), i + 100.0, 1.0][:width] for i in range(18)]
    (pose,) = read_poses(write(tmp_path, points))
    assert pose.keypoints[17].tolist() == [117, 17]


def test_a_plain_pair_of_minus_ones_is_a_missing_joint(tmp_path):
    points = [[float(i), 5.0] for i in range(18)]
    points[4] = [-1, -1]
    (pose,) = read_poses(write(tmp_path, {"keypoints": points}))
    assert pose.keypoints[4].tolist() == [-1, -1]


def test_csv_rows_are_poses_in_the_annotation_frame(tmp_path):
    table = {"a.jpg": np.arange(36.0).reshape(18, 2), "b.jpg": np.full((18, 2), -1.0)}
    write_keypoints(tmp_path / "poses.csv", table)
    first, second = read_poses(tmp_path / "poses.csv")
    assert (first.name, second.name) == ("a.jpg", "b.jpg")
    assert np.array_equal(first.keypoints, table["a.jpg"])
    assert first.in_annotation_frame


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a JSON file"),
        ({"people": []}, "holds no person"),
        ({"people": [{"pose_keypoints_2d": flat(20)}]}, "person 0: found 20 joints"),
        ({"people": [{"pose_keypoints_2d": [1, 2]}]}, "groups of 3"),
        ({"people": [{"pose_keypoints_2d": ["a", "b", "c"]}]}, "not a list of numbers"),
        ({"landmarks": [{"x": 0.1, "y": 0.2}]}, "fractions of the picture"),
        ({"keypoints": {"x": [1.0]}}, "lists x and y"),
        ({"joints": 3}, "found no keypoints"),
        (3, "found no keypoints"),
        ("", "is not a JSON file"),
    ],
)
def test_other_files_are_refused_with_a_sentence(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(UserError, match=message) as caught:
        read_poses(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file; expected keypoints as"):
        read_poses(tmp_path / "none.json")


def test_a_pose_of_ours_is_read_back_in_its_frame_and_scaled_to_another():
    keypoints = np.arange(36.0).reshape(18, 2)
    keypoints[4] = -1
    (pose,) = poses_in(pose_text(keypoints, (256, 176)), "me.json")
    assert pose.in_annotation_frame
    assert pose.name == "me_0"
    assert np.array_equal(pose.in_frame((256, 176)), keypoints)
    half = pose.in_frame((128, 88))
    assert np.array_equal(half[4], [-1, -1])
    assert np.array_equal(half[5], keypoints[5] / 2)


@pytest.mark.parametrize("frame", ["x", [1], [0, 5], [True, 5], [2.5, 3], None])
def test_a_frame_that_is_no_size_is_refused(frame):
    text = json.dumps({"frame": frame, "people": [{"pose_keypoints_2d": flat(18)}]})
    with pytest.raises(UserError, match=r"me.json: \"frame\" is .*; expected \[height, width\]"):
        poses_in(text, "me.json")


@pytest.mark.parametrize(
    "text",
    [
        '[["a", "b"]]',
        "[" * 900 + "]" * 900,
        "[[1e400, 2], [{}, 3]]",
        f'{{"keypoints": [1{"0" * 400}]}}',
    ],
)
def test_words_nests_and_huge_numbers_in_place_of_keypoints_are_refused(text):
    with pytest.raises(UserError, match=r"me.json"):
        poses_in(text, "me.json")
