"""Ten minutes on a GPU: is everything right there, and how fast is it? Most important first.

    script/gpu_check.sh                                    (a GPU; ten minutes)
    python -m script.gpu_check --device cpu --small        (the same checks, tiny, on a CPU)
    python -m script.gpu_check --table results/gpu_check/gpu_check.json

Every result is written into gpu_check.json as soon as it is known. Each part has its share of the
time, and what a part leaves over goes to those after it; a check that is not done then is a
failure, one that was not begun is named. Parts: right (the first step of every model against the
CPU, bf16 and fp16, hidden waits, gradients that are not finite, whole batches, bit-identical runs),
speed, generation, models, resume (save, go on, --compile), showcase (trains for what is left of the
time).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import torch

from data import create_dataset
from data.loader import create_dataloader
from data.synthetic.write import write_dataset
from models import create_model
from models.base_model import BaseModel
from options.parser import DEVICE, OUTPUT, Parser, add_debug
from options.train_options import TrainOptions
from util.files import read_json
from util.kinds import choice, flag, path, positive, several, text
from util.run.checks import Checks, Row, table
from util.run.device import PRECISIONS, choose_device, seed_everything
from util.run.main import run_main
from util.run.timing import hidden_waits, peak_memory, peak_tflops, seconds_each, synchronize
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
ROOT = Path(__file__).resolve().parent.parent


class Check(Checks):
    """The checks of a GPU: their settings and data."""

    def __init__(self, opt: Namespace, data: Path):
        self.opt, self.data, self.device = opt, data, torch.device(opt.device)
        gpu = self.device.type == "cuda"
        about = {"device": torch.cuda.get_device_name() if gpu else "CPU"}
        about |= {"torch": torch.__version__, "small": opt.small}
        shares = {name: share for name, (_, share) in PARTS.items() if name in opt.parts}
        super().__init__(opt.out / "gpu_check.json", 60 * opt.minutes, shares, about, print)

    def train_options(self, words: str, device: torch.device | None = None) -> Namespace:
        """Options of train.py on the check's data."""
        common = (
            f"--name check --dataroot {self.data} --load_size 64 64 --ngf 16 --ndf 16 --init_gain "
            f"1 --vgg_weights random --vgg_width {0.25 if self.opt.small else 1} --device "
            f"{device or self.device} --batchSize 4 --nThreads 0"
        )
        known = [f"--checkpoints_dir={self.opt.out / 'runs'}"]
        return TrainOptions().parse([*common.split(), *known, *words.split()])

    def batches(self, opt: Namespace) -> Iterator[dict]:
        """Training batches, epoch after epoch."""
        loader = create_dataloader(create_dataset(opt), opt)
        loader.batch_sampler.set_position(1)
        while True:
            yield from loader


# ---- a: right ----------------------------------------------------------------------------------


def train_step(model: BaseModel, batch: dict) -> str | None:
    """What train.py does with a batch between two lines of the log; a network whose gradient was
    not finite."""
    model.set_input(batch)
    model.optimize_parameters()
    return model.stepper.not_finite()


def steps(check: Check, words: str, count: int, device: torch.device | None = None) -> list[tuple]:
    """(losses, network whose gradient was not finite) of the first training steps."""
    opt = check.train_options(words, device)
    seed_everything(0)
    model, found = create_model(opt), []
    for _, batch in zip(range(count), check.batches(opt), strict=False):
        bad = train_step(model, batch)
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
        said.append(train_step(model, next(batches)))
    first = next((i for i, s in enumerate(said) if s), None)
    return {"ok": any(said), "reported_after_steps": first}


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
    model = create_model(check.train_options(f"{CASES[case]} --precision bf16"))
    for batch in islice(check.batches(model.opt), 3):  # the first steps may wait
        places = hidden_waits(lambda b=batch: train_step(model, b))
    return {"ok": not places, "places": ", ".join(f"{k} x {n}" for k, n in places.items()) or None}


