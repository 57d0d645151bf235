"""Shared by the tests of the step model: small models, batches, and one VGG-19 for all."""

import copy
import functools
from unittest.mock import patch

import torch

from models.dptn_step_model import DPTNStepModel
from models.losses.perceptual import VGG19Features
from tests.helpers import train_options

SIZE = (32, 16)
FRAME = (64, 32)  # of the keypoints
JOINTS_Y = [8, 14, 15, 24, 32, 15, 24, 32, 34, 46, 58, 34, 46, 58, 7, 7, 8, 8]
JOINTS_X = [16, 16, 10, 8, 8, 22, 24, 24, 12, 12, 12, 20, 20, 20, 13, 19, 11, 21]


_vgg = functools.cache(VGG19Features)


def _shared_vgg(weights, precision, width):
    """Drawing 20 million weights for every model would take most of the time of these tests."""
    shared = precision.name == "fp32" and width == 1
    return _vgg(weights) if shared else VGG19Features(weights, precision, width)


def make_model(tmp_path, *flags, **values):
    defaults = {
        "model": "DPTN_step", "checkpoints_dir": tmp_path, "name": "run", "gpu_ids": -1,
        "load_size": SIZE, "annotation_size": FRAME, "ngf": 4, "ndf": 4, "batchSize": 2,
    }  # fmt: skip
    opt = train_options(*flags, **{**defaults, **values})
    _vgg("random")  # now, or the first model would start from other random numbers than the rest
    torch.manual_seed(0)
    with patch("models.base_model.VGG19Features", _shared_vgg):
        model = DPTNStepModel(opt)
    model.run_dir.mkdir(exist_ok=True)
    return model


def make_test_model(model, name="run"):
    """The same networks as test.py builds them."""
    opt = model.opt
    values = {**vars(opt), "is_train": False, "name": name}
    return DPTNStepModel(type(opt)(**values))


def make_batch(count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, count, 3, *SIZE), generator=generator, dtype=torch.uint8)
    keypoints = torch.tensor([JOINTS_Y, JOINTS_X], dtype=torch.float64).T.repeat(2, count, 1, 1)
    keypoints += torch.randint(0, 3, (2, count, 1, 1), generator=generator)
    return {
        "source_image": images[0], "target_image": images[1],
        "source_keypoints": keypoints[0], "target_keypoints": keypoints[1],
        "source_name": [f"a{i}.jpg" for i in range(count)],
        "target_name": [f"b{i}.jpg" for i in range(count)],
    }  # fmt: skip


def warm_up(model):
    """Power iterations of fresh spectral layers; before them evaluation is meaningless."""
    with torch.no_grad():
        for _ in range(3):
            for chunk in model.rollout(with_source=True):
                model.networks["D"](chunk.fake_target)


def to_double(model):
    model.vgg = copy.deepcopy(model.vgg)
    for network in (*model.networks.values(), model.vgg):
        network.double()
    inputs = model.inputs
    model.inputs = {
        k: v.double() if torch.is_tensor(v) and v.is_floating_point() else v
        for k, v in inputs.items()
    }
