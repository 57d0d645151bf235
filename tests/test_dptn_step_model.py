"""The step model: losses, gradients, optimizers, inference and checkpoints."""

import copy
import functools
import warnings

import pytest
import torch

from models.dptn_step_model import DPTNStepModel
from models.losses.perceptual import VGG19Features
from models.networks.discriminators import DiscriminatorConfig, build_discriminator
from models.networks.dptn import DPTNConfig, DPTNGenerator
from models.step_chunk import join
from tests.helpers import train_options
from util.errors import UserError
from util.quantise import coarse_image
from util.step_pose import step_pose_maps

SIZE = (32, 16)
FRAME = (64, 32)  # of the keypoints
JOINTS_Y = [8, 14, 15, 24, 32, 15, 24, 32, 34, 46, 58, 34, 46, 58, 7, 7, 8, 8]
JOINTS_X = [16, 16, 10, 8, 8, 22, 24, 24, 12, 12, 12, 20, 20, 20, 13, 19, 11, 21]


_vgg = functools.cache(VGG19Features)


def _cached_vgg(weights, precision):
    assert precision.name == "fp32"
    return _vgg(weights)


@pytest.fixture(autouse=True)
def shared_vgg(monkeypatch):
    """Drawing 20 million weights for every model would take most of the time of these tests."""
    _vgg("random")  # now, or the first model would start from other random numbers than the rest
    monkeypatch.setattr("models.base_model.VGG19Features", _cached_vgg)


def make_model(tmp_path, *flags, **values):
    defaults = {
        "model": "DPTN_step", "checkpoints_dir": tmp_path, "name": "run", "gpu_ids": -1,
        "load_size": SIZE, "annotation_size": FRAME, "ngf": 4, "ndf": 4, "batchSize": 2,
    }  # fmt: skip
    opt = train_options(*flags, **{**defaults, **values})
    torch.manual_seed(0)
    model = DPTNStepModel(opt)
    model.run_dir.mkdir(exist_ok=True)
    return model


def make_test_model(model, name="run"):
    """The same networks as test.py builds them."""
    opt = model.opt
    values = {**vars(opt), "is_train": False, "name": name}
    return DPTNStepModel(type(opt)(**values))


def make_batch(count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, count, 3, *SIZE), generator=generator, dtype=torch.uint8)
    keypoints = torch.tensor([JOINTS_Y, JOINTS_X], dtype=torch.float64).T.repeat(2, count, 1, 1)
    keypoints += torch.randint(0, 3, (2, count, 1, 1), generator=generator)
    return {
        "source_image": images[0], "target_image": images[1],
        "source_keypoints": keypoints[0], "target_keypoints": keypoints[1],
        "source_name": [f"a{i}.jpg" for i in range(count)],
        "target_name": [f"b{i}.jpg" for i in range(count)],
    }  # fmt: skip


def warm_up(model):
    """Power iterations of fresh spectral layers; before them evaluation is meaningless."""
    with torch.no_grad():
        for _ in range(3):
            for chunk in model.rollout(with_source=True):
                model.networks["D"](chunk.fake_target)


def to_double(model):
    model.vgg = copy.deepcopy(model.vgg)
    for network in (*model.networks.values(), model.vgg):
        network.double()
    inputs = model.inputs
    model.inputs = {
        k: v.double() if torch.is_tensor(v) and v.is_floating_point() else v
        for k, v in inputs.items()
    }


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
    monkeypatch.setattr("models.base_model.VGG19Features", VGG19Features)
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


def test_pose_maps_have_41_channels_with_the_sigmas_of_the_chosen_run(tmp_path):
    keypoints = make_batch()["source_keypoints"]
    for flags, sigmas in ((), (6, 3)), (("--no_step_loss",), (2, 2)), (("--kp_sigma", "4"), (4, 3)):
        maps = make_model(tmp_path, *flags).pose_maps(keypoints)
        assert torch.equal(maps, step_pose_maps(keypoints, FRAME, SIZE, *sigmas))


def test_inference_does_not_depend_on_batch_size_or_order(tmp_path):
    model = make_model(tmp_path)
    model.set_input(make_batch())
    warm_up(model)
    model.inputs = model.prepare(make_batch(3))
    to_double(model)  # float32 rounding is amplified by the norms over eight positions
    model.eval_mode()
    inputs = model.inputs
    together = model.infer(inputs)
    assert set(together) == {"fake_target", *(f"step_{j}" for j in range(1, 6))}
    assert torch.equal(together["fake_target"], together["step_5"])
    for i in range(3):
        alone = model.infer({k: v[i : i + 1] for k, v in inputs.items()})
        for key, value in alone.items():
            assert torch.allclose(value[0], together[key][i], rtol=0, atol=1e-9)
    assert torch.equal(model.infer(inputs)["fake_target"], together["fake_target"])


