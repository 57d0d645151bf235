"""Five systems, one budget: the same people, size and number of training samples, one record each.

    python -m script.one_budget --samples 8000
    python -m script.one_budget --table docs/records/one_budget.json

Each system trains with its published losses; their weights and the learning rate are chosen for
small images and stand in SYSTEMS, below. A record is one JSON object; --table prints the records
of a file, yours among them, as the table of BENCHMARKS.md. Interrupted, it continues.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

from options.parser import OUTPUT, Parser, add_debug
from script.quickstart import ROOT, run
from util.errors import UserError
from util.files import write_file
from util.kinds import choice, path, positive, positive_int, several
from util.parallel import allotted_cpus
from util.run import checkpoint
from util.run.main import run_main

PEOPLE, TEST_PAIRS = 1500, 250
NOISE_SEEDS = (0, 1, 2)  # of systems that draw noise when they generate
SHARED = (
    "--dataset_mode fashion --load_size 64 64 --batchSize 4 --lr 3e-4 --init_type orthogonal "
    "--init_gain 1.0 --vgg_weights random --vgg_width 0.25 --ema 0.999 --lr_policy lambda "
    "--nThreads 1 --gpu_ids -1 --no_tensorboard"
)


@dataclass(frozen=True)
class System:
    """How one system trains here; a stage is (its share of the samples, its options)."""

    paper: str
    stages: tuple[tuple[float, str], ...]
    noise: bool = False  # draws noise when it generates


L1 = "--lambda_rec 100 --lambda_content 2"
SYSTEMS = {
    "DPTN": System(
        "CVPR 2022",
        (
            (
                1.0,
                f"--model DPTN --netD res --lambda_affi 0 {L1} --lambda_g 1 --ngf 32 --ndf 16 "
                "--heatmap_sigma 2",
            ),
        ),
    ),
    "DPTN-TA": System(
        "TVCG 2023",
        ((1.0, f"--model DPTN {L1} --lambda_g 1 --ngf 32 --ndf 16 --heatmap_sigma 2"),),
    ),
    "GFLA": System(
        "CVPR 2020",
        (
            (0.4, "--model poseflownet --attn_layer 2,3 --kernel_size 2=5,3=3 --heatmap_sigma 2"),
            (
                0.6,
                f"--model pose --attn_layer 2,3 --kernel_size 2=5,3=3 {L1} --lambda_g 1 "
                "--heatmap_sigma 2",
            ),
        ),
    ),
    "MAGPT": System(
        "PR 2023",
        (
            (
                1.0,
                "--model pose2pose --lambda_l1 100 --lambda_gan 1 --lambda_per 5 --ngf 32 --ndf 16",
            ),
        ),
    ),
    "DPTN_step": System(
        "2023",
        (
            (
                1.0,
                f"--model DPTN_step --no_spect_g {L1} --lambda_g 1 --ngf 32 --ndf 16 --kp_sigma 2 "
                "--limb_sigma 1",
            ),
        ),
        noise=True,
    ),
}


def build_parser() -> Parser:
    """The command line of this script."""
    parser = Parser(__doc__)
    add = parser.option
    add("--samples", positive_int, 8000, "training samples of each system")
    add("--cpu_minutes", positive, None, "instead: CPU minutes of training for each system")
    add("--systems", several(choice(SYSTEMS)), list(SYSTEMS), "which")
    add(OUTPUT, path, Path("results/one_budget"), "results and records", "out")
    table = "print the records of this file and end"
    add("--table", path, None, table, metavar="RECORDS")
    add_debug(add)
    return parser


def cpu_seconds() -> float:
    """CPU time of the finished children of this process; 0 on Windows, which does not say."""
    used = os.times()
    return used.children_user + used.children_system


def timed(title: str, command: str) -> float:
    """Run one command of the project; returns its CPU seconds."""
    before = cpu_seconds()
    run(title, command)
    return cpu_seconds() - before


def train(name: str, system: System, data: Path, samples: int, record: dict) -> None:
    """All stages of one system; a later stage continues from the weights of the one before."""
    for index, (share, options) in enumerate(system.stages):
        done = record.setdefault("stages", [])
        if len(done) > index:
            continue
        pairs = max(4, int(samples * share) // 10 // 4 * 4)  # an epoch; ten of them
        state = Path("checkpoints") / name / "latest_state.pth"
        resume = " --continue_train" if index or state.is_file() else ""
        seconds = timed(
            f"Training {name}, stage {index + 1} of {len(system.stages)}",
            f"train.py --name {name} --dataroot {data} {SHARED} {options} --niter 5 "
            f"--niter_decay 5 --max_dataset_size {pairs} --save_latest_freq {2 * pairs} "
            f"--display_freq {2 * pairs} --print_freq {max(4, pairs // 2)} "
            f"--save_epoch_freq 1000{resume}",
        )
        done.append({"options": options, "samples": 10 * pairs, "cpu_seconds": seconds})
        save(record)


def measure(name: str, system: System, data: Path, folder: Path, record: dict) -> None:
    """Generate and score the test pairs, once for each seed of the noise."""
    rows = record.setdefault("scores", [])
    for seed in NOISE_SEEDS if system.noise else NOISE_SEEDS[:1]:
        if len(rows) > seed:
            continue
        results = folder / name / f"seed_{seed}"
        test = (
            f"--name {name} --dataroot {data} --results_dir {results} --batchSize 8 --seed {seed} "
            "--gpu_ids -1 --ema 0.999"
        )
        seconds = timed(f"Generating with {name}, seed {seed}", f"test.py {test}")
        run("Against copying and a different person", f"-m script.baselines {test}")
        table = json.loads((results / "baselines.json").read_text())
        rows.append({**table, "cpu_seconds_an_image": seconds / table["generated"]["pairs"]})
        save(record)


def parameters(name: str) -> int:
    """Parameters of the trained generator."""
    state = checkpoint.load(Path("checkpoints") / name / "latest_net_G.pth")
    return sum(value.numel() for value in {v.data_ptr(): v for v in state.values()}.values())


def save(record: dict) -> None:
    """Write a record to its file."""
    path = Path(record["file"])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, json.dumps(record, indent=1).encode())


def load(path: Path, system: str, samples: int) -> dict:
    """The record of an interrupted run, or a new one."""
    if path.is_file():
        return json.loads(path.read_text())
    return {"system": system, "samples": samples, "settings": SHARED, "file": str(path)}


def row(record: dict) -> str:
    """One line of the table: means over the seeds of the noise."""
    scores, stages = record["scores"], record["stages"]

    def mean(view: str, metric: str) -> float:
        return sum(s[view][metric] for s in scores) / len(scores)

    psnr, ssim = mean("generated", "psnr"), mean("generated", "ssim")
    each = sum(s["cpu_seconds"] for s in stages) / sum(s["samples"] for s in stages)
    image = sum(s["cpu_seconds_an_image"] for s in scores) / len(scores)
    return (
        f"| {record['system']} | {sum(s['samples'] for s in stages):,} | {psnr:.2f} | {ssim:.3f} "
        f"| {psnr - mean('copy', 'psnr'):+.2f} | {psnr - mean('wrong source', 'psnr'):+.2f} "
        f"| {record['parameters'] / 1e6:.2f} M | {each:.3f} | {image:.2f} |"
    )


def table(records: list[dict]) -> str:
    """The records as a Markdown table."""
    head = (
        "| system | training samples | PSNR | SSIM | over copying, dB | over another person, dB "
        "| parameters of G | CPU s a training sample | CPU s an image |"
    )
    return "\n".join([head, "|---" * 9 + "|", *map(row, records)])


def samples_for(minutes: float, out: Path, system: str) -> int:
    """Training samples that take so many CPU minutes, by the record at equal samples."""
    path = out / f"{system}.json"
    if not path.is_file():
        raise UserError(
            f"{path} does not exist; run without --cpu_minutes first: it tells how long a sample "
            f"of {system} takes"
        )
    stages = json.loads(path.read_text())["stages"]
    each = sum(s["cpu_seconds"] for s in stages) / sum(s["samples"] for s in stages)
    return int(60 * minutes / each)


def main() -> None:
    """Train, generate and measure every system, or print a table of records."""
    opt = build_parser().parse()
    if opt.table is not None:
        print(table(json.loads(opt.table.read_text())))
        return
    os.chdir(ROOT)
    data = Path(f"dataset/synthetic_{PEOPLE}")
    run(
        f"Rendering {PEOPLE:,} people",
        f"-m script.make_synthetic_dataset --out {data} --layout fashion --identities {PEOPLE} "
        f"--test_identities 50 --poses 5 --test_pairs {TEST_PAIRS} --workers {allotted_cpus()}",
    )
    records, out = [], opt.out
    for system in opt.systems:
        samples, name = opt.samples, f"one_budget_{system}"
        folder = out
        if opt.cpu_minutes:
            samples, name = samples_for(opt.cpu_minutes, out, system), f"{name}_minutes"
            folder = out / "equal_minutes"
        record = load(folder / f"{system}.json", system, samples)
        train(name, SYSTEMS[system], data, samples, record)
        record["parameters"] = parameters(name)
        measure(name, SYSTEMS[system], data, folder, record)
        records.append(record)
    write_file(folder / "records.json", json.dumps(records, indent=1).encode())
    print(f"\n{table(records)}\n\nrecords: {folder / 'records.json'}")


if __name__ == "__main__":
    run_main(main)
