"""One picture of a synthetic person: camera, background, shadows and keypoints put together."""

import colorsys
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from data.synthetic.body import Builder
from data.synthetic.clothes import Wardrobe
from data.synthetic.identity import Body, Identity
from data.synthetic.pose import MOVEMENTS, Pose, Skeleton, solve
from data.synthetic.render import Camera, locate, occlusion, project_joints, rasterise, shade

FULL_HEIGHT = 1.84  # metres that fill the picture when the whole person is shown
MARGINS = (0.06, 0.04, 0.08)  # of the height above and below a movement, of the width beside it


def _gradient(size: tuple[int, int], top, bottom, side: float) -> np.ndarray:
    """A smooth (H, W, 3) wall, ``side`` brighter towards one edge."""
    h, w = size
    y = np.linspace(0.0, 1.0, h, dtype=np.float32)[:, None, None]
    x = np.linspace(-1.0, 1.0, w, dtype=np.float32)[None, :, None]
    wall = np.asarray(top, np.float32) * (1 - y) + np.asarray(bottom, np.float32) * y
    return np.clip(wall + side * x, 0.0, 1.0)


def _wall_colour(rng: np.random.Generator, saturation, value) -> np.ndarray:
    return np.array(
        colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    )


def light(rng: np.random.Generator, size: tuple[int, int], horizon: float) -> np.ndarray:
    """A near-white studio with a faint gradient."""
    tone = rng.uniform(0.91, 0.96) + rng.uniform(-0.006, 0.006, 3)
    return _gradient(size, tone, tone - rng.uniform(0.01, 0.05), rng.uniform(-0.015, 0.015))


def studio(rng: np.random.Generator, size: tuple[int, int], horizon: float) -> np.ndarray:
    """A softly coloured paper roll with a vignette."""
    tone = _wall_colour(rng, (0.0, 0.18), (0.7, 0.9))
    wall = _gradient(size, tone * 0.96, tone, rng.uniform(-0.04, 0.04))
    h, w = size
    y, x = np.linspace(-1, 1, h, dtype=np.float32), np.linspace(-1, 1, w, dtype=np.float32)
    return wall * (1.0 - 0.1 * (y[:, None] ** 2 + x[None] ** 2))[..., None]


