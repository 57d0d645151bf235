"""Batches by seed, epoch and position; shares of processes; packed images."""

import numpy as np
import pytest
import torch
from PIL import Image

from data.fashion_dataset import FashionDataset
from data.loader import EpochBatchSampler, make_loader
from tests import tiny_dataset
from util.image import load_image
from util.tensors import image_to_tensor


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny_dataset.write(tmp_path_factory.mktemp("tiny"))


# ---- order -------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [1, 7, 24, 25])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_without_dropping_every_sample_is_seen_exactly_once(size, batch, processes):
    seen = [
        index
        for rank in range(processes)
        for part in EpochBatchSampler(size, batch, 0, False, False, rank, processes)
        for index in part
    ]
    assert sorted(seen) == list(range(size))


@pytest.mark.parametrize("shuffle", [True, False])
def test_several_processes_see_together_what_one_process_with_the_joined_batch_sees(shuffle):
    one = list(EpochBatchSampler(26, 6, 3, shuffle, True))
    parts = [list(EpochBatchSampler(26, 2, 3, shuffle, True, rank, 3)) for rank in range(3)]
    assert [[*a, *b, *c] for a, b, c in zip(*parts, strict=True)] == one


def test_order_depends_on_seed_and_epoch_and_a_position_continues_it():
    sampler = EpochBatchSampler(40, 4, seed=1)
    orders = []
    for epoch in (1, 2, 1):
        sampler.set_position(epoch)
        orders.append([i % 40 for batch in sampler for i in batch])
    assert orders[0] == orders[2] != orders[1]
    sampler.set_position(1, samples_done=12)
    assert [i % 40 for batch in sampler for i in batch] == orders[0][12:]
    other = EpochBatchSampler(40, 4, seed=2)
    other.set_position(1)
    assert [i % 40 for batch in other for i in batch] != orders[0]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_do_not_depend_on_the_number_of_workers(root, workers):
    dataset = FashionDataset(root, "train", (64, 32))
    expected = list(make_loader(dataset, 2, workers=0, seed=5))
    loader = make_loader(dataset, 2, workers=workers, seed=5)
    for ours, theirs in zip(loader, expected, strict=True):
        assert ours["source_name"] == theirs["source_name"]
        assert torch.equal(ours["target_image"], theirs["target_image"])
        assert torch.equal(ours["source_keypoints"], theirs["source_keypoints"])


# ---- images ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(16, 18), (20, 30), (33, 7)])
def test_a_tensor_holds_the_pixels_of_pils_bilinear_resize(size):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    ours = image_to_tensor(image, size)
    expected = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))
    assert ours.dtype == torch.uint8
    assert ours.is_contiguous()
    np.testing.assert_array_equal(ours.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("extension", ["jpg", "png"])
def test_a_rotated_photograph_stands_upright(extension, tmp_path):
    pixels = np.zeros((8, 16, 3), dtype=np.uint8)
    pixels[:, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / f"a.{extension}", exif=exif)
    upright = np.asarray(load_image(tmp_path / f"a.{extension}"))
    assert upright.shape == (16, 8, 3)
    assert upright[:2].mean() > 200 > 60 > upright[8:].mean()
