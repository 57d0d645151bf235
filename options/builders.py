"""What train.py builds from its options besides the model and the loader."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader, Subset

import data
from data.base_dataset import BaseDataset
from models.base_model import BaseModel
from util import distributed
from util.errors import UserError
from util.manifest import describe, differences, folder_record, problems
from util.metrics.validation import Validator
from util.training_run import TrainingRun
from util.visdom_client import VisdomSettings
from util.visualizer import NullVisualizer, Visualizer


def create_visualizer(opt: Namespace, folder: Path, samples_per_epoch: int) -> Visualizer:
    """Console, loss log, TensorBoard, visdom and page on the main process; nothing on the
    others."""
    if not distributed.is_main():
        return NullVisualizer()
    visdom = None
    if opt.display_id > 0:
        visdom = VisdomSettings(
            opt.display_server, opt.display_port, opt.display_id, opt.display_env or opt.name
        )
    return Visualizer(
        folder,
        opt.name,
        epochs=opt.niter + opt.niter_decay,
        samples_per_epoch=samples_per_epoch,
        use_html=not opt.no_html,
        use_tensorboard=not opt.no_tensorboard,
        visdom=visdom,
        resume=opt.continue_train,
    )


def report_preparation(opt: Namespace, dataset: BaseDataset, run: TrainingRun) -> None:
    """Say how the training images were prepared; warn of others that were prepared otherwise.

    Compared are the folder and its manifest, the images of ``--val_phase`` and, when a run is
    resumed, the images that it began with.
    """
    record, before = dataset.record, run.extra.get("images")
    if record is None or not distributed.is_main():
        return
    run.extra["images"] = record
    run.visualizer.message(f"images: {describe(record)}")
    texts = problems(dataset.folder)
    other = dataset.folder.parent / opt.val_phase
    for what, changes in (
        (f"{other} was prepared otherwise", differences(record, folder_record(other))),
        ("this run began on images that were prepared otherwise", differences(before, record)),
    ):
        if changes:
            texts.append(f"{what} ({'; '.join(changes)}): prepare all images the same way")
    for text in texts:
        run.warn(text)


def create_validator(opt: Namespace, model: BaseModel) -> Validator | None:
    """Scores ``--val_pairs`` pairs spread evenly over the list of ``--val_phase``; None without
    --val_freq."""
    if not opt.val_freq or not distributed.is_main():
        return None
    settings = Namespace(**{**vars(opt), "phase": opt.val_phase, "is_train": False})
    settings.max_dataset_size = None
    dataset = data.create_dataset(settings)
    count = min(opt.val_pairs, len(dataset))
    chosen = np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist()
    loader = DataLoader(Subset(dataset, chosen), batch_size=opt.batchSize)
    metrics = tuple(name.strip() for name in opt.val_metrics.split(",") if name.strip())
    if opt.best_metric not in metrics:
        raise UserError(
            f"--best_metric {opt.best_metric} is not among --val_metrics {opt.val_metrics}; add "
            f"it there"
        )

    def generate(batch):
        return model.generate(model.prepare(batch))["fake_target"]

    return Validator(
        loader,
        generate,
        dataset.annotation_size,
        metrics,
        opt.best_metric,
        photograph=dataset.photograph,
    )
