"""Make folders of images from a release: parallel, restartable, never half a file."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from util.errors import UserError
from util.files import OutputError, make_folder, remove_leftovers, write_file
from util.image import image_from_bytes
from util.names import flatten_deepfashion_path, is_image, unflatten_deepfashion_name
from util.parallel import map_in_order
from util.tables.layouts import CROP_BOX, RELEASE_SIZE, Preparation
from util.tables.manifest import differences, read_manifest, update_manifest

MAX_BYTES = 200_000_000  # of one image file, unpacked


class ImageSource:
    """Image files below a folder or inside a zip; cheap to send to another process.

    ``names()`` yields paths with ``/`` relative to the root; ``read(name)`` returns the bytes.
    """

    def __init__(self, path: str | os.PathLike, password: str | None = None):
        self.path, self.password = Path(path), password
        self.is_zip = self.path.is_file()
        if not self.path.exists():
            raise UserError(
                f"{self.path} does not exist; expected a folder of images or a zip file."
            )

    def __getstate__(self) -> dict:
        return {k: v for k, v in self.__dict__.items() if k != "archive"}  # handles stay here

    def reopen(self) -> None:
        """Forget the open zip: a forked process must not share its file position with others."""
        self.__dict__.pop("archive", None)

    @cached_property
    def archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(
                f"{self.path} cannot be opened as a zip file ({error}); expected a complete "
                "download: fetch it again, or unpack it and give the folder."
            ) from None

    def names(self) -> Iterator[str]:
        """Every image file, in a fixed order."""
        if self.is_zip:
            names = (info.filename for info in self.archive.infolist() if not info.is_dir())
            yield from sorted(filter(is_image, names))
            return
        for folder, folders, files in os.walk(self.path):
            folders.sort()
            prefix = Path(folder).relative_to(self.path).as_posix()
            for file in sorted(files):
                path = file if prefix == "." else f"{prefix}/{file}"
                if is_image(path) and (self.path / path).is_file():
                    yield path

    def sample(self, count: int = 3) -> list[str]:
        """A few paths of whatever is there, for messages about a source without images."""
        if self.is_zip:
            return [info.filename for info in self.archive.infolist()[:count]]
        return sorted(path.name for path in self.path.iterdir())[:count]

    def read(self, name: str) -> bytes:
        """Bytes of one image; UserError for a wrong password, a damaged zip and a huge file."""
        if not self.is_zip:
            try:
                self._check_size(name, (self.path / name).stat().st_size)
                return (self.path / name).read_bytes()
            except OSError as error:
                raise UserError(
                    f"{self.path / name} cannot be read ({error.strerror}): check the file."
                ) from None
        self._check_size(name, self.archive.getinfo(name).file_size)
        password = self.password.encode() if self.password else None
        try:
            return self.archive.read(name, pwd=password)
        except NotImplementedError as error:
            raise UserError(
                f"{self.path} uses a protection or compression that cannot be read here ({error}): "
                "unpack it with 7-Zip or unzip and give the folder."
            ) from None
        except RuntimeError as error:
            raise UserError(self._password_message(error)) from None
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            if self.password and self.is_protected(name):
                raise UserError(self._password_message(error)) from None
            raise UserError(
                f"{self.path}: {name} is damaged ({error}); fetch the zip again."
            ) from None

    def _check_size(self, name: str, size: int) -> None:
        if size > MAX_BYTES:
            raise UserError(
                f"{self.path}: {name} has {size:,} bytes; at most {MAX_BYTES:,} are accepted: "
                "replace the file."
            )

    def changed(self, name: str) -> float:
        """When the file of an image, or the zip that holds it, was changed (seconds)."""
        return (self.path if self.is_zip else self.path / name).stat().st_mtime

    def is_protected(self, name: str) -> bool:
        """Whether a member of the zip is encrypted."""
        return self.is_zip and bool(self.archive.getinfo(name).flag_bits & 1)

    def _password_message(self, error: Exception) -> str:
        if self.password:
            return (
                f"{self.path}: the given --password does not open it ({error}); check its spelling."
            )
        return (
            f"{self.path} is protected by a password; give it with --password. The authors of "
            "DeepFashion send the password of img_highres.zip after the signed agreement, which "
            "may take long; the 256x256 release img.zip is the one DPTN and PATN were made from."
        )


def deepfashion_entries(source: ImageSource) -> tuple[dict[str, str], list[str]]:
    """Flat name -> path of every DeepFashion image in ``source``, and all other image paths.

    Images that are flat already (from another project's preparation) count where there is no other.
    """
    names = list(source.names())
    entries, others = _entries(source, names, flatten_deepfashion_path)
    if not entries:
        entries, others = _entries(source, names, _flat_already)
    return entries, others


def _entries(
    source: ImageSource, names: Iterable[str], flatten: Callable[[str], str]
) -> tuple[dict[str, str], list[str]]:
    entries: dict[str, str] = {}
    others: list[str] = []
    for path in names:
        try:
            flat = flatten(path.replace("\\", "/"))  # of zips made on Windows
        except UserError:
            others.append(path)
            continue
        if flat in entries:
            raise UserError(
                f"{source.path} holds {path} and {entries[flat]}, which are the same image of two "
                "releases; expected one of them: choose with --source PATH/img or PATH/img_highres."
            )
        entries[flat] = path
    return entries, others


def _flat_already(path: str) -> str:
    name = path.rpartition("/")[2]
    unflatten_deepfashion_name(name)  # refuses others
    return name


FILTERS = {
    name: Image.Resampling[name.upper()]
    for name in ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
}


@dataclass(frozen=True)
class Output:
    """One file to make: destination and recipe."""

    path: Path
    how: Preparation


@dataclass(frozen=True)
class Job:
    """Settings every worker process needs."""

    source: ImageSource
    filter: str = "bicubic"
    quality: int = 75  # Pillow's default, as published

    def make(self, member: str, outputs: Iterable[Output]) -> int:
        """Write the missing ones of ``outputs`` from one source image; how many were made."""
        changed = self.source.changed(member)
        missing = [output for output in outputs if not _is_current(output.path, changed)]
        if not missing:
            return 0
        data = self.source.read(member)
        image = image_from_bytes(data, f"{self.source.path}: {member}")
        for output in missing:
            write_file(output.path, self.encode(data, image, output.how, member))
        return len(missing)

    def encode(self, data: bytes, image: Image.Image, how: Preparation, member: str) -> bytes:
        """Bytes of the result; ``copy`` keeps the source bytes, everything else encodes once."""
        if how.steps == ("copy",) and (how.size is None or _size(image) == how.size):
            return data
        for step in how.steps:
            image = STEPS[step](image, how.size or _size(image), FILTERS[self.filter], member)
        buffer = io.BytesIO()
        options = {"quality": self.quality} if how.file_format == "JPEG" else {}
        image.save(buffer, how.file_format, **options)
        return buffer.getvalue()


def _is_current(path: Path, changed: float) -> bool:
    """Whether a file is not older than its source and ends as JPEG and PNG files do.

    Others were cut off by somebody else.
    """
    if not path.is_file() or path.stat().st_mtime < changed:
        return False
    with path.open("rb") as stream:
        length = stream.seek(0, 2)
        stream.seek(max(0, length - 8))
        return stream.read().endswith((b"\xff\xd9", b"IEND\xaeB`\x82"))


def _size(image: Image.Image) -> tuple[int, int]:
    return image.height, image.width


def _crop(image: Image.Image, size: tuple[int, int], resampling: int, member: str) -> Image.Image:
    if _size(image) != RELEASE_SIZE:
        raise UserError(
            f"{member} has {image.width}x{image.height} pixels; expected 256x256, the release "
            "'img': if this is img_highres, say so with --source_kind img_highres."
        )
    return image.crop(CROP_BOX)


def _resize(image: Image.Image, size: tuple[int, int], resampling: int, member: str) -> Image.Image:
    return image.resize((size[1], size[0]), resampling)


def _pad(image: Image.Image, size: tuple[int, int], resampling: int, member: str) -> Image.Image:
    canvas = Image.new("RGB", (RELEASE_SIZE[1], RELEASE_SIZE[0]), "white")
    canvas.paste(image, CROP_BOX[:2])
    return canvas


STEPS: dict[str, Callable[..., Image.Image]] = {
    "copy": _resize,  # reached only when the source has another size than asked for
    "crop": _crop,
    "resize": _resize,
    "pad": _pad,
}


def run(
    job: Job, tasks: Mapping[str, list[Output]], workers: int
) -> Iterator[tuple[str, int, str | None]]:
    """Make everything; yields (source name, files made, problem or None) in any order.

    A damaged source image is reported and the others go on; a full disk or a wrong password stops.
    """
    for folder in {o.path.parent for outputs in tasks.values() for o in outputs}:
        make_folder(folder)
        remove_leftovers(folder)
    yield from map_in_order(_make_one, tasks.items(), workers, _start, (job,), chunk=32)


def count_outdated(source: ImageSource, tasks: Mapping[str, list[Output]]) -> int:
    """How many finished images are older than their source: they will be made again."""
    return sum(
        output.path.is_file() and output.path.stat().st_mtime < source.changed(member)
        for member, outputs in tasks.items()
        for output in outputs
    )


def images_in(folder: Path) -> list[Path]:
    """Image files directly in a folder; none when it does not exist."""
    return [path for path in folder.glob("*") if is_image(path.name)]


def refuse_other_settings(output: Path, records: dict[str, dict], overwrite: bool) -> None:
    """Never mix images made in two ways: UserError; ``overwrite`` removes the old ones first."""
    known = read_manifest(output) or {}
    for folder, record in records.items():
        files = images_in(output / folder)
        unknown = folder not in known
        changes = differences(known.get(folder), record)
        if not unknown and known[folder].get("list_sha256") != record["list_sha256"]:
            changes.append(f"another {record['list']}")
        if not files or not (unknown or changes):
            continue
        if not overwrite:
            how = "; ".join(changes) or "no manifest tells how"
            raise UserError(
                f"{output / folder} already holds {len(files):,} files that were made differently "
                f"({how}); expected an empty folder or the same settings: choose another --output, "
                "or replace them with --overwrite."
            )
        for file in files:
            file.unlink()


def complete_manifest(
    root: Path, records: dict[str, dict[str, Any]], tasks: Mapping[str, list[Output]]
) -> None:
    """Count the files that exist, enter the counts in the records and write the manifest."""
    made = Counter(o.path.parent for outputs in tasks.values() for o in outputs if o.path.is_file())
    for folder, record in records.items():
        record["images"] = made[root / folder]
        record["complete"] = record["images"] == record["expected"]
    update_manifest(root, records)


_job: Job | None = None


def _start(job: Job) -> None:
    global _job
    job.source.reopen()
    _job = job


def _make_one(task: tuple[str, list[Output]]) -> tuple[str, int, str | None]:
    member, outputs = task
    try:
        return member, _job.make(member, outputs), None
    except OutputError:
        raise
    except UserError as error:
        return member, 0, str(error)
