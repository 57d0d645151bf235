"""Original images in a folder or a zip file, read one by one: nothing is unpacked."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path

from util.errors import UserError
from util.names import flatten_deepfashion_path, unflatten_deepfashion_name

EXTENSIONS = (".jpg", ".jpeg", ".png")


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
            yield from sorted(filter(_is_image, names))
            return
        for folder, folders, files in os.walk(self.path):
            folders.sort()
            prefix = Path(folder).relative_to(self.path).as_posix()
            for file in filter(_is_image, sorted(files)):
                yield file if prefix == "." else f"{prefix}/{file}"

    def sample(self, count: int = 3) -> list[str]:
        """A few paths of whatever is there, for messages about a source without images."""
        if self.is_zip:
            return [info.filename for info in self.archive.infolist()[:count]]
        return sorted(path.name for path in self.path.iterdir())[:count]

    def read(self, name: str) -> bytes:
        """Bytes of one image; UserError for a missing or wrong password and for a damaged zip."""
        if not self.is_zip:
            try:
                return (self.path / name).read_bytes()
            except OSError as error:
                raise UserError(
                    f"{self.path / name} cannot be read ({error.strerror}): check the file."
                ) from None
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


def _is_image(name: str) -> bool:
    """Whether a path is that of an image; "._x.jpg" is what macOS stores beside x.jpg."""
    file = name.replace("\\", "/").rpartition("/")[2]
    return file.lower().endswith(EXTENSIONS) and not file.startswith("._")


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
