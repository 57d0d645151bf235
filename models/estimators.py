"""The joints of the people in a photograph: estimators by name, and the choice of one person.

The walk of a photo: :class:`PersonFinder` asks the estimator for people, each with the 18 joints of
:mod:`util.skeleton` in pixels of the photo, and takes one of them.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from models.networks.openpose import OpenPoseBody, decode_people, from_file_keys, network_input
from util.errors import UserError
from util.keypoint_formats import to_openpose18
from util.run.checkpoint import load_state
from util.run.weights import PublishedFile, find_weights, load_weights
from util.skeleton import JOINTS, MIN_JOINTS, MISSING, Person, choose_person, present

ADVICE = (
    "give your copy with --weights, or poses as JSON files (--pose, --source_keypoints), which "
    "need no estimator: python -m script.mediapipe_keypoints writes them"
)
KEYPOINT_RCNN_FILE = PublishedFile(
    "torchvision's keypointrcnn_resnet50_fpn",
    "keypointrcnn_resnet50_fpn_coco-fc266e95.pth",
    "https://download.pytorch.org/models/keypointrcnn_resnet50_fpn_coco-fc266e95.pth",
    sha256="fc266e95",
    advice=ADVICE,
)
OPENPOSE_FILE = PublishedFile(
    "the OpenPose COCO-18 body network",
    "openpose_body_coco_pose_iter_440000.pth",
    "https://www.dropbox.com/s/mun9eh2509pw32n/openpose_body_coco_pose_iter_440000.pth?dl=1",
    advice=ADVICE,
)


class KeypointEstimator(Protocol):
    """What every estimator offers; your own class needs nothing else."""

    def estimate(self, image: Image.Image) -> list[Person]:
        """All people in an RGB picture; empty when there is none."""
        ...


class TorchvisionEstimator:
    """torchvision's Keypoint R-CNN (He et al., ICCV 2017): needs no further package."""

    PERSON_SCORE = 0.7
    JOINT_LOGIT = 2.0  # the heat map's peak; hidden joints stay below

    def __init__(
        self,
        state: Mapping[str, torch.Tensor],  # content of KEYPOINT_RCNN_FILE
        device: str | torch.device = "cpu",
        min_size: int = 800,  # pixels of the shorter side inside the network
    ):
        # Imported here: the detection models take a second that other commands need not wait for.
        from torchvision.models.detection import keypointrcnn_resnet50_fpn

        self.device = torch.device(device)
        with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it is
            network = keypointrcnn_resnet50_fpn(
                weights=None, weights_backbone=None, min_size=min_size, box_detections_per_img=20
            )
        load_state(network, state, "the Keypoint R-CNN weight file")
        self.network = network.eval().to(self.device)

    @torch.no_grad()
    def estimate(self, image: Image.Image) -> list[Person]:
        """People by falling detection score."""
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        found = self.network([pixels.to(self.device).float() / 255])[0]
        keep = found["scores"] > self.PERSON_SCORE
        points = found["keypoints"][keep][..., :2].cpu().numpy()  # (P, 17, 2), x, y
        logits = found["keypoints_scores"][keep].cpu().numpy().astype(np.float64)
        scores = 1 / (1 + np.exp(-logits.clip(-50, 50)))
        threshold = 1 / (1 + np.exp(-self.JOINT_LOGIT))
        keypoints, scores = to_openpose18(points, scores, "coco17", threshold)
        return [Person(k, s) for k, s in zip(keypoints, scores, strict=True)]


class OpenPoseEstimator:
    """The OpenPose COCO-18 body network: the joints that the data sets' own annotations come from.

    The network is given as a callable, (1, 3, h, w) -> (affinity maps, heat maps).
    ``color_order``: the network was trained on ``bgr``; the published MAGPT API feeds it ``rgb``.
    """

    # The network sees 184 rows; the decoder needs 456 bytes for every pixel of the picture.
    MAX_SIDE = 768  # larger pictures are shrunk first

    def __init__(
        self,
        network: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
        device: str | torch.device = "cpu",
        color_order: str = "bgr",
    ):
        if color_order not in ("bgr", "rgb"):
            raise UserError(f"color_order is {color_order!r}; expected 'bgr' or 'rgb'")
        self.network = network
        self.device = torch.device(device)
        self.color_order = color_order

    @torch.no_grad()
    def estimate(self, image: Image.Image) -> list[Person]:
        """People in the order in which the decoder started them, as published."""
        image = image.convert("RGB")
        small = image.copy()
        small.thumbnail((self.MAX_SIDE, self.MAX_SIDE), Image.Resampling.BICUBIC)
        scale = np.array([image.height / small.height, image.width / small.width])
        pixels = np.array(small)
        if self.color_order == "bgr":
            pixels = np.ascontiguousarray(pixels[:, :, ::-1])
        paf, heat = self.network(torch.from_numpy(network_input(pixels)).to(self.device))
        keypoints, scores = decode_people(heat.cpu().numpy(), paf.cpu().numpy(), pixels.shape[:2])
        in_photo = (keypoints + 0.5) * scale - 0.5  # pixel centres
        in_photo = np.where(present(keypoints)[..., None], in_photo, float(MISSING))
        return [Person(k, s) for k, s in zip(in_photo, scores, strict=True)]


