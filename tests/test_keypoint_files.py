"""Poses from JSON and CSV files in the formats that estimators write."""

import copy
import json
import re
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import cases
from tests.photo_helpers import standing
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
    frame = {"version": 1.3, "people": [person]}
    poses = read_poses(write(tmp_path, [frame, frame]))
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
        ({"people": [{"pose_keypoints_2d": [*flat(17), 1, 2, None]}]}, "one is null"),
        ({"people": [{"pose_keypoints_2d": [*flat(17), 1, 2, True]}]}, "one is true"),
        ('{"keypoints": [[NaN, 1]]}', "one is NaN"),
        ({"people": 7}, "found no keypoints"),
        ({"people": [7]}, "found 7; expected a person"),
        ({"people": [None]}, "found null; expected a person"),
        ({"landmarks": [], "width": 9, "height": 9}, "holds no person"),
        ({"landmarks": [{"x": 0.5, "y": 0.5}] * 33, "width": "9", "height": 9}, '"width" is "9"'),
        ({"landmarks": [{"x": 0.5, "y": 0.5}] * 33, "width": 10**9, "height": 9}, "from 1 to"),
        ({"landmarks": [{"x": 0.5}] * 33, "width": 9, "height": 9}, "fractions of the picture"),
        ([[[1, 2, 3, 4]] * 18], "fourth is not the index"),
        ({"keypoints": flat(17), "keypoint_scores": [1.0]}, "1 keypoint_scores for 17 keypoints"),
        ([{"people": []}, {"people": [{"pose_keypoints_2d": None}]}], "holds no person"),
        ({"frames": [], "fps": 10}, "holds no person"),
        ({"frames": [{"people": []}], "fps": 0}, '"fps" is 0; expected a number'),
        ([[[1, 2]], {"people": []}], "a list of other things than people"),
        ({"landmarks": [{"x": 0.1, "y": 0.2}] * 33}, "fractions of the picture"),
        ({"landmarks": [{"x": 0.1, "y": 0.2}]}, "found 1 joints"),
        ({"keypoints": {"x": [1.0]}}, "lists x and y of the same length"),
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


# The pose files hold this one person, (y, x), whose ankles have low scores in some of them.
WHOLE = np.array([
    (100, 300), (180, 300), (180, 250), (280, 230), (370, 225), (180, 350), (280, 370), (370, 375),
    (400, 270), (560, 268), (-1, -1), (400, 330), (560, 332), (-1, -1), (90, 288), (90, 312),
    (95, 275), (95, 325),
], dtype=np.float64)  # fmt: skip
FILES = Path(__file__).parent / "poses"


@pytest.mark.parametrize(
    "name",
    [
        "coco_results_low_scores", "ultralytics_low_scores", "mmpose_inferencer",
        "mmpose_demo_instance_info", "mmpose_demo_video", "openpose18_v10_pose_keypoints",
        "openpose_second_person_no_body", "dresscode_4_columns", "xy_only_36",
        "controlnet_pixels", "controlnet_normalised",
    ],
)  # fmt: skip
def test_what_estimators_write_is_the_same_person(name):
    (pose,) = read_poses(FILES / f"{name}.json")
    np.testing.assert_allclose(pose.keypoints, WHOLE, atol=0.5)  # fractions have three digits


def test_certain_joints_are_all_kept_and_the_threshold_is_a_choice():
    (pose,) = read_poses(FILES / "ultralytics.json")
    assert (pose.keypoints != -1).all()
    (pose,) = read_poses(FILES / "coco_results_low_scores.json", threshold=0.01)
    assert pose.keypoints[13].tolist() == [30, 20]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ultralytics_normalised", "fractions of the picture, which need the picture's size"),
        ("controlnet_null_body", "holds no person with a body joint"),
    ],
)
def test_files_that_lack_something_say_what(name, message):
    with pytest.raises(UserError, match=message):
        read_poses(FILES / f"{name}.json")


def test_of_several_people_in_a_picture_the_rule_decides(tmp_path):
    partial, complete = flat(18), flat(18)
    partial[9:] = [0] * 45
    complete[0] = 77.0
    path = write(tmp_path, {"people": [{"pose_keypoints_2d": p} for p in (partial, complete)]})
    (pose,) = read_poses(path, min_joints=6)
    assert pose.keypoints[0].tolist() == [1, 77]
    with pytest.raises(UserError, match=r"pose_0: only 3 of 18 joints"):
        read_poses(path, "first", min_joints=6)


