"""Moving averages of network weights."""

from __future__ import annotations

import torch


@torch.no_grad()
def update_average(
    average: dict[str, torch.Tensor], state: dict[str, torch.Tensor], decay: float
) -> None:
    """Move ``average`` towards a state dict by 1 - decay; counters are copied."""
    for key, value in state.items():
        if average[key].is_floating_point():
            average[key].lerp_(value, 1 - decay)
        else:
            average[key].copy_(value)
