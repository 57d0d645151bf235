"""Writes the images of a test run, turned objects, and what its pages show of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dominate import tags

from util.files import remove_leftovers
from util.image import is_made, load_image, resize_linear, save_image
from util.names import PAGE_IMAGES, result_name, stem
from util.parallel import allotted_cpus
from util.run import distributed
from util.show.grid import grid, write_gif
from util.show.html import clean_text, new_page, picture, write_page
from util.show.result_page import ROWS, TURNTABLES, forget_earlier, write_pages, write_rows
from util.show.visualizer import one_colour, spread, warn
from util.skeleton import skeleton_picture
from util.tensors import SAVE_NORMS, to_uint8

SAVE_FORMATS = ("png", "jpg")
MAX_PENDING = 64  # images waiting to be written; more would only cost memory


def step_folder(folder: str | Path, step: int) -> Path:
    """Folder of the images of step 1, 2 ... of the results in ``folder``: ``<folder>_<step>``."""
    folder = Path(folder)
    return folder.with_name(f"{folder.name}_{step}")


def complete_pairs(
    folder: Path,
    pairs: Sequence[tuple[str, str]],
    save_format: str,
    mark: str,  # of the run that may have made them
    page: bool = True,  # whether the pictures of the page belong to it
) -> list[int]:
    """Indices of the pairs whose results are in ``folder``, whole and made by the run ``mark``."""

    def is_whole(pair: tuple[str, str]) -> bool:
        path = folder / result_name(*pair, save_format)
        photos = (folder / PAGE_IMAGES / f"{stem(name)}.jpg" for name in pair)
        return (not page or all(photo.is_file() for photo in photos)) and is_made(path, mark)

    return [i for i, pair in enumerate(pairs) if is_whole(pair)]


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
    """Saves ``<source>_2_<target>_vis.<format>`` for every pair, and the pages that show them.

    Images are resized to ``size`` (h, w) and written by a few threads; use it as a context manager,
    which waits for them. An error while writing is raised at the next call, not lost. Of several
    processes each writes its own images; the main one writes the pages of all, in the order of the
    pairs.
    """

    def __init__(
        self,
        folder: str | Path,
        size: tuple[int, int],  # (h, w) of the saved images
        save_format: str = "png",
        page: bool = True,
        title: str = "Test results",
        save_norm: str = "fixed",  # a key of SAVE_NORMS, for the generated images
        save_steps: bool = False,  # outputs step_1, step_2 ... also go to step_folder(folder, j)
        keypoint_frame: tuple[int, int] | None = None,  # (h, w) of the keypoints; default: size
        mark: str = "",  # of this run, left in every result: see util.image.mark_of
        pairs: Sequence[tuple[str, str]] = (),  # all pairs of the pages
    ):
        self.folder, self.size, self.save_format = Path(folder), tuple(size), save_format
        self._page, self._title, self._pairs = page, title, pairs
        self._convert, self._save_steps = SAVE_NORMS[save_norm], save_steps
        self._keypoint_frame, self._mark = keypoint_frame, mark
        self._pool = ThreadPoolExecutor(max(2, min(16, allotted_cpus() // 2)))
        self._pending: deque[Future] = deque()
        self._seen: set[str] = set()
        self._extras: tuple[str, ...] = ()  # names of further pictures of every pair
        self._spreads: list[float] = []  # of the results
        if distributed.is_main():
            forget_earlier(self.folder)

    def add(self, batch: Mapping[str, Any], outputs: Mapping[str, torch.Tensor]) -> None:
        """Queue one batch: ``batch`` as the data set gave it, ``outputs`` as ``model.infer`` gave
        them."""
        results = _Pictures(outputs["fake_target"], self._convert)
        extras = {k: _Pictures(v, to_uint8) for k, v in outputs.items() if k != "fake_target"}
        self._extras = tuple(extras)
        for i, pair in enumerate(zip(batch["source_name"], batch["target_name"], strict=True)):
            photos = []
            for role, name in zip(("source", "target"), pair, strict=True):
                if self._page and name not in self._seen:
                    self._seen.add(name)
                    points = batch.get(f"{role}_keypoints")  # turned objects have none
                    photo = batch[f"{role}_image"][i], None if points is None else points[i]
                    photos.append((stem(name), *photo))
            file = result_name(*pair, self.save_format)
            self._pending.append(self._pool.submit(self._write, file, i, photos, extras, results))
            while len(self._pending) > MAX_PENDING or (self._pending and self._pending[0].done()):
                self._pending.popleft().result()

    def _write(
        self,
        file: str,
        i: int,  # of the pair in its batch
        photos: Sequence[tuple[str, torch.Tensor, torch.Tensor | None]],  # stem, image, keypoints
        extras: Mapping[str, _Pictures],
        results: _Pictures,
    ) -> None:
        """Write everything of one pair; the result last: one that is there has the rest beside."""
        path, pages = self.folder / file, self.folder / PAGE_IMAGES
        for name, image, keypoints in photos:
            self._save(pages / f"{name}.jpg", image.permute(1, 2, 0).contiguous().numpy())
            if keypoints is not None:
                skeleton = skeleton_picture(keypoints.numpy(), self.size, self._keypoint_frame)
                save_image(pages / f"{name}_pose.jpg", skeleton, quality=90)
        for key, extra in extras.items():
            if self._page:
                self._save(pages / f"{path.stem}_{key}.jpg", extra[i])
            if self._save_steps and key.startswith("step_"):
                step = step_folder(self.folder, int(key.removeprefix("step_")))
                self._save(step / file, extra[i])
        result = results[i]
        self._spreads.append(spread(result))
        self._save(path, result)
        for other in SAVE_FORMATS:  # of an earlier run: the pair has one result
            if other != self.save_format:
                path.with_suffix(f".{other}").unlink(missing_ok=True)

    def _save(self, path: Path, picture: np.ndarray) -> None:
        save_image(path, resize_linear(picture, self.size), mark=self._mark)

    def close(self) -> None:
        """Wait for all images, write the pages, say so when every image is one colour."""
        while self._pending:
            self._pending.popleft().result()
        self._pool.shutdown()
        spreads = list(chain.from_iterable(distributed.gather(self._spreads)))
        if not distributed.is_main():
            return
        for place in (self.folder, self.folder / PAGE_IMAGES):
            remove_leftovers(place)  # of a run that was killed
        if self._page:
            rows = [(*pair, result_name(*pair, self.save_format)) for pair in self._pairs]
            write_rows(self.folder, self._title, rows, self._extras)
            write_pages(self.folder)
        if sentence := one_colour(spreads, "generated images"):
            warn(sentence)

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if kind is None:
            self.close()
        else:
            self._pool.shutdown(cancel_futures=True)


TURNED = f"{PAGE_IMAGES}/turntables"  # folder of strips and films
FPS = 25 / 3  # 120 ms a frame
SMALLEST = 128  # pixels; smaller pictures are enlarged in the moving picture


def write_turntables(
    results: Path,
    dataset: Any,  # its turns(), photograph(name), folder and full_turn are read
    save_format: str,
) -> None:
    """Strip (PNG) and GIF of every turned object of ``dataset`` from the images in ``results``.

    The upper row of a strip is generated, the lower one true, the source in front; a GIF shows both
    side by side. Pictures that come from no image file are also written to the folder
    ``<results>_truth``, which script/metrics.py wants as --gt_path. No turns, no files.
    """
    truth = results.with_name(f"{results.name}_truth")
    cards = []
    for source, pairs in dataset.turns().items():
        made = [np.asarray(load_image(results / result_name(*p, save_format))) for p in pairs]
        size = made[0].shape[:2]
        first, *true = (
            resize_linear(dataset.photograph(name), size)
            for name in (source, *(target for _, target in pairs))
        )
        if dataset.folder is None:
            for (_, name), image in zip(pairs, true, strict=True):
                save_image(truth / f"{stem(name)}.png", image)
        strip, film = (f"{TURNED}/{stem(source)}.{end}" for end in ("png", "gif"))
        white = np.full_like(first, 255)
        save_image(results / strip, grid([[first, *made], [white, *true]], gap=2))
        frames = [_enlarged(grid([pair])) for pair in zip(made, true, strict=True)]
        back = () if dataset.full_turn else frames[-2:0:-1]
        write_gif(results / film, [*frames, *back], FPS, plays=0)
        figures = (picture(film, "turned", f"{stem(source)}, turned"),
                   picture(strip, "all views", stem(source)))  # fmt: skip
        cards.append(tags.article(tags.h3(clean_text(stem(source))), *figures, cls="card"))
    if cards:
        page = new_page("Turned objects")
        page.add(tags.h1("Turned objects"))
        page.add(tags.p("Left and above: generated from the first picture. Right and below: true."))
        page.add(tags.main(cards, cls="cards"))
        write_page(results / TURNTABLES, page)
        if (results / PAGE_IMAGES / ROWS).is_file():
            write_pages(results)  # with a link to this one


def _enlarged(frame: np.ndarray) -> np.ndarray:
    larger = max(1, -(-SMALLEST // frame.shape[0]))
    return frame.repeat(larger, axis=0).repeat(larger, axis=1)
