"""Writes data sets of synthetic people in the published layouts, equal bytes for equal settings."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby, permutations
from pathlib import Path

import numpy as np
from PIL import Image

from data.synthetic.identity import Identity, sample_identity
from data.synthetic.picture import BACKGROUNDS, render
from data.synthetic.pose import VIEWS, sample_pose
from util.errors import UserError
from util.files import remove_leftovers, replacing, write_file
from util.image import load_image, save_image
from util.parallel import map_in_order
from util.run.progress import progress_bar
from util.show.grid import grid
from util.skeleton import draw_skeleton
from util.tables.layouts import LAYOUTS, LIST_NAME, PHASES, SYNTHETIC_NAME
from util.tables.patn import read_keypoints, write_keypoints, write_pairs

RENDERER = 6  # raise it when the same settings begin to give other pictures
SIZES = {name: LAYOUTS[name].annotation_size for name in ("fashion", "market")}  # (h, w)
VIEW_NUMBERS = {"front": 1, "side": 2, "back": 3, "full": 4}


@dataclass(frozen=True)
class Settings:
    """Everything that decides the bytes of a data set; the number of workers does not."""

    layout: str = "fashion"
    identities: int = 400
    poses: int = 5
    seed: int = 0
    test_identities: int = 50
    pairs: int | None = None
    test_pairs: int | None = None
    background: str = "light"
    quality: int = 95

    def check(self) -> None:
        """Raise UserError for a value that no data set can have."""
        for name, allowed in (("layout", SIZES), ("background", BACKGROUNDS)):
            value = getattr(self, name)
            if value not in allowed:
                raise UserError(f"--{name} is {value!r}; expected one of {', '.join(allowed)}.")
        limits = {"identities": 1, "test_identities": 1, "poses": 2, "seed": 0, "quality": 1}
        for name, least in {**limits, "pairs": 1, "test_pairs": 1}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name} is {value}; expected a number of at least {least}.")
        people = 9_999 if self.layout == "market" else 99_999_999  # digits of the file names
        most = {"quality": 100, "poses": 300, "identities": people - self.test_identities}
        for name, limit in most.items():
            value = getattr(self, name)
            if value > limit:
                raise UserError(f"--{name} is {value}; expected a number of at most {limit}.")


def write_dataset(
    out: str | os.PathLike,
    layout: str = "fashion",
    identities: int = 400,
    poses: int = 5,
    seed: int = 0,
    workers: int = 1,
    overwrite: bool = False,
    progress: bool = False,
    **more: object,  # further fields of Settings
) -> dict:
    """Render a data set into the folder ``out`` and return its manifest.

    The manifest has ``settings``, ``counts`` and ``unchanged``: a folder that already holds exactly
    this data set is left alone; an interrupted one is written again. Raises UserError for
    impossible settings, or when the folder holds something else: another synthetic data set is
    replaced only with ``overwrite``, foreign files never.
    """
    settings = Settings(layout, identities, poses, seed, **more)
    settings.check()

    def write(out: Path) -> dict[str, dict]:
        return {phase: _write_phase(out, phase, settings, workers, progress) for phase in PHASES}

    kind = DataKind(RENDERER, _all_there, _remove)
    return write_once(Path(out), asdict(settings), kind, overwrite, write)


def tables_of(root: Path, layout: str, phase: str) -> list[Path]:
    """Pairs, keypoints and, for fashion, the list of the images."""
    files = LAYOUTS[layout]
    names = [files.pairs[0], files.annotations[0], *([LIST_NAME] if layout == "fashion" else [])]
    return [root / name.format(phase=phase) for name in names]


def _write_phase(out: Path, phase: str, settings: Settings, workers: int, progress: bool) -> dict:
    """Render one split and write its tables; returns its counts."""
    (out / phase).mkdir(parents=True, exist_ok=True)
    count = settings.identities if phase == "train" else settings.test_identities
    task = partial(_write_identity, out, phase, settings)
    keypoints, pairs = {}, []
    bar = progress_bar(
        map_in_order(task, range(count), workers),
        total=count,
        desc=phase,
        unit="person",
        disable=not progress,
    )
    for person in bar:
        keypoints.update(person)
        pairs += permutations(person, 2)
    limit = settings.pairs if phase == "train" else settings.test_pairs
    if limit is not None and limit < len(pairs):
        rng = np.random.default_rng([settings.seed, PHASES.index(phase)])
        kept = np.sort(rng.choice(len(pairs), limit, replace=False))
        pairs = [pairs[i] for i in kept]
    pairs_table, keypoint_table, *lists = tables_of(out, settings.layout, phase)
    write_pairs(pairs_table, pairs)
    write_keypoints(keypoint_table, keypoints)
    for path in lists:
        write_file(path, "".join(f"{name}\n" for name in keypoints).encode())
    return {"identities": count, "images": len(keypoints), "pairs": len(pairs)}


def _write_identity(out: Path, phase: str, settings: Settings, index: int) -> dict[str, np.ndarray]:
    """Render all pictures of one person; returns name -> keypoints (18, 2).

    Each person has own generators, so neither the other people nor the workers matter; names and
    backgrounds have another one, so that every layout and background shows the same poses.
    """
    seeds = [settings.seed, PHASES.index(phase), index]
    rng, scene_rng = np.random.default_rng(seeds), np.random.default_rng([*seeds, 1])
    number = index + 1 + (settings.identities if phase == "test" else 0)
    identity = sample_identity(rng)
    result: dict[str, np.ndarray] = {}
    for view in _views(rng, settings.poses):
        pose = sample_pose(rng, view)
        name = _name(settings.layout, identity, number, view, result, scene_rng)
        size = SIZES[settings.layout]
        picture, result[name] = render(identity, pose, size, settings.background, scene_rng)
        with replacing(out / phase / name) as temporary:
            Image.fromarray(picture).save(temporary, format="JPEG", quality=settings.quality)
    return result


def _views(rng: np.random.Generator, count: int) -> list[str]:
    """Views of a person's pictures: every view comes up before one is repeated."""
    rounds = [rng.permutation(VIEWS) for _ in range(-(-count // len(VIEWS)))]
    return [str(view) for view in np.concatenate(rounds)[:count]]


def _name(layout: str, identity: Identity, number: int, view: str, taken: dict, rng) -> str:
    """A file name like the published ones; ``number`` is the person's."""
    if layout == "market":
        frame, box = int(rng.integers(100)) + 1000 * len(taken), int(rng.integers(1, 9))
        return f"{number:04d}_c{rng.integers(1, 7)}s{rng.integers(1, 7)}_{frame:06d}_{box:02d}.jpg"
    gender = "WOMEN" if identity.woman else "MEN"
    item = 1 + sum(f"_{VIEW_NUMBERS[view]}{view}." in name for name in taken)
    folder = f"fashion{gender}{identity.category}id{number:08d}"
    return f"{folder}{item:02d}_{VIEW_NUMBERS[view]}{view}.jpg"


@dataclass(frozen=True)
class DataKind:
    """What :func:`write_once` has to know of one kind of synthetic data sets."""

    renderer: int  # its version
    is_complete: Callable[[Path, dict], bool]  # whether the files of a manifest are all there
    remove: Callable[[Path], None]  # deletes an earlier data set


def write_once(
    out: Path,
    settings: dict,
    kind: DataKind,
    overwrite: bool,
    write: Callable[[Path], dict[str, dict]],  # fills the folder, returns the counts of each phase
) -> dict:
    """Write a data set unless ``out`` already holds it; returns its manifest and ``unchanged``."""
    known = _begin(out, settings, kind, overwrite)
    if known:
        return {**known, "unchanged": True}
    manifest = {"renderer": kind.renderer, "settings": settings, "complete": False}
    try:
        _save_manifest(out, manifest)
        manifest = {**manifest, "counts": write(out), "complete": True}
        _save_manifest(out, manifest)
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror}): free some space or choose another --out."
        ) from error
    return {**manifest, "unchanged": False}


