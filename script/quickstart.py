"""A first person at once, then people, DPTN-TA, test images, numbers and pages in one go.

Started by script/quickstart.sh. Every step is an ordinary command of this project and is printed,
with the time since the start, before it runs. The length of the training is laid out by the speed
measured on this machine and written down, so that an interrupted run ends in the same schedule.
"""

import json
import multiprocessing
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

from options.parser import Parser
from util.errors import UserError
from util.files import write_file
from util.kinds import flag
from util.parallel import allotted_cpus
from util.run.main import run_main

ROOT = Path(__file__).resolve().parent.parent
START = time.monotonic()
SHIPPED = "synthetic_people"
TIMED_STEPS = 6
# Small networks and images, an initialisation with gain 1, a heavier L1 loss and a thin random
# VGG-19 learn in minutes; the published defaults are meant for a week on real data.
COMMON = (
    "--model DPTN --dataset_mode fashion --vgg_weights random --vgg_width 0.25 --init_gain 1.0 "
    "--lambda_rec 100 --save_epoch_freq 1000000"
)


@dataclass(frozen=True)
class Training:
    """One training: what it is like, and, once that is laid out, how long."""

    size: tuple[int, int]  # (h, w) of the images
    sigma: float  # of the pose heatmaps, pixels
    networks: str  # their options, and others that set this training apart
    batch: int = 4
    lr: float = 3e-4
    lambda_g: float = 1.0
    lambda_content: float = 2.0
    ema: float = 0.999  # moving average of the generator; 0: none, better where steps are few
    gpu: bool = False
    threads: int = 1  # of each process
    processes: int = 1  # that share a batch
    pairs: int = 0  # an epoch
    epochs: int = 1
    decay: float = 0.5  # share of the epochs, the last ones, in which the learning rate falls

    @property
    def samples(self) -> int:
        """Training samples in all."""
        return self.pairs * self.epochs

    def arguments(self, name: str, data: Path) -> str:
        """Options of train.py."""
        (height, width), pairs = self.size, max(self.pairs, self.batch)
        falling = int(self.decay * self.epochs)
        return (
            f"--name {name} --dataroot {data} {COMMON} --load_size {height} {width} "
            f"--heatmap_sigma {self.sigma} {self.networks} --lambda_g {self.lambda_g} "
            f"--lambda_content {self.lambda_content} --lr {self.lr} --ema {self.ema} "
            f"--batchSize {self.batch // self.processes} --max_dataset_size {pairs} "
            f"--niter {self.epochs - falling} --niter_decay {falling} "
            f"--gpu_ids {'0' if self.gpu else '-1'} --nThreads {allotted_cpus() // 2} "
            f"--save_latest_freq {2 * pairs} --display_freq {pairs} "
            f"--print_freq {max(pairs // 2, self.batch)}"
        )


@dataclass(frozen=True)
class Recipe:
    """Sizes of one quick start."""

    name: str
    people: int
    minutes: float  # of training
    training: Training


# Few samples teach most when what is compared pixel by pixel counts more than texture.
QUICK = Training(
    (64, 48), 2.0,
    "--ngf 32 --ndf 16 --lambda_style 150 --lambda_affi 30 --t_s_ratio 0.65",
    lr=6e-4, lambda_g=0.5, lambda_content=1.0, ema=0, decay=0.34,
)  # fmt: skip
RECIPES = {
    "quick": Recipe("quickstart", 1000, 7.0, QUICK),
    "long": Recipe("quickstart_long", 3000, 60, Training((128, 88), 3.0, "--ngf 32 --ndf 16")),
}


def run(title: str, command: str, threads: int | None = None, processes: int = 1) -> None:
    """Print and run one command of the project; its failure ends everything.

    Several processes are started as torchrun would start them, without its report of a Ctrl-C.
    """
    minutes, seconds = divmod(int(time.monotonic() - START), 60)
    launcher = f"torchrun --standalone --nproc_per_node {processes}" if processes > 1 else "python"
    print(f"\n== [{minutes}:{seconds:02d}] {title}\n$ {launcher} {command}", flush=True)
    # Threads that wait actively for a late one keep the core that it needs.
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    words = shlex.split(command)
    words = words if words[0] == "-m" else [str(ROOT / words[0]), *words[1:]]
    started = [
        subprocess.Popen([sys.executable, "-u", *words], env=environment | place)
        for place in places(processes)
    ]
    # A process that a signal ended (a negative status) is why the others failed.
    status = min(filter(None, [process.wait() for process in started]), default=0)
    if status:
        raise UserError(
            f"the step '{title}' {_ended(status)} and run the same command again: it continues "
            "where it stopped"
        )


