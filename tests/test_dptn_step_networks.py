"""Networks of the step system: published keys, sizes and numbers."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from models.networks.dptn_step import (
    DPTNStepConfig,
    StepDiscriminator,
    StepDiscriminatorConfig,
    StepGenerator,
    coarse_image,
    positional_map,
)
from util.errors import UserError

GOLDEN = Path(__file__).parent / "golden"
KEYS = json.loads((GOLDEN / "dptn_step_keys.json").read_text())  # key: [shape, kind]
SQUARE = (256, 256)

# Measured on the original modules, 256 x 256, float64, eval mode; one row per step. Columns: mean
# and std of the target output, three of its pixels, the same of the source output, mean and std of
# the score map, step log-probabilities, L1 of target and source output to their coarse images.
PARITY = """
0.151649 0.187094 0.168209 0.354539 0.086788 0.150317 0.184969 0.250124 0.055348 0.060080 \
0.053528 0.013406 -1.48556 -1.70277 -1.75071 -1.46755 -1.67501 1.009796 1.006718
0.151645 0.187547 0.203492 0.186483 0.074756 0.150475 0.184514 0.154186 0.377382 0.060653 \
0.053652 0.013372 -1.48603 -1.70204 -1.74928 -1.46736 -1.67672 0.752073 0.746980
0.151465 0.187270 0.213260 0.159730 0.080608 0.150328 0.184890 0.193814 0.318264 0.058527 \
0.053636 0.013424 -1.48615 -1.70318 -1.74851 -1.46636 -1.67741 0.691629 0.689798
0.151730 0.187545 0.265804 0.231895 0.077082 0.150444 0.184820 0.154119 0.310932 0.063213 \
0.053566 0.013417 -1.48649 -1.70336 -1.74945 -1.46544 -1.67709 0.574313 0.571796
0.151754 0.187298 0.227938 0.197876 0.074896 0.150350 0.184898 0.208345 0.320332 0.057100 \
0.053596 0.013394 -1.48754 -1.70139 -1.74905 -1.46647 -1.67685 0.530899 0.530045
"""
PIXELS = ((0, 0, 0), (1, 100, 77), (2, 255, 255))


def fill(network, prefix):
    """Parameters drawn from their names; u and v of spectral layers set to the singular vectors."""
    for name, parameter in network.named_parameters():
        rng = np.random.RandomState(zlib.crc32(f"{prefix}.{name}".encode()))
        draw = rng.standard_normal(tuple(parameter.shape))
        if name.endswith("bias"):
            draw = 0.1 * draw
        elif draw.ndim == 1:
            draw = 1 + 0.1 * draw
        else:
            draw = draw / np.sqrt(np.prod(draw.shape[1:]))
        parameter.data.copy_(torch.from_numpy(draw))
    for module in network.modules():
        if hasattr(module, "weight_orig"):
            transposed = isinstance(module, torch.nn.ConvTranspose2d)
            weight = module.weight_orig.data
            matrix = (weight.transpose(0, 1) if transposed else weight).flatten(1)
            u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
            module.weight_u.copy_(u[:, 0])
            module.weight_v.copy_(vh[0])
    return network.eval()


def filled_networks(load_size):
    generator = StepGenerator(DPTNStepConfig(load_size=load_size)).double()
    discriminator = StepDiscriminator(StepDiscriminatorConfig(load_size=load_size)).double()
    return fill(generator, "netG"), fill(discriminator, "netD")


def parity_inputs():
    rng = np.random.RandomState(0)
    source = rng.randint(0, 256, (1, 3, *SQUARE)) / 127.5 - 1
    target = rng.randint(0, 256, (1, 3, *SQUARE)) / 127.5 - 1
    source_pose = rng.random_sample((1, 41, *SQUARE))
    target_pose = rng.random_sample((1, 41, *SQUARE))
    noise = rng.standard_normal((1, 3, *SQUARE))
    return [torch.from_numpy(x) for x in (source, target, source_pose, target_pose, noise)]


def measure(discriminator, fakes, truths):
    """One row of the parity table."""
    row = []
    for fake in fakes:
        row += [fake.mean(), fake.std(), *(fake[0][p] for p in PIXELS)]
    scores, log_probabilities = discriminator(fakes[0])
    row += [scores.mean(), scores.std(), *log_probabilities[0]]
    row += [(a - b).abs().mean() for a, b in zip(fakes, truths, strict=True)]
    return [float(x) for x in row]


@torch.no_grad()
def check_parity(steps):
    generator, discriminator = filled_networks(SQUARE)
    first = generator.En_c.block0.model[0].weight_orig
    assert first.flatten()[:3].tolist() == pytest.approx([0.019409, -0.020055, 0.015719], abs=1e-6)
    assert float(first.sum()) == pytest.approx(0.348703, abs=1e-6)
    source, target, source_pose, target_pose, noise = parity_inputs()
    rollout = generator.rollout([(source, source_pose)] * 5, target_pose, noise, with_source=True)
    expected = [[float(x) for x in line.split()] for line in PARITY.strip().splitlines()]
    for step in range(steps):
        truths = [coarse_image(x, generator.config.divisors[step]) for x in (target, source)]
        row = measure(discriminator, next(rollout), truths)
        assert row[:12] == pytest.approx(expected[step][:12], abs=2e-6), f"step {step + 1}"
        assert row[12:17] == pytest.approx(expected[step][12:17], abs=1e-5), f"step {step + 1}"
        assert row[17:] == pytest.approx(expected[step][17:], abs=2e-6), f"step {step + 1}"


def test_the_first_step_reproduces_the_published_numbers():
    check_parity(steps=1)


@pytest.mark.slow
def test_five_chained_steps_reproduce_the_published_numbers():
    check_parity(steps=5)


def test_state_dict_keys_shapes_and_parameter_order_are_the_published_ones():
    generator = StepGenerator(DPTNStepConfig(load_size=SQUARE))
    discriminator = StepDiscriminator(StepDiscriminatorConfig(load_size=SQUARE))
    for name, network in (("netG", generator), ("netD", discriminator)):
        expected = {key: shape for key, (shape, _) in KEYS[name].items()}
        assert {k: list(v.shape) for k, v in network.state_dict().items()} == expected
        parameters = [key for key, (_, kind) in KEYS[name].items() if kind == "param"]
        assert [k for k, _ in network.named_parameters()] == parameters


def test_parameter_counts_are_the_published_ones():
    def count(network):
        return sum(p.numel() for p in network.parameters())

    assert count(StepGenerator()) == 9_799_491
    assert count(StepDiscriminator(StepDiscriminatorConfig(load_size=SQUARE))) == 9_054_726
    assert count(StepDiscriminator()) == 6_433_286  # 256 x 176
    assert count(StepDiscriminator(StepDiscriminatorConfig(step_size=0))) == 664_577  # DPTN's


@pytest.mark.parametrize("size", [(8, 6), (5, 7)])
def test_positional_map_equals_its_closed_form(size):
    count = size[0] * size[1]
    for step in range(1, 7):
        expected = [
            (np.sin if n % 2 == 0 else np.cos)(step * 10000.0 ** (-(n - n % 2) / count))
            for n in range(count)
        ]
        found = positional_map(step, *size)
        assert found.shape == (1, *size)
        assert np.allclose(found.flatten().numpy(), expected, atol=1e-12)


def test_positional_maps_are_not_saved():
    generator = StepGenerator(DPTNStepConfig(load_size=(16, 16)))
    assert generator.positions.shape == (7, 1, 16, 16)
    assert not any("position" in key for key in generator.state_dict())


def small_generator(**changes):
    settings = {"ngf": 4, "pose_channels": 2, "load_size": (32, 16), "divisors": (128, 1)}
    torch.manual_seed(0)
    return StepGenerator(DPTNStepConfig(**{**settings, **changes})).eval()


def small_inputs(batch=2):
    torch.manual_seed(1)
    image = torch.randint(0, 256, (batch, 3, 32, 16)) / 127.5 - 1
    source_pose, target_pose = torch.rand(2, batch, 2, 32, 16)
    return image, source_pose, target_pose, torch.randn(batch, 3, 32, 16)


@torch.no_grad()
def test_a_step_is_wired_as_the_equations_say():
    generator = small_generator()
    source, source_pose, target_pose, noise = small_inputs()
    pe = [positional_map(s, 32, 16).float() for s in range(4)]
    estimate = noise
    for step, fakes in enumerate(
        generator.rollout([(source, source_pose)] * 2, target_pose, noise, with_source=True), 1
    ):
        a = coarse_image(source, (128, 1)[step - 1]) + pe[step + 1]
        f_ss = generator.En_c(torch.cat([a, source_pose], 1))
        f_st = generator.En_c(torch.cat([estimate + pe[step], target_pose], 1))
        f_t = generator.PTM(f_ss, f_st, generator.En_s(a))
        assert torch.allclose(fakes[0], generator.De(f_t), atol=1e-5)
        assert torch.allclose(fakes[1], generator.De(f_ss), atol=1e-5)
        estimate = fakes[0]


@torch.no_grad()
def test_raw_texture_encodes_the_full_image_without_the_positional_map():
    generator = small_generator(raw_texture=True)
    seen = []
    generator.En_s.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    source, source_pose, target_pose, noise = small_inputs()
    list(generator.rollout([(source, source_pose)] * 2, target_pose, noise))
    assert all(torch.equal(x, source) for x in seen)


def test_no_gradient_flows_between_steps():
    generator = small_generator()
    source, source_pose, target_pose, noise = small_inputs()
    noise.requires_grad_()
    first, second = generator.rollout([(source, source_pose)] * 2, target_pose, noise)
    (gradient,) = torch.autograd.grad(second[0].sum(), noise, allow_unused=True)
    assert gradient is None
    (gradient,) = torch.autograd.grad(first[0].sum(), noise)
    assert gradient.abs().max() > 0


@torch.no_grad()
def test_every_step_and_every_level_change_the_result():
    generator = small_generator(divisors=(170, 85, 1))
    source, source_pose, target_pose, noise = small_inputs()
    results = [
        generator(j, source, source_pose, noise, target_pose, with_source=False)[0]
        for j in (1, 2, 3)
    ]
    assert not torch.allclose(results[0], results[1])
    assert not torch.allclose(results[1], results[2])


@pytest.mark.parametrize("size", [(250, 176), (256, 170)])
def test_sizes_that_cannot_be_halved_are_refused(size):
    with pytest.raises(UserError, match="multiples of 8"):
        StepGenerator(DPTNStepConfig(load_size=size))
    with pytest.raises(UserError, match="multiples of 16"):
        StepDiscriminator(StepDiscriminatorConfig(load_size=size))


def test_a_discriminator_without_step_head_returns_scores_only():
    config = StepDiscriminatorConfig(ndf=4, load_size=(32, 16), step_size=0)
    scores, log_probabilities = StepDiscriminator(config)(torch.zeros(2, 3, 32, 16))
    assert scores.shape == (2, 1, 2, 1)
    assert log_probabilities is None


def test_step_probabilities_sum_to_one():
    config = StepDiscriminatorConfig(ndf=4, load_size=(32, 16), step_size=7)
    _, log_probabilities = StepDiscriminator(config)(torch.randn(2, 3, 32, 16))
    assert log_probabilities.shape == (2, 7)
    assert torch.allclose(log_probabilities.exp().sum(1), torch.ones(2))
