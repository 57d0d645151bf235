"""Turned objects of a test: a strip and a moving picture of each, and a page of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from dominate import tags

from util.image import load_image, resize_linear, save_image
from util.names import PAGE_IMAGES, result_name, stem
from util.show.animation import write_gif
from util.show.grid import grid
from util.show.html import clean_text, new_page, picture, write_page
from util.show.result_page import TURNTABLES as PAGE
from util.show.result_page import refresh

FOLDER = f"{PAGE_IMAGES}/turntables"
FPS = 25 / 3  # 120 ms a frame
SMALLEST = 128  # pixels; smaller pictures are enlarged in the moving picture


class Turned(Protocol):
    """What is needed of the data set."""

    folder: Path | None
    full_turn: bool  # the last view is beside the first one

    def turns(self) -> Mapping[str, Sequence[tuple[str, str]]]: ...
    def photograph(self, name: str) -> np.ndarray | None: ...


def write_turntables(results: Path, dataset: Turned, save_format: str) -> list[str]:
    """Strip (PNG) and GIF of every turned object of ``dataset`` from the images in ``results``.

    The upper row of a strip is generated, the lower one true, the source in front; a GIF shows both
    side by side. Pictures that come from no image file are also written to the folder
    ``<results>_truth``, which script/metrics.py wants as --gt_path. Returns the names of the
    objects' sources; no turns, no files.
    """
    turns = dataset.turns()
    truth = results.with_name(f"{results.name}_truth")
    cards = []
    for source, pairs in turns.items():
        made = [_load(results / result_name(*pair, save_format)) for pair in pairs]
        true = [resize_linear(dataset.photograph(name), made[0].shape[:2]) for _, name in pairs]
        if dataset.folder is None:
            for (_, name), image in zip(pairs, true, strict=True):
                save_image(truth / f"{stem(name)}.png", image)
        strip, film = (f"{FOLDER}/{stem(source)}.{end}" for end in ("png", "gif"))
        first = resize_linear(dataset.photograph(source), made[0].shape[:2])
        save_image(
            results / strip, grid([[first, *made], [np.full_like(first, 255), *true]], gap=2)
        )
        both = [grid([pair]) for pair in zip(made, true, strict=True)]
        write_gif(results / film, _film(both, dataset.full_turn), FPS, plays=0)
        cards.append(_card(source, film, strip))
    if cards:
        page = new_page("Turned objects")
        page.add(tags.h1("Turned objects"))
        page.add(tags.p("Left and above: generated from the first picture. Right and below: true."))
        page.add(tags.main(cards, cls="cards"))
        write_page(results / PAGE, page)
        refresh(results)
    return list(turns)


def _film(frames: Sequence[np.ndarray], full_turn: bool) -> list[np.ndarray]:
    """Frames (H, W, 3), small ones enlarged; half a turn runs back and forth."""
    larger = max(1, -(-SMALLEST // frames[0].shape[0]))
    order = list(frames) if full_turn else [*frames, *frames[-2:0:-1]]
    return [frame.repeat(larger, axis=0).repeat(larger, axis=1) for frame in order]


def _load(path: Path) -> np.ndarray:
    return np.asarray(load_image(path))


def _card(source: str, film: str, strip: str) -> tags.article:
    name = stem(source)
    figures = [picture(film, "turned", f"{name}, turned"), picture(strip, "all views", name)]
    return tags.article(tags.h3(clean_text(name)), *figures, cls="card")
