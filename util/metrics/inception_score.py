"""Inception score (Salimans et al., NeurIPS 2016) from running sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from util.metrics.fid import describe_network
from util.metrics.protocols import Inception, InceptionScore, Protocol
from util.metrics.registry import Column, register_metric
from util.metrics.set_metrics import Collector, SetMetric

if TYPE_CHECKING:
    from util.metrics.inception import InceptionFeatures


class SplitScores(Collector):
    """exp of the mean KL(p_i || p) of every split, from sums of p log p and of p (natural log).

    Image ``i`` of ``count`` belongs to one split only, which is known beforehand, so nothing of a
    single image has to be kept.
    """

    identity = "scores"

    def __init__(self, definition: InceptionScore, count: int):
        self.definition = definition
        self.split_of = split_assignment(count, definition)
        self.count = 0
        self.sizes = np.zeros(definition.splits)
        self.negative_entropy = np.zeros(definition.splits)
        self.probability: np.ndarray | None = None

    def add(self, features: torch.Tensor, network: InceptionFeatures) -> None:
        """Take the features of the next images."""
        self.add_logits(network.logits(features, self.definition.logits_bias))

    def add_logits(self, logits: torch.Tensor) -> None:
        """Take class logits (B, K) of the next images."""
        log_p = torch.log_softmax(logits.double(), dim=1).cpu().numpy()
        p = np.exp(log_p)
        if self.probability is None:
            self.probability = np.zeros((self.definition.splits, p.shape[1]))
        splits = self.split_of[self.count : self.count + len(p)]
        self.count += len(p)
        used = splits >= 0
        np.add.at(self.sizes, splits[used], 1)
        np.add.at(self.negative_entropy, splits[used], (p * log_p).sum(axis=1)[used])
        np.add.at(self.probability, splits[used], p[used])

    def scores(self) -> np.ndarray:
        """Inception score of every split."""
        mean = self.probability / self.sizes[:, None]
        entropy = -(mean * np.log(mean.clip(min=np.finfo(np.float64).tiny))).sum(axis=1)
        return np.exp(self.negative_entropy / self.sizes + entropy)


def split_assignment(count: int, definition: InceptionScore) -> np.ndarray:
    """Split number of every image in sorted order, -1 for the unused rest."""
    position = np.arange(count)
    if definition.shuffle_seed is not None:
        # torch-fidelity: place k of the shuffled list is taken by image permutation[k].
        permutation = np.random.RandomState(definition.shuffle_seed).permutation(count)
        position[permutation] = np.arange(count)
    splits = definition.splits
    if definition.drop_rest:
        number = position // max(1, count // splits)
        return np.where(number < splits, number, -1)
    ends = np.array([(i + 1) * count // splits for i in range(splits)])
    return np.searchsorted(ends, position, side="right")


@dataclass(frozen=True)
class InceptionScoreMetric(SetMetric):
    """Inception score of one row of the protocol table."""

    definition: InceptionScore
    needs_real: ClassVar[bool] = False

    @property
    def network(self) -> Inception:
        """The classifier."""
        return self.definition.network

    def problem(self, count: int) -> str | None:
        """Every split needs an image."""
        if count < self.definition.splits:
            return f"there are {count} images for {self.definition.splits} splits; generate more."
        return None

    def collector(self, count: int) -> SplitScores:
        """Running sums for ``count`` images."""
        return SplitScores(self.definition, count)

    def result(self, fake: SplitScores, real: None) -> tuple[float, float, dict]:
        """Mean and standard deviation over the splits."""
        scores = fake.scores()
        return float(scores.mean()), float(scores.std()), {"splits": self.definition.splits}


def _columns(protocol: Protocol, name: str, masked: bool) -> list[Column]:
    definition = protocol.inception_score
    words = (
        f"Inception score, {describe_network(definition.network)}, splits: {definition.splits}"
        f"{'' if definition.shuffle_seed is None else ', shuffled'}"
        f"{', background set to 0' if masked else ''}"
    )
    metric = InceptionScoreMetric(definition)
    return [Column(name, words, metric, True, scorer="inception", masked=masked)]


@register_metric("inception_score")
def _inception_score(protocol: Protocol) -> list[Column]:
    return _columns(protocol, "inception_score", masked=False)


@register_metric("mask_inception_score")
def _mask_inception_score(protocol: Protocol) -> list[Column]:
    return _columns(protocol, "mask_inception_score", masked=True)
