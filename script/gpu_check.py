"""Ten minutes on a GPU: is everything right there, and how fast is it? Most important first.

    script/gpu_check.sh                                    (a GPU; ten minutes)
    python -m script.gpu_check --device cpu --small        (the same checks, tiny, on a CPU)
    python -m script.gpu_check --table results/gpu_check/gpu_check.json

Every result is written into gpu_check.json as soon as it is known: what was not reached in time is
missing there and nothing else. Parts: right (the first step of every model against the CPU, bf16
and fp16, non-finite gradients, bit-identical runs), speed, generation, models, resume (save, go
on, --compile), showcase (trains for what is left of the time).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import torch

from data import create_dataset
from data.loader import create_dataloader
from data.synthetic import write_dataset
from models import create_model
from options.parser import DEVICE, OUTPUT, Parser, add_debug
from options.train_options import TrainOptions
from util.files import write_atomically
from util.kinds import choice, flag, path, positive, several, text
from util.run.device import PRECISIONS, choose_device, seed_everything
from util.run.main import run_main
from util.run.timing import peak_memory, peak_tflops, seconds_each

CASES = {
    "DPTN-TA": "--model DPTN",
    "DPTN": "--model DPTN --netD res --lambda_affi 0",
    "GFLA, stage 1": "--model poseflownet",
    "GFLA, stage 2": "--model pose",
    "MAGPT": "--model pose2pose",
    "DPTN_step": "--model DPTN_step",
}
TOLERANCE = {"fp32": 2e-3, "bf16": 6e-2, "fp16": 3e-2}  # relative, of a loss of the first step
ROOT = Path(__file__).resolve().parent.parent
Row = dict[str, object]


class Check:
    """The settings of a run of checks, its clock and its results."""

    def __init__(self, opt: Namespace, data: Path):
        self.opt, self.data, self.start = opt, data, time.monotonic()
        self.device = torch.device(opt.device)
        self.file = opt.out / "gpu_check.json"
        gpu = self.device.type == "cuda"
        self.results: dict[str, object] = {
            "device": torch.cuda.get_device_name() if gpu else "CPU",
            "torch": torch.__version__, "small": opt.small, "rows": [],
        }  # fmt: skip

    def left(self) -> float:
        """Seconds of the budget that are left."""
        return 60 * self.opt.minutes - (time.monotonic() - self.start)

    def run(self, part: str, name: str, work: Callable[[], Row]) -> None:
        """Do one check, keep its result and say it; a failure is a result too."""
        if self.left() <= 0:
            return
        begun = time.monotonic()
        try:
            row = work()
        except Exception as error:  # the other checks are still worth their time
            row = {"ok": False, "error": f"{type(error).__name__}: {error}"[:300]}
        row = {"part": part, "name": name, "s": round(time.monotonic() - begun, 2), **row}
        self.results["rows"].append(row)
        self.results["minutes"] = round((time.monotonic() - self.start) / 60, 2)
        write_atomically(self.file, json.dumps(self.results, indent=1).encode())
        print(line(row), flush=True)

    def train_options(self, words: str, device: torch.device | None = None) -> Namespace:
        """Options of train.py on the check's data."""
        device, size = device or self.device, "64 64"
        common = (
            f"--name check --dataroot {self.data} --load_size {size} --ngf 16 --ndf 16 --init_gain "
            f"1 --vgg_weights random --vgg_width {0.25 if self.opt.small else 1} --device {device} "
            "--batchSize 4 --nThreads 0"
        )
        known = [f"--checkpoints_dir={self.opt.out / 'runs'}"]
        return TrainOptions().parse([*common.split(), *known, *words.split()])

    def batches(self, opt: Namespace) -> Iterator[dict]:
        """Training batches, epoch after epoch."""
        loader = create_dataloader(create_dataset(opt), opt)
        loader.batch_sampler.set_position(1)
        while True:
            yield from loader


def line(row: Row) -> str:
    """A result as one line."""
    mark = {True: "OK ", False: "BAD", None: "   "}[row.get("ok")]
    rest = {k: v for k, v in row.items() if k not in ("part", "name", "ok")}
    return f"{mark} {row['part']}: {row['name']}: " + ", ".join(f"{k} {v}" for k, v in rest.items())


def table(results: dict) -> str:
    """The results as a Markdown table, under a line about the machine."""
    lines = [f"{results['device']}, PyTorch {results['torch']}, {results.get('minutes')} minutes"]
    lines += ["", "| part | check | right | found |", "|---|---|---|---|"]
    for row in results["rows"]:
        found = {k: v for k, v in row.items() if k not in ("part", "name", "ok", "s")}
        right = {True: "yes", False: "**no**", None: ""}[row.get("ok")]
        shown = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in found.items()).replace("|", "/")
        lines.append(f"| {row['part']} | {row['name']} | {right} | {shown} |")
    return "\n".join(lines)


