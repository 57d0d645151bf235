"""The sampling operators: published arrays, analytic cases, gradients, precision, compilation."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.gfla_rules import load_golden
from util.sampling import (
    attend,
    bilinear_sample,
    block_convolution,
    block_extract,
    local_attn_reshape,
    replicate_pad,
    resample2d,
)


@pytest.fixture(scope="module")
def golden():
    return {key: torch.from_numpy(np.asarray(v)) for key, v in load_golden("ops").items()}


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference, relative to the largest value of b when that exceeds 1."""
    return ((a - b).abs().max() / b.abs().max().clamp(min=1)).item()


def random_case(source_size=(9, 7), flow_size=(9, 7), spread=5.0, channels=4):
    """float64 source and flow; positions stay at least 0.05 away from integers."""
    generator = torch.Generator().manual_seed(4)
    source = torch.randn(2, channels, *source_size, generator=generator, dtype=torch.float64)
    whole = (
        torch.randn(2, 2, *flow_size, generator=generator, dtype=torch.float64) * spread
    ).floor()
    part = torch.rand(2, 2, *flow_size, generator=generator, dtype=torch.float64) * 0.9 + 0.05
    return source, whole + part


@pytest.mark.parametrize("size", [3, 5])
def test_block_extract_and_both_gradients_equal_the_published_kernel(golden, size):
    source = golden["src"].clone().requires_grad_()
    flow = golden["flow"].clone().requires_grad_()
    out = block_extract(source, flow, size)
    out.backward(golden[f"be{size}.gout"])
    assert gap(out, golden[f"be{size}.out"]) < 1e-6
    assert gap(source.grad, golden[f"be{size}.gsrc"]) < 1e-5
    assert gap(flow.grad, golden[f"be{size}.gflow"]) < 1e-5


def literal_block_extract(source, flow, gradient, size: int):
    """The published kernels, thread by thread: output, and gradients of source and flow."""
    b, _, height, width = source.shape
    h, w = flow.shape[2:]
    out, to_source, to_flow = (np.zeros(s) for s in (gradient.shape, source.shape, flow.shape))
    for n, row, column in np.ndindex(b, h * size, w * size):
        y, x = row // size, column // size
        px = flow[n, 0, y, x] + (column % size - size // 2) + x
        py = flow[n, 1, y, x] + (row % size - size // 2) + y
        x0, y0 = int(np.floor(px)), int(np.floor(py))
        a, d = px - x0, py - y0
        left, right = (min(max(i, 0), width - 1) for i in (x0, x0 + 1))
        top, bottom = (min(max(i, 0), height - 1) for i in (y0, y0 + 1))
        corners = ((top, left), (top, right), (bottom, left), (bottom, right))
        weights = ((1 - a) * (1 - d), a * (1 - d), (1 - a) * d, a * d)
        s00, s01, s10, s11 = (source[n, :, i, j] for i, j in corners)
        g = gradient[n, :, row, column]
        for (i, j), weight, value in zip(corners, weights, (s00, s01, s10, s11), strict=True):
            out[n, :, row, column] += weight * value
            to_source[n, :, i, j] += weight * g
        to_flow[n, 0, y, x] += (g * ((1 - d) * (s01 - s00) + d * (s11 - s10))).sum()
        to_flow[n, 1, y, x] += (g * ((1 - a) * (s10 - s00) + a * (s11 - s01))).sum()
    return out, to_source, to_flow


@pytest.mark.parametrize("size", [3, 4, 5])
def test_float64_block_extract_and_both_gradients_equal_the_kernel_written_out(golden, size):
    """At integer positions, at zero flow and 50 pixels outside too, which the flow contains."""
    source, flow = (golden[k].double().requires_grad_() for k in ("src", "flow"))
    out = block_extract(source, flow, size)
    gradient = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)
    out.backward(gradient)
    expected = literal_block_extract(
        source.detach().numpy(), flow.detach().numpy(), gradient.numpy(), size
    )
    for ours, reference in zip((out.detach(), source.grad, flow.grad), expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), reference, rtol=0, atol=1e-12)


def test_resample2d_and_its_flow_gradient_equal_the_published_kernel(golden):
    flow = golden["flow"].clone().requires_grad_()
    out = resample2d(golden["src"], flow)
    out.backward(golden["rs.gout"])
    assert gap(out, golden["rs.out"]) < 1e-6
    assert gap(flow.grad, golden["rs.gflow"]) < 1e-6