def places(processes: int) -> list[dict[str, str]]:
    """The environment of each process of a training, as torchrun would set it; of one: nothing."""
    if processes == 1:
        return [{}]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
    return [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in map(str, range(processes))]


def _ended(status: int) -> str:
    """How a command ended and what to do, in words; a signal has a name."""
    number = -status if status < 0 else status - 128  # of a shell, which adds 128
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"ended with status {status}; see its message above"
    if name == "SIGKILL":  # it leaves no message
        return "was killed (SIGKILL), usually because memory ran out; close other programs"
    return f"was ended by the signal {name}; see its message above"


def render(out: Path, people: int, test_people: int, pairs: int, seed: int = 0) -> None:
    """Render a data set in DeepFashion's format, or find it there."""
    run(
        f"Rendering {people:,} people, and {test_people} for testing",
        f"-m script.make_synthetic_dataset --out {out} --layout fashion --identities {people} "
        f"--test_identities {test_people} --poses 5 --test_pairs {pairs} --seed {seed} "
        f"--workers {allotted_cpus()} --contact_sheet",
    )


def compare(words: str, data: Path, results: Path, size: str) -> dict[str, dict[str, float]]:
    """Generate the test pairs with the run that ``words`` of test.py name, and measure them at
    the network's ``size`` (h w); what script.baselines writes."""
    test = f"{words} --dataroot {data} --results_dir {results}"
    run(f"Generating people of {data.name} that were never seen", f"test.py {test}")
    run("Is the source photo really used?", f"-m script.baselines {test} --result_size {size}")
    return json.loads((results / "baselines.json").read_text())


# ---- the length of a training ------------------------------------------------------------------


def seconds_a_sample(training: Training, data: Path) -> float:
    """Time of one training sample here, with all processes at work that share a batch."""
    ways, count = places(training.processes), training.processes
    probe = replace(training, pairs=training.batch * (TIMED_STEPS + 2))
    if count == 1:
        return seconds_here(probe, data, ways[0])
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:
        return max(pool.map(seconds_here, [probe] * count, [data] * count, ways)) / count


def seconds_here(training: Training, data: Path, place: dict[str, str]) -> float:
    """Time of one sample of this process, which stands in the given place."""
    os.environ |= place
    import torch

    from models import create_model
    from options.train_options import TrainOptions
    from script.benchmark import batches_of, training_rate
    from util.run import distributed

    torch.set_num_threads(training.threads)
    opt = TrainOptions().parse(training.arguments("speed", data).split())
    distributed.setup("cpu")
    return 1 / training_rate(create_model(opt), batches_of(opt), TIMED_STEPS)