# ---- a: right ----------------------------------------------------------------------------------


def steps(check: Check, words: str, count: int, device: torch.device | None = None) -> list[tuple]:
    """(losses, network whose gradient was not finite) of the first training steps."""
    opt = check.train_options(words, device)
    seed_everything(0)
    model, found = create_model(opt), []
    for _, batch in zip(range(count), check.batches(opt), strict=False):
        model.set_input(batch)
        model.optimize_parameters()
        bad = model.stepper.not_finite()
        found.append(({k: float(v) for k, v in model.logged().items()}, bad))
    return found


def like_the_cpu(check: Check, case: str, precision: str) -> Row:
    """The losses of the first step beside those of the CPU in float32, TF32 off."""
    words = f"{CASES[case]} --no_tf32"
    wanted = steps(check, words, 1, torch.device("cpu"))[0][0]
    count = 3 if check.opt.small else 50
    found = steps(check, f"{words} --precision {precision}", count)
    worst = max(
        abs(found[0][0][k] - v) / (abs(v) + 1e-3)
        for k, v in wanted.items()
        if not k.startswith("grad")
    )
    finite = all(
        torch.isfinite(torch.tensor([v for k, v in losses.items() if not k.startswith("grad")]))
        .all()
        .item()
        and bad is None
        for losses, bad in found
    )
    drawn = case == "DPTN_step"  # its noise is drawn on the device: only finite can be asked for
    ok = finite and (drawn or worst < TOLERANCE[precision])
    return {"ok": ok, "worst_relative_difference": f"{worst:.1e}", "steps": count}


def spoiled(check: Check, precision: str) -> Row:
    """NaN weights must be reported, in fp16 once the search for a scale has failed."""
    opt = check.train_options(f"--model DPTN --precision {precision}")
    model, batches, said = create_model(opt), check.batches(opt), []
    next(model.networks["G"].parameters()).data.fill_(float("nan"))
    for _ in range(25):
        model.set_input(next(batches))
        model.optimize_parameters()
        said.append(model.stepper.not_finite())
    return {
        "ok": any(said),
        "reported_after_steps": next((i for i, s in enumerate(said) if s), None),
    }


def identical(check: Check, case: str) -> Row:
    """Two runs with --deterministic have the same bits."""
    runs = []
    for _ in range(2):
        seed_everything(0, True)
        runs.append(steps(check, f"{CASES[case]} --deterministic", 3))
    torch.use_deterministic_algorithms(False)
    return {"ok": runs[0] == runs[1]}


def right(check: Check) -> None:
    """Part a."""
    gpu = check.device.type == "cuda"
    for precision in ("fp32", "bf16", "fp16") if gpu else ("fp32", "bf16"):
        for case in CASES:
            name = f"{case}, {precision}, first step as on the CPU"
            check.run("right", name, lambda c=case, p=precision: like_the_cpu(check, c, p))
    for precision in ("fp32", "fp16") if gpu else ("fp32",):
        name = f"{precision}: NaN weights are reported"
        check.run("right", name, lambda p=precision: spoiled(check, p))
    for case in ("DPTN-TA", "GFLA, stage 2", "DPTN_step"):
        check.run("right", f"{case}: --deterministic", lambda c=case: identical(check, c))


# ---- b, c, d: speed ----------------------------------------------------------------------------


def training_rate(check: Check, words: str, size: int, batch: int) -> Row:
    """Samples a second with one batch that stays on the device, and peak memory."""
    if check.opt.small:
        size, batch, words = 64, min(batch, 2), f"{words} --ngf 8 --ndf 8"
    else:
        words = f"{words} --ngf 64 --ndf 32"
    opt = check.train_options(f"{words} --load_size {size} --batchSize {batch}")
    model = create_model(opt)
    given = next(check.batches(opt))
    if check.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def step() -> None:
        model.set_input(given)
        model.optimize_parameters()
        model.stepper.not_finite()

    each = seconds_each(step, check.device, 2 if check.opt.small else 20)
    mib = peak_memory(check.device) / 2**20
    return {"samples_per_s": round(batch / each, 2), "peak_MiB": round(mib)}


def generation_rate(check: Check, precision: str) -> Row:
    """Images a second of the generator alone."""
    size, batch = (64, 2) if check.opt.small else (256, 32)
    words = f"--model DPTN --precision {precision} --load_size {size} --batchSize {batch}"
    opt = check.train_options(words if check.opt.small else f"{words} --ngf 64 --ndf 32")
    model = create_model(opt)
    model.eval_mode()
    inputs = model.prepare(next(check.batches(opt)))
    each = seconds_each(lambda: model.generate(inputs), check.device, 5)
    return {"images_per_s": round(batch / each, 1)}