def test_local_attn_reshape_equals_the_published_kernel(golden):
    assert torch.equal(local_attn_reshape(golden["la.in"], 3), golden["la.out"])


@pytest.mark.parametrize("size", [2, 3, 4, 5])
@pytest.mark.parametrize("source_size", [(9, 7), (5, 11)])
def test_block_extract_agrees_with_grid_sample_between_integers(size, source_size):
    source, flow = random_case(source_size)
    gradients = []
    for function in (block_extract, block_by_grid_sample):
        s, f = source.clone().requires_grad_(), flow.clone().requires_grad_()
        out = function(s, f, size)
        weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        gradients.append((out.detach(), *torch.autograd.grad((out * weight).sum(), (s, f))))
    for ours, reference in zip(*gradients, strict=True):
        assert gap(ours, reference) < 1e-12


def block_by_grid_sample(source, flow, size):
    """The same block by torch's own bilinear sampler, assembled cell by cell."""
    h, w = flow.shape[2:]
    hs, ws = source.shape[2:]
    y0, x0 = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    cells = []
    for oy in range(size):
        for ox in range(size):
            x = flow[:, 0] + x0 + ox - size // 2
            y = flow[:, 1] + y0 + oy - size // 2
            grid = torch.stack((2 * x / (ws - 1) - 1, 2 * y / (hs - 1) - 1), dim=-1)
            cells.append(F.grid_sample(source, grid, padding_mode="border", align_corners=True))
    stacked = torch.stack(cells, dim=2).flatten(1, 2)  # channel-major, cells inside
    return F.pixel_shuffle(stacked, size)


