"""Pictures between files and uint8 arrays: the one reader, and the writer."""

import io
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from util.errors import UserError
from util.files import replacing
from util.names import IMAGE_EXTENSIONS, is_image

# What data sets and photographs come in. Others are refused by their content, whatever their
# name: PIL would hand an EPS file to Ghostscript, for example.
PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
OUTSIDE = (128, 128, 128)  # beside a picture: the published augmentation's grey, 0 to a network
MAX_PIXELS = 50_000_000  # larger files are refused before they are decoded
_LYING = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
_MARK = "run"  # begins the comment that tells which run made a picture
# Where Pillow looks for an orientation; without any of them, parsing EXIF would be lost time.
_HOLDS_ORIENTATION = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")

# What Pillow raises for contents that are not as the header says.
DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError,
    ZeroDivisionError, struct.error,
)  # fmt: skip


def load_image(path: str | Path) -> Image.Image:
    """Read one image as upright 8-bit RGB.

    EXIF rotation is applied; grey, palette, CMYK, alpha and 16-bit files are converted. A file that
    is missing, truncated, too large or not an image is a :class:`UserError` that names it.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        found = "is a folder" if path.is_dir() else "is no regular file"  # a pipe would never end
        raise UserError(f"{path} {found}; expected an image")
    return _decoded(path, str(path), _check_pixels)


def image_from_bytes(content: bytes, where: str) -> Image.Image:
    """Like :func:`load_image` from the bytes of a file, which ``where`` names in messages."""
    return _decoded(io.BytesIO(content), where, _check_pixels)


def _decoded(
    file: Path | io.BytesIO, where: str, check: Callable[[Image.Image, str], None]
) -> Image.Image:
    """Upright RGB of a file; what only its header tells is checked before it is decoded."""
    try:
        with Image.open(file, formats=PICTURE_FORMATS) as image:
            check(image, where)
            if image.mode == "RGB" and "transparency" not in image.info and _turn(image) == 1:
                return image.copy()
            return to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        problem = ": no such image; check the data root and the file lists"
    except (PermissionError, IsADirectoryError) as error:
        problem = f" cannot be read ({error.strerror}); check the file and its permissions"
    except UnidentifiedImageError:  # its text is the name or a memory address
        known = ", ".join(PICTURE_FORMATS)
        problem = f" is not a readable image (expected {known}); replace the file"
        if where.lower().endswith(HEIC):
            problem = " is a HEIC photo, which cannot be read here; export it as JPEG"
    except Image.DecompressionBombError as error:
        problem = f" is not a readable image ({error}); replace the file"
    except DAMAGE as error:
        problem = f" is damaged ({error}); replace the file"
    raise UserError(where + problem)


def _turn(image: Image.Image) -> int:
    """EXIF orientation, which is not looked for where no EXIF data can hold it."""
    if image.info.keys().isdisjoint(_HOLDS_ORIENTATION):
        return 1
    return image.getexif().get(0x0112, 1)


def _check_pixels(image: Image.Image, where: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise UserError(
            f"{where} has {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are "
            "accepted: shrink it first"
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of an image of any mode: deeper values are scaled, alpha lies on white."""
    if image.mode.startswith(("I", "F")):  # PIL would clip, not scale
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        # white is 65535 of 16 bits, whatever the picture holds; else the next of these
        tops = {"F": (1.0, 255.0, 65535.0), "I": (255.0, 65535.0)}.get(image.mode, (65535.0,))
        top = next((top for top in tops if values.max() <= top), tops[-1])
        image = Image.fromarray((values.clip(0, top) / top * 255).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def is_grey(image: Image.Image) -> bool:
    """Whether an RGB picture has no colour anywhere."""
    pixels = np.asarray(image)
    return bool((pixels[..., :1] == pixels[..., 1:]).all())


def grey_as(source: Image.Image, result: Image.Image) -> Image.Image:
    """``result`` without colours when ``source`` has none: a generator paints in colours."""
    return result.convert("L").convert("RGB") if is_grey(source) else result


def resize_linear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, 3) -> (h, w, 3) with OpenCV's INTER_LINEAR (no antialiasing), as published."""
    if image.shape[:2] == tuple(size):
        return image
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of an opened file once it stands upright, without decoding it."""
    return image.size[::-1] if _turn(image) in _LYING else image.size


def mark_of(image: Image.Image) -> str:
    """The mark that :func:`save_image` left in an opened PNG or JPEG file, "" without one."""
    text = image.info.get("Comment") or image.info.get("comment", b"")
    text = text.decode("latin-1") if isinstance(text, bytes) else str(text)
    before, _, mark = text.partition(f"{_MARK} ")
    return "" if before else mark


def is_made(path: Path, mark: str) -> bool:
    """Whether a whole picture that :func:`save_image` gave this mark is at a place."""
    try:
        load_image(path)
        with Image.open(path) as image:
            return mark_of(image) == mark
    except (UserError, OSError):
        return False


def save_image(path: str | Path, image: np.ndarray, quality: int = 75, mark: str = "") -> None:
    """Write a uint8 (H, W, 3) array as PNG or JPEG by suffix, complete or not at all.

    ``mark``: what :func:`mark_of` finds again, the run that made the picture.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix, text = path.suffix.lower(), f"{_MARK} {mark}" * bool(mark)
    if suffix == ".png":
        comment = PngInfo()
        if text:
            comment.add_text("Comment", text)
        options: dict = {"format": "PNG", "compress_level": 1, "pnginfo": comment}
    elif suffix in IMAGE_EXTENSIONS:
        options = {"format": "JPEG", "quality": quality, **({"comment": text} if text else {})}
    else:
        known = ", ".join(IMAGE_EXTENSIONS)
        raise UserError(f"{path}: unknown image format; expected one of {known}")
    with replacing(path) as temporary:
        Image.fromarray(image).save(temporary, **options)


