"""Photographs that people bring: checked, upright RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from util.errors import UserError
from util.image import IMAGE_EXTENSIONS, load_image, to_rgb

MIN_SIDE = 16  # pixels
MAX_ASPECT = 8  # long side / short side
MAX_PIXELS = 36_000_000
HEIC = (".heic", ".heif")  # refused with advice, not overlooked in a folder
PHOTO_EXTENSIONS = (*IMAGE_EXTENSIONS, ".webp", ".bmp", ".tif", ".tiff", ".gif", *HEIC)

Picture = Image.Image | np.ndarray | str | Path


def as_photo(picture: Picture, where: str | None = None) -> Image.Image:
    """Upright RGB photograph from a PIL image, a uint8 array (H, W, 3) or a file.

    Raises a UserError, beginning with the file name or ``where``, for animated, tiny, extremely
    narrow and very large pictures and for files that are no pictures.
    """
    if isinstance(picture, (str, Path)):
        where = where or str(picture)
        image = _open(Path(picture), where)
    elif isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise UserError(
                f"{where or 'the picture'} is a {picture.dtype} array of shape {picture.shape}; "
                "expected uint8 (height, width, 3)"
            )
        image = Image.fromarray(picture)
    else:
        image = picture
    where = where or getattr(image, "filename", "") or "the picture"
    _check(image, where)
    return to_rgb(ImageOps.exif_transpose(image))


def picture_name(picture: Picture) -> str:
    """File name of a picture, "" when it does not come from a file."""
    path = picture if isinstance(picture, (str, Path)) else getattr(picture, "filename", "")
    return Path(path).name if path else ""


def list_photos(folder: Path) -> list[Path]:
    """All pictures below ``folder``, sorted; a UserError when there is none."""
    photos = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in PHOTO_EXTENSIONS and not path.name.startswith(".")
    )
    if not photos:
        raise UserError(f"{folder} holds no pictures; expected {', '.join(PHOTO_EXTENSIONS)} files")
    return photos


def _open(path: Path, where: str) -> Image.Image:
    """The decoded file; what only the header tells is checked before it is decoded."""
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "no such image"
        raise UserError(f"{where}: {found}; expected the file name of one photo")
    if path.suffix.lower() in HEIC:
        raise UserError(f"{where} is a HEIC photo, which cannot be read here; export it as JPEG")
    try:
        with Image.open(path) as header:
            _check(header, where)
    except (OSError, Image.DecompressionBombError):
        pass  # load_image names every such problem
    return load_image(path)


def _check(image: Image.Image, where: str) -> None:
    width, height = image.size
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # MPO: a photo with its preview
        raise UserError(
            f"{where} is animated ({image.n_frames} frames); save one frame as PNG or JPEG"
        )
    if min(width, height) < MIN_SIDE:
        raise UserError(
            f"{where} is {width} x {height} pixels; expected at least {MIN_SIDE} x {MIN_SIDE}: use "
            "a larger picture"
        )
    if width * height > MAX_PIXELS:
        raise UserError(
            f"{where} has {width} x {height} pixels; at most {MAX_PIXELS:,} are accepted: shrink "
            "it first, the networks see a few hundred pixels anyway"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise UserError(
            f"{where} is {width} x {height} pixels, longer than {MAX_ASPECT} times its width; crop "
            "it to the person"
        )
