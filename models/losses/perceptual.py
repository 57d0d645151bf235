"""Perceptual losses on VGG-19 features: content, style and texture affinity.

VGG sees the raw [-1, 1] images, without ImageNet normalisation, as all published systems of this
family trained it. B batch, C channels, N = h*w feature positions.
"""

import functools
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from util.errors import UserError
from util.run.device import Precision, in_full_precision
from util.run.weights import PublishedFile, find_weights, load_weights

# ReLU outputs of torchvision's vgg19().features, by index.
LAYER_INDEX = {
    "relu1_1": 1, "relu1_2": 3,
    "relu2_1": 6, "relu2_2": 8,
    "relu3_1": 11, "relu3_2": 13, "relu3_3": 15, "relu3_4": 17,
    "relu4_1": 20, "relu4_2": 22, "relu4_3": 24, "relu4_4": 26,
    "relu5_1": 29, "relu5_2": 31,
}  # fmt: skip
CONTENT_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
STYLE_LAYERS = ("relu2_2", "relu3_4", "relu4_4", "relu5_2")
AFFINITY_LAYERS = ("relu5_1", "relu4_1")

VGG19_FILE = "vgg19-dcbb9e9d.pth"  # torchvision's IMAGENET1K_V1 file
VGG19_URL = f"https://download.pytorch.org/models/{VGG19_FILE}"
VGG19 = PublishedFile("torchvision's VGG-19", VGG19_FILE, VGG19_URL, "dcbb9e9d")
CENTRE_IMAGES = 64  # most images that centre a random VGG-19; more hardly change the means
CENTRE_PIXELS = 2**19  # of all these images: large ones must cost seconds, not minutes
RANDOM_NOTE = (
    "The VGG-19 of the perceptual losses has fixed random weights (--vgg_weights random): good for "
    "trying things, not for published numbers"
)
_CHANNELS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512)

Features = Mapping[str, torch.Tensor]


def layers_of(content: float = 0, style: float = 0, affinity: float = 0) -> set[str]:
    """The layers that the losses with these weights read; none for a weight of 0."""
    read = (CONTENT_LAYERS, content), (STYLE_LAYERS, style), (AFFINITY_LAYERS, affinity)
    return {name for layers, weight in read if weight for name in layers}


def _vgg19_layers(width: float = 1.0) -> nn.Sequential:
    """torchvision's ``vgg19().features`` up to relu5_2 (0 marks a max-pool), without values.

    ``width`` is the share of the channels that every convolution has. Nothing is drawn: a run's
    random numbers must not depend on how often a VGG was built.
    """
    layers: list[nn.Module] = []
    channels = 3
    with torch.device("meta"):
        for full in _CHANNELS:
            if full == 0:
                layers.append(nn.MaxPool2d(2))
                continue
            count = max(1, round(full * width))
            layers += [nn.Conv2d(channels, count, 3, padding=1), nn.ReLU(inplace=True)]
            channels = count
    return nn.Sequential(*layers)


@functools.lru_cache(maxsize=1)
def random_vgg19_state(seed: int = 7, width: float = 1.0) -> dict[str, torch.Tensor]:
    """He-scaled random VGG-19 weights, the same on every machine."""
    state = {}
    for name, parameter in _vgg19_layers(width).named_parameters():
        rng = np.random.RandomState(zlib.crc32(f"features.{name}".encode()) ^ seed)
        draw = rng.standard_normal(tuple(parameter.shape))
        scale = np.sqrt(2 / (9 * parameter.shape[1])) if parameter.dim() == 4 else 0.05
        state[name] = torch.from_numpy((draw * scale).astype(np.float32))
    return state


def load_vgg19_state(weights: str, width: float = 1.0) -> dict[str, torch.Tensor]:
    """Weights by name: ``imagenet`` (torch hub cache or download), ``random``, or a file in that
    format; only random ones have another width than 1."""
    if weights == "random":
        return random_vgg19_state(width=width)
    if width != 1:
        raise UserError(
            f"--vgg_width {width:g} makes a VGG-19 with fewer channels, which has no trained "
            f"weights; leave it out, or use --vgg_weights random instead of {weights}"
        )
    own = None if weights == "imagenet" else weights
    cached = Path(torch.hub.get_dir(), "checkpoints", VGG19_FILE)  # torchvision's, not hashed again
    try:
        source = cached if own is None and cached.is_file() else find_weights(VGG19, own)
    except UserError as error:
        raise UserError(
            f"--vgg_weights {weights}: {error}; --vgg_weights PATH uses a file elsewhere, and "
            "--vgg_weights random trains with a fixed random VGG-19"
        ) from error
    state = {k.removeprefix("features."): v for k, v in load_weights(VGG19, source).items()}
    expected = _vgg19_layers().state_dict()
    wrong = [k for k, v in expected.items() if k not in state or state[k].shape != v.shape]
    if wrong:
        raise UserError(
            f"{source} is not a VGG-19 in torchvision's format: features.{wrong[0]} is missing "
            "or has another shape"
        )
    return {key: state[key] for key in expected}


