"""One-hot pose maps, MAGPT's tables and its data layout, and how generated images are saved."""

import numpy as np
import pytest
import torch
from PIL import Image

from data import create_dataset, find_dataset
from data.loader import create_dataloader
from data.magpt_dataset import MagptDataset
from options.test_options import TestOptions
from tests.helpers import GOLDEN
from util.errors import UserError
from util.names import file_id, result_name
from util.person.maps import keypoints_to_heatmaps, one_hot_pose_maps
from util.skeleton import in_frame
from util.tables.patn import write_pairs
from util.tables.uncropped import PAIR_COLUMNS, read_magpt_keypoints, write_magpt_keypoints
from util.tensors import SAVE_NORMS

FRONT = "img/WOMEN/Tees_Tanks/id_00007838/05_1_front.jpg"
BACK = "img/WOMEN/Tees_Tanks/id_00007838/05_2_back.jpg"
SIDE = "img/MEN/Denim/id_00000080/01_3_side.jpg"
PAIRS = [(FRONT, BACK), (FRONT, SIDE), (BACK, FRONT)]


def random_keypoints(seed: int, height: int, width: int, joints: int = 18) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = np.stack([rng.integers(0, height, joints), rng.integers(0, width, joints)], axis=1)
    points[rng.random(joints) < 0.2] = -1
    return points.astype(np.float64)


# ---- one-hot pose maps -------------------------------------------------------------------------


def test_one_hot_maps_equal_the_published_loop_over_joints():
    points = np.stack([random_keypoints(i, 256, 256) for i in range(3)])
    expected = np.zeros((3, 18, 256, 256), np.float32)
    for b, person in enumerate(points):
        for joint, (y, x) in enumerate(person.astype(int)):
            if y != -1 and x != -1:
                expected[b, joint, y, x] = 1
    maps = one_hot_pose_maps(torch.from_numpy(points), (256, 256), (256, 256))
    assert maps.dtype == torch.float32
    np.testing.assert_array_equal(maps.numpy(), expected)


def test_a_joint_with_only_one_coordinate_and_joints_outside_the_frame_are_empty_maps():
    outside = [[-1, 5], [5, -1], [16, 3], [3, 16], [-2, 3], [3, -0.5], [0, 0], [15, 15]]
    maps = one_hot_pose_maps(torch.tensor([outside], dtype=torch.float64), (16, 16), (16, 16))
    assert maps.sum(dim=(2, 3))[0].tolist() == [0, 0, 0, 0, 0, 0, 1, 1]
    assert maps[0, 6, 0, 0] == maps[0, 7, 15, 15] == 1


@pytest.mark.parametrize("load_size", [(256, 256), (128, 64), (64, 64)])
def test_the_lit_pixel_is_the_centre_of_the_gaussian_heatmap(load_size):
    frame = (256, 176)
    points = torch.from_numpy(random_keypoints(4, *frame))[None]
    peaks = keypoints_to_heatmaps(points, frame, load_size).flatten(2)
    maps = one_hot_pose_maps(points, frame, load_size).flatten(2)
    present = (points >= 0).all(dim=2)
    assert torch.equal(maps.sum(dim=2).bool(), present)
    assert torch.equal(maps.argmax(dim=2)[present], peaks.argmax(dim=2)[present])


# ---- tables ------------------------------------------------------------------------------------


def test_the_keypoint_table_survives_a_round_trip_with_x_before_y(tmp_path):
    points = {file_id(FRONT): random_keypoints(1, 256, 256), file_id(SIDE): np.full((18, 2), -1.0)}
    points[file_id(FRONT)][0] = (7, 130)
    path = tmp_path / "keypoints.csv"
    write_magpt_keypoints(path, points, (256, 256))
    header, first, *_ = path.read_text().splitlines()
    assert header.startswith("file_id,img_h,img_w,p0_x,p0_y,p1_x,p1_y")
    assert first.startswith("imgWOMENTees_Tanksid_0000783805_1_front,256,256,130,7,")
    table = read_magpt_keypoints(path)
    assert list(table) == list(points)
    for key, expected in points.items():
        np.testing.assert_array_equal(table[key].points, expected)
        np.testing.assert_array_equal(in_frame(*table[key], (256, 256)), expected)


