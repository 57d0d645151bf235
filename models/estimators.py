"""Keypoint estimators by name: networks and published weights joined with util's decoders."""

from __future__ import annotations

import importlib
import os
import threading

import numpy as np
import torch
from PIL import Image

from models.networks.openpose import OpenPoseBody, from_file_keys
from util.checkpoint import load_state
from util.errors import UserError
from util.keypoint_estimation import (
    KEYPOINT_RCNN_FILE,
    MIN_JOINTS,
    OPENPOSE_FILE,
    KeypointEstimator,
    OpenPoseEstimator,
    Person,
    RtmlibEstimator,
    TorchvisionEstimator,
    choose_person,
)
from util.pose import JOINTS, MISSING
from util.weight_files import find_weights, load_weights

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
        people = self.estimator.estimate(image)
        if not (isinstance(people, list) and all(isinstance(p, Person) for p in people)):
            raise UserError(
                f"{where}: the estimator {type(self.estimator).__name__} returned something else "
                "than a list of api.Person; see its protocol in util/keypoint_estimation.py"
            )
        if not people and self._allow_nobody:
            return np.full((len(JOINTS), 2), float(MISSING))
        return choose_person(people, where, self._rule, self._min_joints).keypoints
