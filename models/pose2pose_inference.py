"""The inference API of MAGPT (Roy et al., Pattern Recognition 2023): two pictures in, one out."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from models.estimators import PersonFinder
from models.networks.pose2pose import Pose2PoseGenerator
from util.checkpoint import load_state
from util.device import choose_device
from util.errors import UserError
from util.fit import SIZE, crop_result, fit, fit_keypoints
from util.image import image_to_tensor, normalise_uint8, to_uint8
from util.keypoint_estimation import KeypointEstimator
from util.keypoint_formats import Keypoints, checked_keypoints
from util.one_hot_pose import one_hot_pose_maps
from util.photo import Picture, as_photo, picture_name
from util.weight_files import PublishedFile, find_weights, load_weights

GENERATOR_FILE = PublishedFile(
    "the MAGPT generator",
    "pose_transfer_coco_keypoints_deepfashion_netG_iter_260500.pth",
    "https://www.dropbox.com/s/iqrzd6lypguxw5i/"
    "pose_transfer_coco_keypoints_deepfashion_netG_iter_260500.pth?dl=1",
)
FRAME = (SIZE, SIZE)


class Pose2Pose:
    """The published MAGPT generator as a function of two pictures.

    ``Pose2Pose(pretrained=True).transfer_as(condition, reference).show()``

    Weights: ``checkpoint``, a netG file, or ``pretrained=True``, the published file from
    ``~/.cache/torch/checkpoints`` or the torch hub's cache, else downloaded (``ignore_cache``:
    always). ``device``: the first GPU if there is one. ``estimator``: an object, or a name for
    ``create_estimator``, loaded when first needed; the published one is "openpose_rgb", while
    "openpose" gives the network the channel order it was trained on. Pictures are RGB, results too.
    """

    def __init__(
        self,
        pretrained: bool = False,
        ignore_cache: bool = False,
        checkpoint: str | os.PathLike | None = None,
        device: str | torch.device | None = None,
        estimator: KeypointEstimator | str = "openpose",
        person: str = "first",  # of several: "first", as published, or "best"
        allow_nobody: bool = False,  # published: an empty pose when no person is found
    ):
        if checkpoint is None and not pretrained:
            raise UserError(
                "Pose2Pose has no weights; expected pretrained=True, or checkpoint=PATH of a netG "
                "file"
            )
        self.device = choose_device(device)
        path = find_weights(GENERATOR_FILE, checkpoint, ignore_cache)
        with torch.device("meta"):
            generator = Pose2PoseGenerator()
        self._generator = generator.to_empty(device="cpu").eval()
        load_state(self._generator, load_weights(GENERATOR_FILE, path), str(path))
        self._generator.to(self.device)
        self._find = PersonFinder(
            estimator, None, self.device, person, min_joints=1, allow_nobody=allow_nobody
        )

    def transfer_as(
        self,
        condition: Picture,
        reference: Picture,
        condition_keypoints: Keypoints | None = None,
        reference_keypoints: Keypoints | None = None,
    ) -> Image.Image:
        """The person of ``condition`` in the pose of ``reference``, 256 pixels high.

        Keypoints are (18, 2), (y, x) pixels of the picture they belong to, -1 = missing; None:
        estimated. The width is that of the reference at 256 rows, at most 176.
        """
        return self.transfer_many(
            [condition], [reference], [condition_keypoints], [reference_keypoints]
        )[0]

    def transfer_many(
        self,
        conditions: Sequence[Picture],
        references: Sequence[Picture],
        condition_keypoints: Sequence[Keypoints | None] | None = None,
        reference_keypoints: Sequence[Keypoints | None] | None = None,
        batch_size: int = 8,
    ) -> list[Image.Image]:
        """:meth:`transfer_as` for many pairs, ``batch_size`` at once."""
        nothing = [None] * len(conditions)
        rows = list(
            zip(
                conditions,
                references,
                condition_keypoints or nothing,
                reference_keypoints or nothing,
                strict=True,
            )
        )
        results: list[Image.Image] = []
        for start in range(0, len(rows), batch_size):
            results += self._run(rows[start : start + batch_size])
        return results

    def _run(self, rows: Sequence[tuple]) -> list[Image.Image]:
        images, poses, sizes = [], [], []
        for condition, reference, own, target in rows:
            photo, own = self._prepared(condition, own, "the condition picture")
            images.append(image_to_tensor(fit(photo), FRAME))
            photo, target = self._prepared(reference, target, "the reference picture")
            sizes.append(photo.size)
            poses.append(np.stack([own, target]))
        maps = one_hot_pose_maps(torch.from_numpy(np.concatenate(poses)), FRAME, FRAME)
        maps = maps.to(self.device)
        with torch.no_grad():
            fake = self._generator(
                normalise_uint8(torch.stack(images).to(self.device)), maps[::2], maps[1::2]
            )
        pictures = [Image.fromarray(pixels) for pixels in to_uint8(fake)]
        return [crop_result(p, size) for p, size in zip(pictures, sizes, strict=True)]

    def _prepared(
        self, picture: Picture, keypoints: Keypoints | None, where: str
    ) -> tuple[Image.Image, np.ndarray]:
        """The RGB photo, and keypoints (18, 2) in its :func:`fit` version."""
        photo = as_photo(picture, picture_name(picture) or where)
        if keypoints is None:
            return photo, self._find(fit(photo), picture_name(picture) or where)
        points = checked_keypoints(keypoints, where)
        return photo, fit_keypoints(points, (photo.height, photo.width))