def lay_out(training: Training, minutes: float, data: Path) -> Training:
    """The training with the threads that are fastest here and the epochs that fit into the time."""
    cpus = min(8, allotted_cpus())
    shared = cpus > 1 and not training.gpu and os.name == "posix"
    ways = {(1, 1), (2, cpus // 2) if shared else (1, cpus)}  # processes, threads of each
    speeds = {}
    for processes, threads in sorted(ways):
        way = replace(training, processes=processes, threads=threads)
        speeds[way] = seconds_a_sample(way, data)
        ms = 1000 * speeds[way]
        print(f"processes: {processes}, threads of each: {threads}: {ms:.1f} ms a training sample")
    way = min(speeds, key=speeds.get)
    batch, samples = training.batch, max(60 * minutes / speeds[way], 8 * training.batch)
    pairs = min(2000, max(batch, int(samples / 12) // batch * batch))
    return replace(way, pairs=pairs, epochs=max(4, int(samples / pairs)))


def planned(path: Path, training: Training, minutes: float, data: Path) -> Training:
    """What an earlier start laid out, or what is laid out now and written down."""
    if path.is_file():
        saved = json.loads(path.read_text())
        return Training(**{**saved, "size": tuple(saved["size"])})
    training = lay_out(training, minutes, data)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, json.dumps(asdict(training), indent=1).encode())
    return training


def train(title: str, name: str, training: Training, data: Path) -> None:
    """Train, or continue an interrupted training."""
    resume = " --continue_train" if any(Path("checkpoints", name).glob("latest_*.pth")) else ""
    command = f"train.py {training.arguments(name, data)}{resume}"
    run(title, command, training.threads, training.processes)


# ---- the steps ---------------------------------------------------------------------------------


def first_person() -> None:
    """Generate a few people with the weights that come with the code."""
    data, results = Path("dataset/synthetic_first"), Path("results/first")
    render(data, 2, 2, 6, seed=2000)
    run(
        "A first person, by the weights that come with the code",
        f"test.py --name {SHIPPED} --dataroot {data} --results_dir {results} --batchSize 6",
    )
    print(f"\nLook: {results}/index.html, {time.monotonic() - START:.0f} s after the start")


def report(recipe: Recipe, training: Training, table: dict, shipped: bool) -> None:
    """What was reached and what to try next."""
    mine = table["generated"]
    threads, minutes = training.processes * training.threads, (time.monotonic() - START) / 60
    device = "a GPU" if training.gpu else f"{threads} CPU thread{'s' * (threads > 1)}"
    print(f"\nDone in {minutes:.1f} minutes: {training.samples:,} training samples on {device}.")
    size = "{} x {}".format(*training.size)
    print(f"On {mine['pairs']} pairs of people the model has never seen, at its size of {size}:")
    words = {"copy": "copying the source photo", "wrong source": "a different person's photo"}
    for view, against in words.items():
        psnr, ssim = (mine[k] - table[view][k] for k in ("psnr", "ssim"))
        print(f"  {psnr:+.2f} dB PSNR and {ssim:+.3f} SSIM against {against}")
    both = f"\n  results/{recipe.name}.png   yours beside the weights that come with the code"
    print(f"""
Look at{both if shipped else ""}
  results/{recipe.name}/index.html   every generated image beside its ground truth
  eval_results/{recipe.name}/index.html   all numbers, the best and the worst pairs
  checkpoints/{recipe.name}/web/index.html   the pictures and curves of the training
  dataset/synthetic_{recipe.people}/contact_sheet.png   the people
Try next
  python -m script.demo --checkpoint checkpoints/{SHIPPED}   drag a skeleton, see the person move
  ./script/quickstart.sh --long   a longer run: larger images, better people
  python train.py --help   all options; README.md has the published commands""")


def main() -> None:
    """Run all steps."""
    parser = Parser(__doc__)
    parser.option("--long", flag, False, "a longer, better run")
    opt = parser.parse()
    os.chdir(ROOT)
    follow(RECIPES["long" if opt.long else "quick"])


def follow(recipe: Recipe, test_people: int = 50, test_pairs: int = 250) -> None:
    """All steps of a recipe, in the current folder."""
    name, data = recipe.name, Path(f"dataset/synthetic_{recipe.people}")
    shipped = Path("checkpoints", SHIPPED).is_dir()
    if shipped:
        first_person()
    render(data, recipe.people, test_people, test_pairs)
    path = Path("checkpoints") / f"{name}_plan.json"
    training = planned(path, recipe.training, recipe.minutes, data)
    train("Training DPTN-TA with all its losses", name, training, data)
    results, beside = Path("results") / name, Path("results") / f"{name}_{SHIPPED}"
    own = f"--name {name} --batchSize 8 --ema {training.ema}"
    scores = compare(own, data, results, "{} {}".format(*training.size))
    tests = [results]
    if shipped:
        tests.append(beside)
        words = f"--name {SHIPPED} --dataroot {data} --results_dir {beside} --batchSize 8"
        run("Generating with the weights that come with the code", f"test.py {words}")
    run(
        "Measuring",
        f"-m script.metrics --gt_path {data}/test --distorated_path "
        f"{' '.join(map(str, tests))} --name {name} "
        "--metrics psnr ssim psnr_unpadded ssim_unpadded l1 mae",
    )
    words = f"--results {' --beside '.join(map(str, tests))}"
    run("One picture", f"-m script.overview {words} -o results/{name}.png")
    report(recipe, training, scores, shipped)


if __name__ == "__main__":
    run_main(main)
