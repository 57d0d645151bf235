"""Results of one or several steps of the step-by-step system, as its losses and pages want them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch


@dataclass
class Chunk:
    """Results and truths of one step (N = B) or of several, step after step (N = steps * B)."""

    steps: tuple[int, ...]  # which steps, counted from 1
    fake_target: torch.Tensor  # (N, 3, H, W)
    fake_source: torch.Tensor | None  # (N, 3, H, W)
    real_target: torch.Tensor  # (N, 3, H, W) coarse images of the steps
    real_source: torch.Tensor  # (N, 3, H, W)

    @property
    def labels(self) -> torch.Tensor:
        """Classes of the step head (N,): the step, counted from 0."""
        steps = torch.tensor(self.steps, device=self.fake_target.device) - 1
        return steps.repeat_interleave(len(self.fake_target) // len(self.steps))

    def detach(self) -> Chunk:
        """The same without gradient history."""
        source = None if self.fake_source is None else self.fake_source.detach()
        return replace(self, fake_target=self.fake_target.detach(), fake_source=source)


def join(chunks: Sequence[Chunk]) -> Chunk:
    """One chunk of several, in their order."""
    steps = sum((c.steps for c in chunks), ())
    images = [[getattr(c, f.name) for c in chunks] for f in fields(Chunk)[1:]]
    return Chunk(steps, *(None if x[0] is None else torch.cat(x) for x in images))


def strip(images: Sequence[torch.Tensor]) -> torch.Tensor:
    """J images (B, 3, H, W) side by side: (B, 3, H, J*W)."""
    return torch.cat(list(images), dim=3)
