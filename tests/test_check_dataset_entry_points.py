"""train.py and test.py refuse every damaged data set with its own sentence and harm nothing."""

import sys
from pathlib import Path

import pytest

import test as testing
import train as training
from tests import tiny_dataset
from tests.dataset_damage import DAMAGES
from util.errors import UserError

REFUSED = [damage for damage, (_, _, refused) in DAMAGES.items() if refused]
SMALL = [
    "--model",
    "DPTN",
    "--gpu_ids",
    "-1",
    "--nThreads",
    "0",
    "--ngf",
    "8",
    "--ndf",
    "8",
    "--load_size",
    "64",
    "64",
]


def start(monkeypatch, main, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["program", *SMALL, *arguments])
    return main()


def train(monkeypatch, root: Path, runs: Path, name: str) -> int:
    more = ["--batchSize", "2", "--niter", "1", "--niter_decay", "0", "--vgg_weights", "random"]
    folders = ("--dataroot", str(root), "--checkpoints_dir", str(runs), "--name", name)
    return start(monkeypatch, training.main, *more, *folders)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Checkpoints folder of a run named ``tiny`` on the undamaged data set."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        assert not train(patch, tiny_dataset.write(folder / "data"), folder / "runs", "tiny")
    return folder / "runs"


def refusals(tmp_path: Path, run) -> dict[str, str]:
    """Damage -> what ``run`` says about the data set, without the path of the data set."""
    sentences = {}
    for damage in REFUSED:
        root = tiny_dataset.write(tmp_path / damage.__name__)
        damage(root)
        with pytest.raises(UserError) as error:
            run(root)
        assert str(root) in str(error.value)
        assert "\n" not in str(error.value)
        sentences[damage.__name__] = str(error.value).replace(str(root), "")
    return sentences


def test_training_gives_every_damage_its_own_sentence(tmp_path, monkeypatch):
    sentences = refusals(tmp_path, lambda root: train(monkeypatch, root, tmp_path / "runs", "x"))
    assert len(set(sentences.values())) == len(REFUSED) >= 12
    assert not list((tmp_path / "runs").rglob("*.pth"))


def test_testing_gives_every_damage_its_own_sentence(tmp_path, trained, monkeypatch):
    def run(root: Path) -> int:
        folders = ("--checkpoints_dir", str(trained), "--name", "tiny", "--dataroot", str(root))
        results = ("--results_dir", str(root / "results"), "--phase", "train")
        return start(monkeypatch, testing.main, *folders, *results)

    sentences = refusals(tmp_path, run)
    assert len(set(sentences.values())) == len(REFUSED) >= 12
