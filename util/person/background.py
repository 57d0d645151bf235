"""The scene behind a person: where the person is, the hole behind, and another person put in.

A mask is float32 (H, W), 1 on the person. Keypoints are (18, 2), (y, x) pixels of the picture that
they come with, -1 = missing.
"""

from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt

from util.person.crop import Box
from util.skeleton import JOINTS, LIMBS, present

Masker = Callable[[Image.Image, np.ndarray], np.ndarray]  # picture, keypoints -> mask

WORKING_SIDE = 320  # pixels of the longer side on which GrabCut runs
HOLE_SIDE = 160  # and the filling of the hole: what is behind is only guessed, so it stays soft
ROUNDS = 4  # of GrabCut
# Widths, in torsos, of what is surely and what is probably the person.
SURE_LIMB, LIKELY_LIMB, LIKELY_HEAD, REACH = 0.06, 0.3, 0.38, 0.55
EDGE = 0.004  # of a picture's height: how soft an edge is
SMALL_HOLE = 0.01  # of the person: a smaller one in a mask is an error of the mask


def _joints(*kinds: str) -> list[int]:
    return [i for i, name in enumerate(JOINTS) if name.split()[-1] in kinds]


TRUNK, HEAD = _joints("shoulder", "hip"), _joints("nose", "eye", "ear")
ENDS = _joints("wrist", "ankle")


def grabcut_mask(picture: Image.Image, keypoints: np.ndarray) -> np.ndarray:
    """The person of a picture by OpenCV's GrabCut (Rother et al., 2004), seeded with the skeleton.

    Without any joint the mask is empty.
    """
    points, seen = np.asarray(keypoints, dtype=np.float64), present(np.asarray(keypoints))
    if not seen.any():
        return np.zeros((picture.height, picture.width), np.float32)
    scale = min(1.0, WORKING_SIDE / max(picture.size))
    size = max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)
    small = np.asarray(picture.resize(size, Image.Resampling.BOX))[..., ::-1]
    ratio = np.array([size[1] / picture.height, size[0] / picture.width])
    labels = _seeds((points + 0.5) * ratio - 0.5, seen, size[::-1])
    if {cv2.GC_FGD, cv2.GC_BGD} <= set(np.unique(labels).tolist()):
        models = np.zeros((2, 1, 65))
        cv2.setRNGSeed(0)
        small = np.ascontiguousarray(small)
        cv2.grabCut(small, labels, None, *models, ROUNDS, cv2.GC_INIT_WITH_MASK)
    inside = _one_piece(np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)), labels == cv2.GC_FGD)
    mask = cv2.resize(inside.astype(np.float32), picture.size, interpolation=cv2.INTER_LINEAR)
    return _soft(mask, 1 / scale)


