"""How image files become arrays under a protocol: decoding, resize, change of references."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from util.image import load_image, resize_linear
from util.metrics.masks import body_mask
from util.metrics.protocols import Resize


@dataclass(frozen=True)
class ImageReader:
    """Reads results, references (ground truth and real set) and masks; travels to worker processes.

    ``reference``: a picklable function of a uint8 image (H, W, 3), applied to every reference after
    the resize (step-wise generation measures against quantised images). ``annotation_size`` (h, w):
    frame of the keypoints; None means the frame of the images.
    """

    resize: Resize | None = None
    reference: Callable[[np.ndarray], np.ndarray] | None = None
    annotation_size: tuple[int, int] | None = None

    def read_result(self, path: Path) -> np.ndarray:
        """A generated image as uint8 (H, W, 3)."""
        image = load_image(path)
        if self.resize is None:
            return np.asarray(image)
        height, width = self.resize.size
        if self.resize.library == "opencv":
            return resize_linear(np.asarray(image), self.resize.size)
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))

    def read_reference(self, path: Path) -> np.ndarray:
        """A ground-truth or real image as uint8 (H, W, 3)."""
        image = self.read_result(path)
        return image if self.reference is None else self.reference(image)

    def mask(self, keypoints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Body mask (H, W) of keypoints for an image of ``size`` (h, w)."""
        return body_mask(scale_keypoints(keypoints, self.annotation_size, size), size)


def scale_keypoints(
    keypoints: np.ndarray, frame: tuple[int, int] | None, size: tuple[int, int]
) -> np.ndarray:
    """Keypoints (18, 2) (y, x) of a ``frame`` (h, w) in an image of ``size`` (h, w); -1 stays."""
    keypoints = np.asarray(keypoints, dtype=np.float64)
    if frame is None or tuple(frame) == tuple(size):
        return keypoints
    missing = (keypoints == -1).any(axis=-1, keepdims=True)
    return np.where(missing, -1.0, keypoints / np.array(frame) * np.array(size))
