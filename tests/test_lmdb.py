"""LMDB data: preparation, published keys, interruption, and equality with the file data set."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
from PIL import Image

from data import create_dataset
from data.fashion_dataset import FashionDataset
from data.fashion_lmdb_dataset import FashionLmdbDataset
from data.loader import create_dataloader, make_loader
from script import convert_annotations, prepare_data
from tests.helpers import train_options
from util.errors import UserError
from util.tables.lmdb import LmdbReader, LmdbWriter, close_all, image_key
from util.tables.patn import write_keypoints, write_pairs

ROOT = Path(__file__).resolve().parent.parent
FRAME = (256, 176)
NAMES = [
    f"fashion{who}id000000{i:02d}01_{view}.jpg"
    for who, i in (("WOMENBlouses_Shirts", 7), ("MENShirts_Polos", 12))
    for view in ("1front", "2side", "3back")
]
PAIRS = [(NAMES[0], NAMES[1]), (NAMES[2], NAMES[0]), (NAMES[3], NAMES[5])]
PATH = "img/WOMEN/Blouses_Shirts/id_00000007/01_1_front.jpg"


def write_images(folder, names, size=FRAME, seed=0):
    rng = np.random.RandomState(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.randint(0, 256, (8, 6, 3), dtype=np.uint8))
        coarse.resize((size[1], size[0]), Image.Resampling.BICUBIC).save(folder / name)


@pytest.fixture(scope="module")
def fashion_root(tmp_path_factory):
    """A small data set in the layout of --dataset_mode fashion."""
    root = tmp_path_factory.mktemp("fashion")
    rng = np.random.RandomState(1)
    points = {name: np.floor(rng.rand(18, 2) * FRAME) for name in NAMES}
    for values in points.values():
        values[rng.rand(18) < 0.2] = -1
    for phase in ("train", "test"):
        write_images(root / phase, NAMES)
        write_pairs(root / f"fasion-resize-pairs-{phase}.csv", PAIRS)
        write_keypoints(root / f"fasion-resize-annotation-{phase}.csv", points)
    return root


@pytest.fixture(scope="module")
def lmdb_root(fashion_root, tmp_path_factory):
    """The same data as NTED's lists and LMDB."""
    out = tmp_path_factory.mktemp("lmdb")
    arguments = ["--from", "patn", "--to", "nted", "--input", str(fashion_root)]
    convert_annotations.main([*arguments, "--output", str(out)])
    for phase in ("train", "test"):
        (out / phase).symlink_to(fashion_root / phase)
    prepare_data.main(["--root", str(out), "--workers", "1", "--sizes", "256x176", "64x44"])
    return out


def stored(folder):
    close_all()
    with lmdb.open(str(folder), readonly=True, lock=False) as env, env.begin() as transaction:
        return {bytes(k).decode(): bytes(v) for k, v in transaction.cursor()}


def test_samples_equal_those_of_the_file_data_set(fashion_root, lmdb_root):
    files = FashionDataset(fashion_root, "train", load_size=FRAME)
    images = FashionLmdbDataset(lmdb_root, "train")
    assert len(images) == len(files) == 3
    assert images.pairs == files.pairs
    for index in range(3):
        expected, found = files[index], images[index]
        assert set(found) == set(expected)
        for key, value in expected.items():
            if torch.is_tensor(value):
                assert found[key].dtype == value.dtype
                assert torch.equal(found[key], value), key
            else:
                assert found[key] == value


def test_keys_and_encodings_are_the_published_ones(lmdb_root):
    content = stored(lmdb_root / "256-176")
    assert content.pop("length") == b"00005"  # six images, five of them in pairs
    assert "img/MEN/Shirts_Polos/id_00000012/01_3_back.png" in content
    assert len(content) == 5
    for data in content.values():
        with Image.open(io.BytesIO(data)) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (176, 256))
    assert image_key(PATH) == PATH.replace(".jpg", ".png").encode()


def test_other_sizes_are_resized_with_the_bicubic_filter(fashion_root, lmdb_root):
    data = stored(lmdb_root / "64-44")[PATH.replace(".jpg", ".png")]
    with Image.open(fashion_root / "train" / NAMES[0]) as image:
        expected = np.asarray(image.convert("RGB").resize((44, 64), Image.Resampling.BICUBIC))
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(np.asarray(image), expected)
    small = FashionLmdbDataset(lmdb_root, "train", load_size=(64, 44))
    assert small[0]["source_image"].shape == (3, 64, 44)


