"""The weights that this repository ships, made in a given time (see script/train_showcase.sh).

    python -m script.showcase --minutes 150

Renders synthetic people, measures how long a training sample takes here, lays two trainings (half
size, then full size, each with its learning-rate schedule) into the budget, trains DPTN-TA with a
moving average, and writes the averaged generator in half precision with a model card. The plan is
written down before the training starts: run the command again after an interruption and it ends in
the same schedule. With --start_from FOLDER, published weights of full size are trained further: the
first training is left out, and the card counts what went into them.
"""

import json
import os
import shutil
import sys
import time
from argparse import Namespace
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import torch

from models import create_model
from options.parser import Parser
from options.train_options import TrainOptions
from script.quickstart import ROOT, SHIPPED, Training, compare, planned, render, run, train
from util.errors import UserError
from util.files import write_file
from util.kinds import REQUIRED, choice, folder_name, number, path
from util.run import checkpoint
from util.run.main import run_main

PEOPLE, PEOPLE_PER_MINUTE = 3000, 40  # a short rehearsal renders fewer than PEOPLE
TEST_PEOPLE, TEST_PAIRS, OTHER_SEED = 50, 250, 1000
STAGES = {"half_size": 0.33, "full_size": 0.57}  # and their shares of the budget
RUNS = Path("checkpoints")
TRAININGS = {
    "cpu": (
        Training((64, 48), 2.0, "--ngf 32 --ndf 16"),
        Training((128, 88), 3.0, "--ngf 32 --ndf 16", lambda_g=2.0),
    ),
    "cuda": (
        Training((128, 88), 3.0, "--ngf 64 --ndf 32 --precision bf16", 16, 4e-4, gpu=True),
        Training((256, 176), 6.0, "--ngf 64 --ndf 32 --precision bf16", 16, 4e-4, 2.0, gpu=True),
    ),
}


def build_parser() -> Parser:
    """The command line of this script."""
    parser = Parser(__doc__)
    add = parser.option
    add("--minutes", number(2), REQUIRED, "time for everything, from 2 on")
    add("--name", folder_name, "synthetic_people", "folder under checkpoints/ that is made")
    add("--device", choice(sorted(TRAININGS)), None, "default: a GPU if there is one")
    add("--start_from", path, None, "train these published weights further", metavar="FOLDER")
    return parser


def check_budget(opt: Namespace) -> dict[str, float]:
    """Refuse to continue a run of another budget; returns the training pairs and hours that went
    into the weights before it."""
    file = RUNS / f"{opt.name}_budget.json"
    budget = {"minutes": opt.minutes, "device": opt.device, "start_from": str(opt.start_from or "")}
    if file.is_file():
        saved = {"start_from": "", **json.loads(file.read_text())}
        if {name: saved[name] for name in budget} != budget:
            raise UserError(
                f"{file} belongs to a run of {saved['minutes']:g} minutes on {saved['device']}, "
                f"started from {saved['start_from'] or 'nothing'}: give the same --minutes, "
                "--device and --start_from to continue it, another --name, or delete it to start "
                "anew"
            )
        return saved.get("before", {"samples": 0, "hours": 0.0})
    before = {"samples": 0, "hours": 0.0}
    if opt.start_from is not None:
        numbers = opt.start_from / "numbers.json"
        if not numbers.is_file():
            raise UserError(
                f"{numbers} does not exist: --start_from expects a folder that this command "
                f"published, such as checkpoints/{SHIPPED}"
            )
        before = json.loads(numbers.read_text())["training"]
    RUNS.mkdir(exist_ok=True)
    write_file(file, json.dumps({**budget, "before": before}).encode())
    return before


def train_stage(opt: Namespace, index: int, data: Path) -> Training:
    """Run or continue one stage; the second starts from the averaged generator of the first."""
    stage = list(STAGES)[index]
    share = sum(STAGES.values()) if opt.start_from else STAGES[stage]
    name, folder = f"{opt.name}_{stage}", RUNS / f"{opt.name}_{stage}"
    plan = RUNS / f"{name}_plan.json"
    training = planned(plan, TRAININGS[opt.device][index], share * opt.minutes, data)
    if index and not any(folder.glob("latest_*.pth")):
        folder.mkdir(parents=True, exist_ok=True)
        if opt.start_from:
            start_from(opt.start_from, folder, training.arguments(name, data))
        else:
            before = RUNS / f"{opt.name}_half_size"
            shutil.copy(before / "latest_net_G_ema.pth", folder / "latest_net_G.pth")
            shutil.copy(before / "latest_net_D.pth", folder / "latest_net_D.pth")
    height, width = training.size
    started = time.monotonic()
    try:
        train(f"Training DPTN-TA at {height} x {width}", name, training, data)
    finally:  # the time of an interrupted training counts, too
        file = RUNS / f"{opt.name}_seconds.json"
        spent = json.loads(file.read_text()) if file.is_file() else {}
        spent[stage] = spent.get(stage, 0.0) + time.monotonic() - started
        write_file(file, json.dumps(spent).encode())
    return training


def start_from(published: Path, folder: Path, arguments: str) -> None:
    """Write networks to continue from: the published generator, and a new discriminator, since
    that of the earlier run is not published."""
    state = checkpoint.load(published / "latest_net_G.safetensors")
    discriminator = create_model(TrainOptions().parse(arguments.split())).networks["D"]
    checkpoint.save(folder / "latest_net_D.pth", discriminator.state_dict())
    checkpoint.save(folder / "latest_net_G.pth", {k: v.float() for k, v in state.items()})


