"""Checkpoint files: written completely or not at all, recognised when damaged, loaded strictly.

Every file ``X.pth`` has a side file ``X.pth.sha256``. While ``X.pth`` is being replaced the side
file lists the new and the old hash, so a crash at any instant leaves a file that matches it.
Where ``X.pth`` is absent, ``X.safetensors`` is read instead.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from util.errors import UserError
from util.files import replacing, write_atomically

SAFETENSORS = ".safetensors"
_NAMES = "names"  # metadata key: JSON list of [name, name of its tensor in the file], in order


def write_safetensors(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Write a state dict, complete or not at all."""
    path = Path(path)
    first: dict[tuple, str] = {}
    names: dict[str, str] = {}
    for name, value in state.items():
        place = (value.data_ptr(), value.shape, value.stride()) if value.numel() else (name,)
        names[name] = first.setdefault(place, name)
    kept = {name: state[name].detach().cpu().contiguous().clone() for name in first.values()}
    with replacing(path, durable=True) as temporary:
        metadata = {"format": "pt", _NAMES: json.dumps(list(names.items()))}
        save_file(kept, temporary, metadata)


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a file, second names included; damage is a UserError naming the file."""
    try:
        with safe_open(path, framework="pt", device="cpu") as stream:
            state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
            names = json.loads((stream.metadata() or {}).get(_NAMES, "null"))
        return state if names is None else {str(name): state[kept] for name, kept in names}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not a readable safetensors file ({error}); replace it or export it again"
        ) from error


_PREFIXES = ("module.", "_orig_mod.")


def strip_prefix(state: Mapping[str, Any]) -> dict[str, Any]:
    """Remove ``module.`` and ``_orig_mod.``, the marks of wrappers, from state-dict keys."""
    out = {}
    for key, value in state.items():
        while key.startswith(_PREFIXES):
            key = key.split(".", 1)[1]
        out[key] = value
    return out


def file_hash(path: Path) -> str:
    """sha256 of a file, in hex."""
    with open(path, "rb") as stream:
        return (
            hashlib.file_digest(stream, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else _chunked_hash(stream)
        )


def _chunked_hash(stream) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def side_file(path: Path) -> Path:
    """Where the hashes of a checkpoint are kept."""
    return path.with_name(path.name + ".sha256")


def save(path: Path, content: Any) -> str:
    """Save tensors and plain values atomically and verified; returns the sha256.

    Whatever the disk refuses is an OSError; the older file is then untouched.
    """
    path = Path(path)
    with replacing(path) as temporary:
        _write_tensors(temporary, content)
        torch.load(temporary, map_location="cpu", weights_only=True, mmap=True)
        new = file_hash(temporary)
        # Every hash listed stays: after a crash it is unknown which of them the file has.
        known = [h for h in _known_hashes(path) if h != new]
        write_atomically(side_file(path), "\n".join([new, *known]).encode())
    sync_folder(path.parent)
    write_atomically(side_file(path), new.encode())
    return new


def _write_tensors(path: Path, content: Any) -> None:
    try:
        with open(path, "wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
    except RuntimeError as error:  # torch reports a failed write so, and hides the reason
        reason = error.__context__
        if isinstance(reason, OSError) or not isinstance(reason, Exception | None):
            raise reason from None  # the disk refused, or Ctrl-C
        if "write" in str(error) or "inline_container" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` survive a power failure, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot
            raise
    finally:
        os.close(handle)


def _known_hashes(path: Path) -> list[str]:
    """Hashes that a file may have; empty for files that came without a side file."""
    return side_file(path).read_text().split() if side_file(path).exists() else []


def is_intact(path: Path) -> bool:
    """Whether the content of a checkpoint file matches its side file (true without one)."""
    known = _known_hashes(path)
    return not known or file_hash(path) in known


def find_file(path: Path) -> Path:
    """``path`` or the safetensors file in its place; a UserError says what there is instead."""
    if path.is_file():
        return path
    if path.with_suffix(SAFETENSORS).is_file():
        return path.with_suffix(SAFETENSORS)
    raise UserError(f"no checkpoint {path}{_found(path)}")


def load(path: Path) -> Any:
    """Load tensors and plain values, nothing else; damage is a UserError naming the file."""
    path = find_file(Path(path))
    if path.suffix == SAFETENSORS:
        return read_safetensors(path)
    if not is_intact(path):
        raise UserError(
            f"{path} is damaged: its content does not match {side_file(path).name}{_found(path)}"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A file of another kind fails with the code of some byte, "105".
        text = str(error).partition("\n")[0].partition(". ")[0]
        reason = text if " " in text else "it is no PyTorch file"
        raise UserError(
            f"{path} is not a readable checkpoint of tensors and plain values ({reason})"
            f"{_found(path)}"
        ) from error


def _found(path: Path) -> str:
    """The other checkpoints beside ``path``, newest first, as a clause for an error message."""
    kind = path.name.partition("_")[2]
    if not kind.startswith(("net", "state")):  # somebody's weight file, not an epoch of a run
        return ": replace the file" if path.is_file() else ""
    if not path.parent.is_dir():
        return f"; the folder {path.parent} does not exist: check --checkpoints_dir and --name"
    others = sorted(
        (p for p in path.parent.glob(f"*_{kind}") if p != path and not p.name.startswith(".")),
        key=lambda p: p.stat().st_mtime_ns,
        reverse=True,
    )
    good = [p.name.partition("_")[0] for p in others[:8] if is_intact(p)]
    if not good:
        return f"; {path.parent} holds no other good *_{kind}: check --name and --which_epoch"
    rest = f" (older: {', '.join(good[1:])})" if good[1:] else ""
    return f"; the newest good one is --which_epoch {good[0]}{rest}"


def save_network(network: torch.nn.Module, path: Path) -> str:
    """Save a bare CPU state dict in the published format; returns the sha256."""
    return save_state(network.state_dict(), path)


def save_state(state: Mapping[str, torch.Tensor], path: Path) -> str:
    """Save a state dict as bare CPU tensors without wrapper prefixes; returns the sha256."""
    return save(path, {k: v.detach().cpu() for k, v in strip_prefix(state).items()})


def load_network(network: torch.nn.Module, path: Path) -> None:
    """Load a state-dict file strictly; see :func:`load_state`."""
    state = load(path)
    if not isinstance(state, Mapping) or not all(torch.is_tensor(v) for v in state.values()):
        raise UserError(f"{path} does not hold a state dict (names with tensors)")
    load_state(network, state, str(path))


def load_state(network: torch.nn.Module, state: Mapping[str, torch.Tensor], origin: str) -> None:
    """Copy a state dict into ``network``, strictly.

    Wrapper prefixes and published spellings are understood, then every key and shape must agree; a
    :class:`UserError` names what is missing, unexpected or misshapen. Tolerated because the
    published files differ so: a leading ``transformer.`` for ``PTM.``; only one of two names of a
    tensor that is registered twice; no ``weight_v`` beside ``weight_u``.
    """
    state = strip_prefix(state)
    own = network.state_dict()
    state = {
        f"PTM.{key.removeprefix('transformer.')}" if key.startswith("transformer.") else key: value
        for key, value in state.items()
    }
    _complete_aliases(own, state)
    _complete_spectral(own, state)
    missing = [k for k in own if k not in state]
    unexpected = [k for k in state if k not in own]
    misshapen = [
        f"{k} is {tuple(state[k].shape)}, expected {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    problems = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for what, keys in (
            ("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen)
        )
        if keys
    ]  # fmt: skip
    if problems:
        raise UserError(
            f"{origin} does not fit {type(network).__name__}: keys {'; '.join(problems)}; check "
            "--model and the architecture options"
        )
    network.load_state_dict({k: state[k] for k in own}, strict=True)


def _complete_aliases(own: Mapping[str, torch.Tensor], state: dict[str, torch.Tensor]) -> None:
    """Give a tensor that the module registers twice its second name, if the file has only one."""
    names: dict[tuple, list[str]] = {}
    for key, value in own.items():
        names.setdefault((value.data_ptr(), value.shape), []).append(key)
    for group in names.values():
        given = [key for key in group if key in state]
        if len(group) > 1 and given and own[group[0]].numel():
            for key in group:
                state.setdefault(key, state[given[-1]])


def _complete_spectral(own: Mapping[str, torch.Tensor], state: dict[str, torch.Tensor]) -> None:
    """Recompute ``weight_v`` (absent before torch 1.1), drop the stale ``weight`` of old files."""
    for key in own:
        base = key.removesuffix("weight_v")
        if base == key or f"{base}weight_orig" not in state:
            continue
        state.pop(f"{base}weight", None)
        if key not in state and f"{base}weight_u" in state:
            weight, u = state[f"{base}weight_orig"], state[f"{base}weight_u"]
            matrix = weight if weight.shape[0] == len(u) else weight.transpose(0, 1)
            state[key] = torch.nn.functional.normalize(
                matrix.reshape(len(u), -1).t() @ u, dim=0, eps=1e-12
            )