def test_images_of_the_release_lose_their_borders(tmp_path):
    write_images(tmp_path, [PATH], size=(256, 256))
    (tmp_path / "train_pairs.txt").write_text(f"{PATH},{PATH}\n")
    with Image.open(tmp_path / PATH) as image:
        cropped = np.asarray(image.convert("RGB").crop((40, 0, 216, 256)))
    prepare_data.main(["--root", str(tmp_path), "--sizes", "256x176", "--workers", "1"])
    data = stored(tmp_path / "256-176")[PATH.replace(".jpg", ".png")]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), cropped)


def many_images(root, count):
    names = [f"img/own{i:04d}.png" for i in range(count)]
    write_images(root, names, size=(64, 32))
    pairs = "".join(f"{a},{b}\n" for a, b in zip(names, names[1:] + names[:1], strict=True))
    (root / "train_pairs.txt").write_text(pairs)
    return names


# Prepares like the command and kills itself in the second transaction, after printing its workers.
KILLED = """
import itertools, multiprocessing, os, signal, sys
from script import prepare_data
from util.tables.lmdb import LmdbWriter

def killing(images):
    yield from itertools.islice(images, 10)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

put, seen = LmdbWriter.put, []

def put_once(self, images):
    put(self, killing(images) if seen else images)
    seen.append(1)

LmdbWriter.put = put_once
prepare_data.main(sys.argv[1:])
"""