def publish(name: str) -> Path:
    """The averaged generator in half precision, with what test.py needs to rebuild it."""
    run_dir, folder = RUNS / f"{name}_full_size", RUNS / name
    state = checkpoint.load(run_dir / "latest_net_G_ema.pth")
    halved = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.write_safetensors(halved, folder / "latest_net_G.safetensors")
    options, networks = (
        json.loads((run_dir / file).read_text()) for file in ("train_opt.json", "architecture.json")
    )
    options |= {"name": name, "ema": 0.0, "continue_train": False}
    for file, content in (("train_opt.json", options), ("architecture.json", {"G": networks["G"]})):
        write_file(folder / file, json.dumps(content, indent=1, sort_keys=True).encode())
    return folder


CARD = """# Synthetic people: DPTN-TA

A generator of DPTN-TA (Zhang et al., TVCG 2023), trained by this repository on people that this
repository renders. Licence: MIT, like the code; no data or weights of others went into it.

| | |
|---|---|
| made by | `{command}` |
| data | {people:,} people x 5 poses by `script.make_synthetic_dataset`, renderer seed 0 |
| training | {samples:,} pairs in {hours:.2f} hours on {device} ({threads}) |{further}
| size | {size} pixels, after a training at half that size |
| losses | all of DPTN-TA, on a centred random VGG-19 of a quarter of the width |
| weights | moving average (0.999) of the generator, float16, {megabytes:.1f} MB |

{mine[pairs]} pairs of people it has never seen, compared at {size} pixels:

| | PSNR | SSIM |
|---|---|---|
| generated | {mine[psnr]:.2f} | {mine[ssim]:.3f} |
| over copying the source photo | {copy[psnr]:+.2f} dB | {copy[ssim]:+.3f} |
| over a different person's photo | {swap[psnr]:+.2f} dB | {swap[ssim]:+.3f} |
| people of renderer seed {seed}, generated | {other[psnr]:.2f} | {other[ssim]:.3f} |

It knows drawn people only: on photographs its pictures are wrong.
"""


def card(
    opt: Namespace, before: dict, spent: dict, last: Training, people: int, tables: list[dict]
) -> str:
    """The model card, with the numbers of this run; pairs and hours ``before`` it and in all."""
    table, other = tables
    start = f" --start_from {opt.start_from}" if opt.start_from else ""
    further = (
        f"\n| of these | {before['samples']:,} pairs in {before['hours']:.2f} hours by an earlier "
        "run of the command |"
    )
    threads = last.processes * last.threads
    over = {
        view: {key: table["generated"][key] - table[view][key] for key in ("psnr", "ssim")}
        for view in ("copy", "wrong source")
    }
    return CARD.format(
        command=f"./script/train_showcase.sh --minutes {opt.minutes:g}{start}",
        further=further if opt.start_from else "",
        people=people,
        **spent,
        device="a GPU" if opt.device == "cuda" else "a CPU",
        threads=f"{threads} thread{'s' * (threads > 1)}",
        size="{} x {}".format(*last.size),
        megabytes=(RUNS / opt.name / "latest_net_G.safetensors").stat().st_size / 1e6,
        mine=table["generated"],
        copy=over["copy"],
        swap=over["wrong source"],
        seed=OTHER_SEED,
        other=other["generated"],
    )


def main() -> None:
    """Run or continue all steps."""
    opt = build_parser().parse()
    os.chdir(ROOT)
    opt.device = opt.device or ("cuda" if torch.cuda.is_available() else "cpu")
    before = check_budget(opt)
    people = min(PEOPLE, int(PEOPLE_PER_MINUTE * opt.minutes))
    data, others = Path(f"dataset/synthetic_{people}"), Path("dataset/synthetic_other_seed")
    render(data, people, TEST_PEOPLE, TEST_PAIRS)
    render(others, 2, TEST_PEOPLE, TEST_PAIRS, seed=OTHER_SEED)
    stages = [train_stage(opt, index, data) for index in range(bool(opt.start_from), 2)]
    seconds = json.loads((RUNS / f"{opt.name}_seconds.json").read_text())
    spent = {
        "samples": before["samples"] + sum(stage.samples for stage in stages),
        "hours": before["hours"] + sum(seconds.values()) / 3600,
    }
    folder = publish(opt.name)
    results, size = Path("results") / opt.name, "{} {}".format(*stages[-1].size)
    words = f"--name {opt.name} --batchSize 8 --gpu_ids {'0' if opt.device == 'cuda' else '-1'}"
    tables = [compare(words, root, results / root.name, size) for root in (data, others)]
    text = card(opt, before, spent, stages[-1], people, tables)
    write_file(folder / "README.md", text.encode())
    numbers = json.dumps({"training": spent, "tables": tables}, indent=1)
    write_file(folder / "numbers.json", numbers.encode())
    picture = Path("results") / f"{opt.name}.png"
    run("One picture", f"-m script.overview --results {results / data.name} -o {picture}")
    print(f"\nDone: {folder} (read its README.md), pictures in {picture}")


if __name__ == "__main__":
    run_main(main)
