"""The pages of test results: one card a pair, written while the test runs, in constant memory."""

from __future__ import annotations

import json
import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from dominate import tags
from dominate.util import raw

from util.files import write_atomically
from util.image import resize_linear, save_image
from util.names import PAGE_IMAGES, result_name, stem
from util.run import distributed
from util.show.html import clean_text, facts, missing_picture, new_page, picture, write_page
from util.skeleton import skeleton_picture
from util.tensors import SAVE_NORMS, to_uint8

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
            for key, step in pictures.items() if self._save_steps else ():
                if key.startswith("step_"):
                    folder = step_folder(self.folder, int(key.removeprefix("step_")))
                    self._submit(self._save_from, folder / file, step, i)
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
        columns = RESULT_COLUMNS if "target_keypoints" in batch else VIEW_COLUMNS
        self._columns = (*columns[:-1], *extras, columns[-1])
        images = {"generated": file}
        for role, name, shown in (("source", source, "source"), ("target", target, "ground truth")):
            images[shown], pose = self._shown_once(batch, i, role, name)
            if pose is not None:
                images[f"{role} pose"] = pose
        for key, extra in extras.items():
            images[key] = f"{PAGE_IMAGES}/{Path(file).stem}_{key}.jpg"
            self._submit(self._save_from, self.folder / images[key], extra, i)
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

    def _shown_once(self, batch, i: int, role: str, name: str) -> tuple[str, str | None]:
        """Photo and skeleton, if it has one, of one image for the page; each is written the first
        time it is seen."""
        keypoints = batch.get(f"{role}_keypoints")
        photo = f"{PAGE_IMAGES}/{stem(name)}.jpg"
        pose = None if keypoints is None else f"{PAGE_IMAGES}/{stem(name)}_pose.jpg"
        if name not in self._seen:
            self._seen.add(name)
            pixels = batch[f"{role}_image"][i].permute(1, 2, 0).contiguous().numpy()
            self._submit(self._save, self.folder / photo, pixels)
            if pose is not None:
                self._submit(self._save_pose, self.folder / pose, keypoints[i])
        return photo, pose

    def _save_pose(self, path: Path, keypoints: torch.Tensor) -> None:
        picture = skeleton_picture(keypoints.numpy(), self.size, self._keypoint_frame)
        save_image(path, picture, quality=90)

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


RESULT_COLUMNS = ("source", "source pose", "target pose", "generated", "ground truth")
VIEW_COLUMNS = ("source", "generated", "ground truth")  # of turned objects; captions say the view

_STEP = re.compile(r"step_\d+")  # columns of a model that paints in steps

# Text in a page is escaped, so neither mark can come from a caption.
_OPEN, _CLOSE = "<!-- navigation -->", "<!-- end of navigation -->"
_NAVIGATION = re.compile(re.escape(_OPEN) + ".*?" + re.escape(_CLOSE), re.DOTALL)


