"""Images kept in memory: same pixels, same order, same training as from files."""

import pytest
import torch

from data import create_dataset
from data.loader import CachedLoader, create_dataloader
from models import create_model
from tests.helpers import train_options
from util.errors import UserError

PLACES = ("device", "host")


def options(people, tmp_path, place: str, *words: str):
    return train_options(
        *words, cache_images=place, dataroot=people, batchSize=2, nThreads=0, gpu_ids=-1,
        load_size=(32, 32), ngf=8, ndf=8, checkpoints_dir=tmp_path, name="run",
    )  # fmt: skip


def batches(opt, epochs=(1, 2), done: int = 0) -> list[dict]:
    loader, found = create_dataloader(create_dataset(opt), opt), []
    for epoch in epochs:
        loader.batch_sampler.set_position(epoch, done)
        assert len(loader) == len(loader.batch_sampler)
        found += list(loader)
    return found


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) if torch.is_tensor(a[k])
        else list(a[k]) == list(b[k])
        for k in a
    )  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("done", [0, 4])
def test_batches_are_those_of_the_files_in_their_order(people, tmp_path, place, done):
    files = batches(options(people, tmp_path, "none"), done=done)
    cached = batches(options(people, tmp_path, place), done=done)
    assert len(files) == len(cached) > 4
    assert all(map(same, files, cached))


@pytest.mark.parametrize("place", PLACES)
def test_twenty_steps_in_float64_have_bit_equal_losses(people, tmp_path, place):
    found = []
    for choice in ("none", place):
        opt = options(people, tmp_path, choice, "--model", "pose2pose")
        torch.manual_seed(0)
        model = create_model(opt)
        for part in (*model.networks.values(), *vars(model).values()):
            if isinstance(part, torch.nn.Module):
                part.double()
        losses = []
        for batch in batches(opt, epochs=range(1, 3))[:20]:
            model.set_input(batch)
            model.inputs = {
                k: v.double() if torch.is_tensor(v) else v for k, v in model.inputs.items()
            }
            model.optimize_parameters()
            losses.append({k: v.item() for k, v in model.losses.items()})
        found.append(losses)
    assert len(found[0]) == 20
    assert found[0] == found[1]


def test_the_memory_of_the_choice_is_said(people, tmp_path):
    opt = options(people, tmp_path, "host")
    dataset = create_dataset(opt)
    create_dataloader(dataset, opt)
    assert dataset.cached == "12 images are kept on cpu (0 MiB)"


def test_a_cpu_reads_files_unless_asked(people, tmp_path):
    opt = options(people, tmp_path, "auto")
    assert not isinstance(create_dataloader(create_dataset(opt), opt), CachedLoader)


def test_augmentation_is_refused_in_a_sentence(people, tmp_path):
    opt = options(people, tmp_path, "host", "--augment", "--angle", "-5", "5")
    with pytest.raises(UserError, match="--cache_images: --augment moves every image anew"):
        create_dataloader(create_dataset(opt), opt)
