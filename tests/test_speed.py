"""How much a training step computes, where it waits for the device, and that it compiles."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from models import create_model, list_models
from models.losses.perceptual import gram_matrix
from tests.helpers import fill_by_rule, random_batch, train_options

GFLOP_PER_SAMPLE = 570  # of the published implementation: 690


def small_model(name: str, folder, **values):
    values = {"ngf": 8, "ndf": 8, "load_size": (64, 64), "batchSize": 2, **values}
    return create_model(train_options(model=name, gpu_ids=-1, checkpoints_dir=folder, **values))


# ---- arithmetic --------------------------------------------------------------------------------


def step_gflop(model, batch) -> float:
    """GFLOP of one training step by PyTorch's counter, on the meta device: shapes without numbers.

    There attention consists of the matrix products that it is made of, so all of it is counted.
    """
    model.device = torch.device("meta")
    for network in (*model.networks.values(), model.vgg):
        network.to(model.device)
    with FlopCounterMode(display=False) as counter:
        model.set_input(batch)
        model.optimize_parameters()
    return counter.get_total_flops() / 1e9


def test_a_training_sample_of_dptn_ta_costs_at_most_570_gflop(tmp_path):
    model = create_model(
        train_options(model="DPTN", load_size=(256, 256), gpu_ids=-1, checkpoints_dir=tmp_path)
    )
    assert (model.opt.ngf, model.opt.ndf, model.opt.lambda_affi) == (64, 32, 100)
    gflop = step_gflop(model, random_batch(1, (256, 256)))
    assert 500 < gflop <= GFLOP_PER_SAMPLE


def test_a_batch_costs_what_its_samples_cost(tmp_path):
    costs = [
        step_gflop(small_model("DPTN", tmp_path), random_batch(count, (64, 64))) / count
        for count in (1, 3)
    ]
    assert costs[0] == pytest.approx(costs[1], rel=1e-9)


def test_the_shared_first_layer_equals_two_convolutions_of_joined_inputs(tmp_path):
    net = small_model("DPTN", tmp_path).networks["G"].double()
    rng = np.random.default_rng(0)
    image, source, target = (
        torch.from_numpy(rng.standard_normal((2, c, 64, 64))) for c in (3, 18, 18)
    )
    for ours, pose in zip(net.encode_both(image, source, target), (source, target), strict=True):
        torch.testing.assert_close(ours, net.encode(image, source, pose), rtol=1e-9, atol=1e-11)


def test_the_gradient_of_the_gram_matrix_is_that_of_its_definition():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gram_matrix, (x,))
    flat = x.detach().reshape(2, 3, 20)
    torch.testing.assert_close(gram_matrix(x).detach(), flat @ flat.mT / 60)


# ---- waiting -----------------------------------------------------------------------------------


class HostReads(TorchDispatchMode):
    """Counts the operations that bring a value of a tensor to the host."""

    NAMES = ("aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::nonzero")

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name
        if name in self.NAMES:
            self.found.append(name)
        return function(*args, **(kwargs or {}))


def test_the_detector_of_host_reads_sees_an_item():
    with HostReads() as reads:
        torch.ones(1).sum().item()
    assert reads.found == ["aten::_local_scalar_dense"]


@pytest.mark.parametrize("name", list_models())
def test_a_training_step_reads_nothing_back_from_the_device(name, tmp_path):
    model = small_model(name, tmp_path)
    batch = random_batch(2, (64, 64))
    model.set_input(batch)
    model.optimize_parameters()
    with HostReads() as reads:
        model.set_input(batch)
        model.optimize_parameters()
    assert reads.found == []
    assert model.stepper.not_finite() is None


# ---- compilation -------------------------------------------------------------------------------


@pytest.mark.slow
def test_generator_discriminator_and_vgg_compile_without_a_graph_break(tmp_path):
    model = small_model("DPTN", tmp_path)
    model.set_input(random_batch(2, (64, 64)))
    x = model.inputs
    image, pose = x["source_image"], x["source_pose"]
    calls = {
        "G": (model.networks["G"], (image, pose, x["target_pose"])),
        "D": (model.networks["D"], (image,)),
        "VGG": (model.vgg, (image, ["relu1_1", "relu5_2"])),
    }
    for label, (network, arguments) in calls.items():
        explained = torch._dynamo.explain(network)(*arguments)
        assert explained.graph_break_count == 0, (label, explained.break_reasons)
        assert explained.graph_count == 1, label


@pytest.mark.slow
def test_a_compiled_training_step_has_the_losses_of_an_uncompiled_one(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    losses = []
    for flags in ((), ("--compile",)):
        torch.manual_seed(0)
        options = {"model": "DPTN", "ngf": 8, "ndf": 8, "load_size": (64, 64), "gpu_ids": -1}
        model = create_model(train_options(*flags, **options, checkpoints_dir=tmp_path))
        for network in model.networks.values():
            fill_by_rule(network, 0)
        model.set_input(random_batch(2, (64, 64)))
        model.optimize_parameters()
        losses.append(model.losses)
    assert list(losses[0]) == list(losses[1])
    for name, value in losses[0].items():
        assert float(losses[1][name]) == pytest.approx(float(value), rel=1e-4), name