def whole_batch(check: Check) -> Row:
    """Grey levels between a picture that is generated alone and within a batch."""
    model = create_model(check.train_options("--model DPTN --no_tf32"))
    model.eval_mode()
    inputs = model.prepare(next(check.batches(model.opt)))
    alone = [model.infer({k: v[i : i + 1] for k, v in inputs.items()}) for i in range(4)]
    pairs = zip(model.generate(inputs)["fake_target"], alone, strict=True)
    most = max(
        abs(to_uint8(a).astype(int) - to_uint8(b["fake_target"][0])).max().item() for a, b in pairs
    )
    return {"ok": most <= 1, "grey_levels": most}


def right(check: Check) -> None:
    """Part a."""
    gpu = check.device.type == "cuda"
    for precision in ("fp32", "bf16", "fp16") if gpu else ("fp32", "bf16"):
        for case in CASES if gpu or precision == "fp32" else ("DPTN-TA",):  # a CPU has one format
            name = f"{case}, {precision}, first step as on the CPU"
            check.run("right", name, lambda c=case, p=precision: like_the_cpu(check, c, p))
    for case in CASES if gpu else ():
        check.run("right", f"{case}: nothing waits", lambda c=case: waits(check, c))
    check.run("right", "a batch gives the pictures of its samples", lambda: whole_batch(check))
    for precision in ("fp32", "fp16") if gpu else ("fp32",):
        name = f"{precision}: NaN weights are reported"
        check.run("right", name, lambda p=precision: spoiled(check, p))
    for case in ("DPTN-TA", "GFLA, stage 2", "DPTN_step"):
        check.run("right", f"{case}: --deterministic", lambda c=case: identical(check, c))


# ---- b, c, d: speed ----------------------------------------------------------------------------


def training_rate(
    check: Check,
    words: str,
    size: int,
    batch: int,
    files: bool = False,  # new batches by the loader; else one that stays on the device
    channels_last: bool = False,  # generator and discriminator; VGG-19 in bf16 always is
) -> Row:
    """Samples a second of the training, and peak memory."""
    if check.opt.small:
        size, batch, words = 64, min(batch, 2), f"{words} --ngf 8 --ndf 8"
    else:
        words = f"{words} --ngf 64 --ndf 32"
    opt = check.train_options(f"{words} --load_size {size} --batchSize {batch}")
    model, batches, count = create_model(opt), check.batches(opt), 2 if check.opt.small else 30
    if channels_last:
        for network in model.networks.values():
            network.to(memory_format=torch.channels_last)
    given = next(batches)
    if check.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for number in range(count + 3):  # three that are not counted
        if number == 3:
            synchronize(check.device)
            start = time.perf_counter()
        train_step(model, next(batches) if files else given)
    synchronize(check.device)
    rate = count * batch / (time.perf_counter() - start)
    mib = peak_memory(check.device) / 2**20
    return {"samples_per_s": round(rate, 2), "peak_MiB": round(mib)}


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
    small, many = check.opt.small, f"--nThreads {min(12, os.cpu_count() or 1)}"
    bf16 = "--precision bf16"
    for words, batch, more in (
        (bf16, 32, {}),
        (f"{bf16} --cache_images device", 32, {"files": True}),
        (f"{bf16} --cache_images none {'' if small else many}", 32, {"files": True}),
        (bf16, 32, {"channels_last": True}),
        ("--tf32", 32, {}), ("--no_tf32", 32, {}),
        (f"{bf16} --compile", 32, {}), (f"{bf16} --cuda_graphs", 32, {}),
        (bf16, 8, {}), (f"{bf16} --cuda_graphs", 8, {}), (bf16, 64, {}), ("--tf32", 8, {}),
    ):  # fmt: skip
        if small and (batch != 32 or {"--tf32", "--compile", "--cuda_graphs"} & {*words.split()}):
            continue
        name = ", ".join([f"DPTN-TA {words.strip()}", f"batch {batch}", *more])
        work = partial(training_rate, check, words, 256, batch, **more)
        check.run("speed", name.replace("_", " ") if more else name, work)


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


