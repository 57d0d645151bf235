"""The OpenPose COCO-18 network, its weight file and its decoder, against recorded arrays."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from models.estimators import OpenPoseEstimator, Person, choose_person, create_estimator
from models.networks.openpose import (
    OpenPoseBody,
    decode_people,
    find_peaks,
    from_file_keys,
    network_input,
)
from tests.helpers import GOLDEN
from tests.photo_helpers import openpose_state
from util.errors import UserError
from util.skeleton import present

ARRAYS = np.load(GOLDEN / "magpt_api.npz")
KEYS = [(k, tuple(v)) for k, v in json.loads((GOLDEN / "openpose_keys.json").read_text()).items()]


@pytest.fixture(scope="module")
def weight_file(tmp_path_factory):
    """A file in the released format with the weights of the recorded arrays."""
    path = tmp_path_factory.mktemp("weights") / "openpose_body_coco_pose_iter_440000.pth"
    torch.save(openpose_state(KEYS), path)
    return path


def test_the_network_has_the_released_names_and_shapes_in_order():
    with torch.device("meta"):
        state = OpenPoseBody().state_dict()
    assert [(key, tuple(value.shape)) for key, value in state.items()] == KEYS


def test_file_keys_are_ours_without_the_first_component():
    state = {key.split(".", 1)[1]: torch.tensor(i) for i, (key, _) in enumerate(KEYS)}
    assert len(state) == len(KEYS)
    assert list(from_file_keys(state)) == [key for key, _ in KEYS]


def test_a_released_file_gives_the_recorded_maps(weight_file):
    network = create_estimator("openpose", weight_file).network
    image = np.random.RandomState(0).uniform(-0.5, 0.5, (1, 3, 64, 64)).astype(np.float32)
    with torch.no_grad():
        paf, heat = network(torch.from_numpy(image))
    np.testing.assert_allclose(paf, ARRAYS["op_net_paf"], atol=1e-5)
    np.testing.assert_allclose(heat, ARRAYS["op_net_heat"], atol=1e-5)
    assert heat.min() >= 0  # the ReLU of the last stage


def test_a_file_with_another_network_is_refused(tmp_path):
    torch.save({"conv1_1.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "wrong.pth")
    with pytest.raises(UserError, match="does not fit OpenPoseBody: keys 183 missing"):
        create_estimator("openpose", tmp_path / "wrong.pth")


def test_the_network_input_is_the_recorded_one():
    values = network_input(ARRAYS["op_pre_in"])
    assert values.shape == (1, 3, 184, 128)
    np.testing.assert_allclose(values[:, :, ::4, ::4], ARRAYS["op_pre_out_sub4"], atol=1e-6)


def test_maps_decode_to_the_recorded_people():
    keypoints, scores = decode_people(ARRAYS["op_stage_heat"], ARRAYS["op_stage_paf"], (256, 256))
    recorded = ARRAYS["op_stage_keypoints"]  # (2, 18, 3): x, y, found
    found = recorded[..., 2] > 0
    assert np.array_equal(keypoints[found], recorded[found][:, 1::-1])
    assert (keypoints[~found] == -1).all()
    assert ((scores > 0) == found).all()


def test_empty_maps_hold_nobody():
    keypoints, scores = decode_people(
        np.zeros((1, 19, 23, 16)), np.zeros((1, 38, 23, 16)), (256, 176)
    )
    assert keypoints.shape == (0, 18, 2)
    assert scores.shape == (0, 18)


def test_a_plateau_and_the_border_can_be_peaks():
    heat = np.zeros((40, 40, 19))
    heat[0:3, 0:3, 4] = 5
    peaks = find_peaks(heat)
    assert [(p.x, p.y) for p in peaks[4]] == [(0, 0)]
    assert not any(peaks[j] for j in range(18) if j != 4)


class SpyNetwork:
    """Returns the recorded maps and keeps its input."""

    def __call__(self, image):
        self.image = image
        return torch.from_numpy(ARRAYS["op_stage_paf"]), torch.from_numpy(ARRAYS["op_stage_heat"])


def test_a_peak_is_compared_with_four_neighbours_as_published():
    """On a diagonal ridge that rises, the diagonal neighbour is higher and does not count."""
    heat = np.zeros((40, 40, 19))
    for i in range(8, 33):
        heat[i, i, 0] = 3 + 0.01 * i
    inside = [(peak.y, peak.x) for peak in find_peaks(heat)[0] if 15 <= peak.y <= 20]
    assert inside == [(i, i) for i in range(15, 21)]


def test_the_estimator_returns_people_in_y_x_in_the_published_order():
    image = Image.new("RGB", (256, 256))
    people = OpenPoseEstimator(SpyNetwork()).estimate(image)
    recorded = ARRAYS["op_stage_keypoints"]
    for person, expected in zip(people, recorded, strict=True):
        assert present(person.keypoints).sum() == expected[:, 2].sum()
        joint = int(np.argmax(expected[:, 2]))
        assert person.keypoints[joint].tolist() == expected[joint, 1::-1].tolist()


def test_a_large_photo_is_decoded_small_and_its_joints_lie_in_the_photo():
    estimator = OpenPoseEstimator(SpyNetwork())
    small, large = (estimator.estimate(Image.new("RGB", (side, side))) for side in (768, 3072))
    assert len(small) == len(large) > 0
    for a, b in zip(small, large, strict=True):
        seen = a.scores > 0
        assert np.array_equal(b.keypoints[seen], a.keypoints[seen] * 4 + 1.5)
        assert (b.keypoints[~seen] == -1).all()


@pytest.mark.parametrize(("bgr", "first_channel"), [(True, 2), (False, 0)])
def test_the_network_sees_bgr_unless_published_behaviour_is_asked_for(bgr, first_channel):
    network = SpyNetwork()
    image = Image.new("RGB", (256, 256), (10, 100, 200))
    OpenPoseEstimator(network, bgr=bgr).estimate(image)
    value = (10, 100, 200)[first_channel] / 255 - 0.5
    assert network.image[0, 0].mean().item() == pytest.approx(value, abs=1e-6)


def test_first_takes_the_published_person_and_best_the_most_certain_one():
    points = np.full((18, 2), 5.0)
    people = [Person(points, np.full(18, 0.4)), Person(points + 1, np.full(18, 0.9))]
    assert choose_person(people, "x", "first") is people[0]
    assert choose_person(people, "x", "best") is people[1]
