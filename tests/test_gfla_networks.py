"""The flow estimator and the generator: names, sizes and outputs of the published networks."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.networks.discriminators import DiscriminatorConfig, build_discriminator
from models.networks.flow import FlowConfig, PoseFlowNet
from models.networks.gfla import GFLAConfig, GFLAGenerator, LocalAttention
from models.networks.layers import initialize
from tests.gfla_rules import (
    CONFIGS,
    DISCRIMINATOR_LAYERS,
    fill_generator,
    load_golden,
    make_inputs,
)
from tests.helpers import GOLDEN
from util.sampling import block_extract, local_attn_reshape


def build(kind: str, name: str) -> torch.nn.Module:
    if name == "pose.net_D":
        layers = DISCRIMINATOR_LAYERS[kind]
        return build_discriminator(DiscriminatorConfig("res", 32, layers, True, True))
    return {"poseflownet.net_G": PoseFlowNet, "pose.net_G": GFLAGenerator}[name](CONFIGS[kind])


@pytest.mark.parametrize("name", ["poseflownet.net_G", "pose.net_G", "pose.net_D"])
@pytest.mark.parametrize("kind", ["fashion", "market"])
def test_keys_shapes_and_parameter_counts_are_the_published_ones(kind, name):
    manifest = json.loads((GOLDEN / f"gfla_keys_{kind}.json").read_text())
    network = build(kind, name)
    shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert shapes == manifest["networks"][name]
    assert list(shapes) == list(manifest["networks"][name])
    counts = manifest["counts"][name]
    assert sum(p.numel() for p in network.parameters()) == counts["unique_params"]


@pytest.mark.parametrize("rule", ["A", "B"])
@pytest.mark.parametrize("kind", ["fashion", "market"])
@torch.no_grad()
def test_outputs_equal_the_published_networks(kind, rule):
    golden, inputs = load_golden(f"{kind}_{rule}"), make_inputs(kind)
    inputs.pop("target_image")
    for name, key in (("P1", "source_image"), ("BP1", "source_pose"), ("BP2", "target_pose")):
        np.testing.assert_array_equal(inputs[key].flatten()[:8], golden[f"in.{name}.first8"])
    flow_net, generator = PoseFlowNet(CONFIGS[kind]), GFLAGenerator(CONFIGS[kind])
    fill_generator(flow_net, rule)
    fill_generator(generator, rule)
    middle = record_outputs(generator, [k[4:] for k in golden if k.startswith("mid.")])
    image, *flows_and_masks = generator(**inputs)
    for prefix, lists in (("pose", flows_and_masks), ("poseflownet", flow_net(**inputs))):
        for n, (flow, mask) in enumerate(zip(*lists, strict=True)):
            np.testing.assert_allclose(flow, golden[f"{prefix}.flow{n}"], atol=1e-5)
            np.testing.assert_allclose(mask, golden[f"{prefix}.mask{n}"], atol=1e-5)
    step = 1 if kind == "fashion" else 2  # the market image is stored at half size
    np.testing.assert_allclose(image[:, :, ::step, ::step], golden["pose.img_gen"], atol=1e-4)
    for name, value in middle.items():
        np.testing.assert_allclose(value[:1, ::8], golden[f"mid.{name}"], atol=2e-5, err_msg=name)


def record_outputs(network: torch.nn.Module, names: list[str]) -> dict[str, torch.Tensor]:
    """A dict that fills with the outputs of the named submodules when ``network`` runs."""
    outputs: dict[str, torch.Tensor] = {}
    for name in names:
        network.get_submodule(name).register_forward_hook(
            lambda module, args, out, name=name: outputs.__setitem__(name, out)
        )
    return outputs


@pytest.mark.parametrize("kernel_size", [2, 3, 4, 5])
def test_local_attention_equals_its_published_form_with_blocks(kernel_size):
    torch.manual_seed(0)
    layer = LocalAttention(6, kernel_size).double()
    source, target = torch.randn(2, 2, 6, 8, 7, dtype=torch.float64)
    flow = 3 * torch.randn(2, 2, 8, 7, dtype=torch.float64)
    leaves = [x.requires_grad_() for x in (source, target, flow)] + list(layer.parameters())

    source_block = block_extract(source, flow, kernel_size)
    target_block = block_extract(target, torch.zeros_like(flow), kernel_size)
    weights = layer.fully_connect_layer(torch.cat((target_block, source_block), 1))
    product = local_attn_reshape(weights, kernel_size) * source_block
    expected = F.avg_pool2d(product, kernel_size)

    ours = layer(source, target, flow)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    for a, b in zip(
        torch.autograd.grad(ours.square().sum(), leaves),
        torch.autograd.grad(expected.square().sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_a_new_estimator_starts_with_almost_no_flow_and_undecided_masks():
    torch.manual_seed(0)
    network = initialize(PoseFlowNet(FlowConfig(flow_ngf=8)), "orthogonal", 0.02)
    inputs = make_inputs("fashion")
    inputs.pop("target_image")
    flows, masks = network(**inputs)
    assert max(flow.abs().max().item() for flow in flows) < 0.05
    assert max((mask - 0.5).abs().max().item() for mask in masks) < 0.05


@pytest.mark.parametrize("levels", [(1,), (1, 2, 3), (3,)])
def test_any_set_of_levels_gives_flows_of_those_sizes_coarse_to_fine(levels):
    config = GFLAConfig(levels, 4, kernel_size=tuple((n, 3) for n in levels), ngf=8)
    inputs = make_inputs("fashion")
    inputs.pop("target_image")
    image, flows, masks = GFLAGenerator(config)(**inputs)
    expected = [(64 >> level, 64 >> level) for level in sorted(levels, reverse=True)]
    assert [tuple(flow.shape[2:]) for flow in flows] == expected
    assert [tuple(mask.shape[1:]) for mask in masks] == [(1, *size) for size in expected]
    assert image.shape == (2, 3, 64, 64)


def narrow_generator_and_inputs():
    torch.manual_seed(0)
    inputs = make_inputs("fashion")
    inputs.pop("target_image")
    return GFLAGenerator(GFLAConfig(flow_ngf=4, ngf=8)).eval(), inputs


@pytest.mark.slow
def test_the_generator_compiles_without_graph_breaks():
    network, inputs = narrow_generator_and_inputs()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(**inputs)[0], network(**inputs)[0])


def test_the_generator_runs_in_half_precision():
    network, inputs = narrow_generator_and_inputs()
    with torch.autocast("cpu", torch.bfloat16):
        half, flows, _ = network(**inputs)
    assert all(flow.dtype == torch.float32 for flow in flows)
    assert (half.float() - network(**inputs)[0]).abs().mean() < 0.05
    half.float().mean().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
