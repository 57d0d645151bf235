"""Photographs that people bring, and the geometry of crops."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.photo_helpers import photo, standing
from util.errors import UserError
from util.image import as_photo, grey_as, is_grey, list_photos, photo_from_bytes, picture_name
from util.person.crop import Box, cut, paste, person_box, to_frame, whole_picture


def test_files_are_turned_upright_and_become_rgb(tmp_path):
    image = Image.new("RGBA", (40, 80), (255, 0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    found = as_photo(tmp_path / "a.png")
    assert found.mode == "RGB"
    assert found.size == (80, 40)
    assert found.getpixel((3, 3)) == (255, 255, 255)  # transparent lies on white


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "1", "I;16"])
def test_pil_images_of_any_mode_become_rgb(mode):
    assert as_photo(Image.new(mode, (30, 40))).mode == "RGB"


def test_a_user_s_image_is_not_changed():
    image = photo()
    before = np.asarray(image).copy()
    as_photo(image).paste((0, 0, 0), (0, 0, 100, 100))
    assert np.array_equal(np.asarray(image), before)


def write_gif(path):
    frames = [Image.new("RGB", (40, 40), (80 * i, 0, 0)) for i in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("dance.gif", write_gif, "is animated (3 frames)"),
        ("dot.png", Image.new("RGB", (1, 1)).save, "is 1 x 1 pixels; expected at least 16 x 16"),
        (
            "big.png",
            Image.new("1", (8000, 5000)).save,
            "has 8000 x 5000 pixels; at most 36,000,000",
        ),
        ("line.png", Image.new("RGB", (20, 900)).save, "longer than 8 times its width"),
        ("note.jpg", lambda path: path.write_text("hello"), "is not a readable image"),
        ("empty.jpg", lambda path: path.touch(), "is not a readable image"),
        ("none.jpg", lambda path: None, "no such image"),
        ("folder", lambda path: path.mkdir(), "is a folder; expected the file name of one photo"),
        ("IMG_1.HEIC", lambda path: path.write_bytes(b"x"), "is a HEIC photo"),
    ],
)
def test_unusable_files_are_one_sentence_with_their_name(tmp_path, name, make, message):
    make(tmp_path / name)
    with pytest.raises(UserError) as caught:
        as_photo(tmp_path / name)
    text = str(caught.value)
    assert text.startswith(str(tmp_path / name))
    assert message in text
    assert "\n" not in text


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A grey PNG whose header says anything."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; expected a photo"),
        (b"hello", "is not a readable image"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "JPEG, PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n", "is not a readable image"),
        (png(9000, 9000), "has 9000 x 9000 pixels; at most 36,000,000"),
        (png(2**31 - 1, 2**31 - 1), "me.png"),
        (png(40, 40, (b"zTXt", b"a\0\0" + zlib.compress(bytes(90_000_000)))), "is damaged"),
        (png(40, 40), "is damaged"),
    ],
    ids=["empty", "text", "svg", "eps", "bomb", "larger bomb", "text bomb", "truncated"],
)
def test_unusable_uploads_are_one_sentence_that_names_them(content, message):
    with pytest.raises(UserError) as caught:
        photo_from_bytes(content, "me.png")
    assert str(caught.value).startswith("me.png ")
    assert message in str(caught.value)
    assert "0x" not in str(caught.value)  # no address of an object


def test_an_upload_is_read_like_its_file(tmp_path):
    photo().save(tmp_path / "me.jpg")
    found = photo_from_bytes((tmp_path / "me.jpg").read_bytes(), "me.jpg")
    assert np.array_equal(np.asarray(found), np.asarray(as_photo(tmp_path / "me.jpg")))


def test_a_still_gif_is_a_picture(tmp_path):
    Image.new("P", (40, 40), 3).save(tmp_path / "still.gif")
    assert as_photo(tmp_path / "still.gif").size == (40, 40)


@pytest.mark.parametrize("array", [np.zeros((40, 40)), np.zeros((40, 40, 4), np.uint8)])
def test_arrays_must_be_rgb_bytes(array):
    with pytest.raises(UserError, match=r"expected uint8 \(height, width, 3\)"):
        as_photo(array)


def test_names_come_from_paths_and_opened_files(tmp_path):
    photo().save(tmp_path / "me.png")
    assert picture_name(tmp_path / "me.png") == "me.png"
    assert picture_name("folder/me.png") == "me.png"
    assert picture_name(Image.open(tmp_path / "me.png")) == "me.png"
    assert picture_name(photo()) == ""


def test_folders_are_searched_for_pictures_in_order(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("z.JPG", "b/a.png", "notes.txt", ".hidden.png", "phone.heic"):
        (tmp_path / name).touch()
    assert [p.relative_to(tmp_path).as_posix() for p in list_photos(tmp_path)] == [
        "b/a.png",
        "phone.heic",
        "z.JPG",
    ]
    with pytest.raises(UserError, match="holds no pictures"):
        list_photos(tmp_path / "none")


# ---- crops -------------------------------------------------------------------------------------


@pytest.mark.parametrize("box", [(100, 200, 400, 100), (0, 0, 60, 300), (50, 50, 10, 10)])
@pytest.mark.parametrize("frame", [(256, 176), (128, 64), (256, 256)])
def test_the_crop_holds_the_person_and_has_the_shape_of_the_frame(box, frame):
    points = standing(*box)
    found = person_box(points, frame)
    inside = points - (found.top, found.left)
    assert (inside >= 0).all()
    assert (inside < found.size).all()
    assert found.height / found.width == pytest.approx(frame[0] / frame[1], rel=0.1)


def test_missing_joints_do_not_count_for_the_crop():
    points = standing(100, 200, 400, 100)
    with_missing = points.copy()
    with_missing[14:] = -1
    with_missing[0] = points[14]  # the highest joint stays
    assert person_box(with_missing, (256, 176)) == person_box(points, (256, 176))
    with pytest.raises(UserError, match="no joint is given"):
        person_box(np.full((18, 2), -1.0), (256, 176))


def test_the_crop_stays_inside_the_photo_when_there_is_room():
    frame = (256, 176)
    points = standing(20, 5, 200, 100)  # at the left edge of a wide photo
    box = person_box(points, frame, (300, 500))
    assert box.size == person_box(points, frame).size
    assert (box.left, person_box(points, frame).left < 0) == (0, True)
    assert person_box(standing(0, 10, 256, 150), frame, frame) == Box(0, 0, 256, 176)
    tight = person_box(standing(-20, -20, 330, 230), frame, frame)  # larger than the photo
    assert tight.height > 256


def test_a_crop_beyond_the_photo_is_the_grey_of_the_augmentation_there():
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    found = np.asarray(cut(Image.fromarray(pixels), Box(-2, 3, 5, 4)))
    assert found.shape == (5, 4, 3)
    assert np.array_equal(found[2:, :2], pixels[:3, 3:])
    assert (found[:2] == 128).all()
    assert (found[:, 2:] == 128).all()


def test_keypoints_move_with_the_crop_and_missing_ones_stay_missing():
    points = np.full((18, 2), -1.0)
    points[0], points[1] = (100, 50), (99, 49)
    moved = to_frame(points, Box(100, 50, 512, 352), (256, 176))
    assert moved[0].tolist() == [0, 0]
    assert moved[1].tolist() == [-2, -2]  # outside, but not missing
    assert (moved[2:] == -1).all()


def test_the_whole_picture_is_the_identity():
    image, points = photo((176, 256)), standing(10, 20, 230, 120)
    box = whole_picture(image)
    assert np.array_equal(np.asarray(cut(image, box)), np.asarray(image))
    assert np.array_equal(to_frame(points, box, (256, 176)), points)


def test_a_pasted_result_fills_the_middle_and_fades_into_the_photo():
    image = Image.new("RGB", (200, 300), (0, 0, 0))
    out = np.asarray(
        paste(image, Image.new("RGB", (44, 64), (250, 250, 250)), Box(100, 50, 128, 88))
    )
    assert out.shape == (300, 200, 3)
    assert (out[120:200, 70:120] == 250).all()
    assert (out[:100] == 0).all()
    assert (out[:, :50] == 0).all()
    assert 0 < out[101, 90, 0] < 250


def wall(size: tuple[int, int]) -> np.ndarray:
    """A wall that is unevenly lit, float (h, w, 3), size (width, height)."""
    y, x = np.mgrid[: size[1], : size[0]]
    light = 180 + 40 * x / size[0] - 25 * y / size[1]
    return np.stack([light, light - 10, light - 30], axis=2)


def as_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


@pytest.mark.parametrize("box", [Box(100, 60, 256, 176), Box(-20, 60, 256, 176)])
def test_a_wall_that_was_painted_a_little_too_dark_shows_no_rectangle(box):
    photo_pixels = wall((300, 400))
    top, left = max(box.top, 0), box.left
    generated = np.asarray(cut(as_image(photo_pixels), box)) - np.array([9.0, 4.0, -6.0])
    out = np.asarray(paste(as_image(photo_pixels), as_image(generated), box)).astype(float)
    assert np.abs(out - photo_pixels).max() <= 1.5
    assert out[top + 100, left + 90, 0] != generated[100, 90, 0]


def test_another_background_is_not_taken_for_a_cast_of_the_colours():
    person = as_image(wall((176, 256)) - 120)
    out = np.asarray(paste(as_image(wall((300, 400))), person, Box(100, 60, 256, 176)))
    moved = out[200:250, 130:170].astype(int) - np.asarray(person)[100:150, 70:110]
    assert np.abs(moved).max() <= 1


@pytest.mark.parametrize("box", [(100, 200, 400, 100), (100, 200, 150, 300)])
def test_feet_lie_above_the_seam_of_a_pasted_result(box):
    found = person_box(standing(*box), (256, 176))
    ankles = standing(*box)[[10, 13], 0].max()
    toes = ankles + 0.08 * (standing(*box)[:, 0].max() - standing(*box)[:, 0].min())
    assert toes <= found.top + 0.97 * found.height


def test_at_the_border_of_the_photo_nothing_fades():
    image = Image.new("RGB", (88, 128), (0, 0, 0))
    box = whole_picture(image)
    out = np.asarray(paste(image, Image.new("RGB", (44, 64), (250, 250, 250)), box))
    assert (out == 250).all()


def test_only_pictures_without_colours_are_grey_and_their_results_too():
    grey, colour = photo().convert("L").convert("RGB"), photo()
    assert is_grey(grey)
    assert not is_grey(colour)
    assert grey_as(colour, colour) is colour
    assert is_grey(grey_as(grey, colour))
