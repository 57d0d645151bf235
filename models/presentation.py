"""What a training tells people: its first line, the pictures of its page, its last words."""

import math
import shlex
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, default_collate

from models.base_model import BaseModel, Batch
from models.training import TrainingRun
from util.person.maps import heatmaps_to_picture
from util.run import distributed
from util.show.html import GIVEN, RESULT
from util.show.sinks import Images, LossLog, TensorBoardLog
from util.show.training_page import TrainingPage
from util.show.visdom import VisdomLog
from util.show.visualizer import GLUE, Console, Visualizer, duration
from util.skeleton import skeleton_picture
from util.tensors import to_uint8

FINE = 128  # pixels; skeletons are drawn at least that large
CAPTIONS = {
    "source_image": "source", "source_pose": "source pose", "target_pose": "target pose",
    "fake_target": "generated", "target_image": "ground truth",
    "fake_source": "source, reconstructed",
}  # fmt: skip

# What the published names in the logs measure; all values are weighted as in the total loss.
LOSSES = {
    "app_gen": "L1 distance of the generated image to the ground truth",
    "app_gen_s": "L1 distance of the reconstructed source to the source",
    "content_gen": "distance of VGG-19 features to those of the ground truth",
    "content_gen_s": "distance of VGG-19 features, source branch",
    "style_gen": "distance of Gram matrices of VGG-19 features to those of the ground truth",
    "style_gen_s": "distance of Gram matrices of VGG-19 features, source branch",
    "affi_gen_t": "do the textures relate to those of the source as the true ones do?",
    "ad_gen": "adversarial loss of the generator: low when the discriminator is deceived",
    "dis_img_gen": "loss of the discriminator: near 0 it tells real from generated with ease",
    "correctness": "do the flows fetch VGG-19 features like those of the target?",
    "correctness_gen": "do the flows fetch VGG-19 features like those of the target?",
    "regularization": "deviation of the flows from an affine map in small windows",
    "lossG": "total loss of the generator",
    "lossG_L1": "L1 distance of the generated image to the ground truth, unweighted",
    "lossG_GAN": "adversarial loss of the generator, unweighted",
    "lossG_PER": "distance of VGG-19 features to those of the ground truth, unweighted",
    "lossD": "total loss of the discriminator",
    "lossD_fake": "discriminator on generated images",
    "lossD_real": "discriminator on real images",
    "L1_target": "L1 distance of every step to the coarse ground truth",
    "L1_source": "L1 distance of every step to the coarse source",
    "VGG_target": "content and style distance of VGG-19 features to the ground truth",
    "VGG_source": "content and style distance of VGG-19 features to the source",
    "GAN_target": "adversarial loss of the generator: low when the discriminator is deceived",
    "Step_loss": "can the discriminator tell which step made a generated image?",
    "Face_target": "distance of VGG-19 features of the face, target branch",
    "Face_source": "distance of VGG-19 features of the face, source branch",
    "Real_loss": "discriminator on real images",
    "Fake_loss": "discriminator on generated images",
    "Real_step": "discriminator names the level of a real coarse image",
    "Fake_step": "discriminator names the step of a generated image",
    "Penalty": "gradient penalty of the discriminator",
    "grad_G": "norm of the generator's gradient",
    "grad_D": "norm of the discriminator's gradient",
}
LOSSES |= {f"{name}_t": text for name, text in LOSSES.items() if name.endswith("_gen")}  # DPTN's


def create_visualizer(
    model: BaseModel,
    folder: Path,
    end: tuple[int, int],  # last epoch, and the samples of one
    settings: Mapping[str, object],  # of the run, for its page
) -> Visualizer:
    """Console, loss log, TensorBoard, visdom and page on the main process; nothing elsewhere."""
    opt = model.opt
    if not distributed.is_main():
        return Visualizer()
    visualizer = Visualizer(Console(*end, sys.stdout), opt.display_seconds)
    history, warn = visualizer.history, visualizer.warn
    visualizer.sinks.append(LossLog(folder / "loss_log.txt"))
    if not opt.no_tensorboard:
        visualizer.add(lambda: TensorBoardLog(folder / "tensorboard"), "tensorboard")
    if not opt.no_html:
        meanings = {**LOSSES, **model.loss_meanings}
        page = TrainingPage(folder / "web", opt.name, history, end[0], settings, meanings, warn)
        visualizer.sinks.append(page)
        visualizer.page = page.path
    if opt.display_id > 0:
        place = opt.display_server, opt.display_port, opt.display_id, opt.display_env or opt.name
        visualizer.add(lambda: VisdomLog(*place, history, warn), "visdom")
    return visualizer


