"""Masks of people by name: OpenCV's GrabCut, or torchvision's Mask R-CNN."""

from __future__ import annotations

import os

import numpy as np
import torch
from PIL import Image

from util.errors import UserError
from util.person.background import Masker, grabcut_mask
from util.run.checkpoint import load_state
from util.run.weights import PublishedFile, find_weights, load_weights
from util.skeleton import present

MASK_RCNN_FILE = PublishedFile(
    "torchvision's maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth",
    "https://download.pytorch.org/models/maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth",
    sha256="bf2d0c1e",
    advice="give your copy with --mask_weights, or choose --mask grabcut, which needs no weights",
)
MASKS = ("grabcut", "maskrcnn", "none")
PERSON = 1  # COCO's label
SCORE = 0.5


class MaskRcnn:
    """torchvision's Mask R-CNN (He et al., ICCV 2017): the person that holds most of the joints."""

    def __init__(self, state: dict[str, torch.Tensor], device: str | torch.device = "cpu"):
        # Imported here: the detection models take a second that other commands need not wait for.
        from torchvision.models.detection import maskrcnn_resnet50_fpn

        self.device = torch.device(device)
        with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it is
            network = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
        load_state(network, state, "the Mask R-CNN weight file")
        self.network = network.eval().to(self.device)

    @torch.no_grad()
    def __call__(self, picture: Image.Image, keypoints: np.ndarray) -> np.ndarray:
        """float32 (H, W); GrabCut's mask where the network sees nobody."""
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).to(self.device)
        found = self.network([pixels.float() / 255])[0]
        people = (found["labels"] == PERSON) & (found["scores"] > SCORE)
        masks = found["masks"][people, 0].cpu().numpy()
        if not len(masks):
            return grabcut_mask(picture, keypoints)
        points = np.asarray(keypoints)[present(np.asarray(keypoints))]
        y, x = points.clip(0, np.array(masks.shape[1:]) - 1).astype(int).T
        return masks[(masks[:, y, x] > 0.5).sum(axis=1).argmax()]


def create_masker(
    name: str,  # one of MASKS
    weights: str | os.PathLike | None = None,  # of maskrcnn; None: from a cache or downloaded
    device: str | torch.device = "cpu",
) -> Masker | None:
    """The function that makes masks; None for "none"."""
    if name == "maskrcnn":
        path = find_weights(MASK_RCNN_FILE, weights)
        return MaskRcnn(load_weights(MASK_RCNN_FILE, path), device)
    if weights is not None:
        raise UserError("--mask_weights belongs to --mask maskrcnn; leave it out")
    return grabcut_mask if name == "grabcut" else None
