"""Annotations between PATN, GFLA, MAGPT and NTED: nothing lost without being said."""

import numpy as np
import pytest

from data.prepare.convert import TEXT_FORMATS, Annotations
from script import convert_annotations
from tests import tiny_dataset
from util.errors import UserError
from util.tables.patn import read_keypoints, read_pairs, write_keypoints, write_pairs
from util.tables.uncropped import (
    read_items,
    read_magpt_keypoints,
    read_pose,
    to_name,
    to_path,
    write_items,
    write_pose,
)

NAMES = tiny_dataset.names("train")
PAIRS = tiny_dataset.pairs("train")
PATHS = [f"img/{path}" for path in tiny_dataset.paths("train")]


@pytest.fixture
def keypoints() -> dict[str, np.ndarray]:
    """Whole coordinates, joints outside on every side, missing joints."""
    table = {name: tiny_dataset.keypoints(seed) for seed, name in enumerate(NAMES)}
    for points in table.values():
        points[5], points[6], points[7] = (-3, 20), (300, -17), (40, 190)
    table[NAMES[0]][:] = -1
    return table


def read(name: str, root, mode: str = "fashion") -> Annotations:
    return TEXT_FORMATS[name].read(root, "train", mode)


def write(name: str, root, data: Annotations, mode: str = "fashion") -> None:
    TEXT_FORMATS[name].write(root, "train", data, mode)


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("first", TEXT_FORMATS)
@pytest.mark.parametrize("second", TEXT_FORMATS)
def test_every_two_formats_convert_there_and_back_without_loss(tmp_path, keypoints, first, second):
    write(first, tmp_path / "a", Annotations(PAIRS, keypoints, list(NAMES)))
    start = read(first, tmp_path / "a")
    write(second, tmp_path / "b", start)
    middle = read(second, tmp_path / "b")
    write(first, tmp_path / "c", middle)
    end = read(first, tmp_path / "c")
    assert start.pairs == middle.pairs == end.pairs == PAIRS
    assert same(start.keypoints, keypoints)
    assert same(middle.keypoints, keypoints)
    assert same(end.keypoints, keypoints)
    assert sorted(end.images) == sorted(NAMES)
    assert start.notes == middle.notes == end.notes == []


@pytest.mark.parametrize("name", TEXT_FORMATS)
def test_market_tables_keep_their_frame(tmp_path, name):
    table = {"0002_c1_1.jpg": np.tile([127.0, 63.0], (18, 1))}
    data = Annotations([("0002_c1_1.jpg", "0002_c2_1.jpg")], table, ["0002_c1_1.jpg"])
    write(name, tmp_path, data, "market")
    result = read(name, tmp_path, "market")
    assert same(result.keypoints, table)
    assert result.pairs == data.pairs


def test_magpt_rows_are_the_published_ones(tmp_path, keypoints):
    points = np.full((18, 2), -1.0)
    points[0], points[17] = (10, 20), (255, -17)
    write("magpt", tmp_path, Annotations(PAIRS, {NAMES[1]: points}, [NAMES[1]]))
    header, row = (tmp_path / "train_img_keypoints.csv").read_text().splitlines()
    assert header.startswith("file_id,img_h,img_w,p0_x,p0_y,p1_x,")
    assert len(header.split(",")) == 39
    assert row.startswith("imgWOMENBlouses_Shirtsid_0000000101_7_additional,256,256,60,10,-1,-1,")
    assert row.endswith(",23,255")
    pairs = (tmp_path / "train_img_pairs.csv").read_text().splitlines()
    assert pairs[0] == "imgA,imgB"
    assert pairs[1] == f"{PATHS[0]},{PATHS[1]}"


def test_nted_files_are_the_published_ones(tmp_path, keypoints):
    points = np.full((18, 2), -1.0)
    points[0] = (10, 20.5)
    write("nted", tmp_path, Annotations(PAIRS, {NAMES[1]: points}, [NAMES[1]]))
    lines = (tmp_path / "train_pairs.txt").read_text().splitlines()
    assert lines[0] == f"{PATHS[1]},{PATHS[0]}"  # the target first
    assert (tmp_path / "train.lst").read_text() == f"{NAMES[1]}\n"
    pose = (tmp_path / "pose" / PATHS[1]).with_suffix(".txt").read_text().splitlines()
    assert pose[:2] == ["60.5 10", "-1 -1"]
    assert len(pose) == 18


def test_a_joint_that_would_read_as_missing_is_counted(tmp_path):
    points = np.full((18, 2), 50.0)
    points[3] = (12, 39)  # 39 - 40 = -1 in the cropped frame
    write_pose(tmp_path / "pose" / f"{PATHS[0][:-4]}.txt", points)
    write_pose(tmp_path / "pose" / f"{PATHS[1][:-4]}.txt", points)
    write_items(tmp_path / "train_pairs.txt", [(PATHS[0], PATHS[1])])
    result = read("nted", tmp_path)
    assert (result.keypoints[NAMES[0]][3] == -1).all()
    assert result.keypoints[NAMES[0]][4].tolist() == [50, 10]
    assert result.notes == ["2 joints lie at x = 39, which is written -1: they became missing."]


def test_fractions_are_rounded_for_magpt_and_counted(tmp_path):
    points = np.full((18, 2), 10.0)
    points[0] = (10.6, 20.4)
    data = Annotations([], {NAMES[0]: points}, [])
    write("magpt", tmp_path, data)
    assert read("magpt", tmp_path).keypoints[NAMES[0]][0].tolist() == [11, 20]
    assert data.notes == ["1 joints were rounded to whole pixels, as MAGPT needs."]


