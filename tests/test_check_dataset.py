"""Damaged data sets: every damage has its own sentence, and training refuses what it must."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data
from data.fashion_dataset import FashionDataset
from script import check_dataset
from tests import tiny_dataset
from tests.dataset_damage import (
    DAMAGES,
    FIRST,
    KEYPOINTS,
    PAIRS,
    SECOND,
    edit,
    enlarge_keypoints,
    missing_image,
)
from util.errors import UserError
from util.tables.manifest import update_manifest
from util.tables.patn import read_keypoints, write_keypoints, write_pairs

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def root(tmp_path) -> Path:
    return tiny_dataset.write(tmp_path / "fashion")


def check(root: Path, capsys, *more: str) -> tuple[int, list[str]]:
    """Exit status and the lines of findings."""
    status = check_dataset.main([str(root), "--own", "--workers", "1", *more])
    lines = capsys.readouterr().out.splitlines()
    return status, [line for line in lines if line.startswith(("error: ", "warning: ", "note: "))]


def test_a_sound_data_set_passes_with_a_contact_sheet(root, capsys):
    assert check(root, capsys) == (0, [])
    with Image.open(root / "contact_sheet.jpg") as sheet:
        assert sheet.size == (4 * (2 * 176 + 8) - 8, 2 * (256 + 8) - 8)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_every_damage_is_found_and_named(root, capsys, damage):
    level, text, _ = DAMAGES[damage]
    damage(root)
    status, findings = check(root, capsys)
    matching = [line for line in findings if line.startswith(f"{level}: ") and text in line]
    assert len(matching) == 1, findings
    assert status == (1 if level == "error" else 0)
    assert not any(line.startswith("error: ") for line in findings if line not in matching)


def test_no_two_damages_have_the_same_sentence(tmp_path, capsys):
    sentences = {}
    for damage in DAMAGES:
        root = tiny_dataset.write(tmp_path / damage.__name__)
        damage(root)
        _, findings = check(root, capsys)
        sentences[findings[0].replace(str(root), "")] = damage
    assert len(sentences) == len(DAMAGES) >= 12


def read_everything(root: Path) -> None:
    dataset = FashionDataset(root, "train")
    for index in range(len(dataset)):
        dataset[index]


@pytest.mark.parametrize(
    "damage", [d for d in DAMAGES if DAMAGES[d][2]], ids=lambda damage: damage.__name__
)
def test_a_training_refuses_what_is_an_error(root, damage):
    damage(root)
    with pytest.raises(UserError) as error:
        read_everything(root)
    assert "\n" not in str(error.value)
    assert str(root) in str(error.value)


def test_the_published_counts_are_expected_unless_the_data_is_ones_own(root, capsys):
    check_dataset.main([str(root), "--workers", "1"])
    output = capsys.readouterr().out
    assert "holds 4 pairs, the published one 101,966" in output
    assert "holds 2 pairs, the published one 8,570" in output
    assert "holds 4 images, the published set 48,674" in output
    assert "holds 2 images, the published set 4,038" in output
    assert "0 errors, 4 warnings" in output


def test_a_few_joints_just_outside_the_frame_are_normal(root, capsys):
    table = read_keypoints(root / KEYPOINTS)
    table[SECOND][4] = (20, -3)
    write_keypoints(root / KEYPOINTS, table)
    status, findings = check(root, capsys)
    assert status == 0
    assert findings[0].startswith("note: 1 of ")
    assert "only their tail is drawn" in findings[0]


def test_people_without_any_joint_are_reported(root, capsys):
    table = read_keypoints(root / KEYPOINTS)
    table[SECOND][:] = -1
    write_keypoints(root / KEYPOINTS, table)
    status, findings = check(root, capsys)
    assert status == 0
    assert "1 images in" in findings[0]
    assert "have no joint at all" in findings[0]


def test_another_annotation_size_can_be_given(root, capsys):
    for phase in ("train", "test"):
        enlarge_keypoints(root / KEYPOINTS.replace("train", phase))
    assert check(root, capsys)[1] != []
    assert check(root, capsys, "--annotation_size", "1024", "704") == (
        0,
        [
            f"note: images of {root / phase} have 176x256 pixels: resized when loaded."
            for phase in ("train", "test")
        ],
    )


def test_folders_made_in_two_ways_and_unfinished_ones_are_reported(root, capsys):
    record = {"source": "img", "steps": ["crop"], "images": 1, "expected": 4, "complete": False}
    update_manifest(root, {"train": record, "test": {**record, "filter": "box", "complete": True}})
    status, findings = check(root, capsys)
    assert status == 0
    assert any("was not finished (1 of 4 images)" in line for line in findings)
    assert any("were made in different ways (filter: None / box)" in line for line in findings)


def test_images_whose_results_would_have_one_name_are_an_error(root, capsys):
    twin = SECOND.replace(".jpg", ".png")
    tiny_dataset.picture(1, (176, 256)).save(root / "train" / twin)
    edit(root / PAIRS, f"{SECOND},{FIRST}", f"{twin},{FIRST}")
    with open(root / KEYPOINTS, "a") as file:
        file.write(f"{twin}:{[1] * 18}:{[1] * 18}\n")
    status, findings = check(root, capsys)
    assert status == 1
    assert "give results of the same name" in findings[0]


def test_high_resolution_images_are_fine_and_mixed_sizes_are_not(root, capsys):
    for phase in ("train", "test"):
        for path in (root / phase).iterdir():
            tiny_dataset.picture(1, (75, 110)).save(path)
    status, findings = check(root, capsys)
    assert status == 0
    assert all(line.startswith("note: images of") for line in findings)
    tiny_dataset.picture(1, (176, 256)).save(root / "train" / FIRST)
    assert any("holds images of 2 sizes" in line for line in check(root, capsys)[1])


def test_a_folder_without_tables_lists_everything_that_is_needed(tmp_path, capsys):
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"no pairs or keypoint table is in it, but photo\.jpg"):
        check_dataset.main([str(tmp_path)])
    output = capsys.readouterr().out
    assert output.count("MISSING") == 6
    assert PAIRS in output
    assert "https://github.com/" in output
    with pytest.raises(UserError, match="is no folder"):
        check_dataset.main([str(tmp_path / "photo.jpg")])


@pytest.mark.parametrize(("name", "table"), [("fashion", PAIRS), ("market", "market-pairs-train")])
def test_a_folder_that_is_not_there_yet_lists_everything_that_is_needed(
    tmp_path, capsys, name, table
):
    with pytest.raises(UserError, match=f"there is no such folder; .* --dataset_mode {name}: get"):
        check_dataset.main([str(tmp_path / name)])
    output = capsys.readouterr().out
    assert output.count("MISSING") == 6
    assert table in output
    assert not (tmp_path / name).exists()


def test_market_and_magpt_layouts_are_recognised(tmp_path, capsys):
    market, magpt = tmp_path / "market", tmp_path / "magpt"
    for phase, person in (("train", "0001"), ("test", "0002")):
        names = [f"{person}_c{camera}_1.jpg" for camera in (1, 2)]
        (market / phase).mkdir(parents=True)
        for seed, name in enumerate(names):
            tiny_dataset.picture(seed, (64, 128)).save(market / phase / name)
        write_pairs(market / f"market-pairs-{phase}.csv", [tuple(names)])
        points = {name: np.full((18, 2), 30.0) for name in names}
        write_keypoints(market / f"market-annotation-{phase}.csv", points)
    assert check(market, capsys) == (0, [])
    tiny_dataset.write_release(magpt)
    from script import convert_annotations

    source = tiny_dataset.write(tmp_path / "patn")
    convert_annotations.main(
        ["--from", "patn", "--to", "magpt", "--input", str(source), "--output", str(magpt)]
    )
    capsys.readouterr()
    assert check(magpt, capsys) == (0, [])


def test_the_command_ends_with_a_status_and_without_a_traceback(root):
    missing_image(root)
    result = subprocess.run(
        [sys.executable, "script/check_dataset.py", str(root), "--own", "--workers", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "error: 1 images of" in result.stdout
    assert "Traceback" not in result.stderr


PLUGIN = """
from data.pose_dataset import PoseDataset

