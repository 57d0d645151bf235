"""Draws solid parts with a depth buffer: exact depth of every part at every pixel, then colour and light.

The camera is orthographic and looks along -Z. A part (see :class:`data.synthetic_body.Part`) is mapped by a matrix L
with L e_z parallel to e_z to a round cone, for which the depth above a pixel has a closed form: with q(t) the squared
half chord through the ball at position t of the axis, maximise z(t) + sqrt(q(t)) over t in [0, 1] (q is concave).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from data.synthetic_body import Part
from data.synthetic_clothes import Wardrobe

LIGHT = np.array([-0.42, 0.55, 0.72], np.float32) / np.float32(np.linalg.norm([-0.42, 0.55, 0.72]))
NOTHING = 255
FAR = np.float32(-1e3)


@dataclass(frozen=True)
class Camera:
    """Orthographic camera: ``scale`` pixels per metre; world (0, 0, 0) is drawn at pixel ``origin`` (y, x)."""

    size: tuple[int, int]  # (h, w) pixels
    scale: float
    origin: tuple[float, float]

    def project(self, point: np.ndarray) -> np.ndarray:
        """Pixel coordinates (y, x), real numbers, of a world point."""
        return np.array(
            [self.origin[0] - self.scale * point[1], self.origin[1] + self.scale * point[0]]
        )


@dataclass
class Surface:
    """What is seen at each pixel of a supersampled picture; ``part`` is NOTHING where the background is."""

    depth: np.ndarray  # (H, W) float32, metres, larger is nearer
    part: np.ndarray  # (H, W) uint8
    along: np.ndarray  # (H, W) float32, position on the part's axis in [0, 1]
    xs: np.ndarray  # (W,) world coordinate of the columns
    ys: np.ndarray  # (H,) world coordinate of the rows


def rasterise(parts: list[Part], camera: Camera, supersample: int) -> Surface:
    """Visible part, depth and axis position at every pixel of the picture enlarged ``supersample`` times."""
    h, w = (supersample * n for n in camera.size)
    step = 1.0 / (camera.scale * supersample)
    xs = ((np.arange(w) + 0.5) * step - camera.origin[1] / camera.scale).astype(np.float32)
    ys = (camera.origin[0] / camera.scale - (np.arange(h) + 0.5) * step).astype(np.float32)
    surface = Surface(
        np.full((h, w), FAR),
        np.full((h, w), NOTHING, np.uint8),
        np.zeros((h, w), np.float32),
        xs,
        ys,
    )
    for index, (part, shape) in enumerate(zip(parts, _shapes(parts), strict=True)):
        _draw(surface, index, part, shape)
    return surface


def _shapes(parts: list[Part]) -> np.ndarray:
    """Matrices L (P, 3, 3), lower triangular, with |L (x - c)| = r on the surface of each part."""
    frames = np.stack([part.frame for part in parts])
    squash = np.array([part.squash for part in parts])
    metric = (frames / squash[:, None, :] ** 2) @ frames.transpose(0, 2, 1)
    flipped = np.linalg.cholesky(metric[:, ::-1, ::-1])  # metric = L^T L with L lower triangular
    return flipped[:, ::-1, ::-1].transpose(0, 2, 1)


def _window(surface: Surface, part: Part) -> tuple[slice, slice]:
    """Rows and columns that the part can touch."""
    reach = [r * max(part.squash) for r in part.radii]
    low = np.minimum(part.start - reach[0], part.end - reach[1])
    high = np.maximum(part.start + reach[0], part.end + reach[1])
    columns = np.searchsorted(surface.xs, (low[0], high[0]))
    rows = np.searchsorted(-surface.ys, (-high[1], -low[1]))
    return slice(*rows), slice(*columns)


def _draw(surface: Surface, index: int, part: Part, shape: np.ndarray) -> None:
    """Enter one part into the depth buffer."""
    rows, columns = _window(surface, part)
    x, y = surface.xs[None, columns], surface.ys[rows, None]
    if x.size == 0 or y.size == 0:
        return
    a, d = shape @ part.start, shape @ (part.end - part.start)
    r0, dr = part.radii[0], part.radii[1] - part.radii[0]
    length2 = d[0] ** 2 + d[1] ** 2
    length = np.sqrt(length2)
    ex = d[:2] / length if length > 1e-9 else np.array([1.0, 0.0])
    ey = np.array([-ex[1], ex[0]])
    # coordinates along and across the drawn axis: both are linear in the pixel position
    kx, ky = ex @ shape[:2, :2], ey @ shape[:2, :2]
    s = np.float32(kx[0]) * x + (np.float32(kx[1]) * y - np.float32(ex @ a[:2]))
    q = np.float32(ky[0]) * x + (np.float32(ky[1]) * y - np.float32(ey @ a[:2]))
    curve = max(length2 - dr**2, 1e-7)
    middle = (s * np.float32(length) + np.float32(r0 * dr)) * np.float32(1.0 / curve)
    np.multiply(q, q, out=q)
    s *= s
    q += s
    np.subtract(np.float32(r0**2), q, out=q)
    q += np.float32(curve) * (middle * middle)  # greatest squared half chord over all t
    t = np.sqrt(np.maximum(q, 0.0))
    t *= np.float32(d[2] / np.sqrt(curve * (curve + d[2] ** 2)))
    t += middle
    np.clip(t, 0.0, 1.0, out=t)
    middle -= t
    middle *= middle
    q -= np.float32(curve) * middle
    inside = q > 0.0
    z = np.sqrt(np.maximum(q, 0.0, out=q), out=q)
    z += np.float32(d[2]) * t
    z += np.float32(a[2]) - (np.float32(shape[2, 0]) * x + np.float32(shape[2, 1]) * y)
    z *= np.float32(1.0 / shape[2, 2])
    for normal, bound in part.clips:
        n = normal.astype(np.float32)
        inside &= n[0] * x + (n[1] * y - np.float32(bound)) + n[2] * z <= 0.0
    depth = surface.depth[rows, columns]
    inside &= z > depth
    np.copyto(depth, z, where=inside)
    np.copyto(surface.along[rows, columns], t, where=inside)
    np.copyto(surface.part[rows, columns], np.uint8(index), where=inside)


def shade(surface: Surface, parts: list[Part], wardrobe: Wardrobe) -> tuple[np.ndarray, np.ndarray]:
    """Lit colours: pixel indices (N,) of the person into the flattened picture and colours (N, 3) in [0, 1]."""
    where = np.flatnonzero(surface.part != NOTHING)
    ids = surface.part.ravel()[where]
    order = np.argsort(ids, kind="stable")
    where, ids = where[order], ids[order]
    rows, columns = np.divmod(where, surface.xs.size)
    points = np.stack([surface.xs[columns], surface.ys[rows], surface.depth.ravel()[where]])
    along = surface.along.ravel()[where]
    bounds = np.searchsorted(ids, np.arange(len(parts) + 1))
    normals = np.empty_like(points)
    local = np.empty_like(points)
    colours = np.empty((where.size, 3), np.float32)
    shapes = _shapes(parts)
    for i, part in enumerate(parts):
        span = slice(bounds[i], bounds[i + 1])
        if span.start < span.stop:
            _geometry(
                points[:, span], along[span], part, shapes[i], normals[:, span], local[:, span]
            )
    for first, last in _runs([part.paint for part in parts]):
        span = slice(bounds[first], bounds[last])
        if span.start < span.stop:
            colours[span] = wardrobe.paint(parts[first].paint, local[:, span])
    return where, colours * _light(normals, parts, bounds)


def _runs(paints: list[str]) -> list[tuple[int, int]]:
    """Index ranges of neighbouring equal entries."""
    starts = [i for i in range(len(paints)) if i == 0 or paints[i] != paints[i - 1]]
    return list(zip(starts, [*starts[1:], len(paints)], strict=True))


def _geometry(points, along, part: Part, shape: np.ndarray, normals, local) -> None:
    """Fill in surface normals and texture coordinates (3, N) of one part."""
    axis = part.start[:, None] + (part.end - part.start)[:, None] * along
    metric = (shape.T @ shape).astype(np.float32)
    normals[:] = metric @ (points - axis.astype(np.float32))
    normals /= np.sqrt(np.einsum("in,in->n", normals, normals)) + 1e-9
    local[:] = part.frame.T.astype(np.float32) @ (points - part.origin.astype(np.float32)[:, None])
    local[1] += np.float32(part.offset)


def _light(normals: np.ndarray, parts: list[Part], bounds: np.ndarray) -> np.ndarray:
    """Brightness (N, 1): soft key light, sky and a darker rim."""
    key = np.clip(LIGHT @ normals * 0.75 + 0.25, 0.0, 1.0)
    light = 0.5 + 0.5 * key + 0.08 * normals[1]
    light *= 0.86 + 0.14 * np.clip(1.6 * normals[2], 0.0, 1.0)
    light = light[:, None]
    return light


def occlusion(depth: np.ndarray, scale: float) -> np.ndarray:
    """Darkening (H, W) in [0, 1] where nearby surfaces lie in front (depth buffer unsharp masking, Luft 2006)."""
    person = depth > FAR
    behind = depth[person].min() if person.any() else 0.0
    filled = np.where(person, depth, behind).astype(np.float32)
    size = 2 * int(0.05 * scale) + 1
    blurred = cv2.blur(cv2.blur(filled, (size, size)), (size, size))
    return np.clip((blurred - filled) * 3.0, 0.0, 0.35) * person
