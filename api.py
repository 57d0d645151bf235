"""Pose transfer for programs: pictures in, pictures out.

    from api import PoseTransfer
    transfer = PoseTransfer.from_checkpoint("checkpoints/my_run")
    transfer.transfer_as("me.jpg", "friend.jpg").save("out.png")

:class:`PoseTransfer` runs any model of this project, :class:`Pose2Pose` the published MAGPT
generator. Both can be called from several threads; nothing here reads the command line, keeps
global state or touches the random state of the caller.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import default_collate

from models.base_model import BaseModel, Explanation
from models.estimators import KeypointEstimator, Person, PersonFinder, create_estimator
from models.networks.pose2pose import Pose2PoseGenerator
from models.onnx_graph import OnnxGenerator, with_noise
from options.trained import check_exists, empty_model, load_model
from util.errors import UserError
from util.image import Picture, as_photo, picture_name, resize_linear
from util.keypoint_formats import Keypoints, checked_keypoints
from util.person import motion
from util.person.crop import SIZE, crop_result, fit, fit_keypoints, to_frame, whole_picture
from util.person.maps import one_hot_pose_maps
from util.run.checkpoint import load_state
from util.run.device import choose_device
from util.run.weights import PublishedFile, find_weights, load_weights
from util.tensors import image_to_tensor, normalise_uint8, to_uint8

__all__ = ["KeypointEstimator", "Person", "Pose2Pose", "PoseTransfer", "create_estimator"]

GENERATOR_FILE = PublishedFile(
    "the MAGPT generator",
    "pose_transfer_coco_keypoints_deepfashion_netG_iter_260500.pth",
    "https://www.dropbox.com/s/iqrzd6lypguxw5i/"
    "pose_transfer_coco_keypoints_deepfashion_netG_iter_260500.pth?dl=1",
    advice="give your copy with --checkpoint FILE --model pose2pose --dataset_mode magpt "
    "(checkpoint=FILE of Pose2Pose)",
)
FRAME = (SIZE, SIZE)
SMALL = 100  # pixels; published generators see 128 x 64 at least, of Market-1501


class _Transfer:
    """The run loop of both classes: rows become samples, batches of them become pictures.

    A subclass makes a sample of a row as a data set gives it, without the target image
    (``_sample``), images (B, 3, H, W) in [-1, 1] of a batch of samples (``_generate``), and a
    picture of one of them as uint8 (H, W, 3) (``_finish``).
    """

    def _pictures(self, rows: Iterable[tuple], batch_size: int) -> Iterator[Image.Image]:
        """One picture a row, in order; no more than ``batch_size`` rows are held at once."""
        rows = iter(rows)
        while batch := [self._sample(*row) for row in islice(rows, batch_size)]:
            fakes = to_uint8(self._generate(default_collate(batch)))
            yield from (self._finish(*made) for made in zip(fakes, batch, strict=True))


class Pose2Pose(_Transfer):
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
        self._generator = generator.to_empty(device=self.device).eval()
        load_state(self._generator, load_weights(GENERATOR_FILE, path), str(path))
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
        points = condition_keypoints or nothing, reference_keypoints or nothing
        return list(self._pictures(zip(conditions, references, *points, strict=True), batch_size))

    def _sample(
        self,
        condition: Picture,
        reference: Picture,
        own: Keypoints | None,
        target: Keypoints | None,
    ) -> dict[str, Any]:
        photo, own = self._prepared(condition, own, "the condition picture")
        goal, target = self._prepared(reference, target, "the reference picture")
        return {
            "source_image": image_to_tensor(fit(photo), FRAME),
            "source_keypoints": torch.from_numpy(own),
            "target_keypoints": torch.from_numpy(target),
            "reference_size": goal.size,
        }

    @torch.no_grad()
    def _generate(self, batch: dict[str, Any]) -> torch.Tensor:
        images = normalise_uint8(batch["source_image"].to(self.device))
        maps = (
            one_hot_pose_maps(batch[f"{role}_keypoints"], FRAME, FRAME).to(self.device)
            for role in ("source", "target")
        )
        return self._generator(images, *maps)

    def _finish(self, fake: np.ndarray, sample: dict[str, Any]) -> Image.Image:
        return crop_result(Image.fromarray(fake), sample["reference_size"])

    def _prepared(
        self, picture: Picture, keypoints: Keypoints | None, where: str
    ) -> tuple[Image.Image, np.ndarray]:
        """The RGB photo, and keypoints (18, 2) in its :func:`fit` version."""
        name = picture_name(picture) or where
        photo = as_photo(picture, name)
        if keypoints is None:
            return photo, self._find(fit(photo), name)
        points = checked_keypoints(keypoints, where)
        return photo, fit_keypoints(points, (photo.height, photo.width))


class PoseTransfer(_Transfer):
    """Any trained model as a function of pictures and keypoints.

    Pictures are PIL images, uint8 arrays (H, W, 3) or file names of any size. Keypoints are (18,
    2), (y, x), -1 = missing, in pixels of :attr:`annotation_size` (h, w), onto which the whole
    picture is scaled. Results have that size and are exactly test.py's pixels.
    """

    def __init__(
        self,
        model: BaseModel,
        find_person: PersonFinder | None = None,  # None: torchvision's estimator, when first needed
        generator: OnnxGenerator | None = None,  # runs instead of the model's networks
    ):
        if model.opt.view_counts:
            raise UserError(
                f"{model.run_dir} turns objects and knows no poses of people; use test.py, or "
                "script/attention.py, with --dataroot"
            )
        self.model = model
        self._generator = generator
        self.find_person = find_person or PersonFinder(device=model.device)
        self.load_size: tuple[int, int] = tuple(model.opt.load_size)
        self.annotation_size: tuple[int, int] = tuple(model.opt.annotation_size)

    @property
    def remark(self) -> str | None:
        """What to expect on photographs of a generator that has never learned from such ones."""
        opt, small = self.model.opt, max(self.load_size) < SMALL
        synthetic = "synthetic" in f"{opt.dataroot} {opt.name}".lower()
        synthetic |= Path(opt.dataroot, "synthetic.json").is_file()
        if not (small or synthetic):
            return None
        height, width = self.load_size
        seen = f"{'drawn people' if synthetic else 'pictures'} of {width} x {height} pixels"
        return (
            f"this generator was trained on {seen}: expect little of it on photographs; train on "
            "photographs of the usual size for more"
        )

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike,
        which_epoch: str | int = "latest",
        device: str | torch.device | None = None,
        options: Mapping[str, Any] | None = None,
        estimator: KeypointEstimator | str = "torchvision",
    ) -> PoseTransfer:
        """Load a run's folder, a generator file (``<which_epoch>_net_G.pth``) or an ``.onnx`` file.

        ``device``: the first GPU if there is one. ``options``: replace training options saved
        beside the checkpoint; a published file, which has none, needs at least {"model": "DPTN"}.
        ``estimator``: an object, or a name for ``create_estimator``. PyTorch's switches for TF32
        are set as test.py sets them. Raises UserError for whatever does not fit.
        """
        path, device = Path(path), choose_device(device)
        check_exists(path)
        find_person = PersonFinder(estimator, device=device)
        if path.suffix != ".onnx":
            return cls(load_model(path, str(which_epoch), device, options), find_person)
        generator = OnnxGenerator(path, device)
        return cls(empty_model(generator, options), find_person, generator)

    def estimate_keypoints(self, picture: Picture) -> np.ndarray:
        """Keypoints of the person in a picture, (18, 2) in the annotation frame."""
        return self._estimated(as_photo(picture), picture_name(picture) or "the picture")

    def transfer(
        self,
        source: Picture,
        keypoints: Keypoints,
        source_keypoints: Keypoints | None = None,  # None: estimated
        names: tuple[str, str] | None = None,
        retarget: bool = False,
    ) -> Image.Image:
        """The person of ``source`` in the pose ``keypoints``.

        ``names`` of source and target matter to a model that draws noise from them (DPTN_step); by
        default the file name of the source and "". ``retarget``: with the limb lengths of the
        source person instead of those of the pose (:func:`util.person.motion.retarget`).
        """
        own, names = [source_keypoints], names and [names]
        return self.transfer_many([source], [keypoints], own, names, retarget=retarget)[0]

    def transfer_as(
        self,
        source: Picture,
        reference: Picture,
        source_keypoints: Keypoints | None = None,
        reference_keypoints: Keypoints | None = None,
        retarget: bool = False,
    ) -> Image.Image:
        """The person of ``source`` in the pose of the person of ``reference``."""
        if reference_keypoints is None:
            reference_keypoints = self.estimate_keypoints(reference)
        names = picture_name(source), picture_name(reference)
        return self.transfer(source, reference_keypoints, source_keypoints, names, retarget)

    def transfer_many(
        self,
        sources: Sequence[Picture],
        keypoints: Sequence[Keypoints],
        source_keypoints: Sequence[Keypoints | None] | None = None,
        names: Sequence[tuple[str, str]] | None = None,
        batch_size: int = 8,
        retarget: bool = False,
    ) -> list[Image.Image]:
        """:meth:`transfer` for many pairs, ``batch_size`` at once."""
        own = source_keypoints or [None] * len(sources)
        names = names or [(picture_name(source), "") for source in sources]
        rows = zip(sources, keypoints, own, names, [retarget] * len(sources), strict=True)
        return list(self._pictures(rows, batch_size))

    def animate(
        self,
        source: Picture,
        poses: Sequence[Keypoints],
        source_keypoints: Keypoints | None = None,  # None: estimated
        retarget: bool = True,  # the person keeps the own limb lengths
        batch_size: int = 8,
    ) -> Iterator[Image.Image]:
        """The person of ``source`` in one pose after the other, made as they are asked for.

        ``poses`` are fitted to the person, and into the picture, as one sequence.
        """
        photo, own = self._source(source, source_keypoints)
        sequence = [checked_keypoints(pose, f"pose {i}") for i, pose in enumerate(poses)]
        if retarget and sequence:
            sequence = motion.retarget(np.stack(sequence), own, self.annotation_size)
        names = picture_name(source), ""
        return self._pictures(((photo, pose, own, names, False) for pose in sequence), batch_size)

    def explain(
        self, source: Picture, keypoints: Keypoints, source_keypoints: Keypoints | None = None
    ) -> Explanation:
        """Where the picture of :meth:`transfer` comes from, a batch of one; a UserError for models
        that cannot tell and for .onnx files."""
        if self._generator is not None:
            raise UserError(
                f"{self._generator.path} holds no weights of single layers; expected a .pth or its "
                "folder"
            )
        names = picture_name(source), ""
        sample = self._sample(source, keypoints, source_keypoints, names, False)
        return self.model.explain(self.model.prepare(default_collate([sample])))

    def _source(self, source: Picture, own: Keypoints | None) -> tuple[Image.Image, np.ndarray]:
        """The RGB photo of the source person, and the person's keypoints."""
        where = picture_name(source) or "the source picture"
        photo = as_photo(source, where)
        return photo, checked_keypoints(
            self._estimated(photo, where) if own is None else own, where
        )

    def _estimated(self, photo: Image.Image, where: str) -> np.ndarray:
        return to_frame(self.find_person(photo, where), whole_picture(photo), self.annotation_size)

    def _sample(
        self,
        source: Picture,
        target: Keypoints,
        own: Keypoints | None,
        names: tuple[str, str],
        retarget: bool,
    ) -> dict[str, Any]:
        photo, own = self._source(source, own)
        target = checked_keypoints(target, "the target pose")
        if retarget:
            target = motion.retarget(target, own, self.annotation_size)
        return {
            "source_image": image_to_tensor(photo, self.load_size),
            "source_keypoints": torch.from_numpy(own),
            "target_keypoints": torch.from_numpy(target),
            "source_name": names[0],
            "target_name": names[1],
        }

    def _generate(self, batch: dict[str, Any]) -> torch.Tensor:
        inputs = self.model.prepare(batch)
        if self._generator is not None:
            return self._generator.infer(with_noise(self.model, inputs))["fake_target"]
        return self.model.generate(inputs)["fake_target"]

    def _finish(self, fake: np.ndarray, sample: dict[str, Any]) -> Image.Image:
        return Image.fromarray(resize_linear(fake, self.model.result_size))
