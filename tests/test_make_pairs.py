"""Pairs lists for own data: people kept apart, thinned and repeated exactly."""

import numpy as np
import pytest

from data.prepare.identities import group_by_identity, identity_rule
from script import make_pairs
from tests import tiny_dataset
from util.errors import UserError
from util.tables.layouts import LAYOUTS
from util.tables.patn import read_keypoints, read_pairs, write_keypoints


@pytest.fixture
def table(tmp_path):
    """Four people with three images each."""
    names = [f"person{p}_{i}.jpg" for p in "abcd" for i in range(3)]
    points = {name: np.full((18, 2), 50.0) for name in names}
    write_keypoints(tmp_path / "all.csv", points)
    return tmp_path / "all.csv"


def make(table, out, *more: str) -> dict[str, list[tuple[str, str]]]:
    make_pairs.main(["--keypoints", str(table), "--output", str(out), *more])
    found = {phase: out / f"fasion-resize-pairs-{phase}.csv" for phase in ("train", "test")}
    return {phase: read_pairs(path) for phase, path in found.items() if path.exists()}


def person(name: str) -> str:
    return name.split("_")[0]


def test_all_ordered_pairs_of_one_person_are_made(table, tmp_path):
    pairs = make(table, tmp_path / "out")["train"]
    assert len(pairs) == len(set(pairs)) == 4 * 3 * 2
    assert all(person(a) == person(b) and a != b for a, b in pairs)


def test_a_split_keeps_people_apart_and_tables_belong_to_the_pairs(table, tmp_path):
    pairs = make(table, tmp_path / "out", "--test_share", "0.25")
    people = {phase: {person(a) for a, _ in p} for phase, p in pairs.items()}
    assert len(people["train"]) == 3
    assert len(people["test"]) == 1
    assert not people["train"] & people["test"]
    for phase, list_ in pairs.items():
        keypoints = read_keypoints(tmp_path / "out" / f"fasion-resize-annotation-{phase}.csv")
        assert {name for pair in list_ for name in pair} == set(keypoints)


def test_limits_hold_and_the_seed_decides(table, tmp_path):
    limits = ("--max_pairs", "5")
    first = make(table, tmp_path / "1", *limits, "--seed", "3")["train"]
    again = make(table, tmp_path / "2", *limits, "--seed", "3")["train"]
    other = make(table, tmp_path / "3", *limits, "--seed", "4")["train"]
    assert first == again != other
    assert len(first) == 5


def test_images_are_copied_to_their_phase(tmp_path):
    root = tiny_dataset.write(tmp_path / "photos")
    out = tmp_path / "out"
    table = root / "fasion-resize-annotation-train.csv"
    arguments = (
        "--images",
        str(root / "train"),
        "--identity",
        "deepfashion",
        "--test_share",
        "0.5",
    )
    pairs = make(table, out, *arguments)
    assert len(pairs["train"]) == len(pairs["test"]) == 2
    for phase, list_ in pairs.items():
        for name, _ in list_:
            assert (out / phase / name).read_bytes() == (root / "train" / name).read_bytes()
    (root / "train" / pairs["test"][0][0]).unlink()
    with pytest.raises(UserError, match="although the keypoint table names it"):
        make(table, tmp_path / "more", *arguments)


def test_pairs_of_market_show_the_torso_and_no_distractor(tmp_path):
    names = ("0001_c1_a.jpg", "0001_c1_b.jpg", "-1_c1_a.jpg", "-1_c1_b.jpg", "0000_c1_a.jpg")
    table = {name: np.full((18, 2), 30.0) for name in (*names, "0001_c1_c.jpg")}
    table["0001_c1_c.jpg"][8] = -1  # right hip
    write_keypoints(tmp_path / "k.csv", table)
    arguments = ["--keypoints", str(tmp_path / "k.csv"), "--output", str(tmp_path / "out")]
    assert make_pairs.main([*arguments, "--dataset_mode", "market"]) == 0
    pairs = read_pairs(tmp_path / "out" / "market-pairs-train.csv")
    assert pairs == [names[:2], names[1::-1]]
    write_keypoints(tmp_path / "k.csv", {name: np.full((18, 2), 30.0) for name in names[2:]})
    with pytest.raises(UserError, match=r"no image of .* can be used; expected people"):
        make_pairs.main([*arguments, "--dataset_mode", "market", "--overwrite"])


