"""Odd but valid inputs are converted as documented, not refused."""

import codecs
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.fashion_dataset import FashionDataset
from models import list_models
from tests.training_child import SMALL, run, write_tiny_data
from util.errors import UserError
from util.image import load_image
from util.person.maps import keypoints_to_heatmaps
from util.run import checkpoint
from util.tables.patn import read_keypoints, write_keypoints, write_pairs

PAIRS, KEYPOINTS = "fasion-resize-pairs-train.csv", "fasion-resize-annotation-train.csv"


def gradient(height: int = 12, width: int = 8) -> np.ndarray:
    """A uint8 picture (h, w, 3) without symmetry."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 20, x * 30, (x + y) * 10], axis=-1).astype(np.uint8)


def saved(image: Image.Image, path: Path, **options) -> np.ndarray:
    image.save(path, **options)
    return np.asarray(load_image(path)).astype(int)


# ---- pictures ------------------------------------------------------------------------------------


def test_a_grey_picture_has_three_equal_channels(tmp_path):
    grey = gradient()[..., 0]
    loaded = saved(Image.fromarray(grey), tmp_path / "x.png")
    assert (loaded == grey[..., None]).all()


def test_a_palette_picture_has_its_colours(tmp_path):
    pixels = np.array([[[10, 20, 30], [200, 100, 50]]] * 2, dtype=np.uint8)
    palette = Image.fromarray(pixels).quantize(2)
    assert palette.mode == "P"
    assert (saved(palette, tmp_path / "x.png") == pixels).all()


def test_what_is_transparent_in_a_palette_or_alpha_picture_becomes_white(tmp_path):
    pixels = np.zeros((2, 2, 4), dtype=np.uint8)
    pixels[0, :, 3] = 255
    loaded = saved(Image.fromarray(pixels), tmp_path / "alpha.png")
    assert loaded[0].max() == 0
    assert loaded[1].min() == 255
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    loaded = saved(palette, tmp_path / "palette.png", transparency=1)
    assert loaded.tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_a_picture_of_16_bits_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    loaded = saved(Image.fromarray(values), tmp_path / "x.png")
    assert loaded[0, :, 0].tolist() == [0, 100, 255]


def test_a_dark_picture_of_16_bits_stays_dark(tmp_path):
    values = np.array([[0, 200, 255]], dtype=np.uint16)  # nothing but shadow, of 65535
    for name in ("x.png", "x.tif"):
        assert saved(Image.fromarray(values), tmp_path / name).max() == 0


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0])
def test_a_picture_of_real_numbers_is_scaled_by_the_top_that_fits(tmp_path, top):
    values = np.array([[0, top / 2, top, np.nan]], dtype=np.float32)
    loaded = saved(Image.fromarray(values), tmp_path / "x.tif")
    assert loaded[0, :, 0].tolist() == [0, 127, 255, 0]


def test_a_transparent_colour_of_an_rgb_picture_becomes_white(tmp_path):
    pixels = np.array([[[1, 2, 3], [9, 9, 9]]], dtype=np.uint8)
    loaded = saved(Image.fromarray(pixels), tmp_path / "x.png", transparency=(1, 2, 3))
    assert loaded.tolist() == [[[255, 255, 255], [9, 9, 9]]]


def test_a_picture_of_one_bit_is_black_and_white(tmp_path):
    bits = Image.fromarray(np.array([[True, False]]))
    assert saved(bits, tmp_path / "x.png")[0, :, 0].tolist() == [255, 0]


def test_a_cmyk_jpeg_has_nearly_the_colours_of_its_rgb_twin(tmp_path):
    image = Image.fromarray(np.full((16, 16, 3), (200, 120, 40), dtype=np.uint8))
    loaded = saved(image.convert("CMYK"), tmp_path / "x.jpg", quality=95)
    assert np.abs(loaded - [200, 120, 40]).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_a_picture_lies_as_its_exif_says(orientation, kind, tmp_path):
    upright = Image.fromarray(np.repeat(np.repeat(gradient(), 8, 0), 8, 1))
    stored = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    image = upright.transpose(stored[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {} if kind == "png" else {"quality": 100}
    loaded = saved(image, tmp_path / f"x.{kind}", exif=exif, **options)
    assert loaded.shape == np.asarray(upright).shape
    assert np.abs(loaded - np.asarray(upright)).mean() < 4


def test_the_content_decides_not_the_suffix(tmp_path):
    Image.fromarray(gradient()).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / "x.jpg")
    assert (np.asarray(load_image(tmp_path / "x.jpg")) == gradient()).all()


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes of a file, cut or with a few of them changed."""
    if rng.random() < 0.3:
        return data[: rng.randrange(len(data))]
    out = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        out[rng.randrange(min(len(out), rng.choice((60, 400, 10**6))))] = rng.randrange(256)
    return bytes(out)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM"])
