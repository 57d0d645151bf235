"""Generator and discriminator of DPTN step generation: one image in J steps, coarse to fine.

Source: gkalstn000, *DPTN Step Generation* (2023), built on DPTN (Zhang et al., CVPR 2022).
Attribute names are the published state-dict names.
B batch, H x W image size, P pose channels, J steps.
"""

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from models.networks.discriminators import ResDiscriminator
from models.networks.dptn import Encoder, add_decoder
from models.networks.layers import channels_at, check_sides, in_turn
from models.networks.ptm import PoseTransformerModule
from util.errors import UserError


def seeded_noise(keys: Sequence[tuple], shape: Sequence[int]) -> torch.Tensor:
    """Standard normal noise (len(keys), *shape), float32, CPU; row i depends on keys[i] alone.

    Keys are tuples of numbers and strings, such as (seed, source name, target name): a pair gets
    the same noise whatever the batch size, the device and the other pairs.
    """
    draws = []
    for key in keys:
        digest = hashlib.sha256("\0".join(map(str, key)).encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        draws.append(torch.randn(tuple(shape), generator=generator))
    return torch.stack(draws)


MAX_BYTE = 255
MAX_STEPS = 254  # 255 // J must leave the divisors strictly decreasing down to 1


def step_divisors(step_size: int) -> tuple[int, ...]:
    """Divisors d_1 > ... > d_J = 1 for ``step_size`` = J equal strides of floor(255 / J).

    J = 5 gives (204, 153, 102, 51, 1); J = 1 gives (1,), plain one-step generation.
    """
    if not 1 <= step_size <= MAX_STEPS:
        raise UserError(f"step_size is {step_size}; expected a number of steps in 1..{MAX_STEPS}")
    stride = MAX_BYTE // step_size
    return (*(MAX_BYTE - stride * j for j in range(1, step_size)), 1)


def check_divisors(divisors: Sequence[int]) -> tuple[int, ...]:
    """``divisors`` as a tuple if they fall strictly from at most 255 to 1, else a UserError."""
    divisors = tuple(divisors)
    falling = all(a > b for a, b in itertools.pairwise(divisors))
    if not divisors or not falling or divisors[-1] != 1 or divisors[0] > MAX_BYTE:
        raise UserError(
            f"d_schedule is {list(divisors)}; expected strictly decreasing numbers in 1..255 that "
            "end with 1, for example 204 153 102 51 1"
        )
    return divisors


def coarse_image(images: torch.Tensor, divisor: int | torch.Tensor) -> torch.Tensor:
    """Pull every value of ``images`` (any shape, [-1, 1]) down to the next multiple of ``divisor``.

    v = (x + 1)/2 * 255, I = floor(v / d) * d, back to [-1, 1]. The values are rounded to bytes
    first: torchvision's normalisation returns byte 51 as 50.999996 in float32, which a bare floor
    would send to level 0.
    """
    byte_values = ((images + 1) * (MAX_BYTE / 2)).round()
    return coarse_bytes(byte_values, divisor) / (MAX_BYTE / 2) - 1


def coarse_bytes(values: Any, divisor: int | torch.Tensor) -> Any:
    """floor(v / d) * d of a tensor or an array of whole numbers, in their dtype."""
    return values // divisor * divisor


PE_BASE = 10000.0


@dataclass(frozen=True)
class DPTNStepConfig:
    """Architecture of the generator; saved with the checkpoint."""

    ngf: int = 64  # channels after the first block
    max_channels: int = 512
    levels: int = 3  # down- and up-samplings
    num_blocks: int = 3  # residual blocks of En_c
    nhead: int = 2  # attention heads
    num_CABs: int = 2
    num_TTBs: int = 2
    pose_channels: int = 41
    use_spectral: bool = True  # spectral norm on every convolution outside the PTM
    divisors: tuple[int, ...] = step_divisors(5)  # d_1 > ... > d_J = 1; their number is J
    load_size: tuple[int, int] = (256, 176)  # (h, w): the positional maps depend on it
    raw_texture: bool = False  # En_s sees the full source image without positional map

    @property
    def step_size(self) -> int:
        """Number of steps J."""
        return len(self.divisors)


@dataclass(frozen=True)
class StepDiscriminatorConfig:
    """Architecture of the discriminator; saved with the checkpoint."""

    ndf: int = 32  # channels of the first block
    layers: int = 4  # down-sampling blocks
    step_size: int = 5  # classes of the step head; 0: no step head
    load_size: tuple[int, int] = (256, 176)  # (h, w): the step head sees the whole feature map
    use_spectral: bool = True


def positional_map(step: int, height: int, width: int) -> torch.Tensor:
    """Sinusoidal map (1, H, W), float64, that tells the generator which step it is at.

    With N = H*W, row-major pixel n and k = 2*floor(n/2): sin(step * 10000^(-k/N)) at even n, cos at
    odd n. It is added to all three image channels.
    """
    pixels = torch.arange(height * width)
    k = (pixels - pixels % 2).double()
    angle = step * torch.exp(-math.log(PE_BASE) * k / len(pixels))
    return torch.where(pixels % 2 == 0, angle.sin(), angle.cos()).reshape(1, height, width)


class Decoder(nn.Module):
    """De: see :func:`add_decoder`."""

    def __init__(self, config: DPTNStepConfig):
        super().__init__()
        self.names = add_decoder(self, config, use_spectral=config.use_spectral)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return in_turn(self, self.names, features)


class StepGenerator(nn.Module):
    """One generator for all steps; a positional map added to the images tells it the step.

    Per step: ``forward``. All steps in order: ``rollout``.
    """

    def __init__(self, config: DPTNStepConfig = DPTNStepConfig()):
        super().__init__()
        check_sides(config.load_size, 2**config.levels, "the generator")
        self.config = config
        width = channels_at(config.levels - 1, config.ngf, config.max_channels)
        kind = {"use_spectral": config.use_spectral}
        self.En_c = Encoder(3 + config.pose_channels, config, config.num_blocks, **kind)
        self.PTM = PoseTransformerModule(width, config.nhead, config.num_CABs, config.num_TTBs)
        self.En_s = Encoder(3, config, **kind)
        self.De = Decoder(config)
        # Row s is PE_s, s = 0..J+1. A closed form, so it is not part of the checkpoint.
        maps = [positional_map(s, *config.load_size) for s in range(config.step_size + 2)]
        self.register_buffer("positions", torch.stack(maps).float(), persistent=False)
        divisors = torch.tensor((0, *config.divisors)).float()  # d_j at place j
        self.register_buffer("divisors", divisors, persistent=False)
        self.register_buffer("steps", torch.arange(config.step_size + 1), persistent=False)

    def forward(
        self,
        step: torch.Tensor | int,  # j = 1..J; a tensor of ``self.steps`` compiles once for all
        source_image: torch.Tensor,  # (B, 3, H, W) in [-1, 1], full quality
        source_pose: torch.Tensor,  # (B, P, H, W)
        estimate: torch.Tensor,  # (B, 3, H, W) result of step j-1; noise at step 1
        target_pose: torch.Tensor,  # (B, P, H, W)
        with_source: bool = True,  # also decode the source branch (training)
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Step j: return (fake_target, fake_source) of level j, each (B, 3, H, W) in (-1, 1)."""
        step = self.steps[step] if isinstance(step, int) else step
        coarse = coarse_image(source_image, self.divisors.index_select(0, step.view(1)))
        source = coarse + self.positions.index_select(0, (step + 1).view(1))  # A_j
        target = estimate + self.positions.index_select(0, step.view(1))  # X_j
        F_ss, F_st = self.En_c(  # each (B, C, H/8, W/8)
            torch.cat([torch.cat([source, source_pose], 1), torch.cat([target, target_pose], 1)])
        ).chunk(2)
        F_s = self.En_s(source_image if self.config.raw_texture else source)
        F_t = self.PTM(F_ss, F_st, F_s)
        return self.De(F_t), self.De(F_ss) if with_source else None

    def rollout(
        self,
        styles: Sequence[tuple[torch.Tensor, torch.Tensor]],  # J x (source image, source pose)
        target_pose: torch.Tensor,  # (B, P, H, W)
        noise: torch.Tensor,  # (B, 3, H, W), standard normal
        with_source: bool = False,
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """Yield (fake_target, fake_source) of steps 1..J; no gradient flows between the steps.

        Ordinary generation gives every step the same source; style mixing different ones.
        """
        estimate = noise
        for step, (image, pose) in zip(self.steps[1:], styles, strict=True):
            fakes = self(step, image, pose, estimate, target_pose, with_source)
            yield fakes
            estimate = fakes[0].detach()


class StepDiscriminator(ResDiscriminator):
    """DPTN's residual discriminator with a second head that tells which step painted the image."""

    def __init__(self, config: StepDiscriminatorConfig = StepDiscriminatorConfig()):
        super().__init__(config.ndf, config.layers, False, config.use_spectral)
        check_sides(config.load_size, 2**config.layers, "the discriminator")
        self.config = config
        self.fc_step = None
        if config.step_size:
            height, width = (side // 2**config.layers for side in config.load_size)
            features = self.conv.in_channels * height * width
            self.fc_step = nn.Sequential(
                nn.Linear(features, 256), nn.ReLU(), nn.Linear(256, config.step_size)
            )

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Images (B, 3, H, W) -> scores (B, 1, H/16, W/16), log-probabilities of the steps (B, J).

        The second value is None without a step head.
        """
        features = self.features(images)
        scores = self.conv(self.act(features))
        if self.fc_step is None:
            return scores, None
        return scores, self.fc_step(features.flatten(1)).log_softmax(dim=1)
