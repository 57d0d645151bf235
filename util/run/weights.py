"""Published weight files: found on disk or downloaded, verified, never substituted."""

import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import torch

from util.errors import UserError
from util.files import replacing
from util.run import checkpoint
from util.run.progress import progress_bar

TIMEOUT = 30  # seconds without a byte


@dataclass(frozen=True)
class PublishedFile:
    """A weight file that somebody published."""

    what: str  # "the MAGPT generator"
    name: str  # its file name in the caches
    url: str
    sha256: str | None = None  # the whole hash or its first digits
    advice: str = "give the path of your copy"  # to somebody without the internet


def cache_folders() -> list[Path]:
    """Where files are looked for: MAGPT's own cache, then the torch hub's (``TORCH_HOME``)."""
    return [
        Path.home() / ".cache" / "torch" / "checkpoints",
        Path(torch.hub.get_dir()) / "checkpoints",
    ]


def find_weights(
    file: PublishedFile,
    path: str | os.PathLike | None = None,  # the user's own copy; nothing else is tried then
    ignore_cache: bool = False,  # download again
) -> Path:
    """Path of a local copy: ``path``, else a cached one, else a download.

    A cached or downloaded file must have the published hash, where one is known; a file of the
    user's own may be another training of the same network. Raises a UserError that says where the
    file can be put when it cannot be had.
    """
    if path is not None:
        if not Path(path).is_file():
            raise UserError(
                f"{path}: no such file; expected {file.what} ({file.name}), published at {file.url}"
            )
        return Path(path)
    cached = [folder / file.name for folder in cache_folders()]
    found = next((place for place in cached if place.is_file() and not ignore_cache), None)
    if found is None:
        return _download(file, cached[-1])
    if file.sha256 and not checkpoint.file_hash(found).startswith(file.sha256):
        raise UserError(
            f"{found} is not {file.what}: its sha256 does not begin with {file.sha256}; delete it "
            f"and download {file.url}"
        )
    return found


def load_weights(file: PublishedFile, path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a weight file, on the CPU, without wrapper prefixes."""
    try:
        return checkpoint.state_dict_of(checkpoint.load(path), str(path))
    except UserError as error:
        raise UserError(f"{error}; expected {file.what} as published at {file.url}") from error


def _download(file: PublishedFile, target: Path) -> Path:
    places = " or ".join(str(folder) for folder in dict.fromkeys(cache_folders()))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the weights of {file.what} cannot be kept in {target.parent} ({error.strerror}): set "
            f"TORCH_HOME to a writable folder, put {file.name} into {places}, or {file.advice}"
        ) from error
    try:
        with replacing(target) as temporary:
            _stream(file.url, temporary)
            digest = checkpoint.file_hash(temporary)
            if file.sha256 and not digest.startswith(file.sha256):
                raise UserError(f"its sha256 is {digest}, expected {file.sha256}")
            load_weights(file, temporary)  # a link that has rotted answers with a web page
    except (OSError, UserError) as error:  # URLError and timeouts are OSErrors
        raise UserError(
            f"{file.what} is in neither cache and could not be downloaded from {file.url} "
            f"({error}): put {file.name} into {places}, or {file.advice}"
        ) from error
    return target


def _stream(url: str, target: Path) -> None:
    """Copy a URL to a file, with a progress bar."""
    request = urllib.request.Request(url, headers={"User-Agent": "Mozilla/5.0"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response, open(target, "wb") as out:
        total = int(response.headers.get("Content-Length") or 0) or None
        with progress_bar(total=total, unit="B", unit_scale=True, desc=Path(url).name[:40]) as bar:
            while chunk := response.read(1 << 20):
                out.write(chunk)
                bar.update(len(chunk))
