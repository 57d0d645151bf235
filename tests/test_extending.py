"""docs/extending.md is true, and what a newcomer forgets is said in one sentence."""

import re
import shlex
import sys

import pytest

import data
import models
import test as test_command
import train as train_command
from models import create_model
from script import make_synthetic_dataset
from tests.conftest import ROOT
from tests.helpers import random_batch, train_options
from util.errors import UserError

TEXT = (ROOT / "docs" / "extending.md").read_text()
SOURCE = re.search(r"```python\n(.*?)```", TEXT, re.S).group(1)
COMMANDS = re.search(r"```bash\n(.*?)```", TEXT, re.S).group(1).strip().splitlines()


@pytest.fixture
def write_plugin(tmp_path, monkeypatch):
    """Writes a file as if it were in models/ or data/."""

    def write(package, name: str, source: str) -> None:
        folder = tmp_path / f"more_{package.__name__}"
        folder.mkdir(exist_ok=True)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        (folder / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, f"{package.__name__}.{name}", raising=False)

    yield write
    for name in [n for n in sys.modules if n.endswith((".tiny_model", ".bare_dataset"))]:
        del sys.modules[name]


def test_the_model_of_the_document_trains_resumes_and_is_tested_as_written(
    write_plugin, tmp_path, monkeypatch
):
    write_plugin(models, "tiny_model", SOURCE)
    monkeypatch.chdir(tmp_path)
    mains = {"script.make_synthetic_dataset": make_synthetic_dataset, "train.py": train_command}
    mains["test.py"] = test_command
    for line in [*COMMANDS, COMMANDS[1] + " --continue_train --niter 2"]:
        words = [word for word in shlex.split(line) if word not in ("python", "-m")]
        if words[0].endswith(".py"):
            words += ["--gpu_ids", "-1", "--nThreads", "0"]
        words += ["--no_tensorboard", "--load_size", "32"] * (words[0] == "train.py")
        words += ["--how_many", "2"] * (words[0] == "test.py")
        monkeypatch.setattr(sys, "argv", words)
        assert not mains[words[0]].main()
    assert (tmp_path / "checkpoints/my_first/2_net_D.pth").is_file()
    assert len(list((tmp_path / "results/my_first").glob("*_vis.png"))) == 2


def test_the_model_of_the_document_is_about_forty_lines():
    assert len([line for line in SOURCE.splitlines() if line.strip()]) <= 60


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('            self.add_network("D", network(config), config, opt.lr)\n', "",
         "class TinyModel has no network D"),
        ('self.add_network("G", network(config), config,',
         'self.add_network("G", network(config), vars(config),',
         "settings of network G of TinyModel are a dict; expected a frozen dataclass"),
        ("    def forward(self):", "    def forwards(self):", "class TinyModel lacks forward"),
        ("        self.losses = {", "        losses = {", "TinyModel has no losses after a step"),
        ("class TinyModel", "class Tinny", "has no class TinyModel; add it or rename it"),
    ],
)  # fmt: skip
def test_what_a_newcomer_forgets_is_one_sentence(old, new, words, write_plugin, tmp_path):
    assert old in SOURCE
    write_plugin(models, "tiny_model", SOURCE.replace(old, new))
    with pytest.raises(UserError, match=re.escape(words)):
        one_step(tmp_path)


def one_step(folder) -> None:
    """What train.py does until its first line of losses."""
    sizes = {"ngf": 4, "ndf": 4, "load_size": (16, 16)}
    model = create_model(train_options(model="tiny", gpu_ids=-1, checkpoints_dir=folder, **sizes))
    model.set_input(random_batch(1, (16, 16)))
    model.optimize_parameters()
    model.logged()


def test_a_data_set_without_sizes_is_one_sentence(write_plugin):
    source = (
        "from data.pose_dataset import PoseDataset\nclass BareDataset(PoseDataset):\n    pass\n"
    )
    write_plugin(data, "bare_dataset", source)
    with pytest.raises(
        UserError, match=r"BareDataset has no load_size = \(height, width\); add it"
    ):
        train_options(dataset_mode="bare")
    assert train_options(dataset_mode="bare", load_size=(8, 8), old_size=(8, 8)).load_size == (8, 8)