MIN_SIDE = 16  # pixels
MAX_ASPECT = 8  # long side / short side
MAX_PHOTO_PIXELS = 36_000_000
HEIC = (".heic", ".heif")  # refused with advice, not overlooked in a folder
VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
PHOTO_EXTENSIONS = (*IMAGE_EXTENSIONS, ".webp", ".bmp", ".tif", ".tiff", ".gif", *HEIC)

Picture = Image.Image | np.ndarray | str | Path


def as_photo(picture: Picture, where: str | None = None) -> Image.Image:
    """Upright RGB photograph from a PIL image, a uint8 array (H, W, 3) or a file.

    Raises a UserError, beginning with the file name or ``where``, for animated, tiny, extremely
    narrow and very large pictures and for files that are no pictures.
    """
    if isinstance(picture, (str, Path)):
        path, where = Path(picture), where or str(picture)
        if not path.is_file():
            found = "is a folder" if path.is_dir() else "no such image"
            raise UserError(f"{where}: {found}; expected the file name of one photo")
        return _decoded(path, where, _check)
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise UserError(
                f"{where or 'the picture'} is a {picture.dtype} array of shape {picture.shape}; "
                "expected uint8 (height, width, 3)"
            )
        picture = Image.fromarray(picture)
    _check(picture, where or getattr(picture, "filename", "") or "the picture")
    return to_rgb(ImageOps.exif_transpose(picture))


def picture_name(picture: Picture) -> str:
    """File name of a picture, "" when it does not come from a file."""
    path = picture if isinstance(picture, (str, Path)) else getattr(picture, "filename", "")
    return Path(path).name if path else ""


def list_photos(folder: Path) -> list[Path]:
    """All pictures below ``folder``, sorted; a UserError when there is none."""
    photos = sorted(
        path
        for path in folder.rglob("*")
        if is_image(path.relative_to(folder), PHOTO_EXTENSIONS) and path.is_file()
    )
    if not photos:
        raise UserError(f"{folder} holds no pictures; expected {', '.join(PHOTO_EXTENSIONS)} files")
    return photos


def read_video(path: Path) -> tuple[Iterator[np.ndarray], int | None, float | None]:
    """The pictures of a video, uint8 (H, W, 3), how many there may be, and how many a second."""
    if not path.is_file():
        raise UserError(f"{path}: no such video")
    video = cv2.VideoCapture(str(path))
    fps, count = video.get(cv2.CAP_PROP_FPS), int(video.get(cv2.CAP_PROP_FRAME_COUNT))

    def pictures() -> Iterator[np.ndarray]:
        number = 0
        while (read := video.read())[0]:
            yield np.ascontiguousarray(read[1][..., ::-1])
            number += 1
        if not number:
            raise UserError(
                f"{path} is no video that OpenCV can read, or an empty one; expected "
                f"{', '.join(VIDEOS)}: convert it"
            )

    return pictures(), max(count, 0) or None, fps if 0.1 <= fps <= 1000 else None


def photo_from_bytes(content: bytes, where: str) -> Image.Image:
    """Upright RGB photograph from the bytes of a file, with the checks of :func:`as_photo`.

    ``where`` names it in messages; nothing is read from or written to the disk.
    """
    if not content:
        raise UserError(f"{where} is empty; expected a photo")
    return _decoded(io.BytesIO(content), where, _check)


def _check(image: Image.Image, where: str) -> None:
    (width, height), frames = image.size, getattr(image, "n_frames", 1)
    size, long, short = f"{width} x {height} pixels", max(image.size), min(image.size)
    checks = (  # MPO: a photo with its preview
        (frames > 1 and image.format != "MPO",
         f"is animated ({frames} frames); save one frame as PNG or JPEG"),
        (short < MIN_SIDE,
         f"is {size}; expected at least {MIN_SIDE} x {MIN_SIDE}: use a larger picture"),
        (width * height > MAX_PHOTO_PIXELS,
         f"has {size}; at most {MAX_PHOTO_PIXELS:,} are accepted: shrink it first, the networks "
         "see a few hundred pixels anyway"),
        (long > MAX_ASPECT * short,
         f"is {size}, longer than {MAX_ASPECT} times its width; crop it to the person"),
    )  # fmt: skip
    problem = next((problem for failed, problem in checks if failed), None)
    if problem:
        raise UserError(f"{where} {problem}")
