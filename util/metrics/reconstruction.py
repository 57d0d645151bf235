"""Reconstruction metrics: functions of two uint8 images (H, W, 3), ground truth first, to a float.

Everything is computed in float64 by scikit-image where it has the definition; the names say which
published variant is meant.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from util.errors import UserError
from util.metrics.protocols import (
    SSIM,
    SSIM_GAUSSIAN,
    SSIM_GAUSSIAN_FULL,
    SSIM_SIGMA12,
    SSIM_UNIFORM7,
    SSIM_WINDOW51,
    Protocol,
)
from util.metrics.registry import Column, MetricUnavailableError, register_metric

WHITE = 255


def pad_to_square(image: np.ndarray, value: int = WHITE) -> np.ndarray:
    """Add white columns left and right until the width equals the height.

    256x176 becomes 256x256 with 40 columns on each side, as in the PATN and DPTN scripts; images
    that are at least as wide as high come back unchanged.
    """
    missing = image.shape[0] - image.shape[1]
    if missing <= 0:
        return image
    left = missing // 2
    return np.pad(image, ((0, 0), (left, missing - left), (0, 0)), constant_values=value)


def psnr(gt: np.ndarray, pred: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels; infinite for equal images."""
    check_pair(gt, pred)
    if np.array_equal(gt, pred):
        return float("inf")
    return float(peak_signal_noise_ratio(gt, pred, data_range=255))


def l1(gt: np.ndarray, pred: np.ndarray) -> float:
    """Mean absolute difference of values in [0, 1]."""
    check_pair(gt, pred)
    return float(np.abs(gt.astype(np.int16) - pred).mean() / 255)


def mae(gt: np.ndarray, pred: np.ndarray) -> float:
    """Sum of |a - b| over the sum of a + b: the field's "MAE", a ratio; 0 for two black images."""
    check_pair(gt, pred)
    total = gt.sum(dtype=np.int64) + pred.sum(dtype=np.int64)
    return float(np.abs(gt.astype(np.int16) - pred).sum(dtype=np.int64) / max(total, 1))


def ssim(gt: np.ndarray, pred: np.ndarray, definition: SSIM) -> float:
    """SSIM of one definition: the map cropped by half a window, averaged, mean over channels.

    NaN where the definition has no value: a constant prediction under ``data_range="prediction"``.
    Raises MetricUnavailableError for images smaller than the window.
    """
    check_pair(gt, pred)
    gaussian = definition.kernel == "gaussian"
    # scikit-image truncates a Gaussian at 3.5 sigma: 11 taps for sigma 1.5, 9 for 1.2.
    window = 2 * int(3.5 * definition.size + 0.5) + 1 if gaussian else int(definition.size)
    if min(gt.shape[:2]) < window:
        raise MetricUnavailableError(
            f"SSIM with a window of {window} px is not defined for images of {size_of(gt)}; "
            "larger images are needed."
        )
    data_range = 255.0
    if definition.data_range == "prediction":
        data_range = float(pred.max()) - float(pred.min())
        if data_range == 0:
            return float("nan")
    kernel = {"gaussian_weights": True, "sigma": definition.size} if gaussian else {}
    value = structural_similarity(
        gt.astype(np.float64),
        pred.astype(np.float64),
        win_size=None if gaussian else window,
        use_sample_covariance=definition.sample_covariance,
        data_range=data_range,
        channel_axis=-1,
        **kernel,
    )
    return float(value)


def ssim_window51(gt: np.ndarray, pred: np.ndarray) -> float:
    """``ssim`` of the DPTN and GFLA scripts: uniform window of 51 px, sample covariance."""
    return ssim(gt, pred, SSIM_WINDOW51)


def ssim_gaussian(gt: np.ndarray, pred: np.ndarray, full_range: bool = False) -> float:
    """``ssim_256`` of the DPTN and GFLA scripts: Gaussian of sigma 1.5, population covariance.

    The data range is that of the prediction or, with ``full_range``, 255 (Wang et al. 2004).
    """
    return ssim(gt, pred, SSIM_GAUSSIAN_FULL if full_range else SSIM_GAUSSIAN)


def ssim_sigma12(gt: np.ndarray, pred: np.ndarray) -> float:
    """SSIM of PIDM and PCDMs: Gaussian of sigma 1.2, data range of the prediction."""
    return ssim(gt, pred, SSIM_SIGMA12)


def ssim_uniform7(gt: np.ndarray, pred: np.ndarray) -> float:
    """SSIM of MAGPT: scikit-image's defaults, uniform window of 7 px, sample covariance."""
    return ssim(gt, pred, SSIM_UNIFORM7)


def size_of(image: np.ndarray) -> str:
    """Height and width of an image in words."""
    return f"{image.shape[0]}x{image.shape[1]} px (height x width)"


