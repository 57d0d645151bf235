"""Heatmaps equal the reference maps and their closed form."""

import numpy as np
import pytest
import torch

from tests.helpers import GOLDEN
from util.person.maps import heatmaps_to_picture, keypoints_to_heatmaps
from util.skeleton import draw_skeleton

FRAMES = {"fashion": ((256, 176), (256, 256)), "market": ((128, 64), (128, 64))}


@pytest.mark.parametrize("name", FRAMES)
def test_heatmaps_equal_the_reference(name):
    golden = np.load(GOLDEN / "pose_and_metrics.npz")
    keypoints = torch.from_numpy(golden[f"{name}_keypoints_yx"])[None].double()
    maps = keypoints_to_heatmaps(keypoints, *FRAMES[name])[0].numpy()
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps[:, ::4, ::4], golden[f"{name}_map_sub"], atol=1e-6)
    np.testing.assert_allclose(maps.sum((1, 2)), golden[f"{name}_map_sum"], rtol=1e-5)
    for joint, peak in enumerate(golden[f"{name}_map_argmax"]):
        if peak[0] < 0:
            assert not maps[joint].any()
        else:
            assert np.unravel_index(maps[joint].argmax(), maps.shape[1:]) == tuple(peak)


def test_a_map_is_the_gaussian_of_the_truncated_joint():
    keypoints = torch.tensor([[[10.9, -3.7], [-1.0, 5.0], [5.0, -1.0]]], dtype=torch.float64)
    maps = keypoints_to_heatmaps(keypoints, (32, 32), (32, 32), sigma=2.0)[0]
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    expected = torch.exp(-((y - 10) ** 2 + (x + 3) ** 2) / 8)  # outside: only the tail shows
    torch.testing.assert_close(maps[0], expected, atol=1e-6, rtol=0)
    assert not maps[1:].any()


def test_every_integer_coordinate_lands_on_the_exact_pixel():
    x = torch.arange(176, dtype=torch.float64)
    keypoints = torch.stack([torch.zeros(176, dtype=torch.float64), x], dim=1)[None]
    maps = keypoints_to_heatmaps(keypoints, (256, 176), (256, 256))[0]
    assert maps[:, 0].argmax(dim=1).tolist() == [int(v) * 256 // 176 for v in x]


def test_drawing_skips_missing_joints_and_survives_any_coordinate():
    image = np.full((64, 48, 3), 255, dtype=np.uint8)
    nobody = np.full((18, 2), -1)
    assert np.array_equal(draw_skeleton(image, nobody), image)
    wild = nobody.astype(float)
    wild[0], wild[1], wild[2] = (1e9, -1e9), (np.nan, 3), (20, 20)
    drawn = draw_skeleton(image, wild)
    assert drawn.shape == image.shape
    assert not np.array_equal(drawn, image)
    assert (image == 255).all()


def test_the_picture_of_heatmaps_is_bright_at_the_joints():
    keypoints = torch.tensor([[[8.0, 4.0], [-1.0, -1.0]]])
    picture = heatmaps_to_picture(keypoints_to_heatmaps(keypoints, (16, 16), (16, 16), 1.0)[0])
    assert picture.shape == (16, 16, 3)
    assert picture[8, 4].max() == 255
    assert picture[0, 15].max() == 0
