"""Draws solid parts with a depth buffer: exact depth at every pixel, then colour and light.

The camera is orthographic and looks along -Z. A part (:class:`data.synthetic.body.Part`) is mapped
by a matrix L with L e_z parallel to e_z to a round cone, whose depth at a pixel has a closed form:
with q(t) the squared half chord through the ball at position t of the axis, a concave parabola,
maximise z(t) + sqrt(q(t)) over t in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import cv2
import numpy as np

from data.synthetic.body import Part
from data.synthetic.clothes import Wardrobe
from data.synthetic.pose import Skeleton

# nose, neck, then these, then right eye, left eye, right ear, left ear
LIMB_JOINTS = [
    side + j for js in ("Sho Elb Wri", "Hip Knee Ank") for side in "RL" for j in js.split()
]
# parts that belong to a joint: they never hide it
OWN = {
    "Elb": ("Upper", "Fore", "Hand"), "Wri": ("Fore", "Hand"),
    "Knee": ("Thigh", "Shin"), "Ank": ("Shin", "Foot"),
}  # fmt: skip
CLEARANCE = 0.02  # of the body height: how far in front a part must lie to hide a joint


def locate(
    skeleton: Skeleton, parts: list[Part], surface: Surface, camera: Camera, height: float
) -> np.ndarray:
    """Keypoints, int64 (18, 2) as (y, x) pixels, -1 for joints that are hidden or outside.

    A joint is hidden where another part of the body is drawn clearly in front of it.
    """
    keypoints = np.full((18, 2), -1, np.int64)
    factor = surface.part.shape[0] // camera.size[0]
    for index, point, own in _joints(skeleton, height):
        y, x = np.floor(camera.project(point)).astype(int)
        if 0 <= y < camera.size[0] and 0 <= x < camera.size[1]:
            fine = tuple(np.floor(camera.project(point) * factor).astype(int))
            part, nearest = surface.part[fine], point[2] + CLEARANCE * height
            own = own is None or part == NOTHING or parts[part].limb in own
            if own or surface.depth[fine] <= nearest:
                keypoints[index] = y, x
    return keypoints


def project_joints(skeleton: Skeleton, camera: Camera, height: float) -> np.ndarray:
    """Keypoints, float64 (18, 2) as (y, x), also of joints behind other parts or outside.

    Eyes, ears and the nose of an averted face are -1 all the same: they tell the sides apart.
    """
    keypoints = np.full((18, 2), -1.0)
    for index, point, _ in _joints(skeleton, height):
        keypoints[index] = camera.project(point)
    return keypoints


def _joints(skeleton: Skeleton, height: float) -> Iterator[tuple[int, np.ndarray, tuple | None]]:
    """Index and place of every joint that faces the viewer, and the parts that never hide it."""
    yield 1, skeleton.points["neck"], None
    for index, name in enumerate(LIMB_JOINTS, 2):
        side, joint = name[0], name[1:]
        own = (*(side + part for part in OWN[joint]), "skirt") if joint in OWN else None
        yield index, skeleton.points[name], own
    # of the face: offset from the head's centre, outward direction, least Z of it that is seen
    face = {0: ((0.0, -0.012, 0.066), (0.0, 0.0, 1.0), -0.05)}
    for eye, ear, sign in ((14, 16, -1.0), (15, 17, 1.0)):
        face[eye] = (sign * 0.02, 0.002, 0.051), (0.45 * sign, 0.0, 0.89), 0.1
        face[ear] = (sign * 0.052, -0.006, -0.006), (sign, 0.0, 0.0), -0.3
    frame = skeleton.frames["head"]
    for index, (offset, facing, least) in face.items():
        if (frame @ facing)[2] > least:
            yield index, skeleton.points["head"] + frame @ (np.array(offset) * height), ("head",)


LIGHT = np.array([-0.42, 0.55, 0.72], np.float32) / np.float32(np.linalg.norm([-0.42, 0.55, 0.72]))
NOTHING = 255
FAR = np.float32(-1e3)


@dataclass(frozen=True)
class Camera:
    """Orthographic camera: ``scale`` pixels a metre, world zero at pixel ``origin`` (y, x)."""

    size: tuple[int, int]  # (h, w) pixels
    scale: float
    origin: tuple[float, float]

    def project(self, point: np.ndarray) -> np.ndarray:
        """Pixel coordinates (y, x), real numbers, of a world point."""
        y, x = self.origin
        return np.array([y - self.scale * point[1], x + self.scale * point[0]])


@dataclass
class Surface:
    """What is seen at each pixel of the enlarged picture; ``part`` is NOTHING beside the person."""

    depth: np.ndarray  # (H, W) float32, metres, larger is nearer
    part: np.ndarray  # (H, W) uint8
    along: np.ndarray  # (H, W) float32, position on the part's axis in [0, 1]
    xs: np.ndarray  # (W,) world coordinate of the columns
    ys: np.ndarray  # (H,) world coordinate of the rows
    shapes: np.ndarray  # (P, 3, 3) of each part: lower triangular L, |L (x - c)| = r on its surface


def rasterise(parts: list[Part], camera: Camera, supersample: int) -> Surface:
    """What is visible at every pixel of the picture enlarged ``supersample`` times."""
    h, w = (supersample * n for n in camera.size)
    step = 1.0 / (camera.scale * supersample)
    xs = ((np.arange(w) + 0.5) * step - camera.origin[1] / camera.scale).astype(np.float32)
    ys = (camera.origin[0] / camera.scale - (np.arange(h) + 0.5) * step).astype(np.float32)
    frames, squash = np.stack([p.frame for p in parts]), np.array([p.squash for p in parts])
    metric = (frames / squash[:, None, :] ** 2) @ frames.transpose(0, 2, 1)
    flipped = np.linalg.cholesky(metric[:, ::-1, ::-1])  # metric = L^T L with L lower triangular
    shapes = flipped[:, ::-1, ::-1].transpose(0, 2, 1)
    far, nothing = np.full((h, w), FAR), np.full((h, w), NOTHING, np.uint8)
    surface = Surface(far, nothing, np.zeros((h, w), np.float32), xs, ys, shapes)
    # rows and columns that each part can touch: half width and half height of the squashed unit
    # ball by the support function of an ellipsoid, and a pixel more on each side, for rounding
    extent = np.sqrt(((frames[:, :2] * squash[:, None, :]) ** 2).sum(axis=2))
    reach = np.array([part.radii for part in parts])[:, :, None] * extent[:, None, :]
    ends = np.stack([[part.start[:2], part.end[:2]] for part in parts])
    low, high = (ends - reach).min(axis=1), (ends + reach).max(axis=1)
    left, right = (np.searchsorted(xs, edge[:, 0]) for edge in (low, high))
    top, bottom = (np.searchsorted(-ys, -edge[:, 1]) for edge in (high, low))
    windows = np.stack([top - 1, bottom + 1, left - 1, right + 1], axis=1).clip(0)
    for index, (part, window) in enumerate(zip(parts, windows, strict=True)):
        _draw(surface, index, part, window)
    return surface


def _draw(surface: Surface, index: int, part: Part, window) -> None:
    """Enter one part into the depth buffer."""
    rows, columns = slice(*window[:2]), slice(*window[2:])
    x, y = surface.xs[None, columns], surface.ys[rows, None]
    if x.size == 0 or y.size == 0:
        return
    cone = _Cone(part, surface.shapes[index])
    middle, chord = cone.chords(x, y)
    z, t, inside = cone.surface(x, y, middle, chord, 1.0)
    if part.clips:
        back, _, _ = cone.surface(x, y, middle, chord, -1.0)
        for normal, bound in part.clips:
            _cut(z, inside, back, x, y, normal.astype(np.float32), np.float32(bound))
    depth = surface.depth[rows, columns]
    inside &= z > depth
    np.copyto(depth, z, where=inside)
    np.copyto(surface.along[rows, columns], t, where=inside)
    np.copyto(surface.part[rows, columns], np.uint8(index), where=inside)


class _Cone:
    """A part in the coordinates in which it is round; x, y are world coordinates of pixels."""

    def __init__(self, part: Part, shape: np.ndarray) -> None:
        self.shape = shape
        self.a, self.d = shape @ part.start, shape @ (part.end - part.start)
        self.radius, self.taper = part.radii[0], part.radii[1] - part.radii[0]
        self.length = float(np.hypot(self.d[0], self.d[1]))
        self.curve = np.float32(max(self.length**2 - self.taper**2, 1e-7))

    def chords(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Axis position of the greatest half chord at each pixel, and its square."""
        ex = self.d[:2] / self.length if self.length > 1e-9 else np.array([1.0, 0.0])
        # coordinates along and across the drawn axis, both linear in the pixel position
        s, q = (
            np.float32(k[0]) * x + (np.float32(k[1]) * y - np.float32(e @ self.a[:2]))
            for e in (ex, np.array([-ex[1], ex[0]]))
            for k in (e @ self.shape[:2, :2],)
        )
        middle = s * np.float32(self.length) + np.float32(self.radius * self.taper)
        middle /= self.curve
        q *= q
        s *= s
        q += s
        np.subtract(np.float32(self.radius**2), q, out=q)
        q += self.curve * (middle * middle)
        return middle, q

    def surface(self, x, y, middle: np.ndarray, chord: np.ndarray, side: float):
        """Depth, axis position and coverage of the front (``side`` 1) or back (-1) surface."""
        slope = side * self.d[2] / np.sqrt(self.curve * (self.curve + self.d[2] ** 2))
        t = np.sqrt(np.maximum(chord, 0.0))
        t *= np.float32(slope)
        t += middle
        np.clip(t, 0.0, 1.0, out=t)
        z = middle - t
        z *= z
        z *= -self.curve
        z += chord
        inside = z > 0.0
        z = np.sqrt(np.maximum(z, 0.0, out=z), out=z)
        z *= np.float32(side)
        z += np.float32(self.d[2]) * t
        row = self.shape[2].astype(np.float32)
        z += np.float32(self.a[2]) - (row[0] * x + row[1] * y)
        z /= row[2]
        return z, t, inside