def check_pair(gt: np.ndarray, pred: np.ndarray) -> None:
    """Raise UserError unless both are uint8 (H, W, 3) of one size."""
    for image in (gt, pred):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UserError(
                f"a metric got an array of {image.dtype} with shape {image.shape}; expected uint8 "
                "of shape (height, width, 3)."
            )
    if gt.shape != pred.shape:
        raise UserError(
            f"the target has {size_of(gt)} and the result {size_of(pred)}; they must agree."
        )


def describe_ssim(definition: SSIM) -> str:
    """One SSIM definition in words, for the report."""
    size = f"sigma {definition.size:g}" if definition.kernel == "gaussian" else definition.size
    covariance = "sample" if definition.sample_covariance else "population"
    span = "255" if definition.data_range == "full" else "max - min of the result"
    return f"SSIM, {definition.kernel} window {size}, {covariance} covariance, data range {span}"


# Every metric of two images comes three times: as the protocol says (padded or not), never padded,
# and on images whose background is blanked by the body mask. Three names, never one column.
FORMS = (("{}", True, False), ("{}_unpadded", False, False), ("mask_{}", False, True))
_HOW = {(True, False): ", white-padded to a square", (False, True): ", background set to 0"}
PairFunction = Callable[[np.ndarray, np.ndarray], float]


def register_forms(
    name: str, function: PairFunction, definition: str, higher_is_better: bool
) -> None:
    """Register ``function(gt, pred)`` as ``name``, ``name_unpadded`` and ``mask_name``."""
    for form in FORMS:
        register_metric(form[0].format(name))(
            partial(_one_column, form, name, function, definition, higher_is_better)
        )


def _one_column(form, name, function, definition, higher_is_better, protocol) -> list[Column]:
    return [_column(protocol, form, name, function, definition, higher_is_better)]


def _ssim_columns(form, protocol: Protocol) -> list[Column]:
    return [
        _column(protocol, form, name, partial(ssim, definition=d), describe_ssim(d), True)
        for name, d in protocol.ssim.items()
    ]


def _column(protocol, form, name, function, definition, higher_is_better) -> Column:
    pattern, pad, masked = form
    padded = pad and protocol.padding == "white"
    return Column(
        name=pattern.format(name),
        definition=definition + _HOW.get((padded, masked), ", unpadded"),
        settings=function,
        higher_is_better=higher_is_better,
        padded=padded,
        masked=masked,
    )


register_forms("psnr", psnr, "PSNR in dB, mean over images", higher_is_better=True)
register_forms("l1", l1, "mean |a - b| of values in [0, 1]", higher_is_better=False)
register_forms("mae", mae, "sum of |a - b| over sum of (a + b)", higher_is_better=False)
for _form in FORMS:
    register_metric(_form[0].format("ssim"))(partial(_ssim_columns, _form))


WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
BORDER = 5  # half of the 11-tap window
SMALLEST = (2 * BORDER + 1) * 2 ** (len(WEIGHTS) - 1)  # the last scale still holds one window
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ms_ssim(gt: np.ndarray, pred: np.ndarray) -> float:
    """MS-SSIM of two uint8 images (H, W, 3): product over five scales, then mean over channels.

    Data range 255, population covariance, only windows inside the image, 2x2 means between scales.
    Raises MetricUnavailableError when a side is shorter than 176 px.
    """
    check_pair(gt, pred)
    if min(gt.shape[:2]) < SMALLEST:
        raise MetricUnavailableError(
            f"MS-SSIM has five scales and needs {SMALLEST} px or more on each side, not "
            f"{size_of(gt)}; larger images are needed."
        )
    a, b = gt.astype(np.float64), pred.astype(np.float64)
    product = np.ones(3)
    for scale, weight in enumerate(WEIGHTS):
        if scale:
            a, b = _halve(a), _halve(b)
        structure, luminance = _terms(a, b)
        last = scale == len(WEIGHTS) - 1
        term = (structure * luminance if last else structure).mean((0, 1))
        product *= np.maximum(term, 0) ** weight  # a negative term has no real root
    return float(product.mean())


def _terms(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Contrast-structure and luminance maps, cropped to windows inside the image."""
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    structure = (2 * covariance + C2) / (var_a + var_b + C2)
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return structure, luminance


def _blur(image: np.ndarray) -> np.ndarray:
    blurred = gaussian_filter(image, (1.5, 1.5, 0), truncate=3.5)
    return blurred[BORDER:-BORDER, BORDER:-BORDER]


def _halve(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[0] // 2, image.shape[1] // 2
    blocks = image[: 2 * height, : 2 * width].reshape(height, 2, width, 2, -1)
    return blocks.mean((1, 3))


register_forms("ms_ssim", ms_ssim, "MS-SSIM, five scales, data range 255", higher_is_better=True)
