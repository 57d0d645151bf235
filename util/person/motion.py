"""Poses as limbs: another body's lengths, the way between two poses, and steady sequences.

A figure hangs on its pelvis, the midpoint of the hips; limbs lead from there outward. Keypoints are
(..., 18, 2), (y, x) pixels, -1 = missing; everything here is done in real numbers.
"""

import numpy as np

from util.errors import UserError
from util.person.crop import marked
from util.skeleton import JOINTS, present

PELVIS = len(JOINTS)  # a nineteenth joint: the midpoint of the hips
NECK, FACE = 1, [0, 14, 15, 16, 17]
RIGHT_HIP, LEFT_HIP = JOINTS.index("right hip"), JOINTS.index("left hip")

# Joint -> the joints it may hang on, the proper one first, and the part that this limb is.
CHAIN: tuple[tuple[int, tuple[int, ...], str], ...] = (
    (1, (PELVIS,), "torso"),
    (8, (PELVIS, 1), "hip"), (9, (8, PELVIS, 1), "thigh"), (10, (9, 8, PELVIS, 1), "shin"),
    (11, (PELVIS, 1), "hip"), (12, (11, PELVIS, 1), "thigh"), (13, (12, 11, PELVIS, 1), "shin"),
    (2, (1, PELVIS), "shoulder"), (3, (2, 1, PELVIS), "upper arm"),
    (4, (3, 2, 1, PELVIS), "forearm"),
    (5, (1, PELVIS), "shoulder"), (6, (5, 1, PELVIS), "upper arm"),
    (7, (6, 5, 1, PELVIS), "forearm"),
    (0, (1, PELVIS), "head"), (14, (0, 1, PELVIS), "face"), (16, (14, 0, 1, PELVIS), "face"),
    (15, (0, 1, PELVIS), "face"), (17, (15, 0, 1, PELVIS), "face"),
)  # fmt: skip
# Usual lengths, in torsos. A shoulder is neck to shoulder, a hip pelvis to hip.
USUAL = {
    "torso": 1.0, "shoulder": 0.35, "upper arm": 0.6, "forearm": 0.52,
    "hip": 0.18, "thigh": 0.82, "shin": 0.82, "head": 0.36,
}  # fmt: skip
TELLS_SIZE = ("torso", "upper arm", "forearm", "thigh", "shin", "head")  # widths change with view
# A part seen shorter than the first share of its usual length is taken for foreshortened.
SURELY_SHORT, SURELY_WHOLE = 0.6, 0.8
CROWN = 0.7  # from the middle of the face to the top of the head, in distances to the neck
DIGITS = 6  # of coordinates: a network cuts them to whole pixels, and 45 may not become 44
INSET = 0.03  # of the frame: where a figure is moved to, joints keep this distance from its edges


def retarget(
    poses: np.ndarray,  # (18, 2), or (N, 18, 2) of one person
    body: np.ndarray,  # (18, 2): the person who takes the poses, at the size to be drawn
    frame: tuple[int, int],  # (h, w) of the picture
) -> np.ndarray:
    """The poses with the limb lengths, shoulder and hip widths of ``body``, float64.

    Angles are kept. One factor a part, for all poses and both sides: its length in ``body`` by its
    length in the poses, both estimated where perspective shortens them, so that a limb that points
    at the camera keeps its share. The face grows with the head. Parts unknown on either side take
    the ratio of the whole bodies. The pelvis (else the neck) stays, unless a joint or the top of
    the head would leave the frame: then all poses are scaled alike, as far as needed, and shifted.
    """
    poses = np.asarray(poses, dtype=np.float64)
    points, known = _with_pelvis(poses.reshape(-1, len(JOINTS), 2))
    ours, theirs = _lengths(*_with_pelvis(np.asarray(body, float)[None])), _lengths(points, known)
    if not (ours and theirs):
        return poses.copy()
    ratios = {part: _whole(part, ours) / _whole(part, theirs) for part in ours.keys() & theirs}
    whole = _size(ours) / _size(theirs)
    ratios["face"] = ratios.get("head", whole)
    out, rows = points.copy(), np.arange(len(points))
    for joint, hangs_on, part in CHAIN:
        options = known[:, list(hangs_on)]
        anchor = np.array(hangs_on)[options.argmax(axis=1)]
        factor = np.where(options[:, 0], ratios.get(part, whole), whole)[:, None]
        moved = out[rows, anchor] + factor * (points[:, joint] - points[rows, anchor])
        hangs = known[:, joint] & options.any(axis=1)  # others are roots, which stay
        out[:, joint] = np.where(hangs[:, None], moved, out[:, joint])
    after, before = (np.concatenate([p[known], _crowns(p, known)]) for p in (out, points))
    _keep_in_frame(after, before, frame, out)
    return marked(out[:, :PELVIS].round(DIGITS), known[:, :PELVIS]).reshape(poses.shape)