class BarDataset(PoseDataset):
    load_size = annotation_size = (256, 176)
    pairs_files = ("{phase}_couples.csv",)
    annotation_files = ("{phase}_joints.csv",)
    image_folders = ("photos_{phase}",)
"""


def test_data_sets_added_by_a_file_are_checked(root, tmp_path, monkeypatch, capsys):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "bar_dataset.py").write_text(PLUGIN)
    monkeypatch.setattr(data, "__path__", [*data.__path__, str(tmp_path / "plugins")])
    for phase in ("train", "test"):
        (root / phase).rename(root / f"photos_{phase}")
        for old, new in (("pairs", "couples"), ("annotation", "joints")):
            (root / f"fasion-resize-{old}-{phase}.csv").rename(root / f"{phase}_{new}.csv")
    assert check(root, capsys, "--dataset_mode", "bar") == (0, [])
    (root / "test_couples.csv").unlink()
    status, findings = check(root, capsys, "--dataset_mode", "bar")
    assert status == 1
    assert "the pairs table test_couples.csv is missing" in findings[0]


def test_a_missing_file_is_named_once(root, capsys):
    (root / PAIRS).unlink()
    assert check_dataset.main([str(root), "--own", "--workers", "1"]) == 1
    assert capsys.readouterr().out.count(PAIRS) == 1


def test_rendered_people_are_no_unknown_origin(people, capsys):
    assert check_dataset.main([str(people), "--workers", "1", "--contact_sheet", "none"]) == 0
    output = capsys.readouterr().out
    assert "unknown origin" not in output
    assert output.count("made by script/make_synthetic_dataset.py") == 2


@pytest.mark.parametrize("name", ["train/0002_c1s1_000451_03.jpg", "bounding_box_train/a.jpg"])
def test_a_folder_of_market_without_tables_is_not_taken_for_fashion(tmp_path, capsys, name):
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match="dataset_mode market"):
        check_dataset.main([str(tmp_path)])
    output = capsys.readouterr().out
    assert "market-pairs-train.csv" in output
    assert "fasion" not in output
