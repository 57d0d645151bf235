"""Five systems, one budget: the same people, size and number of training samples, one record each.

    python -m script.one_budget --samples 5600
    python -m script.one_budget --table docs/records/one_budget.json

Each system trains with its published losses; their weights and the learning rate are chosen for
small images and stand in SYSTEMS, below. A record is one JSON object; --table prints the records
of a file, yours among them, as the tables of BENCHMARKS.md. Interrupted, it continues.
"""

import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import numpy as np
import torch

from data import create_dataset
from data.loader import create_dataloader
from models import load_for_test
from options.parser import OUTPUT, Parser
from options.test_options import TestOptions
from script.overview import files_of
from script.quickstart import ROOT, render, run
from util.errors import UserError
from util.files import read_json, write_file
from util.image import load_image, resize_linear, save_image
from util.kinds import choice, path, positive, positive_int, several
from util.run.main import run_main
from util.show.grid import grid

PEOPLE, TEST_PEOPLE, TEST_PAIRS = 1500, 50, 250
NOISE_SEEDS = 3  # of systems that draw noise when they generate
BATCH, EPOCHS = 4, 10  # the learning rate decays in the second half of the epochs
TIMED_IMAGES = 40
ROWS, TILE = 6, (112, 77)  # of the picture: people, and (h, w) of each
SIZE = "64 32"  # (h, w) of the networks' images, at which all are compared
SHARED = (
    f"--dataset_mode fashion --load_size {SIZE} --batchSize {BATCH} --init_type orthogonal "
    f"--init_gain 1.0 --vgg_weights random --vgg_width 0.25 --niter {EPOCHS // 2} "
    f"--niter_decay {EPOCHS - EPOCHS // 2} --lr_policy lambda --nThreads 1 --gpu_ids -1"
)


SMALL = "--ngf 32 --ndf 16 --lambda_rec 100 --lambda_g 1"
DPTN = f"--model DPTN --lr 6e-4 {SMALL} --lambda_content 2 --t_s_ratio 0.8 --heatmap_sigma 2"
FLOW = "--attn_layer 2,3 --kernel_size 2=5,3=3 --heatmap_sigma 2"
GFLA_1 = f"--model poseflownet --lr 3e-4 --ngf 32 {FLOW}"
GFLA_2 = f"--model pose --lr 3e-4 {SMALL} --lambda_content 2 {FLOW}"
MAGPT = (
    "--model pose2pose --lr 1e-3 --ngf 16 --ndf 16 --lambda_l1 100 --lambda_gan 1 --lambda_per 5 "
    "--init_type normal --init_gain 0.02 --val_freq 1000000000 --val_pairs 1 --bn_in_saves"
)
STEP = (
    f"--model DPTN_step --lr 6e-4 --no_TTUR --no_spect_g {SMALL} --lambda_chroma 100 "
    "--lambda_content 0 --lambda_style 0 --lambda_face 0 --t_s_ratio 0.8 --step_backward joint "
    "--d_reuse_fakes --kp_sigma 2 --limb_sigma 1"
)


@dataclass(frozen=True)
class System:
    """How one system trains here."""

    paper: str
    stages: dict[str, float]  # options of each training, and its share of the samples
    noise: bool = False  # draws noise when it generates
    ema: float = 0.99  # of the generator; 0: the last weights are used


SYSTEMS = {
    "DPTN": System("CVPR 2022", {f"{DPTN} --netD res --lambda_affi 0": 1.0}),
    "DPTN-TA": System("TVCG 2023", {DPTN: 1.0}),
    "GFLA": System("CVPR 2020", {GFLA_1: 0.4, GFLA_2: 0.6}),
    "MAGPT": System("PR 2023", {MAGPT: 1.0}, ema=0),  # an average has no batch statistics
    "DPTN_step": System("2023", {STEP: 1.0}, noise=True),
}


def build_parser() -> Parser:
    """The command line of this script."""
    parser = Parser(__doc__)
    add = parser.option
    add("--samples", positive_int, 5600, "training samples of each system")
    add("--cpu_minutes", positive, None, "instead: CPU minutes of training for each system")
    add("--systems", several(choice(SYSTEMS)), list(SYSTEMS), "which")
    folder = "checkpoints, results, records and the picture; another folder, another run"
    add(OUTPUT, path, Path("results/one_budget"), folder, "out")
    table = "print the records of this file and end"
    add("--table", path, None, table, metavar="RECORDS")
    return parser


# ---- one system --------------------------------------------------------------------------------


