"""Whatever keys and values a checkpoint holds: it is loaded right or refused in a sentence."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from models.optim import Stepper
from models.training import Progress
from tests.fuzz import cases
from tests.test_checkpoint_crashes import Recorder, Weights
from util.errors import UserError
from util.run import checkpoint
from util.run.device import Precision
from util.run.folder import RunFolder

torch.manual_seed(0)
NETWORK = nn.Sequential(
    nn.utils.spectral_norm(nn.ConvTranspose2d(2, 2, 3)), nn.BatchNorm2d(2), nn.Linear(3, 2)
)
GOOD = {k: v.clone() for k, v in NETWORK.state_dict().items()}
FUZZ = cases(200)

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
tensors = st.builds(
    lambda shape, dtype, fill: torch.full(shape, fill, dtype=dtype),
    st.lists(st.integers(0, 3), max_size=4),
    st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
    st.sampled_from([0.0, 1.0, math.nan, math.inf]),
) | st.sampled_from([
    torch.zeros(2, dtype=torch.long), torch.zeros(2, dtype=torch.complex64),
    torch.zeros(2, 3, device="meta"), torch.eye(2).to_sparse(), torch.tensor(True),
])  # fmt: skip
keys = st.one_of(
    st.sampled_from(list(GOOD)),
    st.sampled_from(list(GOOD)).map(lambda k: f"module.{k}"),
    st.sampled_from(list(GOOD)).map(lambda k: k.replace(".", "._orig_mod.", 1)),
    st.sampled_from(["state_dict", "netG", "transformer.x", "module", "", "."]),
    st.text(max_size=8),
    st.integers(),
)
changes = st.lists(st.tuples(st.sampled_from(["set", "drop", "rename"]), keys, tensors | plain),
                   max_size=4)  # fmt: skip


def changed(state: dict, edits) -> dict:
    state = dict(state)
    for action, key, value in edits:
        if action == "set":
            state[key] = value
        elif action == "drop":
            state.pop(key, None)
        elif state:
            state[key] = state.pop(next(iter(state)))
    return state


@FUZZ
@given(changes, st.booleans())
def test_a_state_dict_is_loaded_as_it_is_or_refused(edits, wrapped):
    content = changed(GOOD, edits)
    network = nn.Sequential(
        nn.utils.spectral_norm(nn.ConvTranspose2d(2, 2, 3)), nn.BatchNorm2d(2), nn.Linear(3, 2)
    )
    try:
        checkpoint.load_state(network, {"state_dict": content} if wrapped else content, "the file")
    except UserError as error:
        sentence = str(error)
    else:
        sentence = ""
    if sentence:
        assert sentence.startswith("the file")
        return
    loaded = network.state_dict()
    for key, value in checkpoint.strip_prefix(content).items():
        if key in loaded and not key.endswith("weight"):
            assert torch.equal(loaded[key], value.to(loaded[key].dtype))
    assert all(torch.isfinite(v).all() for v in loaded.values())


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """A good state, and a function that resumes from another one."""
    folder = tmp_path_factory.mktemp("run")
    run = TrainingRunWithOptimizer(folder)
    run.save("latest")
    return checkpoint.load(folder / "latest_state.pth"), folder


def TrainingRunWithOptimizer(folder):
    from models.training import TrainingRun

    model = Weights(folder, 1.0)
    stepper = Stepper(Precision("fp32", torch.device("cpu")), "constant", 1, 1)
    for label, network in model.networks.items():
        stepper.add(label, network, 0.1, (0.5, 0.9))
        stepper.begin()
        stepper.backward(label, network(torch.ones(1, 4)).sum())
        stepper.update(label)
    original = model.state_dict

    def load(content, origin):
        for label, network in model.networks.items():
            checkpoint.load_state(network, content["networks"][label], origin)
        stepper.load_state_dict(content["stepper"])
        return True

    model.state_dict = lambda: {**original(), "stepper": stepper.state_dict()}
    model.load_state_dict = load
    return TrainingRun(model, RunFolder(folder, False, False), Recorder())


PATHS = [
    ("progress",), ("progress", "epoch"), ("progress", "total"), ("extra",),
    ("extra", "visualizer"),
    ("generators",), ("model",), ("model", "networks"), ("model", "networks", "G"),
    ("model", "networks", "G", "weight"), ("model", "stepper"), ("model", "stepper", "optimizers"),
    ("model", "stepper", "optimizers", "G"), ("model", "stepper", "optimizers", "G", "state"),
    ("model", "stepper", "optimizers", "G", "state", 0),
    ("model", "stepper", "optimizers", "G", "state", 0, "exp_avg"),
    ("model", "stepper", "optimizers", "G", "state", 0, "step"),
    ("model", "stepper", "optimizers", "G", "param_groups"),
    ("model", "stepper", "epochs_done"), ("model", "stepper", "epochs_done", "D"),
    ("model", "stepper", "scalers"),
]  # fmt: skip


def replaced(content, path, value):
    if not path:
        return value
    copy = dict(content)
    copy[path[0]] = replaced(copy[path[0]], path[1:], value)
    return copy


@FUZZ
@given(path=st.sampled_from(PATHS), value=tensors | plain)
def test_a_state_with_any_value_anywhere_goes_on_or_is_refused(state, path, value):
    good, folder = state
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "load", lambda _: replaced(good, path, value))
        run = TrainingRunWithOptimizer(folder)
        run.save = run._complete_save = lambda *labels: True
        sentence = ""
        try:
            run.resume("latest")
        except UserError as error:
            sentence = str(error)
    if sentence:
        assert "latest_state" in sentence
        return
    assert isinstance(run.progress, Progress)
    assert run.progress.epoch >= 1
