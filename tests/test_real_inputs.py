"""Data preparation and data sets on what people really have: each input read right or refused."""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from data import create_dataset
from data.fashion_dataset import FashionDataset
from data.fashion_lmdb_dataset import FashionLmdbDataset
from data.prepare import images
from data.prepare.identities import recognise_rule
from options.test_options import TestOptions
from script import (
    convert_annotations,
    generate_fashion_datasets,
    make_pairs,
    prepare_data,
    prepare_market,
)
from tests import tiny_dataset
from tests.conftest import ROOT
from util.errors import UserError
from util.image import load_image
from util.names import check_result_names, is_image
from util.tables.lmdb import LmdbReader, LmdbWriter, close_all
from util.tables.patn import read_keypoints, read_pairs, write_keypoints, write_pairs


def refused(action, *words: str) -> str:
    """The one sentence with which an action is refused; it holds all ``words``."""
    with pytest.raises(UserError) as error:
        action()
    text = str(error.value)
    assert "\n" not in text
    assert all(word in text for word in words), text
    return text


# --- file names ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["a.jpg", "folder/b.PNG", "img\\WOMEN\\c.jpeg", "../photos/d.png", "./e.jpg"]
)
def test_pictures_are_known_by_their_extension(path):
    assert is_image(path)


@pytest.mark.parametrize(
    "path",
    [
        "._a.jpg", ".ipynb_checkpoints/a-checkpoint.jpg", "x/.thumbnails/a.png",
        "__MACOSX/a.jpg", "a.jpg.part", "Thumbs.db", "notes.txt",
    ],
)  # fmt: skip
def test_nothing_hidden_is_a_picture(path):
    assert not is_image(path)


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([("p1.jpg", "b.jpg"), ("p1.png", "b.jpg")], ("p1.jpg", "p1.png")),
        ([("a/bc.jpg", "x.jpg"), ("ab/c.jpg", "x.jpg")], ("a/bc.jpg", "ab/c.jpg")),
        ([("a.jpg", "b_2_c.jpg"), ("a_2_b.jpg", "c.jpg")], ("b_2_c.jpg", "a_2_b.jpg")),
        ([("x.jpg", "x_pose.jpg")], ("x.jpg", "x_pose.jpg", "skeleton")),
    ],
)
def test_results_that_would_overwrite_each_other_are_refused(pairs, words):
    refused(lambda: check_result_names(pairs), *words)


def test_results_of_different_names_pass():
    check_result_names([("a.jpg", "b.jpg"), ("b.jpg", "a.jpg"), ("a.jpg", "a.jpg")])
    check_result_names([("x.jpg", "x_pose.jpg")], page=False)


def test_colliding_names_are_refused_before_anything_is_generated(tmp_path):
    root = tiny_dataset.write(tmp_path / "fashion")
    first, second = tiny_dataset.names("test")
    twin = first.replace(".jpg", ".png")
    Image.open(root / "test" / first).save(root / "test" / twin)
    write_pairs(root / "fasion-resize-pairs-test.csv", [(first, second), (twin, second)])
    table = root / "fasion-resize-annotation-test.csv"
    points = read_keypoints(table)
    write_keypoints(table, {**points, twin: points[first]})
    words = ["--dataroot", str(root), "--gpu_ids", "-1"]
    opt = TestOptions().parse(words)
    refused(lambda: create_dataset(opt), first, twin, "same name")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("kind", ["pipe", "socket", "folder"])
def test_what_is_no_regular_file_is_refused_when_the_data_set_is_opened(tmp_path, kind):
    root = tiny_dataset.write(tmp_path / "f")
    name = tiny_dataset.names("train")[0]
    path = root / "train" / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(path.parent)  # socket paths are short
        try:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(path.name)
        finally:
            os.chdir(here)
    else:
        path.mkdir()
    refused(lambda: FashionDataset(root, "train"), "is no file", "row 2")
    refused(lambda: load_image(path), str(path))


