"""Checkpoint files: written completely or not at all, recognised when damaged, loaded strictly.

Every file ``X.pth`` has a side file ``X.pth.sha256``. While ``X.pth`` is being replaced the side
file lists the new and the old hash, so a crash at any instant leaves a file that matches it.
Where ``X.pth`` is absent, ``X.safetensors`` is read instead.
"""

import errno
import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from util.errors import UserError
from util.files import replacing, write_atomically

SAFETENSORS = ".safetensors"
_NAMES = "names"  # metadata key: JSON list of [name, name of its tensor in the file], in order
WRAPPERS = ("module", "_orig_mod")  # what DistributedDataParallel and torch.compile add to keys
SAFE_TORCH = (2, 10)  # before it a crafted file corrupts memory, weights_only or not


def strip_prefix(state: Mapping[str, Any]) -> dict[str, Any]:
    """Remove ``module`` and ``_orig_mod``, the marks of wrappers, from anywhere in the keys."""
    return {
        ".".join(part for part in key.split(".") if part not in WRAPPERS): value
        for key, value in state.items()
    }


def state_dict_of(content: Any, origin: str) -> dict[str, torch.Tensor]:
    """The state dict that a file holds, without the marks of wrappers.

    Understood are names with tensors, alone or as the entry ``state_dict`` of a training framework.
    A UserError says what ``content`` is instead, or which tensor no network can use.
    """
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(torch.is_tensor(v) for v in content.values()):
        found = f"a {type(content).__name__}"
        if isinstance(content, Mapping):
            found = f"the entries {', '.join(map(str, list(content)[:4]))}"
        raise UserError(
            f"{origin} does not hold a state dict (names with tensors) but {found}; save only the "
            "weights: torch.save(network.state_dict(), path)"
        )
    for name, value in content.items():
        if not isinstance(name, str):
            raise UserError(f"{origin} has the key {name!r}, which is no name; expected strings")
        if fault := _fault(value):
            raise UserError(f"{origin}: {name} is {fault}; expected a dense tensor of numbers")
    return strip_prefix(content)


def _fault(value: torch.Tensor) -> str:
    """What makes a tensor useless as a weight, in words; empty for one that can be used."""
    if value.is_meta:
        return "a tensor without content (meta)"
    if value.layout != torch.strided:
        return f"a sparse tensor ({value.layout})"
    if value.is_quantized:
        return f"a quantised tensor ({value.dtype})"
    if value.is_complex():
        return f"complex ({value.dtype})"
    if value.is_floating_point() and not torch.isfinite(value).all():
        return "not finite: it holds NaN or infinity, the mark of a training that failed"
    return ""


