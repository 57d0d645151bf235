"""Both stages as models: losses and gradients of the published step, options, pictures."""

import numpy as np
import pytest
import torch

from tests.gfla_rules import (
    fill_discriminator,
    fill_generator,
    fill_vgg,
    load_golden,
    make_inputs,
    make_model,
    small_model,
)
from util.errors import UserError

NO_GRADIENT = 1e-5  # biases in front of an instance norm: rounding noise around 0


def golden_model(name: str, kind: str):
    """The full model with the reference arrays' weights and inputs."""
    model = make_model(name, kind)
    fill_generator(model.networks["G"], "B")
    fill_vgg(model.vgg.features)
    if "D" in model.networks:
        fill_discriminator(model.networks["D"])
    model.inputs = make_inputs(kind)
    return model


def check_gradients(network, golden, stage: str) -> None:
    """Norms within 1e-3 relative, for all parameters whose gradient is not rounding noise.

    A few gradients are sums that nearly cancel: there the stored float32 norms are up to 5e-3 away
    from those of a float64 run, which the absolute tolerance covers.
    """
    gradients = {name: p.grad for name, p in network.named_parameters()}
    expected = dict(zip(golden[f"{stage}.grad.names"], golden[f"{stage}.grad.l2"], strict=True))
    absent = {name for name, grad in gradients.items() if grad is None}
    assert absent == set(golden[f"{stage}.none_grads"])
    assert set(expected) == set(gradients) - absent
    checked = 0
    for name, norm in expected.items():
        if norm > NO_GRADIENT:
            assert gradients[name].norm().item() == pytest.approx(norm, rel=1e-3, abs=6e-5), name
            checked += 1
    assert checked > len(expected) / 2


@pytest.mark.parametrize("kind", ["fashion", "market"])
def test_stage_1_losses_and_gradients_equal_the_published_step(kind):
    golden, model = load_golden(f"train_{kind}"), golden_model("poseflownet", kind)
    model.forward()
    total = model.flow_loss()
    total.backward()
    for name, value in model.losses.items():
        assert value.item() == pytest.approx(golden[f"s1.{name}"], rel=1e-4), name
    check_gradients(model.networks["G"], golden, "s1")
    gradient = model.networks["G"].flow_net.output2.weight.grad
    reference = golden["s1.grad.output2.weight"]
    np.testing.assert_allclose(gradient, reference, atol=1e-4 * np.abs(reference).max())


@pytest.mark.parametrize("kind", ["fashion", "market"])
def test_stage_2_losses_and_gradients_equal_the_published_step(kind):
    golden, model = load_golden(f"train_{kind}"), golden_model("pose", kind)
    model.forward()
    model.discriminator_loss()
    with model.frozen("D"):
        total = model.generator_loss()
        total.backward()
    assert total.item() == pytest.approx(golden["s2.total"], rel=1e-4)
    assert len(model.losses) == 7
    for name, value in model.losses.items():
        assert value.item() == pytest.approx(golden[f"s2.{name}"], rel=1e-4), name
    check_gradients(model.networks["G"], golden, "s2")
    assert all(p.grad is None for p in model.networks["D"].parameters())
    gradients = dict(model.networks["G"].named_parameters())
    for name, first, norm in zip(
        golden["s2.grad.names"], golden["s2.grad.first4"], golden["s2.grad.l2"], strict=True
    ):
        ours = gradients[name].grad.flatten()[:4]
        np.testing.assert_allclose(ours, first[: len(ours)], atol=2e-3 * norm + 5e-5, err_msg=name)


@pytest.mark.parametrize("kind", ["fashion", "market"])
@torch.no_grad()
def test_the_discriminator_and_its_power_iteration_equal_the_published_ones(kind):
    golden, model = load_golden(f"train_{kind}"), golden_model("pose", kind)
    net_D, image = model.networks["D"], model.inputs["source_image"]
    np.testing.assert_allclose(net_D(image), golden["D.train_first_forward_on_P1"], atol=1e-4)
    for name in ("conv", "block0.model.1"):
        after = net_D.get_submodule(name).weight_u
        np.testing.assert_allclose(after, golden[f"D.{name}.weight_u_after"], atol=1e-5)
    scores = net_D.eval()(image)
    np.testing.assert_allclose(scores, golden["D.eval_forward_on_P1_after_that"], atol=1e-4)


