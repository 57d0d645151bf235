"""The networks that metrics ask: their weight files, Inception, LPIPS and a person detector."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from util.errors import UserError
from util.metrics.folder import ImagePair
from util.metrics.keypoints import target_mask
from util.metrics.protocols import LPIPS, Inception, Protocol, kept
from util.metrics.registry import Column, MetricUnavailableError, Score, Task, register_metric
from util.run.checkpoint import file_hash
from util.run.device import exact_arithmetic
from util.run.weights import PublishedFile, cache_folders, find_weights, load_weights
from util.tensors import IMAGENET_MEAN, IMAGENET_STD

TORCHVISION = "https://download.pytorch.org/models"
PYTORCH_FID = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights"

# key -> what it is, its published file, the option that names another copy
_FILES = {
    "alex": ("torchvision's AlexNet", "alexnet-owt-7be5be79.pth", "--alexnet_weights"),
    "vgg": ("torchvision's VGG-16", "vgg16-397923af.pth", "--vgg16_weights"),
    "squeeze": (
        "torchvision's SqueezeNet 1.1", "squeezenet1_1-b8a52dc0.pth", "--squeezenet_weights",
    ),
    "torchvision": (
        "torchvision's Inception v3", "inception_v3_google-0cc3c7bd.pth", "--inception_weights",
    ),
    "pytorch-fid": (
        "pytorch-fid's port of the TensorFlow Inception", "pt_inception-2015-12-05-6726825d.pth",
        "--fid_weights",
    ),
    "ssd300": ("torchvision's SSD300", "ssd300_vgg16_coco-b556d3b4.pth", "--ssd300_weights"),
}  # fmt: skip
WEIGHT_OPTIONS = {key: option for key, (_, _, option) in _FILES.items()}
WEIGHTS = {
    key: PublishedFile(
        what,
        name,
        f"{PYTORCH_FID if key == 'pytorch-fid' else TORCHVISION}/{name}",
        sha256=Path(name).stem.rsplit("-", 1)[1],  # these publishers put the hash into the name
        advice=f"give your copy with {option}",
    )
    for key, (what, name, option) in _FILES.items()
}


@dataclass
class WeightStore:
    """Finds weight files and remembers, for the report, which were used.

    ``paths``: key of :data:`WEIGHTS` -> the user's copy, used whatever its hash (the report says
    whether it is the published one). ``offline``: never try to download.
    """

    paths: Mapping[str, str | Path | None] | None = None
    offline: bool = False
    used: dict[str, dict[str, object]] = field(default_factory=dict)

    def load(self, key: str) -> dict[str, torch.Tensor]:
        """State dict of one network; MetricUnavailableError says what to put where."""
        file, own = WEIGHTS[key], (self.paths or {}).get(key)
        cached = any((folder / file.name).is_file() for folder in cache_folders())
        if own is None and self.offline and not cached:
            raise MetricUnavailableError(
                f"the weights of {file.what} are not in {cache_folders()[-1]} and downloads are "
                f"off: put {file.name} there, or {file.advice}."
            )
        try:
            path = find_weights(file, own)
            state = load_weights(file, path)
        except UserError as error:
            option = f" (option {WEIGHT_OPTIONS[key]})" if own is not None else ""
            raise MetricUnavailableError(f"{error}{option}") from error
        digest = file_hash(path)
        published = digest.startswith(file.sha256)
        self.used[key] = {"file": str(path), "sha256": digest, "published": published}
        return state


def _filled(network: nn.Module, state: Mapping[str, torch.Tensor], what: str) -> nn.Module:
    """The network with a state dict put into it, strictly; frozen, eval mode."""
    try:
        network.load_state_dict(dict(state), strict=True, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise MetricUnavailableError(
            f"the weight file of {what} does not fit the network ({reason}); use the published "
            "file."
        ) from error
    return network.eval().requires_grad_(False)


# ---- Inception -----------------------------------------------------------------------------------


def _inception_v3(tensorflow: bool) -> nn.Module:
    """Inception v3 without weights, of torchvision or as the original FID network has it.

    The TensorFlow network differs where its poolings do not count the padding.
    """
    from torchvision.models import inception_v3  # slow to import

    classes = 1008 if tensorflow else 1000
    more = {"init_weights": False, "transform_input": False, "aux_logits": not tensorflow}
    with torch.device("meta"):
        network = inception_v3(weights=None, num_classes=classes, **more)
        if tensorflow:
            from pytorch_fid import inception as blocks

            network.Mixed_5b = blocks.FIDInceptionA(192, pool_features=32)
            network.Mixed_5c = blocks.FIDInceptionA(256, pool_features=64)
            network.Mixed_5d = blocks.FIDInceptionA(288, pool_features=64)
            network.Mixed_6b = blocks.FIDInceptionC(768, channels_7x7=128)
            network.Mixed_6c = blocks.FIDInceptionC(768, channels_7x7=160)
            network.Mixed_6d = blocks.FIDInceptionC(768, channels_7x7=160)
            network.Mixed_6e = blocks.FIDInceptionC(768, channels_7x7=192)
            network.Mixed_7b = blocks.FIDInceptionE_1(1280)
            network.Mixed_7c = blocks.FIDInceptionE_2(2048)
    return network


class InceptionFeatures(nn.Module):
    """The network of a definition: uint8 images (B, H, W, 3) -> pool features (B, 2048) float32."""

    def __init__(self, definition: Inception, store: WeightStore, device: str = "cpu"):
        super().__init__()
        state = store.load(definition.weights)  # MetricUnavailableError where they are missing
        network = _inception_v3(tensorflow=definition.weights == "pytorch-fid")
        self.network = _filled(network, state, WEIGHTS[definition.weights].what)
        self.classifier, self.network.fc = self.network.fc, nn.Identity()
        mean, std = np.full(3, 0.0), np.full(3, 1.0)
        if definition.scaling == "historical":
            mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
        for name, values in (("scale", std / 0.5), ("shift", (mean - 0.5) / 0.5)):
            self.register_buffer(name, torch.tensor(values).float().view(1, 3, 1, 1))
        self.eval().to(device)

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Pool features (B, 2048) of uint8 images (B, H, W, 3)."""
        values = images.to(self.scale.device).permute(0, 3, 1, 2).float() / 255
        values = F.interpolate(values, (299, 299), mode="bilinear", align_corners=False)
        with exact_arithmetic(values.device):
            return self.network(values * self.scale + self.shift)

    @torch.no_grad()
    def logits(self, features: torch.Tensor, bias: bool = True) -> torch.Tensor:
        """Class logits (B, 1000 or 1008) of pool features (B, 2048)."""
        weights = self.classifier
        with exact_arithmetic(features.device):
            return F.linear(features, weights.weight, weights.bias if bias else None)


