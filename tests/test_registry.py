"""Every model of the registry keeps the contract: these tests come for free with a new model
file."""

import pytest
import torch

from models import create_model, find_model, list_models
from models.losses.perceptual import random_vgg19_state
from options.test_options import TestOptions
from tests.helpers import random_batch, train_options
from util.errors import UserError

MODELS = list_models()
# Published systems leave these parameters without a loss of their own; see the specification of
# each.
WITHOUT_GRADIENT = {"poseflownet": ("mask",)}


@pytest.fixture(params=MODELS)
def model(request, tmp_path):
    torch.manual_seed(0)
    opt = train_options(
        model=request.param, ngf=8, ndf=8, load_size=(64, 64), batchSize=2, gpu_ids=-1,
        checkpoints_dir=tmp_path, name="run",
    )  # fmt: skip
    (tmp_path / "run").mkdir()
    return create_model(opt)


def test_the_registry_knows_all_published_systems():
    assert {"dptn", "dptn_step", "pose", "pose2pose", "poseflownet"} <= set(MODELS)


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(UserError, match="did you mean dptn"):
        find_model("dpnt")


@pytest.mark.parametrize("name", ["DPTN", "dptn", "DPTN_step", "dptnstep", "Pose2Pose"])
def test_names_are_matched_without_regard_to_case(name):
    assert find_model(name).__name__.lower() == name.lower().replace("_", "") + "model"


def test_the_seed_alone_decides_the_initial_weights_whatever_was_built_before(model):
    random_vgg19_state.cache_clear()
    torch.manual_seed(0)
    again = create_model(model.opt)
    for label, network in model.networks.items():
        for key, value in network.state_dict().items():
            assert torch.equal(value, again.networks[label].state_dict()[key]), f"{label} {key}"


def test_one_step_gives_finite_losses_and_a_gradient_to_every_parameter(model):
    model.set_input(random_batch(2, (64, 64)))
    model.optimize_parameters()
    assert model.losses
    assert all(torch.isfinite(v).all() for v in model.losses.values())
    assert not any(v.requires_grad for v in model.losses.values())
    assert model.stepper.not_finite() is None
    allowed = WITHOUT_GRADIENT.get(model.opt.model.lower(), ())
    for label, network in model.networks.items():
        missing = [
            name
            for name, p in network.named_parameters()
            if p.grad is None and not any(word in name for word in allowed)
        ]
        assert not missing, f"no gradient in {label}: {missing[:5]}"


def test_a_step_changes_every_network(model):
    before = {k: [p.detach().clone() for p in n.parameters()] for k, n in model.networks.items()}
    model.set_input(random_batch(2, (64, 64)))
    model.optimize_parameters()
    for label, network in model.networks.items():
        pairs = zip(before[label], network.parameters(), strict=True)
        assert any(not torch.equal(a, b) for a, b in pairs), label


def test_saved_networks_give_the_same_image_in_a_fresh_test_model(model, tmp_path):
    model.set_input(random_batch(2, (64, 64)))
    model.optimize_parameters()
    model.save_networks("latest")
    model.eval_mode()
    batch = random_batch(2, (64, 64), seed=1)
    expected = model.generate(model.prepare(batch))["fake_target"]
    words = ["--model", model.opt.model, "--name", "run", "--checkpoints_dir", str(tmp_path)]
    words += ["--ngf", "8", "--ndf", "8", "--load_size", "64", "64", "--gpu_ids", "-1"]
    fresh = create_model(TestOptions().parse(words))
    fresh.load_networks("latest", labels=("G",))
    fresh.eval_mode()
    assert set(fresh.networks) == {"G"}
    assert torch.equal(fresh.generate(fresh.prepare(batch))["fake_target"], expected)


def test_images_do_not_depend_on_the_batch_size_and_stay_in_range(model):
    model.eval_mode()
    batch = random_batch(3, (64, 64))
    together = model.generate(model.prepare(batch))["fake_target"]
    assert together.shape == (3, 3, 64, 64)
    assert together.abs().max() <= 1
    for i in range(3):
        one = {k: v[i : i + 1] for k, v in batch.items()}
        assert torch.equal(model.generate(model.prepare(one))["fake_target"], together[i : i + 1])


def test_a_state_restored_into_a_new_model_continues_identically(model, tmp_path):
    batches = [random_batch(2, (64, 64), seed=i) for i in range(3)]
    for batch in batches[:2]:
        model.set_input(batch)
        model.optimize_parameters()
    path = tmp_path / "state.pth"
    torch.save(model.state_dict(), path)
    state = torch.load(path, weights_only=True)
    model.set_input(batches[2])
    model.optimize_parameters()

    torch.manual_seed(99)
    other = create_model(model.opt)
    other.load_state_dict(state, "state")
    other.set_input(batches[2])
    other.optimize_parameters()
    for name, value in model.losses.items():
        assert torch.equal(value, other.losses[name]), name
    for label, network in model.networks.items():
        for (name, a), b in zip(
            network.state_dict().items(), other.networks[label].state_dict().values(), strict=True
        ):
            assert torch.equal(a, b), (label, name)


def test_sizes_that_do_not_fit_are_refused_in_one_sentence(model):
    opt = model.opt
    opt.load_size = (63, 64)
    with pytest.raises(UserError, match="multiples of"):
        create_model(opt)
