"""What a test run is: the weights, options and pairs that make its images, and what is made."""

import json
from argparse import Namespace
from collections.abc import Collection, Sequence
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

from models.base_model import BaseModel
from util.errors import UserError
from util.files import read_json
from util.run import distributed
from util.run.checkpoint import file_hash, find_file
from util.show.results import complete_pairs

FILE = "generation.json"
ATTEMPTS = 20  # at a checkpoint that changes while it is read
MATTER = ("seed", "precision", "tf32", "deterministic", "ema")  # besides what was trained
Pairs = Sequence[tuple[str, str]]


def load_generator(model: BaseModel, which: str) -> tuple[Path, str]:
    """Load the generator; its file, and the sha256 of the bytes that were loaded.

    A training may replace ``latest`` at any moment: what was loaded is known only when the file
    was the same before and after.
    """
    path = find_file(model.network_path("G_ema" if model.opt.ema else "G", which))
    for _ in range(ATTEMPTS):
        before = file_hash(path)
        model.load_networks(which, labels=("G",))
        if file_hash(path) == before:
            model.eval_mode()
            return path, before
    raise UserError(
        f"{path} is replaced by a training all the time; give the number of an epoch as "
        "--which_epoch"
    )


def pairs_of(dataset: Any) -> Pairs:
    """Names of source and target of every pair; read from the samples where there is no list."""
    if hasattr(dataset, "pairs"):
        return dataset.pairs
    samples = (dataset[i] for i in range(len(dataset)))
    return [(sample["source_name"], sample["target_name"]) for sample in samples]


def describe_run(
    opt: Namespace,
    model: BaseModel,
    dataset: Any,
    pairs: Pairs,
    weights: tuple[Path, str],  # file and sha256
    trained: Collection[str],  # options that belong to the trained networks
) -> dict[str, Any]:
    """What makes the images; ``run``, a hash of it, marks every one of them."""
    shown = ("model", "name", "which_epoch", "dataset_mode", "phase", "load_size")
    path, digest = weights
    made = {
        **{key: getattr(opt, key) for key in (*shown, "save_format", "save_norm")},
        "image_size": opt.result_size, "checkpoint": path.name, "sha256": digest,
        "pairs": len(pairs), "pairs_sha256": sha256(json.dumps(pairs).encode()).hexdigest(),
        "prepared": dataset.record,
        "divisors": getattr(model, "divisors", None),  # of a model that paints in steps
        "options": {k: getattr(opt, k) for k in sorted({*trained, *MATTER}) if hasattr(opt, k)},
    }  # fmt: skip
    made = json.loads(json.dumps(made))  # as it is read back
    run = sha256(json.dumps(made).encode()).hexdigest()[:12]
    return made | {"run": run, "date": datetime.now(timezone.utc).isoformat(timespec="seconds")}


def pairs_to_make(opt: Namespace, run: dict[str, Any], pairs: Pairs) -> list[int]:
    """Indices of the pairs that are not there yet: all, or with ``--resume`` those left over.

    A folder in which another run began is refused with what differs.
    """
    folder = Path(opt.results_dir)
    if not opt.resume or not (folder / FILE).is_file():
        return list(range(len(pairs)))
    earlier = read_json(folder / FILE, "leave --resume out to make all images anew")
    if not isinstance(earlier, dict) or earlier.get("run") != run["run"]:
        raise UserError(
            f"--resume: {folder} was made with {difference(earlier, run)}; give the same, leave "
            "--resume out to make all images anew, or choose another --results_dir"
        )
    done = complete_pairs(folder, pairs, opt.save_format, run["run"], not opt.no_html)
    done = set(distributed.gather(done)[0])  # the others may see what the first one makes already
    if len(done) == len(pairs) and not opt.no_html and not (folder / "index.html").is_file():
        done -= {len(pairs) - 1}  # its pictures tell what the page shows
    return [i for i in range(len(pairs)) if i not in done]


def difference(earlier: Any, run: dict[str, Any]) -> str:
    """The first thing in which two runs differ, in words."""
    earlier = earlier if isinstance(earlier, dict) else {}
    options = earlier.get("options")
    outer = {k: v for k, v in run.items() if k not in ("run", "date", "options")}
    for wanted, before in ((outer, earlier), (run.get("options", {}), options)):
        before = before if isinstance(before, dict) else {}
        for key, value in wanted.items():
            if before.get(key) != value:
                return f"{key} {str(before.get(key, 'nothing'))[:60]}, not {str(value)[:60]}"
    return "other settings"
