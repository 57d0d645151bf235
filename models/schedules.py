"""Learning-rate schedules; epochs are numbered from 1 and the rate changes once per epoch."""

from __future__ import annotations

import math
from collections.abc import Callable

Factor = Callable[[int], float]

# name -> (niter, niter_decay) -> factor of epoch e
LR_POLICIES: dict[str, Callable[[int, int], Factor]] = {
    # 1 up to epoch niter, then linear to 1/(niter_decay + 1) in the last epoch
    "lambda": lambda niter, decay: lambda e: max(0.0, 1 - max(0, e - niter) / (decay + 1)),
    "constant": lambda niter, decay: lambda e: 1.0,
    "exponent": lambda niter, decay: lambda e: 0.95 ** (e - 1),
    # cosine with a period of 2 * 32 epochs
    "cosine": lambda niter, decay: lambda e: (1 + math.cos(math.pi * (e - 1) / 32)) / 2,
    # constant up to niter, then down by lr/niter_decay after every epoch
    "linear_to_zero": lambda niter, decay: (
        lambda e: 1.0 if e <= niter else max(0.0, 1 - (e - niter - 1) / max(1, decay))
    ),
}
