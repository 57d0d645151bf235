"""``--model pose2pose``: options, image sizes, the training step, the perceptual term."""

import pytest
import torch

from models import create_model
from models.losses.perceptual import VGG19Features
from models.losses.pose2pose import RESCALES, perceptual_loss, rescale_by_batch
from models.networks.pose2pose import (
    PatchDiscriminator,
    PatchDiscriminatorConfig,
    Pose2PoseConfig,
    Pose2PoseGenerator,
)
from options.test_options import TestOptions
from tests.helpers import train_options
from util.errors import UserError


@pytest.fixture(scope="module")
def vgg():
    return VGG19Features("random")


def small_model(folder, *words, **values):
    fixed = {"model": "pose2pose", "load_size": (32, 32), "ngf": 4, "ndf": 4, "gpu_ids": -1}
    torch.manual_seed(0)
    return create_model(train_options(*words, checkpoints_dir=folder, **(fixed | values)))


def sample_batch(opt, batch: int = 2) -> dict:
    """A batch as the data loader gives it: uint8 images, keypoints in the annotation frame."""
    generator = torch.Generator().manual_seed(3)
    result = {}
    for role in ("source", "target"):
        size = (batch, 3, *opt.load_size)
        image = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
        points = torch.rand(batch, 18, 2, generator=generator, dtype=torch.float64)
        points = (points * torch.tensor(opt.annotation_size)).floor()
        points[:, 4] = -1
        result |= {f"{role}_image": image, f"{role}_keypoints": points}
        result[f"{role}_name"] = [f"{i}.jpg" for i in range(batch)]
    return result


def test_the_defaults_are_the_published_settings(tmp_path):
    opt = train_options(model="pose2pose", dataset_mode="magpt", checkpoints_dir=tmp_path)
    published = {
        "lr": 1e-3, "beta1": 0.5, "lr_policy": "constant", "batchSize": 8, "niter": 100,
        "niter_decay": 0, "gan_mode": "lsgan", "lambda_l1": 5.0, "lambda_gan": 1.0,
        "lambda_per": 5.0, "per_rescale": "batch", "ngf": 64, "ndf": 64, "dis_layers": 3,
        "init_type": "normal", "init_gain": 0.02, "load_size": (256, 256),
        "annotation_size": (256, 256),
    }  # fmt: skip
    assert {key: getattr(opt, key) for key in published} == published


def test_initial_weights_follow_the_published_distributions(tmp_path):
    network = small_model(tmp_path, ngf=8).networks["G"]
    scales, kernels = [], []
    for name, parameter in network.named_parameters():
        if parameter.dim() == 4:
            kernels.append(parameter.detach().flatten())
        elif name.endswith(".weight"):
            scales.append(parameter.detach())
        else:
            assert not parameter.any()
    assert torch.cat(kernels).std().item() == pytest.approx(0.02, rel=0.01)
    assert torch.cat(scales).mean().item() == pytest.approx(1, abs=0.002)
    assert torch.cat(scales).std().item() == pytest.approx(0.02, rel=0.1)


