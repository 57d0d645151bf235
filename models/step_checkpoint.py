"""Checkpoints of the step system: files of the published code, and warm starts from DPTN.

Published files are ``<epoch>_net.pth`` with {netG, netD, optG, optD}, before August 2023
``<epoch>_net_G.pth`` and ``<epoch>_net_D.pth``. All hold a 1.3 GB table of positional maps, which
are a closed form here.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from models.optim import Stepper
from util.errors import UserError
from util.run import checkpoint

State = dict[str, torch.Tensor]

POSITION_TABLE = "positional_encoding.pe"
STEP_HEAD = "fc_step."
FIRST_CONV = "En_c.block0.model.0.weight_orig"


def _network_state(content: object, label: str, path: Path) -> State:
    """State dict of network ``label`` ("G") from a bare state dict or a published container."""
    names = set(map(str, content)) if isinstance(content, Mapping) else set()
    if f"net{label}" in names:
        content = content[f"net{label}"]
    elif names & {"netG", "netD"}:
        raise UserError(
            f"{path} is the published container {{netG, netD, optG, optD}}, but holds no network "
            f"{label}"
        )
    state = checkpoint.state_dict_of(content, str(path))
    state.pop(POSITION_TABLE, None)
    return state


def container_path(path: Path) -> Path:
    """``latest_net_G.pth`` -> the published container beside it, ``latest_net.pth``."""
    return path.with_name(path.name.rpartition("_")[0] + ".pth")


def read_network(path: Path, label: str) -> State:
    """State dict of network ``label`` from its own file or from a published container."""
    return _network_state(checkpoint.load(path), label, path)


def load_container(networks: Mapping[str, nn.Module], stepper: Stepper, path: Path) -> None:
    """Networks and optimizers of a published container {netG, netD, optG, optD}."""
    content = checkpoint.load(path)
    for label, network in networks.items():
        checkpoint.load_state(network, _network_state(content, label, path), str(path))
        moments = content.get(f"opt{label}")
        try:
            stepper.load_moments(label, moments)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}: opt{label} does not fit the optimizer of {label} ({str(error)[:150]}); "
                "start from the networks alone with --init_from"
            ) from error


def read_initial(path: Path, label: str) -> tuple[State | None, Path]:
    """State dict for a warm start from a run folder (its latest files) or from one checkpoint file.

    ``*_net_G.pth`` stands for the ``*_net_D.pth`` beside it too; when D has no file it is None.
    """
    if path.is_dir():
        path = path / "latest_net_G.pth"
        if not path.is_file() and container_path(path).is_file():
            path = container_path(path)
    if label != "G" and path.name.endswith("_net_G.pth"):
        path = path.with_name(path.name.removesuffix("G.pth") + f"{label}.pth")
        if not path.is_file():
            return None, path
    return read_network(path, label), path


def _dptn_to_step(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> State:
    """DPTN generator weights under the names of the step generator, whose state dict is ``own``.

    The first convolution takes [image; source pose; pose] in DPTN and [image; pose; limbs] here:
    the two pose slots are added, which is what the source stream computes, and limbs start at 0.
    """
    renamed = {}
    for key, value in state.items():
        head, _, rest = key.partition(".")
        if head == "source_encoder":
            key = f"En_s.{rest}"
        elif head not in ("PTM", "transformer"):
            key = f"{'De' if head.startswith(('decoder', 'outconv')) else 'En_c'}.{key}"
        renamed[f"{key}_orig" if f"{key}_orig" in own else key] = value
    first, new = renamed.get(FIRST_CONV), own.get(FIRST_CONV)
    if first is not None and new is not None and first.shape != new.shape:
        joints = (first.shape[1] - 3) // 2
        merged = torch.zeros_like(new)
        merged[:, :3] = first[:, :3]
        merged[:, 3 : 3 + joints] = first[:, 3 : 3 + joints] + first[:, 3 + joints :]
        renamed[FIRST_CONV] = merged
    return renamed


def start_from(networks: Mapping[str, nn.Module], path: Path) -> list[str]:
    """Fill networks from a DPTN or DPTN_step run; returns what starts fresh, as sentences."""
    fresh = []
    for label, network in networks.items():
        state, origin = read_initial(path, label)
        if label == "D" and (state is None or "conv.weight_orig" not in state):
            found = "does not exist" if state is None else "is another kind of discriminator"
            fresh.append(f"{origin} {found}; D starts fresh")
            continue
        names = _warm_start(network, state, str(origin))
        if names:
            fresh.append(f"{', '.join(names)} start fresh")
    return fresh


def _warm_start(network: nn.Module, state: Mapping[str, torch.Tensor], origin: str) -> list[str]:
    """Copy ``state`` into ``network``; returns the names that keep their initial values.

    Only the step head may be absent, superfluous or of another size (another number of steps or
    image size); anything else that does not fit is a UserError.
    """
    own = network.state_dict()
    if any(key.startswith("source_encoder.") for key in state):  # the step model's is En_s
        state = _dptn_to_step(state, own)
    head = {k: v for k, v in own.items() if k.startswith(STEP_HEAD)}
    fresh = [k for k, v in head.items() if k not in state or state[k].shape != v.shape]
    given = {k: v for k, v in state.items() if not k.startswith(STEP_HEAD)}
    given |= {k: v if k in fresh else state[k] for k, v in head.items()}
    checkpoint.load_state(network, given | _missing_singular_vectors(network, given), origin)
    return fresh


def _missing_singular_vectors(network: nn.Module, given: State) -> State:
    """Leading singular vectors of spectral layers that came without their power-iteration state."""
    vectors = {}
    for name, module in network.named_modules():
        weight = given.get(f"{name}.weight_orig")
        if not hasattr(module, "weight_orig") or weight is None or f"{name}.weight_u" in given:
            continue
        if weight.shape != module.weight_orig.shape:
            continue  # load_state will say so
        matrix = checkpoint.spectral_matrix(module, weight).float()
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        vectors[f"{name}.weight_u"], vectors[f"{name}.weight_v"] = left[:, 0], right[0]
    return vectors
