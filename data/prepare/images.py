"""Make folders of images from a release: parallel, restartable, never half a file."""

import functools
import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from util.errors import UserError
from util.files import OutputError, make_folder, remove_leftovers, write_file
from util.image import image_from_bytes
from util.names import flatten_deepfashion_path, is_image
from util.parallel import map_in_order
from util.run.progress import progress_bar
from util.tables.layouts import CROP_BOX, MARKET_SIZE, RELEASE_SIZE, Preparation
from util.tables.manifest import differences, file_sha256, read_manifest, update_manifest

MAX_BYTES = 200_000_000  # of one image file, unpacked
QUALITY = 75  # of JPEG files: Pillow's default, as published
FILTERS = {resampling.name.lower(): resampling for resampling in Image.Resampling}


@functools.lru_cache(maxsize=1)  # each process has its own: a file position cannot be shared
def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(
            f"{path} cannot be opened as a zip file ({error}); expected a complete "
            "download: fetch it again, or unpack it and give the folder."
        ) from None


@dataclass(frozen=True)
class ImageSource:
    """Image files below a folder or inside a zip; names have ``/`` and are relative to the root."""

    path: Path
    password: str | None = None

    def __post_init__(self) -> None:
        if not self.path.exists():
            raise UserError(
                f"{self.path} does not exist; expected a folder of images or a zip file."
            )

    def names(self) -> list[str]:
        """Every image file, in a fixed order."""
        if self.path.is_file():
            names = _archive(self.path).namelist()
        else:
            files = (path for path in self.path.rglob("*") if path.is_file())
            names = [path.relative_to(self.path).as_posix() for path in files]
        return sorted(filter(is_image, names))

    def sample(self) -> str:
        """A few paths of whatever is there, for messages about a source without images."""
        if self.path.is_file():
            names = _archive(self.path).namelist()
        else:
            names = sorted(path.name for path in self.path.iterdir())
        return ", ".join(names[:3]) or "nothing"

    def read(self, name: str) -> bytes:
        """Bytes of one image; UserError for a wrong password, a damaged zip and a huge file."""
        if not self.path.is_file():
            try:
                self._check_size(name, (self.path / name).stat().st_size)
                return (self.path / name).read_bytes()
            except OSError as error:
                raise UserError(
                    f"{self.path / name} cannot be read ({error.strerror}): check the file."
                ) from None
        member = _archive(self.path).getinfo(name)
        self._check_size(name, member.file_size)
        try:
            return _archive(self.path).read(member, pwd=(self.password or "").encode() or None)
        except (RuntimeError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            if isinstance(error, NotImplementedError):
                problem = (
                    f"its protection or compression cannot be read here ({error}): unpack it with "
                    "7-Zip or unzip and give the folder."
                )
            elif not member.flag_bits & 1:
                problem = f"{name} is damaged ({error}); fetch the zip again."
            elif self.password:
                problem = f"the given --password does not open it ({error}); check its spelling."
            else:
                problem = (
                    "it is protected by a password; give it with --password. The authors of "
                    "DeepFashion send the password of img_highres.zip after the signed agreement, "
                    "which may take long; the 256x256 release img.zip is the one DPTN and PATN "
                    "were made from."
                )
            raise UserError(f"{self.path}: {problem}") from None

    def _check_size(self, name: str, size: int) -> None:
        if size > MAX_BYTES:
            raise UserError(
                f"{self.path}: {name} has {size:,} bytes; at most {MAX_BYTES:,} are accepted: "
                "replace the file."
            )


def deepfashion_entries(source: ImageSource) -> tuple[dict[str, str], list[str]]:
    """Flat name -> path of every DeepFashion image in ``source``, and all other image paths."""
    entries: dict[str, str] = {}
    others = []
    for path in source.names():
        try:
            flat = flatten_deepfashion_path(path.replace("\\", "/"))  # of zips made on Windows
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


def make_images(
    root: Path,
    source: ImageSource,
    kind: str,  # of the release
    preparations: Sequence[Preparation],
    images: Mapping[str, Mapping[str, str | None]],  # phase -> name -> its path in the release
    workers: int,
    lists: Mapping[str, Path] | None = None,  # phase -> file that lists the names
) -> tuple[dict[str, dict[str, Any]], list[tuple[int, str | None]]]:
    """Make all folders; their records, and (files made, problem or None) of each image.

    UserError when a folder holds images that were made in another way. A damaged source image is
    reported and the others go on; a full disk stops. The manifest has the records from the start,
    and at the end how many files there are.
    """
    records = {}
    tasks: dict[str, list[tuple[Path, Preparation]]] = {}  # image of the release -> files to make
    for phase, found in images.items():
        for how in preparations:
            folder = how.folder.format(phase=phase)
            records[folder] = _record(how, kind, len(found), lists and lists[phase])
            for name, member in found.items():
                if member is not None:
                    file = Path(name).with_suffix(".png") if how.file_format == "PNG" else name
                    tasks.setdefault(member, []).append((root / folder / file, how))
    make_folder(root)
    _refuse_other_settings(root, records)
    update_manifest(root, records)
    for folder in records:
        remove_leftovers(make_folder(root / folder))
    steps = map_in_order(functools.partial(_make, source), tasks.items(), workers, chunk=32)
    results = list(progress_bar(steps, total=len(tasks), unit="image"))
    made = Counter(p.parent for files in tasks.values() for p, _ in files if p.is_file())
    for folder, record in records.items():
        record["images"] = made[root / folder]
        record["complete"] = record["images"] == record["expected"]
    update_manifest(root, records)
    return records, results


def _record(how: Preparation, kind: str, expected: int, listed: Path | None) -> dict[str, Any]:
    """What the manifest says about one folder before its images are made."""
    resizes = "resize" in how.steps or how.size == MARKET_SIZE
    size = RELEASE_SIZE if "pad" in how.steps else how.size
    encodes = how.steps != ("copy",) and how.file_format == "JPEG"
    return {
        "source": kind,
        "steps": list(how.steps),
        "filter": how.resampling if resizes else None,
        "size": list(size) if size else None,
        "file_format": how.file_format,
        "quality": QUALITY if encodes else None,
        "images": 0,
        "expected": expected,
        "complete": False,
        **({"list": listed.name, "list_sha256": file_sha256(listed)} if listed else {}),
    }


def _refuse_other_settings(root: Path, records: dict[str, dict[str, Any]]) -> None:
    known = read_manifest(root) or {}
    for folder, record in records.items():
        changes = differences(known.get(folder), record)
        if folder not in known:
            changes = ["no manifest tells how"]
        elif known[folder].get("list_sha256") != record.get("list_sha256"):
            changes.append(f"another {record.get('list')}")
        count = len(images_in(root / folder))
        if count and changes:
            raise UserError(
                f"{root / folder} already holds {count:,} images that were made differently "
                f"({'; '.join(changes)}); expected an empty folder or the same settings: move it "
                "away, or choose another folder for the new ones."
            )


def images_in(folder: Path) -> list[Path]:
    """Image files directly in a folder; none when it does not exist."""
    return [path for path in folder.glob("*") if is_image(path.name)]


def _make(
    source: ImageSource, task: tuple[str, list[tuple[Path, Preparation]]]
) -> tuple[int, str | None]:
    """Write the missing files of one source image."""
    member, outputs = task
    try:
        file = source.path if source.path.is_file() else source.path / member
        changed = file.stat().st_mtime
        missing = [output for output in outputs if not _is_current(output[0], changed)]
        if missing:
            data = source.read(member)
            image = image_from_bytes(data, f"{source.path}: {member}")
        for path, how in missing:
            write_file(path, encode(data, image, how, member))
        return len(missing), None
    except OutputError:
        raise
    except UserError as error:
        return 0, str(error)


def _is_current(path: Path, changed: float) -> bool:
    """Whether a file is not older than its source and ends as JPEG and PNG files do.

    Others were cut off by somebody else.
    """
    if not path.is_file() or path.stat().st_mtime < changed:
        return False
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 8))
        return stream.read().endswith((b"\xff\xd9", b"IEND\xaeB`\x82"))


def encode(data: bytes, image: Image.Image, how: Preparation, member: str) -> bytes:
    """Bytes of the result; ``copy`` keeps the source bytes, everything else encodes once."""
    if how.steps == ("copy",) and how.size in (None, (image.height, image.width)):
        return data
    for step in how.steps:
        if step == "crop":
            if image.size != RELEASE_SIZE[::-1]:
                raise UserError(
                    f"{member} has {image.width}x{image.height} pixels; expected 256x256, as the "
                    "other images of the release 'img': replace the file."
                )
            image = image.crop(CROP_BOX)
        elif step == "pad":
            canvas = Image.new("RGB", RELEASE_SIZE[::-1], "white")
            canvas.paste(image, CROP_BOX[:2])
            image = canvas
        else:  # resize, and copies of another size
            image = image.resize(how.size[::-1], FILTERS[how.resampling])
    buffer = io.BytesIO()
    image.save(buffer, how.file_format, quality=QUALITY)
    return buffer.getvalue()
