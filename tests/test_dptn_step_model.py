"""Training of the step model: losses, gradients, optimizers."""

import warnings

import pytest
import torch

from models.dptn_step_model import join
from models.losses.perceptual import CONTENT_LAYERS, STYLE_LAYERS, content_loss, style_loss
from models.losses.step import chroma_loss
from models.networks.dptn_step import coarse_image
from tests.helpers import train_options
from tests.step_helpers import make_batch, make_model, to_double, warm_up


def gradients(model, label, loss, chunks):
    """Gradients that all chunks leave behind."""
    model.stepper.zero_grad(label)
    model.losses = {}
    torch.manual_seed(5)
    model.learn(label, loss, chunks())
    return {n: p.grad.clone() for n, p in model.networks[label].named_parameters()}


@pytest.mark.parametrize("flags", [(), ("--no_step_loss",)])
def test_joint_and_per_step_backward_give_the_same_gradient_in_float64(tmp_path, flags):
    model = make_model(tmp_path, *flags, step_size=3)
    model.set_input(make_batch())
    warm_up(model)
    to_double(model)
    model.eval_mode()  # else D's power iteration runs J times instead of once
    fakes = list(model.rollout(with_source=False))
    found = {}
    for mode in ("per_step", "joint"):
        model.opt.step_backward = mode
        g = gradients(model, "G", model.generator_loss, lambda: model.rollout(with_source=True))
        losses_G = dict(model.losses)
        last = fakes[-1:] if flags else fakes
        detached = [c.detach() for c in last]
        d = gradients(model, "D", model.discriminator_loss, lambda x=detached: x)
        found[mode] = (g, d, {**losses_G, **model.losses})
    for per_step, joint in zip(found["per_step"][:2], found["joint"][:2], strict=True):
        assert max(float(x.abs().max()) for x in joint.values()) > 1e-3
        for name in joint:
            assert torch.allclose(per_step[name], joint[name], rtol=0, atol=1e-10), name
    per_step, joint = found["per_step"][2], found["joint"][2]
    assert per_step.keys() == joint.keys()
    for name in joint:
        assert float(per_step[name]) == pytest.approx(float(joint[name]), abs=1e-10)


def test_total_losses_are_the_published_sums(tmp_path):
    model = make_model(tmp_path)
    model.set_input(make_batch())
    model.eval_mode()
    model.forward()
    chunk, x = model.chunk, model.inputs
    model.losses = {}
    with torch.no_grad():
        total_G = model.generator_loss()
        assert float(total_G) == pytest.approx(sum(float(v) for v in model.losses.values()))
        assert list(model.losses) == [
            "L1_target", "L1_source", "VGG_target", "VGG_source", "GAN_target", "Step_loss",
            "Face_target", "Face_source",
        ]  # fmt: skip
        truth = torch.cat([coarse_image(x["target_image"], d) for d in (204, 153, 102, 51, 1)])
        l1 = (chunk.fake_target - truth).abs().mean()
        assert float(model.losses["L1_target"]) == pytest.approx(1.25 * float(l1), rel=1e-5)
        scores, log_p = model.networks["D"](chunk.fake_target)
        gan = ((scores - 1) ** 2).mean()
        assert float(model.losses["GAN_target"]) == pytest.approx(float(gan), rel=1e-5)
        labels = torch.arange(5).repeat_interleave(2)
        nll = -log_p[torch.arange(10), labels].mean()
        assert float(model.losses["Step_loss"]) == pytest.approx(float(nll), rel=1e-5)
        model.losses = {}
        total_D = model.discriminator_loss()
        real, log_real = model.networks["D"](truth)
        expected = 0.5 * ((real - 1) ** 2).mean() + 0.5 * (scores**2).mean() + nll
        expected = expected - log_real[torch.arange(10), labels].mean()
        assert float(total_D) == pytest.approx(float(expected), rel=1e-5)
        assert list(model.losses) == ["Real_loss", "Fake_loss", "Real_step", "Fake_step"]


