"""Adversarial losses on raw discriminator scores of any shape."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from util.run.device import in_full_precision

Mode = Callable[[torch.Tensor, bool, bool], torch.Tensor]  # (scores, is_real, for_discriminator)


def _against_labels(distance: Callable[..., torch.Tensor]) -> Mode:
    """Distance of the scores to 1 (real) or 0."""
    return lambda scores, is_real, _: distance(scores, torch.full_like(scores, float(is_real)))


def _hinge(scores: torch.Tensor, is_real: bool, for_discriminator: bool) -> torch.Tensor:
    if not for_discriminator:
        return -scores.mean()
    return F.relu(1 - scores if is_real else 1 + scores).mean()


# lsgan: Mao et al., ICCV 2017; vanilla: Goodfellow et al., NeurIPS 2014; hinge: Lim & Ye, 2017;
# wgangp: Gulrajani et al., NeurIPS 2017 (add gradient_penalty to the discriminator's loss).
GAN_MODES: dict[str, Mode] = {
    "lsgan": _against_labels(F.mse_loss),
    "vanilla": _against_labels(F.binary_cross_entropy_with_logits),
    "hinge": _hinge,
    "wgangp": lambda scores, is_real, _: -scores.mean() if is_real else scores.mean(),
}


class GANLoss:
    """``loss(scores, is_real, for_discriminator)`` -> scalar, for one of ``GAN_MODES``."""

    def __init__(self, mode: str = "lsgan"):
        self.mode, self._loss = mode, in_full_precision(GAN_MODES[mode])

    def __call__(
        self, scores: torch.Tensor, is_real: bool, for_discriminator: bool = False
    ) -> torch.Tensor:
        return self._loss(scores, is_real, for_discriminator)


@in_full_precision
def gradient_penalty(
    discriminator: nn.Module, real: torch.Tensor, fake: torch.Tensor
) -> torch.Tensor:
    """10 * mean (||grad C(mix) + 1e-16|| - 1)^2 on random mixes of real and fake (B, 3, H, W).

    C, the critic's value of an image, is the mean of its scores: the penalty does not grow with
    their number. It runs in float32: gradients of gradients overflow in half precision.
    """
    alpha = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    mix = (alpha * real + (1 - alpha) * fake).detach().requires_grad_(True)
    values = discriminator(mix).flatten(1).mean(dim=1)  # (B,)
    (grad,) = torch.autograd.grad(values.sum(), mix, create_graph=True)
    norm = (grad.flatten(1) + 1e-16).norm(2, dim=1)
    return 10.0 * ((norm - 1) ** 2).mean()
