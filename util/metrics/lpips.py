"""LPIPS (Zhang et al., CVPR 2018) by the ``lpips`` package, with backbone weights from a file."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from util.metrics.folder import ImagePair
from util.metrics.keypoints import target_mask
from util.metrics.measure import Score, Task, batches, measure_all
from util.metrics.protocols import LPIPS, Protocol, kept
from util.metrics.registry import Column, MetricUnavailableError, register_metric
from util.metrics.weights import WeightStore
from util.run.device import exact_arithmetic

SMALLEST = 32  # the last layers of the backbones have no pixel left below this
ArrayPair = tuple[np.ndarray, np.ndarray]


def build_lpips(definition: LPIPS, store: WeightStore, device: str = "cpu") -> torch.nn.Module:
    """The package's network with its own linear heads and the backbone from ``store``.

    The global random state is left as it was: measuring during training changes nothing.
    """
    import lpips  # slow to import: torchvision's models

    state = store.load(definition.net)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package calls torchvision by its older names
        network = lpips.LPIPS(
            net=definition.net, version=definition.version, pnet_rand=True, verbose=False
        )
    own = network.net.state_dict()
    # "slice2.3.weight" of the package is "features.3.weight" of torchvision.
    wanted = {key: f"features.{key.split('.', 1)[1]}" for key in own}
    missing = [name for key, name in wanted.items() if _shape(state, name) != own[key].shape]
    if missing:
        raise MetricUnavailableError(
            f"the weight file of LPIPS's {definition.net} backbone lacks {len(missing)} of "
            f"{len(own)} tensors or has them in other shapes ({missing[0]} first); use the "
            "published file."
        )
    network.net.load_state_dict({key: state[name] for key, name in wanted.items()})
    return network.eval().requires_grad_(False).to(device)


def _shape(state: dict[str, torch.Tensor], name: str) -> torch.Size | None:
    return state[name].shape if name in state else None


@torch.no_grad()
def lpips_distances(
    network: torch.nn.Module,
    gt: torch.Tensor,
    pred: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> np.ndarray:
    """Distances (B,) of uint8 images (B, H, W, 3); ``mask`` (B, H, W) blanks both to grey (0)."""
    if min(gt.shape[1:3]) < SMALLEST:
        raise MetricUnavailableError(
            f"LPIPS needs images of {SMALLEST} px or more on each side, found {gt.shape[1]}x"
            f"{gt.shape[2]} (height x width)."
        )
    device = next(network.parameters()).device
    pair = [x.to(device).permute(0, 3, 1, 2).float() / 127.5 - 1 for x in (gt, pred)]
    if mask is not None:
        pair = [image * mask.to(device)[:, None] for image in pair]
    with exact_arithmetic(device):
        return network(*pair).flatten().double().cpu().numpy()


def of_arrays(
    definition: LPIPS, store: WeightStore, device: str
) -> Callable[[Sequence[ArrayPair]], np.ndarray]:
    """A function of pairs (gt, pred) of uint8 arrays of one size that gives their distances."""
    network = build_lpips(definition, store, device)

    def distances(pairs: Sequence[ArrayPair]) -> np.ndarray:
        gt, pred = (torch.from_numpy(np.stack(side)) for side in zip(*pairs, strict=True))
        return lpips_distances(network, gt, pred)

    return distances


def score_lpips(task: Task) -> list[Score]:
    """LPIPS of every pair, one network after the other."""
    scores = []
    for column in task.columns:
        try:
            scores.append(_score_column(task, column))
        except MetricUnavailableError as error:
            task.not_computed(column, error)
    return scores


def _score_column(task: Task, column: Column) -> Score:
    definition: LPIPS = column.settings
    network = build_lpips(definition, task.evaluation.weights, task.settings.device)
    pairs, settings = task.evaluation.pairs, task.settings
    read = partial(_read_pair, task, column.masked)
    stream = batches(pairs, read, settings.batch_size, settings.workers, task.name(column))
    values = measure_all(stream, partial(lpips_distances, network), len(pairs))
    return task.per_image_score(column, values, used=kept(len(pairs), definition))


def _read_pair(task: Task, masked: bool, pair: ImagePair) -> tuple[np.ndarray, ...]:
    reader = task.network_reader
    gt, pred = reader.read_reference(pair.gt), reader.read_result(pair.result)
    if not masked:
        return gt, pred
    return gt, pred, target_mask(task.settings.keypoints, pair.key, gt.shape[:2])


def _describe(definition: LPIPS, masked: bool) -> str:
    words = f"LPIPS, {definition.net} backbone, linear heads v{definition.version}, unpadded"
    if masked:
        words += ", background set to grey by the body mask"
    if definition.remainder == "drop" and definition.batch > 1:
        words += f", last partial batch of {definition.batch} dropped"
    return words


def _column(name: str, definition: LPIPS, masked: bool = False) -> Column:
    words = _describe(definition, masked)
    return Column(
        name, words, definition, higher_is_better=False, scorer=score_lpips, masked=masked
    )


@register_metric("lpips")
def _lpips(protocol: Protocol) -> list[Column]:
    return [_column(name, definition) for name, definition in protocol.lpips.items()]


@register_metric("mask_lpips")
def _mask_lpips(protocol: Protocol) -> list[Column]:
    definition = replace(
        next(iter(protocol.lpips.values())), batch=64, remainder=protocol.fid.remainder
    )
    return [_column("mask_lpips", definition, masked=True)]


def _explicit(definition: LPIPS, protocol: Protocol) -> list[Column]:
    return [_column(f"lpips_{definition.net}_v{definition.version}", definition)]


for _net in ("alex", "vgg", "squeeze"):
    for _version in ("0.0", "0.1"):
        register_metric(f"lpips_{_net}_v{_version}")(partial(_explicit, LPIPS(_net, _version)))