def test_the_noise_depends_on_the_seed_and_on_both_names(tmp_path):
    model = make_model(tmp_path)
    inputs = model.prepare(make_batch(2))
    noise = model.noise(inputs)
    assert not torch.allclose(noise[0], noise[1])
    assert abs(float(noise.std()) - 1) < 0.05
    swapped = {**inputs, "source_name": inputs["target_name"], "target_name": inputs["source_name"]}
    assert not torch.allclose(model.noise(swapped)[0], noise[0])
    model.opt.seed = 1
    assert not torch.allclose(model.noise(inputs)[0], noise[0])


def test_the_target_image_is_not_an_input_of_inference(tmp_path):
    model = make_model(tmp_path)
    model.eval_mode()
    inputs = model.prepare(make_batch())
    expected = model.infer(inputs)["fake_target"]
    blind = {k: v for k, v in inputs.items() if k not in ("target_image", "target_keypoints")}
    assert torch.equal(model.infer(blind)["fake_target"], expected)


def test_a_constant_style_assignment_equals_plain_inference_bit_for_bit(tmp_path):
    model = make_model(tmp_path)
    model.eval_mode()
    inputs = model.prepare(make_batch())
    a = (inputs["source_image"], inputs["source_pose"])
    b = (inputs["target_image"], inputs["target_pose"])
    plain, noise = model.infer(inputs), model.noise(inputs)
    constant = model.mix_styles([a] * 5, inputs["target_pose"], noise)
    mixed = model.mix_styles([a, a, b, b, b], inputs["target_pose"], noise)
    for key in plain:
        assert torch.equal(plain[key], constant[key])
    assert torch.equal(mixed["step_2"], plain["step_2"])
    assert not torch.allclose(mixed["step_3"], plain["step_3"])


# ---- checkpoints -------------------------------------------------------------------------------


def with_table(state):
    """A state dict as the published code saves it: with the table of positional maps."""
    return {**state, "positional_encoding.pe": torch.zeros(50, 1, 64)}


def save_published(model, path, prefix="module."):
    parts = {}
    for label, network in model.networks.items():
        state = {prefix + k: v for k, v in network.state_dict().items()}
        parts[f"net{label}"] = with_table(state) if label == "G" else state
        parts[f"opt{label}"] = model.stepper.optimizers[label].state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(parts, path)


def assert_equal_networks(a, b):
    for (name, x), (_, y) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert torch.equal(x, y), name


def test_published_one_file_checkpoints_load_for_testing(tmp_path):
    model = make_model(tmp_path)
    save_published(model, tmp_path / "old" / "latest_net.pth")
    tester = make_test_model(model, name="old")
    assert tester.network_path("G", "latest").name == "latest_net.pth"
    tester.load_networks("latest", labels=("G",))
    assert_equal_networks(tester.networks["G"], model.networks["G"])


def test_older_published_files_with_the_table_load_too(tmp_path):
    model = make_model(tmp_path)
    (tmp_path / "old").mkdir()
    torch.save(with_table(model.networks["G"].state_dict()), tmp_path / "old" / "7_net_G.pth")
    tester = make_test_model(model, name="old")
    tester.load_networks("7")
    assert_equal_networks(tester.networks["G"], model.networks["G"])


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "no G"])
def test_everything_but_the_table_is_strict(tmp_path, change):
    model = make_model(tmp_path)
    path = tmp_path / "old" / "latest_net.pth"
    save_published(model, path, prefix="")
    parts = torch.load(path)
    if change == "missing":
        del parts["netG"]["En_s.block0.model.0.bias"]
    elif change == "extra":
        parts["netG"]["En_s.block9.bias"] = torch.zeros(3)
    elif change == "shape":
        parts["netG"]["En_s.block0.model.0.bias"] = torch.zeros(3)
    else:
        del parts["netG"]
    torch.save(parts, path)
    with pytest.raises(UserError, match=r"En_s|no network G"):
        make_test_model(model, name="old").load_networks("latest")


def test_saving_and_loading_gives_the_same_images(tmp_path):
    model = make_model(tmp_path)
    model.set_input(make_batch())
    model.optimize_parameters()
    model.save_networks("latest")
    model.eval_mode()
    tester = make_test_model(model)
    tester.load_networks("latest")
    inputs = model.prepare(make_batch())
    assert torch.equal(tester.infer(inputs)["fake_target"], model.infer(inputs)["fake_target"])


def test_another_schedule_than_the_trained_one_is_refused(tmp_path):
    model = make_model(tmp_path)
    model.save_networks("latest")
    model.opt.d_schedule = [100, 1]
    with pytest.raises(UserError, match="divisors"):
        make_test_model(model).load_networks("latest")


