"""Ten minutes on a GPU: is everything right there, and how fast is it? Most important first.

    script/gpu_check.sh                                    (a GPU; ten minutes)
    python -m script.gpu_check --device cpu --small        (the same checks, tiny, on a CPU)
    python -m script.gpu_check --table results/gpu_check/gpu_check.json

Every result is written into gpu_check.json as soon as it is known. Each part has its share of the
time, and what it leaves over goes to the next; a check that is not done then is a failure, one that
was not begun is named. Parts: right (the first step of every model against the CPU, bf16 and fp16,
hidden waits, gradients that are not finite, whole batches, bit-identical runs), speed, generation,
models, resume (save, go on, --compile), showcase (trains for what is left).
"""

import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice, repeat
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import torch

from data.synthetic.write import write_dataset
from models import create_model
from models.base_model import BaseModel
from options.parser import DEVICE, OUTPUT, Parser
from options.train_options import TrainOptions
from script import benchmark
from util.files import read_json, write_file
from util.kinds import choice, flag, path, positive, several, text
from util.run.checkpoint import load
from util.run.device import PRECISIONS, choose_device, seed_everything
from util.run.main import run_main
from util.tensors import to_uint8

CASES = {
    "DPTN-TA": "--model DPTN",
    "DPTN": "--model DPTN --netD res --lambda_affi 0",
    "GFLA, stage 1": "--model poseflownet",
    "GFLA, stage 2": "--model pose",
    "MAGPT": "--model pose2pose",
    "DPTN_step": "--model DPTN_step",
}
TOLERANCE = {"fp32": 2e-3, "bf16": 6e-2, "fp16": 3e-2}  # relative, of a loss of the first step
PARTS = {  # and the share of the time that is over when they end
    "right": 0.32, "speed": 0.66, "generation": 0.7, "models": 0.8, "resume": 0.92, "showcase": 1.0
}  # fmt: skip
ROOT = Path(__file__).resolve().parent.parent
Row = dict[str, Any]  # of a check: "ok" (True, False or absent) and what was found
Plan = Iterator[tuple]  # part, name, function of the Check and of the arguments that follow


class Check:
    """The clock of all parts, their settings and data, and the results in a JSON file.

    Every part has its share of the time; what one leaves over goes to the next.
    """

    def __init__(self, opt: Namespace, data: Path):
        self.opt, self.data, self.device = opt, data, torch.device(opt.device)
        self.gpu = self.device.type == "cuda"
        self.start, self.part = time.monotonic(), ""  # the part that is under way
        device = torch.cuda.get_device_name() if self.gpu else "CPU"
        self.results: dict[str, Any] = {"device": device, "torch": torch.__version__}
        self.results |= {"small": opt.small, "rows": [], "not_reached": []}

    def left(self) -> float:
        """Seconds that are left to this part."""
        share = PARTS[self.part] / max(PARTS[part] for part in self.opt.parts)
        return self.start + 60 * self.opt.minutes * share - time.monotonic()

    def run(self, part: str, name: str, work: Callable[..., Row], *arguments: object) -> None:
        """Do ``work(check, *arguments)`` for no longer than is left, keep its result and say it."""
        self.part, begun = part, time.monotonic()
        if self.left() <= 0:
            self.results["not_reached"].append(f"{part}: {name}")
        else:
            try:
                with at_most(self.left()):
                    row = work(self, *arguments)
            except Exception as error:  # the other checks are still worth their time
                row = {"ok": False, "error": f"{type(error).__name__}: {error}"[:300]}
            row = {"part": part, "name": name, "s": round(time.monotonic() - begun, 2), **row}
            self.results["rows"].append(row)
            mark = {True: "OK ", False: "BAD", None: "   "}[row.get("ok")]
            print(f"{mark} {part}: {name}: {row['s']} s, {found(row)}", flush=True)
        self.results["minutes"] = round((time.monotonic() - self.start) / 60, 2)
        write_file(self.opt.out / "gpu_check.json", json.dumps(self.results, indent=1).encode())

    def words(self, more: str) -> list[str]:
        """Words for train.py: small networks on the check's data, and ``more``, which wins."""
        common = (
            "--name check --load_size 64 64 --ngf 16 --ndf 16 --init_gain 1 --vgg_weights random "
            f"--vgg_width {0.25 if self.opt.small else 1} --device {self.device} --batchSize 4 "
            "--nThreads 0"
        )
        folders = [f"--dataroot={self.data}", f"--checkpoints_dir={self.opt.out / 'runs'}"]
        return [*common.split(), *folders, *more.split()]


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """TimeoutError in a block that takes longer; where there is no alarm (Windows), no limit."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def ring(number: int, frame: object) -> None:
        raise TimeoutError(f"not done after {seconds:.0f} s")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def found(row: Row) -> str:
    """What was found, in words."""
    rest = {k: v for k, v in row.items() if k not in ("part", "name", "ok", "s")}
    return ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in rest.items())


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table, under a line about the machine."""
    lines = [f"{results['device']}, PyTorch {results['torch']}, {results.get('minutes')} minutes"]
    lines += ["", "| part | check | right | found |", "|---|---|---|---|"]
    for row in results["rows"]:
        right = {True: "yes", False: "**no**", None: ""}[row.get("ok")]
        said = found(row).replace("|", "/")
        lines.append(f"| {row['part']} | {row['name']} | {right} | {said} |")
    if results["not_reached"]:
        lines += ["", f"Not reached in time: {'; '.join(results['not_reached'])}"]
    return "\n".join(lines)


