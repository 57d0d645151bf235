"""Every data set of the registry keeps the contract of training, validation and test."""

import numpy as np
import pytest
import torch

from data import create_dataset, list_datasets
from data.loader import create_dataloader, create_validation_dataset
from options.test_options import TestOptions
from tests.data_folders import MAKERS
from tests.helpers import train_options

MODES = list_datasets()


@pytest.fixture(scope="module", params=MODES)
def mode(request):
    assert request.param in MAKERS, "give tests/data_folders.py a small folder of this data set"
    return request.param


@pytest.fixture(scope="module")
def root(mode, tmp_path_factory):
    return MAKERS[mode](tmp_path_factory.mktemp(mode) / "data")


def training(mode, root, *words, **values):
    if hasattr(train_options(dataset_mode=mode, dataroot=root), "augment"):
        words = (*words, "--augment", "--angle", "-30", "30")
    return train_options(*words, dataset_mode=mode, dataroot=root, gpu_ids=-1, **values)


def test_samples_have_the_promised_types_and_sizes(mode, root):
    opt = training(mode, root)
    dataset = create_dataset(opt)
    sample = dataset[0]
    for key in ("source_image", "target_image"):
        assert sample[key].dtype == torch.uint8
        assert sample[key].shape == (3, *opt.load_size)
    for role in ("source", "target"):
        assert isinstance(sample[f"{role}_name"], str)
        if f"{role}_keypoints" in sample:
            assert sample[f"{role}_keypoints"].dtype == torch.float64
            assert sample[f"{role}_keypoints"].shape == (18, 2)
        else:
            assert sample[f"{role}_view"].dtype == torch.int64
    for index in (0, len(dataset)):  # of the first and of the second epoch
        assert same(dataset[index], dataset[index])


def same(a, b) -> bool:
    """Whether two samples are equal."""
    return a.keys() == b.keys() and all(
        torch.equal(value, b[key]) if torch.is_tensor(value) else value == b[key]
        for key, value in a.items()
    )


def test_validation_sees_the_pictures_of_the_test_untouched_by_augmentation(mode, root):
    opt = training(mode, root, val_freq=1)
    validation = create_validation_dataset(opt)
    words = ["--dataset_mode", mode, "--dataroot", str(root), "--gpu_ids", "-1"]
    test = create_dataset(TestOptions().parse(words))
    assert len(validation) == len(test) > 0
    for index in range(len(test)):
        found = validation[index]
        assert same(found, test[index])
        truth = validation.photograph(found["target_name"])
        if truth is not None and validation.load_size == validation.annotation_size:
            seen = found["target_image"].permute(1, 2, 0).numpy()
            assert np.array_equal(seen, truth), "a perfect generator must score perfectly"


def test_no_validation_without_val_freq(mode, root):
    assert create_validation_dataset(training(mode, root)) is None


def test_debugging_takes_one_step_however_large_the_batch(mode, root):
    opt = training(mode, root, "--debug", batchSize=12, nThreads=0)
    loader = create_dataloader(create_dataset(opt), opt)
    assert [len(batch["source_name"]) for batch in loader] == [12]


def test_a_short_epoch_is_drawn_from_all_pairs(mode, root):
    opt = training(mode, root, max_dataset_size=2, batchSize=2, nThreads=0)
    loader = create_dataloader(create_dataset(opt), opt)
    seen = set()
    for epoch in range(1, 12):
        loader.batch_sampler.set_position(epoch)
        (batch,) = list(loader)
        seen |= set(zip(batch["source_name"], batch["target_name"], strict=True))
    assert len(seen) > 4
