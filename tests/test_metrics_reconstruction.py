"""Reconstruction metrics against recorded values, scikit-image called directly, and arithmetic."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from util.errors import UserError
from util.metrics.pairs import score_pairs
from util.metrics.protocols import (
    PROTOCOLS,
    SSIM_GAUSSIAN,
    SSIM_GAUSSIAN_FULL,
    SSIM_SIGMA12,
    SSIM_UNIFORM7,
    SSIM_WINDOW51,
    find_protocol,
)
from util.metrics.reconstruction import l1, mae, ms_ssim, pad_to_square, psnr, ssim
from util.metrics.registry import MetricUnavailableError

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "pose_and_metrics.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def fashion(golden):
    return golden["fashion_gt"], golden["fashion_pred"]


@pytest.mark.parametrize("data", ["fashion", "market"])
def test_dptn_protocol_reproduces_the_recorded_values(golden, data):
    pair = (golden[f"{data}_gt"], golden[f"{data}_pred"])
    scores = score_pairs([pair, pair], "dptn", market=data == "market")
    assert set(scores) == {"psnr", "ssim", "ssim_256", "l1", "mae"}
    for name, value in scores.items():
        assert value == pytest.approx(float(golden[f"{data}_{name}"]), abs=1e-10)


def test_magpt_ssim_reproduces_the_recorded_value():
    with np.load(GOLDEN / "magpt_metrics.npz") as arrays:
        value = ssim(arrays["ssim_a"], arrays["ssim_b"], SSIM_UNIFORM7)
        assert value == pytest.approx(float(arrays["ssim_value"]), abs=1e-12)


# What each protocol's script passes to scikit-image, written out once more and independently.
DIRECT = {
    ("dptn", "ssim"): {"win_size": 51, "data_range": 1},
    ("dptn", "ssim_256"): {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
    ("patn", "ssim"): {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
    ("gfla", "ssim"): {"win_size": 51, "data_range": 1},
    ("gfla", "ssim_256"): {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
    ("nted_pidm", "ssim"): {
        "gaussian_weights": True,
        "sigma": 1.2,
        "use_sample_covariance": False,
    },
    ("nted_pidm", "ssim_window51"): {"win_size": 51, "data_range": 1},
    ("magpt", "ssim"): {"data_range": 255},
    ("dptn_step", "ssim"): {"win_size": 51, "data_range": 1},
    ("dptn_step", "ssim_256"): {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "data_range": 255,
    },
    ("standard", "ssim"): {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "data_range": 255,
    },
}
PADDED = {"dptn", "patn", "dptn_step"}


def test_every_ssim_of_the_protocol_table_is_checked_here():
    assert set(DIRECT) == {(p.name, name) for p in PROTOCOLS.values() for name in p.ssim}


@pytest.mark.parametrize(("protocol", "name"), DIRECT)
def test_ssim_of_every_protocol_equals_scikit_image_called_directly(fashion, protocol, name):
    gt, pred = fashion
    expected_gt, expected_pred = gt.astype(float), pred.astype(float)
    if protocol in PADDED:
        sides = ((0, 0), (40, 40), (0, 0))
        expected_gt = np.pad(expected_gt, sides, constant_values=255)
        expected_pred = np.pad(expected_pred, sides, constant_values=255)
    options = dict(DIRECT[protocol, name])
    if options.get("data_range") == 1:
        expected_gt, expected_pred = expected_gt / 255, expected_pred / 255
    options.setdefault("data_range", expected_pred.max() - expected_pred.min())
    expected = structural_similarity(expected_gt, expected_pred, channel_axis=-1, **options)
    assert score_pairs([fashion], protocol, ["ssim"])[name] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_psnr_l1_and_mae_of_every_protocol_equal_their_formulas(fashion, protocol):
    a, b = (x.astype(np.float64) / 255 for x in fashion)
    if protocol in PADDED:
        a, b = (np.pad(x, ((0, 0), (40, 40), (0, 0)), constant_values=1) for x in (a, b))
    scores = score_pairs([fashion], protocol, ["psnr", "l1", "mae"])
    assert scores["psnr"] == pytest.approx(-10 * math.log10(((a - b) ** 2).mean()), abs=1e-10)
    span = 2 if protocol == "patn" else 1  # PATN's script compares values in [-1, 1]
    assert scores["l1"] == pytest.approx(span * np.abs(a - b).mean(), abs=1e-12)
    assert scores["mae"] == pytest.approx(np.abs(a - b).sum() / (a + b).sum(), abs=1e-12)


def test_padding_adds_a_constant_to_psnr(fashion):
    scores = score_pairs([fashion], "dptn", ["psnr", "psnr_unpadded"])
    gain = 10 * math.log10(256 / 176)
    assert scores["psnr"] - scores["psnr_unpadded"] == pytest.approx(gain, abs=1e-10)


def test_unpadded_ssim_has_its_own_columns(fashion):
    scores = score_pairs([fashion], "dptn", ["ssim_unpadded"])
    assert (
        scores["ssim_unpadded"] == ssim(*fashion, SSIM_WINDOW51) == pytest.approx(0.9202, abs=5e-5)
    )
    assert scores["ssim_256_unpadded"] == ssim(*fashion, SSIM_GAUSSIAN)
    assert scores["ssim_256_unpadded"] == pytest.approx(0.7127, abs=5e-5)


def test_market_form_has_no_padding_and_another_label():
    market = find_protocol("dptn", market=True)
    assert (market.label, market.padding) == ("dptn-market", "none")
    assert "psnr_unpadded" not in market.defaults


def test_padding_splits_an_odd_difference_and_leaves_wide_images_alone():
    tall, wide = np.zeros((8, 5, 3), np.uint8), np.zeros((5, 8, 3), np.uint8)
    padded = pad_to_square(tall)
    assert padded.shape == (8, 8, 3)
    assert (padded[:, 0] == 255).all()
    assert (padded[:, 1:6] == 0).all()
    assert pad_to_square(wide) is wide


def test_equal_images_have_the_best_value_of_every_metric(fashion):
    gt, _ = fashion
    assert psnr(gt, gt) == math.inf
    assert l1(gt, gt) == mae(gt, gt) == 0
    for definition in (SSIM_WINDOW51, SSIM_GAUSSIAN, SSIM_SIGMA12, SSIM_UNIFORM7):
        assert ssim(gt, gt, definition) == pytest.approx(1, abs=1e-12)


def test_two_black_images_have_no_mae_problem():
    black = np.zeros((16, 16, 3), np.uint8)
    assert mae(black, black) == 0


def test_range_of_a_constant_prediction_leaves_ssim_undefined(fashion):
    gt, _ = fashion
    flat = np.full_like(gt, 7)
    assert math.isnan(ssim(gt, flat, SSIM_GAUSSIAN))
    assert math.isnan(ssim(gt, flat, SSIM_SIGMA12))
    assert math.isfinite(ssim(gt, flat, SSIM_GAUSSIAN_FULL))


def _reference_ms_ssim(a, b):
    """The equations of the paper once more, with torch's convolution and pooling, (3, 1, H, W)."""
    a, b = (torch.from_numpy(x.astype(np.float64)).permute(2, 0, 1)[:, None] for x in (a, b))
    taps = torch.exp(-(torch.arange(-5, 6, dtype=torch.float64) ** 2) / (2 * 1.5**2))
    kernel = torch.outer(taps, taps)[None, None] / taps.sum() ** 2
    result = torch.ones(3, dtype=torch.float64)
    for scale, weight in enumerate([0.0448, 0.2856, 0.3001, 0.2363, 0.1333]):
        ma, mb, aa, bb, ab = (F.conv2d(x, kernel) for x in (a, b, a * a, b * b, a * b))
        value = (2 * (ab - ma * mb) + 58.5225) / (aa - ma**2 + bb - mb**2 + 58.5225)
        if scale == 4:
            value = value * (2 * ma * mb + 6.5025) / (ma**2 + mb**2 + 6.5025)
        result *= value.mean((1, 2, 3)) ** weight
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return float(result.mean())


