"""Pictures of flow fields: the colour wheel, occlusion masks, and the warped source image."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from util.sampling_ops import bilinear_sample

# Hues of the optical-flow colour wheel (Baker et al., IJCV 2011): how many steps lead from each
# anchor colour to the next. The eye tells more reds and yellows apart than greens.
_ANCHORS = (
    ((1, 0, 0), 15), ((1, 1, 0), 6), ((0, 1, 0), 4),
    ((0, 1, 1), 11), ((0, 0, 1), 13), ((1, 0, 1), 6),
)  # fmt: skip


def colour_wheel() -> torch.Tensor:
    """The wheel's colours in [0, 1], (55, 3), from pointing right through down, left and up."""
    colours = []
    for i, (start, steps) in enumerate(_ANCHORS):
        end = _ANCHORS[(i + 1) % len(_ANCHORS)][0]
        share = torch.arange(steps)[:, None] / steps
        colours.append(torch.tensor(start) * (1 - share) + torch.tensor(end) * share)
    return torch.cat(colours)


def flow_to_picture(
    flow: torch.Tensor,  # (B, 2, h, w), offsets (x, y), y down
    radius: float | None = None,  # length shown in full colour; longer offsets are shown darker
    size: tuple[int, int] | None = None,  # (H, W) of the picture; default: that of the flow
) -> torch.Tensor:
    """Flow fields as pictures (B, 3, H, W) in [-1, 1]: hue = direction, saturation = length.

    Zero is white. Without ``radius`` every sample is scaled to its longest offset, but at least 1,
    so that an untrained estimator's noise does not look like a flow.
    """
    flow = flow.detach().float()
    length = flow.norm(dim=1)  # (B, h, w)
    full = length.amax((1, 2), keepdim=True).clamp(min=1) if radius is None else radius
    length = length / full
    wheel = colour_wheel().to(flow.device)
    turn = torch.atan2(flow[:, 1], flow[:, 0]) / (2 * math.pi) % 1 * len(wheel)
    before = turn.floor().long() % len(wheel)
    share = (turn - turn.floor())[..., None]
    hue = wheel[before] * (1 - share) + wheel[(before + 1) % len(wheel)] * share
    length = length[..., None]
    colour = torch.where(length <= 1, 1 - length * (1 - hue), 0.75 * hue)
    return _resize(colour.permute(0, 3, 1, 2) * 2 - 1, size)


def mask_to_picture(mask: torch.Tensor, size: tuple[int, int] | None = None) -> torch.Tensor:
    """A mask (B, 1, h, w) in [0, 1] as a grey picture (B, 3, H, W) in [-1, 1]; white is 1."""
    return _resize(mask.detach().float().expand(-1, 3, -1, -1) * 2 - 1, size)


def warp_image(image: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """image (B, C, H, W) read where the coarser flow (B, 2, h, w) points: -> (B, C, H, W).

    The flow's unit is its own pixel; it is interpolated bilinearly and scaled to the image's.
    """
    size = image.shape[2:]
    scale = flow.new_tensor([size[1] / flow.shape[3], size[0] / flow.shape[2]])
    fine = F.interpolate(flow, size, mode="bilinear", align_corners=False) * scale.view(1, 2, 1, 1)
    return bilinear_sample(image, fine)


def _resize(picture: torch.Tensor, size: tuple[int, int] | None) -> torch.Tensor:
    return picture if size is None else F.interpolate(picture, tuple(size), mode="nearest")
