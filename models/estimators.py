"""The people in a photograph, by name: estimators of their joints, networks for their masks.

The walk of a photo: :class:`PersonFinder` asks the estimator for people, each with the 18 joints of
:mod:`util.skeleton` in pixels of the photo, and takes one of them.
"""

import importlib
import os
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from models.networks.openpose import OpenPoseBody, decode_people, from_file_keys, network_input
from util.errors import UserError
from util.keypoint_formats import JOINT_SCORE, to_openpose18
from util.person.background import Masker, grabcut_mask
from util.run.checkpoint import load_state
from util.run.weights import PublishedFile, find_weights, load_weights
from util.skeleton import JOINTS, MIN_JOINTS, MISSING, Person, choose_person, present

ADVICE = (
    "give your copy with --weights, or poses as JSON files (--pose, --source_keypoints), which "
    "need no estimator: python -m script.mediapipe_keypoints writes them"
)
TORCHVISION = "https://download.pytorch.org/models"
KEYPOINT_RCNN, MASK_RCNN = "keypointrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn"
KEYPOINT_RCNN_FILE = PublishedFile(
    f"torchvision's {KEYPOINT_RCNN}", f"{KEYPOINT_RCNN}_coco-fc266e95.pth",
    f"{TORCHVISION}/{KEYPOINT_RCNN}_coco-fc266e95.pth", "fc266e95", ADVICE,
)  # fmt: skip
MASK_RCNN_FILE = PublishedFile(
    f"torchvision's {MASK_RCNN}", f"{MASK_RCNN}_coco-bf2d0c1e.pth",
    f"{TORCHVISION}/{MASK_RCNN}_coco-bf2d0c1e.pth", "bf2d0c1e",
    "give your copy with --mask_weights, or choose --mask grabcut, which needs no weights",
)  # fmt: skip
OPENPOSE_FILE = PublishedFile(
    "the OpenPose COCO-18 body network",
    "openpose_body_coco_pose_iter_440000.pth",
    "https://www.dropbox.com/s/mun9eh2509pw32n/openpose_body_coco_pose_iter_440000.pth?dl=1",
    advice=ADVICE,
)

Device = str | torch.device
Weights = str | os.PathLike | None


class KeypointEstimator(Protocol):
    """What every estimator offers; your own class needs nothing else."""

    def estimate(self, image: Image.Image) -> list[Person]:
        """All people in an RGB picture; empty when there is none."""
        ...


class _TorchvisionDetector:
    """One of torchvision's detection networks (He et al., ICCV 2017) with the content of a file."""

    NETWORK, SETTINGS = "", {}

    def __init__(self, state: Mapping[str, torch.Tensor], device: Device = "cpu", **settings: int):
        # Imported here: the detection models take a second that other commands need not wait for.
        from torchvision.models import detection

        make, self.device = getattr(detection, self.NETWORK), torch.device(device)
        with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it is
            network = make(weights=None, weights_backbone=None, **self.SETTINGS | settings)
        load_state(network, state, f"the weight file of {self.NETWORK}")
        self.network = network.eval().to(self.device)

    @torch.no_grad()
    def detect(self, image: Image.Image) -> dict[str, torch.Tensor]:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        return self.network([pixels.to(self.device).float() / 255])[0]


class TorchvisionEstimator(_TorchvisionDetector):
    """torchvision's Keypoint R-CNN: needs no further package."""

    NETWORK, SETTINGS = KEYPOINT_RCNN, {"box_detections_per_img": 20}
    PERSON_SCORE = 0.7
    JOINT_LOGIT = 2.0  # the heat map's peak; hidden joints stay below

    def estimate(self, image: Image.Image) -> list[Person]:
        """People by falling detection score."""
        found = self.detect(image)
        keep = found["scores"] > self.PERSON_SCORE
        points = found["keypoints"][keep][..., :2].cpu().numpy()  # (P, 17, 2), x, y
        logits = found["keypoints_scores"][keep].cpu().numpy().astype(np.float64)
        scores = 1 / (1 + np.exp(-logits.clip(-50, 50)))
        return people_of_coco(points, scores, 1 / (1 + np.exp(-self.JOINT_LOGIT)))


def people_of_coco(points: np.ndarray, scores: np.ndarray, threshold: float) -> list[Person]:
    """People of COCO's joints (P, 17, 2), x, y, whose joints score (P, 17) above a threshold."""
    found = to_openpose18(points, scores, "coco17", threshold)
    return [Person(*each) for each in zip(*found, strict=True)]