class VGG19Features(nn.Module):
    """Frozen VGG-19 (Simonyan & Zisserman, 2015) that returns named ReLU outputs.

    ``weights``: ``imagenet``, ``random`` or a path, see :func:`load_vgg19_state`. ``precision``
    decides the number format of the convolutions; without it they run in the format of the weights.
    ``width``: share of the channels of every convolution, of random weights only.
    """

    def __init__(
        self, weights: str = "imagenet", precision: Precision | None = None, width: float = 1.0
    ):
        super().__init__()
        self.features = _vgg19_layers(width).to_empty(device="cpu")
        self.features.load_state_dict(load_vgg19_state(weights, width))
        self.requires_grad_(False).eval()
        self.precision = precision or Precision("fp32", torch.device("cpu"))
        if self.precision.vgg_channels_last:
            self.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor, layers: Collection[str]) -> dict[str, torch.Tensor]:
        """Features of ``images`` (B, 3, H, W) as given; nothing deeper than asked is computed."""
        wanted = {LAYER_INDEX[name]: name for name in layers}
        x, outputs = images, {}
        if self.precision.vgg_channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        with self.precision.vgg():
            for index, layer in enumerate(self.features[: max(wanted) + 1]):
                x = layer(x)
                if index in wanted:
                    outputs[wanted[index]] = x
        return outputs

    @torch.no_grad()
    def centre(self, images: torch.Tensor) -> None:
        """Scale and shift every convolution so that over ``images`` (B, 3, H, W) each channel has
        mean 0 and deviation 1 before its ReLU.

        Features of a random VGG-19 share a large mean: nearly all have the same direction, and a
        loss on cosines, such as GFLA's sampling correctness, can hardly tell places apart.
        """
        x = images
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                layer.bias.zero_()
                response = layer(x).double()
                deviation = response.std((0, 2, 3)).clamp(min=1e-6)
                layer.weight.copy_(layer.weight / deviation[:, None, None, None])
                layer.bias.copy_(-response.mean((0, 2, 3)) / deviation)
            x = layer(x)


@in_full_precision
def content_loss(
    features: Features, target: Features, layers: Collection[str] = CONTENT_LAYERS
) -> torch.Tensor:
    """Sum over layers of the mean absolute feature difference (Johnson et al., ECCV 2016)."""
    return sum(F.l1_loss(features[name], target[name]) for name in layers)


class _Gram(torch.autograd.Function):
    """A A^T of matrices A (B, C, N); the gradient (G + G^T) A is one product, not two."""

    @staticmethod
    def forward(ctx, a: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(a)
        return a @ a.transpose(1, 2)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        (a,) = ctx.saved_tensors
        return (gradient + gradient.transpose(1, 2)) @ a


@in_full_precision
def gram_matrix(x: torch.Tensor) -> torch.Tensor:
    """F F^T / (C*h*w) of features (B, C, h, w) -> (B, C, C)."""
    b, c, h, w = x.shape
    return _Gram.apply(x.reshape(b, c, h * w)) / (c * h * w)


@in_full_precision
def style_loss(features: Features, target: Features) -> torch.Tensor:
    """Sum over layers of the mean absolute Gram matrix difference (Gatys et al., CVPR 2016)."""
    grams = ((gram_matrix(features[name]), gram_matrix(target[name])) for name in STYLE_LAYERS)
    return sum(F.l1_loss(*pair) for pair in grams)


def _unit_tokens(x: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) -> (B, N, C), each token of length 1; the gradient at zero is finite."""
    return F.normalize(x.flatten(2).transpose(1, 2), dim=2, eps=1e-4)


@in_full_precision
def texture_affinity_loss(features: Features, target: Features, source: Features) -> torch.Tensor:
    """Texture affinity loss of DPTN-TA (Zhang et al., TVCG 2023).

    Per layer, the mean absolute difference of two affinity maps (B, N, N): the softmax over source
    positions of the cosine between a (generated or real) target token and every source token.
    """
    loss = 0.0
    for name in AFFINITY_LAYERS:
        source_tokens = _unit_tokens(source[name]).transpose(1, 2)  # (B, C, N)
        affinity = (_unit_tokens(f[name]) @ source_tokens for f in (features, target))  # (B, N, N)
        loss = loss + F.l1_loss(*(torch.softmax(a, dim=2) for a in affinity))
    return loss
