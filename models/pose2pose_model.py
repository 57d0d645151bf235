"""MAGPT, "Multi-scale Attention Guided Pose Transfer" (Roy et al., Pattern Recognition 2023)."""

import functools
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from models.base_model import Batch, Explanation, Tensors
from models.gan_model import GANModel
from models.losses import detached
from models.losses.adversarial import gradient_penalty
from models.losses.pose2pose import RESCALES, perceptual_loss
from models.networks.layers import initialize
from models.networks.pose2pose import (
    SIZE_MULTIPLE,
    PatchDiscriminator,
    PatchDiscriminatorConfig,
    Pose2PoseConfig,
    Pose2PoseGenerator,
)
from util.kinds import choice, positive_int, weight
from util.person.maps import one_hot_pose_maps


class Pose2PoseModel(GANModel):
    """Image features gated by pose features at four scales, against a patch discriminator."""

    vgg_losses = ("lambda_per",)
    samples_per_save = 4000  # published: 500 iterations of 8
    size_multiple = SIZE_MULTIPLE

    @staticmethod
    def modify_options(parser, is_train: bool) -> None:
        if not is_train:
            return
        add = parser.group("Pose2Pose model")
        layers = "convolutions of D with batch norm; all but the last halve the size"
        add("--dis_layers --dis_layer", positive_int, 3, layers)
        add("--lambda_l1", weight, 5.0, "weight of the L1 loss")
        add("--lambda_gan", weight, 1.0, "weight of the adversarial loss")
        add("--lambda_per", weight, 5.0, "weight of the perceptual loss")
        rescale = "to [0, 1] for VGG: by the batch's extremes (published) or fixed"
        add("--per_rescale", choice(sorted(RESCALES)), "batch", rescale)
        parser.set_defaults(
            ngf=64, ndf=64, init_type="normal", init_gain=0.02, gan_mode="lsgan",
            lr=1e-3, beta1=0.5, lr_policy="constant", niter=100, niter_decay=0, batchSize=8,
        )  # fmt: skip

    def __init__(self, opt):
        super().__init__(opt)
        config = Pose2PoseConfig(opt.ngf, self.pose_channels)
        net_G = self._initialized(Pose2PoseGenerator(config))
        self.add_network("G", net_G, config, opt.lr if self.is_train else None)
        if self.is_train:
            config_D = PatchDiscriminatorConfig(opt.ndf, opt.dis_layers)
            side = 2 ** (opt.dis_layers + 1)
            words = f"more than {side} pixels in both dimensions with --dis_layers {opt.dis_layers}"
            self.need_size(min(opt.load_size) > side, words)
            net_D = self._initialized(PatchDiscriminator(config_D))
            self.add_network("D", net_D, config_D, opt.lr)

    def _initialized(self, network: nn.Module) -> nn.Module:
        """Published initial weights: also scales of batch norms from N(1, 0.02)."""
        for module in initialize(network, self.opt.init_type, self.opt.init_gain).modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)
        return network

    def network_path(self, label: str, which: str) -> Path:
        """File of a network; the published name ``netG_260500.pth`` where it is the only one."""
        path = super().network_path(label, which)
        published = self.run_dir / f"net{label}_{which}.pth"
        return published if published.is_file() and not path.is_file() else path

    def pose_maps(self, keypoints: torch.Tensor) -> torch.Tensor:
        """Keypoints (B, 18, 2) -> one-hot maps (B, 18, H, W)."""
        return one_hot_pose_maps(keypoints, self.opt.annotation_size, self.opt.load_size)

    @torch.no_grad()
    def infer(self, inputs: Batch) -> Tensors:
        return {"fake_target": self.run_generator(inputs)}

    @torch.no_grad()
    def explain(self, inputs: Batch) -> Explanation:
        fake_target, gates = self.run_generator(inputs, need_weights=True)
        return Explanation(fake_target, gates=gates)

    def forward(self) -> None:
        self.fake_target, self.seen = self.run_generator(self.inputs), self.inputs

    @property
    def visuals(self) -> Tensors:
        return super().visuals | {"fake_target": self.fake_target.detach()}

    def discriminator_loss(self) -> torch.Tensor:
        """L_D = 0.5 * (GAN(D(x_s, fake), fake) + GAN(D(x_s, x_t), real)).

        The order fake, real matters for the running statistics of the batch norms.
        """
        net_D, fake = self.networks["D"], self.fake_target.detach()
        source, target = self.inputs["source_image"], self.inputs["target_image"]
        loss_fake = self.gan(net_D(source, fake), False, for_discriminator=True)
        loss_real = self.gan(net_D(source, target), True, for_discriminator=True)
        total = 0.5 * (loss_fake + loss_real)
        if self.gan.mode == "wgangp":
            total = total + gradient_penalty(functools.partial(net_D, source), target, fake)
        losses = {"lossD_fake": loss_fake, "lossD_real": loss_real, "lossD": total}
        self.d_losses = {k: v.detach() for k, v in losses.items()}
        return total

    def generator_loss(self) -> torch.Tensor:
        """L_G = 5 L1 + 1 GAN(D(x_s, fake), real) + 5 PER, against the just updated D."""
        opt, fake, target = self.opt, self.fake_target, self.inputs["target_image"]
        loss_l1 = F.l1_loss(fake, target)
        loss_gan = self.gan(self.networks["D"](self.inputs["source_image"], fake), True)
        loss_per = perceptual_loss(self.vgg, fake, target, opt.per_rescale) if opt.lambda_per else 0
        total = opt.lambda_l1 * loss_l1 + opt.lambda_gan * loss_gan + opt.lambda_per * loss_per
        losses = {"lossG_L1": loss_l1, "lossG_GAN": loss_gan, "lossG_PER": loss_per, "lossG": total}
        self.losses = detached(losses | self.d_losses)
        return total
