"""The commands people type: train.py and test.py on real files, with their pages and logs."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import test as test_command
import train as train_command
from models.losses.perceptual import VGG19_FILE, random_vgg19_state
from script import baselines, metrics
from tests.browser import check_page, needs_chromium
from tests.conftest import ROOT
from tests.test_options import PUBLISHED_TEST, PUBLISHED_TRAIN
from tests.visdom_server import VisdomServer
from util.errors import UserError
from util.image import load_image, mark_of
from util.metrics.pairs import score_pairs
from util.names import parse_result_name, result_name
from util.tables.patn import read_pairs

SMALL = "--ngf 4 --ndf 4 --load_size 64 32 --batchSize 2 --nThreads 0 --gpu_ids -1"
QUICK = f"{SMALL} --vgg_weights random --niter 1 --niter_decay 0 --print_freq 4 --display_freq 4"


def run(module, words: str, monkeypatch) -> int | None:
    """Call an entry point in this process, as if ``words`` had been typed."""
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *shlex.split(words)])
    return module.main()


@pytest.fixture(scope="session")
def trained(people, tmp_path_factory):
    """The folder of checkpoints after one short training named ``run``."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        words = f"--name run --checkpoints_dir {folder} --dataroot {people} {QUICK} --val_freq 12"
        assert run(train_command, f"{words} --val_pairs 4", patch) == 0
    return folder


def generate(trained, people, folder, monkeypatch, words: str = "") -> list[Path]:
    base = f"--name run --checkpoints_dir {trained} --dataroot {people} --results_dir {folder}"
    run(test_command, f"{base} --nThreads 0 --gpu_ids -1 {words}", monkeypatch)
    return sorted(folder.glob("*_vis.*"))


def test_training_leaves_checkpoints_options_logs_and_a_page(trained):
    run_dir = trained / "run"
    names = {p.name for p in run_dir.iterdir()}
    labels = ("latest", "1", "best")
    assert {f"{label}_net_{net}.pth" for label in labels for net in "GD"} <= names
    assert {"latest_state.pth", "train_opt.txt", "train_opt.json", "architecture.json"} <= names
    lines = (run_dir / "loss_log.txt").read_text().splitlines()
    losses = [line for line in lines if "app_gen_s" in line]
    assert len(losses) == 6  # 24 pairs, one line every 4 samples
    assert all("affi_gen_t" in line and "lr_G: 0.0002000000" in line for line in losses)
    assert any("psnr" in line for line in lines)
    state = torch.load(run_dir / "latest_net_G.pth", weights_only=True)
    assert not any(key.startswith("module.") for key in state)


def test_the_validated_number_is_that_of_the_images_which_test_writes(
    trained, people, tmp_path, monkeypatch
):
    state = torch.load(trained / "run" / "latest_state.pth", weights_only=True)
    files = generate(trained, people, tmp_path / "best", monkeypatch, "--which_epoch best")
    table = read_pairs(people / "fasion-resize-pairs-test.csv")
    chosen = np.linspace(0, len(table) - 1, 4).round().astype(int)  # --val_pairs 4
    by_name = {path.name: path for path in files}
    pairs = [
        [np.asarray(Image.open(path).convert("RGB")) for path in (people / "test" / target, result)]
        for source, target in (table[i] for i in chosen)
        for result in (by_name[result_name(source, target)],)
    ]
    assert state["extra"]["best"] == score_pairs(pairs, "standard", ("psnr",))["psnr"]


def test_baselines_give_the_numbers_of_metrics(trained, people, tmp_path, monkeypatch):
    generate(trained, people, tmp_path / "results", monkeypatch)
    words = f"--name run --checkpoints_dir {trained} --dataroot {people} --nThreads 0 --gpu_ids -1"
    run(baselines, f"{words} --results_dir {tmp_path}", monkeypatch)
    own = json.loads((tmp_path / "baselines.json").read_text())["generated"]
    words = f"--gt_path {people}/test --distorated_path {tmp_path}/results --protocol standard"
    words += f" --metrics psnr ssim --no_html --output_dir {tmp_path / 'report'} --name run"
    assert metrics.main(shlex.split(words)) == 0
    found = json.loads((tmp_path / "report" / "run" / "metrics.json").read_text())["metrics"]
    for name in ("psnr", "ssim"):
        assert own[name] == pytest.approx(found[f"standard.{name}"]["value"], abs=1e-12)