def test_the_row_of_a_missing_image_is_the_right_one_whatever_its_name(tmp_path):
    root = tiny_dataset.write(tmp_path / "fashion")
    name = tiny_dataset.names("train")[0]
    odd = 'a"b.jpg'
    pairs = read_pairs(root / "fasion-resize-pairs-train.csv")
    rows = [(f"xa{name}", name), *pairs[:1], (odd, name)]  # the first holds the second's name
    write_pairs(root / "fasion-resize-pairs-train.csv", rows)
    table = read_keypoints(root / "fasion-resize-annotation-train.csv")
    everything = {**table, odd: table[name], f"xa{name}": table[name]}
    write_keypoints(root / "fasion-resize-annotation-train.csv", everything)
    shutil.copy(root / "train" / name, root / "train" / f"xa{name}")
    refused(lambda: FashionDataset(root, "train"), "row 4", odd)
    (root / "train" / name).rename(root / "train" / odd)
    refused(lambda: FashionDataset(root, "train"), "row 2", name)


def test_a_photograph_of_another_shape_is_named_when_a_training_starts(tmp_path):
    root = tiny_dataset.write(tmp_path / "fashion")
    assert FashionDataset(root, "train").notes() == []
    name = tiny_dataset.names("train")[2]
    tiny_dataset.picture(0, (700, 700)).save(root / "train" / name)
    (note,) = FashionDataset(root, "train").notes()
    assert f"{name} has 700x700" in note


def test_the_folders_of_the_published_step_model_are_read(tmp_path):
    root = tiny_dataset.write(tmp_path / "fashion")
    expected = FashionDataset(root, "train")[0]["source_image"]
    (root / "train").rename(root / "train_higher")
    assert torch.equal(FashionDataset(root, "train")[0]["source_image"], expected)


# --- releases -----------------------------------------------------------------------------------


def generate(root, *more: str) -> int:
    return generate_fashion_datasets.main(["--dataroot", str(root), "--workers", "1", *more])


def test_preparation_reads_pictures_as_training_does(tmp_path):
    root = tiny_dataset.write_release(tmp_path / "r", (75, 110), "img_highres")
    path, name = tiny_dataset.paths("train")[0], tiny_dataset.names("train")[0]
    image = tiny_dataset.picture(0, (110, 75))  # lies on its side
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(root / "img_highres" / path, exif=exif, quality=95)
    assert generate(root, "--output", str(tmp_path / "out")) == 0
    upright = load_image(root / "img_highres" / path)
    assert upright.size == (75, 110)
    expected = upright.resize((176, 256), Image.Resampling.BICUBIC)
    found = load_image(tmp_path / "out" / "train" / name)
    assert np.abs(np.asarray(found, int) - np.asarray(expected, int)).mean() < 3


@pytest.mark.parametrize(
    ("mode", "scale"), [("I;16", 257), ("LA", 1), ("F", 1)], ids=["16 bit", "alpha", "float"]
)
def test_unusual_pictures_keep_their_brightness_in_lmdb(tmp_path, mode, scale):
    grey = np.linspace(0, 255, 64 * 32).reshape(64, 32)
    file = {"I;16": "a.png", "LA": "a.png", "F": "a.tiff"}[mode]
    if mode == "I;16":
        image = Image.fromarray((grey * scale).astype(np.uint16))
    elif mode == "LA":
        image = Image.merge(
            "LA", [Image.fromarray(grey.astype(np.uint8)), Image.new("L", (32, 64), 255)]
        )
    else:
        image = Image.fromarray(grey.astype(np.float32))
    (tmp_path / "img").mkdir()
    image.save(tmp_path / "img" / file)
    (tmp_path / "train_pairs.txt").write_text(f"img/{file},img/{file}\n")
    prepare_data.main(["--root", str(tmp_path), "--workers", "1", "--sizes", "64x32"])
    with Image.open(io.BytesIO(LmdbReader(tmp_path / "64-32").read(f"img/{file}"))) as stored:
        assert np.abs(np.asarray(stored, float)[..., 0] - grey).max() <= 1