def test_warm_start_from_the_same_model_without_step_loss_keeps_all_but_the_step_head(tmp_path):
    first = make_model(tmp_path, "--no_step_loss", name="first")
    first.save_networks("latest")
    with pytest.warns(UserWarning, match=r"fc_step\.0\.weight.* start fresh"):
        second = make_model(tmp_path, name="second", init_from=tmp_path / "first")
    assert_equal_networks(second.networks["G"], first.networks["G"])
    state = second.networks["D"].state_dict()
    for name, value in first.networks["D"].state_dict().items():
        assert torch.equal(state[name], value)
    assert second.networks["D"].fc_step is not None


def test_warm_start_from_a_published_file_takes_the_step_head_too(tmp_path):
    first = make_model(tmp_path)
    save_published(first, tmp_path / "old" / "best_net.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = make_model(tmp_path, init_from=tmp_path / "old" / "best_net.pth")
    for label in ("G", "D"):
        assert_equal_networks(second.networks[label], first.networks[label])


def save_dptn(folder, kind):
    torch.manual_seed(3)
    generator = DPTNGenerator(DPTNConfig(ngf=4))
    discriminator = build_discriminator(DiscriminatorConfig(kind, ndf=4))
    folder.mkdir()
    torch.save(generator.state_dict(), folder / "latest_net_G.pth")
    torch.save(discriminator.state_dict(), folder / "latest_net_D.pth")
    return generator, discriminator


def test_warm_start_from_dptn_takes_over_every_layer(tmp_path):
    generator, discriminator = save_dptn(tmp_path / "dptn", "res")
    with pytest.warns(UserWarning, match="fc_step"):
        model = make_model(tmp_path, init_from=tmp_path / "dptn" / "latest_net_G.pth")
    own = model.networks["G"].state_dict()
    old = generator.state_dict()
    assert torch.equal(own["PTM.decoder.norm.weight"], old["PTM.decoder.norm.weight"])
    pairs = {
        "En_c.mblock1.conv2.weight_orig": "mblock1.conv2.weight",
        "En_s.encoder0.model.2.weight_orig": "source_encoder.encoder0.model.2.weight",
        "De.decoder1.model.5.weight_orig": "decoder1.model.5.weight",
        "De.outconv.conv1.bias": "outconv.conv1.bias",
    }
    for new_key, old_key in pairs.items():
        assert torch.equal(own[new_key], old[old_key])
    first, old_first = own["En_c.block0.model.0.weight_orig"], old["block0.model.0.weight"]
    assert torch.equal(first[:, :3], old_first[:, :3])
    assert torch.equal(first[:, 3:21], old_first[:, 3:21] + old_first[:, 21:])
    assert first[:, 21:].abs().max() == 0
    assert torch.equal(
        model.networks["D"].state_dict()["conv.weight_orig"],
        discriminator.state_dict()["conv.weight_orig"],
    )


def test_warm_start_from_dptn_leaves_spectral_layers_with_norm_one(tmp_path):
    save_dptn(tmp_path / "dptn", "res")
    with pytest.warns(UserWarning, match="fc_step"):
        model = make_model(tmp_path, init_from=tmp_path / "dptn")
    generator = model.networks["G"].eval()
    model.infer(model.prepare(make_batch()))
    for name in ("En_c.encoder0.model.2", "De.decoder1.model.5"):
        weight = generator.get_submodule(name).weight.detach()
        matrix = weight.transpose(0, 1) if name.startswith("De") else weight
        assert float(torch.linalg.matrix_norm(matrix.flatten(1), 2)) == pytest.approx(1, abs=1e-4)


def test_warm_start_from_dptn_ta_says_that_the_discriminator_starts_fresh(tmp_path):
    save_dptn(tmp_path / "ta", "resnet")
    with pytest.warns(UserWarning, match="another kind of discriminator; D starts fresh"):
        make_model(tmp_path, init_from=tmp_path / "ta")


def test_warm_start_from_something_else_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "x_net_G.pth")
    with pytest.raises(UserError, match="missing"):
        make_model(tmp_path, init_from=tmp_path / "x_net_G.pth")
    with pytest.raises(UserError, match="no checkpoint"):
        make_model(tmp_path, init_from=tmp_path / "nowhere_net_G.pth")


def test_joined_chunks_are_step_major(tmp_path):
    model = make_model(tmp_path)
    model.set_input(make_batch(3))
    with torch.no_grad():
        chunk = join(list(model.rollout(with_source=False)))
    assert chunk.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    assert chunk.fake_source is None
    expected = coarse_image(model.inputs["target_image"], 153)
    assert torch.equal(chunk.real_target[3:6], expected)