def test_keypoints_of_another_image_size_are_scaled_and_missing_joints_stay_missing(tmp_path):
    points = np.full((18, 2), -1.0)
    points[3], points[4] = (100, 30), (-1, 30)
    write_magpt_keypoints(tmp_path / "k.csv", {"a": points}, (512, 384))
    scaled = in_frame(*read_magpt_keypoints(tmp_path / "k.csv")["a"], (256, 256))
    np.testing.assert_array_equal(scaled[3], (50, 20))
    assert (np.delete(scaled, 3, axis=0) == -1).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.replace("p3_x", "q3_x"), "row 1: the column 'p3_x' is missing"),
        (lambda t: t.replace(",256,256,", ",256,wide,", 1), "row 2: .*'wide'"),
        (lambda t: t.replace(",256,256,", ",0,256,", 1), "row 2: img_h or img_w is below 1"),
        (lambda t: t.replace(",256,256,", ",256,nan,", 1), "row 2: a coordinate is nan"),
        (lambda t: t + t.splitlines()[1] + "\n", "row 3: the file id 'a' is already in row 2"),
        (lambda t: t[: t.rindex(",")] + "\n", "row 2: has 38 fields"),
    ],
)
def test_a_malformed_keypoint_table_is_refused_naming_the_row(tmp_path, change, sentence):
    path = tmp_path / "k.csv"
    write_magpt_keypoints(path, {"a": random_keypoints(2, 256, 256)}, (256, 256))
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=sentence):
        read_magpt_keypoints(path)


# ---- data set ----------------------------------------------------------------------------------


@pytest.fixture
def magpt_root(tmp_path):
    """A data set of three pictures in MAGPT's layout, for both phases."""
    rng = np.random.default_rng(0)
    for i, name in enumerate((FRONT, BACK, SIDE)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8))
        (image.convert("L") if i == 2 else image).save(path)
    points = {file_id(n): random_keypoints(i, 256, 256) for i, n in enumerate((FRONT, BACK, SIDE))}
    for phase in ("train", "test"):
        write_pairs(tmp_path / f"{phase}_img_pairs.csv", PAIRS, PAIR_COLUMNS)
        write_magpt_keypoints(tmp_path / f"{phase}_img_keypoints.csv", points, (256, 256))
    return tmp_path


def test_a_sample_holds_the_unresized_image_and_its_own_keypoints(magpt_root):
    dataset = MagptDataset(magpt_root, "train")
    assert len(dataset) == 3
    sample = dataset[1]
    assert (sample["source_name"], sample["target_name"]) == (FRONT, SIDE)
    pixels = np.asarray(Image.open(magpt_root / FRONT))
    np.testing.assert_array_equal(sample["source_image"].permute(1, 2, 0).numpy(), pixels)
    assert sample["target_image"].shape == (3, 256, 256)  # a grey file
    np.testing.assert_array_equal(sample["source_keypoints"], random_keypoints(0, 256, 256))
    np.testing.assert_array_equal(sample["target_keypoints"], random_keypoints(2, 256, 256))


def parsed(root, *words):
    fixed = ["--gpu_ids", "-1", "--nThreads", "0", "--checkpoints_dir", str(root / "runs")]
    argv = ["--dataroot", str(root), "--dataset_mode", "magpt", *fixed, *words]
    return TestOptions().parse(argv)


