"""Multi-scale SSIM (Wang, Simoncelli and Bovik 2003).

Our own code because torchmetrics averages the luminance of the last scale over reflected borders,
which the paper does not have; the windows are scikit-image's (sigma 1.5, 11 taps).
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from util.metrics.reconstruction import check_pair, register_forms, size_of
from util.metrics.registry import MetricUnavailableError

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
