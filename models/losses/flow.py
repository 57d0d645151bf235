"""Losses on GFLA's flow fields (Ren et al., CVPR 2020, section 3.1)."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F

from util.run.device import in_full_precision
from util.sampling import resample2d

EPSILON = 1e-8
CHUNK_ELEMENTS = 2**24  # largest similarity matrix held at once: 64 MB of float32


def correctness_layers(levels: Iterable[int]) -> tuple[str, ...]:
    """The VGG layers that :func:`sampling_correctness_loss` reads: for every level one of the size
    H/2^level x W/2^level."""
    return tuple(f"relu{level + 1}_1" for level in levels)


def sampling_correctness_loss(
    target: Mapping[str, torch.Tensor],  # VGG features of the target image by layer name
    source: Mapping[str, torch.Tensor],  # VGG features of the source image
    flows: Sequence[torch.Tensor],  # one (B, 2, h, w) per level
    levels: Sequence[int],  # the levels of ``flows``, in the same order
) -> torch.Tensor:
    """Sum over levels of mean exp(-cosine / best cosine) - 1/e: 0 for the best possible flow.

    The cosine is between target features and source features sampled where the flow points; the
    best is over all source positions. Features are constants: gradients reach the flows alone.
    Flows of another size are brought to the features' by nearest neighbour, values unchanged.
    """
    layers = zip(correctness_layers(levels), flows, strict=True)
    return sum(_correctness(target[x].detach(), source[x].detach(), flow) for x, flow in layers)


@in_full_precision
def _correctness(target: torch.Tensor, source: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    if flow.shape[2:] != target.shape[2:]:
        flow = F.interpolate(flow, target.shape[2:])
    sampled = resample2d(source, flow)
    cosine = F.cosine_similarity(sampled, target, dim=1, eps=EPSILON)  # (B, h, w)
    best = best_similarity(target, source).view_as(cosine)
    return torch.exp(-cosine / (best + EPSILON)).mean() - math.exp(-1)


@torch.no_grad()
def best_similarity(target: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Highest cosine of each target position (B, C, h, w) with any source position: -> (B, h*w).

    The (h*w) x (h*w) similarity matrix is made in chunks of target positions.
    """
    columns = (x.flatten(2) for x in (target, source))
    t, s = (x / (x.norm(dim=1, keepdim=True) + EPSILON) for x in columns)  # of length 1
    rows = max(1, CHUNK_ELEMENTS // (s.shape[0] * s.shape[2]))
    best = [(part.transpose(1, 2) @ s).amax(2) for part in t.split(rows, dim=2)]
    return torch.cat(best, dim=1)


def affine_regularization_loss(
    flows: Iterable[torch.Tensor],  # (B, 2, h, w) each
    kernel_sizes: Iterable[int],  # window side for each flow
) -> torch.Tensor:
    """Sum over flows of how far they are from locally affine; 0 for affine flow fields.

    Per coordinate and k x k window inside the field: the squared residual of its values' best
    affine fit, averaged over batch and windows. The pixel grid that turns offsets into positions
    is itself affine and drops out.
    """
    return sum(_affine_residual(flow, k) for flow, k in zip(flows, kernel_sizes, strict=True))


@in_full_precision
def _affine_residual(flow: torch.Tensor, k: int) -> torch.Tensor:
    values = flow.flatten(0, 1)[:, None]  # coordinates x and y as samples
    windows = F.unfold(values, k)  # (2B, k^2, windows)
    residual = affine_residual_projection(k).to(flow) @ windows
    return 2 * residual.square().sum(1).mean()


def affine_residual_projection(k: int) -> torch.Tensor:
    """(k^2, k^2) float64 projection of a window's values on what no affine function explains."""
    row, column = torch.meshgrid(*[torch.arange(k, dtype=torch.float64)] * 2, indexing="ij")
    basis, _ = torch.linalg.qr(
        torch.stack((row.flatten(), column.flatten(), torch.ones(k * k, dtype=torch.float64)), 1)
    )
    return torch.eye(k * k, dtype=torch.float64) - basis @ basis.T