# ---- sizes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(16, 16), (64, 64), (128, 64), (64, 44 + 4)])
def test_any_multiple_of_sixteen_works_and_scores_follow_the_patch_rule(size):
    image, pose = torch.rand(2, 3, *size), torch.rand(2, 18, *size)
    fake = Pose2PoseGenerator(Pose2PoseConfig(ngf=2)).eval()(image, pose, pose)
    assert fake.shape == image.shape
    if min(size) >= 32:
        scores = PatchDiscriminator(PatchDiscriminatorConfig(ndf=2))(image, fake)
        assert scores.shape == (2, 1, size[0] // 8 - 2, size[1] // 8 - 2)


@pytest.mark.parametrize("size", [(250, 256), (256, 264), (8, 16)])
def test_other_sizes_are_refused_with_the_sizes_that_work(tmp_path, size):
    with pytest.raises(UserError, match="multiples of 16"):
        small_model(tmp_path, load_size=size)
    image, pose = torch.rand(1, 3, *size), torch.rand(1, 18, *size)
    with pytest.raises(UserError, match="multiples of 16"):
        Pose2PoseGenerator(Pose2PoseConfig(ngf=2))(image, pose, pose)


@pytest.mark.parametrize(
    ("blocks", "strides"), [(1, [2, 1, 1]), (2, [2, 2, 1, 1]), (5, [2, 2, 2, 2, 2, 1, 1])]
)
def test_the_last_discriminator_block_keeps_the_size_and_width_stops_at_eight(blocks, strides):
    network = PatchDiscriminator(PatchDiscriminatorConfig(ndf=3, blocks=blocks))
    convolutions = [m for m in network.layers if isinstance(m, torch.nn.Conv2d)]
    assert [c.stride[0] for c in convolutions] == strides
    assert [c.out_channels // 3 for c in convolutions[:-1]] == [1, 2, 4, 8, 8, 8][: blocks + 1]


# ---- training ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "load_size"), [("fashion", (64, 64)), ("market", (64, 32)), ("magpt", (32, 32))]
)
def test_a_step_reaches_every_parameter_in_every_data_layout(tmp_path, mode, load_size):
    model = small_model(tmp_path, dataset_mode=mode, load_size=load_size)
    batch = sample_batch(model.opt)
    model.set_input(batch)
    assert model.inputs["source_pose"].shape == (2, 18, *load_size)
    assert (model.inputs["source_pose"].sum(dim=(1, 2, 3)) == 17).all()
    before = {k: [p.clone() for p in n.parameters()] for k, n in model.networks.items()}
    model.optimize_parameters()
    for label, network in model.networks.items():
        for (name, p), old in zip(network.named_parameters(), before[label], strict=True):
            assert p.grad is not None and p.grad.abs().sum() > 0, f"{label}.{name}"  # noqa: PT018
            assert not torch.equal(p, old), f"{label}.{name}"
    assert all(torch.isfinite(v) and not v.requires_grad for v in model.losses.values())
    assert all(p.grad is None for p in model.vgg.parameters())
    assert model.visuals["fake_target"].shape == (2, 3, *load_size)


def test_running_statistics_move_once_per_step_in_g_and_three_times_in_d(tmp_path):
    model = small_model(tmp_path)
    model.set_input(sample_batch(model.opt))
    model.optimize_parameters()
    for label, times in (("G", 1), ("D", 3)):
        for name, buffer in model.networks[label].named_buffers():
            if name.endswith("num_batches_tracked"):
                assert int(buffer) == times, f"{label}.{name}"


def test_a_weight_of_zero_removes_its_term(tmp_path):
    model = small_model(tmp_path, lambda_gan=0, lambda_per=0)
    model.set_input(sample_batch(model.opt))
    model.optimize_parameters()
    losses = {key: float(value) for key, value in model.losses.items()}
    assert losses["lossG"] == pytest.approx(5 * losses["lossG_L1"], rel=1e-6)
    assert losses["lossD"] == pytest.approx((losses["lossD_fake"] + losses["lossD_real"]) / 2)


@pytest.mark.parametrize("gan_mode", ["vanilla", "hinge", "wgangp"])
def test_the_other_adversarial_losses_train_too(tmp_path, gan_mode):
    model = small_model(tmp_path, gan_mode=gan_mode)
    model.set_input(sample_batch(model.opt))
    model.optimize_parameters()
    assert torch.isfinite(model.losses["lossD"])
    assert all(p.grad is not None for p in model.networks["D"].parameters())


def test_training_on_one_batch_brings_the_generated_images_to_their_targets(tmp_path):
    model = small_model(tmp_path, ngf=8, lambda_gan=0)
    model.set_input(sample_batch(model.opt))
    colours = torch.tensor([[0.8, -0.6, -0.6], [-0.6, 0.2, 0.8]])
    model.inputs["target_image"] = colours[:, :, None, None].expand(2, 3, 32, 32)
    model.optimize_parameters()
    first = float(model.losses["lossG_L1"])
    for _ in range(40):
        model.optimize_parameters()
    assert float(model.losses["lossG_L1"]) < 0.25 * first


def test_generation_depends_on_each_pose_and_on_their_order(tmp_path):
    model = small_model(tmp_path, ngf=8)
    for network in model.networks.values():
        for parameter in network.parameters():
            parameter.data *= 8 if parameter.dim() == 4 else 1
    inputs = model.prepare(sample_batch(model.opt))
    model.networks["G"].train()
    fake = model.infer(inputs)["fake_target"]
    assert not fake.requires_grad
    poses = inputs["source_pose"], inputs["target_pose"]
    for other in (poses[::-1], (poses[0], poses[0]), (poses[1], poses[1])):
        changed = inputs | {"source_pose": other[0], "target_pose": other[1]}
        assert not torch.allclose(model.infer(changed)["fake_target"], fake, atol=1e-4)


# ---- perceptual term ---------------------------------------------------------------------------


def test_the_batch_rescale_ignores_affine_changes_and_depends_on_the_batch():
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64) * 2 - 1
    unit = rescale_by_batch(images)
    assert (unit.min(), unit.max()) == (0, 1)
    torch.testing.assert_close(rescale_by_batch(0.3 * images + 0.2), unit)
    assert not torch.allclose(rescale_by_batch(images[:1]), unit[:1])
    torch.testing.assert_close(RESCALES["fixed"](images), (images + 1) / 2)
    x = images.requires_grad_(True)
    (grad,) = torch.autograd.grad((rescale_by_batch(x) ** 2).sum(), x)
    assert grad.sum().item() == pytest.approx(0, abs=1e-10)  # invariant to shift ...
    assert (grad * images).sum().item() == pytest.approx(0, abs=1e-10)  # ... and to scale


def test_the_perceptual_term_has_no_target_gradient_and_survives_a_batch_of_one_colour(vgg):
    generated = torch.zeros(1, 3, 16, 16, requires_grad=True)
    target = torch.rand(1, 3, 16, 16, requires_grad=True)
    loss = perceptual_loss(vgg, generated, target)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(generated.grad).all()
    assert target.grad is None


def test_the_fixed_rescale_sees_the_contrast_that_the_batch_rescale_ignores(vgg):
    target = torch.rand(2, 3, 16, 16) * 2 - 1
    pale = target * 0.2
    assert perceptual_loss(vgg, pale, target).item() < 1e-4
    assert perceptual_loss(vgg, pale, target, "fixed").item() > 0.05


def test_the_released_generator_is_read_under_its_published_name(tmp_path):
    words = {"model": "pose2pose", "ngf": 8, "ndf": 8, "load_size": (64, 64), "gpu_ids": -1}
    model = create_model(train_options(**words, checkpoints_dir=tmp_path, name="run"))
    (tmp_path / "run").mkdir()
    torch.save(model.networks["G"].state_dict(), tmp_path / "run" / "netG_260500.pth")
    argv = ["--model", "pose2pose", "--name", "run", "--checkpoints_dir", str(tmp_path)]
    argv += ["--ngf", "8", "--load_size", "64", "--gpu_ids", "-1", "--which_epoch", "260500"]
    fresh = create_model(TestOptions().parse(argv))
    fresh.load_networks("260500", labels=("G",))
    for key, value in model.networks["G"].state_dict().items():
        assert torch.equal(value, fresh.networks["G"].state_dict()[key]), key