def test_published_training_settings_are_the_defaults():
    flow, pose = make_model("poseflownet").opt, make_model("pose")
    assert (flow.lr, flow.beta1, flow.batchSize) == (1e-4, 0.0, 8)
    assert (flow.lambda_correct, flow.lambda_regularization) == (20.0, 0.01)
    opt = pose.opt
    assert (opt.lambda_correct, opt.lambda_regularization) == (5.0, 0.0025)
    assert (opt.lambda_rec, opt.lambda_g, opt.lambda_content, opt.lambda_style) == (5, 2, 0.5, 500)
    for label, lr in (("G", 1e-4), ("D", 1e-5)):
        group = pose.stepper.optimizers[label].param_groups[0]
        assert group["lr"] == pytest.approx(lr)
        assert group["betas"] == (0.0, 0.999)
    assert pose.networks["D"].layers == 4
    assert make_model("pose", "market").networks["D"].layers == 3


@pytest.mark.parametrize("name", ["poseflownet", "pose"])
def test_a_step_changes_every_network_and_shows_flows_and_masks(name):
    model = small_model(name)
    before = {k: [p.detach().clone() for p in n.parameters()] for k, n in model.networks.items()}
    model.inputs = make_inputs("fashion")
    model.optimize_parameters()
    for label, network in model.networks.items():
        changed = [
            not torch.equal(a, b) for a, b in zip(before[label], network.parameters(), strict=True)
        ]
        assert sum(changed) > 0.9 * len(changed), label
    for level in (2, 3):
        for kind in ("flow_field", "occlusion_mask"):
            assert model.visuals[f"{kind}_{level}"].shape[1:] == (3, 64, 64)
    assert all(value.isfinite() for value in model.losses.values())
    assert not any(value.requires_grad for value in model.losses.values())


def test_stage_1_in_parts_takes_the_step_of_the_whole_batch():
    whole, parts = (small_model("poseflownet", accumulate=n) for n in (1, 2))
    parts.networks["G"].load_state_dict(whole.networks["G"].state_dict())
    for model in (whole, parts):
        model.inputs = make_inputs("fashion")
        model.optimize_parameters()
    for name, value in whole.losses.items():
        torch.testing.assert_close(parts.losses[name], value)
    for a, b in zip(
        whole.networks["G"].parameters(), parts.networks["G"].parameters(), strict=True
    ):
        if a.grad is not None:
            torch.testing.assert_close(b.grad, a.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["poseflownet", "pose"])
def test_half_precision_trains_with_losses_in_float32(name):
    model = small_model(name)
    model.precision._networks = True  # as on a GPU; on a CPU bf16 is for VGG alone
    model.precision.dtype = torch.bfloat16
    model.inputs = make_inputs("fashion")
    model.optimize_parameters()
    assert all(v.dtype == torch.float32 and v.isfinite() for v in model.losses.values())
    picture = model.infer(model.inputs)["fake_target"]
    assert picture.dtype == torch.float32


@pytest.mark.parametrize("name", ["poseflownet", "pose"])
def test_inference_gives_an_image_and_flow_pictures_and_changes_nothing(name):
    model = small_model(name)
    model.eval_mode()
    inputs = make_inputs("fashion")
    inputs.pop("target_image")
    state = {k: v.clone() for k, v in model.networks["G"].state_dict().items()}
    first, second = model.infer(inputs), model.infer(inputs)
    assert first["fake_target"].shape == (2, 3, 64, 64)
    assert {"flow_field_2", "occlusion_mask_3"} <= set(first)
    for key, picture in first.items():
        assert picture.shape == (2, 3, 64, 64), key
        assert torch.equal(picture, second[key])
    assert all(torch.equal(v, state[k]) for k, v in model.networks["G"].state_dict().items())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"load_size": (48, 64)}, "multiples of 32"),
        ({"load_size": (32, 32)}, "more than 32 pixels"),
        ({"attn_layer": "2,x"}, "--attn_layer 2,x"),
        ({"attn_layer": "2,2"}, "distinct"),
        ({"attn_layer": "5"}, "from 1 to"),
        ({"attn_layer": ""}, "--attn_layer"),
        ({"kernel_size": "2:5"}, "LEVEL=SIDE"),
        ({"kernel_size": "2=0,3=3"}, "LEVEL=SIDE"),
        ({"kernel_size": "2=5"}, "no entry for level 3"),
    ],
)
@pytest.mark.parametrize("name", ["poseflownet", "pose"])
def test_wrong_sizes_and_levels_are_explained(name, values, message):
    with pytest.raises(UserError, match=message):
        small_model(name, **values)