def first_line(opt: Namespace, run: TrainingRun, loader: DataLoader) -> str:
    """Device, number format, parameters, pairs, steps and page of a training that begins."""
    model, epochs = run.model, opt.niter + opt.niter_decay
    if run.progress.epoch > epochs:
        return (
            f"this run is finished: all {_epochs(epochs)} are done; raise --niter or --niter_decay "
            "to go on"
        )
    device = str(model.device)
    if model.device.type == "cuda":
        device += f" ({torch.cuda.get_device_name(model.device)})"
    sizes = (
        f"{label} {sum(p.numel() for p in network.parameters()) / 1e6:.3g} M"
        for label, network in model.networks.items()
    )
    batches = loader.batch_sampler
    steps, page = batches.samples // batches.global_batch, run.visualizer.page
    pairs = f"{batches.size:,} pairs"
    if batches.samples < batches.size:
        pairs = f"{batches.samples:,} of {pairs} an epoch"
    parts = [
        f"{device}, {opt.precision}",
        f"{', '.join(sizes)} parameters",
        f"{pairs}, {_epochs(epochs)} of {steps:,} steps",
        distributed.describe_batch(batches.batch_size),
        *([f"page: {page}"] if page else []),
    ]
    return " | ".join(part.replace(" ", GLUE) for part in parts)


def _epochs(count: int) -> str:
    return f"{count:,} epoch{'s' * (count != 1)}"


def last_words(opt: Namespace, run: TrainingRun, saved: bool) -> str:
    """What a finished training has reached, where it is, and what to type next.

    ``saved``: False when the disk refused the last save.
    """
    at, folder, newest = run.progress, run.path, run.path / "latest_net_G.pth"
    older = f"{newest} may be of an earlier step" if newest.is_file() else "no step was ever saved"
    best, took = run.extra.get("best"), duration(run.visualizer.seconds())
    words = ["python", "test.py", "--name", opt.name, "--dataroot", opt.dataroot]
    if Path(opt.checkpoints_dir) != Path("checkpoints"):
        words += ["--checkpoints_dir", opt.checkpoints_dir]
    again = f"free space for {folder}, then the same command with --continue_train"
    rows = {
        "checkpoint": newest if saved else f"NOT SAVED, the disk refused it: {older}",
        "best": best is not None and f"{folder / 'best_net_G.pth'} ({opt.best_metric} {best:.4f})",
        "losses": folder / "loss_log.txt",
        "page": run.visualizer.page,
        "next": shlex.join(words) if saved else again,
    }
    first = f"finished: {_epochs(at.epoch - 1)}, {at.total:,} samples; this call took {took}"
    return "\n".join([first, *(f"  {name:<12}{what}" for name, what in rows.items() if what)])


class Gallery:
    """The pictures of a training: a pair of the last batch, and pairs that stay the same.

    :param fixed: name and sample of every pair that stays the same.
    """

    def __init__(
        self, model: BaseModel, run: TrainingRun, fixed: Sequence[tuple[str, Mapping[str, Any]]]
    ):
        self.model, self.run = model, run
        self.fixed = [(name, default_collate([sample])) for name, sample in fixed]

    def show(self) -> None:
        """Show the results of the last step, unless others were shown a moment ago.

        Those of the very last step are always shown.
        """
        model, visualizer, at = self.model, self.run.visualizer, self.run.progress
        if not visualizer.wants_pictures(last=self.run.at_end()):
            return
        images, fixed = pictures_of(model.visuals, model.seen, model.opt), []
        with model.evaluating():
            for name, batch in self.fixed:
                inputs = model.prepare(batch)
                shown = {key: inputs[key] for key in CAPTIONS if key in inputs}
                shown |= {"fake_target": model.generate(inputs)["fake_target"]}
                fixed.append((name, pictures_of(shown, inputs, model.opt)))
        visualizer.show(images, at.epoch, at.total, fixed)


def pictures_of(visuals: Mapping[str, torch.Tensor], inputs: Batch, opt: Namespace) -> Images:
    """uint8 pictures (h, w, 3) of the first sample, captioned and ordered as on the result page.

    ``visuals``: images (B, 3, H, W) in [-1, 1] and maps (B, P, H, W). Poses are drawn as skeletons
    of the keypoints in ``inputs``, of which ``visuals`` show the last B.
    """
    found = {}
    for key, value in visuals.items():
        caption = CAPTIONS.get(key, key.replace("_", " "))
        points = inputs.get(key.replace("_pose", "_keypoints"))
        if value.shape[1] == 3:
            found[caption] = to_uint8(value[0])
        elif key.endswith("_pose") and points is not None:
            height, width = value.shape[2:]
            scale = math.ceil(FINE / min(height, width))  # lines of a small picture would be coarse
            size = (height * scale, width * scale)
            joints = points[-len(value)].cpu().numpy()
            found[caption] = skeleton_picture(joints, size, opt.annotation_size)
        else:
            found[caption] = heatmaps_to_picture(value[0])
    return {caption: found[caption] for caption in (*GIVEN, *RESULT, *found) if caption in found}