class OpenPoseEstimator:
    """The OpenPose COCO-18 body network: the joints that the data sets' own annotations come from.

    The network is given as a callable, (1, 3, h, w) -> (affinity maps, heat maps).
    ``bgr``: the channel order it was trained on; the published MAGPT API feeds it RGB.
    """

    # The network sees 184 rows; the decoder needs 456 bytes for every pixel of the picture.
    MAX_SIDE = 768  # larger pictures are shrunk first

    def __init__(
        self,
        network: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
        device: Device = "cpu",
        bgr: bool = True,
    ):
        self.network, self.device, self.bgr = network, torch.device(device), bgr

    @torch.no_grad()
    def estimate(self, image: Image.Image) -> list[Person]:
        """People in the order in which the decoder started them, as published."""
        small = image.convert("RGB")
        small.thumbnail((self.MAX_SIDE, self.MAX_SIDE), Image.Resampling.BICUBIC)
        scale = np.array([image.height / small.height, image.width / small.width])
        pixels = np.array(small)
        pixels = np.ascontiguousarray(pixels[:, :, ::-1]) if self.bgr else pixels
        paf, heat = self.network(torch.from_numpy(network_input(pixels)).to(self.device))
        keypoints, scores = decode_people(heat.cpu().numpy(), paf.cpu().numpy(), pixels.shape[:2])
        in_photo = (keypoints + 0.5) * scale - 0.5  # pixel centres
        in_photo = np.where(present(keypoints)[..., None], in_photo, float(MISSING))
        return [Person(*each) for each in zip(in_photo, scores, strict=True)]


class RtmlibEstimator:
    """RTMPose through the optional package rtmlib; it downloads its weights itself."""

    def __init__(self, weights: Weights, device: Device):
        if weights is not None:
            raise UserError("the estimator rtmlib finds its weights itself; leave --weights out")
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
        return people_of_coco(points, scores, JOINT_SCORE)


def _torchvision(weights: Weights, device: Device) -> TorchvisionEstimator:
    path = find_weights(KEYPOINT_RCNN_FILE, weights)
    return TorchvisionEstimator(load_weights(KEYPOINT_RCNN_FILE, path), device)


def _openpose(weights: Weights, device: Device, bgr: bool = True) -> OpenPoseEstimator:
    path = find_weights(OPENPOSE_FILE, weights)
    with torch.device("meta"):
        network = OpenPoseBody()
    network = network.to_empty(device="cpu")
    load_state(network, from_file_keys(load_weights(OPENPOSE_FILE, path)), str(path))
    return OpenPoseEstimator(network.eval().to(device), device, bgr)


ESTIMATORS: dict[str, Callable[[Weights, Device], KeypointEstimator]] = {
    "torchvision": _torchvision,
    "openpose": _openpose,
    "openpose_rgb": partial(_openpose, bgr=False),  # as the published MAGPT API feeds it
    "rtmlib": RtmlibEstimator,
}


def create_estimator(
    name: str = "torchvision",  # a key of ESTIMATORS, or your own class as "module:Class"
    weights: Weights = None,  # None: the published file, from a cache or downloaded
    device: Device = "cpu",
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
        device: Device = "cpu",
        rule: str = "best",  # a key of PERSON_RULES
        min_joints: int = MIN_JOINTS,
        allow_nobody: bool = False,  # 18 missing joints instead of an error
    ):
        self._estimator, self._weights, self._device = estimator, weights, device
        self._rule, self._min_joints, self._allow_nobody = rule, min_joints, allow_nobody
        self._lock = threading.Lock()

    @property
    def estimator(self) -> KeypointEstimator:
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


# ---- masks ---------------------------------------------------------------------------------------

MASKS = ("grabcut", "maskrcnn", "none")
PERSON = 1  # COCO's label
SCORE = 0.5


class MaskRcnn(_TorchvisionDetector):
    """torchvision's Mask R-CNN: the person that holds most of the joints."""

    NETWORK = MASK_RCNN

    def __call__(self, picture: Image.Image, keypoints: np.ndarray) -> np.ndarray:
        """float32 (H, W); GrabCut's mask where the network sees nobody."""
        found = self.detect(picture)
        people = (found["labels"] == PERSON) & (found["scores"] > SCORE)
        masks = found["masks"][people, 0].cpu().numpy()
        if not len(masks):
            return grabcut_mask(picture, keypoints)
        points = np.asarray(keypoints)[present(np.asarray(keypoints))]
        y, x = points.clip(0, np.array(masks.shape[1:]) - 1).astype(int).T
        return masks[(masks[:, y, x] > 0.5).sum(axis=1).argmax()]


def create_masker(
    name: str,  # one of MASKS
    weights: Weights = None,  # of maskrcnn; None: from a cache or downloaded
    device: Device = "cpu",
) -> Masker | None:
    """The function that makes masks; None for "none"."""
    if name == "maskrcnn":
        path = find_weights(MASK_RCNN_FILE, weights)
        return MaskRcnn(load_weights(MASK_RCNN_FILE, path), device)
    if weights is not None:
        raise UserError("--mask_weights belongs to --mask maskrcnn; leave it out")
    return grabcut_mask if name == "grabcut" else None
