"""How the images of a folder were made: written beside them, compared by metrics and train."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from util.errors import UserError
from util.files import write_file
from util.names import is_image
from util.tables.layouts import MANIFEST_NAME, SYNTHETIC_NAME

# Settings that change pixels: two folders are comparable when these agree.
PIXEL_SETTINGS = ("source", "steps", "filter", "size", "file_format", "quality")


def read_manifest(root: str | os.PathLike) -> dict[str, dict[str, Any]] | None:
    """Folder name -> record of ``root/dataset_manifest.json``; None when there is no such file.

    A record holds source, steps, filter, size (h, w), file_format, quality, images, expected, list,
    list_sha256 and complete. Raises UserError for a damaged file.
    """
    path = Path(root) / MANIFEST_NAME
    if not path.is_file():
        return None
    try:
        folders = json.loads(path.read_text(encoding="utf-8"))["folders"]
        if not all(isinstance(record, dict) for record in folders.values()):
            raise TypeError("a record is not a table")
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(
            f"{path} is damaged ({error}); expected the JSON written by the preparation scripts: "
            "delete it and prepare the images again."
        ) from None
    return folders


def folder_record(image_folder: str | os.PathLike) -> dict[str, Any] | None:
    """The record of one image folder, from the manifest in the folder above it, or None."""
    folder = Path(image_folder).resolve()
    return (read_manifest(folder.parent) or {}).get(folder.name)


def update_manifest(root: str | os.PathLike, records: dict[str, dict[str, Any]]) -> None:
    """Add or replace records; the file is complete or untouched at every moment."""
    path = Path(root) / MANIFEST_NAME
    folders = {**(read_manifest(root) or {}), **records}
    write_file(path, (json.dumps({"format": 1, "folders": folders}, indent=1) + "\n").encode())


def differences(first: dict[str, Any] | None, second: dict[str, Any] | None) -> list[str]:
    """Pixel settings in which two records differ, as "filter: bicubic / bilinear".

    Empty when they agree or when either is unknown (None): nothing can be said then.
    """
    if first is None or second is None:
        return []
    return [
        f"{key}: {first.get(key)} / {second.get(key)}"
        for key in PIXEL_SETTINGS
        if first.get(key) != second.get(key)
    ]


def problems(image_folder: str | os.PathLike) -> list[str]:
    """In which ways a folder is no longer what its record says; empty without a record."""
    folder, record = Path(image_folder), folder_record(image_folder)
    if record is None:
        return []
    if not record.get("complete"):
        return [
            f"the preparation of {folder} was not finished ({record.get('images')} of "
            f"{record.get('expected')} images): start the same command again."
        ]
    found = sum(is_image(path.name) for path in folder.iterdir())
    texts = []
    if found != record.get("images"):
        texts.append(
            f"{folder} holds {found:,} images, {MANIFEST_NAME} says {record.get('images'):,}: "
            "images were added or removed since; prepare the folder again."
        )
    names = folder.resolve().parent / str(record.get("list"))
    if names.is_file() and file_sha256(names) != record.get("list_sha256"):
        texts.append(
            f"{names} is not the list that {folder} was made from: prepare the folder again."
        )
    return texts


def describe(record: dict[str, Any]) -> str:
    """One line for reports: what the images of a folder are."""
    size = "x".join(map(str, record["size"])) if record.get("size") else "original size"
    steps = " + ".join(record.get("steps", ()))
    state = "" if record.get("complete") else ", incomplete"
    return (
        f"{record.get('images')} of {record.get('expected')} images from {record.get('source')}, "
        f"{steps}, filter {record.get('filter')}, {size}, {record.get('file_format')}{state}"
    )


def origin(image_folder: str | os.PathLike) -> str:
    """One line for reports: where the images of a folder come from, as far as manifests tell."""
    record, above = folder_record(image_folder), Path(image_folder).resolve().parent
    if record is not None:
        return describe(record)
    if (above / SYNTHETIC_NAME).is_file():
        return f"synthetic, made by script/make_synthetic_dataset.py ({SYNTHETIC_NAME})"
    return "unknown origin (no manifest)"


def file_sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