def street(rng: np.random.Generator, size: tuple[int, int], horizon: float) -> np.ndarray:
    """Blurred house fronts above a pavement."""
    h, w = size
    picture = _gradient(size, (0.72, 0.78, 0.84), (0.66, 0.68, 0.7), 0.0)
    line = int(np.clip(horizon, 0.3, 0.98) * h)
    left = -int(rng.integers(0, w // 3))
    while left < w:
        width = int(w * rng.uniform(0.25, 0.6))
        hue, value = rng.uniform(0.02, 0.14), rng.uniform(0.5, 0.8)
        front = np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.05, 0.3), value), np.float32)
        columns = slice(max(left, 0), max(left + width, 0))
        picture[int(h * rng.uniform(0.0, 0.2)) : line, columns] = front
        pane, step = max(width // 7, 2), max(width // 4, 4)
        for top in range(int(h * 0.22), line - h // 6, step * 2):
            for x in range(max(left, 0) + pane // 2, min(left + width - pane, w), step):
                picture[top : top + int(pane * 1.7), x : x + pane] = front * rng.uniform(0.45, 0.7)
        left += width
    picture[line:] = rng.uniform(0.5, 0.68)
    return cv2.GaussianBlur(picture, (0, 0), max(h / 110.0, 0.5))


def room(rng: np.random.Generator, size: tuple[int, int], horizon: float) -> np.ndarray:
    """A wall with a skirting board, a picture frame and a floor."""
    h, w = size
    tone = _wall_colour(rng, (0.03, 0.16), (0.76, 0.92))
    picture = _gradient(size, tone, tone * 0.95, rng.uniform(-0.03, 0.03))
    line = int(np.clip(horizon - 0.06, 0.3, 0.98) * h)
    floor = np.array(colorsys.hsv_to_rgb(rng.uniform(0.05, 0.1), 0.35, rng.uniform(0.45, 0.7)))
    picture[line:] = floor
    picture[line - max(h // 50, 1) : line] = tone * 1.05
    x, y = int(w * rng.uniform(-0.1, 0.8)), int(h * rng.uniform(0.05, 0.25))
    height, width = int(h * rng.uniform(0.12, 0.25)), int(w * rng.uniform(0.15, 0.35))
    edge = max(h // 100, 1)
    picture[y : y + height, max(x, 0) : x + width] = tone * 0.5
    inside = np.array(colorsys.hsv_to_rgb(rng.random(), 0.3, 0.7))
    picture[y + edge : y + height - edge, max(x + edge, 0) : max(x + width - edge, 0)] = inside
    return cv2.GaussianBlur(np.clip(picture, 0.0, 1.0), (0, 0), max(h / 160.0, 0.4))


def varied(rng: np.random.Generator, size: tuple[int, int], horizon: float) -> np.ndarray:
    """One of the other backgrounds, a new draw for each picture."""
    return (light, studio, street, room)[rng.integers(4)](rng, size, horizon)


BACKGROUNDS: dict[str, Callable[[np.random.Generator, tuple[int, int], float], np.ndarray]] = {
    scene.__name__: scene for scene in (light, studio, street, room, varied)
}


def render(
    identity: Identity,
    pose: Pose,
    size: tuple[int, int] = (256, 176),
    background: str = "light",  # a key of BACKGROUNDS
    rng: np.random.Generator | None = None,  # draws the background; default: always the same
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a person in a pose: picture, keypoints and coverage.

    The picture is uint8 (H, W, 3) RGB; the keypoints are int (18, 2) as (y, x) in OpenPose order
    with -1 for joints that are hidden or outside the picture; the coverage is how much of each
    pixel the person takes, float32 (H, W) in [0, 1].
    """
    rng = rng or np.random.default_rng(0)
    if identity.bottom.kind != "trousers":  # a skirt shortens the stride
        reach = np.array([0.55, 0.7, 1.0, 0.7])  # of flexion, abduction, turn-out, knee bend
        pose = replace(pose, legs=tuple(np.array(pose.legs) * reach))
    skeleton = solve(identity.body, pose)
    parts = sorted(Builder(identity, skeleton).build(), key=lambda part: part.paint)
    camera = _camera(skeleton, pose, size, identity.body.height)
    supersample = 2 if size[0] >= 200 else 3
    surface = rasterise(parts, camera, supersample)
    where, colours = shade(surface, parts, Wardrobe(identity))
    person = np.zeros((surface.depth.size, 4), np.float32)
    person[where, :3] = colours
    person[where, 3] = 1.0
    person = person.reshape(*surface.depth.shape, 4)
    person = cv2.resize(person, size[::-1], interpolation=cv2.INTER_AREA)
    middle = supersample // 2
    depth = np.ascontiguousarray(surface.depth[middle::supersample, middle::supersample])
    dark = 1.0 - occlusion(depth, camera.scale)
    scene = BACKGROUNDS[background](rng, size, camera.origin[0] / size[0])
    scene = scene * _ground_shadow(skeleton, camera)[..., None]
    coverage = person[..., 3:]
    picture = np.clip(person[..., :3], 0.0, 1.0) * dark[..., None] + scene * (1.0 - coverage)
    picture = (np.clip(picture, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    keypoints = locate(skeleton, parts, surface, camera, identity.body.height)
    return picture, keypoints, coverage[..., 0]


def pose_keypoints(body: Body, pose: Pose, size: tuple[int, int] = (256, 176)) -> np.ndarray:
    """Where :func:`render` puts the 18 joints, float64 (18, 2) as (y, x), hidden or not.

    Only the parts of an averted face are -1.
    """
    skeleton = solve(body, pose)
    return project_joints(skeleton, _camera(skeleton, pose, size, body.height), body.height)


def movement_keypoints(
    body: Body,
    movement: str,  # a key of MOVEMENTS
    count: int,
    size: tuple[int, int],  # (h, w) pixels
) -> np.ndarray:
    """``count`` poses of one round of a movement, float64 (count, 18, 2), (y, x).

    The last pose leads on to the first. The whole movement fits into the picture, feet near its
    lower edge. Joints behind the body are given, the parts of an averted face are -1.
    """
    skeletons = [solve(body, MOVEMENTS[movement](i / count)) for i in range(count)]
    points = np.stack([list(skeleton.points.values()) for skeleton in skeletons])
    low, high = points.min(axis=(0, 1)), points.max(axis=(0, 1))
    above, below, beside = MARGINS
    tall, wide = high[1] + 0.04 * body.height, high[0] - low[0]
    scale = min((1 - above - below) * size[0] / tall, (1 - 2 * beside) * size[1] / wide)
    middle = size[1] / 2 - scale * (low[0] + high[0]) / 2
    camera = Camera(size, scale, ((1 - below) * size[0], middle))
    return np.stack([project_joints(skeleton, camera, body.height) for skeleton in skeletons])


def _camera(skeleton: Skeleton, pose: Pose, size: tuple[int, int], height: float) -> Camera:
    """Frame the person: feet near the lower edge, smaller when raised arms would be cut."""
    h, w = size
    points = np.stack(list(skeleton.points.values()))
    top = max(points[:, 1].max() + 0.04 * height, 0.97 * height)
    low, high = points[:, 0].min() - 0.05 * height, points[:, 0].max() + 0.05 * height
    scale = pose.zoom * h / FULL_HEIGHT
    middle = 0.5 * skeleton.points["pelvis"][0] + 0.25 * (low + high)
    centre_x = (0.5 + pose.shift[0]) * w
    if pose.close:  # from the knees up: the feet fall out of the picture
        scale *= 1.3
        return Camera(size, scale, (0.045 * h + scale * top, centre_x - scale * middle))
    fit = min(0.94 * h / (scale * top), 0.97 * w / (scale * (high - low)), 1.0)
    scale *= max(fit, 0.84)
    ground = (0.965 + pose.shift[1]) * h
    return Camera(size, scale, (ground, centre_x - scale * middle))


def _ground_shadow(skeleton: Skeleton, camera: Camera) -> np.ndarray:
    """Brightness factor (H, W) of the soft shadow under the feet."""
    h, w = camera.size
    x = np.arange(w, dtype=np.float32)[None]
    factor = np.ones((h, w), np.float32)
    for side in "RL":
        ankle, toe = skeleton.points[side + "Ank"], skeleton.points[side + "Toe"]
        centre = camera.project(0.5 * (ankle + toe) * (1.0, 0.0, 1.0))
        radius, height = camera.scale * (0.07 + 0.5 * abs(toe[0] - ankle[0])), 0.022 * camera.scale
        # beyond 5 heights the factor rounds to 1
        low, high = (int(np.clip(centre[0] + k * height, 0, h)) for k in (-5.0, 5.0))
        y = np.arange(low, high, dtype=np.float32)[:, None]
        distance = ((x - centre[1]) / radius) ** 2 + ((y - centre[0]) / height) ** 2
        factor[low:high] *= 1.0 - 0.22 * np.exp(-0.8 * distance)
    return factor
