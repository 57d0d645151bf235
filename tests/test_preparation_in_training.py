"""A training says how its images were prepared, and notices when others were prepared otherwise."""

import sys
from pathlib import Path

import pytest

import train as train_command
from script import generate_fashion_datasets
from tests import tiny_dataset
from tests.training_child import SMALL, TinyModel
from util.errors import UserError
from util.tables.manifest import read_manifest, update_manifest

QUIET = [word for word in SMALL if word != "--deterministic"]


@pytest.fixture
def root(tmp_path) -> Path:
    """A data set whose images were made by the preparation script."""
    root = tiny_dataset.write(tmp_path / "data")
    for phase in tiny_dataset.PEOPLE:
        for image in (root / phase).iterdir():
            image.unlink()
    tiny_dataset.write_release(root)
    assert generate_fashion_datasets.main(["--dataroot", str(root), "--workers", "1"]) == 0
    return root


@pytest.fixture
def train(root, tmp_path, monkeypatch, capsys):
    """A function (options) -> what a training of a tiny network says."""

    def run(*more: str) -> str:
        size = ["--loadSize", "8", "--niter", "1", "--niter_decay", "0", "--batchSize", "2"]
        place = ["--dataroot", str(root), "--checkpoints_dir", str(tmp_path), "--name", "run"]
        monkeypatch.setattr(sys, "argv", ["train.py", *place, *QUIET, *size, *more])
        monkeypatch.setattr(train_command, "create_model", TinyModel)
        assert train_command.main() == 0
        captured = capsys.readouterr()
        return captured.out + captured.err

    return run


def change(root: Path, phase: str, **settings) -> None:
    update_manifest(root, {phase: {**read_manifest(root)[phase], **settings}})


def test_the_preparation_is_told_once_without_a_warning(train):
    said = train()
    assert said.count("images: 4 of 4 images from img, crop, filter None, 256x176, JPEG") == 1
    assert "warning" not in said.lower()


def test_other_test_images_a_changed_list_and_an_unfinished_folder_are_warned_of(root, train):
    change(root, "test", filter="box")
    (root / "train.lst").write_text("another.jpg\n")
    said = train()
    assert f"{root / 'test'} was prepared otherwise (filter: None / box)" in said
    assert "train.lst is not the list that" in said
    change(root, "train", complete=False)
    assert "was not finished (4 of 4 images)" in train("--overwrite")


def test_a_resumed_run_notices_that_its_images_were_made_again_in_another_way(root, train):
    train()
    assert "this run began on images" not in train("--continue_train", "--niter", "2")
    for phase in tiny_dataset.PEOPLE:
        change(root, phase, quality=95)
    said = train("--continue_train", "--niter", "3")
    assert "this run began on images that were prepared otherwise (quality: 75 / 95)" in said


def test_a_damaged_manifest_stops_a_training_before_it_touches_its_folder(root, train, tmp_path):
    train()
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    (root / "dataset_manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"dataset_manifest\.json is damaged"):
        train("--overwrite")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before


def test_images_without_a_manifest_need_no_word(root, train):
    (root / "dataset_manifest.json").unlink()
    assert "images:" not in train()