# ---- metrics of one or two images by a network ---------------------------------------------------


# LPIPS (Zhang et al., CVPR 2018) by the ``lpips`` package, with backbone weights from a file.

SMALLEST = 32  # the last layers of the backbones have no pixel left below this


def build_lpips(definition: LPIPS, store: WeightStore, device: str = "cpu") -> nn.Module:
    """The package's network with its own linear heads and the backbone from ``store``.

    The global random state is left as it was: measuring during training changes nothing.
    """
    import lpips  # slow to import: torchvision's models

    state = store.load(definition.net)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package calls torchvision by its older names
        network = lpips.LPIPS(
            net=definition.net, version=definition.version, pnet_rand=True, verbose=False
        )
    own = network.net.state_dict()
    # "slice2.3.weight" of the package is "features.3.weight" of torchvision.
    wanted = {key: state.get(f"features.{key.split('.', 1)[1]}") for key in own}
    missing = [k for k, v in wanted.items() if v is None or v.shape != own[k].shape]
    if missing:
        raise MetricUnavailableError(
            f"the weight file of LPIPS's {definition.net} backbone lacks {len(missing)} of "
            f"{len(own)} tensors or has them in other shapes (features."
            f"{missing[0].split('.', 1)[1]} first); use the published file."
        )
    network.net.load_state_dict(wanted)
    return network.eval().requires_grad_(False).to(device)


