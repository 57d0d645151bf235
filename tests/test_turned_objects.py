"""Synthetic chairs and heads: rays, shading, layouts, equal bytes."""

import sys

import h5py
import numpy as np
import pytest
from PIL import Image

from data.synthetic.chairs import bounds, sample_chair
from data.synthetic.heads import sample_head
from data.synthetic.solids import (
    BALL,
    BOX,
    TUBE,
    Scene,
    plain,
    render_view,
    rod,
    rotation,
    solid,
    stripes,
)
from data.synthetic.write import write_dataset
from data.view_dataset import ViewDataset
from script import make_synthetic_dataset
from util.errors import UserError
from util.tables.views import CAMERAS

RED, GREEN, BLUE = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


def seen(solids, azimuth=0.0, elevation=0.0, size=33, height=4.0):
    return render_view(Scene(tuple(solids), (0.0, 0.0, 0.0), height), azimuth, elevation, size)


def strongest(pixel):
    return int(np.argmax(pixel))


def test_the_nearer_solid_hides_the_other_from_both_sides():
    ball = solid(BALL, (0, 0, 1), (0.4, 0.4, 0.4), plain(RED))
    box = solid(BOX, (0, 0, -0.5), (0.8, 0.8, 0.1), plain(GREEN))
    front, back = seen([ball, box]), seen([box, ball], 180)
    assert strongest(front[16, 16]) == 0
    assert strongest(front[11, 16]) == 1  # beside the ball the box is seen
    assert strongest(back[16, 16]) == 1


@pytest.mark.parametrize("azimuth", [0, 40, 90, 200])
def test_a_ball_is_a_disc_of_its_radius_from_every_side(azimuth):
    picture = seen([solid(BALL, (0, 0, 0), (1, 1, 1), plain(BLUE))], azimuth, 20, 64)
    covered = (picture != 255).any(axis=2).sum() / 64**2
    assert covered == pytest.approx(np.pi / 16, rel=0.05)


def test_a_box_shows_its_width_from_the_front_and_its_depth_from_the_side():
    box = [solid(BOX, (0, 0, 0), (1.0, 0.5, 0.25), plain(BLUE))]
    for azimuth, width in ((0, 2.0), (90, 0.5), (45, 2.5 / np.sqrt(2))):
        columns = (seen(box, azimuth, 0, 128) != 255).any(axis=(0, 2)).sum()
        assert columns * 4 / 128 == pytest.approx(width, abs=0.07)


def test_a_growing_azimuth_shows_the_side_at_positive_x():
    box = solid(BOX, (0, 0, 0), (1, 1, 1), plain(BLUE))
    knob = solid(BALL, (1.2, 0, 0), (0.3, 0.3, 0.3), plain(RED))
    at_front, turned = seen([box, knob]), seen([box, knob], 90)
    assert strongest(at_front[16, 16]) == 2
    assert strongest(turned[16, 16]) == 0


def test_from_above_the_top_is_seen_below_the_back_edge():
    top = solid(BOX, (0, 0.45, 0), (0.5, 0.05, 0.5), plain(RED))
    body = solid(BOX, (0, 0, 0), (0.5, 0.4, 0.5), plain(BLUE))
    level, above = seen([top, body], 0, 0), seen([top, body], 0, 20)
    reds = [int((p[:, 16, 0] > p[:, 16, 2]).sum()) for p in (level, above)]
    assert reds[1] > reds[0] + 1


def test_a_tapered_rod_is_wider_at_its_lower_end():
    post = [rod((0, -1, 0), (0, 1, 0), 0.5, plain(BLUE), taper=0.4)]
    picture = seen(post, size=128)
    widths = [(picture[row] != 255).any(axis=1).sum() * 4 / 128 for row in (40, 88)]
    # at 0.75 above and below the middle: 0.5 * (1 -+ 0.4 * 0.75) on each side
    assert widths == pytest.approx([0.7, 1.3], abs=0.07)


def test_a_cut_takes_away_what_lies_beyond_it():
    whole = {"kind": BALL, "centre": (0, 0, 0), "half": (1, 1, 1), "material": plain(BLUE)}
    lower = seen([solid(**whole, cuts=(((0.0, 1.0, 0.0), 0.0),))], size=64)
    covered = (lower != 255).any(axis=2)
    assert not covered[:31].any()
    assert covered[33:48].any()
    kept = covered.sum() / (seen([solid(**whole)], size=64) != 255).any(axis=2).sum()
    assert kept == pytest.approx(0.5, abs=0.03)


def test_a_solid_between_light_and_surface_throws_a_shadow():
    wall = solid(BOX, (0, 0, -1), (1.5, 1.5, 0.1), plain((0.8, 0.8, 0.8)))
    blind = solid(BOX, (-0.8, 1.1, 0.2), (0.3, 0.3, 0.05), plain(RED))
    free, shaded = seen([wall]), seen([wall, blind])
    darker = (free.astype(int) - shaded.astype(int)).min(axis=2) > 40
    assert darker.sum() > 5


