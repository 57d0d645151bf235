"""Estimators: weight files in their real formats, decoded by the real code; choosing one person."""

import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models.detection import keypointrcnn_resnet50_fpn

from models.estimators import (
    Person,
    PersonFinder,
    TorchvisionEstimator,
    choose_person,
    create_estimator,
)
from tests.photo_helpers import ListEstimator, person, standing
from util.errors import UserError
from util.skeleton import present


@pytest.fixture(scope="module")
def rcnn_file(tmp_path_factory):
    """A file in torchvision's format: random weights, whose classifier calls every box a person."""
    torch.manual_seed(0)
    state = keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    state["roi_heads.box_predictor.cls_score.weight"].zero_()
    state["roi_heads.box_predictor.cls_score.bias"].copy_(torch.tensor([-3.0, 3.0]))
    path = tmp_path_factory.mktemp("weights") / "keypointrcnn_resnet50_fpn_coco-fc266e95.pth"
    torch.save(state, path)
    return path


def test_keypoint_rcnn_loads_its_file_and_decodes_people_inside_the_picture(rcnn_file):
    estimator = TorchvisionEstimator(torch.load(rcnn_file, weights_only=True), min_size=96)
    estimator.JOINT_LOGIT = -50.0  # random weights are certain of nothing
    pixels = np.random.default_rng(0).integers(0, 255, (120, 80, 3), dtype=np.uint8)
    people = estimator.estimate(Image.fromarray(pixels))
    assert people
    for found in people:
        assert present(found.keypoints).sum() == 18
        assert (found.keypoints >= -1).all()
        assert (found.keypoints <= (121, 81)).all()
        shoulders = found.keypoints[[2, 5]]
        np.testing.assert_allclose(found.keypoints[1], shoulders.mean(axis=0))
        assert ((found.scores > 0) & (found.scores <= 1)).all()


def test_keypoint_rcnn_leaves_out_uncertain_joints_and_people(rcnn_file):
    state = torch.load(rcnn_file, weights_only=True)
    image = Image.new("RGB", (80, 120), (90, 120, 40))
    estimator = TorchvisionEstimator(state, min_size=96)
    estimator.JOINT_LOGIT = 50.0
    assert {int(present(p.keypoints).sum()) for p in estimator.estimate(image)} == {0}
    state["roi_heads.box_predictor.cls_score.bias"].copy_(torch.tensor([3.0, -3.0]))
    assert TorchvisionEstimator(state, min_size=96).estimate(image) == []


class FakeNetwork:
    """Two detections as Keypoint R-CNN returns them."""

    def __call__(self, images):
        points = torch.arange(34.0).view(1, 17, 2).repeat(2, 1, 1)
        points = torch.cat([points, torch.ones(2, 17, 1)], dim=2)
        logits = torch.full((2, 17), 9.0)
        logits[0, 10] = 1.0  # right wrist
        return [
            {"scores": torch.tensor([0.9, 0.2]), "keypoints": points, "keypoints_scores": logits}
        ]


def test_keypoint_rcnn_output_becomes_our_joints(rcnn_file):
    estimator = TorchvisionEstimator(torch.load(rcnn_file, weights_only=True))
    estimator.network = FakeNetwork()
    (found,) = estimator.estimate(Image.new("RGB", (40, 40)))
    assert found.keypoints[2].tolist() == [13, 12]  # right shoulder: COCO's joint 6 at x 12, y 13
    assert found.keypoints[4].tolist() == [-1, -1]
    assert found.scores[4] == 0
    assert present(found.keypoints).sum() == 17


def test_the_default_estimator_is_torchvisions_and_takes_a_path(rcnn_file):
    assert isinstance(create_estimator(weights=rcnn_file), TorchvisionEstimator)


def test_missing_weights_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(UserError, match="keypointrcnn_resnet50_fpn is in neither cache") as caught:
        create_estimator()
    assert "put keypointrcnn_resnet50_fpn_coco-fc266e95.pth into" in str(caught.value)


def refuse(*args, **kwargs):
    raise OSError("no network")


# ---- rtmlib ------------------------------------------------------------------------------------


class Body:
    """rtmlib's two-stage solution, as far as the estimator uses it."""

    boxes = np.array([[1.0, 2.0, 30.0, 40.0]])

    def __init__(self, **settings):
        self.settings = settings

    def det_model(self, pixels):
        self.pixels = pixels
        return self.boxes

    def pose_model(self, pixels, bboxes):
        assert bboxes is self.boxes
        points = np.arange(34.0).reshape(1, 17, 2)
        return points, np.where(np.arange(17) == 9, 0.1, 0.8)[None]


