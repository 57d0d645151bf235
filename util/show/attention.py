"""Where a generated image comes from: maps and flow fields read at points, and pictures of them:
heat, lines between points, a clickable page.

Points are (y, x) in a frame of size (h, w), as keypoints are. A map over the source is (h', w'),
not negative, with sum 1.
"""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from util.files import write_atomically
from util.show.grid import GAP, grid
from util.show.html import clean_text
from util.skeleton import hue

TEMPLATE = Path(__file__).with_name("attention_page.html")
HEAT = cv2.COLORMAP_INFERNO
DOT = 3  # radius of a point's mark for each 256 pixels of height


def cell_of(point: np.ndarray, frame: tuple[int, int], cells: tuple[int, int]) -> tuple[int, int]:
    """Row and column of the cell that a point of ``frame`` lies in; outside: the nearest one."""
    scaled = np.floor(np.asarray(point, dtype=np.float64) * cells / np.asarray(frame)).astype(int)
    row, column = np.clip(scaled, 0, np.asarray(cells) - 1)
    return int(row), int(column)


def maps_at(attention: np.ndarray, point: np.ndarray, frame: tuple[int, int]) -> np.ndarray:
    """Maps over the source (..., h', w') of the target position that holds ``point``.

    ``attention`` is (..., h, w, h', w'), leading axes are blocks and heads.
    """
    row, column = cell_of(point, frame, attention.shape[-4:-2])
    return attention[..., row, column, :, :]


def peak(source_map: np.ndarray, frame: tuple[int, int]) -> np.ndarray:
    """(y, x) in ``frame`` of where a map (h', w') is largest: the centre of mass of the largest
    cell and its neighbours."""
    top, left = (max(i - 1, 0) for i in np.unravel_index(source_map.argmax(), source_map.shape))
    part = source_map[top : top + 3, left : left + 3]
    centres = np.indices(part.shape) + np.array([top, left])[:, None, None] + 0.5
    centre = (centres * part).sum(axis=(1, 2)) / part.sum()
    return centre * np.asarray(frame) / np.asarray(source_map.shape)


def flow_source(flow: np.ndarray, point: np.ndarray, frame: tuple[int, int]) -> np.ndarray:
    """(y, x) in ``frame`` of where a flow field (2, h, w), offsets (x, y) in its own pixels, takes
    the target's ``point`` from."""
    cells = flow.shape[1:]
    row, column = cell_of(point, frame, cells)
    offset = flow[::-1, row, column] * np.asarray(frame) / np.asarray(cells)
    return np.asarray(point, dtype=np.float64) + offset


