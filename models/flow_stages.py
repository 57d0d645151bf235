"""What GFLA's two stages share above the networks: options, flow losses, pictures of the flows."""

from __future__ import annotations

import torch

from models.base_model import Batch, Tensors
from models.losses.flow import (
    affine_regularization_loss,
    correctness_layer,
    sampling_correctness_loss,
)
from models.losses.perceptual import Features
from util.errors import UserError
from util.flow_picture import flow_to_picture, mask_to_picture, warp_image

SIZE_MULTIPLE = 32  # the flow estimator halves the image five times


def add_flow_options(
    group, is_train: bool, lambda_correct: float, lambda_regularization: float
) -> None:
    """Options that both stages have; the weights' defaults differ between them."""
    group.add_argument(
        "--attn_layer",
        default="2,3",
        help="pyramid levels with a flow field, comma-separated; level L has 1/2^L of the image "
        "size (published: 2,3 fashion; 2 market)",
    )
    group.add_argument(
        "--kernel_size",
        default="2=5,3=3",
        help="side of the attention window at each level, LEVEL=SIDE,...; levels that --attn_layer "
        "leaves out are not read (published: 2=5,3=3 fashion; 2=3 market)",
    )
    if is_train:
        weights = {
            "--lambda_correct": (lambda_correct, "sampling correctness loss"),
            "--lambda_regularization": (lambda_regularization, "affine regularization of flows"),
        }
        add_weights(group, weights)


def add_weights(group, weights: dict[str, tuple[float, str]]) -> None:
    """One float option per loss: flag -> (default, name of the loss)."""
    for flag, (default, loss) in weights.items():
        group.add_argument(flag, type=float, default=default, help=f"weight of the {loss}")


def set_training_defaults(parser) -> None:
    """As published: Adam (0, 0.999), constant 1e-4, batches of 8, Market images augmented."""
    parser.set_defaults(lr=1e-4, beta1=0.0, batchSize=8, niter=200, niter_decay=0, augment=True)


def parse_levels(text: str, deepest: int) -> tuple[int, ...]:
    """``2,3`` -> (2, 3); levels must be distinct and lie in 1 ... ``deepest``."""
    try:
        levels = tuple(sorted(int(word) for word in str(text).split(",")))
    except ValueError:
        levels = ()
    if not levels or len(set(levels)) < len(levels) or not 1 <= levels[0] <= levels[-1] <= deepest:
        raise UserError(
            f"--attn_layer {text}: expected distinct pyramid levels from 1 to {deepest}, separated "
            "by commas, such as 2,3"
        )
    return levels


def parse_kernel_sizes(text: str, levels: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """``2=5,3=3`` -> ((2, 5), (3, 3)), for the given levels only."""
    try:
        sizes = {int(level): int(k) for level, k in (w.split("=") for w in str(text).split(","))}
    except ValueError:
        sizes = {}
    if not sizes or min(sizes.values()) < 1:
        raise UserError(f"--kernel_size {text}: expected LEVEL=SIDE pairs such as 2=5,3=3")
    missing = [level for level in levels if level not in sizes]
    if missing:
        raise UserError(
            f"--kernel_size {text} has no entry for level {missing[0]} of --attn_layer; add "
            f"{missing[0]}=3, for example"
        )
    return tuple((level, sizes[level]) for level in levels)


def check_size(opt) -> None:
    """Refuse a size whose deepest feature map would be a single pixel, which has no statistics."""
    if max(opt.load_size) <= SIZE_MULTIPLE:
        raise UserError(
            f"--load_size {opt.load_size[0]} {opt.load_size[1]}: the {opt.model} model needs more "
            f"than {SIZE_MULTIPLE} pixels in one dimension"
        )


def flow_width(opt) -> int:
    """Width of the flow estimator's first layer: half that of the generator."""
    return max(1, opt.ngf // 2)


class FlowCriterion:
    """Weighted sampling correctness and affine regularization of one image pair's flow fields."""

    def __init__(
        self,
        levels: tuple[int, ...],  # coarse to fine: the order of the flows
        kernel_size: tuple[tuple[int, int], ...],  # (level, window side) pairs
        lambda_correct: float,
        lambda_regularization: float,
    ):
        self.levels = levels
        self.layers = tuple(correctness_layer(level) for level in levels)  # VGG layers it reads
        self.windows = [dict(kernel_size)[level] for level in levels]
        self.weights = (lambda_correct, lambda_regularization)

    def __call__(
        self, target: Features, source: Features, flows: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(correctness, regularization), weighted, from VGG features of target and source image."""
        correctness = sampling_correctness_loss(target, source, flows, self.levels)
        regularization = affine_regularization_loss(flows, self.windows)
        return correctness * self.weights[0], regularization * self.weights[1]


def flow_pictures(
    inputs: Batch, levels: tuple[int, ...], flows: list[torch.Tensor], masks: list[torch.Tensor]
) -> Tensors:
    """Pictures at image size: source warped by the finest flow, flow fields, occlusion masks."""
    source = inputs["source_image"][: flows[0].shape[0]]  # .shape is dynamic in exports
    size = source.shape[2:]
    pictures = {"warped_source": warp_image(source, flows[-1].detach())}
    for level, flow, mask in zip(levels, flows, masks, strict=True):
        pictures[f"flow_field_{level}"] = flow_to_picture(flow, size=size)
        pictures[f"occlusion_mask_{level}"] = mask_to_picture(mask, size=size)
    return pictures