def test_both_directions_come_as_listed_then_reversed_and_never_twice(magpt_root):
    assert find_dataset("MAGPT") is MagptDataset
    assert create_dataset(parsed(magpt_root)).pairs == PAIRS
    opt = parsed(magpt_root, "--both_directions")
    dataset = create_dataset(opt)
    assert dataset.pairs == [*PAIRS, (SIDE, FRONT)]
    names = {result_name(*pair) for pair in dataset.pairs}
    assert len(names) == 4
    assert not any("/" in name for name in names)
    batches = list(create_dataloader(dataset, opt))
    assert [b["source_name"][0] for b in batches] == [a for a, _ in dataset.pairs]


def test_a_pair_without_keypoints_or_image_is_refused_naming_the_row(magpt_root):
    table = magpt_root / "train_img_keypoints.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=r"row 3: img/MEN.*01_3_side.jpg has no keypoints"):
        MagptDataset(magpt_root, "train")
    (magpt_root / BACK).unlink()
    with pytest.raises(UserError, match=r"row 2: there is no image .*05_2_back.jpg"):
        MagptDataset(magpt_root, "test")


def test_two_names_with_one_file_id_are_refused(magpt_root):
    write_pairs(magpt_root / "train_img_pairs.csv", [("img/a_b.jpg", "img/a_b.png")], PAIR_COLUMNS)
    with pytest.raises(UserError, match=r"share the file id imga_b"):
        MagptDataset(magpt_root, "train")


# ---- saving ------------------------------------------------------------------------------------


def test_min_max_saving_equals_the_reference_and_treats_every_image_alone():
    golden = np.load(GOLDEN / "magpt_networks.npz")
    image = torch.from_numpy(golden["minmax_in"])
    stretch = SAVE_NORMS["minmax"]
    np.testing.assert_array_equal(stretch(image), golden["minmax_u8"])
    batch = torch.stack([0.25 * image + 0.1, image])
    np.testing.assert_allclose(stretch(batch)[0], golden["minmax_u8"], atol=1)
    np.testing.assert_array_equal(stretch(batch)[1], golden["minmax_u8"])
    assert stretch(torch.full((3, 4, 4), 0.3)).max() == 0


def test_the_folders_of_the_published_test_are_written_on_request(magpt_root, tmp_path):
    published = ["--save_norm", "minmax", "--save_format", "jpg", "--which_epoch", "260500"]
    with pytest.raises(UserError, match="--published_folders also needs --both_directions"):
        create_dataset(parsed(magpt_root, "--published_folders", *published))
    opt = parsed(magpt_root, "--published_folders", "--both_directions", *published)
    dataset, results = create_dataset(opt), tmp_path / "results"
    results.mkdir()
    for i, pair in enumerate(dataset.pairs):
        (results / result_name(*pair, "jpg")).write_bytes(bytes([i]))
    dataset.complete_results(results, opt)
    fakes = tmp_path / "results_published" / "fake_images" / "iter_260500"
    reals = tmp_path / "results_published" / "real_images"
    for side, role in (("B", 1), ("A", 0)):
        names = [f"{n}@{file_id(pair[role])}.jpg" for n, pair in enumerate(PAIRS)]
        assert sorted(p.name for p in (fakes / f"fake_{side}").iterdir()) == sorted(names)
        assert sorted(p.name for p in (reals / f"real_{side}").iterdir()) == sorted(names)
        for name, pair in zip(names, PAIRS, strict=True):
            made = pair if side == "B" else pair[::-1]
            expected = (results / result_name(*made, "jpg")).read_bytes()
            assert (fakes / f"fake_{side}" / name).read_bytes() == expected
            pixels = np.asarray(Image.open(magpt_root / pair[role]).convert("RGB"), dtype=float)
            stretched = (pixels - pixels.min()) / (pixels.max() - pixels.min()) * 255
            saved = np.asarray(Image.open(reals / f"real_{side}" / name), dtype=float)
            assert np.abs(saved - stretched).mean() < 40  # JPEG of noise
            assert abs(saved.mean() - stretched.mean()) < 2