# ---- a: right ----------------------------------------------------------------------------------


def build(check: Check, words: str) -> BaseModel:
    """The model that these words of train.py ask for."""
    return create_model(TrainOptions().parse(check.words(words)))


def steps(check: Check, words: str, count: int) -> list[tuple]:
    """(losses, network whose gradient was not finite) of the first training steps."""
    seed_everything(0)
    model, taken = build(check, words), []
    for batch in islice(benchmark.batches_of(model.opt), count):
        bad = benchmark.train_step(model, batch)
        losses = {k: float(v) for k, v in model.logged().items() if not k.startswith("grad")}
        taken.append((losses, bad))
    return taken


def like_the_cpu(check: Check, case: str, precision: str) -> Row:
    """The losses of the first step beside those of the CPU in float32, TF32 off."""
    words, count = f"{CASES[case]} --no_tf32", 3 if check.opt.small else 50
    [(wanted, _)] = steps(check, f"{words} --device cpu", 1)
    taken = steps(check, f"{words} --precision {precision}", count)
    worst = max(abs(taken[0][0][k] - v) / (abs(v) + 1e-3) for k, v in wanted.items())
    finite = all(bad is None and all(map(math.isfinite, ls.values())) for ls, bad in taken)
    drawn = case == "DPTN_step"  # its noise is drawn on the device: only finite can be asked for
    ok = finite and (drawn or worst < TOLERANCE[precision])
    return {"ok": ok, "worst_relative_difference": f"{worst:.1e}", "steps": count}


def spoiled(check: Check, precision: str) -> Row:
    """NaN weights must be reported, in fp16 once the search for a scale has failed."""
    model = build(check, f"--model DPTN --precision {precision}")
    next(model.networks["G"].parameters()).data.fill_(float("nan"))
    for number, batch in enumerate(islice(benchmark.batches_of(model.opt), 25)):
        if benchmark.train_step(model, batch):
            return {"ok": True, "reported_after_steps": number}
    return {"ok": False}


def identical(check: Check, case: str) -> Row:
    """Two runs with --deterministic have the same bits."""
    runs = []
    for _ in range(2):
        seed_everything(0, True)
        runs.append(steps(check, f"{CASES[case]} --deterministic", 3))
    torch.use_deterministic_algorithms(False)
    return {"ok": runs[0] == runs[1]}


def waits(check: Check, case: str) -> Row:
    """Lines of a step in which the host waits for the GPU: there should be none."""
    model = build(check, f"{CASES[case]} --precision bf16")
    for batch in islice(benchmark.batches_of(model.opt), 3):  # the first steps may wait
        places = benchmark.hidden_waits(partial(benchmark.train_step, model, batch))
    return {"ok": not places, "places": ", ".join(f"{k} x {n}" for k, n in places.items()) or None}


