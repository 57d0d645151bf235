"""Poses as limbs: retargeting, interpolation, holding and smoothing, against plain geometry."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.photo_helpers import joint, standing
from util.errors import UserError
from util.person.motion import between, hold_lost, retarget, smooth
from util.skeleton import present

FRAME = (256, 176)
NECK, NOSE = joint("neck"), joint("nose")
SIDES = ("right", "left")
# The limbs of a figure as (from, to) joint names, "pelvis" being the midpoint of the hips.
LIMBS = [
    ("pelvis", "neck"), ("neck", "nose"),
    *[("neck", f"{side} shoulder") for side in SIDES],
    *[("pelvis", f"{side} hip") for side in SIDES],
    *[(f"{side} {a}", f"{side} {b}") for side in SIDES
      for a, b in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))],
]  # fmt: skip
KIND = {"neck": 1.0, "hip": 0.18, "knee": 0.82, "ankle": 0.82, "shoulder": 0.35, "elbow": 0.6,
        "wrist": 0.52, "nose": 0.36}  # fmt: skip


def place(points: np.ndarray, name: str) -> np.ndarray:
    if name == "pelvis":
        return (points[joint("right hip")] + points[joint("left hip")]) / 2
    return points[joint(name)]


def limbs(points: np.ndarray) -> np.ndarray:
    """Every limb as (y, x), in the order of LIMBS."""
    return np.array([place(points, b) - place(points, a) for a, b in LIMBS])


def lengths(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(limbs(points), axis=1)


def build(proportions: dict[str, float], torso: float, angles: np.ndarray) -> np.ndarray:
    """A figure of given lengths whose limbs point along ``angles``, hips opposite each other."""
    points = {"pelvis": np.array([128.0, 88.0])}
    for (a, b), angle in zip(LIMBS, angles, strict=True):
        turned = angles[LIMBS.index(("pelvis", "right hip"))] + np.pi
        angle = turned if b == "left hip" else angle
        kind = b.split()[-1]
        length = torso * KIND[kind] * proportions[kind]
        points[b] = points[a] + length * np.array([np.sin(angle), np.cos(angle)])
    out = np.empty((18, 2))
    for name in points.keys() - {"pelvis"}:
        out[joint(name)] = points[name]
    for i, name in enumerate(("right eye", "left eye", "right ear", "left ear")):
        out[joint(name)] = points["nose"] + torso * np.array([-0.04, 0.05 * (i - 1.5)])
    return out


bodies = st.fixed_dictionaries({kind: st.floats(0.9, 1.1) for kind in KIND})
some_angles = st.lists(st.floats(-np.pi, np.pi), min_size=len(LIMBS), max_size=len(LIMBS))
HUGE = (4000, 4000)  # a frame that no figure leaves


@settings(max_examples=300, deadline=None)
@given(bodies, bodies, some_angles, some_angles, st.floats(15, 90), st.floats(15, 90))
def test_a_pose_takes_the_lengths_of_the_body_and_keeps_its_angles(a, b, own, wanted, s, t):
    body, pose = build(a, s, own) + 1500, build(b, t, wanted) + 1500
    moved = retarget(pose, body, HUGE)
    np.testing.assert_allclose(lengths(moved), lengths(body), atol=1e-4)
    before, after = limbs(pose), limbs(moved)
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    turned = np.arctan2(cross, (before * after).sum(axis=1))
    assert np.abs(turned).max() < 1e-6
    np.testing.assert_allclose(place(moved, "pelvis"), place(pose, "pelvis"), atol=1e-5)


@settings(max_examples=200, deadline=None)
@given(bodies, some_angles, some_angles, st.floats(15, 90))
def test_equal_bodies_change_nothing(a, own, wanted, size):
    body, pose = build(a, size, own), build(a, size, wanted)
    np.testing.assert_allclose(retarget(pose, body, FRAME), pose, atol=2e-6)
    whole = np.floor(pose) + 300  # whole pixels stay whole: a network cuts them off
    assert np.array_equal(retarget(whole, whole, FRAME), whole)


@settings(max_examples=200, deadline=None)
@given(bodies, some_angles, st.floats(20, 200), st.sets(st.integers(0, 17), max_size=17))
def test_nothing_leaves_the_frame_and_missing_joints_stay_missing(a, angles, size, lost):
    pose = standing(20, 30, 210, 110)
    pose[list(lost)] = -1
    moved = retarget(pose, build(a, size, angles), FRAME)
    assert np.array_equal(present(moved), present(pose))
    assert (moved[present(moved)] >= 0).all()
    assert (moved[present(moved)] <= np.array(FRAME) - 1).all()


def test_the_top_of_the_head_stays_in_the_picture_with_its_joints():
    pose, body = standing(60, 50, 150, 80), standing(-10, 0, 320, 170)  # from the knees up
    moved = retarget(pose, body, FRAME)
    assert moved[NOSE][0] - 0.6 * (moved[NECK][0] - moved[NOSE][0]) > 0
    assert moved[:, 0].max() <= FRAME[0] - 1


def test_an_arm_that_points_at_the_camera_stays_short():
    adult, child = standing(10, 20, 230, 130), standing(100, 60, 115, 65)
    adult[joint("right elbow")] = adult[joint("right shoulder")] + (12, 0)  # of about 34 pixels
    adult[joint("right wrist")] = adult[joint("right elbow")] + (6, 0)
    moved = retarget(adult, child, FRAME)
    upper = moved[joint("right elbow")] - moved[joint("right shoulder")]
    np.testing.assert_allclose(upper, (6, 0), atol=0.6)
    for side in SIDES:  # both arms: the usual length tells that they are short
        adult[joint(f"{side} elbow")] = adult[joint(f"{side} shoulder")] + (12, 0)
        adult[joint(f"{side} wrist")] = adult[joint(f"{side} elbow")] + (6, 0)
    moved = retarget(adult, child, FRAME)
    upper = moved[joint("right elbow")] - moved[joint("right shoulder")]
    assert 4 < upper[0] < 8
    assert upper[1] == pytest.approx(0, abs=1e-6)


def test_limbs_without_a_neighbour_take_the_ratio_of_the_whole_bodies():
    pose, body = standing(10, 20, 200, 120), standing(50, 40, 100, 60)
    pose[joint("left knee")] = -1
    body[[joint("right knee"), joint("right ankle")]] = -1
    body[[joint("left knee"), joint("left ankle")]] = -1
    moved = retarget(pose, body, FRAME)
    np.testing.assert_allclose(
        moved[joint("left ankle")] - moved[joint("left hip")],
        (pose[joint("left ankle")] - pose[joint("left hip")]) / 2,
        rtol=0.08,
    )


def test_a_sequence_moves_as_one():
    walk = np.stack([standing(10, 10 + i, 220, 120) for i in range(20)])
    tall = standing(0, 0, 400, 220)
    moved = retarget(walk, tall, FRAME)
    steps = np.diff(moved[:, NECK], axis=0)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=1e-5)


def test_poses_without_limbs_are_left_alone():
    lonely = np.full((18, 2), -1.0)
    lonely[4] = 10, 10
    body = standing(0, 0, 200, 100)
    assert np.array_equal(retarget(lonely, body, FRAME), lonely)
    assert np.array_equal(retarget(body, lonely, FRAME), body)
    assert np.array_equal(retarget(body, np.full((18, 2), 5.0), FRAME), body)


def test_between_two_poses_limbs_turn_and_keep_their_length():
    a = standing(20, 30, 200, 120)
    b = a.copy()
    shoulder, elbow, wrist = (joint(f"right {j}") for j in ("shoulder", "elbow", "wrist"))
    arm = a[[elbow, wrist]] - a[shoulder]
    b[[elbow, wrist]] = a[shoulder] + arm[:, ::-1] * (-1, 1)  # turned by a right angle or so
    way = between(a, b, 9)
    assert np.array_equal(way[0], a)
    assert np.array_equal(way[-1], b)
    upper = np.linalg.norm(way[:, elbow] - way[:, shoulder], axis=1)
    np.testing.assert_allclose(upper, upper[0], rtol=1e-6)
    angles = np.unwrap(np.arctan2(*(way[:, elbow] - way[:, shoulder]).T))
    np.testing.assert_allclose(np.diff(angles), np.diff(angles)[0], atol=1e-4)
    others = [i for i in range(18) if i not in (elbow, wrist)]
    np.testing.assert_allclose(way[:, others], np.broadcast_to(a[others], (9, 16, 2)), atol=1e-5)


def test_who_turns_round_passes_through_a_narrow_figure():
    front = standing(20, 30, 200, 120)
    back = front.copy()
    back[:, 1] = 2 * front[NECK, 1] - front[:, 1]
    middle = between(front, back, 5)[2]
    widths = [
        np.ptp(p[[joint("right shoulder"), joint("left shoulder")], 1]) for p in (front, middle)
    ]
    assert widths[1] < 0.1 * widths[0]


def test_a_joint_of_one_pose_belongs_to_the_nearer_half():
    a, b = standing(20, 30, 200, 120), standing(25, 30, 200, 120)
    a[joint("left wrist")] = -1
    way = between(a, b, 11)
    assert present(way)[:, joint("left wrist")].tolist() == [False] * 5 + [True] * 6
    assert present(way)[:, joint("left elbow")].all()


@pytest.mark.parametrize(("count", "message"), [(1, "at least 2"), (5, "no joint in common")])
def test_what_cannot_be_interpolated_is_a_sentence(count, message):
    a, b = standing(0, 0, 200, 100), standing(0, 0, 200, 100)
    a[:9], b[9:] = -1, -1
    with pytest.raises(UserError, match=message):
        between(a, b, count)


def test_lost_joints_are_held_on_the_body_and_then_hidden():
    walk = np.stack([standing(10, 10 + 2 * i, 220, 120) for i in range(20)])
    lost = walk.copy()
    lost[5:15, joint("right wrist")] = -1
    held = hold_lost(lost, fps=12)  # a quarter of a second: 3 frames
    wrist = joint("right wrist")
    np.testing.assert_allclose(held[5:8, wrist], walk[5:8, wrist])
    assert not present(held[8:15, wrist]).any()
    assert np.array_equal(held[15:], walk[15:])


def test_smoothing_removes_trembling_and_keeps_movement_in_time():
    fps, rng = 25, np.random.default_rng(0)
    seconds = np.arange(100) / fps
    swing = 30 * np.sin(2 * np.pi * 0.5 * seconds)
    clean = np.stack([standing(10, 20, 220, 120) + np.array([0, x]) for x in swing])
    noisy = clean + rng.normal(0, 2, clean.shape)
    done = smooth(noisy, fps)

    def trembling(poses):
        return np.abs(np.diff(poses, 2, axis=0)).mean()

    assert trembling(done) < 0.35 * trembling(noisy)
    assert np.abs(done - clean)[10:-10].mean() < np.abs(noisy - clean).mean()
    shifts = [np.abs(np.roll(done, k, axis=0)[20:-20, NECK] - clean[20:-20, NECK]).mean()
              for k in (-3, -2, -1, 0, 1, 2, 3)]  # fmt: skip
    assert np.argmin(shifts) == 3  # nothing lags


def test_smoothing_leaves_gaps_and_still_poses_alone():
    still = np.stack([standing(10, 20, 220, 120)] * 10)
    still[4:6, NOSE] = -1
    assert np.array_equal(smooth(still, 25), still)
    nobody = np.full((4, 18, 2), -1.0)
    assert np.array_equal(smooth(nobody, 25), nobody)
