"""Wrong inputs of train.py and test.py around a run: its folder, its checkpoints, weight files."""

import json
from collections.abc import Callable
from pathlib import Path

import torch

from tests.bad_inputs import DATA, OPTIONS, Case, Setting, options


class Code:
    """Unpickling this writes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def pickle_with_code(path: Path) -> None:
    """Replace a checkpoint by a pickle that would write ``executed`` beside it."""
    torch.save({"weight": Code(path.with_name("executed"))}, path)
    path.with_name(path.name + ".sha256").unlink(missing_ok=True)


def of_run(file: str, change: Callable[[Path], object]) -> Callable[[Setting], None]:
    return lambda setting: change(setting.run / file) and None


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def cut_without_side_file(path: Path) -> None:
    cut(path)
    path.with_name(path.name + ".sha256").unlink()


def saved(new: Callable[[dict], object]) -> Callable[[Path], None]:
    """Replace the content of a checkpoint by ``new(content)``, without a side file."""

    def change(path: Path) -> None:
        torch.save(new(torch.load(path, weights_only=True)), path)
        path.with_name(path.name + ".sha256").unlink()

    return change


def run_is_a_file(setting: Setting) -> None:
    (setting.runs / "another").write_text("")
    setting.argv += ["--name", "another"]


def runs_is_a_file(setting: Setting) -> None:
    (setting.runs / "file").write_text("")
    setting.argv += ["--checkpoints_dir", str(setting.runs / "file")]


def results_is_a_file(setting: Setting) -> None:
    (setting.runs / "file").write_text("")
    setting.argv += ["--results_dir", str(setting.runs / "file")]


def own_vgg(make: Callable[[Path], object]) -> Callable[[Setting], None]:
    def change(setting: Setting) -> None:
        path = setting.data / "vgg.pth"
        make(path)
        setting.argv += ["--vgg_weights", str(path)]

    return change


def contradiction(setting: Setting) -> None:
    setting.argv += ["--ngf", "8"]


def one_file_is_of_another_model(setting: Setting) -> None:
    """D's weights under G's name."""
    (setting.run / "latest_net_G.pth").write_bytes((setting.run / "latest_net_D.pth").read_bytes())
    (setting.run / "latest_net_G.pth.sha256").unlink()


def edit_json(file: str, text: str) -> Callable[[Setting], None]:
    return lambda setting: (setting.run / file).write_text(text) and None


def wrong_saved_option(setting: Setting) -> None:
    path = setting.run / "train_opt.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"ngf": "many"}))


OUTPUTS = [
    Case("folder holds a run", "train", options("--name good"),
         ("good already holds a training run", "--continue_train", "--overwrite")),
    Case("checkpoints folder is a file", "train", runs_is_a_file,
         ("cannot write to", "file", "--checkpoints_dir")),
    Case("run folder is a file", "train", run_is_a_file,
         ("cannot write to", "another", "--checkpoints_dir")),
    Case("results folder is a file", "test", results_is_a_file,
         ("cannot write to", "file", "--results_dir")),
]  # fmt: skip

CHECKPOINTS = [
    Case("resume a missing epoch", "resume", options("--which_epoch 99"),
         ("no checkpoint", "99_state.pth", "newest good one is --which_epoch 1 (older: latest)")),
    Case("state cut", "resume", of_run("latest_state.pth", cut),
         ("latest_state.pth is damaged", "the newest good one is --which_epoch 1")),
    Case("state cut, no side file", "resume", of_run("latest_state.pth", cut_without_side_file),
         ("latest_state.pth is not a readable checkpoint",)),
    Case("state is a network", "resume", of_run("latest_state.pth", saved(
         lambda state: state["model"]["networks"]["G"])), ("is not the state of a training run",)),
    Case("state lacks an optimizer", "resume", of_run("latest_state.pth", saved(
         lambda state: state["model"]["stepper"]["optimizers"].pop("D") and state)),
         ("latest_state.pth is not a state that DPTNModel can go on from",)),
    Case("state lacks its curves", "resume", of_run("latest_state.pth", saved(
         lambda state: state["extra"].clear() or state)),
         ("latest_state.pth is not a state that DPTNModel can go on from",)),
    Case("state of a strange position", "resume", of_run("latest_state.pth", saved(
         lambda state: state | {"progress": {"place": 3}})),
         ("latest_state.pth is not a state that DPTNModel can go on from",)),
    Case("state holds code", "resume", of_run("latest_state.pth", pickle_with_code),
         ("latest_state.pth holds Python objects",)),
    Case("state of another model", "resume", options("--model pose2pose"),
         ("latest_state.pth, network G does not fit Pose2PoseGenerator", "--model")),
    Case("state of another width", "resume", options("--ngf 8"),
         ("ngf is 8 by the options", "was trained with 4")),
    Case("architecture damaged", "resume", edit_json("architecture.json", "{"),
         ("architecture.json", "not valid JSON")),
    Case("test without a run", "test", options("--name nobody"),
         ("no checkpoint", "nobody", "check --checkpoints_dir and --name")),
    Case("test a missing epoch", "test", options("--which_epoch 99"),
         ("no checkpoint", "99_net_G.pth", "the newest good one is --which_epoch 1")),
    Case("network cut", "test", of_run("latest_net_G.pth", cut),
         ("latest_net_G.pth is damaged", "--which_epoch 1")),
    Case("network holds code", "test", of_run("latest_net_G.pth", pickle_with_code),
         ("latest_net_G.pth holds Python objects",)),
    Case("network is a number", "test", of_run("latest_net_G.pth", saved(lambda state: 7)),
         ("latest_net_G.pth does not hold a state dict",)),
    Case("network lacks a key", "test", of_run("latest_net_G.pth", saved(
         lambda state: state.pop(next(iter(state))) is not None and state)),
         ("latest_net_G.pth does not fit DPTNGenerator", "1 missing")),
    Case("network has a key too many", "test", of_run("latest_net_G.pth", saved(
         lambda state: state | {"surprise": torch.zeros(1)})),
         ("latest_net_G.pth does not fit DPTNGenerator", "1 unexpected (surprise)")),
    Case("network of another shape", "test", of_run("latest_net_G.pth", saved(
         lambda state: {k: v[..., :1] if v.dim() == 4 else v for k, v in state.items()})),
         ("of another shape", "expected (")),
    Case("network of another model", "test", one_file_is_of_another_model,
         ("latest_net_G.pth does not fit DPTNGenerator", "--model")),
    Case("contradicting width", "test", contradiction, ("ngf is 8", "was trained with 4")),
    Case("average that was not trained", "test", options("--ema 0.9"),
         ("no checkpoint", "latest_net_G_ema.pth")),
    Case("saved options damaged", "test", edit_json("train_opt.json", "{'a'"),
         ("train_opt.json is not valid JSON", "delete it")),
    Case("saved options no dict", "test", edit_json("train_opt.json", "[1]"),
         ("train_opt.json does not hold options",)),
    Case("saved option of a wrong type", "test", wrong_saved_option,
         ("train_opt.json: ngf: found many, expected a whole number, 1 or more",)),
    Case("test option of training", "test", options("--niter 3"),
         ("unknown option --niter: it is an option of train.py",)),
    Case("VGG absent", "train", options("--vgg_weights {data}/no.pth"),
         ("--vgg_weights", "no.pth: no such file", "vgg19-dcbb9e9d.pth")),
    Case("VGG of another network", "train", own_vgg(lambda p: torch.save({"a": torch.ones(1)}, p)),
         ("vgg.pth is not a VGG-19 in torchvision's format", "features.0.weight")),
    Case("VGG is a list", "train", own_vgg(lambda p: torch.save([1], p)),
         ("vgg.pth does not hold a state dict",)),
    Case("VGG is text", "train", own_vgg(lambda p: p.write_text("404 not found")),
         ("vgg.pth is not a readable checkpoint",)),
    Case("VGG holds code", "train", own_vgg(pickle_with_code),
         ("vgg.pth holds Python objects",)),
]  # fmt: skip

CASES = [*DATA, *OPTIONS, *OUTPUTS, *CHECKPOINTS]
