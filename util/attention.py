"""Reading attention maps and flow fields at points of the target.

Points are (y, x) in a frame of size (h, w), as keypoints are. A map over the source is (h', w'),
not negative, with sum 1.
"""

from __future__ import annotations

import cv2
import numpy as np

from util.skeleton import present

NEAR = 0.1  # of the body height: how near attention must be to count as on the joint


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


def body_height(keypoints: np.ndarray) -> float:
    """Vertical extent of the present joints (18, 2); 0 when there are fewer than two."""
    rows = np.asarray(keypoints)[present(np.asarray(keypoints)), 0]
    return float(np.ptp(rows)) if len(rows) else 0.0


def mass_near(
    source_map: np.ndarray, joint: np.ndarray, radius: float, frame: tuple[int, int]
) -> float:
    """Share of a map (h', w') within ``radius`` of ``joint``, all in ``frame``."""
    return float(fine_map(source_map, frame)[disc(joint, radius, frame)].sum())