def is_running(pid):
    """Whether a process exists and is not merely waiting for its parent to notice its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_preparation_is_completed_by_starting_it_again(tmp_path, workers):
    names = many_images(tmp_path, 250)
    arguments = ["--root", str(tmp_path), "--sizes", "256x128", "--workers", str(workers)]
    command = [sys.executable, "-c", KILLED, *arguments]
    process = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.returncode == -signal.SIGKILL
    pids = process.stdout.split()
    assert len(pids) == (workers if workers > 1 else 0)
    deadline = time.monotonic() + 60
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, pids))

    folder = tmp_path / "256-128"
    assert len(stored(folder)) == 100  # what was committed, and no length
    with pytest.raises(UserError, match="not complete"):
        len(LmdbReader(folder))
    files = prepare_data.find_files(tmp_path, prepare_data.list_images(tmp_path))
    made, total = prepare_data.prepare(files, folder, (256, 128), workers)
    assert (made, total) == (150, 250)
    assert stored(folder)["length"] == b"00250"
    assert set(stored(folder)) == {*names, "length"}


def test_several_workers_make_the_same_environment(lmdb_root, tmp_path):
    arguments = ["--root", str(lmdb_root), "--out", str(tmp_path), "--sizes", "64x44"]
    prepare_data.main([*arguments, "--workers", "2"])
    assert stored(tmp_path / "64-44") == stored(lmdb_root / "64-44")


def test_a_finished_environment_is_left_alone_and_grows_with_its_lists(tmp_path, capsys):
    names = many_images(tmp_path, 5)
    arguments = ["--root", str(tmp_path), "--sizes", "64x32", "--workers", "1"]
    prepare_data.main(arguments)
    prepare_data.main(arguments)
    assert "0 images made, 5 in all" in capsys.readouterr().out
    write_images(tmp_path, ["img/new.png"])
    (tmp_path / "test_pairs.txt").write_text(f"img/new.png,{names[0]}\n")
    prepare_data.main(arguments)
    assert "1 images made, 6 in all" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda record: [], "sources.json does not hold the record"),
        (None, "has images, but no sources.json tells how they were made"),
    ],
)
def test_images_that_were_made_otherwise_are_not_mixed(edit, sentence, tmp_path):
    names = many_images(tmp_path, 3)
    arguments = ["--root", str(tmp_path), "--sizes", "64x32", "--workers", "1"]
    prepare_data.main(arguments)
    before = stored(tmp_path / "64-32")
    record = tmp_path / "64-32" / "sources.json"
    if edit:
        record.write_text(json.dumps(edit(json.loads(record.read_text()))))
    else:
        record.unlink()
        prepare_data.main(arguments)  # nothing is missing: the environment is whole as it is
    write_images(tmp_path, ["img/new.png"])
    (tmp_path / "test_pairs.txt").write_text(f"img/new.png,{names[0]}\n")
    with pytest.raises(UserError, match=sentence):
        prepare_data.main(arguments)
    assert stored(tmp_path / "64-32") == before


def test_missing_and_damaged_images_are_named(tmp_path):
    names = many_images(tmp_path, 3)
    arguments = ["--root", str(tmp_path), "--sizes", "64x32", "--workers", "1"]
    (tmp_path / names[1]).write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"1 images cannot be used.*own0001"):
        prepare_data.main(arguments)
    with pytest.raises(UserError, match="not complete"):
        len(LmdbReader(tmp_path / "64-32"))
    (tmp_path / names[1]).unlink()
    with pytest.raises(UserError, match="1 of 3 images"):
        prepare_data.main(arguments)


def test_names_that_differ_only_in_their_extension_are_refused(tmp_path):
    (tmp_path / "train_pairs.txt").write_text("img/a.png,img/a.jpg\n")
    with pytest.raises(UserError, match="one image in LMDB"):
        prepare_data.main(["--root", str(tmp_path)])


@pytest.mark.parametrize("text", ["256", "256x", "0x4", "ax4", "256x176x3"])
def test_impossible_sizes_are_refused(text, tmp_path):
    with pytest.raises(UserError, match="--sizes"):
        prepare_data.main(["--root", str(tmp_path), "--sizes", text])


def test_each_epoch_draws_one_of_several_sources_reproducibly(lmdb_root, tmp_path):
    paths = [line.split(",")[0] for line in (lmdb_root / "train_pairs.txt").open()]
    for name in ("pose", "256-176"):
        (tmp_path / name).symlink_to(lmdb_root / name)
    (tmp_path / "train_pairs.txt").write_text(",".join(paths) + "\n")
    dataset = FashionLmdbDataset(tmp_path, "train", seed=3)
    drawn = [dataset[epoch]["source_name"] for epoch in range(30)]
    again = FashionLmdbDataset(tmp_path, "train", seed=3)
    assert [again[epoch]["source_name"] for epoch in range(30)] == drawn
    assert len(set(drawn)) == 2
    assert all(dataset[epoch]["target_name"] == dataset[0]["target_name"] for epoch in range(30))


def test_the_order_of_the_lists_is_an_option(lmdb_root):
    first = FashionLmdbDataset(lmdb_root, "test")[0]
    swapped = FashionLmdbDataset(lmdb_root, "test", pairs_order="source_first")[0]
    assert first["source_name"] == swapped["target_name"] == PAIRS[0][0]
    assert torch.equal(first["source_image"], swapped["target_image"])


@pytest.mark.parametrize("parent_reads_first", [False, True])
def test_loader_workers_read_the_environment(lmdb_root, parent_reads_first):
    dataset = FashionLmdbDataset(lmdb_root, "train", load_size=(64, 44))
    expected = [dataset[i] for i in range(3)] if parent_reads_first else None
    loader = make_loader(dataset, 1, workers=2, shuffle=False, drop_last=False)
    batches = list(loader)
    expected = expected or [dataset[i] for i in range(3)]
    for sample, batch in zip(expected, batches, strict=True):
        assert torch.equal(batch["source_image"][0], sample["source_image"])
        assert batch["target_name"][0] == sample["target_name"]


def test_a_worker_that_is_forked_while_the_parent_reads_opens_for_itself(lmdb_root):
    reader = LmdbReader(lmdb_root / "64-44")
    with reader._reading():
        child = os.fork()
        if not child:
            status = 1
            try:
                status = int(not reader.read(PATH))
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0


def test_options_create_the_data_set_at_the_size_of_the_lmdb(lmdb_root, tmp_path):
    opt = train_options(
        model="DPTN_step", dataset_mode="fashion_lmdb", dataroot=lmdb_root, nThreads=0,
        checkpoints_dir=tmp_path, gpu_ids=-1, batchSize=1,
    )  # fmt: skip
    assert tuple(opt.load_size) == (256, 176)
    batch = next(iter(create_dataloader(create_dataset(opt), opt)))
    assert batch["source_image"].shape == (1, 3, 256, 176)


def test_missing_pieces_are_explained(lmdb_root, tmp_path):
    with pytest.raises(UserError, match="prepare_data"):
        FashionLmdbDataset(lmdb_root, "train", load_size=(128, 88))
    for name in ("64-44", "train_pairs.txt"):
        (tmp_path / name).symlink_to(lmdb_root / name)
    with pytest.raises(UserError, match="no keypoints"):
        FashionLmdbDataset(tmp_path, "train", load_size=(64, 44))
    os.unlink(tmp_path / "train_pairs.txt")
    (tmp_path / "train_pairs.txt").write_text("img/a.jpg,img/b.jpg\n")
    with pytest.raises(UserError, match=r"img/a\.jpg, which is not in"):
        FashionLmdbDataset(tmp_path, "train", load_size=(64, 44))


def test_a_write_without_finish_leaves_an_environment_that_says_it_is_incomplete(tmp_path):
    with LmdbWriter(tmp_path / "8-8") as writer:
        writer.put([("img/a.jpg", b"1"), ("img/b.jpg", b"2")])
    reader = LmdbReader(tmp_path / "8-8")
    assert reader.read("img/b.jpg") == b"2"
    with pytest.raises(UserError, match="not complete"):
        len(reader)
