"""Synthetic people, DPTN-TA, test images, numbers and pages in one go; started by
script/quickstart.sh.

Every step is an ordinary command of this project and is printed before it runs.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from util.errors import UserError
from util.run.main import run_main

ROOT = Path(__file__).resolve().parent.parent
# Small networks and images, an initialisation with gain 1 and a heavier L1 loss learn in minutes;
# the published defaults are meant for a week on real data. bf16 takes effect on a GPU, and for
# VGG-19 on a processor that gains from it.
COMMON = (
    "--vgg_weights random --init_gain 1.0 --lr 3e-4 --lambda_rec 100 --lambda_g 1 "
    "--precision bf16 --batchSize 8"
)


@dataclass(frozen=True)
class Recipe:
    """Sizes of one quick start."""

    name: str
    people: int
    epochs: int  # the learning rate decays in the second half
    pairs: int  # training pairs an epoch
    train: str  # further options of train.py


RECIPES = {
    "quick": Recipe("quickstart", 400, 7, 736, "--load_size 64 32 --ngf 32 --ndf 16"),
    "long": Recipe("quickstart_long", 1000, 12, 12000, "--load_size 128 64 --ngf 48 --ndf 32"),
}


def run(title: str, command: str) -> None:
    """Print and run one command of the project; its failure ends the quick start."""
    print(f"\n== {title}\n$ python {command}", flush=True)
    status = subprocess.call([sys.executable, "-u", *shlex.split(command)], cwd=ROOT)
    if status:
        raise UserError(
            f"the step '{title}' ended with status {status}; see its message above and run "
            "./script/quickstart.sh again: it continues where it stopped"
        )


def train_command(recipe: Recipe, dataroot: str) -> str:
    """The training command; it resumes a run that was interrupted."""
    state = ROOT / "checkpoints" / recipe.name / "latest_state.pth"
    resume = " --continue_train" if state.is_file() else ""
    constant = max(1, recipe.epochs // 2)
    return (
        f"train.py --name {recipe.name} --model DPTN --dataset_mode fashion --dataroot {dataroot} "
        f"{recipe.train} {COMMON} --niter {constant} --niter_decay {recipe.epochs - constant} "
        f"--max_dataset_size {recipe.pairs} --print_freq 400 --display_freq 1600 "
        f"--save_latest_freq 1600 --save_epoch_freq 3{resume}"
    )


def report(folder: Path, minutes: float, recipe: Recipe) -> None:
    """What was reached and what to try next."""
    table = json.loads((folder / "baselines.json").read_text())
    mine = table["generated"]
    print(f"\nDone in {minutes:.1f} minutes on {torch.get_num_threads()} threads, ", end="")
    print("with a GPU." if torch.cuda.is_available() else "without a GPU.")
    print(f"On {mine['pairs']} pairs of people the model has never seen:")
    for view in ("copy", "wrong source"):
        psnr, ssim = (mine[k] - table[view][k] for k in ("psnr", "ssim"))
        words = {"copy": "copying the source photo", "wrong source": "a different person's photo"}
        print(f"  {psnr:+.2f} dB PSNR and {ssim:+.3f} SSIM against {words[view]}")
    print(f"""
Look at
  {folder}/overview.png                    some pairs at a glance
  {folder}/index.html                      every generated image beside its ground truth
  checkpoints/{recipe.name}/web/index.html   the pictures and curves of the training
  dataset/synthetic_{recipe.people}/contact_sheet.png   the people
Try next
  ./script/quickstart.sh --long            a longer run: larger images, better people
  python train.py --help                   all options; README.md has the published commands
  python script/check_dataset.py DATAROOT  is your own data set ready?""")


def main() -> None:
    """Run all steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--long", action="store_true", help="a longer, better run")
    parser.add_argument("--debug", action="store_true", help="full tracebacks")
    options = parser.parse_args()
    recipe = RECIPES["long" if options.long else "quick"]
    start = time.monotonic()
    data = f"dataset/synthetic_{recipe.people}"
    folder = f"results/{recipe.name}"
    test = f"--name {recipe.name} --dataroot {data} --results_dir {folder} --batchSize 8"
    run(
        f"Rendering {recipe.people} people",
        f"-m script.make_synthetic_dataset --out {data} --layout fashion --identities "
        f"{recipe.people} "
        f"--test_identities 50 --poses 5 --test_pairs 250 --seed 0 --contact_sheet",
    )
    run("Training DPTN-TA with all its losses", train_command(recipe, data))
    run("Generating people it has never seen", f"test.py {test}")
    run(
        "Measuring",
        f"-m script.metrics --gt_path {data}/test --distorated_path {folder} --name {recipe.name} "
        "--metrics psnr ssim psnr_unpadded ssim_unpadded l1 mae",
    )
    run("Is the source photo really used?", f"-m script.baselines {test}")
    run("One picture of it", f"-m script.overview --results {folder} -o {folder}/overview.png")
    report(Path(folder), (time.monotonic() - start) / 60, recipe)


if __name__ == "__main__":
    run_main(main)
