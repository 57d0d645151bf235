"""The 41 pose channels of the step system, against their closed form written pixel by pixel."""

import math

import numpy as np
import pytest
import torch

from util.person.maps import (
    STEP_LIMBS,
    eye_pixels,
    inside_frame,
    limb_maps,
    step_pose_maps,
)

FRAME = (256, 176)


def random_keypoints(batch=2, seed=0, frame=FRAME):
    rng = np.random.RandomState(seed)
    points = rng.rand(batch, 18, 2) * np.array(frame)
    return torch.from_numpy(np.floor(points))


def limb_by_hand(a, b, height, width, sigma=3.0):
    """The published closed form in plain Python floats."""
    picture = np.zeros((height, width))
    length = math.hypot(b[0] - a[0], b[1] - a[1])
    if length == 0:
        return picture
    direction = ((b[0] - a[0]) / length, (b[1] - a[1]) / length)
    scale = length / 256
    for r in range(height):
        for c in range(width):
            u = (r - a[0]) * direction[0] + (c - a[1]) * direction[1]
            w = (r - a[0]) * direction[1] - (c - a[1]) * direction[0]
            if -1e-9 <= u <= length + 1e-9:
                picture[r, c] = math.exp(-((w / scale) ** 2) / (2 * sigma**2))
    return picture


def test_there_are_18_keypoint_and_23_limb_channels():
    assert len(STEP_LIMBS) == 23
    assert step_pose_maps(random_keypoints(), FRAME, (64, 48)).shape == (2, 41, 64, 48)


@pytest.mark.parametrize("load_size", [(64, 64), (64, 44)])
def test_limbs_equal_the_closed_form_pixel_by_pixel(load_size):
    keypoints = random_keypoints(1)
    maps = limb_maps(keypoints, FRAME, load_size)
    assert maps.dtype == torch.float32
    scale = np.array(load_size) / np.array(FRAME)
    points = np.trunc(keypoints[0].numpy() * scale)
    for channel, (a, b) in enumerate(STEP_LIMBS):
        expected = limb_by_hand(points[a], points[b], *load_size)
        assert np.abs(maps[0, channel].numpy() - expected).max() < 1e-5


def test_limb_thickness_grows_with_limb_length():
    keypoints = torch.full((1, 18, 2), -1.0, dtype=torch.float64)
    keypoints[0, 2], keypoints[0, 3] = torch.tensor([[10.0, 20.0], [10.0, 98.0]])  # 78 px
    channel = STEP_LIMBS.index((2, 3))
    profile = limb_maps(keypoints, (128, 128), (128, 128))[0, channel, :, 50]
    sigma = 3 * 78 / 256
    expected = torch.exp(-((torch.arange(128.0) - 10) ** 2) / (2 * sigma**2))
    assert torch.allclose(profile, expected, atol=1e-6)


def test_limbs_end_exactly_at_their_joints():
    keypoints = torch.full((1, 18, 2), -1.0, dtype=torch.float64)
    keypoints[0, 5], keypoints[0, 6] = torch.tensor([[30.0, 8.0], [30.0, 40.0]])
    row = limb_maps(keypoints, (64, 64), (64, 64))[0, STEP_LIMBS.index((5, 6)), 30]
    assert row.tolist() == [0.0] * 8 + [1.0] * 33 + [0.0] * 23


def test_limbs_of_length_zero_are_empty():
    keypoints = torch.full((1, 18, 2), 20.0, dtype=torch.float64)
    assert limb_maps(keypoints, (64, 64), (64, 64)).abs().max() == 0


def test_a_missing_joint_empties_its_keypoint_and_its_limbs_only():
    keypoints = random_keypoints(1)
    complete = step_pose_maps(keypoints, FRAME, FRAME)
    keypoints[0, 3] = -1
    maps = step_pose_maps(keypoints, FRAME, FRAME)
    empty = {3} | {18 + i for i, pair in enumerate(STEP_LIMBS) if 3 in pair}
    for channel in range(41):
        if channel in empty:
            assert maps[0, channel].abs().max() == 0
        else:
            assert torch.equal(maps[0, channel], complete[0, channel])


@pytest.mark.parametrize("joint", [(-5.0, 10.0), (10.0, 176.0), (256.0, 10.0), (-1.0, 30.0)])
def test_joints_outside_the_frame_count_as_missing(joint):
    keypoints = random_keypoints(1)
    keypoints[0, 7] = torch.tensor(joint)
    assert not inside_frame(keypoints, FRAME)[0, 7]
    assert step_pose_maps(keypoints, FRAME, FRAME)[0, 7].abs().max() == 0


def test_keypoint_channels_are_gaussians_around_the_truncated_pixel():
    keypoints = torch.full((1, 18, 2), -1.0, dtype=torch.float64)
    keypoints[0, 4] = torch.tensor([100.0, 175.0])
    maps = step_pose_maps(keypoints, FRAME, (256, 256))
    r, c = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    expected = torch.exp(-((r - 100) ** 2 + (c - 254) ** 2) / 72)  # int(175 / 176 * 256) = 254
    assert torch.allclose(maps[0, 4], expected, atol=1e-6)


def test_eyes_are_scaled_without_rounding_and_faces_need_both():
    keypoints = torch.full((2, 18, 2), -1.0, dtype=torch.float64)
    keypoints[0, 14], keypoints[0, 15] = torch.tensor([[50.0, 80.0], [51.0, 96.0]])
    keypoints[1, 15] = torch.tensor([51.0, 96.0])
    eyes, faces = eye_pixels(keypoints, FRAME, (256, 256))
    expected = [[50, 80 / 176 * 256], [51, 96 / 176 * 256]]
    assert np.allclose(eyes[0].numpy(), expected, rtol=1e-12)
    assert faces.tolist() == [True, False]
