"""Data set registry: ``data/foo_dataset.py`` with ``class FooDataset`` is ``--dataset_mode
foo``."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import Any

from torch.utils.data import DataLoader, Dataset

from data.base_dataset import BaseDataset
from data.loader import make_loader
from util.plugins import find_plugin, plugin_names
from util.run import distributed
from util.tables.manifest import describe, differences, folder_record, problems

_NOT_MODES = ("base", "pose")


def list_datasets() -> list[str]:
    """Names accepted by ``--dataset_mode`` (without regard to case)."""
    return plugin_names(sys.modules[__name__], "dataset", _NOT_MODES)


def find_dataset(name: str) -> type:
    """The data set class of ``--dataset_mode name``."""
    return find_plugin(sys.modules[__name__], "dataset", _NOT_MODES, "--dataset_mode", name)


def create_dataset(opt: Namespace) -> Dataset:
    """Open the data set that the options describe; all its lists are read and checked here."""
    return find_dataset(opt.dataset_mode).from_options(opt)


def create_validation_dataset(opt: Namespace) -> Dataset | None:
    """The whole list of ``--val_phase``, on the main process; None without --val_freq."""
    if not opt.val_freq or not distributed.is_main():
        return None
    settings = Namespace(**{**vars(opt), "phase": opt.val_phase, "is_train": False})
    settings.max_dataset_size = None
    return create_dataset(settings)


def create_dataloader(dataset: Dataset, opt: Namespace) -> DataLoader:
    """Loader whose ``batch_sampler`` gives this process its share; see data.loader."""
    return make_loader(
        dataset,
        batch_size=opt.batchSize * getattr(opt, "accumulate", 1),
        workers=opt.nThreads,
        seed=opt.seed,
        shuffle=opt.is_train and not opt.serial_batches,
        drop_last=opt.is_train,
        rank=distributed.rank(),
        processes=distributed.world_size(),
        limit=opt.max_dataset_size,
        pin_memory=opt.device.startswith("cuda"),
    )


def report_preparation(opt: Namespace, dataset: BaseDataset, run: Any) -> None:
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
