"""GFLA, stage 2 (Ren et al., CVPR 2020): generator, flow estimator and discriminator together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from models.base_model import Batch, Explanation, Tensors
from models.flow_stages import FlowStage, add_flow_options, flow_pictures
from models.gan_model import GANModel
from models.losses import detached, weighted
from models.losses.flow import (
    affine_regularization_loss,
    correctness_layers,
    sampling_correctness_loss,
)
from models.losses.perceptual import content_loss, layers_of, style_loss
from models.networks.discriminators import DiscriminatorConfig, build_discriminator
from models.networks.gfla import GFLAConfig, GFLAGenerator
from models.networks.layers import initialize
from util.errors import UserError
from util.kinds import flag, positive, positive_int, text, weight
from util.run import checkpoint
from util.run.folder import check_architecture

FLOW_PREFIX = "flow_net."
DISCRIMINATOR_LAYERS = {"market": 3}  # by --dataset_mode; 4 for the others


class PoseModel(FlowStage, GANModel):
    """Target image from the source's features, read where the flow fields point."""

    vgg_losses = ("lambda_content", "lambda_style", "lambda_correct")

    @staticmethod
    def modify_options(parser, is_train: bool) -> None:
        add = add_flow_options(parser, "GFLA, stage 2", is_train, 5.0, 0.0025)
        add("--layers", positive_int, 3, "down-samplings of the generator's encoders")
        if not is_train:
            return
        start = "network of --model poseflownet or pose whose flow estimator a new run starts from"
        add("--flow_checkpoint", text, None, start)
        layers = "down-samplings of the discriminator; default: 3 for market, else 4"
        add("--dis_layers", positive_int, None, layers)
        add("--use_spect_d | --no_spect_d", flag, True, "spectral norm below the last layer of D")
        add("--ratio_g2d", positive, 0.1, "learning rate of D divided by that of G")
        add("--lambda_rec", weight, 5.0, "weight of the L1 reconstruction loss")
        add("--lambda_content", weight, 0.5, "weight of the content loss")
        add("--lambda_style", weight, 500.0, "weight of the style loss")
        add("--lambda_g", weight, 2.0, "weight of the adversarial loss")

    def __init__(self, opt):
        super().__init__(opt)
        config = GFLAConfig(
            **self.flow_settings, kernel_size=self.kernel_size, ngf=opt.ngf, layers=opt.layers
        )
        net_G = initialize(GFLAGenerator(config), opt.init_type, opt.init_gain)
        self.add_network("G", net_G, config, opt.lr if self.is_train else None)
        if not self.is_train:
            return
        layers = opt.dis_layers or DISCRIMINATOR_LAYERS.get(opt.dataset_mode, 4)
        config = DiscriminatorConfig("res", opt.ndf, layers, opt.use_spect_d, first_activation=True)
        net_D = initialize(build_discriminator(config), opt.init_type, opt.init_gain)
        self.add_network("D", net_D, config, opt.lr * opt.ratio_g2d)
        if opt.flow_checkpoint and opt.continue_train:
            raise UserError(
                f"--flow_checkpoint {opt.flow_checkpoint} starts a new run, but --continue_train "
                "resumes one: leave one of them out"
            )
        if opt.flow_checkpoint:
            self._take_flow(checkpoint.load(Path(opt.flow_checkpoint)), opt.flow_checkpoint)

    # ---- from stage 1 to stage 2 -----------------------------------------------------------

    def _take_flow(self, state: Mapping[str, Any], origin: str) -> None:
        """Load the flow estimator, strictly, from any network file that holds one."""
        state = checkpoint.state_dict_of(state, origin)
        flow = {k[len(FLOW_PREFIX) :]: v for k, v in state.items() if k.startswith(FLOW_PREFIX)}
        if not flow:
            raise UserError(
                f"{origin} holds no flow estimator (no {FLOW_PREFIX}* keys): expected the network "
                "file of --model poseflownet or --model pose"
            )
        checkpoint.load_state(self.networks["G"].flow_net, flow, f"{origin}, {FLOW_PREFIX}*")
        self.restart_averages()
        self.notes.append(
            f"stage 2 begins: the flow estimator's {len(flow)} tensors come from {origin}; the "
            "source encoder, the target generator, the discriminator and the optimizers are new"
        )

    def _begin_from(self, state: object, origin: str) -> bool:
        """Take the flow estimator from G of --model poseflownet; False if ``state`` is none."""
        if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
            return False
        keys = checkpoint.strip_prefix(state)
        if not keys or not all(key.startswith(FLOW_PREFIX) for key in keys):
            return False
        check_architecture(self.run_dir, self.configs)
        self._take_flow(state, origin)
        return True

    def load_state_dict(self, state: dict[str, Any], origin: str) -> bool:
        """Resume stage 2, or begin it from the state of stage 1."""
        first = state["networks"].get("G", {})
        return not self._begin_from(first, origin) and super().load_state_dict(state, origin)

    def load_networks(self, which: str, labels: tuple[str, ...] | None = None) -> None:
        """Load networks strictly; training may also begin from the network file of stage 1."""
        path = self.network_path("G", which)
        may_begin = self.is_train and labels is None and path.is_file()
        if not (may_begin and self._begin_from(checkpoint.load(path), str(path))):
            super().load_networks(which, labels)

    # ---- training --------------------------------------------------------------------------

    @torch.no_grad()
    def infer(self, inputs: Batch) -> Tensors:
        fake_target, flows, masks = self.run_generator(inputs)
        return {"fake_target": fake_target, **flow_pictures(inputs, self.levels, flows, masks)}

    @torch.no_grad()
    def explain(self, inputs: Batch) -> Explanation:
        fake_target, flows, _ = self.run_generator(inputs)
        return Explanation(fake_target, flows=flows)

    def forward(self) -> None:
        self.fake_target, self.flows, self.masks = self.run_generator(self.inputs)
        self.seen = self.inputs

    @property
    def visuals(self) -> Tensors:
        return super().visuals | {"fake_target": self.fake_target.detach()}

    def discriminator_loss(self) -> torch.Tensor:
        """L_D = 0.5 * (GAN(D(target), real) + GAN(D(fake), fake))."""
        real, fake = self.inputs["target_image"], self.fake_target.detach()
        loss = self.real_against_fake(self.networks["D"], real, fake)
        self.d_losses = {"dis_img_gen": loss.detach()}
        return loss

    def generator_loss(self) -> torch.Tensor:
        """L_G = L1 + content + style + adversarial + correctness + regularization, all weighted."""
        opt, target, source = self.opt, self.inputs["target_image"], self.inputs["source_image"]
        levels = self.levels
        perceived = layers_of(opt.lambda_content, opt.lambda_style)
        matched = correctness_layers(levels) if opt.lambda_correct else ()
        with torch.no_grad():
            of_target = self.features(target, {*matched, *perceived})
            of_source = self.features(source, matched)
        of_fake = self.features(self.fake_target, perceived)

        app = opt.lambda_rec * F.l1_loss(self.fake_target, target)
        content = weighted(opt.lambda_content, content_loss, of_fake, of_target)
        style = weighted(opt.lambda_style, style_loss, of_fake, of_target)
        ad = opt.lambda_g * self.gan(self.networks["D"](self.fake_target), True)
        correctness = weighted(
            opt.lambda_correct, sampling_correctness_loss, of_target, of_source, self.flows, levels
        )
        regularization = weighted(
            opt.lambda_regularization, affine_regularization_loss, self.flows, self.windows
        )
        losses = {
            "app_gen": app, "correctness_gen": correctness, "content_gen": content,
            "style_gen": style, "regularization": regularization, "ad_gen": ad,
            **self.d_losses,
        }  # fmt: skip
        self.losses = detached(losses)
        return app + content + style + ad + correctness + regularization
