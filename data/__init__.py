"""Registry: ``data/foo_dataset.py`` with ``class FooDataset`` is ``--dataset_mode foo``."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from util.names import check_result_names, find_plugin, plugin_names
from util.tables.manifest import describe, differences, folder_record, problems

if TYPE_CHECKING:  # torch: the preparation of data sets does without it
    from data.base_dataset import BaseDataset

_NOT_MODES = ("base", "pose")


def list_datasets() -> list[str]:
    """Names accepted by ``--dataset_mode`` (without regard to case)."""
    return plugin_names(sys.modules[__name__], "dataset", _NOT_MODES)


def find_dataset(name: str) -> type:
    """The data set class of ``--dataset_mode name``."""
    return find_plugin(sys.modules[__name__], "dataset", _NOT_MODES, "--dataset_mode", name)


def create_dataset(opt: Namespace) -> BaseDataset:
    """Open the data set that the options describe; all its lists are read and checked here."""
    dataset = find_dataset(opt.dataset_mode).from_options(opt)
    if getattr(opt, "results_dir", None) is not None:  # a command that generates
        check_result_names(dataset.pairs, page=not opt.no_html)
    return dataset


def report_preparation(opt: Namespace, dataset: BaseDataset, run: Any) -> None:
    """Say what a person should know of the images; warn of others that were prepared otherwise.

    Compared are the folder and its manifest, the images of ``--val_phase`` and, when a run is
    resumed, the images that it began with.
    """
    texts = dataset.notes()
    if dataset.cached:
        run.visualizer.message(dataset.cached)
    record, before = dataset.record, run.extra.get("images")
    if record is not None:
        run.extra["images"] = record
        run.visualizer.message(f"images: {describe(record)}")
        texts += problems(dataset.folder)
        other = dataset.folder.parent / opt.val_phase
        for what, changes in (
            (f"{other} was prepared otherwise", differences(record, folder_record(other))),
            ("this run began on images that were prepared otherwise", differences(before, record)),
        ):
            if changes:
                texts.append(f"{what} ({'; '.join(changes)}): prepare all images the same way")
    for text in texts:
        run.warn(text)
