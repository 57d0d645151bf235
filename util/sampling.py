"""Sampling a feature map at real-valued positions, in plain PyTorch.

These operators replace the three CUDA extensions of GFLA (Ren et al., CVPR 2020). Conventions
they share: flow (B, 2, h, w) holds (x, y) offsets in pixels of the source's grid, from an output
pixel to the place that is read (backward warping); integer positions are pixel centres; positions
outside the source are clamped to its border after the interpolation weights were taken, so the
border is replicated.

Each output pixel is a weighted sum of a few source pixels ("taps"), which ``embedding_bag``
computes without storing the taps. Positions and weights are float32 even when the features are
half precision, where 100.3 could not be told from 100.25. Results have the channels-last layout.
"""

import torch
import torch.nn.functional as F

Axis = tuple[torch.Tensor, torch.Tensor]  # pixel positions and weights, both (B, h, w, taps)


def block_extract(source: torch.Tensor, flow: torch.Tensor, size: int) -> torch.Tensor:
    """Bilinear size x size block around every displaced pixel: -> (B, C, size*h, size*w).

    source (B, C, Hs, Ws), flow (B, 2, h, w). Cell (y, x) of the output holds the source at
    ``(x, y) + flow[y, x] + offset`` for offsets ``-(size//2) ... size - 1 - size//2``. At integer
    positions the flow's gradient is the right-hand one.
    """
    x, y = _as_coordinates(flow).repeat_interleave(size, 2).repeat_interleave(size, 3).unbind(1)
    cell_y, cell_x = (torch.arange(n, device=flow.device) for n in y.shape[1:])
    y = (y + (cell_y % size - size // 2)[:, None]) + (cell_y // size)[:, None]
    x = (x + (cell_x % size - size // 2)) + cell_x // size
    return _separable_taps(source, _bilinear_axis(y), _bilinear_axis(x))


def local_attn_reshape(weights: torch.Tensor, size: int) -> torch.Tensor:
    """Lay out every pixel's channels as a block: (B, size^2, h, w) -> (B, 1, size*h, size*w)."""
    return F.pixel_shuffle(weights, size)


def bilinear_sample(source: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """source (B, C, Hs, Ws) at every pixel displaced by flow (B, 2, h, w): -> (B, C, h, w)."""
    y, x = _displaced(flow)
    return _separable_taps(source, _bilinear_axis(y), _bilinear_axis(x))


def attend(source: torch.Tensor, flow: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    """Average over k x k cells of attention times extracted block: -> (B, C, h, w).

    Equal to ``avg_pool(local_attn_reshape(attention, k) * block_extract(source, flow, k), k)`` for
    attention (B, k^2, h, w), without the two (B, C, k*h, k*w) blocks: all k^2 samples of one pixel
    share the same fractions, so attention and bilinear weights merge into one kernel of (k+1)^2
    source pixels.
    """
    b, cells, h, w = attention.shape
    k = round(int(cells) ** 0.5)
    y, x = _displaced(flow)
    (rows, wy), (cols, wx) = _bilinear_axis(y), _bilinear_axis(x)
    kernel = attention.to(wy.dtype).permute(0, 2, 3, 1).reshape(b, h, w, k, k)
    kernel = F.pad(kernel * wy[..., :1, None], (0, 0, 0, 1)) + F.pad(
        kernel * wy[..., 1:, None], (0, 0, 1, 0)
    )  # (B, h, w, k+1, k)
    kernel = F.pad(kernel * wx[..., None, :1], (0, 1)) + F.pad(kernel * wx[..., None, 1:], (1, 0))
    offsets = torch.arange(k + 1, device=flow.device) - k // 2
    return _taps(source, rows[..., :1] + offsets, cols[..., :1] + offsets, kernel / cells)


def block_convolution(
    source: torch.Tensor, flow: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """k x k convolution of stride k over the extracted block: -> (B, out, h, w).

    Equal to ``conv2d(block_extract(source, flow, k), weight, stride=k)`` without the block:
    bilinear sampling and convolution commute, so the source is convolved once, with enough
    replicated border that the result is constant beyond it, and then sampled at the displaced
    pixels.
    """
    k = weight.shape[-1]
    padded = replicate_pad(source, k - 1, k - 1)
    shift = k - 1 - k // 2  # where pixel 0 of the source lies in the convolved map
    return bilinear_sample(F.conv2d(padded, weight), flow + shift)


def replicate_pad(x: torch.Tensor, before: int, after: int) -> torch.Tensor:
    """Repeat the border of (B, C, H, W): ``before`` times at top and left, ``after`` elsewhere.

    ``F.pad(mode="replicate")`` with another backward: that one does not compile for channels-last
    gradients.
    """
    for dim in (2, 3):
        length = x.shape[dim]
        index = torch.arange(-before, length + after, device=x.device).clamp(0, length - 1)
        x = x.index_select(dim, index)
    return x


def resample2d(
    source: torch.Tensor,
    flow: torch.Tensor,
    kernel_size: int = 4,
    dilation: int = 1,
    sigma: float = 2.0,  # pixels
) -> torch.Tensor:
    """Gaussian-weighted sampling: source (B, C, Hs, Ws), flow (B, 2, h, w) -> (B, C, h, w).

    kernel_size (even) taps per axis lie ``dilation`` apart around the displaced pixel; their
    weights exp(-d^2 / (2 sigma^2)) are normalised. Distances are taken before positions are
    clamped to the border.
    """
    y, x = _displaced(flow)
    rows, cols = (_gaussian_axis(p, kernel_size, dilation, sigma) for p in (y, x))
    return _separable_taps(source, rows, cols)


def _as_coordinates(flow: torch.Tensor) -> torch.Tensor:
    return flow.to(torch.promote_types(flow.dtype, torch.float32))


def _displaced(flow: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Absolute positions y, x (B, h, w) that flow (B, 2, h, w) points at."""
    x, y = _as_coordinates(flow).unbind(1)
    h, w = y.shape[1:]
    return y + torch.arange(h, device=y.device)[:, None], x + torch.arange(w, device=x.device)


def _bilinear_axis(position: torch.Tensor) -> Axis:
    floor = position.detach().floor()
    fraction = (position - floor)[..., None]
    positions = floor[..., None] + torch.arange(2, device=floor.device)
    return positions, torch.cat((1 - fraction, fraction), dim=-1)


def _gaussian_axis(position: torch.Tensor, size: int, dilation: int, sigma: float) -> Axis:
    floor = position.detach().floor()
    offsets = torch.arange(-(size // 2) + 1, size // 2 + 1, device=floor.device)
    # 0, -d, -2d, ... on the left of the position and d, 2d, ... on its right
    offsets = offsets * dilation
    distance = offsets - (position - floor)[..., None]
    weights = torch.exp(-(distance**2) / (2 * sigma**2))
    return floor[..., None] + offsets, weights / weights.sum(-1, keepdim=True)


def _separable_taps(source: torch.Tensor, rows: Axis, cols: Axis) -> torch.Tensor:
    weights = rows[1][..., :, None] * cols[1][..., None, :]
    return _taps(source, rows[0], cols[0], weights)


def _taps(
    source: torch.Tensor,  # (B, C, Hs, Ws)
    rows: torch.Tensor,  # (B, h, w, S) whole numbers, clamped here
    cols: torch.Tensor,  # (B, h, w, T)
    weights: torch.Tensor,  # (B, h, w, S, T)
) -> torch.Tensor:
    """Sum over taps (s, t) of weights * source[rows[s], cols[t]]: -> (B, C, h, w)."""
    b, c, height, width = source.shape
    h, w = rows.shape[1:3]
    rows, cols = (
        # NaN positions (a diverged flow) read pixel 0; their weights are NaN, and so is the result
        p.clamp(0, n - 1).nan_to_num(0).long()
        for p, n in ((rows, height), (cols, width))
    )
    first = torch.arange(b, device=source.device).view(b, 1, 1, 1, 1) * (height * width)
    index = first + rows[..., :, None] * width + cols[..., None, :]  # (B, h, w, S, T)
    dtype = torch.promote_types(source.dtype, weights.dtype)
    table = source.to(dtype).permute(0, 2, 3, 1).reshape(-1, c)  # one row a pixel
    index, weights = (t.flatten(3).flatten(0, 2) for t in (index, weights.to(dtype)))
    if torch.onnx.is_in_onnx_export():  # where embedding_bag is a loop over all pixels
        out = (table[index] * weights[..., None]).sum(1)
    else:
        out = F.embedding_bag(index, table, mode="sum", per_sample_weights=weights)
    return out.view(b, h, w, c).permute(0, 3, 1, 2).to(source.dtype)