def _begin(out: Path, settings: dict, kind: DataKind, overwrite: bool) -> dict | None:
    """The manifest if ``out`` holds this complete data set; None if it may be written now."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; expected a folder to write to: choose another --out.")
    if out.is_dir():
        remove_leftovers(out)  # of a first file that a full disk or a kill cut off
    if not out.is_dir() or not any(out.iterdir()):
        return None
    manifest = load_manifest(out)
    same = manifest["settings"] == settings and manifest["renderer"] == kind.renderer
    if same and manifest["complete"] and kind.is_complete(out, manifest):
        return manifest
    if not same and not overwrite:
        wanted = {**settings, "renderer": kind.renderer}
        found = {**manifest["settings"], "renderer": manifest["renderer"]}
        changed = [
            f"{k} {found.get(k)} instead of {v}" for k, v in wanted.items() if found.get(k) != v
        ]
        raise UserError(
            f"{out} holds a synthetic data set with other settings ({', '.join(changed)}): "
            "choose another --out or add --overwrite."
        )
    kind.remove(out)
    return None


def load_manifest(out: Path) -> dict:
    """What is known of the synthetic data set in a folder; UserError when it holds none."""
    try:
        manifest = json.loads((out / SYNTHETIC_NAME).read_text(encoding="utf-8"))
        return {key: manifest[key] for key in ("renderer", "settings", "complete")} | manifest
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{out} holds files but no readable {SYNTHETIC_NAME}, so it is not a synthetic data "
            "set and is left alone: choose an empty or new folder for --out."
        ) from None


def _all_there(out: Path, manifest: dict) -> bool:
    layout = manifest["settings"]["layout"]
    return all(
        len(list((out / phase).glob("*.jpg"))) == manifest["counts"][phase]["images"]
        and all(path.is_file() for path in tables_of(out, layout, phase))
        for phase in PHASES
    )


def _remove(out: Path) -> None:
    """Delete the pictures and tables of an earlier data set, nothing else."""
    for phase in PHASES:
        for layout in SIZES:
            for path in tables_of(out, layout, phase):
                path.unlink(missing_ok=True)
        for path in (out / phase).glob("*.jpg"):
            path.unlink()
        remove_leftovers(out / phase)


def _save_manifest(out: Path, manifest: dict) -> None:
    """Make the folder and write the manifest into it."""
    out.mkdir(parents=True, exist_ok=True)
    write_file(out / SYNTHETIC_NAME, (json.dumps(manifest, indent=2) + "\n").encode())


def contact_sheet(
    root: str | os.PathLike,
    path: str | os.PathLike,
    layout: str = "fashion",
    people: int = 6,
    columns: int = 5,
) -> None:
    """Write a PNG of the first people: a row each, pictures left, the same with skeletons right."""
    root, phase = Path(root), PHASES[0]
    keypoints = read_keypoints(tables_of(root, layout, phase)[1])
    rows: list[list[np.ndarray]] = []
    for _, names in groupby(keypoints, key=lambda name: _person(name, layout)):
        names = list(names)[:columns]
        pictures = [np.asarray(load_image(root / phase / name)) for name in names]
        drawn = [draw_skeleton(p, keypoints[n]) for p, n in zip(pictures, names, strict=True)]
        rows.append(pictures + drawn)
        if len(rows) == people:
            break
    save_image(path, grid(rows, gap=0))


def _person(name: str, layout: str) -> str:
    """The part of a file name that all pictures of a person share."""
    return name.split("_")[0] if layout == "market" else re.split(r"(?<=id\d{8})", name)[0]
