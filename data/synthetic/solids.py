"""Casts parallel rays at convex solids: exact depth, normals, cast shadows, procedural materials.

Used for objects that are turned (chairs, heads). Coordinates of an object: x to its left as seen
from the front, y up, z to the front; unit of length is free. A solid is a ball, a box or a tube
under a linear map, cut by half spaces. Along a ray each of its conditions holds on an interval;
the solid is their intersection, and the end nearest to the viewer is what is seen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from data.synthetic import pose

LIGHT = np.array([-0.45, 0.62, 0.64]) / np.linalg.norm([-0.45, 0.62, 0.64])  # camera coordinates
AMBIENT, DIRECT = 0.6, 0.52  # light from everywhere, and from the lamp
SHADOW = 0.15  # what is left of the lamp's light behind another solid
FAR = np.float32(1e6)
TINY = 1e-9
SUPERSAMPLE = 2  # samples of a pixel along each side
BALL, BOX, TUBE = "ball", "box", "tube"

Colour = Sequence[float]  # red, green, blue in [0, 1]
# Colour (N, 3) in [0, 1] of points on a solid: ``local`` (N, 3) are lengths along the
# solid's own axes from its centre, ``unit`` (N, 3) the same in half sizes.
Material = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Solid:
    """One convex part; ``axes`` are its three half axes as columns, in object coordinates."""

    kind: str
    centre: np.ndarray  # (3,)
    axes: np.ndarray  # (3, 3)
    material: Material
    shine: float = 0.0  # strength of the highlight
    taper: float = 0.0  # tubes: radius 1 + taper at the lower end, 1 - taper at the upper one
    cuts: tuple[tuple[tuple[float, float, float], float], ...] = ()  # keeps n.p <= bound
    smooth: int = 0  # solids of one number > 0 share a smoothed surface, as flesh does


def solid(
    kind: str,
    centre: Sequence[float],
    half: Sequence[float],  # half sizes along x, y, z
    material: Material,
    turn: np.ndarray | None = None,  # (3, 3) rotation
    **more,
) -> Solid:
    """A solid of given half sizes, turned about its centre."""
    axes = (np.eye(3) if turn is None else turn) * np.asarray(half, dtype=np.float64)
    return Solid(kind, np.asarray(centre, dtype=np.float64), axes, material, **more)


def rod(start, end, radius: float, material: Material, kind: str = TUBE, **more) -> Solid:
    """A tube (or a square bar: BOX) from one point to another; ``start`` is its lower end."""
    start, end = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
    along = (end - start) / 2
    y = along / np.linalg.norm(along)
    other = np.array([0.0, 0.0, 1.0]) if abs(y[2]) < 0.9 else np.array([1.0, 0.0, 0.0])
    x = np.cross(y, other)
    x /= np.linalg.norm(x)
    axes = np.stack([x * radius, along, np.cross(x, y) * radius], axis=1)
    return Solid(kind, (start + end) / 2, axes, material, **more)


def rotation(axis: str, degrees: float) -> np.ndarray:
    """Rotation matrix (3, 3) about x, y or z."""
    return pose.rotation(axis, np.deg2rad(degrees))


def _interval(part: Solid, origin: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, ...]:
    """Where rays are inside a solid: entry and exit (N,), and the condition that ends it (N,).

    ``origin`` (3, N) and ``step`` (3,) are in object coordinates; the conditions are -1 for the
    curved side, 0 to 2 for the plane faces across an axis, 3 ... for the cuts.
    """
    inverse = np.linalg.inv(part.axes)
    u = (inverse @ origin - (inverse @ part.centre)[:, None]).astype(np.float32)
    d = inverse @ step
    low = np.full(u.shape[1], -FAR)
    high, face = -low, np.full(u.shape[1], -1, np.int8)

    def limit(first: np.ndarray, last: np.ndarray, name: int) -> None:
        np.maximum(low, first, out=low)
        face[last < high] = name
        np.minimum(high, last, out=high)

    if part.kind != BOX:
        limit(*_round(part, u, d), -1)
    for axis in {BALL: (), BOX: (0, 1, 2), TUBE: (1,)}[part.kind]:
        slope = d[axis] if abs(d[axis]) > TINY else TINY
        ends = (-u[axis] - 1) / np.float32(slope), (1 - u[axis]) / np.float32(slope)
        limit(*(ends if slope > 0 else ends[::-1]), axis)
    for k, (normal, bound) in enumerate(part.cuts):
        slope, room = float(np.dot(normal, step)), bound - np.asarray(normal) @ origin
        if abs(slope) < TINY:  # along the plane: all of the ray or none
            limit(-FAR, np.where(room > 0, FAR, -FAR), 3 + k)
        else:
            at = (room / slope).astype(np.float32)
            limit(*((-FAR, at) if slope > 0 else (at, FAR)), 3 + k)
    return low, high, face


def _round(part: Solid, u: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Interval of the ball or of the tube's side, in unit coordinates."""
    if part.kind == BALL:
        a, b = d @ d, d.astype(np.float32) @ u
        c = np.einsum("in,in->n", u, u) - 1
    else:
        k = part.taper
        radius = 1 - np.float32(k) * u[1]
        a = d[0] ** 2 + d[2] ** 2 - (k * d[1]) ** 2
        b = np.float32(d[0]) * u[0] + np.float32(d[2]) * u[2] + np.float32(k * d[1]) * radius
        c = u[0] ** 2 + u[2] ** 2 - radius**2
    a = np.float32(max(a, TINY))
    root = b * b - a * c
    hit = root > 0
    root = np.sqrt(np.where(hit, root, 0))
    return np.where(hit, (-b - root) / a, FAR), np.where(hit, (-b + root) / a, -FAR)


