"""Sampling correctness and affine regularization, and the pictures of flows."""

import math

import pytest
import torch

from models.flow_stages import colour_wheel, flow_to_picture, mask_to_picture, warp_image
from models.losses import flow as flow_module
from models.losses.flow import (
    affine_regularization_loss,
    affine_residual_projection,
    best_similarity,
    sampling_correctness_loss,
)
from tests.gfla_rules import load_golden


@pytest.mark.parametrize("k", [3, 5])
def test_affine_regularization_and_its_gradient_equal_the_published_loss(k):
    golden = load_golden("ops")
    flow = torch.from_numpy(golden[f"reg{k}.flow"]).requires_grad_()
    loss = affine_regularization_loss([flow], [k])
    loss.backward()
    assert loss.item() == pytest.approx(golden[f"reg{k}.loss"], rel=1e-12)
    torch.testing.assert_close(
        flow.grad, torch.from_numpy(golden[f"reg{k}.grad"]), rtol=0, atol=1e-15
    )


def test_an_affine_flow_field_costs_nothing_and_levels_add_up():
    y, x = torch.meshgrid(torch.arange(12.0).double(), torch.arange(10.0).double(), indexing="ij")
    affine = torch.stack((0.3 * x - 0.2 * y + 4, -0.1 * x + 0.5 * y - 1))[None]
    assert affine_regularization_loss([affine], [5]).item() == pytest.approx(0, abs=1e-20)
    bent = affine + torch.stack((x**2, y**2))[None]
    both = affine_regularization_loss([bent, bent], [3, 5])
    single = [affine_regularization_loss([bent], [k]) for k in (3, 5)]
    assert both.item() == pytest.approx(sum(single).item())


def test_the_residual_projection_is_the_textbook_formula():
    row, column = torch.meshgrid(*[torch.arange(3.0, dtype=torch.float64)] * 2, indexing="ij")
    a = torch.stack((row.flatten(), column.flatten(), torch.ones(9, dtype=torch.float64)), 1)
    expected = torch.eye(9, dtype=torch.float64) - a @ torch.linalg.inv(a.T @ a) @ a.T
    torch.testing.assert_close(affine_residual_projection(3), expected)


def test_best_similarity_in_chunks_equals_the_full_matrix(monkeypatch):
    target, source = torch.randn(2, 2, 16, 6, 5)
    t, s = (x.flatten(2) / x.flatten(2).norm(dim=1, keepdim=True) for x in (target, source))
    expected = (t.transpose(1, 2) @ s).amax(2)
    torch.testing.assert_close(best_similarity(target, source), expected)
    monkeypatch.setattr(flow_module, "CHUNK_ELEMENTS", 7 * 2 * 30)
    torch.testing.assert_close(best_similarity(target, source), expected)


def test_the_true_flow_of_a_shifted_image_is_better_than_none():
    """A target that shows the source moved by (3, -2): its flow is (3, -2) everywhere."""
    torch.manual_seed(0)
    smooth = torch.nn.AvgPool2d(5, stride=1)
    wide = smooth(torch.randn(1, 32, 28, 28))
    source, target = wide[..., 4:20, 4:20], wide[..., 2:18, 7:23]
    features = ({"relu3_1": target}, {"relu3_1": source})
    true = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 16, 16).contiguous()
    losses = {}
    for name, flow in (("true", true), ("none", torch.zeros_like(true))):
        flow = flow.clone().requires_grad_()
        losses[name] = sampling_correctness_loss(*features, [flow], [2])
        losses[name].backward()
        assert flow.grad.abs().sum() > 0
    assert losses["true"] < 0.5 * losses["none"]


def test_correctness_is_zero_where_the_source_is_constant():
    """Every position is then the best one: exp(-1) - exp(-1)."""
    ones = {"relu3_1": torch.ones(1, 8, 6, 6)}
    loss = sampling_correctness_loss(ones, ones, [torch.randn(1, 2, 6, 6)], [2])
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_flows_of_another_size_are_brought_to_the_features_unscaled():
    features = {"relu3_1": torch.rand(1, 8, 6, 6)}
    small = torch.randn(1, 2, 3, 3)
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    losses = [sampling_correctness_loss(features, features, [f], [2]) for f in (small, large)]
    torch.testing.assert_close(*losses)


def test_features_get_no_gradient_from_the_correctness_loss():
    target = torch.rand(1, 8, 6, 6, requires_grad=True)
    source = torch.rand(1, 8, 6, 6, requires_grad=True)
    flow = torch.randn(1, 2, 6, 6, requires_grad=True)
    sampling_correctness_loss({"relu2_1": target}, {"relu2_1": source}, [flow], [1]).backward()
    assert target.grad is None
    assert source.grad is None
    assert flow.grad is not None


def test_the_colour_wheel_shows_direction_as_hue_and_length_as_saturation():
    angle = torch.tensor([0.0, 0.5, 1.0, 1.5]) * math.pi
    flow = 2 * torch.stack((angle.cos(), angle.sin())).view(1, 2, 1, 4)
    colours = flow_to_picture(flow)[0, :, 0].T
    assert len({tuple(c.round(decimals=3).tolist()) for c in colours}) == 4
    torch.testing.assert_close(colours[0], torch.tensor([1.0, -1.0, -1.0]))  # right: red
    half = flow_to_picture(flow / 2, radius=2.0)[0, :, 0].T
    torch.testing.assert_close(half, (colours + 1) / 2)  # half way to white
    assert (flow_to_picture(torch.zeros(1, 2, 3, 3)) == 1).all()  # no flow: white
    assert colour_wheel().shape == (55, 3)


def test_pictures_have_the_asked_size_and_stay_in_range():
    flow = 50 * torch.randn(2, 2, 4, 4)
    for picture in (
        flow_to_picture(flow, size=(16, 16)),
        flow_to_picture(flow, radius=5.0, size=(16, 16)),
        mask_to_picture(torch.rand(2, 1, 4, 4), size=(16, 16)),
    ):
        assert picture.shape == (2, 3, 16, 16)
        assert picture.min() >= -1
        assert picture.max() <= 1


def test_warping_by_a_coarse_constant_flow_shifts_the_image():
    image = torch.rand(1, 3, 16, 16)
    flow = torch.tensor([1.0, -0.5]).view(1, 2, 1, 1).expand(1, 2, 4, 4)  # 4 and -2 image pixels
    warped = warp_image(image, flow)
    torch.testing.assert_close(warped[..., 2:, :12], image[..., :14, 4:])
