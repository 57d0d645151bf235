"""A folder of photos becomes a data set and then a trained model, by documented commands."""

import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.fashion_dataset import FashionDataset
from script import extract_keypoints, make_pairs
from tests.photo_helpers import StickFigureEstimator, photo, photo_keypoints
from util.errors import UserError
from util.files import OutputError
from util.person.crop import person_box, to_frame
from util.tables.patn import read_keypoints

ROOT = Path(__file__).resolve().parent.parent
ESTIMATOR = "tests.photo_helpers:StickFigureEstimator"


@pytest.fixture
def photos(tmp_path):
    """Photos of four people, three each; one in a folder of its own."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for person in range(4):
        for view in range(3):
            place = folder / "more" if person == 3 else folder
            image = photo((200 + 20 * view, 300 + 30 * person), person)
            image.save(place / f"person{person}_{view}.{'png' if view else 'jpg'}")
    return folder


def extract(photos: Path, *words: str) -> Path:
    output = photos.parent / "extracted"
    extract_keypoints.main([str(photos), "-o", str(output), "--estimator", ESTIMATOR, *words])
    return output


def test_every_photo_gets_a_picture_of_the_frame_and_a_row(photos, capsys):
    output = extract(photos)
    table = read_keypoints(output / "keypoints.csv")
    assert len(table) == 12
    assert "more/person3_1.png" in table
    for name in table:
        assert Image.open(output / "images" / name).size == (176, 256)
    points = photo_keypoints((220, 300))
    box = person_box(points, (256, 176))
    assert np.array_equal(table["person0_1.png"], to_frame(points, box, (256, 176)))
    assert Image.open(output / "skeletons.jpg").size == (8 * 180 - 4, 2 * 256 + 4)
    text = capsys.readouterr().out
    assert "12 of 12 photos" in text
    assert "python -m script.make_pairs --keypoints" in text


def test_what_lies_outside_the_photo_is_mid_grey_in_a_training_picture(photos):
    photo((60, 300), 1).save(photos / "person0_0.png")  # too narrow for the frame
    (photos / "person0_0.jpg").unlink()
    pixels = np.asarray(Image.open(extract(photos) / "images" / "person0_0.png"))
    assert (pixels[:, :10] == 128).all()
    assert (pixels[:, -10:] == 128).all()
    assert (pixels[:, 80:96] != 128).any(axis=2).all()


def test_whole_photos_of_market_size(photos):
    output = extract(photos, "--dataset_mode", "market", "--crop", "none")
    assert Image.open(output / "images" / "person1_0.png").size == (64, 128)
    points = read_keypoints(output / "keypoints.csv")["person0_0.png"]
    assert np.array_equal(points, np.floor(photo_keypoints((200, 300)) * (128 / 300, 64 / 200)))


def test_unusable_photos_are_named_and_left_out(photos, capsys):
    Image.new("RGB", (3, 3)).save(photos / "dot.png")
    (photos / "note.jpg").write_text("hello")
    table = read_keypoints(extract(photos) / "keypoints.csv")
    assert len(table) == 12
    text = capsys.readouterr().out
    assert f"left out: {photos / 'dot.png'} is 3 x 3 pixels" in text
    assert f"left out: {photos / 'note.jpg'} is not a readable image" in text
    assert "12 of 14 photos" in text


class NobodyEstimator:
    def estimate(self, image):
        return []


def test_photos_without_anybody_are_refused(photos, tmp_path):
    with pytest.raises(UserError, match=r"none of the 12 photos in .* shows a usable person"):
        extract(photos, "--estimator", "tests.test_extract:NobodyEstimator")
    assert not (tmp_path / "extracted" / "keypoints.csv").exists()


class StoppingEstimator(StickFigureEstimator):
    """Is stopped at the photo number ``stop_at``, counted from 0; counts its photos."""

    stop_at, seen = None, 0

    def estimate(self, image):
        if type(self).seen == self.stop_at:
            raise KeyboardInterrupt
        type(self).seen += 1
        return super().estimate(image)


def test_a_stopped_run_goes_on_where_it_was(photos, monkeypatch):
    expected = extract(photos)
    wanted = {p.relative_to(expected): p.read_bytes() for p in expected.rglob("*") if p.is_file()}
    shutil.rmtree(expected)
    (photos / "note.jpg").write_text("hello")
    words = ("--estimator", "tests.test_extract:StoppingEstimator")
    monkeypatch.setattr(StoppingEstimator, "stop_at", 7)
    with pytest.raises(KeyboardInterrupt):
        extract(photos, *words)
    journal = expected / "unfinished.jsonl"
    journal.write_text(journal.read_text() + '[]\n7\n{}\n{"name": "torn')
    photo((220, 300), 0).save(photos / "person0_1.png")  # written again, so estimated again
    monkeypatch.setattr(StoppingEstimator, "stop_at", None)
    with pytest.raises(UserError, match=r"an unfinished run with other settings \(crop\)"):
        extract(photos, *words, "--crop", "none")
    extract(photos, *words)
    assert StoppingEstimator.seen == 12 + 1
    found = {p.relative_to(expected): p.read_bytes() for p in expected.rglob("*") if p.is_file()}
    assert found == wanted


def test_a_full_disk_names_the_journal_and_says_that_what_is_done_is_kept():
    with pytest.raises(OutputError, match=r"/dev/full cannot be written .*photos are kept"):
        extract_keypoints.enter(Path("/dev/full"), {"name": "a.png"})


def test_no_picture_is_kept_in_memory(tmp_path):
    first, folder = tmp_path / "first" / "photos", tmp_path / "photos"
    for place, count in ((first, 1), (folder, 300)):
        place.mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (100, 150), (i % 256, 0, 0)).save(place / f"{i}.png")
    extract(first, "--dataset_mode", "market")  # modules that are imported are no pictures
    tracemalloc.start()
    extract(folder, "--dataset_mode", "market")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150 * 128 * 64 * 3  # the overview shows 24; 300 would be kept


def test_two_photos_of_one_name_are_refused(photos):
    photo().save(photos / "person0_1.jpg")
    with pytest.raises(UserError, match=r"would both become person0_1\.png; rename one"):
        extract(photos)


def test_an_earlier_table_is_only_replaced_on_request(photos):
    extract(photos)
    with pytest.raises(UserError, match=r"keypoints\.csv exists already.*--overwrite"):
        extract(photos)
    extract(photos, "--overwrite")


@pytest.mark.parametrize("place", ["", "extracted", "more/extracted"])
def test_an_output_among_the_photos_is_refused(photos, place):
    with pytest.raises(UserError, match=r"lies inside .*choose a folder beside it"):
        extract(photos, "--output", str(photos / place))
    assert not list(photos.rglob("keypoints.csv"))


def test_a_missing_or_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        extract(tmp_path / "photos")
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match="holds no pictures"):
        extract(tmp_path / "photos")


def test_missing_estimator_weights_stop_before_the_first_photo(photos, capsys):
    with pytest.raises(UserError, match="no such file; expected torchvision's keypointrcnn"):
        extract(photos, "--estimator", "torchvision", "--weights", "none.pth")
    assert "left out" not in capsys.readouterr().out


def test_by_default_the_output_lies_beside_the_folder(photos):
    extract_keypoints.main([str(photos), "--estimator", ESTIMATOR])
    assert (photos.parent / "photos_extracted" / "keypoints.csv").is_file()


def test_the_result_opens_as_a_data_set(photos, tmp_path):
    output = extract(photos)
    root = tmp_path / "data"
    make_pairs.main([
        "--keypoints", str(output / "keypoints.csv"), "--images", str(output / "images"),
        "--output", str(root), "--identity", r"(person\d)", "--test_share", "0.25",
    ])  # fmt: skip
    train, test = FashionDataset(root, "train"), FashionDataset(root, "test")
    assert (len(train), len(test)) == (3 * 6, 6)
    assert train[0]["source_image"].shape == (3, 256, 256)


@pytest.mark.slow
def test_from_photos_to_a_transferred_picture_by_commands_alone(photos, tmp_path):
    def run(*words: str) -> str:
        command = [sys.executable, *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    output, root, runs = tmp_path / "extracted", tmp_path / "data", tmp_path / "runs"
    run("-m", "script.extract_keypoints", str(photos), "-o", str(output), "--estimator", ESTIMATOR)
    run("-m", "script.make_pairs", "--keypoints", str(output / "keypoints.csv"),
        "--images", str(output / "images"), "--output", str(root), "--identity", r"(person\d)",
        "--test_share", "0.25")  # fmt: skip
    common = ("--name", "mine", "--checkpoints_dir", str(runs), "--dataroot", str(root))
    small = ("--ngf", "8", "--ndf", "8", "--load_size", "64", "64", "--batchSize", "2")
    run("train.py", *common, *small, "--vgg_weights", "random", "--niter", "1",
        "--niter_decay", "0", "--nThreads", "0", "--gpu_ids", "-1")  # fmt: skip
    run("-m", "script.transfer", "--checkpoint", str(runs / "mine"), "--estimator", ESTIMATOR,
        "--source", str(photos / "person0_1.png"), "--pose", str(photos / "person1_1.png"),
        "-o", str(tmp_path / "out.png"), "--device", "cpu")  # fmt: skip
    assert Image.open(tmp_path / "out.png").size == (220, 300)
    run("test.py", *common, "--results_dir", str(tmp_path / "results"), "--gpu_ids", "-1",
        "--nThreads", "0")  # fmt: skip
    assert (tmp_path / "results" / "index.html").is_file()
    assert len(list((tmp_path / "results").glob("*_vis.png"))) == 6