def test_own_pictures_of_the_size_of_the_release_are_not_cut(tmp_path):
    (tmp_path / "img").mkdir()
    tiny_dataset.picture(0, (256, 256)).save(tmp_path / "img" / "own.png")
    (tmp_path / "train_pairs.txt").write_text("img/own.png,img/own.png\n")
    prepare_data.main(["--root", str(tmp_path), "--workers", "1", "--sizes", "256x256"])
    data = LmdbReader(tmp_path / "256-256").read("img/own.png")
    expected = np.asarray(load_image(tmp_path / "img" / "own.png"))
    with Image.open(io.BytesIO(data)) as stored:
        assert np.array_equal(np.asarray(stored), expected)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_BYTES", 2_000_000)
    root = tiny_dataset.write_release(tmp_path / "r")
    archive = tmp_path / "img.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for phase in ("train", "test"):
            for path in tiny_dataset.paths(phase):
                file.writestr(
                    f"img/{path}", bytes(250_000_000 if path.endswith("front.jpg") else 9)
                )
    assert archive.stat().st_size < 3_000_000
    refused(lambda: generate(root, "--source", str(archive)), "250,000,000 bytes")


def test_two_releases_of_market_below_one_source_are_refused(tmp_path):
    for place in ("one", "two"):
        for phase in ("train", "test"):
            folder = tmp_path / "all" / place / f"bounding_box_{phase}"
            folder.mkdir(parents=True)
            tiny_dataset.picture(0, (64, 128)).save(folder / "0002_c1s1_1_01.jpg")
    words = ["--source", str(tmp_path / "all"), "--dataroot", str(tmp_path / "out")]
    refused(lambda: prepare_market.main(words), "one/bounding_box", "two/bounding_box", "--source")
    assert not (tmp_path / "out").exists()


def test_images_whose_source_changed_are_made_again(tmp_path, capsys):
    root = tiny_dataset.write_release(tmp_path / "r")
    assert generate(root) == 0
    path, name = tiny_dataset.paths("train")[0], tiny_dataset.names("train")[0]
    before = (root / "train" / name).read_bytes()
    tiny_dataset.picture(99, (256, 256)).save(root / "img" / path, quality=95)
    later = (root / "train" / name).stat().st_mtime + 5
    os.utime(root / "img" / path, (later, later))
    assert generate(root) == 0
    assert "1 files made, 5 were there" in capsys.readouterr().out
    assert (root / "train" / name).read_bytes() != before


# --- LMDB ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """30 images of 1.5 kB and 5 short ones."""
    folder = tmp_path_factory.mktemp("lmdb") / "8-8"
    rng = np.random.default_rng(0)
    with LmdbWriter(folder) as writer:
        writer.put([(f"img/{i}.jpg", rng.bytes(1500 if i < 30 else 20)) for i in range(35)])
        writer.finish()
    close_all()
    return folder


READ_ALL = """
import sys
from util.errors import UserError
from util.tables.lmdb import LmdbReader
for folder in sys.argv[1:]:
    try:
        reader = LmdbReader(folder)
        print(folder, sum(len(reader.read(f"img/{i}.jpg")) for i in range(len(reader))))
    except UserError as error:
        print(error)
"""