def test_people_of_one_image_id_are_one_picture(tmp_path):
    people = [{"image_id": i // 2, "keypoints": flat(17), "score": 1.0} for i in range(4)]
    assert len(read_poses(write(tmp_path, people))) == 2
    images = [{"id": i, "width": 100, "height": 50} for i in range(2)]
    for person in people:
        person["keypoints"] = [v / 1000 if k % 3 < 2 else v for k, v in enumerate(flat(17))]
    poses = read_poses(write(tmp_path, {"annotations": people, "images": images}))
    np.testing.assert_allclose(poses[1].keypoints[2], [61 / 1000 * 50, 60 / 1000 * 100])


def test_a_sequence_of_ours_keeps_pictures_in_which_nobody_is_seen(tmp_path):
    walk = np.stack([standing(10, 10 + i, 220, 120) for i in range(3)])
    walk[1] = -1
    path = write(tmp_path, pose_text(walk, (256, 176), fps=8))
    poses = read_poses(path, keep_empty=True)
    assert np.array_equal([pose.keypoints for pose in poses], walk)
    assert {(pose.frame, pose.fps) for pose in poses} == {((256, 176), 8.0)}
    assert [pose.name for pose in read_poses(path)] == ["pose_0", "pose_2"]


DOCUMENTS = [json.loads(path.read_text()) for path in sorted(FILES.glob("*.json"))] + [
    {"width": 200, "height": 400,
     "landmarks": [{"x": 0.5, "y": i / 40, "z": 0, "visibility": 0.9} for i in range(33)]},
    json.loads(pose_text(np.stack([WHOLE, WHOLE + 1]), (700, 500), 8)),
    [[[float(x), float(y)] for y, x in WHOLE]] * 2,
    {"annotations": [{"image_id": 1, "keypoints": flat(133)}], "images": [{"id": 1}]},
]  # fmt: skip
JUNK = [
    None, True, False, 0, -1, 0.5, 1e300, 10**400, "", "12", "nan", [], {}, [[]], [{}], [1],
    [1, 2, 3],
    {"x": 1}, [[1, 2]] * 18, {"keypoints": None}, {"people": []},
]  # fmt: skip
KEYS = sorted(
    {key for text in map(json.dumps, DOCUMENTS) for key in re.findall('"([a-z_]+)":', text)}
)


def places(value, found=None) -> list[tuple]:
    """Every (container, key) in a JSON value."""
    found = [] if found is None else found
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        found.append((value, key))
        if isinstance(inner, dict | list):
            places(inner, found)
    return found


def damage(document, random) -> object:
    """The document with one value replaced, removed, doubled, renamed or wrapped."""
    container, key = random.choice(places(document) or [(document, None)])
    if key is None:
        return random.choice(JUNK)
    kind = random.randrange(6)
    if kind == 0:
        del container[key]
    elif kind == 1 and isinstance(container, list):
        container.insert(key, copy.deepcopy(container[key]))
    elif kind == 2 and isinstance(container, dict):
        container[random.choice(KEYS)] = container.pop(key)
    elif kind == 3:
        container[key] = [copy.deepcopy(container[key])]
    else:
        container[key] = copy.deepcopy(random.choice(JUNK))
    return document


def read_or_refused(content, keep_empty: bool) -> list | str:
    try:
        return poses_in(json.dumps(content), "some.json", keep_empty=keep_empty)
    except UserError as error:
        return str(error)


def test_fuzz_any_json_is_read_right_or_refused_in_one_sentence():
    outcomes = {"read": 0, "refused": 0}

    @cases(500)
    @given(st.sampled_from(DOCUMENTS), st.integers(0, 3), st.booleans(), st.integers(0, 2**40))
    def any_json(document, changes, keep_empty, seed):
        random, content = Random(seed), copy.deepcopy(document)
        for _ in range(changes):
            content = damage(content, random) if isinstance(content, dict | list) else content
        found = read_or_refused(content, keep_empty)
        if isinstance(found, str):
            assert found.startswith("some.json")
            assert "\n" not in found
            assert len(found) < 400
            outcomes["refused"] += 1
            return
        outcomes["read"] += 1
        assert found
        for pose in found:
            assert pose.keypoints.shape == (18, 2)
            assert np.isfinite(pose.keypoints).all()
            seen = (pose.keypoints != -1).all(axis=1)
            assert seen.any() or keep_empty
            assert (pose.keypoints[~seen] == -1).all()

    any_json()
    assert min(outcomes.values()) > sum(outcomes.values()) / 4


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"frames":[' * 450 + "]}" * 450, "[1" + "0" * 5000 + "]", "", "\0", "null"],
    ids=["nested", "frames in frames", "long number", "empty", "zero byte", "null"],
)
def test_texts_that_break_parsers_are_refused(text):
    with pytest.raises(UserError, match=r"^some\.json"):
        poses_in(text, "some.json")