def load(name: str, budget: str, samples: int, out: Path) -> dict[str, Any]:
    """The record of an interrupted run in ``out``, or a new one; one of other settings is refused.

    ``budget``: in words, for the table.
    """
    system, options = SYSTEMS[name], []
    for words, share in system.stages.items():
        steps = max(1, int(samples * share) // (EPOCHS * BATCH))
        options.append(f"{words} --max_dataset_size {steps * BATCH}")
    settings = f"{SHARED} --ema {system.ema}"
    plan = {"system": name, "paper": system.paper, "budget": budget, "settings": settings}
    plan |= {"options": options}
    path = out / f"{name}.json"
    if not path.is_file():
        return {**plan, "stages": [], "scores": []}
    record = read_json(path, "delete it and the checkpoints beside it to start anew")
    for key, value in plan.items():
        if not isinstance(record, dict) or record.get(key) != value:
            raise UserError(
                f"{path} belongs to a run with another {key}; continue that one with its own "
                "options, or give another folder as -o"
            )
    return record


def save(record: dict[str, Any], out: Path) -> None:
    """Write a record to its file."""
    out.mkdir(parents=True, exist_ok=True)
    write_file(out / f"{record['system']}.json", json.dumps(record, indent=1).encode())


def folders(record: dict[str, Any], out: Path) -> list[Path]:
    """The trainings of a system; the last one has its name."""
    name, last = record["system"], len(record["options"])
    names = [f"{name}_stage_{number}" for number in range(1, last)]
    return [out / "checkpoints" / each for each in (*names, name)]


def timed(title: str, command: str) -> float:
    """Run one command of the project on one thread; returns its CPU seconds."""
    before = os.times()
    run(title, command, threads=1)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])  # user and system, of children


def where(folder: Path) -> str:
    """The options that name a run's folder."""
    return f"--name {folder.name} --checkpoints_dir {shlex.quote(str(folder.parent))}"


def seen(folder: Path, pairs: int) -> int | None:
    """Training samples of the checkpoint that an interrupted training goes on from, if any."""
    if not (folder / "latest_state.pth").is_file():
        return None
    position = folder / "iter.txt"
    epoch, samples = map(int, position.read_text().split()) if position.is_file() else (1, 0)
    return (epoch - 1) * pairs + samples


def train(record: dict[str, Any], data: Path, out: Path) -> None:
    """All stages that are not done; a stage takes the flow estimator of the one before.

    CPU seconds of an interrupted training are those of its last part, in proportion.
    """
    start = ""
    for index, folder in enumerate(folders(record, out)):
        if index >= len(record["stages"]):
            options = record["options"][index]
            pairs = int(options.split()[-1])
            total, done = EPOCHS * pairs, seen(folder, pairs)
            seconds = timed(
                f"Training {record['system']}, stage {index + 1} of {len(record['options'])}",
                f"train.py {where(folder)} --dataroot {data} {record['settings']} {options} "
                f"--save_latest_freq {2 * pairs} --save_epoch_freq {EPOCHS} --display_freq "
                f"{5 * pairs} --no_tensorboard --print_freq {max(BATCH, pairs // 2)} "
                f"{start if done is None else '--continue_train'}",
            )
            if done is not None and done < total:
                seconds *= total / (total - done)
            record["stages"].append({"samples": total, "cpu_seconds": round(seconds, 1)})
            save(record, out)
        start = f"--flow_checkpoint {shlex.quote(str(folder))}/latest_net_G.pth"


def measure(record: dict[str, Any], data: Path, out: Path) -> None:
    """Generate the test pairs and score them, the latter once for each seed of the noise."""
    name, system = record["system"], SYSTEMS[record["system"]]
    test = f"{where(folders(record, out)[-1])} --dataroot {data} --gpu_ids -1 --ema {system.ema}"
    for seed in range(len(record["scores"]), NOISE_SEEDS if system.noise else 1):
        results = out / (f"{name}_seed_{seed}" if seed else name)
        words = f"{test} --results_dir {shlex.quote(str(results))} --seed {seed}"
        if seed == 0:
            timed(f"Generating with {name}", f"test.py {words}")
        compare = f"-m script.baselines {words} --result_size {SIZE}"
        timed("Against copying and a different person", compare)
        scores = json.loads((results / "baselines.json").read_text())
        record["scores"].append({"seed": seed, **scores})
        save(record, out)
    if "cpu_seconds_an_image" not in record:
        record |= cost(f"{test} --how_many {TIMED_IMAGES}")
        save(record, out)


def cost(test: str) -> dict[str, Any]:
    """Parameters of the generator, and its CPU seconds an image on one thread, one by one."""
    torch.set_num_threads(1)
    opt = TestOptions().parse(shlex.split(test))
    model = load_for_test(opt)
    inputs = [model.prepare(batch) for batch in create_dataloader(create_dataset(opt), opt)]
    model.generate(inputs[0])
    started = time.process_time()
    for each in inputs:
        model.generate(each)
    seconds = (time.process_time() - started) / sum(len(x["source_image"]) for x in inputs)
    parameters = sum(p.numel() for p in model.networks["G"].parameters())
    return {"parameters": parameters, "cpu_seconds_an_image": round(seconds, 4)}


# ---- all systems -------------------------------------------------------------------------------