def speed(check: Check) -> None:
    """Part b: DPTN-TA at 256 x 256, and what the card can do at most."""
    for precision in ("fp32", "bf16"):
        check.run("speed", f"peak TFLOP/s, {precision}", lambda p=precision: {
            k: round(v, 3) for k, v in peak_tflops(check.device, PRECISIONS[p]).items()
        })  # fmt: skip
    formats = ["--precision bf16", "--no_tf32", "--tf32", "--precision bf16 --compile"]
    for words in formats[:2] if check.opt.small else formats:
        for batch in (2,) if check.opt.small else (32, 8, 64):
            name = f"DPTN-TA {words}, batch {batch}"
            check.run("speed", name, lambda w=words, b=batch: training_rate(check, w, 256, b))


def generation(check: Check) -> None:
    """Part c."""
    for precision in ("fp32", "bf16"):
        name = f"DPTN, {precision}"
        check.run("generation", name, lambda p=precision: generation_rate(check, p))


def models(check: Check) -> None:
    """Part d: the other systems at their published sizes' neighbourhood."""
    for case in ("GFLA, stage 1", "GFLA, stage 2", "MAGPT", "DPTN_step"):
        words = f"{CASES[case]} --precision bf16"
        check.run("models", case, lambda w=words: training_rate(check, w, 256, 8))


# ---- e, f: whole runs --------------------------------------------------------------------------


def train(check: Check, *words: str) -> subprocess.CompletedProcess:
    """train.py as a process of its own, for no longer than is left."""
    common = f"--name run --dataroot {check.data} --checkpoints_dir {check.opt.out / 'runs'} "
    common += "--load_size 64 --ngf 8 --ndf 8 --vgg_weights random --vgg_width 0.25 --batchSize 2 "
    common += f"--nThreads 0 --no_tensorboard --niter_decay 0 --device {check.opt.device}"
    command = [sys.executable, str(ROOT / "train.py"), *common.split(), *words]
    limit = max(30.0, check.left())
    return subprocess.run(command, capture_output=True, text=True, timeout=limit, cwd=ROOT)


def resumed(check: Check, *words: str) -> Row:
    """A run that is stopped at once and continued ends as a run that was not."""
    stopped = train(check, "--overwrite", "--niter", "1", "--max_minutes", "0.001", *words)
    ended = train(check, "--continue_train", "--niter", "1", *words)
    codes = [stopped.returncode, ended.returncode]
    error = (stopped.stderr + ended.stderr).strip().splitlines()[-1:]
    ok = codes in ([75, 0], [0, 0])  # 0: finished before it could be stopped
    return {"ok": ok, "statuses": str(codes), **({} if ok else {"error": str(error)[:200]})}


def resume(check: Check) -> None:
    """Part e."""
    check.run("resume", "stopped and continued", lambda: resumed(check))
    if not check.opt.small:
        check.run("resume", "with --compile", lambda: resumed(check, "--compile"))
        check.run(
            "resume", "fp16, --ema", lambda: resumed(check, "--precision", "fp16", "--ema", "0.9")
        )


def showcase(check: Check) -> None:
    """Part f: the showcase training for what is left of the time."""
    minutes = (check.left() - 30) / 60
    if minutes < 1 or check.opt.small:
        return
    command = ["bash", str(ROOT / "script/train_showcase.sh"), "--minutes", f"{minutes:.1f}"]

    def work() -> Row:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        return {"ok": done.returncode == 0, "minutes": round(minutes, 1)}

    check.run("showcase", "trained", work)


PARTS: dict[str, Callable[[Check], None]] = {
    "right": right, "speed": speed, "generation": generation, "models": models, "resume": resume,
    "showcase": showcase,
}  # fmt: skip


def main() -> int:
    """Check what was asked for; status 3 when something was not right."""
    parser = Parser(__doc__)
    add = parser.option
    add(DEVICE, text, "cuda", "cuda or cpu", "device")
    add("--small", flag, False, "tiny networks and few steps: tries the script itself")
    add("--minutes", positive, 10.0, "time for everything; what does not fit is left out")
    add("--parts", several(choice(list(PARTS))), list(PARTS), "which parts")
    add("--table", path, None, "print the table of an earlier gpu_check.json instead")
    add(OUTPUT, path, Path("results/gpu_check"), "folder of gpu_check.json", "out")
    add_debug(add)
    opt = parser.parse()
    if opt.table:
        print(table(json.loads(opt.table.read_text())))
        return 0
    opt.device = str(choose_device(opt.device))
    opt.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        people = Path(folder, "people")
        count = 4 if opt.small else 12
        write_dataset(people, "fashion", identities=count, poses=3, test_identities=2)
        check = Check(opt, people)
        for part in opt.parts:
            PARTS[part](check)
    print(table(check.results))
    return 3 if any(row.get("ok") is False for row in check.results["rows"]) else 0


if __name__ == "__main__":
    run_main(main)
