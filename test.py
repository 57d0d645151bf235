"""Generate every pair of the test list: python test.py --name RUN --dataroot FOLDER ..."""

from __future__ import annotations

import json
from argparse import Namespace
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path

import torch
from tqdm import tqdm

from data import create_dataset
from data.base_dataset import BaseDataset
from data.loader import create_dataloader
from models import create_model
from models.base_model import BaseModel
from options.test_options import TestOptions
from util.errors import UserError
from util.files import write_atomically
from util.run import distributed
from util.run.checkpoint import file_hash, find_file
from util.run.device import seed_everything
from util.run.main import run_main
from util.show.results import ResultWriter
from util.show.turntable import write_turntables


def describe_run(opt: Namespace, model: BaseModel, dataset: BaseDataset) -> dict:
    """Which weights make the images, from which photographs; ``run`` marks every one of them."""
    path = find_file(model.network_path("G_ema" if opt.ema else "G", opt.which_epoch))
    options = ("model", "name", "which_epoch", "dataset_mode", "phase", "load_size")
    made = {
        **{key: getattr(opt, key) for key in (*options, "save_format", "save_norm")},
        "image_size": opt.result_size, "checkpoint": path.name, "sha256": file_hash(path),
        "pairs": len(dataset), "prepared": dataset.record,
        "divisors": getattr(model, "divisors", None),  # of a model that paints in steps
    }  # fmt: skip
    run = sha256(json.dumps(made).encode()).hexdigest()[:12]
    return made | {"run": run, "date": datetime.now(timezone.utc).isoformat(timespec="seconds")}


def main() -> None:
    """Load a checkpoint, generate every pair, write the images and the result page."""
    options = TestOptions()
    opt = options.parse()
    distributed.setup(torch.device(opt.device))
    seed_everything(opt.seed, opt.deterministic)
    model = create_model(opt)
    model.load_networks(opt.which_epoch, labels=("G",))
    model.eval_mode()
    opt.result_size = opt.result_size or model.result_size
    dataset = create_dataset(opt)
    folder, run = Path(opt.results_dir), describe_run(opt, model, dataset)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if distributed.is_main():
            options.record(opt, folder)
            write_atomically(folder / "generation.json", json.dumps(run, indent=1).encode())
    except OSError as e:
        raise UserError(f"cannot write to {folder} ({e.strerror}); change --results_dir") from e

    with ResultWriter(
        folder, opt.result_size, opt.save_format, not opt.no_html, f"{opt.name}: test pairs",
        save_norm=opt.save_norm, save_steps=opt.save_steps, keypoint_frame=opt.annotation_size,
        mark=run["run"],
    ) as writer:  # fmt: skip
        loader = create_dataloader(dataset, opt)
        for batch in tqdm(loader, "generate", unit="batch", disable=not distributed.is_main()):
            writer.add(batch, model.generate(model.prepare(batch)))
    distributed.barrier()
    if distributed.is_main():
        write_turntables(folder, dataset, opt.save_format)
        page = "" if opt.no_html else f"; open {folder}/index.html"
        print(f"{len(dataset)} images in {folder}{page}")


if __name__ == "__main__":
    run_main(main, cleanup=distributed.shutdown)