def test_stripes_are_fixed_to_the_object():
    cloth = stripes(RED, BLUE, 0.5)
    board = [solid(BOX, (0, 0, 0), (1, 1, 0.05), cloth)]
    for azimuth in (0, 40, 320):
        row = seen(board, azimuth, size=128)[64]
        shrunk = np.cos(np.deg2rad(azimuth))
        places = [round(63.5 + 32 * x * shrunk) for x in (-0.5, -0.25, 0.0, 0.25, 0.5)]
        assert [strongest(row[place]) for place in places] == [0, 2, 0, 2, 0]


def test_rotations_are_right_handed():
    assert rotation("z", 90) @ [1, 0, 0] == pytest.approx([0, 1, 0], abs=1e-12)
    assert rotation("x", 90) @ [0, 1, 0] == pytest.approx([0, 0, 1], abs=1e-12)
    assert rotation("y", 90) @ [0, 0, 1] == pytest.approx([1, 0, 0], abs=1e-12)


def test_tubes_have_flat_ends():
    post = solid(TUBE, (0, 0, 0), (0.5, 1, 0.5), plain(BLUE))
    covered = (seen([post], size=64) != 255).any(axis=2)
    assert covered.sum() / 64**2 * 16 == pytest.approx(2.0, rel=0.04)  # 1 wide, 2 high


@pytest.mark.parametrize("seed", range(12))
def test_no_chair_leaves_its_picture(seed):
    scene = sample_chair(np.random.default_rng(seed))
    low, high = bounds(scene.solids)
    assert low[1] > -0.05
    assert 0.6 < high[1] < 1.3  # metres
    for azimuth in (0, 60, 140, 300):
        picture = render_view(scene, azimuth, 20, 48)
        edges = [picture[0], picture[-1], picture[:, 0], picture[:, -1]]
        assert all((edge == 255).all() for edge in edges)
        assert (picture != 255).any(axis=2).mean() > 0.05


def test_heads_differ_and_turn():
    scenes = [sample_head(np.random.default_rng(seed)) for seed in range(3)]
    fronts = [render_view(scene, 0, 0, 32).astype(int) for scene in scenes]
    assert np.abs(fronts[0] - fronts[1]).mean() > 5
    assert np.abs(render_view(scenes[0], 90, 0, 32).astype(int) - fronts[0]).mean() > 5


def files(root):
    return {
        str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()
    }


@pytest.mark.parametrize(
    "settings",
    [
        {"layout": "chairs", "identities": 2, "test_identities": 1, "seed": 3, "size": 16},
        {"layout": "chairs", "identities": 1, "test_identities": 1, "size": 16, "hdf5": True},
        {"layout": "faces", "identities": 2, "test_identities": 1, "seed": 3, "size": 16},
    ],
)
def test_equal_settings_give_equal_bytes_with_any_number_of_workers(settings, tmp_path):
    write_dataset(tmp_path / "one", **settings)
    write_dataset(tmp_path / "two", workers=2, **settings)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert write_dataset(tmp_path / "one", **settings)["unchanged"]


def test_chairs_have_the_layout_of_the_shapenet_files(tmp_path):
    write_dataset(tmp_path, "chairs", identities=2, test_identities=1, size=16, hdf5=True)
    with h5py.File(tmp_path / "data_chair.hdf5") as file:
        assert len(file) == 3 * 54
        group = file["chair00003_34_20"]
        assert group["pose"][...].tolist() == [34, 20]
        assert (group["image"].dtype, group["image"].shape) == (np.uint8, (16, 16, 3))
    assert len((tmp_path / "id_chair_train.txt").read_text().splitlines()) == 108
    assert (tmp_path / "name_chair_test.txt").read_text() == "chair00003\n"
    assert len(ViewDataset(tmp_path, "test", (16, 16), training=False)) == 18


def test_the_file_holds_the_pixels_of_the_folder(tmp_path):
    for name, hdf5 in (("folder", False), ("file", True)):
        sizes = {"identities": 1, "test_identities": 1, "size": 16}
        write_dataset(tmp_path / name, "chairs", hdf5=hdf5, **sizes)
    with h5py.File(tmp_path / "file" / "data_chair.hdf5") as file:
        for path in (tmp_path / "folder" / "train").iterdir():
            assert np.array_equal(file[path.stem]["image"][...], np.asarray(Image.open(path)))


def test_faces_have_multipie_names(tmp_path):
    write_dataset(tmp_path, "faces", identities=1, test_identities=1, size=16)
    names = sorted(p.name for p in (tmp_path / "train").iterdir())
    assert names == sorted(f"001_01_01_{camera}_07.png" for camera in CAMERAS)


@pytest.mark.parametrize(("words", "sentence"), [
    (["--layout", "faces", "--hdf5"], "--hdf5 is for --layout chairs"),
    (["--layout", "chairs", "--poses", "3"], "--poses means nothing for --layout chairs"),
    (["--layout", "faces", "--contact_sheet"], "--contact_sheet means nothing for --layout faces"),
    (["--layout", "chairs", "--identities", "9999"], "--identities is 9999; expected"),
    (["--size", "64"], "--size means nothing for --layout fashion"),
    (["--layout", "chairs", "--size", "4"], "--size"),
])  # fmt: skip
def test_impossible_settings_are_one_sentence(words, sentence, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["make", "--out", str(tmp_path / "out"), *words])
    with pytest.raises(UserError, match=sentence):
        make_synthetic_dataset.main()
    assert not (tmp_path / "out").exists()
