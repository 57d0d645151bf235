"""Batches in an order that depends only on seed, epoch and position: resumable, equal for any
worker count."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from data import create_dataset
from data.pose_dataset import AffineRanges, PoseDataset
from util.errors import UserError
from util.parallel import map_in_order
from util.run import distributed
from util.run.main import shield_worker

FIXED_PAIRS = 3
CHUNK = 32  # images that a worker decodes at a time


class EpochBatchSampler(Sampler[list[int]]):
    """Yields the index lists of one epoch for one process.

    All processes draw the same permutation; global batch k is split into consecutive parts, so N
    processes with batch b see what one process with batch N*b sees. Indices carry the epoch as
    ``index + epoch * len(dataset)``, from which data sets seed their augmentation.
    """

    def __init__(
        self,
        size: int,  # samples in the data set
        batch_size: int,  # per process
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        rank: int = 0,
        processes: int = 1,
        limit: int | None = None,  # samples of one epoch, drawn from all
    ):
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.samples = min(size, limit or size)
        self.shuffle, self.drop_last = shuffle, drop_last
        self.rank, self.processes = rank, processes
        self.epoch, self.start = 0, 0
        if drop_last and self.samples < self.global_batch:
            raise UserError(
                f"an epoch has {self.samples} pairs, fewer than one batch of {self.global_batch}; "
                "reduce --batchSize"
            )

    @property
    def global_batch(self) -> int:
        """Samples per step over all processes."""
        return self.batch_size * self.processes

    def set_position(self, epoch: int, samples_done: int = 0) -> int:
        """Start the next iteration in ``epoch`` after ``samples_done`` samples (all processes).

        Returns the position: a run that goes on with larger batches starts at its next whole batch,
        so that no sample comes twice, and one whose epochs became shorter at their end.
        """
        self.epoch = epoch
        self.start = min(-(-samples_done // self.global_batch), self._batches())
        return self.start * self.global_batch

    def _batches(self) -> int:
        """Batches of a whole epoch."""
        full, rest = divmod(self.samples, self.global_batch)
        return full + bool(rest and not self.drop_last)

    def __len__(self) -> int:
        return self._batches() - self.start

    def __iter__(self) -> Iterator[list[int]]:
        order = list(range(self.size))
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.size, generator=generator).tolist()
        order = order[: self.samples]
        offset = self.epoch * self.size
        for k in range(self.start, self.start + len(self)):
            batch = order[k * self.global_batch : (k + 1) * self.global_batch]
            own = batch[self.rank * self.batch_size : (self.rank + 1) * self.batch_size]
            if own:
                yield [i + offset for i in own]


def make_loader(
    dataset: Dataset,
    batch_size: int,
    workers: int = 2,
    seed: int = 0,
    pin_memory: bool = False,
    **order: Any,  # further arguments of EpochBatchSampler
) -> DataLoader:
    """A DataLoader over :class:`EpochBatchSampler`; workers stay alive between epochs."""
    return DataLoader(
        dataset,
        batch_sampler=EpochBatchSampler(len(dataset), batch_size, seed, **order),
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_start_worker,
        # Its own: drawing the workers' seeds from the global one at each start of an epoch would
        # make a resumed run, which starts once more, draw other noise than an uninterrupted one.
        generator=torch.Generator().manual_seed(seed),
    )


def _start_worker(worker: int) -> None:
    """Workers decode images; more torch threads would only fight the training process."""
    torch.set_num_threads(1)
    shield_worker()


def create_validation_dataset(opt: Namespace) -> Dataset | None:
    """The whole list of ``--val_phase``, on the main process; None without --val_freq."""
    if not opt.val_freq or not distributed.is_main():
        return None
    return _validation_data(opt)


def _validation_data(opt: Namespace) -> Dataset:
    """The data set of ``--val_phase``, as testing opens it."""
    of_phase = {"phase": opt.val_phase, "is_train": False, "max_dataset_size": None}
    return create_dataset(Namespace(**{**vars(opt), **of_phase}))


def fixed_samples(opt: Namespace, training: Dataset) -> list[tuple[str, dict[str, Any]]]:
    """Name and sample of pairs that the training page shows at every update, spread evenly.

    They are of ``--val_phase``, where the data set has such a list, else of the training list.
    """
    if not distributed.is_main():
        return []
    try:
        dataset, kind = _validation_data(opt), opt.val_phase
    except UserError:
        dataset, kind = training, f"{opt.phase}, trained on"
    count = min(FIXED_PAIRS, len(dataset))
    samples = [dataset[round(i)] for i in np.linspace(0, len(dataset) - 1, count)]
    return [(f"{s['source_name']} → {s['target_name']} ({kind})", s) for s in samples]


def create_dataloader(dataset: Dataset, opt: Namespace) -> DataLoader | CachedLoader:
    """Loader whose ``batch_sampler`` gives this process its share of every batch."""
    batch_size, limit = opt.batchSize * getattr(opt, "accumulate", 1), opt.max_dataset_size
    if opt.is_train and opt.debug:
        limit = max(limit, batch_size * distributed.world_size())  # one step at least
    place = cache_place(dataset, getattr(opt, "cache_images", "none"), torch.device(opt.device))
    loader = make_loader(
        dataset,
        batch_size=batch_size,
        workers=0 if place else opt.nThreads,
        seed=opt.seed,
        shuffle=opt.is_train and not opt.serial_batches,
        drop_last=opt.is_train,
        rank=distributed.rank(),
        processes=distributed.world_size(),
        limit=limit,
        pin_memory=opt.device.startswith("cuda"),
    )
    return CachedLoader(dataset, loader.batch_sampler, place, opt.nThreads) if place else loader


# --- all images of a data set in memory: a batch is an index -------------------------------------


def cache_place(dataset: Any, choice: str, device: torch.device) -> torch.device | None:
    """Where ``--cache_images choice`` keeps the images; None: nowhere.

    ``auto``: on a CUDA device when they take at most a third of its free memory. UserError for
    images that cannot be kept.
    """
    reason = None
    if not isinstance(dataset, PoseDataset):
        reason = f"{type(dataset).__name__} draws its images anew"
    elif dataset.ranges != AffineRanges():
        reason = "--augment moves every image anew"
    if choice == "auto":
        if device.type != "cuda" or reason:
            return None
        height, width = dataset.load_size
        free, _ = torch.cuda.mem_get_info(device)
        return device if 3 * height * width * len(dataset.keypoints) <= free / 3 else None
    place = {"device": device, "host": torch.device("cpu"), "none": None}[choice]
    if place and reason:
        raise UserError(f"--cache_images: {reason}; leave it out or say --cache_images none")
    return place


class CachedLoader:
    """Yields the batches of a DataLoader over ``dataset``: same pixels, keypoints, names, order.

    Images are one uint8 tensor (N, 3, H, W), keypoints one float64 tensor (N, 18, 2), both on
    ``device``. After the first pass nothing is decoded and no worker runs.
    """

    def __init__(
        self,
        dataset: PoseDataset,
        sampler: Sampler[list[int]],  # indices, counted on from epoch to epoch
        device: torch.device,
        workers: int = 0,  # processes that decode
    ):
        self.dataset, self.batch_sampler = dataset, sampler
        names = list(dataset.keypoints)
        places = {name: place for place, name in enumerate(names)}
        self._pairs = torch.tensor([[places[name] for name in pair] for pair in dataset.pairs])
        self.images = torch.empty(
            (len(names), 3, *dataset.load_size), dtype=torch.uint8, device=device
        )
        chunks = [names[i : i + CHUNK] for i in range(0, len(names), CHUNK)]
        decoded = map_in_order(_decode, chunks, workers, start=_start, arguments=(dataset,))
        for k, images in enumerate(decoded):
            self.images[k * CHUNK : k * CHUNK + len(images)] = torch.from_numpy(images)
        size, where = self.images.numel() / 2**20, self.images.device
        dataset.cached = f"{len(names):,} images are kept on {where} ({size:,.0f} MiB)"
        self.keypoints = torch.stack([dataset.keypoints[name] for name in names]).to(device)

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for indices in self.batch_sampler:
            rows = [index % len(self.dataset) for index in indices]
            places = self._pairs[rows].to(self.images.device)
            batch: dict[str, Any] = {}
            for column, role in enumerate(("source", "target")):
                batch[f"{role}_image"] = self.images[places[:, column]]
                batch[f"{role}_keypoints"] = self.keypoints[places[:, column]]
                batch[f"{role}_name"] = [self.dataset.pairs[row][column] for row in rows]
            yield batch


_dataset: PoseDataset | None = None


def _start(dataset: PoseDataset) -> None:
    global _dataset
    _dataset = dataset


def _decode(names: list[str]) -> Any:
    """uint8 (n, 3, H, W) as a NumPy array, which is sent to the parent."""
    return torch.stack([_dataset.image(name) for name in names]).numpy()