def _cut(z, inside, back, x, y, normal: np.ndarray, bound: np.float32) -> None:
    """Take away what lies beyond a plane; where it faces the viewer the cut is seen."""
    plane = bound - (normal[0] * x + normal[1] * y)
    beyond = normal[2] * z > plane
    if normal[2] > 1e-3:
        plane /= normal[2]
        np.copyto(z, plane, where=beyond)
        inside &= z > back
    else:
        inside &= ~beyond


def shade(surface: Surface, parts: list[Part], wardrobe: Wardrobe) -> tuple[np.ndarray, np.ndarray]:
    """Indices (N,) of the person's pixels in the flattened picture, their lit colours (N, 3)."""
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
    for part, shape, *span in zip(parts, surface.shapes, bounds[:-1], bounds[1:], strict=True):
        if span[0] < span[1]:
            span = slice(*span)
            normals[:, span], local[:, span] = _geometry(points[:, span], along[span], part, shape)
    for paint, group in groupby(range(len(parts)), lambda i: parts[i].paint):
        indices = list(group)
        span = slice(bounds[indices[0]], bounds[indices[-1] + 1])
        colours[span] = wardrobe.paint(paint, local[:, span])
    # soft key light, sky, and a darker rim
    key = np.clip(LIGHT @ normals * 0.72 + 0.28, 0.0, 1.0)
    light = 0.5 + 0.52 * key + 0.07 * normals[1]
    light *= 0.84 + 0.16 * np.clip(1.6 * normals[2], 0.0, 1.0)
    light = _softened(light, surface, where)
    shadow = 1.0 - np.minimum(light, 1.0)  # is a little warmer than the light
    tint = np.stack([light + 0.06 * shadow, light, light - 0.04 * shadow], axis=1)
    return where, colours * tint.astype(np.float32)


