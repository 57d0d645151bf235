"""GFLA by the commands people type: both stages, test and metrics; the files of its release."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import test as test_command
import train as train_command
from data.synthetic.write import write_dataset
from models.losses.perceptual import VGG19_FILE, random_vgg19_state
from models.networks.gfla import GFLAGenerator
from script import metrics
from tests import tiny_dataset
from tests.conftest import ROOT
from tests.gfla_rules import CONFIGS
from tests.test_train_and_test import run

LEVELS = {
    "fashion": "--attn_layer=2,3 --kernel_size=2=5,3=3",
    "market": "--attn_layer=2 --kernel_size=2=3",
}
TRAIN = "--name=fashion --gpu_id=0 --dataset_mode=fashion --dataroot=./dataset/fashion"
SMALL = (
    "--ngf 4 --ndf 4 --load_size 64 --batchSize 2 --nThreads 0 --vgg_weights random --niter 1 "
    "--print_freq 4 --display_freq 4 --no_tensorboard"
)
METRICS = {
    "fashion": "--gt_path=./dataset/fashion/test_256 --distorated_path=./eval_results/fashion "
    "--fid_real_path=./dataset/fashion/train_256 --name=./fashion",
    "market": "--gt_path=./dataset/market/test_12864 --distorated_path=./eval_results/market "
    "--fid_real_path=./dataset/market/train_12864 --name=./market_12864",
}
FLOW_PICTURES = ("flow_field_2", "flow_field_3", "occlusion_mask_2", "occlusion_mask_3")


def published_test(name: str, mode: str) -> str:
    """The published test command of the released folder or run ``name``."""
    return (
        f"--name={name} --model=pose {LEVELS[mode]} --gpu_id=0 --dataset_mode={mode} "
        f"--dataroot=./dataset/{mode} --results_dir=./eval_results/{mode}"
    )


@pytest.fixture(scope="module")
def trained(people, tmp_path_factory):
    """A working folder after both stages by the published commands, and what they said."""
    home = tmp_path_factory.mktemp("gfla")
    (home / "dataset").mkdir()
    (home / "dataset" / "fashion").symlink_to(people)
    with pytest.MonkeyPatch.context() as patch, open(home / "console.txt", "w") as console:
        patch.chdir(home)
        patch.setattr(sys, "stdout", console)
        words = f"{TRAIN} {LEVELS['fashion']} {SMALL}"
        assert run(train_command, f"--model=poseflownet {words}", patch) == 0
        assert run(train_command, f"--model=pose {words} --continue_train", patch) == 0
    return home


def test_stage_2_says_what_it_took_from_stage_1_and_what_is_new(trained):
    text = (trained / "console.txt").read_text()
    (line,) = [line for line in text.splitlines() if "stage 2 begins" in line]
    assert "the flow estimator's 90 tensors come from" in line
    assert "latest_state.pth" in line
    assert "the source encoder, the target generator, the discriminator" in line
    state = torch.load(trained / "checkpoints/fashion/latest_net_G.pth", weights_only=True)
    assert {key.split(".")[0] for key in state} == {"source", "target", "flow_net"}


def test_the_training_page_shows_flows_and_masks(trained):
    page = (trained / "checkpoints/fashion/web/index.html").read_text()
    for column in FLOW_PICTURES:
        assert column in page


def test_results_are_saved_as_generated_and_the_page_shows_flows(trained, monkeypatch):
    monkeypatch.chdir(trained)
    run(test_command, f"{published_test('fashion', 'fashion')} --nThreads 0", monkeypatch)
    folder = trained / "eval_results" / "fashion"
    results = sorted(folder.glob("*_vis.png"))
    assert len(results) == 12
    assert {Image.open(path).size for path in results} == {(64, 64)}
    assert json.loads((folder / "generation.json").read_text())["image_size"] == [64, 64]
    for column in FLOW_PICTURES:
        assert (folder / "page_images" / f"{results[0].stem}_{column}.jpg").is_file()


def test_results_of_another_size_are_made_on_request(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(trained)
    extra = f"--nThreads 0 --how_many 1 --results_dir {tmp_path} --result_size 256 176"
    run(test_command, f"{published_test('fashion', 'fashion')} {extra}", monkeypatch)
    (result,) = tmp_path.glob("*_vis.png")
    assert Image.open(result).size == (176, 256)


def released_layout(root: Path, mode: str) -> None:
    """Images and tables as GFLA's users have them, two test pairs."""
    if mode == "fashion":
        tiny_dataset.write(root)
        for path in root.glob("fasion-resize-*.csv"):
            path.rename(root / path.name.replace("fasion-resize", "fashion"))
    else:
        write_dataset(root, "market", identities=1, poses=2, test_identities=1)
    folder, size = {"fashion": ("{}_256", (256, 256)), "market": ("{}_12864", (64, 128))}[mode]
    for phase in ("train", "test"):
        (root / folder.format(phase)).mkdir()
        for path in (root / phase).glob("*.jpg"):
            with Image.open(path) as image:
                image.resize(size).save(root / folder.format(phase) / path.name)


@pytest.mark.parametrize("mode", ["fashion", "market"])
def test_released_files_generate_and_the_published_metrics_measure_them(
    mode, tmp_path, monkeypatch
):
    """The released folders hold bare network files: no options, no training state."""
    monkeypatch.chdir(tmp_path)
    name = f"pose_{mode}_checkpoints"
    (tmp_path / "checkpoints" / name).mkdir(parents=True)
    state = GFLAGenerator(CONFIGS[mode]).state_dict()
    torch.save(state, tmp_path / "checkpoints" / name / "latest_net_G.pth")
    released_layout(tmp_path / "dataset" / mode, mode)
    run(test_command, published_test(name, mode), monkeypatch)
    generated = set((tmp_path / "eval_results" / mode).iterdir())
    assert metrics.main(METRICS[mode].split()) in (0, metrics.EXIT_REFUSED)  # FID needs weights
    added = set((tmp_path / "eval_results" / mode).iterdir()) - generated
    assert {path.suffix for path in added} <= {".html"}  # the result page with its scores
    report = {"fashion": "fashion_metrics", "market": "market_12864"}[mode]
    assert "psnr" in (tmp_path / "eval_results" / report / "metrics.csv").read_text()


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("mode", ["fashion", "market"])
def test_the_published_commands_run_as_printed(mode, tmp_path):
    """One full-size step of each stage, at which --max_minutes stops, then testing."""
    home = tmp_path / "hub" / "checkpoints"
    home.mkdir(parents=True)
    state = {f"features.{k}": v for k, v in random_vgg19_state().items()}
    torch.save(state, home / VGG19_FILE)
    write_dataset(tmp_path / "dataset" / mode, mode, identities=6, poses=3, test_identities=1)
    environment = {**os.environ, "TORCH_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    call = {"cwd": tmp_path, "env": environment}
    for stage in ("--model=poseflownet", "--model=pose --continue_train"):
        words = f"{TRAIN.replace('fashion', mode)} {LEVELS[mode]} {stage} --max_minutes 0.01"
        command = [sys.executable, str(ROOT / "train.py"), *shlex.split(words)]
        assert subprocess.run(command, **call).returncode == 75  # interrupted and saved
    words = shlex.split(published_test(mode, mode))
    subprocess.run([sys.executable, str(ROOT / "test.py"), *words], check=True, **call)
    assert len(list((tmp_path / "eval_results" / mode).glob("*_vis.png"))) == 6
