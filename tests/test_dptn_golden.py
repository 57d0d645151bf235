"""DPTN and DPTN-TA reproduce the reference arrays, through the model class and its real training
step."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models import create_model
from models.losses.perceptual import (
    AFFINITY_LAYERS,
    CONTENT_LAYERS,
    STYLE_LAYERS,
    VGG19Features,
    content_loss,
    random_vgg19_state,
    style_loss,
    texture_affinity_loss,
)
from models.networks.discriminators import DiscriminatorConfig, build_discriminator
from models.networks.dptn import DPTNGenerator
from tests.helpers import GOLDEN, fill_by_rule, train_options

CASES = ("dptn_64", "dptn_ta_64", "dptn_ta_market")


def golden_inputs(golden) -> dict[str, torch.Tensor]:
    """Inputs of a golden file: smoothed random images and random pose maps."""
    rng = np.random.RandomState(int(golden["seed"]))
    b, h, w = (int(golden[k]) for k in "BHW")
    draws = [
        torch.from_numpy(rng.uniform(low, 1, (b, c, h, w)).astype(np.float32))
        for low, c in ((-1, 3), (-1, 3), (0, 18), (0, 18))
    ]
    images = [
        (F.avg_pool2d(x, 9, stride=1, padding=4, count_include_pad=False) * 3).clamp(-1, 1)
        for x in draws[:2]
    ]
    keys = ("source_image", "target_image", "source_pose", "target_pose")
    return dict(zip(keys, (*images, *draws[2:]), strict=True))


def golden_model(case: str, tmp_path, dtype: torch.dtype):
    """The real model class with the weights and inputs of a golden file."""
    golden = np.load(GOLDEN / f"{case}.npz")
    version = [] if "_ta_" in case else ["--netD", "res", "--lambda_affi", "0"]
    opt = train_options(
        *version,
        load_size=(int(golden["H"]), int(golden["W"])),
        dis_layers=int(golden["dis_layers"]),
        gpu_ids=-1,
        checkpoints_dir=tmp_path,
    )
    model = create_model(opt)
    seed = int(golden["seed"])
    for network in model.networks.values():
        fill_by_rule(network, seed)
        network.to(dtype)
    model.vgg.features.load_state_dict(random_vgg19_state(seed))
    model.vgg.to(dtype)
    model.inputs = {k: v.to(dtype) for k, v in golden_inputs(golden).items()}
    return model, golden


def every_eighth(array: torch.Tensor) -> np.ndarray:
    return array.detach().numpy()[..., ::8, ::8]


def matching(array: torch.Tensor, reference: np.ndarray) -> np.ndarray:
    """``array`` at the resolution the reference was stored in."""
    full = array.detach().numpy()
    return full if full.shape == reference.shape else every_eighth(array)


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_unweighted_losses_equal_the_float32_reference(case, tmp_path):
    model, golden = golden_model(case, tmp_path, torch.float32)
    x = model.inputs
    with torch.no_grad():
        fake_t, fake_s = model.networks["G"](x["source_image"], x["source_pose"], x["target_pose"])
    np.testing.assert_allclose(matching(fake_t, golden["fake_t"]), golden["fake_t"], atol=2e-5)
    np.testing.assert_allclose(matching(fake_s, golden["fake_s"]), golden["fake_s"], atol=2e-5)
    np.testing.assert_array_equal(model.infer(x)["fake_target"].numpy(), fake_t.numpy())

    a = (0.5 * x["source_image"]).requires_grad_(True)
    layers = {*CONTENT_LAYERS, *STYLE_LAYERS, *AFFINITY_LAYERS}
    of_a, of_t = model.vgg(a, layers), model.vgg(x["target_image"], layers)
    losses = {"content": content_loss(of_a, of_t), "style": style_loss(of_a, of_t)}
    total = 0.5 * losses["content"] + 500 * losses["style"]
    if "loss_affinity" in golden:
        of_s = model.vgg(x["source_image"], layers)
        losses["affinity"] = texture_affinity_loss(of_a, of_t, of_s)
        total = total + 100 * losses["affinity"]
    for name, value in losses.items():
        np.testing.assert_allclose(value.item(), golden[f"loss_{name}"], rtol=1e-5)
    (grad,) = torch.autograd.grad(total, a)
    np.testing.assert_allclose(
        matching(grad, golden["loss_grad_x"]), golden["loss_grad_x"], atol=1e-7
    )


@pytest.mark.parametrize("case", CASES)
def test_the_first_float32_training_iterations_stay_within_the_chaotic_spread(case, tmp_path):
    model, golden = golden_model(case, tmp_path, torch.float32)
    for row, tolerance in enumerate((1e-5, 2e-2)):
        model.optimize_parameters()
        np.testing.assert_allclose(
            [float(v) for v in model.losses.values()], golden["traj"][row], rtol=tolerance
        )


@pytest.mark.parametrize("case", CASES)
def test_four_float64_training_iterations_equal_the_reference(case, tmp_path):
    model, _ = golden_model(case, tmp_path, torch.float64)
    golden = np.load(GOLDEN / f"{case}_f64.npz")
    assert tuple(model.networks) == ("G", "D")
    first_norms: dict[str, float] = {}
    for row in golden["traj"]:
        model.optimize_parameters()
        parameters = model.networks["G"].named_parameters()
        first_norms = first_norms or {n: p.grad.norm().item() for n, p in parameters}
        assert list(model.losses) == [str(n) for n in np.load(GOLDEN / f"{case}.npz")["traj_names"]]
        np.testing.assert_allclose([float(v) for v in model.losses.values()], row, rtol=1e-8)
    names, norms = [str(n) for n in golden["gradnames"]], golden["gradnorm"]
    assert len(names) == 168
    ours = np.array([first_norms[n] for n in names])
    assert np.abs(ours - norms).max() <= 1e-8 * np.abs(norms).max()
    np.testing.assert_allclose(ours[norms > 1e-9], norms[norms > 1e-9], rtol=1e-7)

    fake = model.infer(model.inputs)["fake_target"]
    np.testing.assert_allclose(every_eighth(fake), golden["fake_t_after"], atol=1e-6)
    model.eval_mode()
    with torch.no_grad():
        scores = model.networks["D"](model.inputs["target_image"]).numpy()
    step = max(1, scores.shape[1] // golden["d_eval_after"].shape[1])
    np.testing.assert_allclose(scores[:, ::step], golden["d_eval_after"], atol=1e-6)


@pytest.mark.parametrize(
    ("manifest", "build", "count"),
    [
        ("dptn_G_keys", DPTNGenerator, 9_794_371),
        ("dptn_D_layers3_keys",
         lambda: build_discriminator(DiscriminatorConfig("res", 32, 3)), 238_209),
        ("dptn_D_layers4_keys",
         lambda: build_discriminator(DiscriminatorConfig("res", 32, 4)), 664_577),
        ("dptn_ta_D_layers3_keys",
         lambda: build_discriminator(DiscriminatorConfig("resnet", 32, 3)), 982_592),
        ("dptn_ta_D_layers4_keys",
         lambda: build_discriminator(DiscriminatorConfig("resnet", 32, 4)), 1_277_760),
    ],
)  # fmt: skip
def test_state_dict_keys_shapes_and_counts_are_the_published_ones(manifest, build, count):
    network = build()
    ours = {key: list(value.shape) for key, value in network.state_dict().items()}
    published = json.loads((GOLDEN / f"{manifest}.json").read_text())
    assert list(ours.items()) == list(published.items())
    assert sum(p.numel() for p in network.parameters()) == count


def test_affinity_gradient_is_finite_where_a_feature_vanishes():
    x = torch.zeros(1, 4, 2, 2, requires_grad=True)
    other = {name: torch.rand(1, 4, 2, 2) for name in AFFINITY_LAYERS}
    loss = texture_affinity_loss(dict.fromkeys(AFFINITY_LAYERS, x), other, other)
    loss.backward()
    assert torch.isfinite(x.grad).all()


def test_vgg_returns_the_same_features_however_many_layers_are_asked():
    vgg, images = VGG19Features("random"), torch.rand(1, 3, 32, 32)
    together = vgg(images, {*CONTENT_LAYERS, *STYLE_LAYERS})
    for name, value in together.items():
        assert torch.equal(value, vgg(images, [name])[name])
