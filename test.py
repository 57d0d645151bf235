"""Generate every pair of the test list: python test.py --name RUN --dataroot FOLDER ..."""

import json
from argparse import Namespace
from pathlib import Path

import util.run  # noqa: F401  # isort: skip
from torch.utils.data import Subset

from data import create_dataset
from data.base_dataset import BaseDataset
from data.loader import create_dataloader
from models import create_model
from models.base_model import BaseModel
from models.generation import FILE, describe_run, load_generator, pairs_of, pairs_to_make
from options.test_options import TestOptions
from util.errors import UserError
from util.files import write_atomically
from util.run import distributed
from util.run.device import seed_everything
from util.run.main import run_main
from util.run.progress import progress_bar
from util.show.results import ResultWriter, write_turntables


def main() -> None:
    """Load a checkpoint, generate every pair, write the images and the result page."""
    options = TestOptions()
    opt = options.parse()
    distributed.setup(opt.device)
    seed_everything(opt.seed, opt.deterministic)
    dataset, model = create_dataset(opt), create_model(opt)
    weights = load_generator(model, opt.which_epoch)
    opt.result_size = opt.result_size or model.result_size
    folder = Path(opt.results_dir)
    pairs = pairs_of(dataset)
    run = describe_run(opt, model, dataset, pairs, weights, options.parser.trained)
    left = pairs_to_make(opt, run, pairs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if distributed.is_main():
            options.record(opt, folder)
            write_atomically(folder / FILE, json.dumps(run, indent=1).encode())
    except OSError as e:
        raise UserError(f"cannot write to {folder} ({e.strerror}); change --results_dir") from e
    if left:
        generate(opt, model, dataset, left, run["run"])
    distributed.barrier()
    if distributed.is_main():
        write_turntables(folder, dataset, opt.save_format)
        dataset.complete_results(folder, opt)
        kept = f", {len(dataset) - len(left)} of them from before" if opt.resume else ""
        page = "" if opt.no_html else f"; open {folder}/index.html"
        print(f"{len(dataset)} images in {folder}{kept}{page}")


def generate(
    opt: Namespace, model: BaseModel, dataset: BaseDataset, left: list[int], mark: str
) -> None:
    """Make the images of the pairs ``left`` and the pages of all."""
    with ResultWriter(
        opt.results_dir, opt.result_size, opt.save_format, not opt.no_html,
        f"{opt.name}: test pairs", save_norm=opt.save_norm, save_steps=opt.save_steps,
        keypoint_frame=opt.annotation_size, mark=mark, pairs=pairs_of(dataset),
    ) as writer:  # fmt: skip
        loader = create_dataloader(Subset(dataset, left), opt)
        hidden = not distributed.is_main()
        for batch in progress_bar(loader, "generate", unit="batch", disable=hidden):
            writer.add(batch, model.generate(model.prepare(batch)))


if __name__ == "__main__":
    run_main(main, cleanup=distributed.shutdown)
