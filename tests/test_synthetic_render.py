"""The renderer of synthetic people: shapes, views, occlusion, textures that move with the limbs."""

from dataclasses import replace

import numpy as np
import pytest

from data.synthetic.body import Part
from data.synthetic.identity import PATTERNS, Identity, Texture, sample_identity
from data.synthetic.picture import BACKGROUNDS, pose_keypoints, render
from data.synthetic.pose import ARMS, LEGS, Pose, rotation, sample_pose
from data.synthetic.render import NOTHING, Camera, rasterise

NOSE, NECK, R_SHOULDER, R_WRIST, L_SHOULDER, L_ELBOW, L_WRIST = 0, 1, 2, 4, 5, 6, 7
R_HIP, R_ANKLE, L_HIP, L_ANKLE, R_EYE, L_EYE, R_EAR, L_EAR = 8, 10, 11, 13, 14, 15, 16, 17
TURN = {"front": 0.0, "full": 0.0, "side": np.pi / 2, "back": np.pi}


def person(seed: int = 0) -> Identity:
    return sample_identity(np.random.default_rng(seed))


def posed(view: str = "full", arms: str | tuple[str, str] = "apart", legs: str = "stand") -> Pose:
    """A pose without any random part; ``arms`` names the right and the left arm."""
    right, left = (arms, arms) if isinstance(arms, str) else arms
    pose = sample_pose(np.random.default_rng(0), view)
    return replace(
        pose, yaw=TURN[view], lean=0.0, twist=0.0, head_yaw=0.0, head_pitch=0.0, close=False,
        arms=(ARMS[right], ARMS[left]), legs=LEGS[legs], zoom=1.0, shift=(0.0, 0.0),
    )  # fmt: skip


def missing(keypoints: np.ndarray, joint: int) -> bool:
    return bool((keypoints[joint] == -1).all())


def dressed(identity: Identity, kind: str, sleeve: float = 1.0) -> Identity:
    """The person in trousers and a closed red-and-green shirt of the given pattern."""
    texture = Texture(kind, (0.9, 0.1, 0.1), (0.1, 0.8, 0.1), 0.1)
    top = replace(identity.top, texture=texture, sleeve=sleeve, open_front=None, collar=False)
    bottom = replace(identity.bottom, kind="trousers", length=1.0, belt=None)
    bottom = replace(bottom, texture=Texture("plain", (0.1, 0.1, 0.9), (0.1, 0.1, 0.9)))
    return replace(identity, top=top, bottom=bottom)


@pytest.mark.parametrize("size", [(256, 176), (128, 64), (64, 32)])
def test_a_picture_has_the_requested_size_and_keypoints_inside_it(size):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        picture, keypoints, _ = render(sample_identity(rng), sample_pose(rng), size)
        assert picture.shape == (*size, 3)
        assert picture.dtype == np.uint8
        assert keypoints.shape == (18, 2)
        assert np.issubdtype(keypoints.dtype, np.integer)
        given = keypoints[(keypoints != -1).all(axis=1)]
        assert len(given) >= 8
        assert ((given >= 0) & (given < size)).all()
        assert ((keypoints == -1).all(axis=1) | (keypoints >= 0).all(axis=1)).all()


