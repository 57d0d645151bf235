"""A training of a second: eight pairs of 8 x 8 pixels, networks of a few numbers."""

from pathlib import Path

from tests.training_child import SMALL, run
from util.run import checkpoint


def small_argv(data: Path, folder: Path) -> list[object]:
    """Two epochs of eight steps in ``folder / "run"``, saved after every third."""
    return [
        "--dataroot", data, "--checkpoints_dir", folder, "--name", "run", *SMALL,
        "--batchSize", 1, "--loadSize", 8, "--old_size", 8, "--niter", 1, "--niter_decay", 1,
        "--save_latest_freq", 3,
    ]  # fmt: skip


def train(argv: list[object], folder: Path, **plan: object) -> tuple[int, str]:
    """Exit status and output of one training with this plan."""
    return run(argv, {"tiny": True, **plan}, folder / "output")


def total(folder: Path, which: str = "latest") -> int:
    """Samples that a checkpoint has seen."""
    return checkpoint.load(folder / f"{which}_state.pth")["progress"]["total"]


def assert_clean(folder: Path) -> None:
    """No half-written file, and every checkpoint can be read."""
    assert not list(folder.rglob("*.tmp"))
    for path in folder.glob("*.pth"):
        checkpoint.load(path)