def fine_map(source_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map (h', w') spread over pixels of ``size`` bilinearly, sum 1."""
    fine = cv2.resize(source_map.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
    return fine / fine.sum()


def disc(centre: np.ndarray, radius: float, size: tuple[int, int]) -> np.ndarray:
    """Bool (H, W): the pixels whose centres lie within ``radius`` of ``centre`` (y, x)."""
    rows, columns = np.ogrid[: size[0], : size[1]]
    return np.hypot(rows + 0.5 - centre[0], columns + 0.5 - centre[1]) <= radius


def heat(picture: np.ndarray, source_map: np.ndarray) -> np.ndarray:
    """``picture`` (H, W, 3) dimmed and grey, with a map (h', w') over it as heat; its maximum is
    the full colour."""
    fine = fine_map(source_map, picture.shape[:2])
    strength = fine / fine.max()
    colours = cv2.applyColorMap((strength * 255).astype(np.uint8), HEAT)[:, :, ::-1]
    grey = picture.mean(axis=2, keepdims=True).repeat(3, axis=2)
    share = (0.25 + 0.75 * strength)[:, :, None]
    return ((0.35 * picture + 0.4 * grey) * (1 - share) + colours * share).astype(np.uint8)


def mark(picture: np.ndarray, point: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """A copy with a ringed dot at ``point`` (y, x), in pixels of the picture."""
    canvas = np.ascontiguousarray(picture).copy()
    at, radius = _pixel(point), max(2, round(DOT * canvas.shape[0] / 256))
    for ring, shade in ((2, (255, 255, 255)), (1, (0, 0, 0)), (0, colour)):
        cv2.circle(canvas, at, radius + ring, shade, -1, cv2.LINE_AA)
    return canvas


def _pixel(point: np.ndarray) -> tuple[int, int]:
    y, x = (round(float(v)) for v in np.clip(point, -10_000, 10_000))
    return x, y


def _all_marked(picture: np.ndarray, points: Sequence[np.ndarray]) -> np.ndarray:
    """A copy with all points, each in its own colour."""
    for i, point in enumerate(points):
        picture = mark(picture, point, hue(i, len(points)))
    return picture


def correspondence_figure(
    target_pose: np.ndarray | None,  # (H, W, 3), pictures of one size
    source: np.ndarray,
    result: np.ndarray,
    points: Sequence[np.ndarray],  # (y, x) in pixels of the result
    sources: Sequence[np.ndarray],  # (y, x) in pixels of the source: where each is taken from
) -> np.ndarray:
    """Target pose, source and result side by side; a line joins each point to its source."""
    pictures = [_all_marked(source, sources), _all_marked(result, points)]
    row = pictures if target_pose is None else [target_pose, *pictures]
    figure = grid([row], gap=4 * GAP)
    width = source.shape[1] + 4 * GAP
    left, right = (np.array([0, (len(row) - k) * width]) for k in (2, 1))
    lines = figure.copy()
    thick = max(1, round(figure.shape[0] / 300))
    for i, (point, origin) in enumerate(zip(points, sources, strict=True)):
        colour = hue(i, len(points))
        cv2.line(lines, _pixel(origin + left), _pixel(point + right), colour, thick, cv2.LINE_AA)
    return cv2.addWeighted(lines, 0.75, figure, 0.25, 0)


def map_sheet(
    source: np.ndarray,  # (H, W, 3)
    result: np.ndarray,
    points: Sequence[np.ndarray],  # (y, x) in pixels of the result
    attention: np.ndarray,  # (blocks, heads, h, w, h', w')
) -> np.ndarray:
    """A row a point: the result with the point, the mean map, then every head of every block."""
    blocks, heads = attention.shape[:2]
    names = [f"block {b + 1} head {h + 1}" for b in range(blocks) for h in range(heads)]
    rows = []
    for i, point in enumerate(points):
        colour = hue(i, len(points))
        maps = maps_at(attention, point, result.shape[:2]).reshape(-1, *attention.shape[-2:])
        mean = maps.mean(axis=0)
        first = mark(heat(source, mean), peak(mean, source.shape[:2]), colour)
        rows.append([mark(result, point, colour), first, *(heat(source, m) for m in maps)])
    return grid(rows, ("result", "mean of all", *names))


def arrow_sheet(
    source: np.ndarray, result: np.ndarray, points: Sequence[np.ndarray],
    origins: Sequence[Sequence[np.ndarray]],  # of each flow field: where each point comes from
    names: Sequence[str],
) -> np.ndarray:  # fmt: skip
    """The result with its points, and for each flow field the source with an arrow from where each
    point lies to where it is taken from."""
    thick = max(1, round(source.shape[0] / 250))
    row = [_all_marked(result, points)]
    for ends in origins:
        canvas = (0.75 * source + 0.25 * 255).astype(np.uint8)
        for i, (point, origin) in enumerate(zip(points, ends, strict=True)):
            cv2.arrowedLine(canvas, _pixel(point), _pixel(origin), hue(i, len(points)),
                            thick, cv2.LINE_AA, tipLength=0.2)  # fmt: skip
        row.append(_all_marked(canvas, ends))
    return grid([row], ("result", *names))


def gate_sheet(source: np.ndarray, result: np.ndarray, gates: Sequence[np.ndarray]) -> np.ndarray:
    """Source, result, and for each scale (C, h, w) the result under the mean gate of its channels,
    scaled to its own range."""
    row, names = [source, result], ["source", "result"]
    for gate in gates:
        mean = gate.mean(axis=0)
        spread = max(float(np.ptp(mean)), 1e-6)
        row.append(heat(result, (mean - mean.min()) / spread + 1e-6))
        names.append(f"{gate.shape[1]} x {gate.shape[2]}: {mean.min():.2f} to {mean.max():.2f}")
    return grid([row], names)


def write_page(
    path: Path,
    title: str,
    source: np.ndarray,
    result: np.ndarray,
    attention: np.ndarray | None = None,  # (blocks, heads, h, w, h', w')
    flows: Sequence[np.ndarray] = (),  # (2, h, w)
) -> None:
    """A page without server or other files: a click on the result shows its map on the source."""
    content = {
        "title": title,
        "source": _data_url(source),
        "result": _data_url(result),
        "size": list(result.shape[:2]),
        "maps": [],
        "flows": [{"cells": list(f.shape[1:]), "offsets": _base64(f.astype("<f4"))} for f in flows],
    }
    if attention is not None:
        top = attention.max(axis=(-2, -1), keepdims=True)
        levels = np.round(attention / top * 255).astype(np.uint8)
        content["cells"] = [list(attention.shape[2:4]), list(attention.shape[4:6])]
        content["maps"] = [
            {"name": f"block {block + 1}, head {head + 1}", "levels": _base64(levels[block, head]),
             "tops": _base64(top[block, head].astype("<f4"))}
            for block, head in np.ndindex(attention.shape[:2])
        ]  # fmt: skip
    text = TEMPLATE.read_text(encoding="utf-8")
    text = text.replace("__TITLE__", clean_text(title).replace("&", "&amp;").replace("<", "&lt;"))
    data = json.dumps(content).replace("<", "\\u003c")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.replace("__CONTENT__", data).encode())


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _data_url(picture: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
