"""Time the training step of several commits alternately, so that all see the same machine.

    python -m script.compare_revisions 58d05e3 HEAD --size 128 64 --batch 4 --ngf 32

Each commit runs in a process of its own from a temporary checkout (``git worktree``) on the same
random batch and the same random VGG-19. A word ``REV:PRECISION`` times that commit with
``--precision PRECISION``. Prints wall time and processor time (which other programs disturb less).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from util.run.main import run_main

from util.errors import UserError

ROOT = Path(__file__).resolve().parent.parent

# Runs in the checkout of a commit: one line in, one training step, its wall and CPU seconds out.
CHILD = """
import sys, time
import numpy as np, torch
words, batch, threads = sys.argv[1].split(), int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
from models import create_model
from options.train_options import TrainOptions
torch.manual_seed(0)
opt = TrainOptions().parse(words, announce=False)
model = create_model(opt)
rng = np.random.RandomState(0)
inputs = {}
for role in ("source", "target"):
    pixels = rng.randint(0, 256, (batch, 3, *opt.load_size)).astype(np.uint8)
    points = rng.uniform((0, 0), opt.annotation_size, (batch, 18, 2)).round()
    inputs[f"{role}_image"] = torch.from_numpy(pixels)
    inputs[f"{role}_keypoints"] = torch.from_numpy(points)
    inputs[f"{role}_name"] = ["a.jpg"] * batch
for _ in sys.stdin:
    start, cpu = time.perf_counter(), time.process_time()
    model.set_input(inputs)
    model.optimize_parameters()
    if opt.device != "cpu":
        torch.cuda.synchronize()
    print(time.perf_counter() - start, time.process_time() - cpu, flush=True)
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "revisions",
        nargs="+",
        metavar="REV[:PRECISION]",
        help="commits; the first is the reference",
    )
    add("--size", type=int, nargs=2, default=(128, 64), metavar=("H", "W"), help="image size")
    add("--batch", type=int, default=4, help="samples a step")
    add("--ngf", type=int, default=64, help="width of the generator")
    add("--ndf", type=int, default=32, help="width of the discriminator")
    add("--steps", type=int, default=8, help="timed steps of each, after one that is not timed")
    add("--threads", type=int, default=1, help="CPU threads of PyTorch")
    add("--gpu_ids", default="-1", help="GPU, -1 = CPU")
    add("--json", type=Path, help="also write the numbers to this file")
    add("--debug", action="store_true", help="show the full traceback of an error")
    return parser


@contextlib.contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """A temporary checkout of ``revision`` of this repository."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tree")
        command = ["git", "-C", str(ROOT), "worktree"]
        done = subprocess.run(
            [*command, "add", "--detach", str(path), revision], capture_output=True, text=True
        )
        if done.returncode:
            raise UserError(f"git cannot check out {revision}: {done.stderr.strip()[-200:]}")
        try:
            yield path
        finally:
            subprocess.run([*command, "remove", "--force", str(path)], capture_output=True)


@contextlib.contextmanager
def stepper(tree: Path, precision: str | None, opt: argparse.Namespace) -> Iterator:
    """A function that makes one training step with the code in ``tree``: wall and CPU seconds."""
    words = f"--model DPTN --load_size {opt.size[0]} {opt.size[1]} --ngf {opt.ngf} --ndf {opt.ndf}"
    words += f" --batchSize {opt.batch} --gpu_ids {opt.gpu_ids} --vgg_weights random"
    words += f" --precision {precision}" if precision else ""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": str(opt.threads)}
    command = [sys.executable, "-c", CHILD, words, str(opt.batch), str(opt.threads)]
    process = subprocess.Popen(
        command, cwd=tree, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )

    def step() -> tuple[float, ...]:
        process.stdin.write("\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise UserError(f"the code in {tree} stopped; its message is above")
        return tuple(map(float, answer.split()))

    try:
        yield step
    finally:
        process.stdin.close()
        process.wait()


def main() -> None:
    """Step every commit in turn, then print the comparison."""
    opt = build_parser().parse_args()
    seconds: dict[str, list[tuple[float, ...]]] = {name: [] for name in opt.revisions}
    with contextlib.ExitStack() as stack:
        steps = {}
        for name in opt.revisions:
            revision, _, precision = name.partition(":")
            tree = stack.enter_context(checkout(revision))
            steps[name] = stack.enter_context(stepper(tree, precision, opt))
        for round_ in range(opt.steps + 1):
            for name, step in steps.items():
                taken = step()
                if round_:
                    seconds[name].append(taken)
    report(opt, seconds)


def report(opt: argparse.Namespace, seconds: dict[str, list[tuple[float, ...]]]) -> None:
    """Print a table of (wall, CPU) ``seconds`` of each step by commit; write JSON if asked."""
    rows: dict[str, dict[str, float]] = {}
    for name, values in seconds.items():
        wall, cpu = (statistics.median(v) for v in zip(*values, strict=True))
        first = rows.get(opt.revisions[0], {"wall_s": wall, "cpu_s": cpu})
        rows[name] = {
            "wall_s": wall,
            "cpu_s": cpu,
            "fastest_wall_s": min(v[0] for v in values),
            "wall_speedup": first["wall_s"] / wall,
            "cpu_speedup": first["cpu_s"] / cpu,
        }
    print(
        f"DPTN-TA step, {opt.size[0]}x{opt.size[1]}, batch {opt.batch}, ngf {opt.ngf}, "
        f"{opt.threads} thread(s), medians of {opt.steps} interleaved steps"
    )
    for name, row in rows.items():
        print(
            f"{name:>16}: wall {row['wall_s']:.3f} s ({row['wall_speedup']:.2f} x as fast as the "
            f"first), CPU {row['cpu_s']:.3f} s ({row['cpu_speedup']:.2f} x)"
        )
    if opt.json:
        settings = {k: v for k, v in vars(opt).items() if k not in ("json", "debug")}
        opt.json.write_text(json.dumps({"settings": settings, "results": rows}, indent=1))


if __name__ == "__main__":
    run_main(main)
