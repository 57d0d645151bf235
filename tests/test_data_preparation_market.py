"""Market-1501: folders renamed, photographs untouched."""

import zipfile
from pathlib import Path

import pytest
from PIL import Image

from script import prepare_market
from tests import tiny_dataset
from tests.tiny_dataset import contents
from util.errors import UserError
from util.tables.manifest import folder_record


@pytest.fixture
def market(tmp_path) -> Path:
    for phase, names in (
        ("train", ["0002_c1s1_1_01.jpg"]),
        ("test", ["-1_c1_1.jpg", "0000_c1.jpg"]),
    ):
        folder = tmp_path / "Market-1501-v15.09.15" / f"bounding_box_{phase}"
        folder.mkdir(parents=True)
        (folder / "Thumbs.db").write_bytes(b"x")
        for seed, name in enumerate(names):
            tiny_dataset.picture(seed, (64, 128)).save(folder / name)
    return tmp_path


def prepare(root: Path, *more: str) -> int:
    return prepare_market.main(["--dataroot", str(root), "--workers", "1", *more])


def test_market_images_are_copied_byte_for_byte(market):
    assert prepare(market) == 0
    source = market / "Market-1501-v15.09.15" / "bounding_box_test"
    expected = {name: data for name, data in contents(source).items() if name != "Thumbs.db"}
    assert contents(market / "test") == contents(market / "test_12864") == expected
    assert len(contents(market / "train")) == 1
    assert folder_record(market / "train_12864")["size"] == [128, 64]
    assert prepare(market) == 0


def test_market_comes_from_a_zip_too_and_an_odd_size_is_resized_for_the_metrics(market, tmp_path):
    odd = market / "Market-1501-v15.09.15" / "bounding_box_train" / "0002_c1s1_1_01.jpg"
    tiny_dataset.picture(3, (60, 120)).save(odd)
    archive = tmp_path / "market.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in (market / "Market-1501-v15.09.15").rglob("*.jpg"):
            file.write(path, path.relative_to(market))
    root = tmp_path / "prepared"
    assert prepare(root, "--source", str(archive)) == 0
    with (
        Image.open(root / "train" / odd.name) as kept,
        Image.open(root / "train_12864" / odd.name) as resized,
    ):
        assert (kept.size, resized.size) == ((60, 120), (64, 128))


def test_market_without_its_folders_says_what_was_looked_for(tmp_path):
    with pytest.raises(UserError, match="looked for bounding_box_train in"):
        prepare(tmp_path)
    with pytest.raises(
        UserError, match="holds no images in bounding_box_train and bounding_box_test"
    ):
        prepare(tmp_path, "--source", str(tmp_path))


def test_market_folders_of_others_are_left_alone(market):
    (market / "train").mkdir()
    (market / "train" / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"already holds 1 images .*no manifest tells how"):
        prepare(market)


def test_market_from_a_zip_made_on_windows_or_by_macos(market, tmp_path):
    archive, folder = tmp_path / "market.zip", market / "Market-1501-v15.09.15"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*.jpg")):
            inner = path.relative_to(market)
            file.writestr(str(inner).replace("/", "\\"), path.read_bytes())
            file.writestr(f"__MACOSX/{inner.parent}/._{inner.name}", b"Mac OS X")
    root = tmp_path / "prepared"
    assert prepare(root, "--source", str(archive)) == 0
    assert set(contents(root / "test")) == {"-1_c1_1.jpg", "0000_c1.jpg"}