def test_a_cut_environment_is_refused_before_it_is_read(environment, tmp_path):
    data = (environment / "data.mdb").read_bytes()
    kept = [int(len(data) * share) for share in (0, 0.001, 0.05, 0.11, 0.3, 0.5, 0.7, 0.9)]
    kept += [len(data) - 4096, len(data) - 1]
    for length in kept:
        (tmp_path / str(length)).mkdir()
        (tmp_path / str(length) / "data.mdb").write_bytes(data[:length])
    folders = [str(tmp_path / str(length)) for length in kept]
    result = subprocess.run(  # a cut map ends the process by SIGBUS
        [sys.executable, "-c", READ_ALL, *folders], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    for length, line in zip(kept, result.stdout.splitlines(), strict=True):
        assert f"is cut off: it has {length:,} bytes" in line


def test_an_environment_whose_tail_is_zero_is_refused(environment, tmp_path):
    data = (environment / "data.mdb").read_bytes()
    (tmp_path / "data.mdb").write_bytes(data[:40_000] + bytes(len(data) - 40_000))
    refused(lambda: LmdbReader(tmp_path), "is damaged", "copy it again")


def test_a_whole_environment_is_read(environment):
    reader = LmdbReader(environment)
    assert len(reader) == 35
    assert len(reader.read("img/3.jpg")) == 1500
    close_all()


def test_preparation_fits_into_a_limited_address_space(tmp_path):
    """A map of a fixed terabyte does not, and a first map that cannot grow is soon full."""
    program = (
        "import resource, sys\n"
        "from util.tables.lmdb import LmdbWriter\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({2**31}, {2**31}))\n"
        "with LmdbWriter(sys.argv[1]) as writer:\n"
        "    for part in range(4):\n"
        "        writer.put([(f'{part}_{i}.jpg', bytes(200_000)) for i in range(100)])\n"
        "    print(writer.finish())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "8-8")], cwd=ROOT, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert result.stdout == "400\n", result.stderr


def test_images_of_an_environment_whose_files_changed_are_made_again(tmp_path, capsys):
    (tmp_path / "img").mkdir()
    for i in range(3):
        tiny_dataset.picture(i, (32, 64)).save(tmp_path / "img" / f"{i}.png")
    (tmp_path / "train_pairs.txt").write_text("img/0.png,img/1.png,img/2.png\n")
    words = ["--root", str(tmp_path), "--workers", "1", "--sizes", "64x32"]
    prepare_data.main(words)
    tiny_dataset.picture(9, (32, 64)).save(tmp_path / "img" / "1.png")
    capsys.readouterr()
    prepare_data.main(words)
    output = capsys.readouterr().out
    assert "1 images changed since they were put there, the first is img/1.png" in output
    assert "1 images made, 3 in all" in output
    with Image.open(io.BytesIO(LmdbReader(tmp_path / "64-32").read("img/1.png"))) as stored:
        assert np.array_equal(np.asarray(stored), np.asarray(tiny_dataset.picture(9, (32, 64))))
    assert set(json.loads((tmp_path / "64-32" / "sources.json").read_text())) == {
        f"img/{i}.png" for i in range(3)
    }


def test_pairs_of_several_sources_name_the_source_of_the_sample(tmp_path):
    (tmp_path / "img").mkdir()
    for i in range(4):
        tiny_dataset.picture(i, (176, 256)).save(tmp_path / "img" / f"{i}.png")
    (tmp_path / "test_pairs.txt").write_text("img/0.png,img/1.png,img/2.png,img/3.png\n" * 6)
    prepare_data.main(["--root", str(tmp_path), "--workers", "1", "--sizes", "256x176"])
    pose = tmp_path / "pose" / "img"
    pose.mkdir(parents=True)
    for i in range(4):
        (pose / f"{i}.txt").write_text("50 50\n" * 18)
    dataset = FashionLmdbDataset(tmp_path, "test")
    drawn = [(dataset[i]["source_name"], dataset[i]["target_name"]) for i in range(len(dataset))]
    assert dataset.pairs == drawn
    assert len({source for source, _ in drawn}) > 1


# --- tables -------------------------------------------------------------------------------------


def test_names_of_published_data_sets_tell_people_apart_without_an_option(tmp_path, capsys):
    names = tiny_dataset.names("train")
    assert recognise_rule(names) == "deepfashion"
    assert recognise_rule(["0002_c1s1_000451_03.jpg", "-1_c2s1_1_01.jpg"]) == "market"
    assert recognise_rule(["anna_1.jpg", "anna_2.jpg"]) == "prefix"
    refused(lambda: recognise_rule([*names, "anna_1.jpg"]), "--identity")
    write_keypoints(tmp_path / "k.csv", {name: np.full((18, 2), 9.0) for name in names})
    make_pairs.main(["--keypoints", str(tmp_path / "k.csv"), "--output", str(tmp_path / "out")])
    assert "--identity deepfashion" in capsys.readouterr().out
    pairs = read_pairs(tmp_path / "out" / "fasion-resize-pairs-train.csv")
    assert set(pairs) == set(tiny_dataset.pairs("train"))


def test_a_keypoint_table_with_commas_is_converted_as_the_sentence_says(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    numbers = json.dumps([5.0] * 18)
    table = root / "fasion-resize-annotation-train.csv"
    table.write_text(f'name,keypoints_y,keypoints_x\na.jpg,"{numbers}","{numbers}"\n')
    text = refused(lambda: read_keypoints(table), "separated by ','")
    assert "convert_annotations.py --from patn --to patn" in text
    words = ["--from", "patn", "--to", "patn", "--input", str(root)]
    convert_annotations.main([*words, "--output", str(tmp_path / "out"), "--phase", "train"])
    points = read_keypoints(tmp_path / "out" / "fasion-resize-annotation-train.csv")
    assert (points["a.jpg"] == 5).all()
