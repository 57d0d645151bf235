"""Schedules, clipping, moving averages and loss scaling do what their options say."""

import copy
import math

import pytest
import torch
from torch import nn

from models import create_model
from models.losses.adversarial import gradient_penalty
from models.optim import SCALE_SEARCH, Stepper, update_average
from tests.helpers import random_batch, train_options
from util.run.device import Precision

CPU = torch.device("cpu")
EPOCHS = {  # policy -> factor of the learning rate in epochs 1, 2, ... with --niter 2, decay 2
    "lambda": [1, 1, 2 / 3, 1 / 3],
    "constant": [1, 1, 1, 1],
    "exponent": [1, 0.95, 0.95**2, 0.95**3],
    "cosine": [1, *((1 + math.cos(math.pi * e / 32)) / 2 for e in (1, 2, 3))],
    "linear_to_zero": [1, 1, 1, 1 / 2],
}


def stepper(policy="constant", precision="fp32", clip=None, betas=(0.5, 0.999)):
    torch.manual_seed(0)
    made = Stepper(Precision(precision, CPU), policy, 2, 2, clip)
    made.add("G", nn.Linear(3, 2), 0.1, betas)
    return made


def step(made: Stepper, scale: float = 1.0):
    made.begin()
    made.zero_grad("G")
    made.backward("G", made.networks["G"](torch.ones(1, 3)).sum() * scale)
    made.update("G")
    return made.not_finite()


@pytest.mark.parametrize("policy", EPOCHS)
def test_every_policy_gives_its_rate_in_every_epoch(policy):
    made, rates = stepper(policy), []
    for _ in EPOCHS[policy]:
        rates.append(made.optimizers["G"].param_groups[0]["lr"])
        step(made)
        made.epoch_done()
    assert rates == pytest.approx([0.1 * factor for factor in EPOCHS[policy]])


def test_clipping_scales_the_gradient_down_to_the_norm_and_leaves_smaller_ones():
    free, clipped, loose = stepper(), stepper(clip=0.5), stepper(clip=1e6)
    for made in (free, clipped, loose):
        step(made, 100.0)
    whole = [p.grad for p in free.networks["G"].parameters()]
    norm = torch.linalg.vector_norm(torch.cat([g.flatten() for g in whole]))
    assert clipped.grad_norms["G"] == norm  # reported before clipping
    for ours, other, grad in zip(
        clipped.networks["G"].parameters(), loose.networks["G"].parameters(), whole, strict=True
    ):
        torch.testing.assert_close(ours.grad, grad * 0.5 / norm)
        assert torch.equal(other.grad, grad)


def test_a_resumed_run_uses_the_betas_and_rates_of_its_own_options():
    before, after = stepper(betas=(0.5, 0.999)), stepper(betas=(0.1, 0.9))
    step(before)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    assert after.optimizers["G"].param_groups[0]["betas"] == (0.1, 0.9)
    moments = [o.optimizers["G"].state_dict()["state"][0]["exp_avg"] for o in (before, after)]
    assert torch.equal(*moments)


def test_a_search_for_the_loss_scale_is_silent_and_one_that_fails_is_reported():
    made = stepper(precision="fp16")
    assert step(made) is None
    for _ in range(3):
        assert step(made, math.inf) is None
    assert step(made) is None  # found
    weights = made.networks["G"].weight.detach().clone()
    answers = [step(made, math.nan) for _ in range(SCALE_SEARCH + 2)]
    assert answers[:10] == [None] * 10
    assert answers[-1] == "G"
    assert torch.equal(made.networks["G"].weight, weights)


def test_the_gradient_penalty_is_computed_in_float32_under_autocast():
    torch.manual_seed(0)
    critic, kinds = nn.Conv2d(3, 1, 3), []
    critic.register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))
    real, fake = torch.rand(2, 2, 3, 8, 8)
    torch.manual_seed(1)
    expected = gradient_penalty(critic, real, fake)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradient_penalty(critic, real, fake)
    assert torch.equal(found, expected)
    assert kinds == [torch.float32] * 2


# ---- moving averages ---------------------------------------------------------------------------


def test_the_average_follows_its_formula_with_a_warm_up():
    network = nn.Linear(1, 1, bias=False)
    average = {k: v.clone() for k, v in network.state_dict().items()}
    expected = average["weight"].item()
    for n in range(1, 40):
        nn.init.constant_(network.weight, float(n))
        update_average(average, network, 0.7, torch.tensor(float(n)))
        decay = min(0.7, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
        assert average["weight"].item() == pytest.approx(expected, rel=1e-5)


def test_counters_statistics_and_singular_vectors_are_copied_not_averaged():
    torch.manual_seed(0)
    network = nn.Sequential(torch.nn.utils.spectral_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4))
    average = {k: v.clone() for k, v in network.state_dict().items()}
    for n in range(1, 6):
        network(torch.rand(2, 3, 8, 8))
        update_average(average, network, 0.999, n)
    for name, value in network.named_buffers():
        assert torch.equal(average[name], value), name


def model_with_average(folder, *flags):
    words = ["--model", "DPTN", "--checkpoints_dir", str(folder), "--name", "run", "--ngf", "4"]
    words += ["--ndf", "4", "--load_size", "32", "--gpu_ids", "-1", "--ema", "0.9"]
    words += ["--vgg_width", "0.1", *flags]
    return create_model(train_options("--vgg_weights", "random", *words))


def test_a_training_moves_the_average_and_test_py_uses_it(tmp_path):
    model = model_with_average(tmp_path, "--lr", "0.1")
    key = "outconv.conv1.bias"
    start = model.ema["G"][key].clone()
    for seed in range(2):
        model.set_input(random_batch(1, (32, 32), seed))
        model.optimize_parameters()
    first = model.networks["G"].state_dict()[key]
    assert not torch.equal(model.ema["G"][key], start)
    assert not torch.equal(model.ema["G"][key], first)
    model.run_dir.mkdir()
    model.save_networks("latest")
    used = copy.copy(model.opt)
    used.is_train = False
    loaded = create_model(used)
    loaded.load_networks("latest", ("G",))
    assert torch.equal(loaded.networks["G"].state_dict()[key], model.ema["G"][key])
    used.ema = 0
    loaded = create_model(used)
    loaded.load_networks("latest", ("G",))
    assert torch.equal(loaded.networks["G"].state_dict()[key], first)


def test_the_average_starts_at_the_weights_that_were_loaded(tmp_path):
    torch.manual_seed(5)
    model = model_with_average(tmp_path)
    model.run_dir.mkdir()
    model.save_networks("latest")
    torch.manual_seed(6)
    other = model_with_average(tmp_path)
    other.load_networks("latest")
    for name, value in model.networks["G"].state_dict().items():
        assert torch.equal(other.ema["G"][name], value)