def test_testing_generates_every_pair_with_the_published_names(
    trained, people, tmp_path, monkeypatch
):
    files = generate(trained, people, tmp_path / "all", monkeypatch, "--batchSize 5")
    pairs = (people / "fasion-resize-pairs-test.csv").read_text().split()[1:]
    expected = {tuple(n.removesuffix(".jpg") for n in line.split(",")) for line in pairs}
    assert {parse_result_name(p.name) for p in files} == expected
    assert {Image.open(p).size for p in files} == {(176, 256)}
    assert {p.suffix for p in files} == {".png"}
    run = json.loads((files[0].parent / "generation.json").read_text())["run"]
    assert {mark_of(Image.open(p)) for p in files} == {run}


def test_batch_1_and_batch_7_give_the_same_bytes_and_none_is_dropped(
    trained, people, tmp_path, monkeypatch
):
    one = generate(trained, people, tmp_path / "1", monkeypatch, "--batchSize 1")
    seven = generate(trained, people, tmp_path / "7", monkeypatch, "--batchSize 7")
    assert [p.name for p in one] == [p.name for p in seven]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, seven, strict=True))
    words = "--batchSize 2 --how_many 5 --save_format jpg"
    five = generate(trained, people, tmp_path / "5", monkeypatch, words)
    assert len(five) == 5
    assert {p.suffix for p in five} == {".jpg"}


def test_the_moving_average_is_saved_and_generates_other_images(people, tmp_path, monkeypatch):
    words = f"--name run --checkpoints_dir {tmp_path} --dataroot {people} {QUICK} --ema 0.99"
    words += " --init_gain 1"
    run(train_command, words, monkeypatch)
    assert (tmp_path / "run" / "latest_net_G_ema.pth").is_file()
    plain = generate(tmp_path, people, tmp_path / "plain", monkeypatch, "--how_many 2")
    average = generate(tmp_path, people, tmp_path / "ema", monkeypatch, "--how_many 2 --ema 0.5")
    assert [p.name for p in plain] == [p.name for p in average]
    assert plain[0].read_bytes() != average[0].read_bytes()


def test_a_published_file_with_module_prefixes_loads_and_generates(
    trained, people, tmp_path, monkeypatch
):
    own = torch.load(trained / "run" / "latest_net_G.pth", weights_only=True)
    folder = tmp_path / "checkpoints" / "run"
    folder.mkdir(parents=True)
    torch.save({f"module.{k}": v for k, v in own.items()}, folder / "latest_net_G.pth")
    expected = generate(trained, people, tmp_path / "own", monkeypatch, "--how_many 2")
    words = "--how_many 2 --ngf 4 --load_size 64 32"
    files = generate(tmp_path / "checkpoints", people, tmp_path / "pub", monkeypatch, words)
    assert len(files) == len(expected) == 2
    for ours, theirs in zip(files, expected, strict=True):  # pixels: the bytes name the run
        assert load_image(ours).tobytes() == load_image(theirs).tobytes()


