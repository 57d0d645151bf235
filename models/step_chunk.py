"""Results of one or several steps of the step-by-step system, as its losses and pages want them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def halves(features: Mapping[str, torch.Tensor]) -> tuple[dict, dict]:
    """Features of the first and of the second half of the samples."""
    pairs = {name: value.chunk(2) for name, value in features.items()}
    return {k: a for k, (a, _) in pairs.items()}, {k: b for k, (_, b) in pairs.items()}


def strip(images: Sequence[torch.Tensor]) -> torch.Tensor:
    """J images (B, 3, H, W) side by side: (B, 3, H, J*W)."""
    return torch.cat(list(images), dim=3)


def training_pictures(
    inputs: Mapping[str, torch.Tensor], steps: Sequence[Chunk]
) -> dict[str, torch.Tensor]:
    """Pictures of the training page: inputs, and for both branches strips of all steps."""
    names = ("source_image", "source_pose", "target_image", "target_pose")
    return {
        **{name: inputs[name] for name in names},
        "coarse_target": strip([c.real_target for c in steps]),
        "fake_target_steps": strip([c.fake_target for c in steps]),
        "coarse_source": strip([c.real_source for c in steps]),
        "fake_source_steps": strip([c.fake_source for c in steps]),
        "fake_target": steps[-1].fake_target,
    }
