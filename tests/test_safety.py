"""Nothing from a file runs as code, leaves its folder or becomes part of a page's markup."""

import ast
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import test as test_command
import train as train_command
from models.losses.perceptual import load_vgg19_state
from models.step_checkpoint import read_initial
from tests.bad_runs import pickle_with_code
from tests.browser import check_page, needs_chromium
from tests.conftest import ROOT
from tests.helpers import train_options
from tests.test_architecture import SOURCES
from tests.training_child import write_tiny_data
from util.errors import UserError
from util.metrics.networks import WEIGHTS, WeightStore
from util.metrics.registry import MetricUnavailableError
from util.names import result_name
from util.run import checkpoint
from util.run.weights import PublishedFile, load_weights
from util.show.server import LOOPBACK
from util.tables.patn import write_keypoints, write_pairs

REQUIREMENTS = ROOT / "requirements.txt"
HOSTILE = "<script>alert(1)<"  # a slash would make it a folder


# ---- code in files -------------------------------------------------------------------------------

READERS = {
    "checkpoint": checkpoint.load,
    "network": lambda path: checkpoint.load_network(torch.nn.Linear(1, 1), path),
    "VGG-19": lambda path: load_vgg19_state(str(path)),
    "published file": lambda path: load_weights(PublishedFile("x", "x", "https://x"), path),
    "warm start": lambda path: read_initial(path, "G"),
    **{
        f"metric {key}": lambda path, key=key: WeightStore({key: path}).load(key) for key in WEIGHTS
    },
}


@pytest.mark.parametrize("reader", READERS)
def test_a_pickle_with_code_is_refused_and_does_not_run(reader, tmp_path):
    path = tmp_path / "latest_net_G.pth"
    pickle_with_code(path)
    with pytest.raises((UserError, MetricUnavailableError)) as caught:
        READERS[reader](path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_pickle_of_these_tests_would_run(tmp_path):
    pickle_with_code(tmp_path / "x.pth")
    torch.load(tmp_path / "x.pth", weights_only=False)["weight"].close()
    assert (tmp_path / "executed").exists()


def test_an_older_torch_loads_no_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "latest_net_G.pth"
    checkpoint.save(path, {"weight": torch.ones(1)})
    for version in ("2.9.1+cpu", "2.4.0", "1.13.1"):
        monkeypatch.setattr(torch, "__version__", version)
        with pytest.raises(UserError, match=rf"{re.escape(version)} .* 2\.10 or newer"):
            checkpoint.load(path)
    for version in ("2.10.0", "2.14.1+cu130", "3.0.0a0"):
        monkeypatch.setattr(torch, "__version__", version)
        assert torch.equal(checkpoint.load(path)["weight"], torch.ones(1))


def test_the_requirements_ask_for_a_torch_that_loads_checkpoints_safely():
    floors = dict(re.findall(r"^(torch|torchvision)>=([\d.]+)$", REQUIREMENTS.read_text(), re.M))
    assert floors == {"torch": "2.10", "torchvision": "0.25"}  # these two belong together
    assert checkpoint.SAFE_TORCH == (2, 10)


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    """(dotted name, call) of every call in a source file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            found.append((ast.unparse(node.func), node))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_source_file_evaluates_text_or_unpickles(path):
    for name, call in calls(path):
        keywords = {k.arg: ast.unparse(k.value) for k in call.keywords}
        assert name not in {"eval", "exec", "os.system", "os.popen", "compile"}, name
        assert not name.startswith(("pickle.", "cPickle.", "dill.", "yaml.load", "marshal."))
        assert keywords.get("shell") != "True", name
        assert keywords.get("allow_pickle") != "True", name
        if name == "torch.load":
            assert keywords.get("weights_only") == "True"


# ---- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a/../../b", "..", "C:\\x", "a\0b"])
def test_no_name_leads_out_of_the_results(name):
    with pytest.raises(UserError):
        result_name(name, "b.png")
    with pytest.raises(UserError):
        result_name("b.png", name)


def test_a_row_that_climbs_out_reads_and_writes_nothing(tmp_path, monkeypatch):
    root = write_tiny_data(tmp_path / "data")
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    pairs = root / "fasion-resize-pairs-train.csv"
    pairs.write_text("from,to\n../../x.png,person 1.png\n")
    argv = ["--dataroot", root, "--checkpoints_dir", tmp_path / "runs", "--gpu_ids", "-1"]
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, argv)])
    with pytest.raises(UserError, match=r"row 2: the name '\.\./\.\./x\.png' climbs out"):
        train_command.main()
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir())


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """The training page and the result page of a data set with a hostile name, run and title."""
    folder = tmp_path_factory.mktemp("pages")
    root, rng = folder / "data", np.random.default_rng(0)
    names = [f"{HOSTILE}.png", "b&amp;.png"]
    for phase in ("train", "test"):
        (root / phase).mkdir(parents=True)
        for name in names:
            picture = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(picture).save(root / phase / name)
        write_pairs(root / f"fasion-resize-pairs-{phase}.csv", [tuple(names)])
        points = {name: rng.integers(0, 8, (18, 2)).astype(float) for name in names}
        write_keypoints(root / f"fasion-resize-annotation-{phase}.csv", points)
    usual = ["--dataroot", str(root), "--checkpoints_dir", str(folder / "runs")]
    usual += ["--name", HOSTILE, "--gpu_ids", "-1", "--nThreads", "0"]
    train = ["--ngf", "4", "--ndf", "4", "--loadSize", "64", "--old_size", "8"]
    train += ["--vgg_weights", "random", "--niter", "1", "--niter_decay", "0"]
    train += ["--display_freq", "1", "--print_freq", "1", "--no_tensorboard"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", *usual, *train])
        assert train_command.main() == 0
        patch.setattr(sys, "argv", ["test.py", *usual, "--results_dir", str(folder / "results")])
        test_command.main()
    web = folder / "runs" / HOSTILE / "web" / "index.html"
    return {"training": web, "results": folder / "results" / "index.html"}


@pytest.mark.skipif(os.name != "posix", reason="no file can be called so")
@pytest.mark.parametrize("page", ["training", "results"])
def test_a_name_with_markup_is_escaped(page, pages):
    text = pages[page].read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;" in text


@needs_chromium
@pytest.mark.skipif(os.name != "posix", reason="no file can be called so")
@pytest.mark.parametrize("page", ["training", "results"])
def test_a_name_with_markup_appears_as_text_in_the_browser(page, pages):
    report = check_page(pages[page])
    assert report.problems() == []
    assert report.scripts == 0
    assert report.dialogs == []
    assert HOSTILE in report.text
    assert len(report.images) >= 5


# ---- network -------------------------------------------------------------------------------------


def test_visdom_is_this_machine_unless_told_otherwise():
    assert train_options().display_server == "http://localhost"
    for path in SOURCES:
        text = path.read_text()
        assert "0.0.0.0" not in text, path
        for name, call in calls(path):
            if name == "HTTPServer":  # tornado's: it listens on the sockets that it is given
                assert "tornado.httpserver" in text
            elif name.endswith((".bind", "_sockets", "HTTPServer", "TCPServer", "create_server")):
                words = ("127.0.0.1", "localhost", "LOOPBACK", "self._sockets")
                assert any(word in ast.unparse(call) for word in words)
    assert LOOPBACK == "127.0.0.1"
