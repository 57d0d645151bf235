"""Reconstruction metrics: functions of two uint8 images (H, W, 3), ground truth first, to a float.

Sums are exact or in float64; the definitions are scikit-image's, which the tests compare with.
"""

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from util.errors import UserError
from util.metrics.protocols import SSIM, Protocol
from util.metrics.registry import Column, MetricUnavailableError, register_metric


def pad_to_square(image: np.ndarray) -> np.ndarray:
    """Add white columns left and right until the width equals the height.

    256x176 becomes 256x256 with 40 columns on each side, as in the PATN and DPTN scripts; images
    that are at least as wide as high come back unchanged.
    """
    missing = image.shape[0] - image.shape[1]
    if missing <= 0:
        return image
    left = missing // 2
    return np.pad(image, ((0, 0), (left, missing - left), (0, 0)), constant_values=255)


def psnr(gt: np.ndarray, pred: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels; infinite for equal images."""
    squares = cv2.norm(gt, pred, cv2.NORM_L2SQR)  # whole numbers: exact
    return float("inf") if squares == 0 else float(10 * np.log10(255**2 * gt.size / squares))


def l1(gt: np.ndarray, pred: np.ndarray, value_range: int = 1) -> float:
    """Mean absolute difference of values in a range of this length: 1 for [0, 1], 2 for [-1, 1]."""
    return float(cv2.norm(gt, pred, cv2.NORM_L1) / gt.size / 255 * value_range)


def mae(gt: np.ndarray, pred: np.ndarray) -> float:
    """Sum of |a - b| over the sum of a + b: the field's "MAE", a ratio; 0 for two black images."""
    total = gt.sum(dtype=np.int64) + pred.sum(dtype=np.int64)
    return float(cv2.norm(gt, pred, cv2.NORM_L1) / max(total, 1))


def ssim(gt: np.ndarray, pred: np.ndarray, definition: SSIM) -> float:
    """SSIM of one definition: the map cropped by half a window, averaged, mean over channels.

    NaN where the definition has no value: a constant prediction under ``data_range="prediction"``.
    Raises MetricUnavailableError for images smaller than the window.
    """
    window, means = _window(definition)
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
    factor = window**2 / (window**2 - 1) if definition.sample_covariance else 1.0
    structure, luminance = _terms(gt.astype(float), pred.astype(float), means, data_range, factor)
    return float((structure * luminance).mean())


def _window(definition: SSIM) -> tuple[int, Callable[[np.ndarray], np.ndarray]]:
    """Pixels of the window, and the means of (H, W, 3) over every window inside the image.

    scikit-image truncates a Gaussian at 3.5 sigma (1.5: 11 px, 1.2: 9 px).
    """
    if definition.kernel == "uniform":
        window = int(definition.size)
        blur = partial(cv2.blur, ksize=(window, window))
    else:
        window = 2 * int(3.5 * definition.size + 0.5) + 1
        taps = np.exp(-0.5 * (np.arange(window) - window // 2) ** 2 / definition.size**2)
        taps /= taps.sum()
        blur = partial(cv2.sepFilter2D, ddepth=-1, kernelX=taps, kernelY=taps)
    border = window // 2

    def means(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        return blur(image)[border : height - border, border : width - border]

    return window, means


def _terms(
    a: np.ndarray,
    b: np.ndarray,
    means: Callable[[np.ndarray], np.ndarray],
    data_range: float = 255.0,
    factor: float = 1.0,  # of variances and covariance, where they are those of a sample
) -> tuple[np.ndarray, np.ndarray]:
    """Contrast-structure and luminance maps of two images (H, W, 3) float64."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_a, mean_b = means(a), means(b)
    products, squares = mean_a * mean_b, mean_a**2 + mean_b**2
    covariance = (means(a * b) - products) * factor
    variances = (means(a * a + b * b) - squares) * factor
    return (2 * covariance + c2) / (variances + c2), (2 * products + c1) / (squares + c1)


SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW, _MEANS = _window(SSIM("gaussian", 1.5, sample_covariance=False))
SMALLEST = _WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1)  # the last scale holds one window


def ms_ssim(gt: np.ndarray, pred: np.ndarray) -> float:
    """MS-SSIM of two uint8 images (H, W, 3): product over five scales, then mean over channels.

    Data range 255, population covariance, only windows inside the image, 2x2 means between scales.
    Raises MetricUnavailableError when a side is shorter than 176 px.
    """
    if min(gt.shape[:2]) < SMALLEST:
        raise MetricUnavailableError(
            f"MS-SSIM has five scales and needs {SMALLEST} px or more on each side, not "
            f"{size_of(gt)}; larger images are needed."
        )
    a, b = gt.astype(np.float64), pred.astype(np.float64)
    product = np.ones(3)
    for scale, weight in enumerate(SCALE_WEIGHTS):
        if scale:
            a, b = _halve(a), _halve(b)
        structure, luminance = _terms(a, b, _MEANS)
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
    """Raise UserError unless both are uint8 (H, W, 3) of one size, as every metric expects."""
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


# A metric of two images: the name of a column, its function and what the number is.
PairMetric = tuple[str, Callable[[np.ndarray, np.ndarray], float], str]


def register_forms(
    name: str, higher_is_better: bool, metrics: Callable[[Protocol], list[PairMetric]]
) -> None:
    """Register metrics of two images in their three forms: three names, never one column.

    ``name`` is as the protocol says, padded or not; ``name_unpadded`` never is; ``mask_name`` sees
    images whose background is blanked by the body mask.
    """
    for pattern in ("{}", "{}_unpadded", "mask_{}"):
        columns = partial(_columns, pattern, higher_is_better, metrics)
        register_metric(pattern.format(name))(columns)


def _columns(
    pattern: str,
    higher_is_better: bool,
    metrics: Callable[[Protocol], list[PairMetric]],
    protocol: Protocol,
) -> list[Column]:
    masked = pattern.startswith("mask")
    padded = pattern == "{}" and protocol.padding == "white"
    how = ", background set to 0" if masked else ", unpadded"
    how = ", white-padded to a square" if padded else how
    return [
        Column(pattern.format(name), words + how, function, higher_is_better, None, padded, masked)
        for name, function, words in metrics(protocol)
    ]


def _l1(protocol: Protocol) -> list[PairMetric]:
    low = 1 - protocol.l1_range
    function = partial(l1, value_range=protocol.l1_range)
    return [("l1", function, f"mean |a - b| of values in [{low}, 1]")]


def _ssim(protocol: Protocol) -> list[PairMetric]:
    return [(name, partial(ssim, definition=d), str(d)) for name, d in protocol.ssim.items()]


register_forms("psnr", True, lambda _: [("psnr", psnr, "PSNR in dB, mean over images")])
register_forms("l1", False, _l1)
register_forms("mae", False, lambda _: [("mae", mae, "sum of |a - b| over sum of (a + b)")])
register_forms("ssim", True, _ssim)
register_forms(
    "ms_ssim", True, lambda _: [("ms_ssim", ms_ssim, "MS-SSIM, five scales, data range 255")]
)
