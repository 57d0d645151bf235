"""A small data set for every ``--dataset_mode``, two people or things in each phase."""

from collections.abc import Callable
from pathlib import Path

from data.synthetic.write import write_dataset
from script import convert_annotations, prepare_data
from util.tables.uncropped import to_path


def _people(root: Path, layout: str) -> Path:
    write_dataset(root, layout, identities=2, poses=3, seed=1, test_identities=2)
    return root


def _converted(root: Path, to: str) -> Path:
    source = _people(root.with_name(f"{root.name}_source"), "fashion")
    words = ["--from", "patn", "--to", to, "--input", str(source), "--output", str(root)]
    convert_annotations.main(words)
    for phase in ("train", "test"):
        (root / phase).symlink_to(source / phase)
    return root


def _fashion_lmdb(root: Path) -> Path:
    _converted(root, "nted")
    prepare_data.main(["--root", str(root), "--workers", "1", "--sizes", "256x176"])
    return root


def _magpt(root: Path) -> Path:
    """Its tables name the images by their paths in the release."""
    _converted(root, "magpt")
    for phase in ("train", "test"):
        for file in (root / phase).iterdir():
            path = root / to_path(file.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(file)
    return root


def _turned(root: Path) -> Path:
    write_dataset(root, "faces", identities=2, test_identities=2, size=32)
    return root


MAKERS: dict[str, Callable[[Path], Path]] = {
    "fashion": lambda root: _people(root, "fashion"),
    "fashion_lmdb": _fashion_lmdb,
    "magpt": _magpt,
    "view": _turned,
    "market": lambda root: _people(root, "market"),
}