@pytest.fixture
def rtmlib(monkeypatch):
    module = types.ModuleType("rtmlib")
    module.Body = type("Body", (Body,), {})
    monkeypatch.setitem(sys.modules, "rtmlib", module)
    return module


def test_rtmlib_is_given_bgr_and_its_coco_joints_become_ours(rtmlib):
    estimator = create_estimator("rtmlib")
    (found,) = estimator.estimate(Image.new("RGB", (50, 60), (10, 20, 30)))
    assert estimator.body.pixels[0, 0].tolist() == [30, 20, 10]
    assert estimator.body.settings["device"] == "cpu"
    assert found.keypoints[2].tolist() == [13, 12]
    assert found.keypoints[7].tolist() == [-1, -1]  # left wrist: COCO's joint 9, score 0.1


def test_rtmlib_without_a_box_is_nobody(rtmlib):
    rtmlib.Body.boxes = np.zeros((0, 4))
    assert create_estimator("rtmlib").estimate(Image.new("RGB", (50, 60))) == []


def test_rtmlib_that_cannot_load_is_one_sentence(rtmlib):
    rtmlib.Body = refuse
    with pytest.raises(UserError, match=r"rtmlib could not load its weights \(no network\)"):
        create_estimator("rtmlib")


def test_rtmlib_that_is_not_installed_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "rtmlib", None)
    with pytest.raises(UserError, match="pip install rtmlib"):
        create_estimator("rtmlib")


# ---- names, and choosing one person ------------------------------------------------------------


def test_an_unknown_estimator_is_refused_with_the_known_names():
    with pytest.raises(UserError, match="expected torchvision, openpose, openpose_rgb, rtmlib"):
        create_estimator("posenet")


def test_an_estimator_of_ones_own_is_imported_by_name():
    made = create_estimator("tests.photo_helpers:StickFigureEstimator")
    found = made.estimate(Image.new("RGB", (100, 200)))[0]
    assert present(found.keypoints).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:Thing", "No module named 'nowhere'"),
        ("tests.photo_helpers:Nothing", "has no attribute 'Nothing'"),
        ("collections:OrderedDict", "has no method estimate"),
    ],
)
def test_a_wrong_estimator_of_ones_own_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        create_estimator(name)


def test_nobody_and_too_few_joints_are_refused_in_words():
    with pytest.raises(UserError, match=r"me\.jpg: no person was found"):
        choose_person([], "me.jpg")
    points = standing(0, 0, 100, 50)
    points[5:] = -1
    with pytest.raises(UserError, match=r"only 5 of 18 joints were found.*left shoulder"):
        choose_person([person(points)], "me.jpg")
    chosen = choose_person([person(points)], "me.jpg", min_joints=5)
    assert present(chosen.keypoints).sum() == 5


def test_a_person_counts_joints_with_both_coordinates():
    points = np.full((18, 2), 3.0)
    points[0, 1] = -1
    found = Person(points, np.full(18, 0.5))
    assert present(found.keypoints).sum() == 17


@pytest.mark.parametrize("answer", [None, np.zeros((1, 18, 2)), [np.zeros((18, 2))]])
def test_an_estimator_that_returns_something_else_is_named(answer):
    with pytest.raises(UserError, match=r"^x: the estimator ListEstimator returned something else"):
        PersonFinder(ListEstimator(answer))(Image.new("RGB", (9, 9)), "x")


def test_a_person_of_another_joint_set_is_refused():
    with pytest.raises(
        UserError, match=r"of the shapes \(\(17, 2\), \(17,\)\); expected \(18, 2\)"
    ):
        Person(np.zeros((17, 2)), np.zeros(17))


def test_making_an_estimator_leaves_the_random_state_alone(rcnn_file):
    state = torch.get_rng_state()
    create_estimator(weights=rcnn_file)
    assert torch.equal(state, torch.get_rng_state())


def test_a_finder_loads_its_estimator_once_and_can_allow_nobody():
    finder = PersonFinder("tests.photo_helpers:StickFigureEstimator")
    assert finder.estimator is finder.estimator
    nobody = PersonFinder(ListEstimator([]), allow_nobody=True)(Image.new("RGB", (9, 9)), "x")
    assert (nobody == -1).all()
