"""Detection score: how sure a person detector is that the generated image shows somebody."""

from __future__ import annotations

import numpy as np
import torch
from torchvision.models.detection import ssd300_vgg16

from util.metrics.loading import batches, measure_all
from util.metrics.measurement import Score, Task, register_scorer
from util.metrics.pairing import ImagePair
from util.metrics.precision import exact_arithmetic
from util.metrics.protocols import Protocol
from util.metrics.registry import Column, MetricUnavailableError, register_metric
from util.metrics.weights import WeightStore

PERSON = 1  # COCO label


class PersonDetector:
    """torchvision's SSD300 with MAGPT's rule: scores above 0.05, NMS at IoU 0.5, 20 detections."""

    def __init__(self, store: WeightStore, device: str = "cpu"):
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
        try:
            network.load_state_dict(state, strict=True)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise MetricUnavailableError(
                f"the weight file of SSD300 does not fit the network ({reason}); use the published "
                "file."
            ) from error
        self.network = network.eval().requires_grad_(False).to(device)
        self.device = device

    @torch.no_grad()
    def scores(self, images: torch.Tensor) -> np.ndarray:
        """Highest person score (B,) of uint8 images (B, H, W, 3); 0 where nobody is found."""
        inputs = images.to(self.device).permute(0, 3, 1, 2).float() / 255
        with exact_arithmetic(inputs.device):
            found = self.network(list(inputs))
        return np.array([_best_person(one["labels"], one["scores"]) for one in found])


def _best_person(labels: torch.Tensor, scores: torch.Tensor) -> float:
    people = scores[labels == PERSON]
    return float(people.max()) if len(people) else 0.0


@register_scorer("detector")
def score_detection(task: Task) -> list[Score]:
    """Detection score of every result."""
    detector = PersonDetector(task.evaluation.weights, task.settings.device)
    settings, reader = task.settings, task.reader

    def read(pair: ImagePair) -> tuple[np.ndarray]:
        return (reader.read_result(pair.result),)

    what = task.name(task.columns[0])
    stream = batches(task.evaluation.pairs, read, settings.batch_size, settings.workers, what)
    values = measure_all(stream, detector.scores, len(task.evaluation.pairs))
    return [task.per_image_score(column, values) for column in task.columns]


@register_metric("detection_score")
def _detection_score(protocol: Protocol) -> list[Column]:
    # The published tables used other detectors (MAGPT: NVIDIA's SSD300 on ResNet-50; PATN: a Keras
    # SSD300), so the network is part of the column's name.
    words = "highest person confidence of torchvision's SSD300 (VGG-16, COCO), 0 without a person"
    return [Column("detection_score_ssd300vgg16", words, None, True, scorer="detector")]