def whole_batch(check: Check) -> Row:
    """Grey levels between a picture that is generated alone and within a batch."""
    model = build(check, "--model DPTN --no_tf32")
    model.eval_mode()
    inputs = model.prepare(next(benchmark.batches_of(model.opt)))
    most = 0
    for i, together in enumerate(model.generate(inputs)["fake_target"]):
        alone = model.infer({k: v[i : i + 1] for k, v in inputs.items()})["fake_target"][0]
        most = max(most, abs(to_uint8(together).astype(int) - to_uint8(alone)).max().item())
    return {"ok": most <= 1, "grey_levels": most}


# ---- b, c, d: speed ----------------------------------------------------------------------------


def sized(check: Check, words: str, batch: int) -> BaseModel:
    """A model at 256 x 256 and of the published widths."""
    size = f"--load_size 256 --ngf 64 --ndf 32 --batchSize {batch}"
    small = f"--ngf 8 --ndf 8 --batchSize {min(batch, 2)}"
    return build(check, f"{words} {small if check.opt.small else size}")


def training(check: Check, words: str, batch: int, how: str = "") -> Row:
    """Samples a second of a training at 256 x 256, and peak memory.

    One batch stays on the device, unless ``how`` is "new batches" of the loader. "channels last":
    of generator and discriminator; VGG-19 in bf16 always is.
    """
    model = sized(check, words, batch)
    given = benchmark.batches_of(model.opt)
    if how == "channels last":
        for network in model.networks.values():
            network.to(memory_format=torch.channels_last)
    if check.gpu:
        torch.cuda.reset_peak_memory_stats()
    given = given if how == "new batches" else repeat(next(given))
    rate = benchmark.training_rate(model, given, 2 if check.opt.small else 30)
    mib = benchmark.peak_memory(check.device) / 2**20
    return {"samples_per_s": round(rate, 2), "peak_MiB": round(mib)}


def peak(check: Check, precision: str) -> Row:
    """What the device can do at most."""
    rates = benchmark.peak_tflops(check.device, PRECISIONS[precision])
    return {kind: round(rate, 3) for kind, rate in rates.items()}


def generating(check: Check, precision: str) -> Row:
    """Images a second of the generator alone."""
    model = sized(check, f"--model DPTN --precision {precision}", 32)
    model.eval_mode()
    inputs = model.prepare(next(benchmark.batches_of(model.opt)))
    each = benchmark.seconds_each(lambda: model.generate(inputs), check.device, 5)
    return {"images_per_s": round(model.opt.batchSize / each, 1)}


# ---- e, f: whole runs --------------------------------------------------------------------------


