"""Number formats: where they apply, and how far low precision is from float32."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from models import create_model
from models.losses.perceptual import CONTENT_LAYERS, STYLE_LAYERS, VGG19Features
from tests.helpers import fill_by_rule, random_batch, train_options
from util.run import device
from util.run.device import (
    Precision,
    compile_in_place,
    in_full_precision,
    to_float32,
    use_tf32,
    without_graphs,
)

CPU = torch.device("cpu")
BF16_ERROR = 2e-2  # bfloat16 has a relative rounding error of 4e-3


@pytest.fixture
def bf16_everywhere(monkeypatch):
    """The autocast regions of a GPU, on this CPU."""
    monkeypatch.setattr(device, "cpu_gains_from_bf16", lambda: True)
    make = Precision.__init__

    def made(self, name: str, device: torch.device) -> None:
        make(self, name, device)
        self.networks = lambda: torch.autocast("cpu", torch.bfloat16, name == "bf16")

    monkeypatch.setattr(Precision, "__init__", made)


def weighted_model(name: str, folder, number_format: str):
    """A model whose images use the whole range of colours, in ``number_format``."""
    opt = train_options(
        model=name, load_size=(64, 64), ngf=32, ndf=8, batchSize=2, gpu_ids=-1,
        checkpoints_dir=folder, precision=number_format,
    )  # fmt: skip
    model = create_model(opt)
    for network in model.networks.values():
        fill_by_rule(network, 0)
    model.set_input(random_batch(2, (64, 64)))
    return model


# DPTN_step feeds every step the result of the one before: with untrained weights any rounding, also
# that of float32, grows to a different picture, so there is nothing to compare.
@pytest.mark.parametrize("name", ["dptn", "pose", "pose2pose"])
def test_bf16_images_differ_from_float32_by_at_most_2e_2_on_average(
    name, tmp_path, bf16_everywhere
):
    images = {}
    for number_format in ("fp32", "bf16"):
        model = weighted_model(name, tmp_path, number_format)
        model.eval_mode()
        images[number_format] = model.infer(model.inputs)["fake_target"]
        assert images[number_format].dtype == torch.float32
    assert images["fp32"].std() > 0.2
    error = (images["fp32"] - images["bf16"]).abs()
    assert 0 < error.mean() <= BF16_ERROR
    assert error.max() <= 0.15


def test_bf16_losses_differ_from_float32_by_at_most_2_percent(tmp_path, bf16_everywhere):
    losses = {}
    for number_format in ("fp32", "bf16"):
        model = weighted_model("DPTN", tmp_path, number_format)
        model.optimize_parameters()
        losses[number_format] = model.losses
        assert all(v.dtype == torch.float32 for v in model.losses.values())
        assert all(p.dtype == torch.float32 for p in model.networks["G"].parameters())
    for name, value in losses["fp32"].items():
        assert float(losses["bf16"][name]) == pytest.approx(float(value), rel=BF16_ERROR), name


def test_vgg_features_in_bf16_are_within_2_percent(monkeypatch):
    monkeypatch.setattr(device, "cpu_gains_from_bf16", lambda: True)
    images, layers = torch.rand(2, 3, 64, 64) * 2 - 1, {*CONTENT_LAYERS, *STYLE_LAYERS}
    exact = VGG19Features("random")(images, layers)
    ours = VGG19Features("random", Precision("bf16", CPU))(images, layers)
    for name, value in exact.items():
        assert ours[name].dtype == torch.bfloat16
        assert (ours[name] - value).norm() <= BF16_ERROR * value.norm(), name


def test_on_a_cpu_bf16_is_for_vgg_only_and_only_where_the_processor_has_it(monkeypatch):
    x, weight = torch.rand(2, 2), torch.rand(2, 2)
    for gains, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(device, "cpu_gains_from_bf16", lambda gains=gains: gains)
        chosen = Precision("bf16", CPU)
        with chosen.networks():
            assert (x @ weight).dtype == torch.float32
        with chosen.vgg():
            assert (x @ weight).dtype == expected
        assert chosen.vgg_channels_last is gains


def test_on_a_gpu_low_precision_is_for_all_networks():
    for name, scaled in (("bf16", False), ("fp16", True)):
        chosen = Precision(name, torch.device("cuda"))
        assert chosen.networks is chosen.vgg
        assert chosen.vgg is not nullcontext
        assert chosen.vgg_channels_last
        assert (chosen.name == "fp16") is scaled
    assert Precision("fp32", torch.device("cuda")).networks is nullcontext


def test_losses_are_computed_in_float32_inside_an_autocast_region():
    @in_full_precision
    def loss(a, features):
        return (a @ a + features["x"]).sum()

    a = torch.rand(4, 4, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(a, {"x": a}).dtype == torch.float32
    assert to_float32(a.double()).dtype == torch.float64  # higher precision is left alone
    meta = torch.empty(4, 4, device="meta")
    assert loss(meta, {"x": meta}).device.type == "meta"


def test_tf32_is_off_unless_asked_for(tmp_path):
    words = {"model": "DPTN", "ngf": 4, "ndf": 4, "load_size": (64, 64), "gpu_ids": -1}
    words["checkpoints_dir"] = tmp_path
    try:
        for flags, expected in (((), False), (("--tf32",), True)):
            create_model(train_options(*flags, **words))
            assert torch.backends.cuda.matmul.allow_tf32 is expected
            assert torch.backends.cudnn.allow_tf32 is expected
    finally:
        use_tf32(False)


# ---- compilation -------------------------------------------------------------------------------


def test_compile_and_cuda_graphs_choose_how_a_network_is_compiled(monkeypatch):
    chosen = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **words: chosen.append(words))
    network = nn.Linear(2, 2)
    for wanted, graphs in ((False, False), (True, False), (False, True)):
        assert compile_in_place(network, wanted, graphs) is network
    assert chosen == [{}, {"mode": "reduce-overhead"}]


def test_what_is_evaluated_while_cuda_graphs_are_used_is_not_compiled():
    calls = []

    def backend(graph, inputs):
        return lambda *values: (calls.append(len(values)), graph(*values))[1]

    network, x = nn.Linear(2, 2), torch.ones(1, 2)
    network.compile(backend=backend)
    for used, count in ((False, 1), (True, 1), (False, 2)):
        with without_graphs(used):
            network(x)
        assert len(calls) == count