def _with_pelvis(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 19, 2) with the pelvis last, and which joints are known, (N, 19)."""
    known = present(points)
    middle = points[:, [RIGHT_HIP, LEFT_HIP]].mean(axis=1, keepdims=True)
    hips = known[:, [RIGHT_HIP, LEFT_HIP]].all(axis=1, keepdims=True)
    return np.concatenate([points, middle], axis=1), np.concatenate([known, hips], axis=1)


def _lengths(points: np.ndarray, known: np.ndarray) -> dict[str, float]:
    """The longest sight of every part that is seen at all; of many poses nearly the longest."""
    seen: dict[str, float] = {}
    for joint, (parent, *_), part in CHAIN:
        both = known[:, joint] & known[:, parent]
        if part in USUAL and both.any():
            lengths = np.linalg.norm(points[both, joint] - points[both, parent], axis=-1)
            longest = float(np.quantile(lengths, 0.95, method="higher"))
            seen[part] = max(longest, seen.get(part, 0.0))
    return seen if max(seen.values(), default=0.0) > 0 else {}


def _size(lengths: dict[str, float]) -> float:
    """The length of the torso that fits the body: rather a high one, as views only shorten."""
    parts = [part for part in TELLS_SIZE if part in lengths] or list(lengths)
    high = float(np.quantile([lengths[part] / USUAL[part] for part in parts], 0.6))
    return high or max(length / USUAL[part] for part, length in lengths.items())


def _whole(part: str, lengths: dict[str, float]) -> float:
    """A part's length without perspective: as seen, or the usual one where it is seen too short."""
    usual = USUAL[part] * _size(lengths)
    share = lengths[part] / usual
    trust = np.clip((share - SURELY_SHORT) / (SURELY_WHOLE - SURELY_SHORT), 0.0, 1.0)
    return float(trust * lengths[part] + (1 - trust) * usual)


