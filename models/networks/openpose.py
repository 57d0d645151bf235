"""The OpenPose COCO-18 body network (Cao et al., CVPR 2017) under its released weight names.

A VGG trunk at stride 8 feeds six stages of two branches: L1 predicts 38 part affinity maps, L2 19
heat maps. The released weights are for non-commercial research.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import nn

PAF_MAPS = 38  # branch L1
HEAT_MAPS = 19  # branch L2: 18 joints and the background
STAGES = 6

# (name, input channels, output channels); None is a 2x2 max-pool.
_TRUNK = (
    ("conv1_1", 3, 64), ("conv1_2", 64, 64), None,
    ("conv2_1", 64, 128), ("conv2_2", 128, 128), None,
    ("conv3_1", 128, 256), ("conv3_2", 256, 256), ("conv3_3", 256, 256), ("conv3_4", 256, 256),
    None,
    ("conv4_1", 256, 512), ("conv4_2", 512, 512),
    ("conv4_3_CPM", 512, 256), ("conv4_4_CPM", 256, 128),
)  # fmt: skip


def _conv(in_channels: int, out_channels: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)


def _with_relu(layers: OrderedDict[str, nn.Module], relu_at_end: bool) -> nn.Sequential:
    """A ReLU after every convolution; after the last one only if ``relu_at_end``."""
    out: OrderedDict[str, nn.Module] = OrderedDict()
    for name, layer in layers.items():
        out[name] = layer
        if isinstance(layer, nn.Conv2d):
            out[f"relu_{name}"] = nn.ReLU(inplace=True)
    if not relu_at_end:
        out.popitem()
    return nn.Sequential(out)


def _trunk() -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, layer in enumerate(_TRUNK):
        if layer is None:
            layers[f"pool{i}"] = nn.MaxPool2d(2)
        else:
            layers[layer[0]] = _conv(layer[1], layer[2], 3)
    return _with_relu(layers, relu_at_end=True)


def _branch(stage: int, branch: int) -> nn.Sequential:
    """Stage 1 has three 3x3 convolutions, later stages five 7x7; both end with two 1x1."""
    maps = PAF_MAPS if branch == 1 else HEAT_MAPS
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if stage == 1:
        sizes = [(128, 128, 3)] * 3 + [(128, 512, 1), (512, maps, 1)]
        names = [f"conv5_{i}_CPM_L{branch}" for i in range(1, 6)]
    else:
        first = (PAF_MAPS + HEAT_MAPS + 128, 128, 7)
        sizes = [first] + [(128, 128, 7)] * 4 + [(128, 128, 1), (128, maps, 1)]
        names = [f"Mconv{i}_stage{stage}_L{branch}" for i in range(1, 8)]
    for name, size in zip(names, sizes, strict=True):
        layers[name] = _conv(*size)
    # The released network rectifies its last heat maps; the decoder's thresholds expect that.
    return _with_relu(layers, relu_at_end=stage == STAGES and branch == 2)


class OpenPoseBody(nn.Module):
    """(B, 3, H, W), v/255 - 0.5 -> affinity (B, 38, H/8, W/8), heat maps (B, 19, H/8, W/8)."""

    def __init__(self) -> None:
        super().__init__()
        self.model0 = _trunk()
        for branch in (1, 2):
            for stage in range(1, STAGES + 1):
                setattr(self, f"model{stage}_{branch}", _branch(stage, branch))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        trunk = self.model0(image)  # (B, 128, H/8, W/8)
        paf, heat = self.model1_1(trunk), self.model1_2(trunk)
        for stage in range(2, STAGES + 1):
            x = torch.cat([paf, heat, trunk], dim=1)  # (B, 185, H/8, W/8)
            paf = getattr(self, f"model{stage}_1")(x)
            heat = getattr(self, f"model{stage}_2")(x)
        return paf, heat


def from_file_keys(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names of the released file -> names of :class:`OpenPoseBody`.

    The file's key is ours without its first component: ``model0.conv1_1.weight`` is
    ``conv1_1.weight``. Unknown keys are kept as they are, for a strict load to report.
    """
    with torch.device("meta"):
        ours = {key.split(".", 1)[1]: key for key in OpenPoseBody().state_dict()}
    return {ours.get(key, key): value for key, value in state.items()}
