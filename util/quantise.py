"""Coarse images of the step-by-step system: which brightness levels step j is asked to paint.

Step j = 1..J works on the image with every byte value v pulled down to the next multiple of a
divisor d_j; the divisors fall to 1, so the first steps paint a few levels and step J all 256.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch

from util.errors import UserError

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


def coarse_image(images: torch.Tensor, divisor: int) -> torch.Tensor:
    """Pull every value of ``images`` (any shape, [-1, 1]) down to the next multiple of ``divisor``.

    v = (x + 1)/2 * 255, I = floor(v / d) * d, back to [-1, 1]. The values are rounded to bytes
    first: torchvision's normalisation returns byte 51 as 50.999996 in float32, which a bare floor
    would send to level 0.
    """
    byte_values = ((images + 1) * (MAX_BYTE / 2)).round()
    return coarse_bytes(byte_values, divisor) / (MAX_BYTE / 2) - 1


def coarse_bytes(byte_values: torch.Tensor, divisor: int) -> torch.Tensor:
    """floor(v / d) * d for integer-valued ``byte_values`` (float or uint8), in their dtype."""
    return torch.div(byte_values, divisor, rounding_mode="floor") * divisor


def coarse_array(image: np.ndarray, divisor: int) -> np.ndarray:
    """``coarse_bytes`` of a uint8 array of any shape."""
    return image // np.uint8(divisor) * np.uint8(divisor)