def test_the_same_generators_give_the_same_picture_and_others_another_one():
    def once(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return render(sample_identity(rng), sample_pose(rng), (128, 64), "varied", rng)[0]

    assert np.array_equal(once(3), once(3))
    assert not np.array_equal(once(3), once(4))


def test_keypoints_lie_on_the_person():
    on = total = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        _, keypoints, coverage = render(sample_identity(rng), sample_pose(rng))
        for y, x in keypoints[(keypoints != -1).all(axis=1)]:
            on += coverage[y, x] > 0.5
            total += 1
    assert total > 150
    assert on == total


def test_the_persons_right_is_on_the_left_of_a_front_view_and_on_the_right_of_a_back_view():
    front = render(person(), posed("front"))[1]
    back = render(person(), posed("back"))[1]
    for right, left in ((R_SHOULDER, L_SHOULDER), (R_WRIST, L_WRIST), (R_HIP, L_HIP)):
        assert front[right, 1] < front[left, 1] - 10
        assert back[right, 1] > back[left, 1] + 10


def test_joints_of_a_standing_person_are_in_anatomical_order():
    y = render(person(1), posed("full"))[1][:, 0]
    assert y[R_EYE] < y[NOSE] < y[NECK] < y[R_HIP] < y[9] < y[R_ANKLE]
    assert y[2] < y[3] < y[R_WRIST]


def test_face_joints_depend_on_the_view():
    front, side, back = (render(person(), posed(v))[1] for v in ("front", "side", "back"))
    assert not any(missing(front, j) for j in (NOSE, R_EYE, L_EYE, R_EAR, L_EAR))
    assert all(missing(back, j) for j in (NOSE, R_EYE, L_EYE))
    # turned with the front towards the right edge, the person's right side faces the viewer
    assert not missing(side, NOSE)
    assert missing(side, L_EAR)
    assert not missing(side, R_EAR)
    assert side[NOSE, 1] > side[R_EAR, 1]


def test_a_joint_behind_the_body_is_missing_and_one_in_front_is_not():
    behind = posed("front", "behind")
    folded = posed("front", ("folded", "relaxed"))
    assert missing(render(person(), behind)[1], R_WRIST)
    assert not missing(render(person(), folded)[1], R_WRIST)
    assert not missing(render(person(), replace(behind, yaw=np.pi))[1], R_WRIST)


def test_the_far_leg_is_hidden_in_a_side_view():
    keypoints = render(person(), posed("side"))[1]
    assert missing(keypoints, L_ANKLE) != missing(keypoints, R_ANKLE)


@pytest.mark.parametrize("view", ["front", "side", "back"])
def test_projected_joints_are_those_of_the_picture_and_the_hidden_ones(view):
    identity = replace(person(), bottom=replace(person().bottom, kind="trousers"))
    pose = posed(view)
    seen = render(identity, pose)[1]
    every = pose_keypoints(identity.body, pose)
    shown = (seen != -1).all(axis=1)
    assert np.array_equal(np.floor(every[shown]), seen[shown])
    assert (every[2:14] != -1).all()  # shoulders to ankles, also of the far side
    assert missing(every, NOSE) == (view == "back")


def test_joints_outside_the_picture_are_missing():
    near = replace(posed("front"), close=True)
    keypoints = render(person(), near)[1]
    assert missing(keypoints, R_ANKLE)
    assert missing(keypoints, L_ANKLE)
    assert not missing(keypoints, NECK)
    assert not missing(keypoints, R_HIP)
    aside = replace(posed("front", "wide"), shift=(0.45, 0.0))
    assert missing(render(person(), aside)[1], L_WRIST)


def test_an_arm_across_the_chest_hides_the_shirt():
    who = dressed(person(), "plain", sleeve=0.0)
    who = replace(who, top=replace(who.top, neckline=0.0))
    open_view, points, _ = render(who, posed("front", "apart"))
    crossed = render(who, posed("front", "folded"))[0]
    top, bottom = points[NECK, 0] + 8, points[R_HIP, 0] - 8
    left, right = points[R_SHOULDER, 1] + 8, points[L_SHOULDER, 1] - 8

    def red(picture: np.ndarray) -> np.ndarray:
        window = picture[top:bottom, left:right].astype(int)
        return (window[..., 0] > 90) & (window[..., 1] < 0.35 * window[..., 0])

    assert red(open_view).mean() > 0.9
    assert red(crossed).sum() < red(open_view).sum() - 100


def test_the_views_of_one_person_differ():
    who = dressed(person(2), "logo")
    pictures = {view: render(who, posed(view))[0].astype(int) for view in ("front", "side", "back")}

    def green(picture: np.ndarray) -> int:
        return int(((picture[..., 1] > 60) & (picture[..., 0] < 0.6 * picture[..., 1])).sum())

    assert green(pictures["front"]) > 100  # the print on the chest
    assert green(pictures["back"]) == 0
    assert green(pictures["side"]) < green(pictures["front"]) / 2
    for a, b in (("front", "side"), ("front", "back"), ("side", "back")):
        assert np.abs(pictures[a] - pictures[b]).mean() > 2


def sleeve_profile(identity: Identity, arm: str) -> np.ndarray:
    """Share of accent colour along the left upper arm, from the shoulder to the elbow."""
    picture, keypoints, _ = render(identity, posed("full", ("relaxed", arm)), (512, 352))
    start, end = keypoints[L_SHOULDER].astype(float), keypoints[L_ELBOW].astype(float)
    steps = start + np.linspace(0.25, 0.9, 60)[:, None] * (end - start)
    pixels = picture[steps[:, 0].round().astype(int), steps[:, 1].round().astype(int)].astype(int)
    return (pixels[:, 1] > pixels[:, 0]).astype(float)


def test_stripes_move_with_the_arm():
    who = dressed(person(), "stripes")
    low, high = sleeve_profile(who, "apart"), sleeve_profile(who, "wide")
    assert 0.2 < low.mean() < 0.8
    assert (low == high).mean() > 0.9


def test_every_pattern_and_background_is_drawn_differently():
    pose = posed("full")
    clothes = [render(dressed(person(), kind), pose)[0] for kind in PATTERNS]
    scenes = [
        render(person(), pose, background=name)[0] for name in BACKGROUNDS if name != "varied"
    ]
    for pictures in (clothes, scenes):
        for i, first in enumerate(pictures):
            for second in pictures[:i]:
                assert not np.array_equal(first, second)


def test_the_default_background_is_nearly_white():
    picture, _, coverage = render(person(), posed("full"))
    scene = picture[:100][coverage[:100] == 0]
    assert scene.min() > 215
    assert np.ptp(scene.astype(int), axis=1).max() < 12


def test_people_differ_from_each_other():
    people = [person(seed) for seed in range(60)]
    assert len(set(people)) == 60
    assert {who.bottom.kind for who in people} == {"trousers", "skirt", "dress"}
    assert {who.top.texture.kind for who in people} == set(PATTERNS)


def ball(centre, radius: float, squash=(1.0, 1.0, 1.0), frame=None, end=None) -> Part:
    centre = np.array(centre, float)
    end = centre if end is None else np.array(end, float)
    radii = (radius, radius) if np.isscalar(radius) else radius
    frame = np.eye(3) if frame is None else frame
    return Part(centre, end, radii, frame, "arm", "arm", centre, squash=squash)


CAMERA = Camera((64, 64), 32.0, (32.0, 32.0))


def test_the_depth_of_an_ellipsoid_equals_its_formula():
    frame = rotation("y", 0.7) @ rotation("x", 0.4)
    squash = np.array([0.9, 0.5, 0.7])
    surface = rasterise([ball((0.1, -0.05, 0.2), 0.8, tuple(squash), frame)], CAMERA, 1)
    y, x = np.meshgrid(surface.ys, surface.xs, indexing="ij")
    direction = frame.T @ (0, 0, 1) / squash  # the ray in the space where the part is a ball
    offset = np.stack([x - 0.1, y + 0.05, np.full_like(x, -0.2)], -1) @ frame / squash
    b, c = offset @ direction, (offset**2).sum(-1) - 0.8**2
    a = direction @ direction
    hit = b**2 - a * c > 1e-3
    assert hit.sum() > 300
    expected = (-b + np.sqrt(np.maximum(b**2 - a * c, 0.0))) / a
    assert (surface.part[hit] == 0).all()
    np.testing.assert_allclose(surface.depth[hit], expected[hit], atol=1e-4)


def test_the_depth_of_a_tapered_part_equals_the_nearest_of_many_balls():
    start, end, radii = np.array([-0.4, -0.3, -0.2]), np.array([0.5, 0.2, 0.4]), (0.35, 0.15)
    surface = rasterise([ball(start, radii, end=end)], CAMERA, 1)
    y, x = np.meshgrid(surface.ys, surface.xs, indexing="ij")
    nearest = np.full(x.shape, -np.inf)
    for t in np.linspace(0, 1, 2001):
        centre, radius = start + t * (end - start), radii[0] + t * (radii[1] - radii[0])
        chord = radius**2 - (x - centre[0]) ** 2 - (y - centre[1]) ** 2
        z = np.where(chord > 0, centre[2] + np.sqrt(np.maximum(chord, 0)), -np.inf)
        nearest = np.maximum(nearest, z)
    seen = surface.part != NOTHING
    assert seen.sum() > 300
    assert (seen == np.isfinite(nearest)).mean() > 0.999
    both = seen & np.isfinite(nearest)
    np.testing.assert_allclose(surface.depth[both], nearest[both], atol=2e-3)


def test_the_nearer_part_wins_whatever_the_order():
    near, far = ball((0, 0, 0.5), 0.3), ball((0, 0, -0.5), 0.6)
    assert rasterise([near, far], CAMERA, 1).part[32, 32] == 0
    assert rasterise([far, near], CAMERA, 1).part[32, 32] == 1


def test_a_clipped_part_shows_its_cut():
    whole = ball((0, 0, 0), 0.5)
    normal = np.array([0.0, 0.0, 1.0])
    surface = rasterise([replace(whole, clips=((normal, 0.1),))], CAMERA, 1)
    assert surface.depth[32, 32] == pytest.approx(0.1, abs=1e-5)
    gone = rasterise([replace(whole, clips=((np.array([0.0, 1.0, 0.0]), -0.6),))], CAMERA, 1)
    assert (gone.part == NOTHING).all()
