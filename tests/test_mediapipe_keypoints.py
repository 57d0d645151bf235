"""The script that writes MediaPipe's landmarks, with a stand-in for the package: what it writes is
read back by the commands that take poses."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from script import mediapipe_keypoints
from tests.photo_helpers import photo, photo_keypoints
from util.errors import UserError
from util.keypoint_formats import JOINT_SETS
from util.show.grid import write_mp4
from util.skeleton import JOINTS
from util.tables.poses import read_poses

NAMES = JOINT_SETS["mediapipe33"]


class Pose:
    """MediaPipe's class: finds the stick figure, nobody in black pictures."""

    def __init__(self, **settings):
        assert settings["model_complexity"] == 1  # the network that is in the package

    def process(self, pixels):
        height, width = pixels.shape[:2]
        if not pixels.max():
            return SimpleNamespace(pose_landmarks=None)
        points = photo_keypoints((width, height)) / (height, width)
        marks = [SimpleNamespace(x=0.5, y=0.5, z=0.0, visibility=0.0) for _ in NAMES]
        for joint, (y, x) in zip(JOINTS, points, strict=True):
            if joint in NAMES:
                marks[NAMES.index(joint)] = SimpleNamespace(x=x, y=y, z=0.0, visibility=0.99)
        return SimpleNamespace(pose_landmarks=SimpleNamespace(landmark=marks))


@pytest.fixture
def package(monkeypatch):
    module = ModuleType("mediapipe.python.solutions.pose")
    module.Pose = Pose
    for name in ("mediapipe", "mediapipe.python", "mediapipe.python.solutions"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_photos_become_files_that_hold_their_joints(package, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    photo((300, 400)).save(folder / "me.png")
    Image.new("RGB", (60, 60)).save(folder / "black.png")
    mediapipe_keypoints.main([str(folder), "-o", str(tmp_path / "poses")])
    (pose,) = read_poses(tmp_path / "poses" / "me.json")
    expected = photo_keypoints((300, 400))
    expected[1] = expected[[2, 5]].mean(axis=0)
    np.testing.assert_allclose(pose.keypoints, expected, atol=0.01)
    assert "black.png: nobody was found" in capsys.readouterr().out
    assert [p.name for p in (tmp_path / "poses").iterdir()] == ["me.json"]


def test_a_video_becomes_a_sequence(package, tmp_path):
    frames = [np.asarray(photo((200, 300))), np.zeros((300, 200, 3), np.uint8)] * 2
    write_mp4(tmp_path / "walk.mp4", frames, 20, 0)
    mediapipe_keypoints.main([str(tmp_path / "walk.mp4"), "-o", str(tmp_path / "walk.json")])
    poses = read_poses(tmp_path / "walk.json", keep_empty=True)
    assert [(pose.keypoints[0] != -1).all() for pose in poses] == [True, False] * 2
    assert poses[0].fps == 20


def test_without_the_package_or_photos_it_is_one_sentence(tmp_path, monkeypatch):
    photo().save(tmp_path / "me.png")
    words = [str(tmp_path / "me.png"), "-o", str(tmp_path / "poses")]
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(UserError, match="in an environment of its own, pip install"):
        mediapipe_keypoints.main(words)
    with pytest.raises(UserError, match=r"none\.png: no such image"):
        mediapipe_keypoints.main([str(tmp_path / "none.png"), "-o", "x"])
    with pytest.raises(UserError, match="a video is given alone"):
        mediapipe_keypoints.main([words[0], str(tmp_path / "a.mp4"), *words[1:]])
