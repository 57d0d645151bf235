"""GFLA, stage 1 (Ren et al., CVPR 2020): the flow estimator, trained alone on real images."""

import torch

from models.base_model import Batch, Explanation, Tensors
from models.flow_stages import FlowStage, add_flow_options, flow_pictures, warp_image
from models.losses import detached, weighted
from models.losses.flow import (
    affine_regularization_loss,
    correctness_layers,
    sampling_correctness_loss,
)
from models.networks.flow import FlowConfig, PoseFlowNet
from models.networks.layers import initialize
from util.errors import UserError


class PoseFlowNetModel(FlowStage):
    """Flow fields that carry the source's VGG features to where the target's are.

    Occlusion masks have no loss of their own and stay untrained until stage 2 (``--model pose``).
    """

    vgg_losses = ("lambda_correct",)

    @staticmethod
    def modify_options(parser, is_train: bool) -> None:
        add_flow_options(parser, "GFLA, stage 1", is_train, 20.0, 0.01)

    def __init__(self, opt):
        super().__init__(opt)
        config = FlowConfig(**self.flow_settings)
        net_G = initialize(PoseFlowNet(config), opt.init_type, opt.init_gain)
        self.add_network("G", net_G, config, opt.lr if self.is_train else None)
        if self.is_train and not (opt.lambda_correct or opt.lambda_regularization):
            raise UserError(
                "--lambda_correct 0 and --lambda_regularization 0 leave nothing to learn; give one "
                "of them a weight"
            )

    @torch.no_grad()
    def infer(self, inputs: Batch) -> Tensors:
        """Pictures of the flows; ``fake_target`` is the source image warped by the finest one."""
        pictures = flow_pictures(inputs, self.levels, *self.run_generator(inputs))
        return {"fake_target": pictures.pop("warped_source"), **pictures}

    @torch.no_grad()
    def explain(self, inputs: Batch) -> Explanation:
        flows, _ = self.run_generator(inputs)
        return Explanation(warp_image(inputs["source_image"], flows[-1]), flows=flows)

    def forward(self) -> None:
        self.flows, self.masks = self.run_generator(self.inputs)
        self.seen = self.inputs

    def flow_loss(self) -> torch.Tensor:
        """L = lambda_correct * correctness + lambda_regularization * regularization."""
        opt, levels = self.opt, self.levels
        layers = correctness_layers(levels) if opt.lambda_correct else ()
        with torch.no_grad():
            of_target = self.features(self.inputs["target_image"], layers)
            of_source = self.features(self.inputs["source_image"], layers)
        correctness = weighted(
            opt.lambda_correct, sampling_correctness_loss, of_target, of_source, self.flows, levels
        )
        regularization = weighted(
            opt.lambda_regularization, affine_regularization_loss, self.flows, self.windows
        )
        self.losses = detached({"correctness": correctness, "regularization": regularization})
        return correctness + regularization

    def optimize_parameters(self) -> None:
        self.losses = self.accumulate("G", self.flow_loss, lambda: self.losses)