def outside(check: Check, command: list[str]) -> tuple[int, str]:
    """Status and last words of a command; it and what it started end with the time of the part."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            said, _ = process.communicate(timeout=check.left())
        finally:
            if process.poll() is None and os.name == "posix":
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, said.strip()[-200:]


def resumed(check: Check, *words: str) -> Row:
    """A run that is stopped at once and continued ends; with --deterministic, with the weights of
    one that was not stopped."""
    short = "--ngf 8 --ndf 8 --vgg_width 0.25 --batchSize 2 --niter 1 --niter_decay 0"
    short += " --max_dataset_size 16 --no_tensorboard"
    command, same = [sys.executable, str(ROOT / "train.py"), *check.words(short), *words], {}
    runs = ["--name run --overwrite --max_minutes 0.001", "--name run --continue_train"]
    runs += ["--name whole --overwrite"] * ("--deterministic" in words)
    codes, said = zip(*(outside(check, [*command, *run.split()]) for run in runs), strict=True)
    if len(runs) > 2:
        files = [check.opt.out / "runs" / name / "latest_net_G.pth" for name in ("run", "whole")]
        ours, whole = map(load, files)
        same = {"same_weights": all(torch.equal(ours[key], whole[key]) for key in whole)}
    ok = codes[0] in (75, 0) and not any(codes[1:]) and all(same.values())  # 0: it was faster
    return {"ok": ok, "statuses": str(codes), **same, **({} if ok else {"error": said[-1]})}


def showcase(check: Check) -> Row:
    """A showcase of its own name: the weights that are shipped stay what they are."""
    minutes = (check.left() - 30) / 60
    if minutes < 1:
        return {"found": "no time is left"}
    command = ["bash", str(ROOT / "script/train_showcase.sh"), "--minutes", f"{minutes:.1f}"]
    status, said = outside(check, [*command, "--name", "gpu_check"])
    return {"ok": status == 0, "minutes": round(minutes, 1), **({"error": said} if status else {})}


# ---- what is checked ---------------------------------------------------------------------------


def plan_right(check: Check) -> Plan:
    """Is everything right? A CPU has one number format."""
    for precision in ("fp32", "bf16", "fp16") if check.gpu else ("fp32", "bf16"):
        for case in CASES if check.gpu or precision == "fp32" else ("DPTN-TA",):
            name = f"{case}, {precision}, first step as on the CPU"
            yield "right", name, like_the_cpu, case, precision
    for case in CASES if check.gpu else ():
        yield "right", f"{case}: nothing waits", waits, case
    yield "right", "a batch gives the pictures of its samples", whole_batch
    for precision in ("fp32", "fp16") if check.gpu else ("fp32",):
        yield "right", f"{precision}: NaN weights are reported", spoiled, precision
    for case in ("DPTN-TA", "GFLA, stage 2", "DPTN_step"):
        yield "right", f"{case}: --deterministic", identical, case


def plan(check: Check) -> Plan:
    """All checks; rates are those of DPTN-TA at 256 x 256, then of the other systems."""
    yield from plan_right(check)
    for precision in ("fp32", "bf16"):
        yield "speed", f"peak TFLOP/s, {precision}", peak, precision
    small, bf16 = check.opt.small, "--precision bf16"
    many = "" if small else f" --nThreads {min(12, os.cpu_count() or 1)}"
    for words, batch, *how in (
        (bf16, 32), (f"{bf16} --cache_images device", 32, "new batches"),
        (f"{bf16} --cache_images none{many}", 32, "new batches"), (bf16, 32, "channels last"),
        ("--tf32", 32), ("--no_tf32", 32), (f"{bf16} --compile", 32),
        (f"{bf16} --cuda_graphs", 32), (bf16, 8), (f"{bf16} --cuda_graphs", 8), (bf16, 64),
        ("--tf32", 8),
    ):  # fmt: skip
        if not small or (batch == 32 and not re.search("--tf32|--compile|--cuda_graphs", words)):
            name = ", ".join([f"DPTN-TA {words}", f"batch {batch}", *how])
            yield "speed", name, training, words, batch, *how
    for precision in ("fp32", "bf16"):
        yield "generation", f"DPTN, {precision}", generating, precision
    for case in ("GFLA, stage 1", "GFLA, stage 2", "MAGPT", "DPTN_step"):
        yield "models", case, training, f"{CASES[case]} {bf16}", 8
    yield "resume", "--deterministic", resumed, "--deterministic"
    if not small:
        for words in ("fp16 --ema 0.9", "bf16 --compile --accumulate 2 --clip_grad 1 --ema 0.9"):
            yield "resume", words, resumed, "--precision", *words.split()
        yield "showcase", "trained for what is left of the time", showcase


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
    opt = parser.parse()
    if opt.table:
        print(table(read_json(opt.table, "name the gpu_check.json of an earlier run")))
        return 0
    opt.device = str(choose_device(opt.device))
    opt.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        check = Check(opt, Path(folder, "people"))
        count, workers = 4 if opt.small else 64, os.cpu_count() or 1
        sizes = {"identities": count, "poses": 5, "test_identities": 2}
        write_dataset(check.data, "fashion", workers=workers, **sizes)
        for part, *checked in plan(check):
            if part in opt.parts:
                check.run(part, *checked)
    print(table(check.results))
    return 3 if any(row.get("ok") is False for row in check.results["rows"]) else 0


if __name__ == "__main__":
    run_main(main)
