"""What GFLA's two stages share above the networks: options, sizes, pictures of the flows."""

import math

import torch
import torch.nn.functional as F

from models.base_model import BaseModel, Batch, Tensors
from util.errors import UserError
from util.kinds import Add, text, weight
from util.sampling import bilinear_sample

# Hues of the optical-flow colour wheel (Baker et al., IJCV 2011): how many steps lead from each
# anchor colour to the next. The eye tells more reds and yellows apart than greens.
_ANCHORS = (
    ((1, 0, 0), 15), ((1, 1, 0), 6), ((0, 1, 0), 4),
    ((0, 1, 1), 11), ((0, 0, 1), 13), ((1, 0, 1), 6),
)  # fmt: skip


def colour_wheel() -> torch.Tensor:
    """The wheel's colours in [0, 1], (55, 3), from pointing right through down, left and up."""
    colours = []
    for i, (start, steps) in enumerate(_ANCHORS):
        end = _ANCHORS[(i + 1) % len(_ANCHORS)][0]
        share = torch.arange(steps)[:, None] / steps
        colours.append(torch.tensor(start) * (1 - share) + torch.tensor(end) * share)
    return torch.cat(colours)


def flow_to_picture(
    flow: torch.Tensor,  # (B, 2, h, w), offsets (x, y), y down
    radius: float | None = None,  # length shown in full colour; longer offsets are shown darker
    size: tuple[int, int] | None = None,  # (H, W) of the picture; default: that of the flow
) -> torch.Tensor:
    """Flow fields as pictures (B, 3, H, W) in [-1, 1]: hue = direction, saturation = length.

    Zero is white. Without ``radius`` every sample is scaled to its longest offset, but at least 1,
    so that an untrained estimator's noise does not look like a flow.
    """
    flow = flow.detach().float()
    length = flow.norm(dim=1)  # (B, h, w)
    full = length.amax((1, 2), keepdim=True).clamp(min=1) if radius is None else radius
    length = length / full
    wheel = colour_wheel().to(flow.device)
    turn = torch.atan2(flow[:, 1], flow[:, 0]) / (2 * math.pi) % 1 * len(wheel)
    before = turn.floor().long() % len(wheel)
    share = (turn - turn.floor())[..., None]
    hue = wheel[before] * (1 - share) + wheel[(before + 1) % len(wheel)] * share
    length = length[..., None]
    colour = torch.where(length <= 1, 1 - length * (1 - hue), 0.75 * hue)
    return _resize(colour.permute(0, 3, 1, 2) * 2 - 1, size)


def mask_to_picture(mask: torch.Tensor, size: tuple[int, int] | None = None) -> torch.Tensor:
    """A mask (B, 1, h, w) in [0, 1] as a grey picture (B, 3, H, W) in [-1, 1]; white is 1."""
    return _resize(mask.detach().float().expand(-1, 3, -1, -1) * 2 - 1, size)


def warp_image(image: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """image (B, C, H, W) read where the coarser flow (B, 2, h, w) points: -> (B, C, H, W).

    The flow's unit is its own pixel; it is interpolated bilinearly and scaled to the image's.
    """
    size = image.shape[2:]
    fine = F.interpolate(flow, size, mode="bilinear", align_corners=False)
    x, y = fine.unbind(1)
    fine = torch.stack((x * (size[1] / flow.shape[3]), y * (size[0] / flow.shape[2])), dim=1)
    return bilinear_sample(image, fine)


def _resize(picture: torch.Tensor, size: tuple[int, int] | None) -> torch.Tensor:
    return picture if size is None else F.interpolate(picture, tuple(size), mode="nearest")


DEEPEST_LEVEL = 4  # of a flow field; the estimator's own deepest level is 5


class FlowStage(BaseModel):
    """Either stage: settings of the flows, their pictures, and the size of the results."""

    size_multiple = 32  # the flow estimator halves the image five times

    def __init__(self, opt):
        super().__init__(opt)
        # the deepest feature map would be a single pixel, which has no statistics
        self.need_size(max(opt.load_size) > 32, "more than 32 pixels in one dimension")
        levels = parse_levels(opt.attn_layer, min(getattr(opt, "layers", 5), DEEPEST_LEVEL))
        self.kernel_size = parse_kernel_sizes(opt.kernel_size, levels)
        self.levels = levels[::-1]  # coarse to fine, as the networks' lists of flows
        self.windows = [side for _, side in self.kernel_size[::-1]]
        # the estimator's first layer has half the width of the generator's
        self.flow_settings = {
            "attn_layer": levels,
            "flow_ngf": max(1, opt.ngf // 2),
            "pose_channels": self.pose_channels,
        }

    @property
    def result_size(self) -> tuple[int, int]:
        """Images are saved as generated; GFLA's metrics expect 256 x 256 for fashion."""
        return self.opt.load_size

    @property
    def visuals(self) -> Tensors:
        """The inputs, and the flows of the first sample."""
        first = ([x[:1] for x in self.flows], [x[:1] for x in self.masks])
        return super().visuals | flow_pictures(self.seen, self.levels, *first)


def add_flow_options(
    parser, title: str, is_train: bool, lambda_correct: float, lambda_regularization: float
) -> Add:
    """Options that both stages have; the weights' defaults differ between them.

    Training defaults as published: Adam (0, 0.999), constant 1e-4, batches of 8, augmentation.
    """
    add = parser.group(title)
    levels = "pyramid levels with a flow field, of 1/2^L of the image (published market: 2)"
    add("--attn_layer", text, "2,3", levels)
    sides = "side of the attention window at each level (published market: 2=3)"
    add("--kernel_size", text, "2=5,3=3", sides)
    if is_train:
        correct, regular = "weight of the sampling correctness loss", "weight of smooth flows"
        add("--lambda_correct", weight, lambda_correct, correct)
        add("--lambda_regularization", weight, lambda_regularization, regular)
        parser.set_defaults(lr=1e-4, beta1=0.0, batchSize=8, niter=200, niter_decay=0, augment=True)
    return add


def parse_levels(text: str, deepest: int) -> tuple[int, ...]:
    """``2,3`` -> (2, 3); levels must be distinct and lie in 1 ... ``deepest``."""
    try:
        levels = tuple(sorted(map(int, text.split(","))))
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
        sizes = {int(level): int(k) for level, k in (w.split("=") for w in text.split(","))}
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