def test_ms_ssim_follows_the_equations_of_its_paper_and_is_near_torchmetrics(fashion):
    gt, pred = fashion
    assert ms_ssim(gt, pred) == pytest.approx(_reference_ms_ssim(gt, pred), abs=1e-10)
    tensors = [torch.from_numpy(x).permute(2, 0, 1)[None].double() for x in (pred, gt)]
    library = float(multiscale_structural_similarity_index_measure(*tensors, data_range=255.0))
    assert ms_ssim(gt, pred) == pytest.approx(library, abs=1e-3)  # its last border is reflected


def test_small_images_are_refused_by_name_of_the_metric():
    small = np.zeros((40, 40, 3), np.uint8)
    with pytest.raises(MetricUnavailableError, match=r"window of 51 px.*40x40"):
        score_pairs([(small, small)], metrics=["ssim"])
    with pytest.raises(MetricUnavailableError, match="176 px"):
        ms_ssim(small, small)


def test_mistakes_in_a_call_are_sentences(fashion):
    gt, pred = fashion
    with pytest.raises(UserError, match="did you mean 'ssim'"):
        score_pairs([fashion], metrics=["sim"])
    with pytest.raises(UserError, match="did you mean 'dptn'"):
        score_pairs([fashion], protocol="dptnn")
    with pytest.raises(UserError, match="no pair to score"):
        score_pairs([])
    with pytest.raises(UserError, match="must agree"):
        score_pairs([(gt, pred[:-1])])
    with pytest.raises(UserError, match="expected uint8"):
        score_pairs([(gt / 255, pred / 255)])