class RtmlibEstimator:
    """RTMPose through the optional package rtmlib; it downloads its weights itself."""

    JOINT_SCORE = 0.3

    def __init__(self, device: str | torch.device = "cpu"):
        try:
            rtmlib = importlib.import_module("rtmlib")
        except ImportError as error:
            raise UserError(
                "the estimator rtmlib needs the package rtmlib, which is not installed: "
                "pip install rtmlib, or choose --estimator torchvision"
            ) from error
        try:
            self.body = rtmlib.Body(mode="balanced", backend="onnxruntime", device=str(device))
        except Exception as error:  # the package raises whatever its download raised
            raise UserError(
                f"rtmlib could not load its weights ({error}); connect to the internet once, or "
                "choose --estimator torchvision"
            ) from error

    def estimate(self, image: Image.Image) -> list[Person]:
        """People in the detector's order."""
        pixels = np.ascontiguousarray(np.array(image.convert("RGB"))[:, :, ::-1])  # it expects BGR
        boxes = self.body.det_model(pixels)
        if len(boxes) == 0:  # rtmlib itself would take the whole picture for a person
            return []
        points, scores = self.body.pose_model(pixels, bboxes=boxes)
        keypoints, scores = to_openpose18(points, scores, "coco17", self.JOINT_SCORE)
        return [Person(k, s) for k, s in zip(keypoints, scores, strict=True)]


Weights = str | os.PathLike | None


def _torchvision(weights: Weights, device: str | torch.device) -> TorchvisionEstimator:
    path = find_weights(KEYPOINT_RCNN_FILE, weights)
    return TorchvisionEstimator(load_weights(KEYPOINT_RCNN_FILE, path), device)


def _openpose(
    weights: Weights, device: str | torch.device, color_order: str = "bgr"
) -> OpenPoseEstimator:
    path = find_weights(OPENPOSE_FILE, weights)
    with torch.device("meta"):
        network = OpenPoseBody()
    network = network.to_empty(device="cpu")
    load_state(network, from_file_keys(load_weights(OPENPOSE_FILE, path)), str(path))
    return OpenPoseEstimator(network.eval().to(device), device, color_order)


def _openpose_rgb(weights: Weights, device: str | torch.device) -> OpenPoseEstimator:
    return _openpose(weights, device, color_order="rgb")


def _rtmlib(weights: Weights, device: str | torch.device) -> RtmlibEstimator:
    if weights is not None:
        raise UserError("the estimator rtmlib finds its weights itself; leave --weights out")
    return RtmlibEstimator(device)


ESTIMATORS = {
    "torchvision": _torchvision,
    "openpose": _openpose,
    "openpose_rgb": _openpose_rgb,  # the channel order of the published MAGPT API
    "rtmlib": _rtmlib,
}


def create_estimator(
    name: str = "torchvision",  # a key of ESTIMATORS, or your own class as "module:Class"
    weights: Weights = None,  # None: the published file, from a cache or downloaded
    device: str | torch.device = "cpu",
) -> KeypointEstimator:
    """An estimator with its weights loaded; a UserError when they cannot be had."""
    if name in ESTIMATORS:
        return ESTIMATORS[name](weights, device)
    module, separator, attribute = name.partition(":")
    if not separator:
        raise UserError(
            f"--estimator {name} is unknown; expected {', '.join(ESTIMATORS)}, or your own class "
            "as module:Class"
        )
    try:
        make = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"--estimator {name}: {error}; expected module:Class of a module that can be imported "
            "from the current folder"
        ) from error
    made = make()
    if not callable(getattr(made, "estimate", None)):
        raise UserError(f"--estimator {name} has no method estimate(image) -> list of Person")
    return made


class PersonFinder:
    """Keypoints of the one person of a picture; the estimator is made when it is first needed.

    Thread-safe. ``estimator`` is an object or a name for :func:`create_estimator`.
    """

    def __init__(
        self,
        estimator: KeypointEstimator | str = "torchvision",
        weights: Weights = None,
        device: str | torch.device = "cpu",
        rule: str = "best",  # a key of PERSON_RULES
        min_joints: int = MIN_JOINTS,
        allow_nobody: bool = False,  # 18 missing joints instead of an error
    ):
        self._estimator, self._weights, self._device = estimator, weights, device
        self._rule, self._min_joints, self._allow_nobody = rule, min_joints, allow_nobody
        self._lock = threading.Lock()

    @property
    def estimator(self) -> KeypointEstimator:
        """The estimator, loaded at the first call."""
        with self._lock:
            if isinstance(self._estimator, str):
                self._estimator = create_estimator(self._estimator, self._weights, self._device)
            return self._estimator

    def __call__(self, image: Image.Image, where: str) -> np.ndarray:
        """Keypoints (18, 2) in pixels of the RGB image, or a UserError beginning with ``where``."""
        people = self._people(image, where)
        if not people and self._allow_nobody:
            return np.full((len(JOINTS), 2), float(MISSING))
        return choose_person(people, where, self._rule, self._min_joints).keypoints

    def person(self, image: Image.Image, where: str) -> Person | None:
        """The chosen person, with any number of joints; None when nobody is there."""
        people = self._people(image, where)
        return choose_person(people, where, self._rule, 0) if people else None

    def _people(self, image: Image.Image, where: str) -> list[Person]:
        people = self.estimator.estimate(image)
        if not (isinstance(people, list) and all(isinstance(p, Person) for p in people)):
            raise UserError(
                f"{where}: the estimator {type(self.estimator).__name__} returned something else "
                "than a list of api.Person; see its protocol in models/estimators.py"
            )
        return people