def damaged(state: dict, how: str) -> dict:
    state = dict(state)
    if how == "missing":
        del state["outconv.conv1.weight"], state["outconv.model.2.weight"]
    elif how == "extra":
        state["surplus.weight"] = torch.zeros(1)
    else:
        state["block0.model.0.weight"] = torch.zeros(1, 2, 3)
    return state


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "outconv.conv1.weight"),
        ("extra", "surplus.weight"),
        ("shape", r"block0.model.0.weight is \(1, 2, 3\)"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_an_error_that_names_the_key(
    trained, people, tmp_path, monkeypatch, how, message
):
    own = torch.load(trained / "run" / "latest_net_G.pth", weights_only=True)
    folder = tmp_path / "checkpoints" / "run"
    folder.mkdir(parents=True)
    torch.save(damaged(own, how), folder / "latest_net_G.pth")
    words = "--ngf 4 --load_size 64 32"
    with pytest.raises(UserError, match=message):
        generate(tmp_path / "checkpoints", people, tmp_path / "out", monkeypatch, words)


def test_a_missing_checkpoint_names_the_file_and_what_there_is(
    trained, people, tmp_path, monkeypatch
):
    with pytest.raises(UserError, match=r"7_net_G\.pth; the newest good one is .*latest"):
        generate(trained, people, tmp_path / "out", monkeypatch, "--which_epoch 7")


def test_a_contradicting_architecture_option_is_named(trained, people, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="num_CABs is 3 by the options"):
        generate(trained, people, tmp_path / "out", monkeypatch, "--num_CABs 3")


def test_a_second_training_does_not_write_over_the_first(trained, people, monkeypatch):
    words = f"--name run --checkpoints_dir {trained} --dataroot {people} {QUICK}"
    with pytest.raises(UserError, match="already holds a training run"):
        run(train_command, words, monkeypatch)


@pytest.mark.parametrize("mode", ["lsgan", "vanilla", "hinge", "wgangp"])
@pytest.mark.parametrize("net_D", ["resnet", "res"])
def test_every_adversarial_loss_trains_with_every_discriminator(
    people, tmp_path, monkeypatch, mode, net_D
):
    words = f"--name run --checkpoints_dir {tmp_path} --dataroot {people} {QUICK} --no_html"
    extra = f"--gan_mode {mode} --netD {net_D} --dis_layers 2 --max_dataset_size 2"
    assert run(train_command, f"{words} {extra} --no_tensorboard", monkeypatch) == 0


def test_random_vgg_weights_are_said_plainly(people, tmp_path, monkeypatch, capsys):
    words = f"--name run --checkpoints_dir {tmp_path} --dataroot {people} {QUICK} --no_html"
    assert run(train_command, f"{words} --no_tensorboard --max_dataset_size 2", monkeypatch) == 0
    assert capsys.readouterr().out.count("fixed random weights (--vgg_weights random)") == 1


@needs_chromium
def test_training_and_result_pages_open_in_a_browser(trained, people, tmp_path, monkeypatch):
    generate(trained, people, tmp_path, monkeypatch)
    for page, images in ((tmp_path / "index.html", 5 * 12), (trained / "run/web/index.html", 6)):
        report = check_page(page)
        assert report.problems() == []
        assert len(report.images) >= images


def test_a_visdom_server_receives_windows_and_may_die(people, tmp_path, capfd, monkeypatch):
    import visdom

    # A server that is slow on a busy machine is not a dead one.
    for limit, seconds in {"CONNECT": 60.0, "READ": 60.0, "RETRY": 1.0}.items():
        monkeypatch.setattr(f"util.show.visdom.{limit}_SECONDS", seconds)
    with VisdomServer(tmp_path) as server:
        client = visdom.Visdom(port=server.port, env="run", use_incoming_socket=False)
        watch = train_command.TrainingRun.watch

        def kill_once_seen(training, *arguments):
            """After the fourth step the losses of the second have to arrive; then it dies."""
            if training.progress.total == 8:
                deadline = time.monotonic() + 300
                while not client.win_exists("1_losses", env="run"):
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                server.kill()
            return watch(training, *arguments)

        monkeypatch.setattr(train_command.TrainingRun, "watch", kill_once_seen)
        words = f"--name run --checkpoints_dir {tmp_path} --dataroot {people} {QUICK}"
        extra = f"--niter 2 --display_id 1 --display_port {server.port}"
        assert run(train_command, f"{words} {extra}", monkeypatch) == 0
    warnings = [line for line in capfd.readouterr().err.splitlines() if "visdom" in line.lower()]
    assert len(warnings) == 1


def free_gib() -> float:
    """Memory that a new process could have; 0 where the system does not say."""
    path = Path("/proc/meminfo")
    found = re.search(r"MemAvailable: +(\d+) kB", path.read_text() if path.is_file() else "")
    return int(found[1]) / 2**20 if found else 0.0


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("mode", ["fashion", "market"])
def test_the_published_commands_run_as_printed(mode, tmp_path):
    """One full-size step of training, then testing, by the commands of the README.

    Where the memory is short, the step of fashion is made of eight parts: 32 images of 256 x 256
    take more than 18 GB.
    """
    index = ("fashion", "market").index(mode)
    home = tmp_path / "hub" / "checkpoints"
    home.mkdir(parents=True)
    state = {f"features.{k}": v for k, v in random_vgg19_state().items()}
    torch.save(state, home / VGG19_FILE)
    make = f"-m script.make_synthetic_dataset --out {tmp_path}/dataset/{mode} --layout {mode} "
    sizes = "--identities 6 --poses 3 --test_identities 2"
    call = {"env": {**os.environ, "TORCH_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}}
    subprocess.run([sys.executable, *shlex.split(make + sizes)], check=True, cwd=ROOT)
    words = shlex.split(f"{PUBLISHED_TRAIN[index]} --max_minutes 0.01")  # stops after one step
    if mode == "fashion" and free_gib() < 32:
        words += ["--batchSize", "4", "--accumulate", "8"]
    done = subprocess.run([sys.executable, str(ROOT / "train.py"), *words], cwd=tmp_path, **call)
    assert done.returncode == 75  # interrupted and saved
    subprocess.run(
        [sys.executable, str(ROOT / "test.py"), *shlex.split(PUBLISHED_TEST[index])],
        cwd=tmp_path, check=True, **call,
    )  # fmt: skip
    assert len(list((tmp_path / "results" / f"DPTN_{mode}").glob("*_vis.png"))) == 12
