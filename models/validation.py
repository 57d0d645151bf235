"""Validation while training: what is measured on, by what, and which checkpoint is the best."""

from __future__ import annotations

import contextlib
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from models.base_model import BaseModel, Batch
from util.errors import UserError
from util.image import resize_linear
from util.metrics.pairs import higher_is_better, score_pairs
from util.run import distributed
from util.run.device import rng_state, set_rng_state
from util.tensors import to_uint8


class Validator:
    """Scores generated images of a fixed list of pairs.

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
        device: str | torch.device = "cpu",  # of metrics that are networks
        statistics: Callable[[], AbstractContextManager] = nullcontext,  # the model is judged in
        fresh_saves: bool = False,  # network files are written in that context, too
    ):
        self.batches, self.generate, self.size = batches, generate, tuple(size)
        self.photograph, self.device, self.statistics = photograph, device, statistics
        self.fresh_saves = fresh_saves
        self.metrics, self.best_metric, self.protocol = metrics, best_metric, protocol
        self.upward = higher_is_better(best_metric, protocol)

    def score(self) -> dict[str, float]:
        """Mean of each metric over all pairs."""
        return score_pairs(self._pairs(), self.protocol, self.metrics, device=self.device)

    def _pairs(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for batch in self.batches:
            fakes = to_uint8(self.generate(batch))
            for i, fake in enumerate(fakes):
                truth = self.photograph(batch["target_name"][i])
                if truth is None:
                    truth = batch["target_image"][i].permute(1, 2, 0).contiguous().numpy()
                yield resize_linear(truth, self.size), resize_linear(fake, self.size)

    def is_better(self, scores: Mapping[str, float], best: float | None) -> bool:
        """True when ``scores`` beat the best value so far; one that is not finite never does."""
        value = scores[self.best_metric]
        if best is None or not np.isfinite(value):
            return bool(np.isfinite(value))
        return value > best if self.upward else value < best


def create_validator(
    opt: Namespace, model: BaseModel, dataset: Any, training: Any
) -> Validator | None:
    """Scores ``--val_pairs`` pairs spread evenly over the list of ``dataset``; None without one.

    ``training``: the data set whose pictures give the statistics of batch norms.
    """
    if dataset is None:
        return None
    chosen = _spread(min(opt.val_pairs, len(dataset)), len(dataset))
    loader = DataLoader(Subset(dataset, chosen), batch_size=opt.batchSize)
    metrics = tuple(name.strip() for name in opt.val_metrics.split(",") if name.strip())
    if opt.best_metric not in metrics:
        raise UserError(
            f"--best_metric {opt.best_metric} is not among --val_metrics {opt.val_metrics}; add "
            f"it there"
        )

    def generate(batch):
        return model.generate(model.prepare(batch))["fake_target"]

    count = min(opt.bn_batches * opt.batchSize, len(training))
    rows = _spread(count, len(training))
    batches = DataLoader(Subset(training, rows), batch_size=opt.batchSize)

    return Validator(
        loader,
        generate,
        dataset.annotation_size,
        metrics,
        opt.best_metric,
        photograph=dataset.photograph,
        device=model.device,
        statistics=lambda: fresh_statistics(model, batches),
        fresh_saves=opt.bn_in_saves,
    )


def _spread(count: int, size: int) -> list[int]:
    """``count`` of ``size`` indices, evenly spread, first and last included."""
    return np.linspace(0, size - 1, count).round().astype(int).tolist()


@contextlib.contextmanager
def fresh_statistics(model: BaseModel, batches: Iterable[Batch]) -> Iterator[None]:
    """Inside the block, G's running statistics of batch norms are those of its weights as they are.

    They are cumulated over ``batches``: a running mean lags behind weights that move fast. Nothing
    is computed without a batch norm or without batches, and no random numbers are used up.
    """
    kinds = torch.nn.modules.batchnorm._BatchNorm
    norms = [m for m in model.networks["G"].modules() if isinstance(m, kinds)]
    if not norms or not len(batches):
        yield
        return
    before = [
        (n.training, n.momentum, {k: v.clone() for k, v in n.state_dict().items()}) for n in norms
    ]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative
        norm.train()
    _pass(model, batches)
    for norm, (mode, _, _) in zip(norms, before, strict=True):
        norm.train(mode)
    try:
        yield
    finally:
        for norm, (_, momentum, values) in zip(norms, before, strict=True):
            norm.load_state_dict(values)
            norm.momentum = momentum


def _pass(model: BaseModel, batches: Iterable[Batch]) -> None:
    """Forward passes of this process alone that leave inputs and random numbers as they were."""
    inputs, seen, state = model.inputs, model.seen, rng_state()
    with torch.no_grad(), distributed.alone(), model.precision.networks():
        for batch in batches:
            model.inputs = model.prepare(batch)
            model.forward()
    model.inputs, model.seen = inputs, seen
    set_rng_state(state)
