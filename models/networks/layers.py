"""Building blocks shared by the networks, their initial weights, batch norm over processes.

Attribute names (``model``, ``shortcut``, ``conv1`` ...) are the published state-dict names and
therefore a file format: released checkpoints load because the modules are called what they were
called. Notation: B batch, C channels, H x W spatial size of the block's input.
"""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.utils import spectral_norm

from util.errors import UserError
from util.run.distributed import sum_over_processes, world_size

LEAKY_SLOPE = 0.1

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "instance": functools.partial(nn.InstanceNorm2d, affine=True),
    "batch": nn.BatchNorm2d,
}


def activation() -> nn.Module:
    """LeakyReLU with the slope 0.1 that all networks of this family share."""
    return nn.LeakyReLU(LEAKY_SLOPE)


def maybe_spectral(conv: nn.Module, use_spectral: bool) -> nn.Module:
    """Wrap ``conv`` in the classic spectral norm: ``weight_orig``, ``weight_u``, ``weight_v``.

    Source: Miyato et al., ICLR 2018. The parametrization API is not used: its state-dict keys
    differ from those of the published checkpoints.
    """
    return spectral_norm(conv) if use_spectral else conv


def in_turn(parent: nn.Module, names: Sequence[str], x: torch.Tensor) -> torch.Tensor:
    """``x`` through the children ``names`` of ``parent``, one after the other."""
    for name in names:
        x = getattr(parent, name)(x)
    return x


def _activated(norm: str, channels: int, conv: nn.Module) -> tuple[nn.Module, ...]:
    """Norm and activation before a convolution, as in all blocks here."""
    return NORMS[norm](channels), activation(), conv


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
        down = nn.Conv2d(in_channels, out_channels, kernel_size=4, stride=2, padding=1)
        conv = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1)
        first = _activated(norm, in_channels, maybe_spectral(down, use_spectral))
        last = _activated(norm, out_channels, maybe_spectral(conv, use_spectral))
        self.model = nn.Sequential(*(first if leading_norm else first[-1:]), *last)

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
        conv1 = maybe_spectral(nn.Conv2d(channels, channels, 3, padding=1), use_spectral)
        conv2 = maybe_spectral(nn.Conv2d(channels, channels, 3, padding=1), use_spectral)
        if conv_shortcut:
            self.conv1, self.conv2 = conv1, conv2
            self.bypass = maybe_spectral(nn.Conv2d(channels, channels, 1), use_spectral)
        self.model = nn.Sequential(
            *_activated(norm, channels, conv1), *_activated(norm, channels, conv2)
        )
        self.shortcut = nn.Sequential(*([self.bypass] if conv_shortcut else []))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x) + self.shortcut(x)


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
        conv = nn.Conv2d(in_channels, hidden_channels, 3, padding=1)
        up = functools.partial(
            nn.ConvTranspose2d, kernel_size=3, stride=2, padding=1, output_padding=1
        )
        first = maybe_spectral(conv, use_spectral)
        last = maybe_spectral(up(hidden_channels, out_channels), use_spectral)
        self.model = nn.Sequential(
            *_activated(norm, in_channels, first), *_activated(norm, hidden_channels, last)
        )
        self.shortcut = nn.Sequential(maybe_spectral(up(in_channels, out_channels), use_spectral))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x) + self.shortcut(x)


class ReflectConvBlock(nn.Module):
    """act, reflection pad 1, conv3 [, tanh]: the output layer, and GFLA's skip ("jump") layer.

    The convolution is registered twice, as ``conv1`` and in ``model``, as in released files.
    """

    def __init__(self, in_channels: int, out_channels: int, tanh: bool, use_spectral: bool = False):
        super().__init__()
        self.conv1 = maybe_spectral(nn.Conv2d(in_channels, out_channels, 3), use_spectral)
        last = [nn.Tanh()] if tanh else []
        self.model = nn.Sequential(activation(), nn.ReflectionPad2d(1), self.conv1, *last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


INITIALIZERS: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "orthogonal": nn.init.orthogonal_,
    "xavier": nn.init.xavier_normal_,
    "kaiming": lambda w, gain: nn.init.kaiming_normal_(w, a=0, mode="fan_in"),
    "normal": lambda w, gain: nn.init.normal_(w, 0.0, gain),
}


