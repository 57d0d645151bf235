"""Weight files of the metric networks: which are needed, where they are, which were used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from util.errors import UserError
from util.metrics.registry import MetricUnavailableError
from util.run.checkpoint import file_hash
from util.run.weights import PublishedFile, cache_folders, find_weights, load_weights

TORCHVISION = "https://download.pytorch.org/models"
PYTORCH_FID = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights"


@dataclass(frozen=True)
class WeightFile:
    """A published file and the option of script/metrics.py that names another copy."""

    file: PublishedFile
    option: str


def _published(what: str, place: str, name: str, option: str) -> WeightFile:
    digits = Path(name).stem.rsplit("-", 1)[1]  # all of these publishers put the hash into the name
    return WeightFile(PublishedFile(what, name, f"{place}/{name}", digits), option)


WEIGHTS: dict[str, WeightFile] = {
    "alex": _published(
        "torchvision's AlexNet", TORCHVISION, "alexnet-owt-7be5be79.pth", "--alexnet_weights"
    ),
    "vgg": _published("torchvision's VGG-16", TORCHVISION, "vgg16-397923af.pth", "--vgg16_weights"),
    "squeeze": _published(
        "torchvision's SqueezeNet 1.1",
        TORCHVISION,
        "squeezenet1_1-b8a52dc0.pth",
        "--squeezenet_weights",
    ),
    "torchvision": _published(
        "torchvision's Inception v3",
        TORCHVISION,
        "inception_v3_google-0cc3c7bd.pth",
        "--inception_weights",
    ),
    "pytorch-fid": _published(
        "pytorch-fid's port of the TensorFlow Inception",
        PYTORCH_FID,
        "pt_inception-2015-12-05-6726825d.pth",
        "--fid_weights",
    ),
    "ssd300": _published(
        "torchvision's SSD300", TORCHVISION, "ssd300_vgg16_coco-b556d3b4.pth", "--ssd300_weights"
    ),
}


class WeightStore:
    """Finds weight files and remembers, for the report, which were used.

    ``paths``: key of :data:`WEIGHTS` -> the user's copy, used whatever its hash (the report says
    whether it is the published one). ``offline``: never try to download.
    """

    def __init__(self, paths: Mapping[str, str | Path | None] | None = None, offline: bool = False):
        self.paths = {key: path for key, path in (paths or {}).items() if path is not None}
        self.offline = offline
        self.used: dict[str, dict[str, object]] = {}

    def load(self, key: str) -> dict[str, torch.Tensor]:
        """State dict of one network; MetricUnavailableError says what to put where."""
        wanted = WEIGHTS[key]
        path = self._find(wanted, self.paths.get(key))
        try:
            state = load_weights(wanted.file, path)
        except UserError as error:
            raise MetricUnavailableError(str(error)) from error
        broken = [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]
        if broken:
            raise MetricUnavailableError(
                f"{path} holds values that are no numbers (nan or infinite) in {len(broken)} of "
                f"{len(state)} tensors ({broken[0]} first); expected {wanted.file.what}: replace "
                "the file."
            )
        digest = file_hash(path)
        self.used[key] = {
            "file": str(path),
            "sha256": digest,
            "published": digest.startswith(wanted.file.sha256),
        }
        return state

    def sha256(self, key: str) -> str:
        """Hash of a file that was loaded."""
        return str(self.used[key]["sha256"])

    def notes(self) -> list[str]:
        """A sentence about every file that is not the published one."""
        return [
            f"the weights of {WEIGHTS[key].file.what} ({used['file']}) are not the published file: "
            "numbers of this network compare with nothing published."
            for key, used in self.used.items()
            if not used["published"]
        ]

    def _find(self, wanted: WeightFile, path: str | Path | None) -> Path:
        file = wanted.file
        if path is None and self.offline and not self._cached(file.name):
            raise MetricUnavailableError(
                f"the weights of {file.what} are not in {cache_folders()[-1]} and downloads are "
                f"off: put {file.name} there, or give your copy with {wanted.option}."
            )
        try:
            own_copy = path is not None
            return find_weights(replace(file, sha256=None) if own_copy else file, path)
        except UserError as error:
            hint = f" (option {wanted.option})"
            raise MetricUnavailableError(str(error).rstrip(".") + hint) from error

    @staticmethod
    def _cached(name: str) -> bool:
        return any((folder / name).is_file() for folder in cache_folders())


def assign_state(
    network: torch.nn.Module, state: Mapping[str, torch.Tensor], what: str
) -> torch.nn.Module:
    """Put a state dict into a network, strictly; frozen, eval mode."""
    try:
        network.load_state_dict(dict(state), strict=True, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise MetricUnavailableError(
            f"the weight file of {what} does not fit the network ({reason}); use the published "
            "file."
        ) from error
    return network.eval().requires_grad_(False)