def test_people_with_one_image_each_are_reported(tmp_path):
    write_keypoints(tmp_path / "k.csv", {f"{i}_x.jpg": np.ones((18, 2)) for i in "ab"})
    with pytest.raises(UserError, match="none of the 2 people of train has two images"):
        make(tmp_path / "k.csv", tmp_path / "out")
    with pytest.raises(UserError, match=r"the images show 1 people \(x\)"):
        make(tmp_path / "k.csv", tmp_path / "out", "--identity", r"_(x)", "--test_share", "0.5")


def test_lists_are_never_overwritten_by_accident(table, tmp_path):
    make(table, tmp_path / "out")
    with pytest.raises(UserError, match="exists already"):
        make(table, tmp_path / "out")
    make(table, tmp_path / "out", "--overwrite")


def test_identity_rules():
    assert identity_rule("prefix")("anna_01_x.jpg") == "anna"
    assert identity_rule("folder")("anna/01.jpg") == "anna"
    assert identity_rule("market")("0002_c1s1_000451_03.jpg") == "0002"
    flat, path = tiny_dataset.names("test")[0], tiny_dataset.paths("test")[0]
    rule = identity_rule("deepfashion")
    assert rule(flat) == rule(path) == rule(f"img/{path}") == "WOMEN/Blouses_Shirts/id_00000003"
    assert identity_rule(r"^(\w+)-\d")("eva-3.jpg") == "eva"
    assert group_by_identity(["b_1", "a_1", "b_2"], "prefix") == {"b": ["b_1", "b_2"], "a": ["a_1"]}


@pytest.mark.parametrize(
    ("rule", "name", "message"),
    [
        ("(", "a", "is no regular expression"),
        ("abc", "a", "has 0 groups"),
        ("(a)(b)", "a", "has 2 groups"),
        ("(x)", "a.jpg", "does not match the image name 'a.jpg'"),
        ("folder", "a.jpg", "is in no folder"),
        ("deepfashion", "a.jpg", "is not the path of a DeepFashion image"),
    ],
)
def test_identity_rules_that_cannot_work_are_refused(rule, name, message):
    with pytest.raises(UserError) as error:
        identity_rule(rule)(name)
    assert message in str(error.value)


def test_the_layout_table_agrees_with_the_data_sets():
    from data import find_dataset

    for mode, layout in LAYOUTS.items():
        dataset = find_dataset(mode)
        assert dataset.pairs_files == layout.pairs
        assert dataset.annotation_files == layout.annotations
        assert dataset.image_folders[0] == layout.image_folder
        assert dataset.annotation_size == layout.annotation_size


def test_a_missing_image_is_noticed_before_anything_is_written(tmp_path):
    root, out = tiny_dataset.write(tmp_path / "photos"), tmp_path / "out"
    table = root / "fasion-resize-annotation-train.csv"
    arguments = ("--images", str(root / "train"), "--identity", "deepfashion")
    gone = root / "train" / tiny_dataset.names("train")[-1]
    data = gone.read_bytes()
    gone.unlink()
    with pytest.raises(UserError, match="although the keypoint table names it"):
        make(table, out, *arguments)
    assert not out.exists()
    gone.write_bytes(data)
    assert make(table, out, *arguments)["train"]


def test_images_of_an_earlier_call_are_replaced(tmp_path):
    root, out = tiny_dataset.write(tmp_path / "photos"), tmp_path / "out"
    table = root / "fasion-resize-annotation-train.csv"
    arguments = ("--images", str(root / "train"), "--identity", "deepfashion", "--overwrite")
    make(table, out, *arguments)
    name = tiny_dataset.names("train")[0]
    tiny_dataset.picture(99, (176, 256)).save(root / "train" / name)
    make(table, out, *arguments)
    assert (out / "train" / name).read_bytes() == (root / "train" / name).read_bytes()