class ResultPage:
    """Writes ``index.html``, ``page_2.html`` … into ``out_dir`` with ``per_page`` rows each.

    A page is written as soon as it is full, so an interrupted test leaves readable pages. ``close``
    adds the summary and the links to all pages; leaving the context calls it::

        with ResultPage(out_dir, RESULT_COLUMNS, "dptn: 8570 test pairs") as page:
            page.add("a.jpg → b.jpg", {"source": "page_images/a.png", "generated": "a_2_b_vis.png"})
            page.summary["PSNR"] = 19.1

    :param columns: names of the pictures of a row, in the order in which they are shown.
    """

    def __init__(
        self,
        out_dir: str | Path,
        columns: Sequence[str] = RESULT_COLUMNS,
        title: str = "Test results",
        per_page: int = 50,
    ):
        if per_page < 1:
            raise ValueError(f"per_page is {per_page}; expected at least 1")
        self.out_dir = Path(out_dir)
        self.columns = tuple(columns)
        self.title = title
        self.per_page = per_page
        self.summary: dict[str, object] = {}
        self.rows = 0
        self._pages = 0
        self._pending: list[tags.article] = []

    def add(self, caption: str, images: Mapping[str, str | Path]) -> None:
        """Append a row: ``images`` maps column names to paths relative to ``out_dir``.

        A column without an image is shown as "none"; an unknown column is a ``ValueError``.
        """
        unknown = set(images) - set(self.columns)
        if unknown:
            raise ValueError(f"unknown columns {sorted(unknown)}; expected some of {self.columns}")
        if len(self._pending) == self.per_page:
            self._write_pending()
        self.rows += 1
        self._pending.append(self._card(caption, images))

    def close(self, summary: Mapping[str, object] | None = None) -> Path:
        """Write the rest, link all pages, show ``summary`` on the first one; returns its path."""
        self.summary.update(summary or {})
        if self._pending or not self._pages:
            self._write_pending()
        for number in range(1, self._pages + 1):
            self._link(number)
        self._remove_older_pages()
        return self.out_dir / page_name(1)

    def __enter__(self) -> ResultPage:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _card(self, caption: str, images: Mapping[str, str | Path]) -> tags.article:
        heading = tags.h3(tags.b(f"{self.rows}. "), clean_text(caption))
        steps = [column for column in self.columns if _STEP.fullmatch(column)]
        others = [column for column in self.columns if column not in steps]
        rows = [tags.div(self._figures(others, images), cls="pictures")]
        if steps:  # side by side, however narrow the page: they are one strip
            rows.append(tags.div(self._figures(steps, images), cls="strip"))
        return tags.article(heading, *rows, cls="card")

    def _figures(self, columns: Sequence[str], images: Mapping[str, str | Path]) -> list:
        return [
            picture(images[column], column, f"{column}, pair {self.rows}")
            if column in images
            else missing_picture(column)
            for column in columns
        ]

    def _write_pending(self) -> None:
        self._pages += 1
        page = new_page(self.title if self._pages == 1 else f"{self.title}, page {self._pages}")
        last = self.rows
        first = last - len(self._pending) + 1
        page.add(tags.h1(clean_text(self.title)))
        page.add(raw(_OPEN + _provisional_navigation(self._pages) + _CLOSE))
        if self._pending:
            page.add(tags.p(f"Pairs {first:,} to {last:,}. Click a picture for its full size."))
            page.add(tags.main(self._pending, cls="cards"))
        else:
            page.add(tags.p("No pairs were generated."))
        page.add(raw(_OPEN + _CLOSE))
        write_page(self.out_dir / page_name(self._pages), page)
        self._pending = []

    def _link(self, number: int) -> None:
        """Replace the provisional links of one page: the pages are read back one at a time."""
        path = self.out_dir / page_name(number)
        links = _navigation(number, self._pages) if self._pages > 1 else ""
        top = facts({"pairs": f"{self.rows:,}", **self.summary}).render() if number == 1 else ""
        parts = iter((top + links, links))
        html = path.read_text(encoding="utf-8")
        write_atomically(path, _NAVIGATION.sub(lambda _: next(parts), html).encode("utf-8"))

    def _remove_older_pages(self) -> None:
        """An earlier test in the same folder may have had more pages; they would show its pairs."""
        for path in self.out_dir.glob("page_*.html"):
            match = re.fullmatch(r"page_(\d+)\.html", path.name)
            if match and int(match[1]) > self._pages:
                path.unlink()


def page_name(number: int) -> str:
    """File name of a page, counted from 1."""
    return "index.html" if number == 1 else f"page_{number}.html"


def _provisional_navigation(number: int) -> str:
    """Links of a page while the test still runs: the number of pages is not known yet."""
    if number == 1:
        return ""
    return tags.nav(tags.a("‹ previous", href=page_name(number - 1))).render()


def _navigation(here: int, last: int) -> str:
    """Links to the neighbours, the ends, and the pages around this one."""
    links: list[tags.html_tag] = []
    if here > 1:
        links.append(tags.a("‹ previous", href=page_name(here - 1), rel="prev"))
    shown = sorted({1, last, *range(max(1, here - 2), min(last, here + 2) + 1)})
    for number, before in zip(shown, [0, *shown], strict=False):
        if number > before + 1:
            links.append(tags.span("…", cls="gap"))
        if number == here:
            links.append(tags.span(str(number), cls="here", aria_current="page"))
        else:
            links.append(tags.a(str(number), href=page_name(number)))
    if here < last:
        links.append(tags.a("next ›", href=page_name(here + 1), rel="next"))
    return tags.nav(links, aria_label="pages").render()
