"""Masks of people, the hole they leave and the scene that stays: on rendered people, whose masks
are known."""

import numpy as np
import pytest
import torch
from PIL import Image

from data.synthetic.identity import sample_identity
from data.synthetic.picture import light, render
from data.synthetic.pose import sample_pose
from models.estimators import MaskRcnn, create_masker
from tests.photo_helpers import photo, standing
from util.errors import UserError
from util.person.background import grabcut_mask, replace_person, without_person
from util.person.crop import Box, in_photo, to_frame

SIZE = (256, 176)


def rendered(seed: int, background: str) -> tuple[Image.Image, np.ndarray, np.ndarray]:
    """A picture of a person before a scene, the person's true mask, and keypoints."""
    rng = np.random.default_rng(seed)
    layers = render(sample_identity(rng), sample_pose(rng, "full"), SIZE, background, rng)
    return Image.fromarray(layers[0]), layers[2], layers[1]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a > 0.5, b > 0.5
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("background", ["street", "room", "light", "studio"])
def test_grabcut_finds_the_person_before_every_scene(background):
    scores = [
        overlap(grabcut_mask(picture, keypoints), mask)
        for picture, mask, keypoints in (rendered(seed, background) for seed in (1, 2, 3))
    ]
    assert min(scores) > 0.85
    assert np.mean(scores) > 0.92


def test_grabcut_needs_few_joints_and_knows_nobody_without_any():
    picture, mask, keypoints = rendered(1, "studio")
    few = keypoints.copy()
    few[[0, 3, 4, 14, 15, 16, 17]] = -1
    assert overlap(grabcut_mask(picture, few), mask) > 0.7
    assert grabcut_mask(picture, np.full((18, 2), -1)).max() == 0
    one = np.full((18, 2), -1)
    one[1] = keypoints[1]
    assert grabcut_mask(picture, one).shape == SIZE


def test_the_hole_behind_a_person_is_the_scene_and_nothing_else_changes():
    picture, mask, keypoints = rendered(2, "light")
    scene = np.asarray(without_person(picture, grabcut_mask(picture, keypoints))).astype(int)
    empty = light(np.random.default_rng(0), SIZE, 0.9).mean() * 255
    assert np.abs(scene[mask > 0.5] - empty).mean() < 15  # a wall, nothing of the clothes
    far = np.ones(SIZE, bool)
    y, x = np.nonzero(mask > 0.01)
    far[max(y.min() - 25, 0) : y.max() + 25, max(x.min() - 25, 0) : x.max() + 25] = False
    assert np.array_equal(scene[far], np.asarray(picture)[far])
    assert without_person(picture, np.zeros(SIZE, np.float32)) == picture


def test_the_new_person_stands_in_the_old_scene_without_a_rectangle():
    photo_picture, mask, keypoints = rendered(5, "street")
    result, new_mask, new_keypoints = rendered(3, "light")  # painted on a pale wall
    found = replace_person(
        photo_picture, grabcut_mask(photo_picture, keypoints),
        result, grabcut_mask(result, new_keypoints), Box(0, 0, *SIZE),
    )  # fmt: skip
    found, old, new = (np.asarray(p).astype(int) for p in (found, photo_picture, result))
    both = (mask < 0.01) & (new_mask < 0.01)
    assert np.median(np.abs(found - old)[both]) == 0  # the street is there
    assert np.abs(found - new)[both].mean() > 30  # and nothing of the wall
    assert np.abs(found - new)[new_mask > 0.99].mean() < 12


def test_a_box_beyond_the_photo_is_cut_off():
    picture, mask, _ = rendered(1, "light")
    full = np.ones((40, 40), np.float32)
    red = Image.new("RGB", (40, 40), (255, 0, 0))
    found = replace_person(picture, np.zeros_like(mask), red, full, Box(-20, 156, 40, 40))
    found = np.asarray(found)
    assert (found[:15, 170:] == (255, 0, 0)).all()
    assert np.array_equal(found[40:], np.asarray(picture)[40:])


def test_keypoints_go_back_to_the_photo():
    points = standing(40, 30, 200, 110)
    points[3] = -1
    box = Box(-10, 7, 512, 352)
    back = in_photo(to_frame(points, box, SIZE), box, SIZE)
    assert np.array_equal(back[3], [-1, -1])
    assert np.abs(back - points).max() <= 2


def test_mask_rcnn_takes_the_person_with_most_joints():
    points = standing(10, 10, 60, 40)

    class Network(torch.nn.Module):
        def forward(self, pictures):
            masks = torch.zeros(3, 1, 90, 70)
            masks[0, 0, :, 60:] = 0.9  # somebody else
            masks[1, 0, 5:75, 5:55] = 0.8
            masks[2, 0] = 1.0  # a bus
            return [{"labels": torch.tensor([1, 1, 6]), "scores": torch.tensor([0.99, 0.9, 0.99]),
                     "masks": masks}]  # fmt: skip

    masker = object.__new__(MaskRcnn)
    masker.network, masker.device = Network(), torch.device("cpu")
    found = masker(photo((70, 90)), points)
    assert found.shape == (90, 70)
    assert found[:, 60:].max() == 0
    assert found[5:75, 5:55].min() == pytest.approx(0.8)


def test_masks_are_chosen_by_name():
    assert create_masker("none") is None
    assert create_masker("grabcut") is grabcut_mask
    with pytest.raises(UserError, match=r"no such file; expected torchvision's maskrcnn"):
        create_masker("maskrcnn", "none.pth")
    with pytest.raises(UserError, match="--mask_weights belongs to --mask maskrcnn"):
        create_masker("grabcut", "some.pth")