def test_any_damage_of_a_picture_gives_a_picture_or_a_sentence_that_names_it(kind, tmp_path):
    rng, path = random.Random(kind), tmp_path / "x.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}
    Image.fromarray(gradient()).save(path, kind, **options)
    data, sentences = path.read_bytes(), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, about the damage
        for _ in range(150):
            path.write_bytes(damaged(data, rng))
            try:
                assert load_image(path).mode == "RGB"
            except UserError as error:
                sentences.append(str(error))
    assert len(sentences) > 15
    assert all(str(path) in sentence for sentence in sentences)
    assert not any("\n" in sentence for sentence in sentences)


# ---- tables --------------------------------------------------------------------------------------

NAMES = [
    "with space.png",
    "ünïcode 人.png",
    "<script>.png",
    "quote'd.png",
    "sub folder/deep.png",
    "a,b.png",
]


@pytest.fixture
def odd(tmp_path) -> Path:
    """A data set with names, pictures and keypoints of every accepted kind."""
    root = write_tiny_data(tmp_path / "data", pairs=1)
    keypoints, rng = {}, np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        for phase in ("train", "test"):
            path = root / phase / name
            path.parent.mkdir(exist_ok=True)
            mode = ("RGB", "L", "P", "RGBA", "1", "LA")[number]
            Image.fromarray(gradient()).convert(mode).save(path)
        keypoints[name] = rng.integers(0, 8, (18, 2)).astype(float)
    keypoints[NAMES[0]][:] = -1  # nobody was found
    keypoints[NAMES[1]][:9] = [[-30, 4], [500, 4], [4, -2.5]] * 3  # outside the frame
    for phase in ("train", "test"):
        write_keypoints(root / f"fasion-resize-annotation-{phase}.csv", keypoints)
        pairs = [(a, b) for a in NAMES for b in NAMES if a != b]
        write_pairs(root / f"fasion-resize-pairs-{phase}.csv", pairs)
    return root


def test_every_accepted_sample_has_the_usual_shape_and_finite_pose_maps(odd):
    dataset = FashionDataset(odd, load_size=(16, 16), annotation_size=(8, 8))
    assert len(dataset) == len(NAMES) * (len(NAMES) - 1)
    for sample in (dataset[i] for i in range(len(dataset))):
        for role in ("source", "target"):
            assert sample[f"{role}_image"].shape == (3, 16, 16)
            assert sample[f"{role}_image"].dtype == torch.uint8
            maps = keypoints_to_heatmaps(sample[f"{role}_keypoints"][None], (8, 8), (16, 16))
            assert torch.isfinite(maps).all()
            if sample[f"{role}_name"] == NAMES[0]:
                assert maps.abs().max() == 0


@pytest.mark.parametrize("model", list_models())
def test_every_model_trains_on_all_of_them(model, odd, tmp_path):
    argv = ["--dataroot", odd, "--checkpoints_dir", tmp_path, "--name", "run", *SMALL]
    argv += ["--model", model, "--loadSize", 64, "--old_size", 8, "--batchSize", 2]
    argv += ["--max_dataset_size", 2, "--niter", 1, "--niter_decay", 0]
    argv += ["--step_size", 2] * (model == "dptn_step")
    status, text = run(argv, {}, tmp_path / "output")
    assert status == 0, text
    state = checkpoint.load(tmp_path / "run" / "latest_state.pth")
    assert state["progress"]["total"] == 2
    for network in state["model"]["networks"].values():
        assert all(torch.isfinite(v).all() for v in network.values() if v.is_floating_point())


@pytest.mark.parametrize("variant", ["bom", "crlf", "blank lines", "more columns", "spaces"])
def test_tables_of_other_programs_mean_the_same(variant, odd):
    path = odd / PAIRS
    expected = FashionDataset(odd, load_size=(8, 8), annotation_size=(8, 8)).pairs
    text = path.read_text()
    if variant == "bom":
        path.write_bytes(codecs.BOM_UTF8 + text.encode())
    elif variant == "crlf":
        path.write_bytes(text.replace("\n", "\r\n").encode())
    elif variant == "blank lines":
        path.write_text(text.replace("\n", "\n\n"))
    elif variant == "more columns":
        path.write_text("\n".join(f"{n},{line}" for n, line in enumerate(text.splitlines())))
        path.write_text(path.read_text().replace("0,from,to", "number,from,to"))
    else:
        path.write_text(text.replace("from,to", " from , to "))
    assert FashionDataset(odd, load_size=(8, 8), annotation_size=(8, 8)).pairs == expected


def test_a_row_is_named_as_a_text_editor_counts_even_with_blank_lines(odd):
    text = (odd / PAIRS).read_text().replace("\n", "\n\n")
    (odd / PAIRS).write_text(text + "gone.png,with space.png\n")
    row = len(text.splitlines()) + 1
    with pytest.raises(UserError, match=rf"row {row}: gone\.png has no keypoints"):
        FashionDataset(odd, load_size=(8, 8), annotation_size=(8, 8))


def test_joints_outside_the_frame_are_kept_and_minus_one_is_missing(odd):
    points = read_keypoints(odd / KEYPOINTS)[NAMES[1]]
    assert points[0].tolist() == [-30, 4]
    assert points[1].tolist() == [500, 4]
    assert points[2].tolist() == [4, -2.5]
