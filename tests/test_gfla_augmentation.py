"""The random affine map of images and keypoints, against arrays of the published system."""

import numpy as np
import pytest
import torch
from PIL import Image

from data import find_dataset
from data.fashion_dataset import FashionDataset
from data.market_dataset import MarketDataset
from data.pose_dataset import AffineMap, AffineRanges, draw_affine, ranges_from_options
from tests.helpers import GOLDEN, train_options
from util.errors import UserError
from util.person.maps import keypoints_to_heatmaps
from util.tables.patn import write_keypoints, write_pairs

RANGES = MarketDataset.augmentation
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


def test_nothing_is_drawn_when_everything_is_off():
    rng = np.random.RandomState(0)
    assert draw_affine(rng, AffineRanges(), is_target=False) == AffineMap()
    assert rng.uniform() == np.random.RandomState(0).uniform()


def test_draws_come_in_the_published_order_and_the_target_moves_less():
    reference = np.random.RandomState(3)
    a, s, x, y = (
        reference.uniform(*r) for r in (RANGES.angle, RANGES.scale, RANGES.shift, RANGES.shift)
    )
    source = draw_affine(np.random.RandomState(3), RANGES, is_target=False)
    target = draw_affine(np.random.RandomState(3), RANGES, is_target=True)
    assert source == AffineMap(a, x, y, s)
    assert target == AffineMap(0.2 * a, 0.5 * x, 0.5 * y, 1.0)


def test_image_and_keypoints_move_together():
    image = np.zeros((128, 64, 3), np.uint8)
    image[40:43, 20:23] = 255
    keypoints = np.array([[41.5, 21.5], [-1.0, 30.0]])  # the middle of the square; a missing joint
    rng = np.random.default_rng(1)
    for _ in range(5):
        affine = draw_affine(rng, RANGES, is_target=False)
        moved = affine.of_image(Image.fromarray(image))
        points = affine.of_keypoints(keypoints, (128, 64))
        rows, cols = np.nonzero(np.asarray(moved)[..., 0] == 255)
        centre = np.array([rows.mean() + 0.5, cols.mean() + 0.5])
        assert np.abs(points[0] - centre).max() < 0.75
        assert (points[1] == -1).all()


def test_uncovered_corners_are_grey():
    moved = AffineMap(shift_x=10).of_image(Image.new("RGB", (64, 128), "white"))
    pixels = np.asarray(moved)
    assert (pixels[:, :9] == 128).all()
    assert (pixels[:, 11:] == 255).all()


@pytest.fixture
def market_folder(tmp_path):
    """Two pictures with a white square on joint 0, black elsewhere; joint 1 is missing."""
    (tmp_path / "train").mkdir()
    keypoints = {}
    for name, (y, x) in (("a.jpg", (40, 20)), ("b.jpg", (80, 40))):
        pixels = np.zeros((128, 64, 3), np.uint8)
        pixels[y - 3 : y + 4, x - 3 : x + 4] = 255
        Image.fromarray(pixels).save(tmp_path / "train" / name, quality=100)
        keypoints[name] = np.full((18, 2), -1.0)
        keypoints[name][0] = (y, x)
    write_keypoints(tmp_path / "market-annotation-train.csv", keypoints)
    write_pairs(tmp_path / "market-pairs-train.csv", [("a.jpg", "b.jpg")])
    return tmp_path


def test_samples_are_moved_with_their_keypoints_and_differ_between_epochs(market_folder):
    still = MarketDataset(market_folder)
    moving = MarketDataset(market_folder, augmentation=MarketDataset.augmentation)
    places = set()
    for epoch in range(4):
        sample = moving[epoch * len(moving)]
        again = moving[epoch * len(moving)]
        for role in ("source", "target"):
            image, keypoints = sample[f"{role}_image"], sample[f"{role}_keypoints"]
            assert torch.equal(image, again[f"{role}_image"])
            assert torch.equal(keypoints, again[f"{role}_keypoints"])
            assert image.dtype == torch.uint8
            assert (keypoints[1:] == -1).all()
            rows, cols = np.nonzero(image[0].numpy() > 200)
            assert abs(rows.mean() + 0.5 - keypoints[0, 0]) < 1.5
            assert abs(cols.mean() + 0.5 - keypoints[0, 1]) < 1.5
            places.add(tuple(keypoints[0].tolist()))
    assert len(places) == 8
    assert torch.equal(still[0]["source_keypoints"][0], torch.tensor([40.0, 20.0]).double())


def test_keypoints_stay_in_the_annotation_frame_at_another_load_size(market_folder):
    small, large = (
        MarketDataset(market_folder, load_size=size, augmentation=AffineRanges(angle=(4, 4)))
        for size in ((128, 64), (256, 128))
    )
    a, b = (dataset[0]["source_keypoints"][0] for dataset in (small, large))
    assert (a - b).abs().max() < 0.1  # the half pixel in the centre differs


def test_missing_joints_stay_missing_when_the_frames_differ(people):
    ranges = AffineRanges(angle=(-10, 10), shift=(-30, 30), scale=(0.9, 1.1))
    still = FashionDataset(people)  # load size 256 x 256, keypoints in 256 x 176
    moving = FashionDataset(people, augmentation=ranges)
    missing, moved = 0, 0
    for index in range(len(still)):
        for role in ("source", "target"):
            before, after = (data[index][f"{role}_keypoints"] for data in (still, moving))
            gone = (before == -1).any(dim=1)
            assert (after[gone] == -1).all()
            assert (after[~gone] != -1).all()
            missing, moved = missing + int(gone.sum()), moved + int((after != before).sum())
    assert missing > 10
    assert moved > 100


def test_market_training_of_gfla_is_augmented_and_other_training_is_not(market_folder):
    for model, mode, expected in (
        ("pose", "market", MarketDataset.augmentation),
        ("poseflownet", "market", MarketDataset.augmentation),
        ("DPTN", "market", AffineRanges()),
        ("pose", "fashion", AffineRanges()),
    ):
        opt = train_options(model=model, dataset_mode=mode)
        published = find_dataset(mode).augmentation
        assert ranges_from_options(opt, published) == expected, (model, mode)
    opt = train_options("--no_augment", model="pose", dataset_mode="market")
    assert ranges_from_options(opt, MarketDataset.augmentation) == AffineRanges()
    opt = train_options("--scale", "0.9", "1", model="pose", dataset_mode="market")
    changed = ranges_from_options(opt, MarketDataset.augmentation)
    assert changed == AffineRanges((-5, 5), (-5, 5), (0.9, 1.0))


@pytest.mark.parametrize("words", [("--angle", "5", "-5"), ("--scale", "0", "1")])
def test_impossible_ranges_are_explained(words):
    opt = train_options(*words, model="pose", dataset_mode="market")
    with pytest.raises(UserError, match="expected a lower and a higher bound"):
        ranges_from_options(opt, MarketDataset.augmentation)
