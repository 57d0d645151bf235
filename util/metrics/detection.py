"""Detection score: how sure a person detector is that the generated image shows somebody."""

from __future__ import annotations

import numpy as np
import torch

from util.metrics.folder import ImagePair
from util.metrics.measure import Score, Task, batches, measure_all
from util.metrics.protocols import Protocol
from util.metrics.registry import Column, register_metric
from util.metrics.weights import WeightStore, assign_state
from util.run.device import exact_arithmetic

PERSON = 1  # COCO label


class PersonDetector:
    """torchvision's SSD300 with MAGPT's rule: scores above 0.05, NMS at IoU 0.5, 20 detections."""

    def __init__(self, store: WeightStore, device: str = "cpu"):
        from torchvision.models.detection import ssd300_vgg16  # slow to import, seldom needed

        state = store.load("ssd300")
        with torch.random.fork_rng(devices=[]):
            network = ssd300_vgg16(
                weights=None,
                weights_backbone=None,
                num_classes=91,
                score_thresh=0.05,
                nms_thresh=0.5,
                detections_per_img=20,
            )
        self.network = assign_state(network, state, "SSD300").to(device)
        self.device = device

    @torch.no_grad()
    def scores(self, images: torch.Tensor) -> np.ndarray:
        """Highest person score (B,) of uint8 images (B, H, W, 3); 0 where nobody is found."""
        inputs = images.to(self.device).permute(0, 3, 1, 2).float() / 255
        with exact_arithmetic(inputs.device):
            found = self.network(list(inputs))
        return np.array([best_person(one["labels"], one["scores"]) for one in found])


def best_person(labels: torch.Tensor, scores: torch.Tensor) -> float:
    """Highest score among the detections (N,) of a person; 0 without one."""
    people = scores[labels == PERSON]
    return float(people.max()) if len(people) else 0.0


def score_detection(task: Task) -> list[Score]:
    """Detection score of every result."""
    (column,) = task.columns
    detector = PersonDetector(task.evaluation.weights, task.settings.device)
    settings, reader = task.settings, task.reader

    def read(pair: ImagePair) -> tuple[np.ndarray]:
        return (reader.read_result(pair.result),)

    pairs = task.evaluation.pairs
    stream = batches(pairs, read, settings.batch_size, settings.workers, task.name(column))
    return [task.per_image_score(column, measure_all(stream, detector.scores, len(pairs)))]


@register_metric("detection_score")
def _detection_score(protocol: Protocol) -> list[Column]:
    # The published tables used other detectors (MAGPT: NVIDIA's SSD300 on ResNet-50; PATN: a Keras
    # SSD300), so the network is part of the column's name.
    words = "highest person confidence of torchvision's SSD300 (VGG-16, COCO), 0 without a person"
    return [Column("detection_score_ssd300vgg16", words, None, True, scorer=score_detection)]
