"""Models for the GFLA tests, and the weights and inputs of the reference arrays."""

import numpy as np
import torch
from torch import nn

from models import create_model
from models.networks.gfla import GFLAConfig
from tests.helpers import GOLDEN, draw, train_options

CONFIGS = {
    "fashion": GFLAConfig(),
    "market": GFLAConfig(attn_layer=(2,), kernel_size=((2, 3),)),
}
SIZES = {"fashion": (64, 64), "market": (128, 64)}
OPTIONS = {
    "fashion": {"attn_layer": "2,3", "kernel_size": "2=5,3=3"},
    "market": {"attn_layer": "2", "kernel_size": "2=3"},
}
DISCRIMINATOR_LAYERS = {"fashion": 4, "market": 3}


def load_golden(name: str) -> dict[str, np.ndarray]:
    """All arrays of tests/golden/gfla_<name>.npz."""
    with np.load(GOLDEN / f"gfla_{name}.npz") as arrays:
        return dict(arrays)


def unit_normal(name: str, shape) -> np.ndarray:
    """Standard normal float32 numbers that depend on the name alone."""
    return draw(name, shape).astype(np.float32)


def fill_generator(network: nn.Module, rule: str) -> None:
    """Rule A: 0.05 z. Rule B: z by fan-in (flow heads x 4), norms near 1, small biases."""
    state = network.state_dict()
    for key in sorted(state):  # of two names of one tensor the later one counts
        z = unit_normal(key, state[key].shape)
        if rule == "A":
            z *= np.float32(0.05)
        elif z.ndim == 4:
            z *= np.float32(1 / np.sqrt(np.prod(z.shape[1:])))
            z *= np.float32(4 if ".output" in key else 1)
        elif key.endswith("weight"):
            z = 1 + np.float32(0.1) * z
        else:
            z *= np.float32(0.1)
        state[key].copy_(torch.from_numpy(z))


def fill_discriminator(network: nn.Module) -> None:
    """weight_orig: z by fan-in; biases: 0.1 z; power-iteration vectors: z of unit length."""
    for key, value in network.state_dict().items():
        z = unit_normal(key, value.shape)
        if key.endswith("weight_orig"):
            z *= np.float32(1 / np.sqrt(np.prod(z.shape[1:])))
        elif key.endswith("bias"):
            z *= np.float32(0.1)
        else:
            z /= np.linalg.norm(z)
        value.copy_(torch.from_numpy(z))


def fill_vgg(features: nn.Module) -> None:
    """He-scaled convolutions and biases of 0.05 z, by torchvision's names."""
    for key, value in features.state_dict().items():
        z = unit_normal(f"vgg19.features.{key}", value.shape)
        scale = np.sqrt(2 / (z.shape[1] * 9)) if z.ndim == 4 else 0.05
        value.copy_(torch.from_numpy(z * np.float32(scale)))


def make_inputs(kind: str) -> dict[str, torch.Tensor]:
    """Two samples of images in [-1, 1] and pose maps in [0, 1]."""
    rng = np.random.RandomState(0)
    rows = (("source_image", 3, -1), ("source_pose", 18, 0), ("target_pose", 18, 0))
    return {
        name: torch.from_numpy(rng.uniform(low, 1, (2, channels, *SIZES[kind])).astype(np.float32))
        for name, channels, low in (*rows, ("target_image", 3, -1))
    }


def make_model(model: str, kind: str = "fashion", folder=None, **values):
    """A model on the CPU with the published settings of ``kind`` at the reference arrays' size."""
    settings = {
        "dataset_mode": kind,
        "load_size": SIZES[kind],
        "gpu_ids": "-1",
        **OPTIONS[kind],
        **({"checkpoints_dir": folder} if folder else {}),
        **values,
    }
    return create_model(train_options(model=model, **settings))


def small_model(model: str, folder=None, **values):
    """A narrow model that trains fast."""
    return make_model(model, folder=folder, **{"ngf": 8, "ndf": 4, **values})