@pytest.mark.parametrize(
    "flags",
    [(), ("--no_step_loss",), ("--step_backward", "joint"), ("--d_reuse_fakes",),
     ("--step_size", "1"), ("--d_schedule", "100", "10", "1"), ("--gan_mode", "wgangp"),
     ("--lambda_face", "0")],
    ids=" ".join,
)  # fmt: skip
def test_a_training_step_moves_every_parameter_and_keeps_losses_finite(tmp_path, flags):
    model = make_model(tmp_path, *flags)
    before = {
        (label, n): p.detach().clone()
        for label, network in model.networks.items()
        for n, p in network.named_parameters()
    }
    model.set_input(make_batch())
    model.optimize_parameters()
    for label, name in before:
        new = model.networks[label].get_parameter(name)
        assert new.grad is not None, (label, name)
        assert torch.isfinite(new.grad).all(), (label, name)
    moved = [k for k, old in before.items() if not torch.equal(
        old, model.networks[k[0]].get_parameter(k[1]))]  # fmt: skip
    assert len(moved) > 0.8 * len(before)
    assert all(torch.isfinite(v) and not v.requires_grad for v in model.losses.values())
    steps = len(model.divisors)
    assert model.visuals["fake_target_steps"].shape == (2, 3, 32, 16 * steps)
    assert torch.equal(model.visuals["fake_target"], model.visuals["fake_target_steps"][..., -16:])


def test_losses_without_weight_leave_vgg_19_out(tmp_path, monkeypatch):
    model = make_model(
        tmp_path, "--lambda_content", "0", "--lambda_style", "0", "--lambda_face", "0"
    )
    model.set_input(make_batch())
    monkeypatch.setattr(model, "vgg", None)  # calling it would raise
    model.optimize_parameters()
    assert set(model.losses) == {
        "L1_target", "L1_source", "GAN_target", "Step_loss",
        "Real_loss", "Fake_loss", "Real_step", "Fake_step",
    }  # fmt: skip


def test_the_hue_loss_is_added_once_and_is_absent_without_weight(tmp_path):
    model = make_model(tmp_path, "--lambda_chroma", "3", t_s_ratio=0.75)
    model.set_input(make_batch())
    model.eval_mode()
    model.forward()
    chunk = model.chunk
    with torch.no_grad():
        total = model.generator_loss()
        hue = model.losses["Chroma"]
        target = chroma_loss(chunk.fake_target, chunk.real_target)
        source = chroma_loss(chunk.fake_source, chunk.real_source)
        assert float(hue) == pytest.approx(3 * float(0.75 * target + 0.25 * source), rel=1e-5)
        model.opt.lambda_chroma, model.losses = 0.0, {}
        assert float(total) == pytest.approx(float(model.generator_loss() + hue), rel=1e-6)
        assert "Chroma" not in model.losses


def test_the_perceptual_losses_are_those_of_both_branches(tmp_path):
    model = make_model(tmp_path)
    model.set_input(make_batch())
    model.eval_mode()
    model.forward()
    chunk, layers = model.chunk, {*CONTENT_LAYERS, *STYLE_LAYERS}
    with torch.no_grad():
        model.generator_loss()
        for role in ("target", "source"):
            fake = model.vgg(getattr(chunk, f"fake_{role}"), layers)
            real = model.vgg(getattr(chunk, f"real_{role}"), layers)
            expected = 0.125 * content_loss(fake, real) + 125 * style_loss(fake, real)
            assert float(model.losses[f"VGG_{role}"]) == pytest.approx(float(expected), rel=1e-4)


