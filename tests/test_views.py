"""--dataset_mode view: pictures of objects from many sides, in folders and in the HDF5 file."""

import json
import pickle
import sys

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

import test as test_command
import train as train_command
from data.loader import make_loader
from data.view_dataset import ViewDataset
from models import create_model
from options.test_options import inference_options
from script import baselines, check_dataset, metrics
from tests.helpers import train_options
from tests.view_folders import (
    keys,
    picture,
    write_folder,
    write_hdf5,
    write_lists,
    write_named,
)
from util.errors import UserError
from util.person.maps import view_maps
from util.tables.views import CAMERAS, find_naming, split_name, views_of

SIZE = (16, 16)
TENSORS = ("source_image", "target_image", "source_view", "target_view")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("folder") / "chairs")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_hdf5(tmp_path_factory.mktemp("file") / "chairs")


def test_a_shapenet_key_names_object_azimuth_and_elevation():
    assert split_name("a_b_34_20", "shapenet", "") == ("a_b", ("34", "20"))
    assert find_naming(["x_0_0.png", "x_34_20.png"]) == "shapenet"
    assert find_naming(["x_0_0.png", "x_36_20.png"]) == "object"


def test_a_multipie_name_names_subject_session_recording_light_and_camera():
    name = "007_01_02_051_09.png"
    assert split_name(name, "multipie", "") == ("007_01_02_09", ("051",))
    assert find_naming([name]) == "multipie"
    assert views_of([("051",), ("240",), ("110",)], "multipie") == (("110", "051", "240"),)


def test_labels_of_own_objects_are_ordered_by_value():
    assert views_of([("10",), ("9",), ("back",)], "object") == (("9", "10", "back"),)


