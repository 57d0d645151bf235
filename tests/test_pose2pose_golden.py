"""MAGPT's networks, losses and training step reproduce the reference arrays (published widths)."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.utils import make_grid

from models import create_model
from models.losses.adversarial import GANLoss
from models.losses.perceptual import VGG19Features
from models.losses.pose2pose import perceptual_loss
from models.networks.pose2pose import PatchDiscriminator, Pose2PoseGenerator
from tests.helpers import GOLDEN, draw, train_options

NETWORKS = {"netG": Pose2PoseGenerator, "netD": PatchDiscriminator}
PARAMETERS = {"netG": 90_172_928, "netD": 2_768_705}
AFTER_STEP = ("out_conv1.4.weight", "in1_conv1.1.weight")  # recorded after the first update
# Adam's first step is lr * sign(gradient), also for the discriminator, whose weights with a
# gradient of nearly zero go either way by rounding. Measured against float64, that moves the
# generator's float32 gradients by up to 0.010 (of 0.4 in the median): below twice that, their sign
# is open.
GRADIENT_NOISE = 0.02
TRAIN_TOLERANCE = {"netG": 1e-3, "netD": 1e-5}  # float32 against float64: 1e-4 and 2e-6


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "magpt_networks.npz")


def rule_b(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Value of the state-dict entry ``name`` in the sensitive weight rule of the golden file."""
    if not tensor.is_floating_point():
        return torch.zeros(tensor.shape, dtype=tensor.dtype)
    z = draw(name, tensor.shape)
    if tensor.dim() == 4:
        z = 1.2 * z / np.sqrt(np.prod(tensor.shape[1:]))
    elif name.endswith("running_var"):
        z = np.exp(0.1 * z)
    elif name.endswith(".weight"):
        z = 1 + 0.1 * z
    else:
        z = 0.1 * z
    return torch.from_numpy(z.astype(np.float32))


@pytest.fixture(scope="session")
def rule_b_states():
    """State dicts of both networks; 90 million numbers, drawn once."""
    states = {}
    for name, build in NETWORKS.items():
        with torch.device("meta"):
            shapes = build().state_dict()
        states[name] = {key: rule_b(key, value) for key, value in shapes.items()}
    return states


@pytest.fixture
def networks(rule_b_states):
    """Both networks with freshly filled weights and buffers, in evaluation mode."""
    built = {}
    for name, build in NETWORKS.items():
        with torch.device("meta"):
            network = build()
        state = {key: value.clone() for key, value in rule_b_states[name].items()}
        network.load_state_dict(state, assign=True)
        built[name] = network.eval()
    return built


def uniform(rng, low: float, *shape: int) -> torch.Tensor:
    return torch.from_numpy(rng.uniform(low, 1, shape).astype(np.float32))


def forward_inputs(size: int) -> dict[str, tuple[torch.Tensor, ...]]:
    """Inputs of the forward arrays, by network."""
    rng, batch = np.random.RandomState(0), 2 if size == 64 else 1
    image, poses, pair = (
        uniform(rng, low, batch, channels, size, size)
        for low, channels in ((-1, 3), (0, 36), (-1, 6))
    )
    return {"netG": (image, *poses.split(18, dim=1)), "netD": tuple(pair.split(3, dim=1))}


def run(network: nn.Module, inputs: tuple[torch.Tensor, ...]) -> np.ndarray:
    with torch.no_grad():
        return network(*inputs).numpy()


def assert_moments(output: np.ndarray, golden, key: str, tolerance: float) -> None:
    assert abs(output.mean(dtype=np.float64) - golden[f"{key}_mean"]) < tolerance
    assert abs(output.std(dtype=np.float64) - golden[f"{key}_std"]) < tolerance