def test_integer_positions_use_the_right_hand_gradient_and_the_border_has_none():
    source = torch.tensor([[[[1.0, 4.0, 9.0, 16.0]]]], dtype=torch.float64)
    flow = torch.zeros(1, 2, 1, 4, dtype=torch.float64, requires_grad=True)
    bilinear_sample(source, flow).sum().backward()
    assert flow.grad[0, 0, 0].tolist() == [3.0, 5.0, 7.0, 0.0]
    assert flow.grad[0, 1, 0].tolist() == [0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("offset", [(100.0, 100.0), (-100.0, -100.0), (1e12, -1e12)])
def test_positions_far_outside_read_the_nearest_border_pixel(offset):
    source = torch.arange(12.0).view(1, 1, 3, 4)
    flow = torch.tensor(offset).view(1, 2, 1, 1).expand(1, 2, 3, 4)
    column, row = (-1 if o > 0 else 0 for o in offset)
    assert (bilinear_sample(source, flow) == source[0, 0, row, column]).all()


def test_a_linear_image_is_sampled_exactly_by_both_samplers():
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    source = (3 * x - 2 * y)[None, None].double()
    flow = torch.full((1, 2, 12, 12), 0.5, dtype=torch.float64)  # half way: symmetric taps
    inner = (slice(None), slice(None), slice(2, 9), slice(2, 9))
    for out in (bilinear_sample(source, flow), resample2d(source, flow)):
        torch.testing.assert_close(out[inner], (source + 0.5 * 3 - 0.5 * 2)[inner])


def test_a_diverged_flow_shows_as_nan_instead_of_crashing():
    flow = torch.full((1, 2, 3, 4), float("nan"))
    source = torch.ones(1, 1, 3, 4)
    assert bilinear_sample(source, flow).isnan().all()
    assert resample2d(source, flow).isnan().all()


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_attend_equals_the_averaged_product_of_the_two_blocks(size):
    source, flow = random_case((6, 8), (9, 7))
    attention = torch.rand(2, size * size, 9, 7, dtype=torch.float64)
    product = local_attn_reshape(attention, size) * block_extract(source, flow, size)
    assert gap(attend(source, flow, attention), F.avg_pool2d(product, size)) < 1e-13


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_block_convolution_equals_the_convolution_of_the_block(size):
    source, flow = random_case((6, 8), (9, 7))
    weight = torch.randn(6, 4, size, size, dtype=torch.float64)
    expected = F.conv2d(block_extract(source, flow, size), weight, stride=size)
    assert gap(block_convolution(source, flow, weight), expected) < 1e-13


@pytest.mark.parametrize(("kernel_size", "dilation", "sigma"), [(4, 1, 2.0), (2, 3, 0.7)])
def test_resample2d_equals_its_definition_written_out(kernel_size, dilation, sigma):
    source, flow = random_case((6, 8), (3, 4))
    out = resample2d(source, flow, kernel_size, dilation, sigma)
    for b, y, x in np.ndindex(2, 3, 4):
        px, py = (flow[b, :, y, x] + torch.tensor([x, y])).tolist()
        total, weight_sum = torch.zeros(4, dtype=torch.float64), 0.0
        steps = [-i * dilation for i in range(kernel_size // 2)]
        steps += [(i + 1) * dilation for i in range(kernel_size // 2)]
        for i, j in np.ndindex(kernel_size, kernel_size):
            row, column = int(np.floor(py)) + steps[i], int(np.floor(px)) + steps[j]
            weight = np.exp(-((row - py) ** 2 + (column - px) ** 2) / (2 * sigma**2))
            total += weight * source[b, :, min(max(row, 0), 5), min(max(column, 0), 7)]
            weight_sum += weight
        torch.testing.assert_close(out[b, :, y, x], total / weight_sum, rtol=0, atol=1e-12)


def test_replicate_pad_equals_the_built_in_one():
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(replicate_pad(x, 2, 1), F.pad(x, (2, 1, 2, 1), mode="replicate"))


OPERATORS = {
    "block_extract": lambda s, f: block_extract(s, f, 3),
    "resample2d": resample2d,
    "resample2d wide": lambda s, f: resample2d(s, f, kernel_size=6, dilation=2, sigma=3.0),
    "bilinear_sample": bilinear_sample,
    "attend": lambda s, f: attend(
        s, f, torch.linspace(0, 1, 9).view(1, 9, 1, 1).expand(2, 9, 3, 4)
    ),
    "block_convolution": lambda s, f: block_convolution(
        s, f, torch.linspace(-1, 1, 36, dtype=s.dtype).view(2, 2, 3, 3)
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_gradients_to_source_and_flow_agree_with_finite_differences(name):
    source, flow = random_case((5, 4), (3, 4), spread=1.5, channels=2)
    inputs = (source.requires_grad_(), flow.requires_grad_())
    assert torch.autograd.gradcheck(OPERATORS[name], inputs)


def test_gradients_to_attention_and_weight_agree_with_finite_differences():
    source, flow = random_case((5, 4), (3, 4), spread=1.5, channels=2)
    attention = torch.rand(2, 9, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: attend(source, flow, a), (attention,))
    assert torch.autograd.gradcheck(lambda w: block_convolution(source, flow, w), (weight,))
    reshaped = torch.rand(1, 9, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: local_attn_reshape(a, 3), (reshaped,))


def test_gradients_reach_every_sample_of_a_sliced_batch():
    """The published backward kernel misreads non-contiguous gradients; this one must not."""
    source, flow = random_case()
    joined = torch.cat([block_extract(source.requires_grad_(), flow, 3)] * 2, dim=1)
    joined[:, 4:].sum().backward()
    per_sample = source.grad.abs().sum((1, 2, 3))
    torch.testing.assert_close(source.grad.sum(), torch.tensor(2 * 4 * 27 * 21.0).double())
    assert (per_sample > 0).all()


@pytest.mark.parametrize("name", OPERATORS)
def test_half_precision_features_are_read_at_float32_positions(name):
    source, flow = random_case((64, 300), (3, 4), channels=2)
    flow = (flow + torch.tensor([250.0, 30.0]).view(1, 2, 1, 1)).float()
    exact = OPERATORS[name](source.float(), flow)
    with torch.autocast("cpu", torch.bfloat16):
        half = OPERATORS[name](source.bfloat16(), flow)
    assert half.dtype == torch.bfloat16
    assert gap(half.float(), exact) < 0.02


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_compile_without_graph_breaks(name):
    source, flow = random_case()
    if name == "attend":
        source, flow = random_case((5, 4), (3, 4))
    if name == "block_convolution":
        source = source[:, :2]
    source, flow = source.float().requires_grad_(), flow.float().requires_grad_()
    compiled = torch.compile(OPERATORS[name], fullgraph=True, backend="aot_eager")
    for function in (OPERATORS[name], compiled):
        function(source, flow).square().sum().backward()
    half_of_sum = source.grad.clone()
    source.grad = None
    compiled(source, flow).square().sum().backward()
    torch.testing.assert_close(2 * source.grad, half_of_sum)