def outside(check: Check, command: list[str]) -> tuple[int, str]:
    """Status and output of a command; it and what it started end with the time of the part."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            said, _ = process.communicate(timeout=check.left())
        finally:
            if process.poll() is None and os.name == "posix":
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, said


def train(check: Check, name: str, *words: str) -> tuple[int, str]:
    """Status and output of train.py as a process of its own."""
    common = f"--name {name} --dataroot {check.data} --checkpoints_dir {check.opt.out / 'runs'} "
    common += "--load_size 64 --ngf 8 --ndf 8 --vgg_weights random --vgg_width 0.25 --batchSize 2 "
    common += "--nThreads 0 --no_tensorboard --niter 1 --niter_decay 0 --max_dataset_size 16 "
    common += f"--device {check.opt.device}"
    return outside(check, [sys.executable, str(ROOT / "train.py"), *common.split(), *words])


def resumed(check: Check, *words: str) -> Row:
    """A run that is stopped at once and continued ends; with --deterministic, with the weights of
    one that was not stopped."""
    runs = [
        train(check, "run", "--overwrite", "--max_minutes", "0.001", *words),
        train(check, "run", "--continue_train", *words),
    ]
    same = {}
    if "--deterministic" in words:
        runs.append(train(check, "whole", "--overwrite", *words))
        files = [check.opt.out / "runs" / name / "latest_net_G.pth" for name in ("run", "whole")]
        ours, whole = (torch.load(file, map_location="cpu", weights_only=True) for file in files)
        same = {"same_weights": all(torch.equal(ours[key], whole[key]) for key in whole)}
    codes = [code for code, _ in runs]
    ok = codes[0] in (75, 0) and not any(codes[1:]) and all(same.values())  # 0: it was faster
    said = runs[-1][1].strip().splitlines()[-1:]
    return {"ok": ok, "statuses": str(codes), **same, **({} if ok else {"error": str(said)[:200]})}


def resume(check: Check) -> None:
    """Part e."""
    runs = {"stopped and continued": ["--deterministic"]}
    if not check.opt.small:
        runs["fp16, --ema"] = ["--precision", "fp16", "--ema", "0.9"]
        together = "--compile --accumulate 2 --clip_grad 1 --ema 0.9 --precision bf16"
        runs[together] = together.split()
    for name, words in runs.items():
        check.run("resume", name, partial(resumed, check, *words))


def showcase(check: Check) -> None:
    """Part f: the showcase training for what is left of the time."""
    minutes = (check.left() - 30) / 60
    if minutes < 1 or check.opt.small:
        return
    command = ["bash", str(ROOT / "script/train_showcase.sh"), "--minutes", f"{minutes:.1f}"]
    command += ["--name", "gpu_check"]  # the weights that are shipped stay what they are

    def work() -> Row:
        status, said = outside(check, command)
        last = {} if status == 0 else {"error": str(said.strip().splitlines()[-1:])[:200]}
        return {"ok": status == 0, "minutes": round(minutes, 1), **last}

    check.run("showcase", "trained", work)


# name -> what it does, and its share of the time
PARTS: dict[str, tuple[Callable[[Check], None], float]] = {
    "right": (right, 0.32), "speed": (speed, 0.34), "generation": (generation, 0.04),
    "models": (models, 0.1), "resume": (resume, 0.12), "showcase": (showcase, 0.08),
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
        print(table(read_json(opt.table, "name the gpu_check.json of an earlier run")))
        return 0
    opt.device = str(choose_device(opt.device))
    opt.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        check = Check(opt, Path(folder, "people"))
        count, workers = 4 if opt.small else 64, os.cpu_count() or 1
        sizes = {"identities": count, "poses": 5, "test_identities": 2}
        write_dataset(check.data, "fashion", workers=workers, **sizes)
        for part, (work, _) in PARTS.items():
            if part in opt.parts:
                check.begin(part)
                work(check)
    print(table(check.results))
    return 3 if check.failed() else 0


if __name__ == "__main__":
    run_main(main)
