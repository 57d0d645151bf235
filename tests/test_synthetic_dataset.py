"""Data sets of synthetic people on disk: layouts, reproducibility, safety, the command line."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.synthetic.write import SIZES, contact_sheet, write_dataset
from script.make_synthetic_dataset import main
from tests.conftest import ROOT
from util.errors import UserError
from util.names import is_flat_deepfashion_name
from util.tables.patn import read_keypoints, read_list, read_pairs

SMALL = {"identities": 4, "poses": 5, "seed": 7, "test_identities": 2}


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def fashion(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("fashion") / "set"
    write_dataset(root, "fashion", **SMALL)
    return root


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("market") / "set"
    write_dataset(root, "market", **SMALL)
    return root


def tables(layout: str, phase: str) -> tuple[str, str]:
    start = "fasion-resize" if layout == "fashion" else "market"
    return f"{start}-pairs-{phase}.csv", f"{start}-annotation-{phase}.csv"


@pytest.mark.parametrize("layout", ["fashion", "market"])
@pytest.mark.parametrize("phase", ["train", "test"])
def test_a_data_set_has_the_published_layout(layout, phase, request):
    root = request.getfixturevalue(layout)
    pairs_file, annotation_file = (root / name for name in tables(layout, phase))
    people = SMALL["identities"] if phase == "train" else SMALL["test_identities"]
    keypoints, pairs = read_keypoints(annotation_file), read_pairs(pairs_file)
    assert pairs_file.read_text().splitlines()[0] == "from,to"
    assert len(keypoints) == people * 5
    assert len(pairs) == people * 5 * 4
    assert {p.name for p in (root / phase).iterdir()} == set(keypoints)
    assert {name for pair in pairs for name in pair} == set(keypoints)
    height, width = SIZES[layout]
    for name, points in keypoints.items():
        with Image.open(root / phase / name) as picture:
            assert picture.format == "JPEG"
            assert picture.size == (width, height)
        assert points.shape == (18, 2)
        given = points[(points != -1).all(axis=1)]
        assert ((given >= 0) & (given < (height, width))).all()


def test_the_annotation_is_a_colon_separated_table_of_json_lists(fashion):
    with open(fashion / "fasion-resize-annotation-test.csv", newline="") as file:
        rows = list(csv.reader(file, delimiter=":"))
    assert rows[0] == ["name", "keypoints_y", "keypoints_x"]
    for _, y, x in rows[1:]:
        assert [len(json.loads(y)), len(json.loads(x))] == [18, 18]
        assert all(isinstance(v, int) for v in json.loads(y) + json.loads(x))


def test_fashion_names_are_flat_deepfashion_names_with_the_view(fashion):
    for phase in ("train", "test"):
        names = read_list(fashion / f"{phase}.lst")
        assert names == list(read_keypoints(fashion / f"fasion-resize-annotation-{phase}.csv"))
        assert all(is_flat_deepfashion_name(name) for name in names)
        views = [re.search(r"_(\d[a-z]+)\.jpg$", name)[1] for name in names]
        assert set(views) == {"1front", "2side", "3back", "4full"}


def test_back_views_have_no_nose_and_front_views_have_one(fashion):
    keypoints = read_keypoints(fashion / "fasion-resize-annotation-train.csv")
    backs = [points[0] for name, points in keypoints.items() if "3back" in name]
    fulls = [points[0] for name, points in keypoints.items() if "4full" in name]
    assert (np.array(backs) == -1).all()
    assert (np.array(fulls) != -1).mean() > 0.7


def test_market_names_are_market_1501_names(market):
    for phase in ("train", "test"):
        for name in read_keypoints(market / f"market-annotation-{phase}.csv"):
            assert re.fullmatch(r"\d{4}_c[1-6]s[1-6]_\d{6}_\d{2}\.jpg", name)
            assert not name.startswith("0000")


@pytest.mark.parametrize("layout", ["fashion", "market"])
def test_pairs_join_pictures_of_one_person_and_no_person_is_in_both_splits(layout, request):
    root = request.getfixturevalue(layout)

    def who(name: str) -> str:
        return re.search(r"id(\d{8})\d\d_", name)[1] if layout == "fashion" else name[:4]

    people = {}
    for phase in ("train", "test"):
        pairs = read_pairs(root / tables(layout, phase)[0])
        assert all(who(a) == who(b) and a != b for a, b in pairs)
        people[phase] = {who(a) for a, _ in pairs}
    assert len(people["train"]) == SMALL["identities"]
    assert not people["train"] & people["test"]


def test_equal_settings_give_equal_bytes_for_any_number_of_workers(fashion, tmp_path):
    write_dataset(tmp_path / "again", "fashion", workers=2, **SMALL)
    assert contents(tmp_path / "again") == contents(fashion)


def test_another_seed_gives_other_people(fashion, tmp_path):
    write_dataset(tmp_path / "other", "fashion", **{**SMALL, "seed": 8})
    first, second = contents(fashion), contents(tmp_path / "other")
    pictures = {data for name, data in first.items() if name.endswith(".jpg")}
    assert not pictures & {data for name, data in second.items() if name.endswith(".jpg")}


def test_more_training_people_leave_the_others_unchanged(market, tmp_path):
    write_dataset(tmp_path / "more", "market", **{**SMALL, "identities": 5})
    first, second = contents(market), contents(tmp_path / "more")
    for name in first:
        if name.startswith("train/"):
            assert first[name] == second[name]


def test_another_background_shows_the_same_people_in_the_same_poses(market, tmp_path):
    write_dataset(tmp_path / "room", "market", background="room", **SMALL)
    name = "market-annotation-train.csv"
    poses = [list(read_keypoints(root / name).values()) for root in (market, tmp_path / "room")]
    assert np.array_equal(poses[0], poses[1])


def test_pairs_can_be_limited_reproducibly(market, tmp_path):
    limits = {**SMALL, "pairs": 9, "test_pairs": 3}
    for out in ("a", "b"):
        write_dataset(tmp_path / out, "market", **limits)
    kept = read_pairs(tmp_path / "a" / "market-pairs-train.csv")
    assert len(kept) == 9
    assert len(read_pairs(tmp_path / "a" / "market-pairs-test.csv")) == 3
    assert set(kept) <= set(read_pairs(market / "market-pairs-train.csv"))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_second_run_changes_nothing_and_a_damaged_set_is_made_again(tmp_path):
    settings = {"identities": 1, "poses": 2, "test_identities": 1}
    first = write_dataset(tmp_path, "market", **settings)
    before = contents(tmp_path)
    assert not first["unchanged"]
    assert write_dataset(tmp_path, "market", **settings)["unchanged"]
    next((tmp_path / "train").glob("*.jpg")).unlink()
    assert not write_dataset(tmp_path, "market", **settings)["unchanged"]
    assert contents(tmp_path) == before


def test_an_interrupted_run_is_finished_by_the_next_one(tmp_path, monkeypatch):
    settings = {"identities": 2, "poses": 2, "test_identities": 1}
    with monkeypatch.context() as patch:
        patch.setattr("data.synthetic.write.write_keypoints", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_dataset(tmp_path / "a", "market", **settings)
    assert json.loads((tmp_path / "a" / "synthetic.json").read_text())["complete"] is False
    write_dataset(tmp_path / "a", "market", **settings)
    write_dataset(tmp_path / "b", "market", **settings)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def interrupt(*_) -> None:
    raise KeyboardInterrupt


def test_another_data_set_is_replaced_only_when_asked(tmp_path):
    write_dataset(tmp_path / "a", "market", identities=2, poses=2, test_identities=1)
    before = contents(tmp_path / "a")
    changed = {"identities": 1, "poses": 3, "test_identities": 1}
    with pytest.raises(UserError, match=r"identities 2 instead of 1.*--overwrite"):
        write_dataset(tmp_path / "a", "fashion", **changed)
    assert contents(tmp_path / "a") == before
    write_dataset(tmp_path / "a", "fashion", overwrite=True, **changed)
    write_dataset(tmp_path / "b", "fashion", **changed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_foreign_files_are_never_touched(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "holiday.jpg").write_bytes(b"mine")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="is not a synthetic data set"):
            write_dataset(tmp_path, identities=1, overwrite=overwrite)
    assert contents(tmp_path) == {"train/holiday.jpg": b"mine"}
    with pytest.raises(UserError, match="is a file"):
        write_dataset(tmp_path / "train" / "holiday.jpg", identities=1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("--layout square", "--layout"),
        ("--background moon", "light, studio, street, room, varied"),
        ("--poses 1", "a whole number, 2 to 300"),
        ("--identities 0", "--identities"),
        ("--test_identities 0", "--test_identities"),
        ("--seed -1", "--seed"),
        ("--pairs 0", "--pairs"),
        ("--quality 101", "a whole number, 1 to 100"),
        ("--poses 301", "a whole number, 2 to 300"),
        ("--layout market --identities 9999", "--identities is 9999; expected"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(
    wrong, message, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "argv", ["make", "--out", str(tmp_path / "set"), *wrong.split()])
    with pytest.raises(UserError, match=re.escape(message)):
        main()
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("layout", ["fashion", "market"])
def test_the_contact_sheet_shows_pictures_and_skeletons(layout, tmp_path, request):
    path = tmp_path / "sheet.png"
    contact_sheet(request.getfixturevalue(layout), path)
    height, width = SIZES[layout]
    with Image.open(path) as sheet:
        assert sheet.size == (10 * width, 4 * height)
        pixels = np.asarray(sheet).astype(int)
    assert (pixels[:, : 5 * width] != pixels[:, 5 * width :]).any(axis=-1).mean() > 0.01


def test_the_command_writes_a_data_set_and_a_contact_sheet(tmp_path, monkeypatch, capsys):
    out = tmp_path / "set"
    line = f"make --out {out} --layout market --identities 3 --poses 2 --seed 1 --contact_sheet"
    monkeypatch.setattr(sys, "argv", line.split())
    main()
    assert "train: 3 identities, 6 images, 6 pairs" in capsys.readouterr().out
    assert (out / "contact_sheet.png").is_file()
    main()
    assert "nothing to do" in capsys.readouterr().out


def test_the_command_starts_as_a_file_from_any_folder(tmp_path):
    command = [sys.executable, ROOT / "script" / "make_synthetic_dataset.py", "--out", "set"]
    sizes = ["--identities", "1", "--test_identities", "1", "--poses", "2"]
    done = subprocess.run([*command, *sizes], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "set is ready: 4 images" in done.stdout


def test_a_folder_whose_first_file_was_cut_off_can_be_used_again(tmp_path):
    (tmp_path / ".synthetic.json.0123456789ab.tmp").write_bytes(b"{")
    assert write_dataset(tmp_path, identities=1, test_identities=1, poses=2)["complete"]
    assert not list(tmp_path.glob(".*.tmp"))
