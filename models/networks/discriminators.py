"""Discriminators shared by the systems; all judge the image alone and return raw scores.

``ResDiscriminator``: residual, spectrally normalised (DPTN, CVPR 2022; GFLA, CVPR 2020).
``ResnetDiscriminator``: ResNet feature patches (DPTN-TA, TVCG 2023).
"""

from dataclasses import dataclass

import torch
from torch import nn

from models.networks.layers import activation, channels_at, in_turn, maybe_spectral


class ResDownBlock(nn.Module):
    """Residual down-sampling block: (B, C, H, W) -> (B, out, H/2, W/2)."""

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        leading_activation: bool,
        use_spectral: bool,
    ):
        super().__init__()

        def conv(*args: int, **kwargs: int) -> nn.Module:
            return maybe_spectral(nn.Conv2d(*args, **kwargs), use_spectral)

        self.model = nn.Sequential(
            *([activation()] if leading_activation else []),
            conv(in_channels, hidden_channels, kernel_size=3, padding=1),
            activation(),
            conv(hidden_channels, out_channels, kernel_size=4, stride=2, padding=1),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2), conv(in_channels, out_channels, kernel_size=1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x) + self.shortcut(x)


class ResDiscriminator(nn.Module):
    """Residual discriminator: images (B, 3, H, W) -> scores (B, 1, H/2^layers, W/2^layers).

    ``first_activation`` is False in DPTN and True in GFLA, which activates the raw image.
    """

    def __init__(
        self,
        ndf: int = 32,
        layers: int = 4,
        first_activation: bool = False,
        use_spectral: bool = True,
    ):
        super().__init__()
        self.layers = layers
        self.block0 = ResDownBlock(3, ndf, ndf, first_activation, use_spectral)
        self.names, channels = ["block0"], ndf
        for i in range(layers - 1):
            wider = channels_at(i + 1, ndf, 4 * ndf)
            block = ResDownBlock(channels, channels, wider, True, use_spectral)
            setattr(self, f"encoder{i}", block)
            self.names.append(f"encoder{i}")
            channels = wider
        self.act = activation()
        self.conv = maybe_spectral(nn.Conv2d(channels, 1, kernel_size=1), use_spectral=True)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Trunk output before the last activation, (B, C, H/2^layers, W/2^layers)."""
        return in_turn(self, self.names, images)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(self.act(self.features(images)))


def _conv_norm_act(in_channels: int, out_channels: int, **kind: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(in_channels, out_channels, **kind)
    return conv, nn.InstanceNorm2d(out_channels), nn.ReLU()


class ResnetBlock(nn.Module):
    """x + g(x), reflection padding, instance norm without parameters, no activation at the end."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            *_conv_norm_act(channels, channels, kernel_size=3),
            nn.ReflectionPad2d(1),
            *_conv_norm_act(channels, channels, kernel_size=3)[:2],
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv_block(x)


class ResnetDiscriminator(nn.Module):
    """ResNet patch discriminator: images (B, 3, H, W) -> feature scores (B, 4*ndf, H/4, W/4).

    There is no output convolution: the GAN loss judges every element of the feature map.
    ``layers`` counts the residual blocks; down-sampling is always by 4.
    """

    def __init__(self, ndf: int = 32, layers: int = 4):
        super().__init__()
        self.model = nn.Sequential(
            nn.ReflectionPad2d(3),
            *_conv_norm_act(3, ndf, kernel_size=7),
            *_conv_norm_act(ndf, 2 * ndf, kernel_size=3, stride=2, padding=1),
            *_conv_norm_act(2 * ndf, 4 * ndf, kernel_size=3, stride=2, padding=1),
            *(ResnetBlock(4 * ndf) for _ in range(layers)),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images)


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Architecture of a discriminator; saved with the checkpoint."""

    kind: str = "resnet"  # a key of DISCRIMINATORS
    ndf: int = 32  # channels of the first layer
    layers: int = 4  # resnet: residual blocks; res: down-sampling blocks
    use_spectral: bool = True  # res only: spectral norm before the output convolution
    first_activation: bool = False  # res only: activate the raw image, as GFLA does


DISCRIMINATORS = {
    "resnet": lambda c: ResnetDiscriminator(c.ndf, c.layers),
    "res": lambda c: ResDiscriminator(c.ndf, c.layers, c.first_activation, c.use_spectral),
}


def build_discriminator(config: DiscriminatorConfig) -> nn.Module:
    """The discriminator that ``config`` describes, with PyTorch's default weights."""
    return DISCRIMINATORS[config.kind](config)
