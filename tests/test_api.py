"""PoseTransfer: any model as a function of pictures, with the pixels of test.py."""

import importlib.util
import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from api import PoseTransfer
from models import list_models
from tests import tiny_dataset
from tests.photo_helpers import (
    ListEstimator,
    StickFigureEstimator,
    make_run,
    person,
    photo,
    photo_keypoints,
    standing,
)
from util.errors import UserError
from util.names import result_name
from util.person.motion import retarget
from util.tables.patn import read_keypoints

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A small trained run of each model, made when asked for."""
    folder, made = tmp_path_factory.mktemp("runs"), {}

    def run(model: str) -> Path:
        if model not in made:
            made[model] = make_run(folder / model, model)
        return made[model]

    return run


def load(path: Path, **settings) -> PoseTransfer:
    settings = {"device": "cpu", "estimator": StickFigureEstimator()} | settings
    return PoseTransfer.from_checkpoint(path, **settings)


def same(a: Image.Image, b: Image.Image) -> bool:
    return np.array_equal(np.asarray(a), np.asarray(b))


def run_test_py(monkeypatch, *words: str) -> None:
    """test.py in this process: its name is that of a package of the standard library."""
    spec = importlib.util.spec_from_file_location("project_test", ROOT / "test.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["test.py", *words])
    module.main()


@pytest.mark.parametrize("model", list_models())
def test_a_pair_has_the_pixels_of_test_py(model, runs, tmp_path, monkeypatch):
    data, run = tmp_path / "data", runs(model)
    tiny_dataset.write(data)
    run_test_py(
        monkeypatch, "--name", run.name, "--checkpoints_dir", str(run.parent), "--no_html",
        "--dataroot", str(data), "--gpu_ids", "-1", "--nThreads", "0",
        "--results_dir", str(tmp_path / "results"),
    )  # fmt: skip
    keypoints = read_keypoints(data / "fasion-resize-annotation-test.csv")
    transfer = load(run, estimator=ListEstimator())
    pairs = tiny_dataset.pairs("test")
    for source, target in pairs:
        own, wanted = keypoints[source], keypoints[target]
        result = transfer.transfer(data / "test" / source, wanted, own, (source, target))
        expected = Image.open(tmp_path / "results" / result_name(source, target))
        assert same(result, expected)
    many = transfer.transfer_many(
        [data / "test" / a for a, _ in pairs],
        [keypoints[b] for _, b in pairs],
        [keypoints[a] for a, _ in pairs],
        pairs,
    )
    for (source, target), result in zip(pairs, many, strict=True):
        assert same(result, Image.open(tmp_path / "results" / result_name(source, target)))


@pytest.mark.parametrize("model", list_models())
def test_eight_threads_give_the_results_of_one(model, runs):
    transfer = load(runs(model))
    jobs = [(photo(seed=i), photo((200 + 10 * i, 300), seed=i + 1)) for i in range(8)]
    expected = [transfer.transfer_as(*job) for job in jobs]
    fresh = load(runs(model))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda job: fresh.transfer_as(*job), jobs))
    assert all(same(a, b) for a, b in zip(expected, found, strict=True))
    assert not same(expected[0], expected[1])


def test_keypoints_are_estimated_in_the_annotation_frame(runs):
    transfer = load(runs("dptn"))
    found = transfer.estimate_keypoints(photo((352, 512)))
    expected = np.floor(photo_keypoints((352, 512)) / 2)
    assert np.array_equal(found, expected)


def test_transfer_as_is_transfer_with_the_estimated_keypoints(runs):
    transfer = load(runs("dptn"))
    source, reference = photo(seed=1), photo((200, 300), seed=2)
    points = transfer.estimate_keypoints(reference)
    own = transfer.estimate_keypoints(source)
    assert same(transfer.transfer_as(source, reference), transfer.transfer(source, points, own))


def test_files_arrays_and_pil_images_give_the_same_result(runs, tmp_path):
    transfer, image = load(runs("dptn")), photo()
    image.save(tmp_path / "me.png")
    points = standing(10, 20, 230, 120)
    expected = transfer.transfer(image, points)
    assert expected.size == (176, 256)
    assert same(expected, transfer.transfer(np.asarray(image), points))
    assert same(expected, transfer.transfer(str(tmp_path / "me.png"), points.tolist()))
    assert same(expected, transfer.transfer(tmp_path / "me.png", points))


def test_a_generator_file_and_its_folder_are_the_same_checkpoint(runs):
    run, points = runs("dptn"), standing(10, 20, 230, 120)
    expected = load(run).transfer(photo(), points)
    assert same(expected, load(run / "latest_net_G.pth").transfer(photo(), points))


def test_which_epoch_chooses_the_file(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs("dptn"), run)
    for file in run.glob("latest_net_G*"):
        file.rename(run / file.name.replace("latest", "7"))
    points = standing(10, 20, 230, 120)
    expected = load(runs("dptn")).transfer(photo(), points)
    assert same(expected, load(run, which_epoch=7).transfer(photo(), points))
    with pytest.raises(UserError, match=r"no checkpoint .*latest_net_G\.pth; .* 7$"):
        load(run)


def test_a_published_file_needs_the_name_of_its_model(runs, tmp_path):
    file = tmp_path / "DPTN fashion.pth"
    shutil.copy(runs("dptn") / "latest_net_G.pth", file)
    with pytest.raises(UserError, match=r"holds no train_opt\.json, so the model is unknown"):
        load(file)
    options = {"model": "DPTN", "ngf": 8, "load_size": [64, 64]}
    points = standing(10, 20, 230, 120)
    expected = load(runs("dptn")).transfer(photo(), points)
    assert same(expected, load(file, options=options).transfer(photo(), points))


def test_options_replace_saved_ones_and_mistakes_in_them_are_named(runs):
    transfer = load(runs("dptn"), options={"annotation_size": [128, 88]})
    assert transfer.annotation_size == (128, 88)
    assert transfer.transfer(photo(), standing(5, 10, 115, 60)).size == (88, 128)
    with pytest.raises(UserError, match="unknown option ngff; did you mean --ngf"):
        load(runs("dptn"), options={"ngff": 8})
    with pytest.raises(UserError, match="ngf is 16 by the options"):
        load(runs("dptn"), options={"ngf": 16})


def test_the_command_line_of_the_program_is_not_read(runs, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program", "--ngf", "99", "--nonsense"])
    assert load(runs("dptn")).load_size == (64, 64)


def test_loading_does_not_touch_the_run_or_the_random_state(runs):
    run = runs("dptn")
    files = {p: p.stat().st_mtime_ns for p in run.iterdir()}
    state = torch.get_rng_state()
    transfer = load(run)
    transfer.transfer_as(photo(), photo(seed=2))
    assert torch.equal(state, torch.get_rng_state())
    assert {p: p.stat().st_mtime_ns for p in run.iterdir()} == files


def test_an_estimator_is_only_made_when_it_is_needed(runs):
    transfer = load(runs("dptn"), estimator="nowhere:Estimator")
    points = standing(10, 20, 230, 120)
    assert transfer.transfer(photo(), points, points).size == (176, 256)
    with pytest.raises(UserError, match="No module named 'nowhere'"):
        transfer.transfer(photo(), points)


def test_nobody_on_a_picture_is_a_sentence_that_names_it(runs, tmp_path):
    photo().save(tmp_path / "tree.jpg")
    transfer = load(runs("dptn"), estimator=ListEstimator([], [person(np.full((18, 2), -1.0))]))
    with pytest.raises(UserError, match=r"^tree\.jpg: no person was found"):
        transfer.estimate_keypoints(tmp_path / "tree.jpg")
    with pytest.raises(UserError, match="only 0 of 18 joints"):
        transfer.estimate_keypoints(photo())


@pytest.mark.parametrize("points", [np.zeros((17, 2)), np.full((18, 2), np.inf)])
def test_keypoints_of_another_shape_are_refused(runs, points):
    with pytest.raises(UserError, match="the target pose: keypoints have the shape"):
        load(runs("dptn")).transfer(photo(), points, standing(0, 0, 256, 176))


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"there is no checkpoint .*nowhere"):
        load(tmp_path / "nowhere" / "latest_net_G.pth")
    with pytest.raises(UserError, match=r"holds no train_opt\.json"):
        load(tmp_path)
    (tmp_path / "train_opt.json").write_text(json.dumps({"model": "DPTN"}))
    with pytest.raises(UserError, match=r"no checkpoint .*latest_net_G\.pth"):
        load(tmp_path, options={"ngf": 4})


@pytest.mark.parametrize("name", ["text.pth", "latest_net_G.pth"])
def test_a_file_that_is_no_checkpoint_is_refused_in_words(runs, tmp_path, name):
    (tmp_path / name).write_text("hello")
    options = {"model": "DPTN", "ngf": 8, "load_size": [64, 64]}
    with pytest.raises(UserError, match=r"not a readable checkpoint.*no PyTorch file\)") as caught:
        load(tmp_path / name, options=options)
    assert "*_:" not in str(caught.value)


def test_a_device_that_is_not_there_is_refused(runs):
    with pytest.raises(UserError, match="the device cuda:77 cannot be used"):
        load(runs("dptn"), device="cuda:77")


@pytest.mark.parametrize(
    ("size", "data", "name", "words"),
    [
        ((256, 256), "dataset/fashion", "mine", None),
        ((128, 64), "dataset/market", "mine", None),  # as published
        ((64, 48), "dataset/fashion", "mine", "trained on pictures of 48 x 64 pixels"),
        ((256, 256), "dataset/synthetic", "mine", "trained on drawn people of 256 x 256 pixels"),
        ((128, 88), "gone", "Synthetic_people", "trained on drawn people of 88 x 128 pixels"),
        ((256, 256), None, "mine", "trained on drawn people of 256 x 256 pixels"),
    ],
)
def test_a_generator_of_small_or_drawn_pictures_says_so(size, data, name, words, tmp_path):
    if data is None:  # a folder that the renderer wrote
        (tmp_path / "synthetic.json").touch()
    opt = SimpleNamespace(
        view_counts=None, load_size=size, annotation_size=(256, 176), name=name,
        dataroot=data or str(tmp_path),
    )  # fmt: skip
    remark = PoseTransfer(SimpleNamespace(opt=opt, device=torch.device("cpu"))).remark
    assert remark is None if words is None else words in remark


def test_retargeting_gives_the_pose_the_limbs_of_the_source(runs):
    transfer = load(runs("dptn"))
    child, adult = standing(120, 60, 120, 60), standing(10, 20, 230, 120)
    expected = transfer.transfer(photo(), retarget(adult, child, (256, 176)), child)
    assert same(expected, transfer.transfer(photo(), adult, child, retarget=True))
    assert same(expected, transfer.transfer_as(photo(), photo(), child, adult, retarget=True))
    assert not same(expected, transfer.transfer(photo(), adult, child))


@pytest.mark.parametrize("fitted", [True, False])
def test_an_animation_is_one_picture_a_pose_made_as_it_is_asked_for(runs, fitted):
    transfer = load(runs("dptn"))
    own = standing(10, 20, 230, 120)
    poses = [standing(40, 20 + 3 * i, 150, 100) for i in range(5)]
    frames = transfer.animate(photo(), poses, own, retarget=fitted, batch_size=2)
    wanted = retarget(np.stack(poses), own, (256, 176)) if fitted else poses
    for pose in wanted:
        assert same(next(frames), transfer.transfer(photo(), pose, own))
    assert next(frames, None) is None
    assert list(transfer.animate(photo(), [], own)) == []
    with pytest.raises(UserError, match="pose 1: keypoints have the shape"):
        transfer.animate(photo(), [poses[0], np.full((18, 2), np.nan)], own)
