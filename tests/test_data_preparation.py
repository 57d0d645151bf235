"""Image folders from the releases: right pixels, safe to interrupt, never empty without reason."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from data.prepare.images import FILTERS
from script import generate_fashion_datasets
from tests import tiny_dataset
from tests.tiny_dataset import contents, jpeg
from util.errors import UserError
from util.files import SUFFIX
from util.tables.layouts import CROP_BOX
from util.tables.manifest import (
    describe,
    differences,
    folder_record,
    problems,
    read_manifest,
    update_manifest,
)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def release(tmp_path) -> Path:
    return tiny_dataset.write_release(tmp_path / "fashion")


def generate(root: Path, *more: str) -> int:
    return generate_fashion_datasets.main(["--dataroot", str(root), "--workers", "1", *more])


def test_strips_are_the_published_crop_saved_with_pillows_defaults(release):
    assert generate(release) == 0
    for phase in ("train", "test"):
        made = contents(release / phase)
        assert sorted(made) == sorted(tiny_dataset.names(phase))
        for path, name in zip(tiny_dataset.paths(phase), tiny_dataset.names(phase), strict=True):
            with Image.open(release / "img" / path) as image:
                assert made[name] == jpeg(image.crop(CROP_BOX))


def test_several_processes_make_the_same_files_as_one(release, tmp_path):
    generate(release, "--output", str(tmp_path / "one"))
    generate(release, "--output", str(tmp_path / "two"), "--workers", "2")
    assert contents(tmp_path / "one" / "train") == contents(tmp_path / "two" / "train")


def test_high_resolution_files_are_resized_by_the_named_filter(tmp_path):
    root = tiny_dataset.write_release(tmp_path, (75, 110), "img_highres")
    assert generate(root, "--filter", "lanczos") == 0
    path, name = tiny_dataset.paths("test")[0], tiny_dataset.names("test")[0]
    with Image.open(root / "img_highres" / path) as image:
        expected = jpeg(image.resize((176, 256), FILTERS["lanczos"]))
    assert (root / "test" / name).read_bytes() == expected
    record = folder_record(root / "test")
    assert (record["source"], record["filter"], record["size"]) == (
        "img_highres",
        "lanczos",
        [256, 176],
    )


def test_gfla_gets_unresized_files_and_256_squares(tmp_path):
    root = tiny_dataset.write_release(tmp_path, (75, 110), "img_highres")
    assert generate(root, "--layout", "gfla") == 0
    path, name = tiny_dataset.paths("test")[0], tiny_dataset.names("test")[0]
    original = root / "img_highres" / path
    assert (root / "test" / name).read_bytes() == original.read_bytes()
    with Image.open(original) as image:
        expected = jpeg(image.resize((256, 256), Image.Resampling.BICUBIC))
    assert (root / "test_256" / name).read_bytes() == expected


def test_gfla_from_the_256_release_stretches_the_strip(release):
    assert generate(release, "--layout", "gfla") == 0
    path, name = tiny_dataset.paths("test")[0], tiny_dataset.names("test")[0]
    with Image.open(release / "img" / path) as image:
        strip = image.crop(CROP_BOX)
    assert (release / "test" / name).read_bytes() == jpeg(strip)
    stretched = jpeg(strip.resize((256, 256), Image.Resampling.BICUBIC))
    assert (release / "test_256" / name).read_bytes() == stretched


def test_magpt_gets_the_original_files_or_padded_ones(release, tmp_path):
    generate(release, "--layout", "magpt")
    path, name = tiny_dataset.paths("test")[0], tiny_dataset.names("test")[0]
    assert (release / "test_256" / name).read_bytes() == (release / "img" / path).read_bytes()
    high = tiny_dataset.write_release(tmp_path / "high", (75, 110), "img_highres")
    generate(high, "--layout", "magpt")
    with Image.open(high / "test_256" / name) as image:
        assert image.size == (256, 256)
        assert image.getpixel((5, 100)) == (255, 255, 255) == image.getpixel((250, 100))
    assert folder_record(high / "test_256")["size"] == [256, 256]


def test_nted_gets_lossless_png_strips(release):
    generate(release, "--layout", "nted")
    path, name = tiny_dataset.paths("test")[0], Path(tiny_dataset.names("test")[0])
    with (
        Image.open(release / "img" / path) as image,
        Image.open(release / "test_256" / name.with_suffix(".png")) as made,
    ):
        assert made.format == "PNG"
        assert made.tobytes() == image.crop(CROP_BOX).tobytes()


def test_gender_folders_in_the_data_root_and_a_magpt_list_are_enough(tmp_path):
    root = tiny_dataset.write_release(tmp_path, folder=".")
    for phase in ("train", "test"):
        (root / f"{phase}.lst").unlink()
        rows = "".join(f"img/{path}\n" for path in tiny_dataset.paths(phase))
        (root / f"{phase}_img_list.csv").write_text("img\n" + rows)
    assert generate(root) == 0
    assert sorted(contents(root / "train")) == sorted(tiny_dataset.names("train"))


def test_no_match_says_what_was_looked_for_and_what_was_found(release):
    (release / "train.lst").write_text("fashionMENDenimid0000000101_1front.jpg\n")
    (release / "test.lst").write_text("fashionMENDenimid0000000201_1front.jpg\n")
    (release / "img" / "logo.png").write_bytes(b"")
    with pytest.raises(UserError) as error:
        generate(release)
    message = str(error.value)
    assert "none of the 1 images of" in message
    assert "'fashionMENDenimid0000000101_1front.jpg'" in message
    assert "found 6 DeepFashion images and 1 other image files" in message
    assert tiny_dataset.names("train")[0][:30] in message or "fashionWOMEN" in message
    assert not (release / "train").exists()


def test_an_empty_data_root_names_every_place_that_was_looked_at(tmp_path):
    for phase in ("train", "test"):
        (tmp_path / f"{phase}.lst").write_text(tiny_dataset.names(phase)[0])
    with pytest.raises(UserError, match=r"img_highres\.zip.*found test\.lst, train\.lst"):
        generate(tmp_path)


def test_missing_lists_say_where_people_get_them(tmp_path):
    with pytest.raises(UserError, match=r"train\.lst does not exist.*github\.com"):
        generate(tmp_path)


def test_missing_images_are_reported_and_the_exit_status_says_so(release, capsys):
    missing = tiny_dataset.paths("train")[0]
    (release / "img" / missing).unlink()
    assert generate(release) == 1
    captured = capsys.readouterr()
    assert "3 of 4 images" in captured.out
    assert f"not in the release: {tiny_dataset.names('train')[0]}" in captured.err
    assert read_manifest(release)["train"]["complete"] is False


def test_one_damaged_image_is_named_and_the_others_are_made(release, capsys):
    damaged = release / "img" / tiny_dataset.paths("train")[1]
    damaged.write_bytes(damaged.read_bytes()[:500])
    assert generate(release) == 1
    assert tiny_dataset.paths("train")[1] in capsys.readouterr().err
    assert len(contents(release / "train")) == 3


def test_an_image_of_another_size_is_not_cropped_blindly(release, capsys):
    odd = release / "img" / tiny_dataset.paths("train")[1]
    tiny_dataset.picture(0, (300, 256)).save(odd)
    assert generate(release) == 1
    assert "has 300x256 pixels; expected 256x256" in capsys.readouterr().err


def test_finished_files_are_kept_and_the_rest_of_a_kill_is_removed(release):
    first, *others = sorted(tiny_dataset.names("train"))
    generate(release)
    before = {name: (release / "train" / name).stat().st_mtime_ns for name in others}
    whole = (release / "train" / first).read_bytes()
    (release / "train" / first).unlink()
    (release / "train" / f".{first[:10]}.123{SUFFIX}").write_bytes(whole[:100])
    assert generate(release) == 0
    assert (release / "train" / first).read_bytes() == whole
    after = {name: (release / "train" / name).stat().st_mtime_ns for name in others}
    assert before == after
    assert sorted(contents(release / "train")) == sorted([first, *others])


KILLED = """
import os, signal, sys
import util.files
from script.generate_fashion_datasets import main
rename, count = os.replace, 0
def replace(source, target):
    global count
    count += 1
    if count == 4:  # the manifest is the first file
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
util.files.os.replace = replace
main(["--dataroot", sys.argv[1], "--workers", "1"])
"""


def test_a_killed_run_leaves_only_whole_files_and_is_completed_by_the_next(release, tmp_path):
    generate(release, "--output", str(tmp_path / "whole"))
    killed = subprocess.run([sys.executable, "-c", KILLED, str(release)], cwd=ROOT, check=False)
    assert killed.returncode == -9
    assert read_manifest(release)["train"]["complete"] is False
    left = contents(release / "train")
    parts = [name for name in left if name.endswith(SUFFIX)]
    assert len(parts) == 1
    assert len(left) == 3
    expected = contents(tmp_path / "whole" / "train")
    assert all(data == expected[name] for name, data in left.items() if name not in parts)
    assert generate(release) == 0
    assert contents(release / "train") == expected
    assert read_manifest(release)["train"]["complete"] is True


def test_a_full_disk_stops_with_one_sentence_and_no_rest(release, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    generate(release, "--output", str(release / "elsewhere"))  # the manifest can be written
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"No space left on device.*finished files are kept"):
        generate(release)


def test_images_made_in_two_ways_are_never_mixed(release):
    root = tiny_dataset.write_release(release, (75, 110), "img_highres")
    generate(root, "--layout", "gfla")
    with pytest.raises(UserError, match=r"made differently.*filter: bicubic / box"):
        generate(root, "--layout", "gfla", "--filter", "box")
    before = contents(root / "test_256")
    assert generate(root, "--layout", "gfla", "--filter", "box", "--output", str(root / "2")) == 0
    assert contents(root / "2" / "test_256") != before


def test_another_list_is_noticed_and_images_of_no_list_are_counted(release, capsys):
    generate(release)
    (release / "train" / "more.jpg").write_bytes(b"x")
    generate(release)
    assert "1 more images are there that no list names" in capsys.readouterr().out
    (release / "train.lst").write_text(tiny_dataset.names("train")[0])
    with pytest.raises(UserError, match=r"another train\.lst"):
        generate(release)


def test_a_folder_that_somebody_else_filled_is_left_alone(release):
    (release / "train").mkdir()
    (release / "train" / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match="no manifest tells how"):
        generate(release)
    assert contents(release / "train") == {"mine.jpg": b"mine"}


def test_the_manifest_says_how_the_images_were_made(release):
    generate(release)
    record = folder_record(release / "train")
    assert record["source"] == "img"
    assert record["steps"] == ["crop"]
    assert (record["file_format"], record["quality"], record["filter"]) == ("JPEG", 75, None)
    assert (record["images"], record["expected"], record["complete"]) == (4, 4, True)
    assert len(record["list_sha256"]) == 64
    assert "4 of 4 images from img, crop" in describe(record)
    assert differences(record, folder_record(release / "test")) == []
    assert differences(record, {**record, "filter": "box"}) == ["filter: None / box"]
    assert differences(None, record) == []
    assert folder_record(release / "img") is None


def test_a_damaged_manifest_is_named(tmp_path):
    for text in ("{", "[]", '{"folders": [1]}', '{"folders": {"train": 1}}'):
        (tmp_path / "dataset_manifest.json").write_text(text)
        with pytest.raises(UserError, match=r"dataset_manifest\.json is damaged"):
            read_manifest(tmp_path)


def test_updating_a_manifest_keeps_the_other_folders(tmp_path):
    update_manifest(tmp_path, {"train": {"size": None}})
    update_manifest(tmp_path, {"test": {"size": [1, 2]}})
    assert json.loads((tmp_path / "dataset_manifest.json").read_text())["folders"] == {
        "train": {"size": None},
        "test": {"size": [1, 2]},
    }


def test_finished_strips_are_no_release(release, tmp_path):
    generate(release)
    (release / "img").rename(tmp_path / "img")
    strips = release / "strips"
    strips.mkdir()
    for phase in tiny_dataset.PEOPLE:
        (release / phase).rename(strips / phase)
    with pytest.raises(UserError, match="found 0 DeepFashion images and 6 other image files like"):
        generate(release, "--source", str(strips), "--output", str(tmp_path / "out"))


def test_strips_at_the_paths_of_a_release_are_not_encoded_again(release):
    for path in (release / "img").rglob("*.jpg"):
        path.write_bytes(jpeg(tiny_dataset.picture(1, (176, 256))))
    with pytest.raises(UserError, match="176x256 pixels, so these images are strips already"):
        generate(release)
    assert not (release / "train").exists()


def test_a_folder_is_compared_with_its_record(release):
    generate(release)
    assert problems(release / "train") == problems(release / "test") == []
    assert problems(release / "img") == []  # of no manifest
    (release / "train" / "more.jpg").write_bytes(b"")
    (release / "test.lst").write_text("another.jpg\n")
    assert "holds 5 images, dataset_manifest.json says 4" in problems(release / "train")[0]
    assert "test.lst is not the list that" in problems(release / "test")[0]
    update_manifest(release, {"train": {"complete": False, "images": 1, "expected": 4}})
    assert "was not finished (1 of 4 images)" in problems(release / "train")[0]


def test_a_list_of_which_no_image_is_there_is_refused_by_name(release):
    (release / "train.lst").write_text("<!DOCTYPE html>\n<html>\n")  # a failed download
    with pytest.raises(UserError, match=r"none of the 2 images of .*train\.lst is in .*DOCTYPE"):
        generate(release)
    assert not (release / "test").exists()


def test_an_image_in_both_lists_is_refused(release):
    shutil.copy(release / "train.lst", release / "test.lst")
    with pytest.raises(UserError, match=r"4 images are in .*train\.lst and in .*test\.lst"):
        generate(release)


def test_an_output_that_is_a_file_is_one_sentence(release):
    with pytest.raises(UserError, match=r"the folder .*train\.lst cannot be made"):
        generate(release, "--output", str(release / "train.lst"))


@pytest.mark.parametrize("layout", ["dptn", "nted"])
def test_a_file_that_was_cut_off_later_is_made_again(release, layout):
    generate(release, "--layout", layout)
    files = sorted(release.glob("train*/*"))
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[: len(whole) // 2])
    files[1].write_bytes(b"")
    kept = files[2].stat().st_mtime_ns
    assert generate(release, "--layout", layout) == 0
    assert files[0].read_bytes() == whole
    assert files[1].stat().st_size
    assert files[2].stat().st_mtime_ns == kept
