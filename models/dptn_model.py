"""DPTN-TA (Zhang et al., TVCG 2023) and DPTN (CVPR 2022): ``--netD res --lambda_affi 0``."""

from argparse import ArgumentParser, Namespace

import torch
import torch.nn.functional as F

from models.base_model import Batch, Explanation, Tensors
from models.gan_model import GANModel
from models.losses import detached, weighted
from models.losses.perceptual import content_loss, layers_of, style_loss, texture_affinity_loss
from models.networks.discriminators import DISCRIMINATORS, DiscriminatorConfig, build_discriminator
from models.networks.dptn import DPTNConfig, DPTNGenerator
from models.networks.layers import initialize
from util.kinds import choice, flag, fraction, natural, positive, positive_int, weight


class DPTNModel(GANModel):
    """Dual-task pose transformer: the source branch makes x_s again, the target branch x_t."""

    smallest_side = 16  # VGG-19 halves it four times
    vgg_losses = ("lambda_content", "lambda_style", "lambda_affi")

    @staticmethod
    def modify_options(parser: ArgumentParser, is_train: bool) -> None:
        add = parser.group("DPTN model")
        add("--nhead", positive_int, 2, "attention heads of the Pose Transformer Module")
        add("--num_CABs", natural, 2, "context augment blocks")
        add("--num_TTBs", natural, 2, "texture transfer blocks")
        if not is_train:
            return
        add("--netD", choice(sorted(DISCRIMINATORS)), "resnet", "resnet = DPTN-TA, res = DPTN")
        layers = "residual blocks or down-samplings of D (published: 4 fashion, 3 market)"
        add("--dis_layers --dis_layer", positive_int, 4, layers)
        add("--use_spect_d | --no_spect_d", flag, True, "spectral norm below the last layer of res")
        add("--lambda_rec", weight, 5.0, "weight of the L1 reconstruction loss")
        add("--lambda_content", weight, 0.5, "weight of the content loss")
        add("--lambda_style", weight, 500.0, "weight of the style loss")
        add("--lambda_affi", weight, 100.0, "weight of the texture affinity loss")
        add("--lambda_g", weight, 2.0, "weight of the adversarial loss")
        share = "share of the target branch in the reconstruction losses"
        add("--t_s_ratio", fraction, 0.5, share)
        add("--ratio_g2d", positive, 0.1, "learning rate of D divided by that of G")

    def __init__(self, opt: Namespace):
        super().__init__(opt)
        config = DPTNConfig(
            ngf=opt.ngf, nhead=opt.nhead, num_CABs=opt.num_CABs, num_TTBs=opt.num_TTBs,
            norm=opt.norm, pose_channels=self.pose_channels,
        )  # fmt: skip
        net_G = initialize(DPTNGenerator(config), opt.init_type, opt.init_gain)
        self.add_network("G", net_G, config, opt.lr if self.is_train else None)
        if self.is_train:
            config_D = DiscriminatorConfig(opt.netD, opt.ndf, opt.dis_layers, opt.use_spect_d)
            net_D = initialize(build_discriminator(config_D), opt.init_type, opt.init_gain)
            self.add_network("D", net_D, config_D, opt.lr * opt.ratio_g2d)

    @torch.no_grad()
    def infer(self, inputs: Batch) -> Tensors:
        return {"fake_target": self.run_generator(inputs, with_source=False)[0]}

    @torch.no_grad()
    def explain(self, inputs: Batch) -> Explanation:
        fake_target, attention = self.run_generator(inputs, need_weights=True)
        return Explanation(fake_target, attention)

    def forward(self) -> None:
        self.fake_target, self.fake_source = self.run_generator(self.inputs)
        self.seen = self.inputs

    @property
    def visuals(self) -> Tensors:
        fakes = {"fake_source": self.fake_source, "fake_target": self.fake_target}
        return super().visuals | detached(fakes)

    def discriminator_loss(self) -> torch.Tensor:
        """L_D = 0.5 * (GAN(D(x_t), real) + GAN(D(fake_t), fake))."""
        real, fake = self.inputs["target_image"], self.fake_target.detach()
        loss = self.real_against_fake(self.networks["D"], real, fake)
        self.d_losses = {"dis_img_gen_t": loss.detach()}
        return loss

    def generator_loss(self) -> torch.Tensor:
        """L_full of the paper: r * target branch + (1 - r) * source branch + adversarial term."""
        opt, source, target = self.opt, self.inputs["source_image"], self.inputs["target_image"]
        r = opt.t_s_ratio
        layers = layers_of(opt.lambda_content, opt.lambda_style, opt.lambda_affi)
        of_fake_t, of_fake_s, of_t, of_s = self.features_of_both(
            (self.fake_target, self.fake_source), (target, source), layers
        )

        app_t = F.l1_loss(self.fake_target, target) * opt.lambda_rec
        app_s = F.l1_loss(self.fake_source, source) * opt.lambda_rec
        content_t = weighted(opt.lambda_content, content_loss, of_fake_t, of_t)
        content_s = weighted(opt.lambda_content, content_loss, of_fake_s, of_s)
        style_t = weighted(opt.lambda_style, style_loss, of_fake_t, of_t)
        style_s = weighted(opt.lambda_style, style_loss, of_fake_s, of_s)
        affi_t = weighted(opt.lambda_affi, texture_affinity_loss, of_fake_t, of_t, of_s)
        ad_t = self.gan(self.networks["D"](self.fake_target), True) * opt.lambda_g
        losses = {
            "app_gen_s": app_s, "content_gen_s": content_s, "style_gen_s": style_s,
            "app_gen_t": app_t, "ad_gen_t": ad_t, **self.d_losses,
            "content_gen_t": content_t, "style_gen_t": style_t, "affi_gen_t": affi_t,
        }  # fmt: skip
        self.losses = detached(losses)
        target_branch = app_t + content_t + style_t + affi_t
        return r * target_branch + (1 - r) * (app_s + content_s + style_s) + ad_t
