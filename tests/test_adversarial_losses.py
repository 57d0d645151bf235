"""Adversarial losses against hand-made values, and a gradient penalty of the right size."""

import math

import pytest
import torch

from models.losses.adversarial import GAN_MODES, GANLoss, gradient_penalty
from models.networks.discriminators import DISCRIMINATORS, DiscriminatorConfig, build_discriminator
from models.networks.layers import initialize

SCORES = torch.tensor([[-2.0, 0.5], [1.0, 3.0]])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def mean(function) -> float:
    return sum(function(p) for p in SCORES.flatten().tolist()) / SCORES.numel()


# D on real, D on fake, G on fake
EXPECTED = {
    "lsgan": (mean(lambda p: (p - 1) ** 2), mean(lambda p: p**2), mean(lambda p: (p - 1) ** 2)),
    "hinge": (mean(lambda p: max(1 - p, 0)), mean(lambda p: max(1 + p, 0)), -mean(float)),
    "vanilla": (mean(lambda p: softplus(-p)), mean(softplus), mean(lambda p: softplus(-p))),
    "wgangp": (-mean(float), mean(float), -mean(float)),
}


@pytest.mark.parametrize("mode", GAN_MODES)
def test_every_mode_equals_its_formula(mode):
    loss = GANLoss(mode)
    values = (loss(SCORES, True, True), loss(SCORES, False, True), loss(SCORES, True))
    assert [v.item() for v in values] == pytest.approx(EXPECTED[mode])


@pytest.mark.parametrize("copies", [1, 5])
def test_the_penalty_is_that_of_the_mean_score_however_many_scores_there_are(copies):
    real, fake = torch.randn(2, 2, 3, 8, 4)

    def critic(x: torch.Tensor) -> torch.Tensor:  # gradient of its mean: 3 / sqrt(96) of length 3
        return 3 * math.sqrt(96) * x.repeat(1, copies, 1, 1)

    assert gradient_penalty(critic, real, fake).item() == pytest.approx(10 * (3 - 1) ** 2, rel=1e-5)


@pytest.mark.parametrize("kind", sorted(DISCRIMINATORS))
def test_the_penalty_of_a_new_discriminator_is_of_the_size_of_its_weight(kind):
    torch.manual_seed(0)
    config = DiscriminatorConfig(kind, ndf=8, layers=2)
    net_D = initialize(build_discriminator(config), "orthogonal", 0.02)
    real, fake = torch.rand(2, 2, 3, 64, 32) * 2 - 1
    assert gradient_penalty(net_D, real, fake).item() < 20