@torch.no_grad()
def lpips_distances(
    network: nn.Module,
    gt: torch.Tensor,
    pred: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> np.ndarray:
    """Distances (B,) of uint8 images (B, H, W, 3); ``mask`` (B, H, W) blanks both to grey (0)."""
    if min(gt.shape[1:3]) < SMALLEST:
        raise MetricUnavailableError(
            f"LPIPS needs images of {SMALLEST} px or more on each side, found {gt.shape[1]}x"
            f"{gt.shape[2]} (height x width)."
        )
    device = next(network.parameters()).device
    pair = [x.to(device).permute(0, 3, 1, 2).float() / 127.5 - 1 for x in (gt, pred)]
    if mask is not None:
        pair = [image * mask.to(device)[:, None] for image in pair]
    with exact_arithmetic(device):
        return network(*pair).flatten().double().cpu().numpy()


def score_lpips(task: Task) -> list[Score]:
    """LPIPS of every pair."""
    (column,), table = task.columns, task.settings.keypoints
    network = build_lpips(column.settings, task.evaluation.weights, task.settings.device)
    reader = task.reader(network=True)

    def read(pair: ImagePair) -> tuple[np.ndarray, ...]:
        both = reader.read_reference(pair.gt), reader.read_result(pair.result)
        if not column.masked:
            return both
        return (*both, target_mask(table.people[pair.key], both[0].shape[:2]))

    values = task.measured(column, read, partial(lpips_distances, network))
    return [task.per_image_score(column, values, used=kept(len(values), column.settings))]


def _lpips(name: str, definition: LPIPS, masked: bool = False) -> Column:
    words = f"LPIPS, {definition.net} backbone, linear heads v{definition.version}, unpadded"
    words += ", background set to grey by the body mask" * masked
    if definition.remainder == "drop" and definition.batch > 1:
        words += f", last partial batch of {definition.batch} dropped"
    return Column(name, words, definition, False, score_lpips, masked=masked, share=name)


@register_metric("lpips")
def _lpips_columns(protocol: Protocol) -> list[Column]:
    return [_lpips(name, definition) for name, definition in protocol.lpips.items()]


@register_metric("mask_lpips")
def _mask_lpips(protocol: Protocol) -> list[Column]:
    definition = next(iter(protocol.lpips.values()))
    definition = replace(definition, batch=64, remainder=protocol.fid.remainder)
    return [_lpips("mask_lpips", definition, masked=True)]


for _net, _version in product(("alex", "vgg", "squeeze"), ("0.0", "0.1")):
    _column = _lpips(f"lpips_{_net}_v{_version}", LPIPS(_net, _version))
    register_metric(_column.name)(lambda protocol, column=_column: [column])


PERSON = 1  # COCO label


def build_detector(store: WeightStore, device: str = "cpu") -> nn.Module:
    """torchvision's SSD300 with MAGPT's rule: scores above 0.05, NMS at IoU 0.5, 20 detections."""
    from torchvision.models.detection import ssd300_vgg16  # slow to import, seldom needed

    state, rule = store.load("ssd300"), {"score_thresh": 0.05, "nms_thresh": 0.5}
    rule |= {"detections_per_img": 20, "num_classes": 91}
    with torch.random.fork_rng(devices=[]):
        network = ssd300_vgg16(weights=None, weights_backbone=None, **rule)
    return _filled(network, state, "SSD300").to(device)


@torch.no_grad()
def person_scores(network: Callable, device: str, images: torch.Tensor) -> np.ndarray:
    """Highest person score (B,) of uint8 images (B, H, W, 3); 0 where nobody is found."""
    inputs = images.to(device).permute(0, 3, 1, 2).float() / 255
    with exact_arithmetic(inputs.device):
        found = network(list(inputs))
    people = [one["scores"][one["labels"] == PERSON] for one in found]
    return np.array([float(scores.max()) if len(scores) else 0.0 for scores in people])


def score_detection(task: Task) -> list[Score]:
    """Detection score of every result."""
    (column,), reader, device = task.columns, task.reader(network=False), task.settings.device
    network = build_detector(task.evaluation.weights, device)
    measure = partial(person_scores, network, device)
    values = task.measured(column, lambda pair: (reader.read_result(pair.result),), measure)
    return [task.per_image_score(column, values)]


@register_metric("detection_score")
def _detection_score(protocol: Protocol) -> list[Column]:
    # The published tables used other detectors (MAGPT: NVIDIA's SSD300 on ResNet-50; PATN: a Keras
    # SSD300), so the network is part of the column's name.
    words = "highest person confidence of torchvision's SSD300 (VGG-16, COCO), 0 without a person"
    return [Column("detection_score_ssd300vgg16", words, None, True, score_detection)]