def _seeds(points: np.ndarray, seen: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What GrabCut starts from: labels uint8 (h, w)."""
    torso = _torso(points, seen)
    sure, likely = np.zeros(size, np.uint8), np.zeros(size, np.uint8)

    def pixel(point: np.ndarray) -> tuple[int, int]:
        return tuple(int(v) for v in np.rint(point[::-1].clip(-9999, 9999)))

    def width(share: float) -> int:
        return max(1, round(share * torso))

    for a, b in LIMBS:
        if seen[a] and seen[b]:
            cv2.line(sure, pixel(points[a]), pixel(points[b]), 1, width(SURE_LIMB))
            cv2.line(likely, pixel(points[a]), pixel(points[b]), 1, width(LIKELY_LIMB))
    if seen[TRUNK].all():
        corners = np.array([pixel(points[i]) for i in TRUNK])
        cv2.fillConvexPoly(likely, cv2.convexHull(corners), 1)
        middle = corners.mean(axis=0)
        inner = np.rint(middle + 0.6 * (corners - middle)).astype(np.int32)
        cv2.fillConvexPoly(sure, cv2.convexHull(inner), 1)
    for joint in (i for i in ENDS if seen[i]):
        cv2.circle(likely, pixel(points[joint]), width(LIKELY_LIMB / 2), 1, -1)
    face = [i for i in HEAD if seen[i]]
    if face:
        centre = points[face].mean(axis=0)
        cv2.circle(likely, pixel(centre), width(LIKELY_HEAD), 1, -1)
        cv2.circle(sure, pixel(centre), width(SURE_LIMB), 1, -1)
    labels = np.full(size, cv2.GC_BGD, np.uint8)
    far = cv2.distanceTransform(1 - likely, cv2.DIST_L2, 5)
    labels[far < REACH * torso] = cv2.GC_PR_BGD
    labels[likely > 0] = cv2.GC_PR_FGD
    labels[sure > 0] = cv2.GC_FGD
    return labels


def _torso(points: np.ndarray, seen: np.ndarray) -> float:
    """The length of the torso in pixels, or what it usually is for a figure of this extent."""
    if seen[1] and seen[[8, 11]].any():
        hips = points[[i for i in (8, 11) if seen[i]]].mean(axis=0)
        return max(float(np.linalg.norm(hips - points[1])), 2.0)
    return max(0.35 * float(np.ptp(points[seen], axis=0).max()), 2.0)


def _one_piece(inside: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """Only what hangs together with the surely known part, small holes closed."""
    _, parts = cv2.connectedComponents(inside.astype(np.uint8))
    kept = np.isin(parts, np.setdiff1d(parts[sure & inside], 0))
    _, holes, stats, _ = cv2.connectedComponentsWithStats((~kept).astype(np.uint8))
    small = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] < SMALL_HOLE * kept.sum())
    return kept | np.isin(holes, small[small > 0])


def _soft(mask: np.ndarray, pixels: float) -> np.ndarray:
    """A mask whose edge falls over about ``pixels``."""
    return cv2.GaussianBlur(mask, (0, 0), max(0.7 * pixels, 0.5)).clip(0, 1)


def without_person(photo: Image.Image, mask: np.ndarray) -> Image.Image:
    """The photo with the person of the mask painted over by what surrounds it.

    OpenCV's inpainting (Telea, 2004) on a small picture; outside a narrow seam nothing changes.
    """
    reach = max(3, round(0.02 * photo.height)) | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    hole = cv2.dilate((mask > 0.1).astype(np.uint8), kernel)
    if not hole.any():
        return photo.copy()
    scale = min(1.0, HOLE_SIDE / max(photo.size))
    size = max(round(photo.width * scale), 1), max(round(photo.height * scale), 1)
    small = np.asarray(photo.resize(size, Image.Resampling.BOX))
    covered = cv2.resize(hole.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    guess = cv2.inpaint(small, (covered > 0).astype(np.uint8), 4, cv2.INPAINT_TELEA)
    guess = cv2.resize(guess, photo.size, interpolation=cv2.INTER_CUBIC).astype(np.float32)
    seam = _soft(cv2.dilate(hole, kernel).astype(np.float32), reach / 3)[..., None]
    pixels = np.asarray(photo, dtype=np.float32)
    return Image.fromarray(np.rint(pixels + seam * (guess - pixels)).clip(0, 255).astype(np.uint8))


def replace_person(
    photo: Image.Image,
    person_mask: np.ndarray,  # of the person in the photo
    result: Image.Image,  # another picture of the person, of any size, that fills the box
    result_mask: np.ndarray,  # of the person in it
    box: Box,  # in the photo
) -> Image.Image:
    """The photo with its person taken out and the person of ``result`` put into the box."""
    scene = without_person(photo, person_mask)
    size = (box.width, box.height)
    picture = np.asarray(result.resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
    mask = cv2.resize(result_mask, size, interpolation=cv2.INTER_LINEAR)
    thin = max(1, round(EDGE * box.height))
    width = 2 * thin + 1
    core = cv2.erode((mask > 0.5).astype(np.uint8), np.ones((width, width), np.uint8))
    if core.any():  # the person's own colours along the edge, which are mixed with the scene
        y, x = distance_transform_edt(core == 0, return_distances=False, return_indices=True)
        picture = picture[y, x]
    mask = _soft(cv2.erode(mask, np.ones((thin, thin), np.uint8)), thin)
    top, left = max(box.top, 0), max(box.left, 0)
    bottom, right = min(box.top + box.height, photo.height), min(box.left + box.width, photo.width)
    inside = slice(top - box.top, bottom - box.top), slice(left - box.left, right - box.left)
    out = np.array(scene, dtype=np.float32)
    under = out[top:bottom, left:right]
    under += mask[inside][..., None] * (picture[inside] - under)
    return Image.fromarray(np.rint(out).clip(0, 255).astype(np.uint8))
