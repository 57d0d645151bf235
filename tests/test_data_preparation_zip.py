"""Releases in zip files, among them protected ones."""

import zipfile
import zlib
from pathlib import Path

import pytest
from PIL import Image

from script import generate_fashion_datasets
from tests import tiny_dataset
from tests.tiny_dataset import contents
from util.errors import UserError
from util.names import flatten_deepfashion_path
from util.tables.manifest import folder_record


@pytest.fixture
def release(tmp_path) -> Path:
    return tiny_dataset.write_release(tmp_path / "fashion")


def generate(root: Path, *more: str) -> int:
    return generate_fashion_datasets.main(["--dataroot", str(root), "--workers", "1", *more])


def test_a_zip_gives_the_same_files_as_the_folder_and_is_not_unpacked(release, tmp_path):
    generate(release)
    archive = tmp_path / "img.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted((release / "img").rglob("*.jpg")):
            file.write(path, path.relative_to(release))
        file.writestr("img/readme.txt", "hello")
    output = tmp_path / "out"
    assert generate(release, "--source", str(archive), "--output", str(output)) == 0
    assert contents(output / "train") == contents(release / "train")
    assert sorted(p.name for p in output.iterdir()) == ["dataset_manifest.json", "test", "train"]


def test_several_processes_read_one_zip_without_disturbing_each_other(tmp_path):
    names = []
    with zipfile.ZipFile(tmp_path / "img.zip", "w") as file:
        for i in range(400):
            path = f"MEN/Denim/id_{i:08d}/01_1_front.jpg"
            names.append(flatten_deepfashion_path(path))
            file.writestr(
                f"img/{path}", tiny_dataset.jpeg(Image.new("RGB", (256, 256), (i % 256, 0, 0)))
            )
    (tmp_path / "train.lst").write_text("\n".join(names[:300]))
    (tmp_path / "test.lst").write_text("\n".join(names[300:]))
    assert generate(tmp_path, "--workers", "4") == 0
    assert folder_record(tmp_path / "train")["complete"] is True


# PKWARE's classic encryption, which Python reads but does not write.


def encrypted_zip(path: Path, files: dict[str, bytes], password: bytes) -> None:
    """A zip whose members are stored with the classic encryption."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, _encrypt(data, password))
    content = bytearray(path.read_bytes())
    for name, data in files.items():
        fields = zlib.crc32(data).to_bytes(4, "little")
        size = len(data).to_bytes(4, "little")
        for mark, flag, crc, plain in ((b"PK\3\4", 6, 14, 22), (b"PK\1\2", 8, 16, 24)):
            start = _header_of(bytes(content), mark, name)
            content[start + flag] |= 1
            content[start + crc : start + crc + 4] = fields
            content[start + plain : start + plain + 4] = size
    path.write_bytes(content)


def _header_of(content: bytes, mark: bytes, name: str) -> int:
    length = 30 if mark == b"PK\3\4" else 46
    start = content.find(mark)
    while content[start + length : start + length + len(name)] != name.encode():
        start = content.find(mark, start + 1)
    return start


def _encrypt(data: bytes, password: bytes) -> bytes:
    keys = [0x12345678, 0x23456789, 0x34567890]

    def crc(value: int, byte: int) -> int:
        return (zlib.crc32(bytes([byte]), value ^ 0xFFFFFFFF) ^ 0xFFFFFFFF) & 0xFFFFFFFF

    def update(byte: int) -> None:
        keys[0] = crc(keys[0], byte)
        keys[1] = ((keys[1] + (keys[0] & 255)) * 134775813 + 1) & 0xFFFFFFFF
        keys[2] = crc(keys[2], keys[1] >> 24)

    for byte in password:
        update(byte)
    result = bytearray()
    check = zlib.crc32(data) >> 24
    for byte in bytes(11) + bytes([check]) + data:
        key = keys[2] | 2
        result.append(byte ^ ((key * (key ^ 1)) >> 8 & 255))
        update(byte)
    return bytes(result)


@pytest.fixture
def protected(release, tmp_path) -> Path:
    files = {
        path.relative_to(release).as_posix(): path.read_bytes()
        for path in sorted((release / "img").rglob("*.jpg"))
    }
    encrypted_zip(tmp_path / "img.zip", files, b"secret")
    return tmp_path / "img.zip"


def test_a_protected_zip_opens_with_its_password(release, protected, tmp_path):
    generate(release)
    output = tmp_path / "out"
    arguments = ("--source", str(protected), "--output", str(output), "--password", "secret")
    assert generate(release, *arguments) == 0
    assert contents(output / "train") == contents(release / "train")


def test_a_protected_zip_without_its_password_explains_before_people_wait(release, protected):
    with pytest.raises(UserError, match=r"give it with --password.*img.zip is the one"):
        generate(release, "--source", str(protected))
    with pytest.raises(UserError, match="the given --password does not open it"):
        generate(release, "--source", str(protected), "--password", "wrong")
    assert not (release / "train").exists()


def test_an_incomplete_zip_is_refused(release, protected):
    protected.write_bytes(protected.read_bytes()[:2000])
    with pytest.raises(UserError, match="cannot be opened as a zip file"):
        generate(release, "--source", str(protected))


def test_a_zip_made_on_windows_or_by_macos_gives_the_same_files(release, tmp_path):
    generate(release)
    archive = tmp_path / "img.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted((release / "img").rglob("*.jpg")):
            inner = path.relative_to(release)
            file.writestr(str(inner).replace("/", "\\"), path.read_bytes())
            file.writestr(f"__MACOSX/{inner.parent}/._{inner.name}", b"Mac OS X")
    output = tmp_path / "out"
    assert generate(release, "--source", str(archive), "--output", str(output)) == 0
    assert contents(output / "train") == contents(release / "train")


def test_a_zip_that_holds_another_zip_says_so(release, tmp_path):
    archive = tmp_path / "download.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("Img/img.zip", b"")
    with pytest.raises(UserError, match=r"0 other image files; it holds Img/img\.zip"):
        generate(release, "--source", str(archive))