def _crowns(points: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(K, 2): the top of each head that is seen, which lies beyond every joint."""
    faces = known[:, FACE]
    seen = faces.any(axis=1) & known[:, NECK]
    weights = faces[seen, :, None] / faces[seen].sum(axis=1)[:, None, None]
    middle = (points[seen][:, FACE] * weights).sum(axis=1)
    return middle + CROWN * (middle - points[seen, NECK])


def _keep_in_frame(
    moved: np.ndarray, before: np.ndarray, frame: tuple[int, int], points: np.ndarray
) -> None:
    """Scale and shift ``points`` so that ``moved`` (K, 2), joints and crowns, stays in the frame.

    They may be as far outside as those of the given poses, ``before``, were.
    """
    inset = INSET * np.array(frame)
    low = np.minimum(inset, before.min(axis=0))
    high = np.maximum(np.array(frame) - 1 - inset, before.max(axis=0))
    top, bottom = moved.min(axis=0), moved.max(axis=0)
    scale = min(1.0, *((high - low) / np.maximum(bottom - top, 1e-9)))
    middle = (top + bottom) / 2
    half = scale * (bottom - top) / 2
    points[:] = (points - middle) * scale + np.clip(middle, low + half, high - half)


def between(a: np.ndarray, b: np.ndarray, count: int) -> np.ndarray:
    """``count`` poses from ``a`` to ``b``, both (18, 2) and included: (count, 18, 2) float64.

    The root moves straight; every limb turns the short way and changes its length evenly. Widths
    and faces that turn by more than a right angle pass through zero, as when a person turns round.
    A joint that only one pose has belongs to the half of the way that is nearer to it.
    """
    if count < 2:
        raise UserError(f"found {count} frames; expected at least 2, the two poses themselves")
    ends = np.stack([np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)])
    points, known = _with_pelvis(ends)
    common = known.all(axis=0)
    if not common.any():
        raise UserError("the two poses have no joint in common; expected at least one")
    root = PELVIS if common[PELVIS] else 1 if common[1] else int(np.flatnonzero(common)[0])
    frames = [ends[0]]
    for t in np.linspace(0, 1, count)[1:-1]:
        frames.append(_on_the_way(points, known, root, float(t)))
    return np.stack([*frames, ends[1]])


def _on_the_way(points: np.ndarray, known: np.ndarray, root: int, t: float) -> np.ndarray:
    """The pose (18, 2) at ``t`` in (0, 1) between the two of ``points`` (2, 19, 2)."""
    out = np.full((PELVIS + 1, 2), np.nan)
    out[root] = (1 - t) * points[0, root] + t * points[1, root]
    near = int(t >= 0.5)
    for joint, hangs_on, part in CHAIN:
        if joint == root:
            continue
        for anchor in hangs_on:
            if np.isnan(out[anchor, 0]):
                continue
            limbs = points[:, joint] - points[:, anchor]
            shared = known[:, joint] & known[:, anchor]
            if shared.all():
                out[joint] = out[anchor] + _turned(limbs, t, part in ("hip", "shoulder", "face"))
            elif shared[near] and not known[1 - near, joint]:
                out[joint] = out[anchor] + limbs[near]
            else:
                continue
            break
        else:  # nothing to hang on: straight, as the root
            if known[:, joint].all():
                out[joint] = (1 - t) * points[0, joint] + t * points[1, joint]
    return marked(out[:PELVIS].round(DIGITS), ~np.isnan(out[:PELVIS, 0]))


def _turned(limbs: np.ndarray, t: float, is_width: bool) -> np.ndarray:
    """The limb (2,) at ``t`` between two, (2, 2) as (y, x)."""
    lengths = np.linalg.norm(limbs, axis=1)
    angles = np.arctan2(limbs[:, 0], limbs[:, 1])
    turn = (angles[1] - angles[0] + np.pi) % (2 * np.pi) - np.pi
    if lengths.min() == 0 or (is_width and abs(turn) > np.pi / 2):
        return (1 - t) * limbs[0] + t * limbs[1]
    length, angle = (1 - t) * lengths[0] + t * lengths[1], angles[0] + t * turn
    return length * np.array([np.sin(angle), np.cos(angle)])


HOLD = 0.25  # seconds for which a lost joint stays where it was on the body
CUTOFF = 1.5  # Hz: slower trembling is taken for movement
BETA = 5.0  # Hz more for a joint that moves by one figure a second: quick movements stay quick
SPEED_CUTOFF = 1.0  # Hz, of the filter of the speed


def hold_lost(poses: np.ndarray, fps: float) -> np.ndarray:
    """The poses (N, 18, 2) with lost joints held for :data:`HOLD` seconds, then missing.

    A held joint keeps its place beside the joint it hangs on, so that it moves with the body.
    """
    poses = np.asarray(poses, dtype=np.float64)
    out, known = poses.copy(), present(poses)
    last = np.full(len(JOINTS), -np.inf)  # the frame in which each joint was seen last
    for frame in range(len(poses)):
        last[known[frame]] = frame
        for joint, hangs_on, _ in CHAIN:
            if known[frame, joint] or not frame - last[joint] <= HOLD * fps:
                continue
            before, now = out[frame - 1], out[frame]
            moved = next(
                (now[a] - before[a] for a in hangs_on
                 if a != PELVIS and present(now[a]) and present(before[a])),
                np.zeros(2),
            )  # fmt: skip
            out[frame, joint] = before[joint] + moved
    return out


def smooth(poses: np.ndarray, fps: float, cutoff: float = CUTOFF) -> np.ndarray:
    """The poses (N, 18, 2) without trembling: One Euro filter (Casiez et al., CHI 2012).

    Run forwards and backwards and averaged, so that nothing lags behind. ``cutoff`` in Hz: lower is
    smoother. A joint that was missing starts anew. Missing joints stay missing.
    """
    poses = np.asarray(poses, dtype=np.float64)
    known = present(poses)
    if not known.any():
        return poses.copy()
    extents = [np.ptp(p[k], axis=0).max() for p, k in zip(poses, known, strict=True) if k.any()]
    size = max(float(np.median(extents)), 1.0)
    forwards = _one_euro(poses, known, fps, cutoff, size)
    backwards = _one_euro(poses[::-1], known[::-1], fps, cutoff, size)[::-1]
    return marked(((forwards + backwards) / 2).round(DIGITS), known)


def _one_euro(
    poses: np.ndarray, known: np.ndarray, fps: float, cutoff: float, size: float
) -> np.ndarray:
    """The filter in one direction; ``size`` is the figure's, in pixels."""

    def share(hertz: np.ndarray | float) -> np.ndarray | float:
        return 1 / (1 + fps / (2 * np.pi * hertz))

    out, speed = poses.copy(), np.zeros_like(poses[0])
    for i in range(1, len(poses)):
        goes_on = (known[i] & known[i - 1])[:, None]
        step = (poses[i] - poses[i - 1]) * fps
        speed = np.where(goes_on, speed + share(SPEED_CUTOFF) * (step - speed), 0.0)
        rate = cutoff + BETA * np.linalg.norm(speed, axis=1, keepdims=True) / size
        out[i] = np.where(goes_on, out[i - 1] + share(rate) * (poses[i] - out[i - 1]), poses[i])
    return out