def _geometry(points, along, part: Part, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Surface normals and texture coordinates (3, N) of points on one part."""
    axis = part.start[:, None] + (part.end - part.start)[:, None] * along
    normals = (shape.T @ shape).astype(np.float32) @ (points - axis.astype(np.float32))
    normals /= np.sqrt(np.einsum("in,in->n", normals, normals)) + 1e-9
    local = part.frame.T.astype(np.float32) @ (points - part.origin.astype(np.float32)[:, None])
    local[1] += np.float32(part.offset)
    return normals, local


def _softened(light: np.ndarray, surface: Surface, where: np.ndarray) -> np.ndarray:
    """Light averaged over neighbours of similar depth, so that joints of parts leave no crease."""
    size = 9
    rows, columns = np.divmod(where, surface.xs.size)
    top, left = max(rows.min() - size, 0), max(columns.min() - size, 0)
    window = slice(top, rows.max() + size), slice(left, columns.max() + size)
    depth = surface.depth[window]
    person = (depth > FAR).astype(np.float32)
    level = depth * person
    picture = np.zeros_like(level)
    inside = (rows - top) * depth.shape[1] + columns - left
    picture.ravel()[inside] = light
    share, mean, around = (
        cv2.blur(plane, (size, size)).ravel()[inside] for plane in (person, picture, level)
    )
    mean /= share
    around /= share
    same = np.clip(1.0 - np.abs(around - level.ravel()[inside]) / 0.025, 0.0, 1.0)
    return light + same * (mean - light)


def occlusion(depth: np.ndarray, scale: float) -> np.ndarray:
    """Darkening (H, W) in [0, 1] near surfaces in front (depth unsharp masking, Luft 2006)."""
    person = depth > FAR
    filled = np.where(person, depth, depth[person].min()).astype(np.float32)
    size = 2 * int(0.05 * scale) + 1
    blurred = cv2.blur(cv2.blur(filled, (size, size)), (size, size))
    return np.clip((blurred - filled) * 3.0, 0.0, 0.35) * person