def test_half_missing_joints_become_wholly_missing(tmp_path):
    points = np.full((18, 2), 10.0)
    points[0], points[1] = (-1, 20), (20, -1)
    for name in ("magpt", "nted"):
        write(name, tmp_path, Annotations(PAIRS, {NAMES[0]: points}, list(NAMES)))
        found = read(name, tmp_path).keypoints[NAMES[0]]
        assert (found[:2] == -1).all()
        assert (found[2:] == 10).all()


def test_several_sources_of_one_target_become_pairs_of_their_own(tmp_path):
    (tmp_path / "train_pairs.txt").write_text(",".join(PATHS[:3]) + "\n")
    result = read("nted", tmp_path)
    assert result.pairs == [(NAMES[1], NAMES[0]), (NAMES[2], NAMES[0])]
    assert "1 items had several possible sources" in result.notes[0]
    assert "3 images have no file below" in result.notes[1]


def test_a_magpt_id_of_deepfashion_needs_no_list_and_another_one_is_reported(tmp_path, keypoints):
    write("magpt", tmp_path, Annotations([], {NAMES[2]: keypoints[NAMES[2]]}, []))
    path = tmp_path / "train_img_keypoints.csv"
    row = path.read_text().splitlines()[1]
    path.write_text(path.read_text() + "imgme," + row.split(",", 1)[1] + "\n")
    result = read("magpt", tmp_path)
    assert list(result.keypoints) == [NAMES[2]]
    assert result.notes[1:] == ["no path is known for the file id 'imgme': its row is lost."]


def test_own_names_live_directly_below_img():
    assert to_path("me 1.jpg") == "img/me 1.jpg"
    assert to_name("img/me 1.jpg") == to_name("me 1.jpg") == "me 1.jpg"
    with pytest.raises(UserError, match="has no flat name"):
        to_name("img/a/b.jpg")


def test_names_that_share_a_file_id_cannot_become_magpt(tmp_path):
    table = {name: np.full((18, 2), 5.0) for name in ("a.jpg", "a.png")}
    with pytest.raises(UserError, match=r"'a\.png' and 'a\.jpg' share the file id 'imga'"):
        write("magpt", tmp_path, Annotations([], table, []))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("a.jpg\n", "row 1: holds one path"),
        ("a.jpg,\n", "row 1: the name '' is empty"),
        ("\na.jpg,../b.jpg\n", "row 2: the name '../b.jpg' climbs out"),
    ],
)
def test_malformed_nted_lists_are_refused(tmp_path, content, message):
    (tmp_path / "train_pairs.txt").write_text(content)
    with pytest.raises(UserError) as error:
        read_items(tmp_path / "train_pairs.txt")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 2\n" * 17, "has 17 rows; expected 18"),
        ("1 2\n" * 4 + "1\n" + "1 2\n" * 13, "row 5: is '1'"),
        ("1 2\n" * 4 + "1 b\n" + "1 2\n" * 13, "row 5: is '1 b'"),
        ("1 2\n" * 4 + "1 nan\n" + "1 2\n" * 13, "row 5: a coordinate is nan"),
    ],
)
def test_malformed_pose_files_are_refused(tmp_path, content, message):
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(UserError) as error:
        read_pose(tmp_path / "a.txt")
    assert message in str(error.value)


def test_a_comma_in_a_path_cannot_become_nted(tmp_path):
    with pytest.raises(UserError, match="holds ','"):
        write_items(tmp_path / "x.txt", [("a,b.jpg", "c.jpg")])


def test_the_command_converts_both_phases_and_never_overwrites(tmp_path, capsys):
    root = tiny_dataset.write(tmp_path / "patn")
    arguments = ["--from", "patn", "--to", "magpt", "--input", str(root)]
    arguments += ["--output", str(tmp_path / "magpt")]
    assert convert_annotations.main(arguments) == 0
    assert "train: 4 pairs, 4 keypoint rows" in capsys.readouterr().out
    assert len(read_magpt_keypoints(tmp_path / "magpt" / "test_img_keypoints.csv")) == 2
    with pytest.raises(UserError, match="exists already"):
        convert_annotations.main(arguments)
    back = ["--from", "magpt", "--to", "patn", "--input", str(tmp_path / "magpt")]
    assert convert_annotations.main([*back, "--output", str(tmp_path / "back")]) == 0
    for phase in ("train", "test"):
        for table in ("pairs", "annotation"):
            name = f"fasion-resize-{table}-{phase}.csv"
            assert (tmp_path / "back" / name).read_bytes() == (root / name).read_bytes()


def test_correctly_spelled_file_names_are_read_too(tmp_path, keypoints):
    write_pairs(tmp_path / "fashion-resize-pairs-train.csv", PAIRS)
    write_keypoints(tmp_path / "fashion-resize-annotation-train.csv", keypoints)
    assert read("patn", tmp_path).pairs == PAIRS
    write("gfla", tmp_path / "out", read("patn", tmp_path))
    assert read_pairs(tmp_path / "out" / "fasion-pairs-train.csv") == PAIRS
    assert same(read_keypoints(tmp_path / "out" / "fasion-annotation-train.csv"), keypoints)


@pytest.mark.parametrize("name", TEXT_FORMATS)
def test_a_folder_without_the_format_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"holds neither|does not exist"):
        read(name, tmp_path)


def test_a_missing_half_is_reported(tmp_path, keypoints):
    write_keypoints(tmp_path / "fasion-annotation-train.csv", keypoints)
    assert "fashion-pairs-train.csv does not exist" in read("gfla", tmp_path).notes[0]
