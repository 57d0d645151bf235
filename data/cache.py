"""All images of a data set in memory, on the device or the host: a batch is an index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Sampler

from data.augmentation import AffineRanges
from data.pose_dataset import PoseDataset
from util.errors import UserError
from util.parallel import map_in_order

CHUNK = 32  # images that a worker decodes at a time


def why_not(dataset: Any) -> str | None:
    """Why the images of a data set cannot be kept in memory; None when they can."""
    if not isinstance(dataset, PoseDataset):
        return f"{type(dataset).__name__} draws its images anew"
    if dataset.ranges != AffineRanges():
        return "--augment moves every image anew"
    return None


def needed_bytes(dataset: PoseDataset) -> int:
    """Memory of all images at load size."""
    height, width = dataset.load_size
    return 3 * height * width * len(dataset.keypoints)


def cache_place(dataset: Any, choice: str, device: torch.device) -> torch.device | None:
    """Where ``--cache_images choice`` keeps the images; None: nowhere.

    ``auto``: on a CUDA device when they take at most a third of its free memory.
    """
    if choice == "auto":
        if device.type != "cuda" or why_not(dataset):
            return None
        free, _ = torch.cuda.mem_get_info(device)
        return device if needed_bytes(dataset) <= free / 3 else None
    return {"device": device, "host": torch.device("cpu"), "none": None}[choice]


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
        reason = why_not(dataset)
        if reason:
            raise UserError(f"--cache_images: {reason}; leave it out or say --cache_images none")
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
