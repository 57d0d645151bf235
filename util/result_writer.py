"""Writes generated images and their result page while the next batch is being computed."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from util import distributed
from util.image import resize_linear, save_image, to_uint8
from util.names import result_name, stem
from util.pose import draw_skeleton, present, scale_keypoints
from util.result_page import RESULT_COLUMNS, ResultPage
from util.save_norm import SAVE_NORMS

PAGE_IMAGES = "page_images"
MAX_PENDING = 64  # images waiting to be written; more would only cost memory


def step_folder(folder: str | Path, step: int) -> Path:
    """Folder of the images of step 1, 2 ... of the results in ``folder``: ``<folder>_<step>``."""
    folder = Path(folder)
    return folder.with_name(f"{folder.name}_{step}")


class _Pictures:
    """Images of a batch on their way to the host: ``[i]`` waits for them and makes them 8-bit.

    Only the threads that write wait, so a GPU computes the next batch meanwhile.
    """

    def __init__(self, images: torch.Tensor, convert: Callable[[torch.Tensor], np.ndarray]):
        self._images = images.detach().to("cpu", non_blocking=True)
        self._convert, self._arrived = convert, None
        if images.is_cuda:
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def __getitem__(self, i: int) -> np.ndarray:
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._convert(self._images[i])


class ResultWriter:
    """Saves ``<source>_2_<target>_vis.<format>`` for every pair, and the page that shows them.

    Images are resized to ``size`` (h, w) and written by a few threads; use it as a context manager,
    which waits for them. An error while writing is raised at the next call, not lost. Of several
    processes each writes its own images; the main one makes the page of all in the order of the
    pairs, from lists that the others leave in the folder.
    """

    def __init__(
        self,
        folder: str | Path,
        size: tuple[int, int],  # (h, w) of the saved images
        save_format: str = "png",
        page: bool = True,
        title: str = "Test results",
        threads: int | None = None,  # that encode and write; default: half of the processors
        save_norm: str = "fixed",  # a key of SAVE_NORMS, for the generated images
        save_steps: bool = False,  # outputs step_1, step_2 ... also go to step_folder(folder, j)
        keypoint_frame: tuple[int, int] | None = None,  # (h, w) of the keypoints; default: size
    ):
        self.folder, self.size, self.save_format = Path(folder), tuple(size), save_format
        self._keypoint_frame = tuple(keypoint_frame or size)
        self._pool = ThreadPoolExecutor(threads or max(2, min(16, (os.cpu_count() or 2) // 2)))
        self._pending: deque[Future] = deque()
        self._seen: set[str] = set()
        self._title, self._want_page, self._page = title, page, None
        self._columns: tuple[str, ...] = RESULT_COLUMNS
        self._rows: TextIO | None = None  # of this process, one line a batch, if there are several
        if page and distributed.world_size() > 1:
            path = self._rows_path(distributed.rank())
            self._rows = path.open("w", encoding="utf-8")
        self._save_steps, self._convert = save_steps, SAVE_NORMS[save_norm]

    def add(self, batch: Mapping[str, Any], outputs: Mapping[str, torch.Tensor]) -> None:
        """Queue one batch: ``batch`` as the data set gave it, ``outputs`` as ``model.infer`` gave
        them."""
        pictures = {key: _Pictures(value, to_uint8) for key, value in outputs.items()}
        pictures["fake_target"] = _Pictures(outputs["fake_target"], self._convert)
        names = zip(batch["source_name"], batch["target_name"], strict=True)
        rows = []
        for i, (source, target) in enumerate(names):
            file = result_name(source, target, self.save_format)
            self._submit(self._save_from, self.folder / file, pictures["fake_target"], i)
            for key, picture in pictures.items() if self._save_steps else ():
                if key.startswith("step_"):
                    folder = step_folder(self.folder, int(key.removeprefix("step_")))
                    self._submit(self._save_from, folder / file, picture, i)
            if self._want_page:
                extras = {k: v for k, v in pictures.items() if k != "fake_target"}
                rows.append(self._row(batch, i, source, target, file, extras))
        if self._rows is not None:
            self._rows.write(json.dumps(rows) + "\n")
        else:
            self._show(rows)

    def _submit(self, function, *args) -> None:
        self._pending.append(self._pool.submit(function, *args))
        while len(self._pending) > MAX_PENDING or (self._pending and self._pending[0].done()):
            self._pending.popleft().result()

    def _save_from(self, path: Path, pictures: _Pictures, i: int) -> None:
        self._save(path, pictures[i])

    def _save(self, path: Path, picture: np.ndarray) -> None:
        save_image(path, resize_linear(picture, self.size))

    def _row(self, batch, i: int, source: str, target: str, file: str, extras) -> list:
        """Caption and files by column of one row of the page; writes the pictures it shows."""
        self._columns = (*RESULT_COLUMNS[:4], *extras, RESULT_COLUMNS[4])
        images = {"generated": file}
        for role, name, shown in (("source", source, "source"), ("target", target, "ground truth")):
            photo, pose = self._shown_once(batch, i, role, name)
            images[shown], images[f"{role} pose"] = photo, pose
        for key, picture in extras.items():
            images[key] = f"{PAGE_IMAGES}/{Path(file).stem}_{key}.jpg"
            self._submit(self._save_from, self.folder / images[key], picture, i)
        return [f"{source} → {target}", images]

    def _show(self, rows: list) -> None:
        if rows and self._page is None:
            self._page = ResultPage(self.folder, self._columns, self._title)
        for caption, images in rows:
            self._page.add(caption, images)

    def _rows_path(self, rank: int) -> Path:
        return self.folder / f".rows_of_process_{rank}.tmp"

    def _merge_rows(self) -> None:
        """Once every process has written its rows, the main one shows them batch by batch."""
        self._rows.close()
        distributed.barrier()
        if not distributed.is_main():
            return
        for rows in _in_turn([self._rows_path(rank) for rank in range(distributed.world_size())]):
            self._show(rows)

    def _shown_once(self, batch, i: int, role: str, name: str) -> tuple[str, str]:
        """Photo and skeleton of one image for the page; each is written the first time it is
        seen."""
        photo, pose = (f"{PAGE_IMAGES}/{stem(name)}{end}.jpg" for end in ("", "_pose"))
        if name not in self._seen:
            self._seen.add(name)
            pixels = batch[f"{role}_image"][i].permute(1, 2, 0).contiguous().numpy()
            keypoints = batch[f"{role}_keypoints"][i]
            self._submit(self._save, self.folder / photo, pixels)
            self._submit(self._save_pose, self.folder / pose, keypoints)
        return photo, pose

    def _save_pose(self, path: Path, keypoints: torch.Tensor) -> None:
        if self._keypoint_frame != self.size:
            scaled = scale_keypoints(keypoints, self._keypoint_frame, self.size)
            keypoints = torch.where(present(keypoints)[:, None], scaled, -1.0)
        canvas = np.full((*self.size, 3), 24, dtype=np.uint8)
        save_image(path, draw_skeleton(canvas, keypoints.numpy()), quality=90)

    def close(self) -> None:
        """Wait for all images, then complete the page."""
        while self._pending:
            self._pending.popleft().result()
        self._pool.shutdown()
        if self._rows is not None:
            self._merge_rows()
        if self._page is not None:
            self._page.close()

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if kind is None:
            self.close()
        else:
            self._pool.shutdown(cancel_futures=True)


def _in_turn(paths: list[Path]) -> Iterator[list]:
    """Line 1 of every file, then line 2 of every file ...; the files are removed at the end.

    The last batch may leave nothing for the last processes: their files are a line shorter.
    """
    streams = [path.open(encoding="utf-8") for path in paths]
    while lines := [line for stream in streams if (line := stream.readline())]:
        yield from map(json.loads, lines)
    for stream, path in zip(streams, paths, strict=True):
        stream.close()
        path.unlink()