def test_parts_of_a_batch_add_up_to_the_gradient_of_the_whole_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)  # the same noise for all samples
    found = {}
    for parts in (1, 2):
        model = make_model(tmp_path, step_size=2, accumulate=parts)
        model.set_input(make_batch())
        warm_up(model)
        to_double(model)
        model.eval_mode()  # else the power iterations run more often
        model.update = lambda label: None
        model.optimize_parameters()
        gradients = {n: p.grad for n, p in model.networks["G"].named_parameters()}
        found[parts] = (gradients, model.losses)
    for name, gradient in found[1][0].items():
        assert torch.allclose(found[2][0][name], gradient, rtol=0, atol=1e-10), name
    for name, value in found[1][1].items():
        assert float(found[2][1][name]) == pytest.approx(float(value), abs=1e-10)


def test_low_precision_gives_float32_images_and_finite_losses(tmp_path, monkeypatch):
    model = make_model(tmp_path, step_size=2, precision="bf16")
    monkeypatch.setattr(model.precision, "networks", lambda: torch.autocast("cpu", torch.bfloat16))
    model.set_input(make_batch())
    model.optimize_parameters()
    assert all(torch.isfinite(value) for value in model.losses.values())
    model.eval_mode()
    images = model.infer(model.prepare(make_batch()))
    assert all(image.dtype == torch.float32 for image in images.values())


def test_the_discriminator_trains_on_a_second_independent_rollout(tmp_path):
    model = make_model(tmp_path)
    model.set_input(make_batch())
    seen = []
    original = model.discriminator_loss
    model.discriminator_loss = lambda: seen.append(model.chunk.fake_target) or original()
    model.optimize_parameters()
    assert len(seen) == 5
    generated = model.visuals["fake_target_steps"].chunk(5, dim=3)
    assert not any(torch.allclose(a, b) for a, b in zip(seen, generated, strict=True))
    assert not any(x.requires_grad for x in seen)


def test_without_step_loss_the_discriminator_sees_the_last_step_and_the_full_image(tmp_path):
    model = make_model(tmp_path, "--no_step_loss")
    assert model.networks["D"].fc_step is None
    seen = []
    model.networks["D"].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model.set_input(make_batch())
    model.optimize_parameters()
    assert len(seen) == 3  # fake for G; real and fake for D
    assert torch.allclose(seen[1], model.inputs["target_image"], atol=1e-6)
    assert list(model.losses) == [
        "L1_target", "L1_source", "VGG_target", "VGG_source", "GAN_target", "Real_loss",
        "Fake_loss",
    ]  # fmt: skip


def test_two_time_scale_rates_moments_and_schedule_are_the_published_ones(tmp_path):
    model = make_model(tmp_path)
    assert model.learning_rates() == pytest.approx({"G": 1e-4, "D": 4e-4})
    assert all(o.defaults["betas"] == (0.0, 0.9) for o in model.stepper.optimizers.values())
    assert (model.opt.niter, model.opt.niter_decay) == (150, 50)
    assert train_options(model="DPTN_step", gpu_ids=-1).batchSize == 6  # a process
    rates = []
    for _ in range(200):
        rates.append(model.learning_rates()["G"] / 1e-4)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no optimizer step in between
            model.update_learning_rate()
    assert rates[:151] == pytest.approx([1.0] * 151)
    assert rates[151] == pytest.approx(0.98)
    assert rates[199] == pytest.approx(0.02)

    model = make_model(tmp_path, "--no_TTUR")
    assert model.learning_rates() == pytest.approx({"G": 2e-4, "D": 2e-4})
    assert all(o.defaults["betas"] == (0.5, 0.999) for o in model.stepper.optimizers.values())


def test_joined_chunks_are_step_major(tmp_path):
    model = make_model(tmp_path)
    model.set_input(make_batch(3))
    with torch.no_grad():
        chunk = join(list(model.rollout(with_source=False)))
    assert chunk.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    assert chunk.fake_source is None
    expected = coarse_image(model.inputs["target_image"], 153)
    assert torch.equal(chunk.real_target[3:6], expected)
