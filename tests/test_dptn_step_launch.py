"""The published command lines of the step system, typed into a shell, with two processes."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.ports import free_port
from util.names import result_name
from util.tables.patn import write_keypoints, write_pairs

ROOT = Path(__file__).resolve().parent.parent
SIZE = (64, 32)
NAMES = [f"person{i}.png" for i in range(5)]
PAIRS = list(itertools.pairwise(NAMES))
LAUNCHERS = {
    "torchrun": ["-m", "torch.distributed.run"],
    "torch.distributed.launch": ["-m", "torch.distributed.launch"],
}


@pytest.fixture
def noise_data(tmp_path):
    rng = np.random.RandomState(0)
    for phase in ("train", "test"):
        (tmp_path / phase).mkdir()
        for name in NAMES:
            picture = Image.fromarray(rng.randint(0, 256, (*SIZE, 3), dtype=np.uint8))
            picture.save(tmp_path / phase / name)
        keypoints = {name: np.floor(rng.rand(18, 2) * SIZE) for name in NAMES}
        write_pairs(tmp_path / f"fashion-pairs-{phase}.csv", PAIRS)
        write_keypoints(tmp_path / f"fashion-annotation-{phase}.csv", keypoints)
    return tmp_path


def launch(launcher, script, arguments):
    command = [sys.executable, *LAUNCHERS[launcher], "--nproc_per_node=2"]
    command += [f"--master_port={free_port()}", script, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-8000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_published_commands_train_and_test_with_two_processes(noise_data, launcher):
    shared = ["--id", "run", "--dataroot", noise_data, "--checkpoints_dir", noise_data / "runs"]
    output = launch(launcher, "train.py", [
        *shared, "--netG", "dptn", "--batchsize", 2, "--num_workers", 0, "--load_size", *SIZE,
        "--old_size", *SIZE, "--ngf", 4, "--ndf", 4, "--step_size", 2, "--vgg_weights", "random",
        "--niter", 1, "--niter_decay", 0, "--print_freq", 4,
    ])  # fmt: skip
    assert output.count("epoch 1/1 4/4") == 1  # one process prints, both count
    results = noise_data / "results"
    launch(launcher, "test.py", [
        *shared, "--batchsize", 1, "--num_workers", 0, "--results_dir", results, "--save_id",
        "run", "--simple_test", "--save_steps",
    ])  # fmt: skip
    files = {result_name(*pair) for pair in PAIRS}
    for folder in ("run_1", "run_2"):
        assert {path.name for path in (results / folder).iterdir()} == files
    assert not (results / "run" / "index.html").exists()
