"""Building blocks shared by the networks: encoder, residual and decoder blocks, norms,
initialisation.

Attribute names (``model``, ``shortcut``, ``conv1`` ...) are the published state-dict names and
therefore a file format: released checkpoints load because the modules are called what they were
called. Notation: B batch, C channels, H x W spatial size of the block's input.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils import spectral_norm

LEAKY_SLOPE = 0.1

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "instance": functools.partial(nn.InstanceNorm2d, affine=True),
    "batch": nn.BatchNorm2d,
}


def activation() -> nn.Module:
    """LeakyReLU with the slope 0.1 that all networks of this family share."""
    return nn.LeakyReLU(LEAKY_SLOPE)


def maybe_spectral(conv: nn.Module, use_spectral: bool) -> nn.Module:
    """Wrap ``conv`` in the classic spectral norm (keys ``weight_orig``, ``weight_u``,
    ``weight_v``).

    Source: Miyato et al., ICLR 2018. The parametrization API is not used: its state-dict keys
    differ from those of the published checkpoints.
    """
    return spectral_norm(conv) if use_spectral else conv


class EncoderBlock(nn.Module):
    """[norm, act,] conv4 stride 2, norm, act, conv3: (B, C, H, W) -> (B, out, H/2, W/2)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm: str = "instance",
        leading_norm: bool = True,  # False: the very first block of DPTN, which sees raw input
        use_spectral: bool = False,
    ):
        super().__init__()
        make_norm = NORMS[norm]
        down = nn.Conv2d(in_channels, out_channels, kernel_size=4, stride=2, padding=1)
        conv = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1)
        leading = [make_norm(in_channels), activation()] if leading_norm else []
        self.model = nn.Sequential(
            *leading,
            maybe_spectral(down, use_spectral),
            make_norm(out_channels),
            activation(),
            maybe_spectral(conv, use_spectral),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


class ResBlock(nn.Module):
    """Pre-activation residual block at constant size: (B, C, H, W) -> (B, C, H, W).

    ``conv_shortcut=True`` (DPTN) adds a 1x1 convolution on the skip path and registers every
    convolution a second time under ``conv1``, ``conv2`` and ``bypass``, as the published files do.
    """

    def __init__(
        self,
        channels: int,
        norm: str = "instance",
        conv_shortcut: bool = True,
        use_spectral: bool = False,
    ):
        super().__init__()
        make_norm = NORMS[norm]
        conv1 = maybe_spectral(nn.Conv2d(channels, channels, 3, padding=1), use_spectral)
        conv2 = maybe_spectral(nn.Conv2d(channels, channels, 3, padding=1), use_spectral)
        if conv_shortcut:
            self.conv1, self.conv2 = conv1, conv2
            self.bypass = maybe_spectral(nn.Conv2d(channels, channels, 1), use_spectral)
        self.model = nn.Sequential(
            make_norm(channels), activation(), conv1, make_norm(channels), activation(), conv2
        )
        self.shortcut = nn.Sequential(self.bypass) if conv_shortcut else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = x if self.shortcut is None else self.shortcut(x)
        return self.model(x) + skip


class DecoderBlock(nn.Module):
    """Residual up-sampling block: (B, C, H, W) -> (B, out, 2H, 2W)."""

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        norm: str = "instance",
        use_spectral: bool = False,
    ):
        super().__init__()
        make_norm = NORMS[norm]
        conv = nn.Conv2d(in_channels, hidden_channels, 3, padding=1)
        up = functools.partial(
            nn.ConvTranspose2d, kernel_size=3, stride=2, padding=1, output_padding=1
        )
        self.model = nn.Sequential(
            make_norm(in_channels),
            activation(),
            maybe_spectral(conv, use_spectral),
            make_norm(hidden_channels),
            activation(),
            maybe_spectral(up(hidden_channels, out_channels), use_spectral),
        )
        self.shortcut = nn.Sequential(maybe_spectral(up(in_channels, out_channels), use_spectral))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x) + self.shortcut(x)


class ReflectConvBlock(nn.Module):
    """act, reflection pad 1, conv3 [, tanh]: the output layer, and GFLA's skip ("jump") layer.

    The convolution is registered twice, as ``conv1`` and inside ``model``: released files carry
    both.
    """

    def __init__(self, in_channels: int, out_channels: int, tanh: bool, use_spectral: bool = False):
        super().__init__()
        self.conv1 = maybe_spectral(nn.Conv2d(in_channels, out_channels, 3), use_spectral)
        layers = [activation(), nn.ReflectionPad2d(1), self.conv1]
        self.model = nn.Sequential(*layers, nn.Tanh()) if tanh else nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


INITIALIZERS: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "orthogonal": lambda w, gain: nn.init.orthogonal_(w, gain),
    "xavier": lambda w, gain: nn.init.xavier_normal_(w, gain),
    "kaiming": lambda w, gain: nn.init.kaiming_normal_(w, a=0, mode="fan_in"),
    "normal": lambda w, gain: nn.init.normal_(w, 0.0, gain),
}


def initialize(network: nn.Module, init_type: str, gain: float) -> nn.Module:
    """Initialise every convolution and linear layer in place; biases become 0; returns ``network``.

    Spectrally normalised layers keep PyTorch's default weights (only their bias is zeroed), which
    is what the published GPU runs started from (their initialiser wrote to a stale copy). The
    packed attention projection keeps its Xavier draw because its module is neither a Conv nor a
    Linear.
    """
    init_weight = INITIALIZERS[init_type]
    for module in network.modules():
        if not isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            continue
        if not hasattr(module, "weight_orig"):
            init_weight(module.weight.data, gain)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    return network


def channels_at(level: int, base: int, cap: int) -> int:
    """Channel width after ``level`` doublings of ``base``, never more than ``cap``."""
    return min(base * 2**level, cap)