@pytest.mark.parametrize("name", NETWORKS)
def test_keys_shapes_order_and_parameter_counts_are_the_published_ones(name):
    published = json.loads((GOLDEN / "magpt_keys.json").read_text())[name]
    with torch.device("meta"):
        network = NETWORKS[name]()
    ours = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert list(ours.items()) == list(published.items())
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_evaluation_at_64_pixels_equals_the_reference(name, networks, golden):
    output = run(networks[name], forward_inputs(64)[name])
    np.testing.assert_allclose(output, golden[f"B_{name}_eval_64"], atol=2e-5)
    assert_moments(output, golden, f"B_{name}_eval_64", 1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_evaluation_at_256_pixels_equals_the_reference(name, networks, golden):
    output = run(networks[name], forward_inputs(256)[name])
    stored = f"B_{name}_eval_256"
    if name == "netG":
        assert output.shape == (1, 3, 256, 256)
        np.testing.assert_allclose(output[:, :, ::16, ::16], golden[stored + "_sub16"], atol=2e-5)
    else:
        np.testing.assert_allclose(output, golden[stored], atol=2e-5)
    assert_moments(output, golden, stored, 1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_forward_and_its_batch_norm_buffers_equal_the_reference(name, networks, golden):
    network = networks[name].train()
    output = run(network, forward_inputs(64)[name])
    np.testing.assert_allclose(
        output, golden[f"B_{name}_train_64"], atol=TRAIN_TOLERANCE[name], rtol=0
    )
    prefix = f"B_{name}_train_64_after/"
    stored = [key for key in golden.files if key.startswith(prefix)]
    assert len(stored) == {"netG": 14, "netD": 6}[name]
    state = network.state_dict()
    for key in stored:
        ours = state[key.removeprefix(prefix)].numpy()
        np.testing.assert_allclose(ours, golden[key], rtol=1e-5, atol=1e-5)


def test_every_stage_has_the_reference_mean_and_spread(networks, golden):
    moments = {}

    def remember(name: str, x: torch.Tensor) -> None:
        moments[name] = (x.double().mean().item(), x.double().std(correction=0).item())

    gated = {"out_up1": "gate4", "out_up2": "gate3", "out_up3": "gate2", "out_up4": "gate1"}
    for name, module in networks["netG"].named_children():
        module.register_forward_hook(lambda _, x, y, name=name: remember(name, y))
        if name in gated:
            gate = gated[name]
            module.register_forward_pre_hook(lambda _, x, gate=gate: remember(gate, x[0]))
    run(networks["netG"], forward_inputs(64)["netG"])
    stages = [str(name) for name in golden["B_netG_eval_64_stage_names"]]
    assert set(stages) == set(moments)
    ours = np.array([moments[name] for name in stages])
    np.testing.assert_allclose(ours[:, 0], golden["B_netG_eval_64_stage_mean"], atol=1e-5)
    np.testing.assert_allclose(ours[:, 1], golden["B_netG_eval_64_stage_std"], rtol=1e-5)


def test_a_training_forward_at_256_pixels_equals_the_reference(networks, golden):
    output = run(networks["netG"].train(), forward_inputs(256)["netG"])
    np.testing.assert_allclose(
        output[:, :, ::16, ::16], golden["B_netG_train_256_sub16"], atol=1e-3
    )
    assert_moments(output, golden, "B_netG_train_256", 1e-4)


# ---- losses ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rule_vgg():
    """VGG-19 with the weights of the golden file in the layers up to relu2_2."""
    vgg = VGG19Features("random")
    for index in (0, 2, 5, 7):
        layer, name = vgg.features[index], f"vgg19.features.{index}"
        scale = np.sqrt(2 / np.prod(layer.weight.shape[1:]))
        weight = draw(f"{name}.weight", layer.weight.shape) * scale
        layer.weight.data = torch.from_numpy(weight.astype(np.float32))
        bias = 0.1 * draw(f"{name}.bias", layer.bias.shape)
        layer.bias.data = torch.from_numpy(bias.astype(np.float32))
    return vgg


def test_stand_alone_losses_equal_the_reference(rule_vgg, golden):
    rng = np.random.RandomState(5)
    a, b = (uniform(rng, -1, 2, 3, 48, 48) for _ in range(2))
    scores = torch.from_numpy(rng.standard_normal((2, 1, 6, 6)).astype(np.float32))
    parts = [perceptual_loss(rule_vgg, a, b, layers=[layer]) for layer in ("relu1_2", "relu2_2")]
    assert parts[0].item() == pytest.approx(float(golden["per_L4"]), rel=1e-5)
    assert parts[1].item() == pytest.approx(float(golden["per_L9"]), rel=1e-5)
    assert perceptual_loss(rule_vgg, a, b).item() == pytest.approx(sum(parts).item(), rel=1e-6)
    gan = GANLoss("lsgan")
    assert gan(scores, True).item() == pytest.approx(float(golden["gan_real"]), rel=1e-6)
    assert gan(scores, False).item() == pytest.approx(float(golden["gan_fake"]), rel=1e-6)


# ---- one training step -------------------------------------------------------------------------


def golden_model(folder, states, vgg: VGG19Features, dtype: torch.dtype = torch.float32):
    """The real model class with rule B weights and the inputs of the training arrays."""
    opt = train_options(model="pose2pose", load_size=(64, 64), gpu_ids=-1, checkpoints_dir=folder)
    model = create_model(opt)
    for label, name in (("G", "netG"), ("D", "netD")):
        model.networks[label].to(dtype).load_state_dict(states[name])
    model.vgg = vgg
    rng = np.random.RandomState(0)
    source, target = (uniform(rng, -1, 2, 3, 64, 64) for _ in range(2))
    source_pose, target_pose = (uniform(rng, 0, 2, 18, 64, 64) for _ in range(2))
    model.inputs = {
        "source_image": source, "target_image": target,
        "source_pose": source_pose, "target_pose": target_pose,
    }  # fmt: skip
    model.inputs = {key: value.to(dtype) for key, value in model.inputs.items()}
    return model


@pytest.fixture(scope="module")
def rule_model(rule_b_states, rule_vgg, tmp_path_factory):
    return golden_model(tmp_path_factory.mktemp("pose2pose"), rule_b_states, rule_vgg)


def losses_of(model) -> list[float]:
    return [float(value) for value in model.losses.values()]


def gradient_sums(model, golden) -> np.ndarray:
    """Sum of |gradient| of the recorded parameters."""
    sums = []
    for name in golden["step1_gradabs_names"]:
        label, _, key = str(name).partition(".")
        gradient = model.networks[label.removeprefix("net")].get_parameter(key).grad
        sums.append(gradient.double().abs().sum().item())
    return np.array(sums)


def panel(images: torch.Tensor) -> torch.Tensor:
    return make_grid(images, nrow=1, padding=2, normalize=True, pad_value=0)


def test_pictures_made_in_evaluation_mode_equal_the_reference_grid(rule_model, golden):
    rule_model.eval_mode()
    fake = rule_model.infer(rule_model.inputs)["fake_target"]
    rule_model.train_mode()
    images = (rule_model.inputs["source_image"], rule_model.inputs["target_image"], fake)
    grid = torch.cat([panel(x) for x in images], dim=2)
    np.testing.assert_allclose(grid.numpy(), golden["visual_grid"], atol=2e-5)


def test_two_training_steps_equal_the_reference_losses_gradients_and_weights(
    rule_b_states, rule_model, golden
):
    for label, name in (("G", "netG"), ("D", "netD")):
        rule_model.networks[label].load_state_dict(rule_b_states[name])
    rule_model.train_mode()
    rule_model.optimize_parameters()
    assert list(rule_model.losses) == [str(name) for name in golden["step_loss_names"]]
    np.testing.assert_allclose(losses_of(rule_model), golden["step_losses"][0], rtol=1e-4)
    sums = gradient_sums(rule_model, golden)
    np.testing.assert_allclose(sums, golden["step1_gradabs"], rtol=2e-3)
    for key in AFTER_STEP:
        parameter = rule_model.networks["G"].get_parameter(key)
        clear = parameter.grad.abs().numpy() > GRADIENT_NOISE
        assert clear.mean() > 0.95
        ours, expected = parameter.detach().numpy(), golden[f"step1_after/netG.{key}"]
        np.testing.assert_allclose(ours[clear], expected[clear], rtol=0, atol=1e-6)
    rule_model.optimize_parameters()
    np.testing.assert_allclose(losses_of(rule_model), golden["step_losses"][1], rtol=2e-2)


@pytest.mark.slow
def test_two_float64_training_steps_equal_the_reference_in_every_weight(
    rule_b_states, rule_vgg, golden, tmp_path
):
    vgg = copy.deepcopy(rule_vgg).double()
    model = golden_model(tmp_path, rule_b_states, vgg, torch.float64)
    model.optimize_parameters()
    np.testing.assert_allclose(losses_of(model), golden["step_losses_fp64"][0], rtol=1e-8)
    sums = gradient_sums(model, golden)
    np.testing.assert_allclose(sums, golden["step1_gradabs_fp64"], rtol=1e-6)
    for key in AFTER_STEP:
        ours = model.networks["G"].get_parameter(key).detach().numpy()
        np.testing.assert_allclose(ours, golden[f"step1_after/netG.{key}"], rtol=0, atol=1e-7)
    model.optimize_parameters()
    np.testing.assert_allclose(losses_of(model), golden["step_losses_fp64"][1], rtol=1e-4)