def initialize(network: nn.Module, init_type: str, gain: float) -> nn.Module:
    """Initialise every convolution and linear layer in place; biases become 0; returns ``network``.

    Spectrally normalised layers keep PyTorch's default weights (only their bias is zeroed), which
    is what the published GPU runs started from (their initialiser wrote to a stale copy). The
    packed attention projection, neither a Conv nor a Linear, keeps its Xavier draw.
    """
    for module in network.modules():
        if not isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            continue
        if not hasattr(module, "weight_orig"):
            INITIALIZERS[init_type](module.weight.data, gain)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    return network


def channels_at(level: int, base: int, cap: int) -> int:
    """Channel width after ``level`` doublings of ``base``, never more than ``cap``."""
    return min(base * 2**level, cap)


def check_sides(size: Sequence[int], multiple: int, what: str) -> None:
    """Refuse an image size (h, w) unless both sides are multiples of ``multiple``, at least once;
    ``what`` needs that ("the network", "--load_size: the model")."""
    if any(side < multiple or side % multiple for side in size):
        raise UserError(
            f"{what} needs sides that are multiples of {multiple}, but the image size is {size[0]} "
            f"{size[1]} (height width)"
        )


# ---- batch norm over several processes ---------------------------------------------------------


class _Synchronized(nn.modules.batchnorm._BatchNorm):
    """Batch norm with the training statistics of all processes' batches together.

    Output, gradient and running statistics equal one process with the joined batch; the batches
    need not have the same size. In evaluation and in a single process it is plain batch norm; the
    state-dict keys are the same. Source: Ioffe & Szegedy, ICML 2015.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, C, ...), kept
        if not self.training or world_size() == 1:
            return super().forward(x)
        self._check_input_dim(x)
        axes = (0, *range(2, x.dim()))
        per_channel = (-1, *(1 for _ in axes[1:]))
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        count_here = values.new_full((1,), values.numel() / values.shape[1])
        totals = sum_over_processes(torch.cat([values.sum(axes), count_here]))
        count = totals[-1].detach()
        mean = totals[:-1] / count
        # The second pass costs one more message but does not cancel as E[x^2] - E[x]^2 does.
        centred = values - mean.view(per_channel)
        variance = sum_over_processes((centred * centred).sum(axes)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            momentum = self.momentum or 1.0 / float(self.num_batches_tracked)  # None: cumulative
            unbiased = variance * count / (count - 1)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return (centred * scale.view(per_channel) + self.bias.view(per_channel)).to(x.dtype)


class SynchronizedBatchNorm1d(_Synchronized, nn.BatchNorm1d):
    """``nn.BatchNorm1d``, (B, C) or (B, C, N), over all processes."""


class SynchronizedBatchNorm2d(_Synchronized, nn.BatchNorm2d):
    """``nn.BatchNorm2d``, (B, C, H, W), over all processes."""


_SYNCHRONIZED = {
    nn.BatchNorm1d: SynchronizedBatchNorm1d, nn.BatchNorm2d: SynchronizedBatchNorm2d,
}  # fmt: skip


def synchronize_batch_norms(network: nn.Module) -> nn.Module:
    """Let every batch norm of ``network`` join the processes, in place; returns ``network``.

    Layers without scale or running statistics are not supported (ValueError).
    """
    for layer in network.modules():
        if type(layer) not in _SYNCHRONIZED:
            continue
        if not (layer.affine and layer.track_running_stats):
            raise ValueError("only batch norms with scale and running statistics are supported")
        layer.__class__ = _SYNCHRONIZED[type(layer)]  # parameters, buffers and hooks stay
    return network