def _normals(part: Solid, points: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Outward unit normals (3, N) at surface points (3, N) that lie on the given conditions."""
    inverse = np.linalg.inv(part.axes)
    u = inverse @ (points - part.centre[:, None])
    gradient = np.zeros_like(u)
    curved = face == -1
    gradient[:, curved] = u[:, curved]
    if part.kind == TUBE:
        gradient[1, curved] = part.taper * (1 - part.taper * u[1, curved])
    for axis in range(3):
        flat = face == axis
        gradient[axis, flat] = np.sign(u[axis, flat])
    normal = inverse.T @ gradient
    for k, (direction, _) in enumerate(part.cuts):
        normal[:, face == 3 + k] = np.asarray(direction)[:, None]
    return normal / np.maximum(np.linalg.norm(normal, axis=0), TINY)


@dataclass(frozen=True)
class Scene:
    """An object and how it is framed, the same from every side."""

    solids: tuple[Solid, ...]
    middle: tuple[float, float, float]  # point at the picture's centre
    height: float  # length that fills the picture's height
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)


def render_view(scene: Scene, azimuth: float, elevation: float, size: int) -> np.ndarray:
    """One square picture, uint8 (size, size, 3), seen from azimuth and elevation in degrees.

    Azimuth 0 looks at the front; a growing one shows the side at positive x.
    """
    side = size * SUPERSAMPLE
    xs = (np.arange(side) + 0.5) * (scene.height / side) - scene.height / 2
    # rows right, up, toward the viewer (3, 3), in object coordinates
    axes = (rotation("y", azimuth) @ rotation("x", -elevation)).T
    depth, part, face = _cast(scene, axes, xs)
    picture = np.empty((side, side, 3), np.float32)
    picture[:] = scene.background
    seen = part >= 0
    rows, columns = np.nonzero(seen)
    flat = np.stack([xs[columns], -xs[rows], depth[seen]])
    points = axes.T @ flat + np.asarray(scene.middle)[:, None]
    picture[seen] = _shade(scene, axes, points, part[seen], face[seen], seen)
    fine = picture.reshape(size, SUPERSAMPLE, size, SUPERSAMPLE, 3).mean(axis=(1, 3))
    return (fine.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _cast(scene: Scene, axes: np.ndarray, xs: np.ndarray) -> tuple[np.ndarray, ...]:
    """What is seen at each pixel (H, W) of the enlarged picture.

    Depth (larger is nearer), number of the solid (-1 beside the object) and of its face.
    """
    shape = (xs.size, xs.size)
    depth, seen, faces = (
        np.full(shape, -FAR),
        np.full(shape, -1, np.int16),
        np.zeros(shape, np.int8),
    )
    for index, part in enumerate(scene.solids):
        at = axes[:2] @ (part.centre - scene.middle)
        reach = np.abs(axes[:2] @ part.axes).sum(axis=1) * (1 + abs(part.taper))
        left, right = np.searchsorted(xs, (at[0] - reach[0], at[0] + reach[0]))
        top, bottom = np.searchsorted(xs, (-at[1] - reach[1], -at[1] + reach[1]))
        if left == right or top == bottom:
            continue
        window = (slice(top, bottom), slice(left, right))
        x, y = np.meshgrid(xs[left:right], -xs[top:bottom])
        origin = np.outer(axes[0], x) + np.outer(axes[1], y) + np.asarray(scene.middle)[:, None]
        low, high, face = (a.reshape(x.shape) for a in _interval(part, origin, axes[2]))
        nearer = (low < high) & (high > depth[window])
        np.copyto(depth[window], high, where=nearer)
        np.copyto(seen[window], np.int16(index), where=nearer)
        np.copyto(faces[window], face, where=nearer)
    return depth, seen, faces


def _shade(scene: Scene, axes, points: np.ndarray, part, face, seen: np.ndarray) -> np.ndarray:
    """Colours (N, 3) of points (3, N) on parts and faces (N,), where the picture is ``seen``."""
    normal, colour = np.empty_like(points), np.empty((len(part), 3))
    shine, group = np.zeros(len(part)), np.zeros(len(part), np.int16)
    for index in np.unique(part):
        mine, this = part == index, scene.solids[index]
        normal[:, mine] = _normals(this, points[:, mine], face[mine])
        unit = np.linalg.solve(this.axes, points[:, mine] - this.centre[:, None]).T
        local = unit * np.linalg.norm(this.axes, axis=0)
        colour[mine] = this.material(local, unit)
        shine[mine], group[mine] = this.shine, this.smooth
    normal = _smoothed(normal, group, seen)
    light = axes.T @ LIGHT
    direct = np.maximum(light @ normal, 0)
    lit = direct > 0
    direct[lit] *= np.where(_shadowed(scene, points[:, lit], light), SHADOW, 1)
    sky = 0.5 + 0.5 * (axes.T @ np.array([0.0, 1.0, 0.35])) @ normal / 1.06
    half = axes.T @ (LIGHT + np.array([0.0, 0.0, 1.0]))
    gloss = np.maximum((half / np.linalg.norm(half)) @ normal, 0) ** 30 * (direct > 0.05)
    amount = AMBIENT * (0.55 + 0.45 * sky) + DIRECT * direct
    return colour * amount[:, None] + (shine * gloss)[:, None]


def _smoothed(normal: np.ndarray, group: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Normals (3, N) averaged over their neighbourhood inside each group > 0 of solids."""
    sigma = seen.shape[0] / 64
    for number in np.unique(group[group > 0]):
        mine = group == number
        field = np.zeros((*seen.shape, 3), np.float32)
        field[seen] = (normal * mine).T
        soft = cv2.GaussianBlur(field, (0, 0), sigma)[seen][mine].T
        normal[:, mine] = soft / np.maximum(np.linalg.norm(soft, axis=0), TINY)
    return normal


def _shadowed(scene: Scene, points: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Whether another part of the object lies between each point (3, N) and the light."""
    dark = np.zeros(points.shape[1], bool)
    least = np.float32(0.012 * scene.height)
    side = np.cross(light, (0.0, 1.0, 0.0))
    side /= np.linalg.norm(side)
    across = np.stack([side, np.cross(light, side)])
    flat = across @ points  # (2, N): only points behind a solid can lie in its shadow
    for part in scene.solids:
        reach = np.abs(across @ part.axes).sum(axis=1) * (1 + abs(part.taper))
        near = (np.abs(flat - (across @ part.centre)[:, None]) < reach[:, None]).all(axis=0)
        near &= ~dark
        low, high, _ = _interval(part, points[:, near], light)
        dark[near] = np.maximum(low, least) < high
    return dark


# --- materials: colours that are fixed to the object, not to the view ---------------------------


def _material(paint: Callable[..., np.ndarray]) -> Callable[..., Material]:
    """``paint(local, unit, *settings)`` as a function of the settings that gives a Material."""
    return lambda *settings: lambda local, unit: paint(local, unit, *settings)


@_material
def plain(local, unit, colour: Colour) -> np.ndarray:
    """One colour."""
    return np.broadcast_to(np.asarray(colour, dtype=np.float64), local.shape)


@_material
def wood(local, unit, colour: np.ndarray, seed: float, grain: float):
    """Grain along the longest axis of the part: rings of a slightly bent trunk."""
    sizes = np.abs(local).sum(axis=0) / np.maximum(np.abs(unit).sum(axis=0), 1e-9)
    long = int(np.argmax(sizes))
    a, b = (local[:, i] for i in range(3) if i != long)
    along = local[:, long]
    r = np.hypot(a + 0.13 + 0.012 * np.sin(9 * along + seed), 0.8 * b + 0.05)
    ring = np.sin(2 * np.pi * 55.0 * r + 1.3 * np.sin(23 * along + 3 * seed))
    fine = np.sin(430 * a + 310 * b + 5 * np.sin(31 * along + seed))
    return colour * (1 + grain * (0.75 * ring + 0.25 * fine))[:, None]


@_material
def stripes(local, unit, colour: Colour, accent: Colour, width: float, axis: int = 0):
    """Stripes across one axis of the part; ``width`` is that of a pair of stripes."""
    on = np.floor(2 * local[:, axis] / width + 0.5) % 2 == 1
    return np.where(on[:, None], accent, colour)


@_material
def checks(local, unit, colour: np.ndarray, accent: np.ndarray, width: float, axes=(0, 2)):
    """A woven check: both directions tint the ground half."""
    on = sum(np.floor(2 * local[:, axis] / width + 0.5) % 2 for axis in axes) / 2
    return colour + (accent - colour) * on[:, None]


@_material
def dots(local, unit, colour: Colour, accent: Colour, width: float):
    """Dots on a square lattice."""
    a, b = local[:, 0] / width, local[:, 2] / width
    on = (a - np.round(a)) ** 2 + (b - np.round(b)) ** 2 < 0.1
    return np.where(on[:, None], accent, colour)


@_material
def hair(local, unit, colour: np.ndarray, seed: float, strands: float):
    """Strands that fall from the crown."""
    around = np.arctan2(unit[:, 0], unit[:, 2] + 1e-9)
    wave = np.sin(strands * around + 2.2 * np.sin(5 * unit[:, 1] + seed))
    fine = np.sin(2.7 * strands * around + 4 * np.sin(7 * unit[:, 1] + 2 * seed))
    return colour * (1 + 0.16 * (0.65 * wave + 0.35 * fine))[:, None]


@_material
def eye(local, unit, iris: Colour):
    """White ball with iris and pupil toward +z; ``unit`` is in radii of the eyeball."""
    off = np.hypot(unit[:, 0], unit[:, 1]) + 10 * (unit[:, 2] < 0)
    colour = np.where((off < 0.52)[:, None], iris, (0.96, 0.95, 0.94))
    return np.where((off < 0.26)[:, None], 0.05, colour)


@_material
def skin(local, unit, colour: np.ndarray, seed: float, freckles: float):
    """Flesh; ``freckles`` from 0 to 1."""
    a, b = local[:, 0] * 90, local[:, 1] * 90
    spot = np.sin(a + seed) * np.sin(1.3 * b + 2 * seed) * np.sin(0.7 * (a - b))
    dark = 1 - 0.22 * freckles * (spot > 0.55) * (unit[:, 2] > 0.3)
    return colour * dark[:, None]