def file_hash(path: Path) -> str:
    """sha256 of a file, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
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
    with replacing(path, durable=True) as temporary:
        _write_tensors(temporary, content)
        torch.load(temporary, map_location="cpu", weights_only=True, mmap=True)
        new = file_hash(temporary)
        # Every hash listed stays: after a crash it is unknown which of them the file has.
        known = [h for h in _known_hashes(path) if h != new]
        write_atomically(side_file(path), "\n".join([new, *known]).encode())
    sync_folder(path.parent)
    write_atomically(side_file(path), new.encode())
    return new


class _Stream(io.BufferedWriter):
    """A file for torch.save that keeps what went wrong for the caller.

    torch hides the reason of a failed write, and an exception that passes through its C++ code can
    end the process.
    """

    error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            return len(data)


def _write_tensors(path: Path, content: Any) -> None:
    """torch.save, in a thread: signal handlers raise in the main thread only.

    One of them reports a loader process that was killed, and would raise in the middle of a write.
    """

    def write() -> None:
        # The file exists, and is not made anew: an interrupted main thread may have removed it
        # while this one was being started.
        with _Stream(open(path, "r+b", buffering=0)) as stream:
            torch.save(content, stream)
            if stream.error is not None:
                raise stream.error

    with ThreadPoolExecutor(1) as pool:
        pool.submit(write).result()


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
    side = side_file(path)
    try:
        return side.read_text("ascii").split() if side.exists() else []
    except (OSError, ValueError):
        return ["unreadable"]  # matches nothing


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


def check_torch(path: Path) -> None:
    """A UserError when this PyTorch must not load ``path`` (CVE-2025-32434, CVE-2026-24747)."""
    if tuple(int(n) for n in re.findall(r"\d+", torch.__version__)[:2]) < SAFE_TORCH:
        raise UserError(
            f"{path} is not loaded: PyTorch {torch.__version__} can be attacked by a crafted "
            f"checkpoint; install torch {'.'.join(map(str, SAFE_TORCH))} or newer "
            "(pip install -r requirements.txt)"
        )


def load(path: Path) -> Any:
    """Load tensors and plain values, nothing else; damage is a UserError naming the file."""
    path = find_file(Path(path))
    if path.suffix == SAFETENSORS:
        return read_safetensors(path)
    if not is_intact(path):
        raise UserError(
            f"{path} is damaged: its content does not match {side_file(path).name}{_found(path)}"
        )
    check_torch(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A file of another kind fails with the code of some byte, "105".
        text = str(error).partition("\n")[0].partition(". ")[0]
        foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
        if foreign:
            raise UserError(
                f"{path} holds Python objects ({foreign[1]}) beside its tensors, and those are not "
                "loaded; where it can be trusted, save only the weights: "
                "torch.save(network.state_dict(), path)"
            ) from error
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


def save_state(state: Mapping[str, torch.Tensor], path: Path) -> str:
    """Save a state dict in the published format, as bare CPU tensors; returns the sha256."""
    return save(path, {k: v.detach().cpu() for k, v in strip_prefix(state).items()})


def load_network(network: torch.nn.Module, path: Path) -> None:
    """Load a state-dict file strictly; see :func:`load_state`."""
    load_state(network, load(path), str(path))


def load_state(network: torch.nn.Module, state: Mapping[str, torch.Tensor], origin: str) -> None:
    """Copy a state dict into ``network``, strictly.

    Wrapper prefixes and published spellings are understood, then every key and shape must agree; a
    :class:`UserError` names what is missing, unexpected or misshapen. Tolerated because the
    published files differ so: a leading ``transformer.`` for ``PTM.``; only one of two names of a
    tensor that is registered twice; no ``weight_v`` beside ``weight_u``.
    """
    own, state = network.state_dict(), state_dict_of(state, origin)
    state = {re.sub(r"^transformer\.", "PTM.", key): value for key, value in state.items()}
    _complete_aliases(own, state)
    _complete_spectral(network, own, state)
    problems = _mismatches(own, state)
    if problems:
        raise UserError(
            f"{origin} does not fit {type(network).__name__}: keys {'; '.join(problems)}; check "
            "--model and the architecture options"
        )
    network.load_state_dict({k: state[k] for k in own}, strict=True)


def _mismatches(own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> list[str]:
    """What of ``state`` does not fit ``own``: number and first names of each kind of problem."""
    both = [k for k in own if k in state]
    problems = {
        "missing": [k for k in own if k not in state],
        "unexpected": [k for k in state if k not in own],
        "of another shape": [
            f"{k} is {tuple(state[k].shape)}, expected {tuple(own[k].shape)}"
            for k in both
            if state[k].shape != own[k].shape
        ],
        "of another kind": [
            f"{k} is {state[k].dtype}, expected {own[k].dtype}"
            for k in both
            if state[k].is_floating_point() != own[k].is_floating_point()
        ],
    }
    return [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for what, keys in problems.items()
        if keys
    ]


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


def _complete_spectral(
    network: torch.nn.Module, own: Mapping[str, torch.Tensor], state: dict[str, torch.Tensor]
) -> None:
    """Recompute ``weight_v`` (absent before torch 1.1), drop the stale ``weight`` of old files."""
    for key in own:
        base = key.removesuffix("weight_v")
        if base == key or f"{base}weight_orig" not in state:
            continue
        state.pop(f"{base}weight", None)
        u, weight = state.get(f"{base}weight_u"), state[f"{base}weight_orig"]
        if key in state or u is None or weight.dim() < 2:
            continue
        matrix = spectral_matrix(network.get_submodule(base.removesuffix(".")), weight)
        if u.shape == matrix.shape[:1] and u.dtype == weight.dtype:
            state[key] = torch.nn.functional.normalize(matrix.t() @ u, dim=0, eps=1e-12)


def spectral_matrix(module: torch.nn.Module, weight: torch.Tensor) -> torch.Tensor:
    """The matrix (outputs, rest) whose singular values spectral norm sees; a transposed convolution
    has its outputs in the second dimension."""
    transposed = isinstance(module, torch.nn.modules.conv._ConvTransposeNd)
    return (weight.transpose(0, 1) if transposed else weight).flatten(1)


# ---- safetensors ------------------------------------------------------------------------------


def write_safetensors(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a state dict, complete or not at all."""
    first: dict[tuple, str] = {}
    names: dict[str, str] = {}
    for name, value in state.items():
        place = (value.data_ptr(), value.shape, value.stride()) if value.numel() else (name,)
        names[name] = first.setdefault(place, name)
    kept = {name: state[name].detach().cpu().contiguous().clone() for name in first.values()}
    metadata = {"format": "pt", _NAMES: json.dumps(list(names.items()))}
    write_atomically(path, to_bytes(kept, metadata))  # save_file ignores the umask


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
