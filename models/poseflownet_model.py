"""GFLA, stage 1 (Ren et al., CVPR 2020): the flow estimator, trained alone on real images."""

from __future__ import annotations

import torch

from models import flow_stages
from models.base_model import BaseModel, Batch, Explanation, Tensors
from models.losses.flow import (
    affine_regularization_loss,
    correctness_layers,
    sampling_correctness_loss,
)
from models.losses.terms import detached, weighted
from models.networks.flow import FlowConfig, PoseFlowNet
from models.networks.layers import initialize
from util.errors import UserError
from util.run.device import to_float32

DEEPEST_LEVEL = 4  # of a flow field; the estimator's own deepest level is 5


class PoseFlowNetModel(BaseModel):
    """Flow fields that carry the source's VGG features to where the target's are.

    Occlusion masks have no loss of their own and stay untrained until stage 2 (``--model pose``).
    """

    size_multiple = flow_stages.SIZE_MULTIPLE

    @staticmethod
    def modify_options(parser, is_train: bool) -> None:
        flow_stages.add_flow_options(parser.group("GFLA, stage 1"), is_train, 20.0, 0.01)
        if is_train:
            flow_stages.set_training_defaults(parser)

    @property
    def result_size(self) -> tuple[int, int]:
        """Images are saved as generated; GFLA's metrics expect 256 x 256 for fashion."""
        return self.opt.load_size

    def __init__(self, opt):
        super().__init__(opt)
        flow_stages.check_size(opt)
        levels = flow_stages.parse_levels(opt.attn_layer, DEEPEST_LEVEL)
        self.config = FlowConfig(
            levels, flow_stages.flow_width(opt), pose_channels=self.pose_channels
        )
        net_G = initialize(PoseFlowNet(self.config), opt.init_type, opt.init_gain)
        if not self.is_train:
            self.add_network("G", net_G, self.config)
            return
        self.add_network("G", net_G, self.config, opt.lr, (opt.beta1, 0.999))
        sides = dict(flow_stages.parse_kernel_sizes(opt.kernel_size, levels))
        self.windows = [sides[level] for level in self.config.levels]
        if not (opt.lambda_correct or opt.lambda_regularization):
            raise UserError(
                "--lambda_correct 0 and --lambda_regularization 0 leave nothing to learn; give one "
                "of them a weight"
            )
        if opt.lambda_correct:
            self.vgg = self.make_vgg()

    @torch.no_grad()
    def infer(self, inputs: Batch) -> Tensors:
        """Pictures of the flows; ``fake_target`` is the source image warped by the finest one."""
        with self.precision.networks():
            flows, masks = self._estimate(inputs)
        pictures = flow_stages.flow_pictures(inputs, self.config.levels, flows, masks)
        return {"fake_target": pictures.pop("warped_source"), **pictures}

    def _estimate(self, inputs: Batch) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        flows, masks = self.networks["G"](
            inputs["source_image"], inputs["source_pose"], inputs["target_pose"]
        )
        return [to_float32(flow) for flow in flows], [to_float32(mask) for mask in masks]

    @torch.no_grad()
    def explain(self, inputs: Batch) -> Explanation:
        with self.precision.networks():
            flows, _ = self._estimate(inputs)
        warped = flow_stages.warp_image(inputs["source_image"], flows[-1])
        return Explanation(warped, flows=flows)

    def forward(self) -> None:
        """Estimate the flows of ``self.inputs`` and keep them for the loss."""
        self.flows, self.masks = self._estimate(self.inputs)
        self.seen = self.inputs

    @property
    def visuals(self) -> Tensors:
        first = ([x[:1] for x in self.flows], [x[:1] for x in self.masks])
        return super().visuals | flow_stages.flow_pictures(self.seen, self.config.levels, *first)

    def flow_loss(self) -> torch.Tensor:
        """L = lambda_correct * correctness + lambda_regularization * regularization."""
        opt, levels = self.opt, self.config.levels
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
