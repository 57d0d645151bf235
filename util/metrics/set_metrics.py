"""The contract between the pass over a set of images and the metrics of whole sets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from util.metrics.protocols import Inception

if TYPE_CHECKING:
    from util.metrics.inception import InceptionFeatures


class Collector(ABC):
    """Takes features in the order of the sorted images and keeps something of constant size.

    ``identity`` names what is kept (for the cache of real sets); ``count`` is the number of images
    that entered it.
    """

    identity: str
    count: int = 0

    @abstractmethod
    def add(self, features: torch.Tensor, network: InceptionFeatures) -> None:
        """Take the pool features (B, 2048) of the next images."""

    def state(self) -> dict[str, np.ndarray]:
        """Arrays from which :meth:`restore` continues; empty when this is not worth caching."""
        return {}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take over what :meth:`state` gave."""
        raise NotImplementedError


class SetMetric(ABC):
    """A metric of a set of images, perhaps against a real set, on features of one network."""

    network: Inception
    needs_real: ClassVar[bool] = True

    def problem(self, count: int) -> str | None:
        """Why ``count`` images cannot be measured, or None."""
        return None

    @abstractmethod
    def collector(self, count: int) -> Collector:
        """An empty collector for a set of ``count`` images."""

    @abstractmethod
    def result(
        self, fake: Collector, real: Collector | None
    ) -> tuple[float, float | None, dict[str, object]]:
        """Value, standard deviation (of splits or subsets; None without) and details."""
