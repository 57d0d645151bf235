"""Reconstruction metrics: functions of two uint8 images (H, W, 3), ground truth first, to a float.

Sums are exact or in float64; the definitions are scikit-image's, which the tests compare with.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from util.errors import UserError
from util.metrics.protocols import SSIM, Protocol
from util.metrics.registry import Column, MetricUnavailableError, register_metric

WHITE = 255


def pad_to_square(image: np.ndarray) -> np.ndarray:
    """Add white columns left and right until the width equals the height.

    256x176 becomes 256x256 with 40 columns on each side, as in the PATN and DPTN scripts; images
    that are at least as wide as high come back unchanged.
    """
    missing = image.shape[0] - image.shape[1]
    if missing <= 0:
        return image
    left = missing // 2
    return np.pad(image, ((0, 0), (left, missing - left), (0, 0)), constant_values=WHITE)


def psnr(gt: np.ndarray, pred: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels; infinite for equal images."""
    check_pair(gt, pred)
    squares = cv2.norm(gt, pred, cv2.NORM_L2SQR)  # whole numbers: exact
    return float("inf") if squares == 0 else float(10 * np.log10(255**2 * gt.size / squares))


def l1(gt: np.ndarray, pred: np.ndarray, value_range: int = 1) -> float:
    """Mean absolute difference of values in a range of this length: 1 for [0, 1], 2 for [-1, 1]."""
    check_pair(gt, pred)
    return float(cv2.norm(gt, pred, cv2.NORM_L1) / gt.size / 255 * value_range)


def mae(gt: np.ndarray, pred: np.ndarray) -> float:
    """Sum of |a - b| over the sum of a + b: the field's "MAE", a ratio; 0 for two black images."""
    check_pair(gt, pred)
    total = gt.sum(dtype=np.int64) + pred.sum(dtype=np.int64)
    return float(cv2.norm(gt, pred, cv2.NORM_L1) / max(total, 1))


def ssim(gt: np.ndarray, pred: np.ndarray, definition: SSIM) -> float:
    """SSIM of one definition: the map cropped by half a window, averaged, mean over channels.

    NaN where the definition has no value: a constant prediction under ``data_range="prediction"``.
    Raises MetricUnavailableError for images smaller than the window.
    """
    check_pair(gt, pred)
    window = window_of(definition)
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
    samples = window**2
    factor = samples / (samples - 1) if definition.sample_covariance else 1.0
    blur = partial(_window_mean, taps=_taps(definition, window))
    structure, luminance = _terms(gt.astype(float), pred.astype(float), blur, data_range, factor)
    return float((structure * luminance).mean())


def window_of(definition: SSIM) -> int:
    """Pixels of the window; scikit-image truncates a Gaussian at 3.5 sigma (1.5: 11, 1.2: 9)."""
    gaussian = definition.kernel == "gaussian"
    return 2 * int(3.5 * definition.size + 0.5) + 1 if gaussian else int(definition.size)


def _taps(definition: SSIM, window: int) -> np.ndarray | int:
    """Weights of a Gaussian window along one axis, or the length of a uniform one."""
    if definition.kernel == "uniform":
        return window
    places = np.arange(window) - window // 2
    weights = np.exp(-0.5 * places**2 / definition.size**2)
    return weights / weights.sum()


def _window_mean(image: np.ndarray, taps: np.ndarray | int) -> np.ndarray:
    """Means of (H, W, 3) float64 over every window that lies inside the image."""
    if isinstance(taps, int):
        window, blurred = taps, cv2.blur(image, (taps, taps))
    else:
        window, blurred = len(taps), cv2.sepFilter2D(image, -1, taps, taps)
    border = window // 2
    return blurred[border : image.shape[0] - border, border : image.shape[1] - border]


def _terms(
    a: np.ndarray,
    b: np.ndarray,
    blur: Callable[[np.ndarray], np.ndarray],
    data_range: float = 255.0,
    factor: float = 1.0,  # of variances and covariance, where they are those of a sample
) -> tuple[np.ndarray, np.ndarray]:
    """Contrast-structure and luminance maps of two images (H, W, 3) float64."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_a, mean_b = blur(a), blur(b)
    products, squares = mean_a * mean_b, mean_a**2 + mean_b**2
    covariance = (blur(a * b) - products) * factor
    variances = (blur(a * a + b * b) - squares) * factor
    return (2 * covariance + c2) / (variances + c2), (2 * products + c1) / (squares + c1)


SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_SCALE = SSIM("gaussian", 1.5, sample_covariance=False)
SMALLEST = window_of(_SCALE) * 2 ** (len(SCALE_WEIGHTS) - 1)  # the last scale holds one window


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
    blur = partial(_window_mean, taps=_taps(_SCALE, window_of(_SCALE)))
    product = np.ones(3)
    for scale, weight in enumerate(SCALE_WEIGHTS):
        if scale:
            a, b = _halve(a), _halve(b)
        structure, luminance = _terms(a, b, blur)
        last = scale == len(SCALE_WEIGHTS) - 1
        term = (structure * luminance if last else structure).mean((0, 1))
        product *= np.maximum(term, 0) ** weight  # a negative term has no real root
    return float(product.mean())


def _halve(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[0] // 2, image.shape[1] // 2
    blocks = image[: 2 * height, : 2 * width].reshape(height, 2, width, 2, -1)
    return blocks.mean((1, 3))


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


# A metric of two images: the name of a column, its function and what the number is.
PairMetric = tuple[str, Callable[[np.ndarray, np.ndarray], float], str]


def register_forms(
    name: str, metrics: Callable[[Protocol], list[PairMetric]], higher_is_better: bool
) -> None:
    """Register metrics of two images in their three forms: three names, never one column.

    ``name`` is as the protocol says, padded or not; ``name_unpadded`` never is; ``mask_name`` sees
    images whose background is blanked by the body mask.
    """

    def register(pattern: str, words: str, pad: bool = False, masked: bool = False) -> None:
        def columns(protocol: Protocol) -> list[Column]:
            padded = pad and protocol.padding == "white"
            how = ", white-padded to a square" if padded else words
            return [
                Column(
                    pattern.format(column), definition + how, function, higher_is_better,
                    padded=padded, masked=masked,
                )
                for column, function, definition in metrics(protocol)
            ]  # fmt: skip

        register_metric(pattern.format(name))(columns)

    register("{}", ", unpadded", pad=True)
    register("{}_unpadded", ", unpadded")
    register("mask_{}", ", background set to 0", masked=True)


def _l1(protocol: Protocol) -> list[PairMetric]:
    low = 1 - protocol.l1_range
    function = partial(l1, value_range=protocol.l1_range)
    return [("l1", function, f"mean |a - b| of values in [{low}, 1]")]


def _ssim(protocol: Protocol) -> list[PairMetric]:
    return [
        (name, partial(ssim, definition=definition), describe_ssim(definition))
        for name, definition in protocol.ssim.items()
    ]


register_forms("psnr", lambda protocol: [("psnr", psnr, "PSNR in dB, mean over images")], True)
register_forms("l1", _l1, False)
register_forms("mae", lambda protocol: [("mae", mae, "sum of |a - b| over sum of (a + b)")], False)
register_forms("ssim", _ssim, True)
register_forms(
    "ms_ssim", lambda protocol: [("ms_ssim", ms_ssim, "MS-SSIM, five scales, data range 255")], True
)
