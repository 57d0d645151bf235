"""Validation during training: metrics on a fixed subset, and the best checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from util.image import resize_linear, to_uint8
from util.metrics.scoring import higher_is_better, score_pairs

Pair = tuple[np.ndarray, np.ndarray]


class Validator:
    """Scores generated images of a fixed list of pairs and remembers the best value.

    ``batches`` yields batches of the data set; ``generate`` maps a batch to ``fake_target`` (B, 3,
    H, W). ``photograph`` maps the name of a target to its file's pixels at ``size``, so that the
    numbers are those of script/metrics.py on the images of test.py; without it, or where it gives
    None, the target is the loaded image, which has been through the load size.
    """

    def __init__(
        self,
        batches: Iterable[dict[str, Any]],
        generate: Callable[[dict[str, Any]], Any],
        size: tuple[int, int],  # (h, w) the images are compared at
        metrics: tuple[str, ...] = ("psnr", "ssim"),
        best_metric: str = "psnr",
        protocol: str = "standard",
        photograph: Callable[[str], np.ndarray | None] = lambda name: None,
    ):
        self.batches, self.generate, self.size = batches, generate, tuple(size)
        self.photograph = photograph
        self.metrics, self.best_metric, self.protocol = metrics, best_metric, protocol
        self.upward = higher_is_better(best_metric, protocol)
        self.best: float | None = None

    def score(self) -> dict[str, float]:
        """Mean of each metric over all pairs."""
        return score_pairs(self._pairs(), self.protocol, self.metrics)

    def _pairs(self) -> Iterator[Pair]:
        for batch in self.batches:
            fakes = to_uint8(self.generate(batch))
            for i, fake in enumerate(fakes):
                truth = self.photograph(batch["target_name"][i])
                if truth is None:
                    truth = batch["target_image"][i].permute(1, 2, 0).contiguous().numpy()
                yield resize_linear(truth, self.size), resize_linear(fake, self.size)

    def is_best(self, scores: dict[str, float]) -> bool:
        """True when ``scores`` beat everything before; remembers the value."""
        value = scores[self.best_metric]
        if not np.isfinite(value):
            return False
        if self.best is None or (value > self.best if self.upward else value < self.best):
            self.best = value
            return True
        return False
