"""Random numbers that depend on names instead of on the order in which they are drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch


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
