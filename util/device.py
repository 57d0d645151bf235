"""Devices asked for by programs."""

from __future__ import annotations

import torch

from util.errors import UserError


def choose_device(device: str | torch.device | None) -> torch.device:
    """``device``, by default the first GPU if there is one; a UserError when it cannot be used."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the device {device} cannot be used ({reason}); try cpu") from error
    return device