def test_a_training_target_is_the_same_object_at_the_same_elevation(folder):
    dataset = ViewDataset(folder, "train", SIZE)
    assert len(dataset) == 2 * 54
    seen = set()
    for index in range(0, 4 * len(dataset), 3):
        sample = dataset[index]
        thing, h, v = sample["target_name"].removesuffix(".png").rsplit("_", 2)
        assert sample["source_name"].startswith(f"{thing}_")
        assert sample["source_name"].endswith(f"_{v}.png")
        assert torch.equal(sample["target_view"], torch.tensor([int(h) // 2, int(v) // 10]))
        expected = picture(int(thing[-1]), int(h), int(v))
        assert np.array_equal(sample["target_image"].permute(1, 2, 0).numpy(), expected)
        seen.add(int(h))
    assert len(seen) == 18


def test_a_test_turns_each_object_from_one_side_to_all(folder):
    dataset = ViewDataset(folder, "test", SIZE, training=False)
    assert len(dataset) == 2 * 18
    assert dataset.pairs[0] == ("chair_2_0_0.png", "chair_2_0_0.png")
    assert dataset.pairs[18 + 5] == ("chair_3_2_0.png", "chair_3_10_0.png")
    assert [len(pairs) for pairs in dataset.turns().values()] == [18, 18]
    assert dataset.full_turn


def test_folder_and_file_of_the_same_chairs_give_the_same_tensors(folder, file):
    for training, phase in ((True, "train"), (False, "test")):
        a = ViewDataset(folder, phase, (24, 24), training=training)
        b = ViewDataset(file, phase, (24, 24), training=training)
        assert len(a) == len(b)
        for index in range(2 * len(a)):
            one, other = a[index], b[index]
            assert all(torch.equal(one[key], other[key]) for key in TENSORS)
            assert one["target_name"] == other["target_name"] + ".png"


def test_the_path_of_the_file_itself_is_a_data_root(file):
    assert len(ViewDataset(file / "data_chair.hdf5", "train", SIZE)) == 108


def test_two_workers_read_the_file_as_one_process_does(file):
    dataset = ViewDataset(file, "train", SIZE)
    dataset[0]  # opened before the workers are forked
    runs = []
    for workers in (0, 2):
        loader = make_loader(dataset, 4, workers, seed=1)
        runs.append(list(loader))
    for one, other in zip(*runs, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in TENSORS)
        assert one["target_name"] == other["target_name"]


def test_a_data_set_goes_to_spawned_workers_without_its_open_file(file):
    dataset = ViewDataset(file, "train", SIZE)
    expected = dataset[3]
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[3]["source_image"], expected["source_image"])


def test_a_file_of_many_keys_opens_without_reading_its_pictures(tmp_path, monkeypatch):
    write_hdf5(tmp_path, {"train": list(range(30)), "test": [30]})
    read = []
    getitem = h5py.Dataset.__getitem__
    monkeypatch.setattr(
        h5py.Dataset, "__getitem__", lambda self, key: read.append(self.name) or getitem(self, key)
    )
    dataset = ViewDataset(tmp_path, "train", SIZE)
    assert len(dataset) == 30 * 54
    assert len([name for name in read if name.endswith("image")]) == 1  # the size of all
    read.clear()
    dataset[100]
    assert len(read) == 4  # image and pose of source and target


def test_faces_of_two_lights_are_not_mixed(tmp_path):
    names = [f"001_01_01_{c}_{light}.png" for c in CAMERAS for light in ("07", "10")]
    names += [f"001_01_01_081_{light}.png" for light in ("07", "10")]  # above the head: not used
    dataset = ViewDataset(write_named(tmp_path, names), "train", SIZE)
    assert len(dataset) == 26
    assert dataset.views == (CAMERAS,)
    for index in range(26):
        sample = dataset[index]
        assert sample["source_name"][-6:] == sample["target_name"][-6:]


def test_the_map_of_a_view_is_a_hill_in_the_channel_of_each_label():
    maps = view_maps(torch.tensor([[2, 1], [0, 0]]), (4, 2), (8, 12))
    assert maps.shape == (2, 6, 8, 12)
    assert maps.amax((2, 3)).gt(0).tolist() == [
        [False, False, True, False, False, True],
        [True, False, False, False, True, False],
    ]
    # a Gaussian of a quarter of each side: at the corner 3.5 / 2 and 5.5 / 3 deviations away
    corner = np.exp(-((3.5 / 2) ** 2 + (5.5 / 3) ** 2) / 2)
    assert maps[0, 2, 0, 0].item() == pytest.approx(corner, rel=1e-5)
    assert maps[0, 2, 3, 5].item() == pytest.approx(maps[0, 2, 4, 6].item(), rel=1e-6)


def options(folder, model, tmp_path, *words):
    return train_options(
        "--nThreads", "0", "--no_tensorboard", *words, dataset_mode="view", dataroot=folder,
        model=model, checkpoints_dir=tmp_path, name="run", loadSize=64, ngf=8, ndf=4, gpu_ids=-1,
        vgg_width=0.05,
    )  # fmt: skip


@pytest.mark.parametrize("model", ["DPTN", "poseflownet", "pose", "pose2pose"])
def test_every_model_of_free_pose_channels_sees_the_view(model, folder, tmp_path):
    opt = options(folder, model, tmp_path, "--init_gain", "1")
    assert opt.view_counts == (18, 3)
    network = create_model(opt)
    assert network.configs["G"]["pose_channels"] == 21
    batch = next(iter(make_loader(ViewDataset(folder, "train", (64, 64)), 1, 0)))
    turned = {**batch, "target_view": (batch["target_view"] + 1) % torch.tensor([18, 3])}
    network.eval_mode()
    one, other = (network.explain(network.prepare(b)) for b in (batch, turned))
    difference = (one.fake_target - other.fake_target).abs().mean()
    if model != "poseflownet":  # its picture is the source, moved a little by fresh weights
        assert difference > 1e-3
    for a, b in zip(one.flows, other.flows, strict=True):
        assert (a - b).abs().mean() > 1e-4


def test_the_step_model_is_refused_in_one_sentence(folder, tmp_path):
    with pytest.raises(UserError, match=r"DPTN_step draws the limbs of people.*use DPTN"):
        create_model(options(folder, "DPTN_step", tmp_path))


def test_views_are_saved_with_the_checkpoint_and_need_no_data_again(folder, tmp_path):
    opt = options(folder, "DPTN", tmp_path)
    saved = json.loads(json.dumps(vars(opt)))
    again = inference_options(
        saved, tmp_path / "run", "cpu", {"dataroot": str(tmp_path / "nothing")}
    )
    assert again.view_counts == (18, 3)
    assert again.views == opt.views


def call(monkeypatch, command, *words):
    monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
    return command()


TINY = ("--nThreads", 0, "--gpu_ids", -1, "--ngf", 4, "--loadSize", 16)


def test_training_test_turntable_and_metrics_from_the_file(file, tmp_path, monkeypatch, capsys):
    place = ("--name", "run", "--checkpoints_dir", tmp_path / "ck", "--dataroot", file)
    words = (*place, *TINY, "--ndf", 4, "--dis_layers", 1, "--dataset_mode", "view",
             "--vgg_weights", "random", "--vgg_width", 0.05, "--niter", 1, "--niter_decay", 0,
             "--max_dataset_size", 2, "--no_tensorboard", "--no_html")  # fmt: skip
    assert call(monkeypatch, train_command.main, *words) == 0
    results = tmp_path / "results"
    test = (*place, "--nThreads", 0, "--gpu_ids", -1, "--results_dir", results)
    call(monkeypatch, test_command.main, *test)
    with Image.open(results / "page_images" / "turntables" / "chair_3_2_0.gif") as film:
        assert film.n_frames == 18
        assert film.height >= 128
    with Image.open(results / "page_images" / "turntables" / "chair_3_2_0.png") as strip:
        assert strip.size == (19 * 16 + 18 * 2, 2 * 16 + 2)
        # below the generated row the true views, from the first azimuth on
        assert strip.getpixel((16 + 2 + 8, 16 + 2 + 8)) == (180, 0, 0)
    assert "page_images/turntables/chair_2_0_0.gif" in (results / "turntables.html").read_text()
    assert "chair_2_0_0" in (results / "index.html").read_text()
    scores = ["--gt_path", str(tmp_path / "results_truth"), "--distorated_path", str(results)]
    scores += ["--metrics", "psnr", "--protocol", "standard", "--no_html", "--workers", "1"]
    assert metrics.main([*scores, "--output_dir", str(tmp_path / "measured")]) == 0
    assert len((tmp_path / "measured" / "metrics" / "metrics.csv").read_text().splitlines()) == 37


def test_the_wrong_source_of_a_turned_object_is_another_object(folder):
    dataset = ViewDataset(folder, "test", SIZE, training=False)
    assert baselines.other_person(dataset, 3) == 18
    assert baselines.other_person(dataset, 20) == 0


# ---- bad inputs ------------------------------------------------------------------------------


def edit(path, change):
    path.write_text("".join(f"{line}\n" for line in change(path.read_text().split())))


def without(path, *parts):
    with h5py.File(path / "data_chair.hdf5", "a") as file:
        for part in parts:
            del file[part]


def put(path, name, value):
    without(path, name)
    with h5py.File(path / "data_chair.hdf5", "a") as file:
        file[name] = value


KEY = "chair_0_0_0"
# what is damaged -> (layout, damage, sentence)
BAD = {
    "no such data root": (None, lambda root: None, "no such folder; get a data set or render"),
    "no pictures and no file": (
        None, lambda root: root.mkdir(), "has no image folder 'train', and no data_\\*.hdf5",
    ),
    "an empty folder": (
        None, lambda root: (root / "train").mkdir(parents=True), "holds no .jpg, .jpeg, .png file",
    ),
    "a name without a view": (
        None, lambda root: write_named(root, ["chair.png", "a_1.png"]), "does not name a view",
    ),
    "an unknown camera": (
        None,
        lambda root: write_named(root, ["1_01_01_051_07.png", "1_01_01_999_07.png"]),
        "'1_01_01_999_07.png' does not name a view; expected <subject>",
    ),
    "one view of each object": (
        None, lambda root: write_named(root, ["a_1.png", "b_2.png"]), "have one view only",
    ),
    "two pictures of one view": (
        None,
        lambda root: write_named(root, ["a_1.png", "a_2.png", "a_1.jpg"]),
        "two pictures of one view of a",
    ),
    "a missing list": (
        write_hdf5, lambda root: (root / "id_chair_train.txt").unlink(),
        "id_chair_train.txt is not in",
    ),
    "an empty list": (
        write_hdf5, lambda root: (root / "id_chair_train.txt").write_text("\n"),
        "id_chair_train.txt is empty",
    ),
    "a key listed twice": (
        write_hdf5, lambda root: edit(root / "id_chair_train.txt", lambda k: [*k, KEY]),
        f"the name '{KEY}' is already in row 1",
    ),
    "a key that is not in the file": (
        write_hdf5, lambda root: without(root, KEY), f"key {KEY} of .*: no such group",
    ),
    "a key without pose": (
        write_hdf5, lambda root: without(root, f"{KEY}/pose"), f"key {KEY} of .*: no 'pose' in it",
    ),
    "a pose that is not the name's": (
        write_hdf5, lambda root: put(root, f"{KEY}/pose", np.array([4, 0])),
        "its pose is \\[4, 0\\], its name says \\[0, 0\\]",
    ),
    "a picture of another kind": (
        write_hdf5, lambda root: put(root, f"{KEY}/image", np.zeros((16, 16))),
        "the image is float64 of shape \\(16, 16\\)",
    ),
    "a file that is not HDF5": (
        write_hdf5, lambda root: (root / "data_chair.hdf5").write_bytes(b"no"),
        "is not a readable HDF5 file",
    ),
    "two categories": (
        write_hdf5,
        lambda root: (root / "data_car.hdf5").write_bytes((root / "data_chair.hdf5").read_bytes()),
        "data_\\*.hdf5 for car, chair; expected one of them: say which with --category",
    ),
    "a listed picture that is not there": (
        write_folder, lambda root: (root / "train" / f"{KEY}.png").unlink(),
        f"line 1: there is no image {KEY}",
    ),
    "pictures of two sizes": (
        write_folder,
        lambda root: Image.new("RGB", (8, 16)).save(root / "train" / "chair_1_0_0.png"),
        "has 8 x 16 pixels .*, but chair_0_0_0.png has 16 x 16",
    ),
}  # fmt: skip


def read_everything(root):
    dataset = ViewDataset(root, "train", SIZE)
    return [dataset[index] for index in range(len(dataset))]


@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_one_sentence(case, tmp_path):
    make, damage, sentence = BAD[case]
    root = tmp_path / "data"
    if make:
        make(root)
    damage(root)
    with pytest.raises(UserError, match=sentence) as caught:
        read_everything(root)
    assert "\n" not in str(caught.value)


def test_a_test_object_without_pictures_is_one_sentence(tmp_path):
    root = write_folder(tmp_path / "data")
    edit(root / "name_chair_test.txt", lambda names: [*names, "chair_9"])
    with pytest.raises(UserError, match=r"lists chair_9, of which .* has no view"):
        ViewDataset(root, "test", SIZE, training=False)


def test_a_view_that_the_network_does_not_know_is_one_sentence(folder):
    views = [[str(h) for h in range(0, 30, 2)], ["0", "10", "20"]]
    with pytest.raises(UserError, match="shows the view 30, which the network does not know"):
        ViewDataset(folder, "test", SIZE, views=views, training=False)
    with pytest.raises(UserError, match="has 2 view labels, but the network knows views of 1"):
        ViewDataset(folder, "test", SIZE, views=[["0", "2"]], training=False)


@pytest.mark.parametrize("words", [("--ang_skip", "7"), ("--views", "0,0;1"), ("--views", "0,,1")])
def test_a_bad_option_of_views_is_one_sentence(words, folder, tmp_path):
    with pytest.raises(UserError, match=f"{words[0]}.*expected"):
        options(folder, "DPTN", tmp_path, *words)


def test_without_h5py_the_sentence_says_what_to_install(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match="pip install h5py"):
        ViewDataset(file, "train", SIZE)


# ---- check_dataset ---------------------------------------------------------------------------


@pytest.mark.parametrize("make", [write_folder, write_hdf5])
def test_check_dataset_accepts_good_chairs(make, tmp_path, capsys):
    root = make(tmp_path / "data")
    assert check_dataset.main([str(root), "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert "train: 108 pictures of 2 objects" in printed
    assert "18 x 3 views" in printed


def test_check_dataset_names_leaks_missing_views_and_sizes(tmp_path, capsys):
    root = write_folder(tmp_path / "data", {"train": [0, 1], "test": [1, 2]})
    (root / "test" / "chair_2_4_0.png").unlink()
    write_lists(root, {"train": [0, 1]})
    (root / "id_chair_test.txt").unlink()
    Image.new("RGB", (8, 8)).save(root / "train" / f"{keys(0)[5][0]}.png")
    assert check_dataset.main([str(root), "--contact_sheet", "none"]) == 1
    printed = capsys.readouterr().out
    assert "error: 1 objects are in train and in test, the first is chair_1" in printed
    assert "warning: test: 1 objects lack some of the 54 views, the first is chair_2" in printed
    assert "error: train: pictures of 2 sizes (107 of 16x16, 1 of 8x8" in printed
