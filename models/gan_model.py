"""A generator trained against a discriminator: the order of one training step."""

import contextlib
from abc import abstractmethod
from argparse import Namespace
from collections.abc import Callable, Collection, Iterator, Sequence

import torch

from models.base_model import BaseModel
from models.losses import Tensors, halves
from models.losses.adversarial import GANLoss, gradient_penalty


class GANModel(BaseModel):
    """A generator trained against a discriminator; a subclass spells out its two total losses."""

    needed = ("G", "D")

    def __init__(self, opt: Namespace):
        super().__init__(opt)
        if self.is_train:
            self.gan = GANLoss(opt.gan_mode)
        self.d_losses: Tensors = {}  # detached, set by discriminator_loss

    @abstractmethod
    def discriminator_loss(self) -> torch.Tensor:
        """Total loss of D; fills ``self.d_losses``."""

    @abstractmethod
    def generator_loss(self) -> torch.Tensor:
        """Total loss of G, with D frozen; fills ``self.losses``, those of D included."""

    def real_against_fake(
        self, critic: Callable[..., torch.Tensor], real: torch.Tensor, fake: torch.Tensor
    ) -> torch.Tensor:
        """0.5 * (GAN(D(real), real) + GAN(D(fake), fake)), and the penalty of wgangp; the order
        real, fake matters for the power iterations of a spectrally normalised D."""
        loss_real = self.gan(critic(real), True, for_discriminator=True)
        loss_fake = self.gan(critic(fake), False, for_discriminator=True)
        loss = 0.5 * (loss_real + loss_fake)
        if self.gan.mode == "wgangp":
            loss = loss + gradient_penalty(critic, real, fake)
        return loss

    def features_of_both(
        self, fakes: Sequence[torch.Tensor], reals: Sequence[torch.Tensor], layers: Collection[str]
    ) -> tuple[Tensors, Tensors, Tensors, Tensors]:
        """VGG-19 features of two generated and of two real batches (B, 3, H, W): one pass with
        gradient and one without."""
        of_fakes = self.features(torch.cat(fakes), layers)
        with torch.no_grad():
            of_reals = self.features(torch.cat(reals), layers)
        return (*halves(of_fakes), *halves(of_reals))

    def optimize_parameters(self) -> None:
        """forward, D step (on real and detached fake), G step (against the updated D)."""
        if self.opt.accumulate > 1:
            self._optimize_in_parts()
            return
        with self.precision.networks():
            self.forward()
            loss_D = self.discriminator_loss()
        self.step("D", loss_D)
        with self.frozen("D"), self.precision.networks():
            loss_G = self.generator_loss()
        self.step("G", loss_G)

    def _optimize_in_parts(self) -> None:
        """The same step on a batch that is too large for the memory, part by part.

        D takes its step on the gradients of all parts before G is judged by it; the price is a
        second generator pass. Equal to one large batch for networks without batch norm.
        """
        self.d_losses = self.accumulate("D", self.discriminator_loss, lambda: self.d_losses)
        with self.frozen("D"):
            self.losses = self.accumulate("G", self.generator_loss, lambda: self.losses)

    @contextlib.contextmanager
    def frozen(self, label: str) -> Iterator[None]:
        """Switch off gradients of a network's parameters inside the block."""
        network = self.networks[label]
        network.requires_grad_(False)
        try:
            yield
        finally:
            network.requires_grad_(True)
