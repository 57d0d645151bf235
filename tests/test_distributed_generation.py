"""Several processes of test.py share the list of pairs; memory does not grow with its length."""

import gc
import os
import re
import subprocess
import sys
import threading
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from models import create_model
from options.train_options import TrainOptions
from tests.conftest import ROOT
from tests.ports import free_port
from util.show.results import MAX_PENDING, ResultWriter

PAIRS = 11  # two processes with batches of 3: a full global batch of 6, then 3 + 2


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory, people):
    """A folder with the checkpoint ``run`` of an untrained small model."""
    folder = tmp_path_factory.mktemp("checkpoints")
    words = f"--name run --checkpoints_dir {folder} --dataroot {people} --load_size 64 32"
    words += " --ngf 4 --ndf 4 --gpu_ids -1 --vgg_weights random --init_gain 1"
    options = TrainOptions()
    opt = options.parse(words.split())
    model = create_model(opt)
    (folder / "run").mkdir()
    options.record(opt, folder / "run")
    model.save_networks("latest")
    return folder


def generate(checkpoints, people, folder, processes: int, batch: int) -> list[str]:
    """Run test.py; lines "rank file" for every image that was written."""
    journal = folder.with_suffix(".txt")
    launcher = ["-m"]
    if processes > 1:
        several = ["torch.distributed.run", f"--nproc_per_node={processes}"]
        launcher += [*several, f"--master_port={free_port()}", "-m"]
    words = f"--name run --checkpoints_dir {checkpoints} --dataroot {people} --results_dir {folder}"
    words += f" --batchSize {batch} --nThreads 0 --gpu_ids -1 --how_many {PAIRS}"
    environment = {**os.environ, "JOURNAL": str(journal), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *launcher, "tests.generate_child", *words.split()]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert f"{PAIRS} images in" in done.stdout
    return journal.read_text().splitlines()


def test_two_processes_write_every_image_once_and_one_complete_page(checkpoints, people, tmp_path):
    alone = generate(checkpoints, people, tmp_path / "one", 1, 6)
    both = generate(checkpoints, people, tmp_path / "two", 2, 3)
    written = Counter(line.split(" ", 1)[1] for line in both if "_vis.png" in line)
    assert set(written.values()) == {1}
    assert len(written) == PAIRS
    assert set(written) == {line.split(" ", 1)[1] for line in alone if "_vis.png" in line}
    by_rank = Counter(line[0] for line in both if "_vis.png" in line)
    assert by_rank == {"0": 6, "1": 5}

    files = {p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file()}
    assert files == {
        p.relative_to(tmp_path / "two") for p in (tmp_path / "two").rglob("*") if p.is_file()
    }
    for name in files - {p for p in files if p.suffix in (".txt", ".json")}:
        one, two = ((tmp_path / folder / name).read_bytes() for folder in ("one", "two"))
        date = rb"\d{4}-\d\d-\d\d \d\d:\d\d UTC"
        assert re.sub(date, b"", one) == re.sub(date, b"", two)
    assert (tmp_path / "two" / "index.html").read_text().count('class="card"') == PAIRS


# ---- memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [100, 400])
def test_images_that_wait_to_be_written_are_bounded_for_any_length_of_the_list(
    count, tmp_path, monkeypatch
):
    alive: weakref.WeakSet = weakref.WeakSet()
    most, lock = [0], threading.Lock()

    class Picture:
        """Stands for the memory of one image until it has been written."""

    def save(writer: ResultWriter, path, picture: np.ndarray) -> None:
        with lock:
            most[0] = max(most[0], len(alive))

    class Counted(ThreadPoolExecutor):
        def submit(self, write, *arguments):
            token = Picture()
            alive.add(token)
            return super().submit(lambda token=token: write(*arguments))

    monkeypatch.setattr(ResultWriter, "_save", save)
    monkeypatch.setattr("util.show.results.ThreadPoolExecutor", Counted)
    image = torch.zeros(1, 3, 8, 8)
    with ResultWriter(tmp_path, (8, 8), page=False) as writer:
        for i in range(count):
            batch = {"source_name": [f"{i}.jpg"], "target_name": ["t.jpg"]}
            writer.add(batch, {"fake_target": image})
    gc.collect()
    assert 0 < most[0] <= MAX_PENDING + 4
    assert not alive
