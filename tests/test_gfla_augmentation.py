"""The random affine map of images and keypoints, against arrays of the published system."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from data.augmentation import AffineMap, augment, draw_affine
from tests.helpers import GOLDEN
from util.pose import keypoints_to_heatmaps

ANGLE, SHIFT, SCALE = (-5.0, 5.0), (-5.0, 5.0), (0.95, 1.05)
SIZES = {"fashion": (256, 256), "market": (128, 64)}
ANNOTATION_SIZES = {"fashion": (256, 176), "market": (128, 64)}
TAGS = ("fashion", "market_test", "market_P1", "market_P2")


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "gfla_pose.npz") as arrays:
        return dict(arrays)


def golden_map(golden, tag: str) -> AffineMap:
    angle, shift_x, shift_y, scale = golden[f"{tag}.params"]
    return AffineMap(angle, shift_x, shift_y, scale)


def moved_keypoints(golden, tag: str) -> np.ndarray:
    kind = tag.split("_")[0]
    keypoints = golden[f"{tag}.kp_yx"]
    scaled = keypoints / np.array(ANNOTATION_SIZES[kind]) * np.array(SIZES[kind])
    scaled[(keypoints == -1).any(axis=1)] = -1
    return golden_map(golden, tag).of_keypoints(scaled, SIZES[kind])


@pytest.mark.parametrize("tag", TAGS)
def test_the_matrix_equals_the_published_one(golden, tag):
    matrix = golden_map(golden, tag).matrix(SIZES[tag.split("_")[0]])
    np.testing.assert_allclose(matrix, golden[f"{tag}.affine_fwd"], atol=1e-12)


@pytest.mark.parametrize("tag", TAGS)
def test_keypoints_move_to_the_published_pixels(golden, tag):
    moved = moved_keypoints(golden, tag)
    expected = golden[f"{tag}.points_xy"][:, ::-1]
    missing = (expected == -999).any(axis=1)
    np.testing.assert_array_equal(np.trunc(moved[~missing]), expected[~missing])
    np.testing.assert_array_equal(moved[missing], -1)


@pytest.mark.parametrize("tag", TAGS)
def test_heatmaps_of_moved_keypoints_equal_the_published_ones(golden, tag):
    size = SIZES[tag.split("_")[0]]
    maps = keypoints_to_heatmaps(torch.from_numpy(moved_keypoints(golden, tag))[None], size, size)[
        0
    ]
    sums = maps.sum((1, 2)).numpy()
    np.testing.assert_allclose(sums, golden[f"{tag}.map_sum_per_joint"], rtol=1e-5)
    if f"{tag}.map" in golden:
        np.testing.assert_allclose(
            maps[:, ::4, ::4].permute(1, 2, 0), golden[f"{tag}.map"], atol=1e-6
        )


def test_the_warped_image_equals_the_published_one(golden):
    affine = golden_map(golden, "market_P1")
    inverse = np.linalg.inv(affine.matrix((128, 64)))[:2].flatten()
    np.testing.assert_allclose(inverse, golden["img.inv"], atol=1e-12)
    warped = affine.of_image(Image.fromarray(golden["img.in"]))
    np.testing.assert_array_equal(np.asarray(warped), golden["img.P1_affine"])


def test_nothing_is_drawn_or_changed_when_everything_is_off():
    rng = np.random.RandomState(0)
    image = Image.new("RGB", (64, 128), "red")
    keypoints = np.full((18, 2), 7.25)
    new_image, new_keypoints = augment(image, keypoints, None, None, None, rng, False)
    assert new_image is image
    assert new_keypoints is keypoints
    assert rng.uniform() == np.random.RandomState(0).uniform()


def test_draws_come_in_the_published_order_and_the_target_moves_less():
    reference = np.random.RandomState(3)
    a, s, x, y = (reference.uniform(*r) for r in (ANGLE, SCALE, SHIFT, SHIFT))
    source = draw_affine(np.random.RandomState(3), ANGLE, SHIFT, SCALE, is_target=False)
    target = draw_affine(np.random.RandomState(3), ANGLE, SHIFT, SCALE, is_target=True)
    assert source == AffineMap(a, x, y, s)
    assert target == AffineMap(0.2 * a, 0.5 * x, 0.5 * y, 1.0)


def test_image_and_keypoints_move_together():
    image = np.zeros((128, 64, 3), np.uint8)
    image[40:43, 20:23] = 255
    keypoints = np.array([[41.5, 21.5], [-1.0, 30.0]])  # the middle of the square; a missing joint
    rng = np.random.default_rng(1)
    for _ in range(5):
        moved, points = augment(
            Image.fromarray(image), keypoints, ANGLE, SHIFT, SCALE, rng, is_target=False
        )
        rows, cols = np.nonzero(np.asarray(moved)[..., 0] == 255)
        centre = np.array([rows.mean() + 0.5, cols.mean() + 0.5])
        assert np.abs(points[0] - centre).max() < 0.75
        assert (points[1] == -1).all()


def test_uncovered_corners_are_grey():
    moved = AffineMap(shift_x=10).of_image(Image.new("RGB", (64, 128), "white"))
    pixels = np.asarray(moved)
    assert (pixels[:, :9] == 128).all()
    assert (pixels[:, 11:] == 255).all()