def samples_of(record: dict[str, Any]) -> int:
    """Training samples of all stages."""
    return sum(stage["samples"] for stage in record["stages"])


def seconds_a_sample(record: dict[str, Any]) -> float:
    """CPU seconds of a training sample."""
    return sum(s["cpu_seconds"] for s in record["stages"]) / samples_of(record)


def row(record: dict[str, Any]) -> str:
    """One line of a table: means over the seeds of the noise, with their standard deviation."""

    def scores(metric: str, minus: str | None = None) -> list[float]:
        return [s["generated"][metric] - (s[minus][metric] if minus else 0) for s in scored]

    scored = record["scores"]
    psnr, ssim = scores("psnr"), scores("ssim")
    scatter = f" ± {statistics.stdev(psnr):.2f}" if len(psnr) > 1 else ""
    gains = [statistics.mean(scores("psnr", view)) for view in ("copy", "wrong source")]
    each = seconds_a_sample(record)
    return (
        f"| {record['system']} | {samples_of(record):,} | {each * samples_of(record) / 60:.1f} "
        f"| {statistics.mean(psnr):.2f}{scatter} | {statistics.mean(ssim):.3f} "
        f"| {gains[0]:+.2f} | {gains[1]:+.2f} | {record['parameters'] / 1e6:.2f} M "
        f"| {1000 * each:.0f} | {1000 * record['cpu_seconds_an_image']:.0f} |"
    )


def table(records: Sequence[dict[str, Any]]) -> str:
    """The records as Markdown, one table for each budget."""
    head = (
        "| system | training samples | CPU minutes | PSNR, dB | SSIM | over copying, dB "
        "| over another person, dB | parameters of G | CPU ms a training sample | CPU ms an image |"
    )
    tables: dict[str, list[str]] = {}
    for record in records:
        tables.setdefault(record["budget"], [head, "|---" * 10 + "|"]).append(row(record))
    return "\n\n".join("\n".join([f"**{b}**", "", *lines]) for b, lines in tables.items())


def picture(out: Path, systems: Sequence[str]) -> np.ndarray:
    """People that no system has seen: source, pose, what each system makes of them, and truth."""
    first, *others = [out / name for name in systems]
    results = sorted(first.glob("*_vis.png"))
    rows = []
    for i in np.linspace(0, len(results) - 1, ROWS).astype(int):
        files = files_of(first, results[i], False, others)
        rows.append([resize_linear(np.asarray(load_image(f)), TILE) for f in files.values()])
    return grid(rows, ["source", "pose", *systems, "truth"])


def table_of(path: Path) -> str:
    """The tables of a file of records."""
    remedy = "expected the records that this command writes, see BENCHMARKS.md"
    records = read_json(path, remedy)
    try:
        return table(records)
    except (TypeError, KeyError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{path} holds no records ({error!r}); {remedy}") from error


def samples_for(minutes: float, out: Path, system: str) -> int:
    """Training samples that take so many CPU minutes, by the record at equal samples."""
    path = out / f"{system}.json"
    record = read_json(path, "run without --cpu_minutes first") if path.is_file() else {}
    if "cpu_seconds_an_image" not in record:  # the last thing that is measured
        raise UserError(
            f"{path} does not tell how long a training sample of {system} takes; run without "
            "--cpu_minutes first"
        )
    return int(60 * minutes / seconds_a_sample(record))


def finished(out: Path) -> list[dict[str, Any]]:
    """The finished records of both budgets, in the order of SYSTEMS."""
    paths = [f / f"{name}.json" for f in (out, out / "equal_minutes") for name in SYSTEMS]
    records = [json.loads(p.read_text()) for p in paths if p.is_file()]
    return [record for record in records if "cpu_seconds_an_image" in record]


def main() -> None:
    """Train, generate and measure every system, or print a table of records."""
    opt = build_parser().parse()
    if opt.table is not None:
        print(table_of(opt.table))
        return
    os.chdir(ROOT)
    data, out = Path(f"dataset/synthetic_{PEOPLE}"), opt.out
    render(data, PEOPLE, TEST_PEOPLE, TEST_PAIRS)
    for name in opt.systems:
        folder, samples, budget = out, opt.samples, f"{opt.samples:,} training samples each"
        if opt.cpu_minutes:
            folder, samples = out / "equal_minutes", samples_for(opt.cpu_minutes, out, name)
            budget = f"{opt.cpu_minutes:g} CPU minutes each"
        record = load(name, budget, samples, folder)
        train(record, data, folder)
        measure(record, data, folder)
    records = finished(out)
    write_file(out / "records.json", json.dumps(records, indent=1).encode())
    systems = [name for name in SYSTEMS if (out / name).is_dir()]
    save_image(out / "one_budget.png", picture(out, systems))
    print(f"\n{table(records)}\n\n{out / 'records.json'}\n{out / 'one_budget.png'}")


if __name__ == "__main__":
    run_main(main)
