"""Writes synthetic data sets in the published layouts, equal bytes for equal settings.

fashion, market: people, with PATN's tables. The others are turned objects:
chairs: ``<object>_<h>_<v>.png``, the keys of the ShapeNet files of "Multi-view to Novel view"
(Sun et al., ECCV 2018): h = azimuth / 10 degrees (0, 2 ... 34), v = elevation (0, 10, 20), the
lists ``id_chair_<phase>.txt`` and ``name_chair_test.txt``, and on demand ``data_chair.hdf5``.
faces: CMU Multi-PIE's ``<subject>_<session>_<recording>_<camera>_<illumination>.png``, 13 cameras.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import permutations
from pathlib import Path

import numpy as np
from PIL import Image

from data.synthetic.chairs import sample_chair
from data.synthetic.heads import sample_head
from data.synthetic.identity import Identity, sample_identity
from data.synthetic.picture import render
from data.synthetic.pose import VIEWS, sample_pose
from data.synthetic.solids import render_view
from util.errors import UserError
from util.files import remove_leftovers, replacing
from util.image import load_image, save_image
from util.parallel import map_in_order
from util.run.progress import progress_bar
from util.show.grid import grid, in_rows
from util.skeleton import draw_skeleton
from util.tables.layouts import LAYOUTS, LIST_NAME, PHASES, SYNTHETIC_NAME
from util.tables.patn import read_keypoints, write_keypoints, write_lines, write_pairs
from util.tables.views import AZIMUTHS, CAMERAS, ELEVATIONS, STEP, open_hdf5

PEOPLE_RENDERER, VIEWS_RENDERER = 6, 1  # raised when equal settings begin to give other pictures
SIZES = {name: LAYOUTS[name].annotation_size for name in ("fashion", "market")}  # (h, w)
OBJECTS = {"chairs": sample_chair, "faces": sample_head}
HDF5 = "data_chair.hdf5"
ILLUMINATION = "07"  # Multi-PIE's frontal flash
SHEET = (6, 5)  # people on a contact sheet, pictures of each


@dataclass(frozen=True)
class Settings:
    """Everything that decides the bytes of a set of people; the number of workers does not."""

    layout: str = "fashion"
    identities: int = 400
    poses: int = 5
    seed: int = 0
    test_identities: int = 50
    pairs: int | None = None
    test_pairs: int | None = None
    background: str = "light"
    quality: int = 95


@dataclass(frozen=True)
class ViewSettings:
    """Everything that decides the bytes of a set of turned objects."""

    layout: str
    identities: int  # objects of the training split
    test_identities: int
    seed: int = 0
    size: int = 256  # pixels, square
    hdf5: bool = False  # chairs: the HDF5 file instead of the image folders


def write_dataset(
    out: str | os.PathLike,
    layout: str = "fashion",
    *,
    workers: int = 1,
    overwrite: bool = False,
    progress: bool = False,
    **fields: object,  # further fields of the settings
) -> dict:
    """Render a data set into the folder ``out`` and return its manifest.

    The manifest has ``settings``, ``counts`` and ``unchanged``: a folder that already holds exactly
    this data set is left alone; an interrupted one is written again. Raises UserError for
    impossible settings, or when the folder holds something else: another synthetic data set is
    replaced only with ``overwrite``, foreign files never.
    """
    kind, renderer, write = Settings, PEOPLE_RENDERER, _write_people
    if layout in OBJECTS:
        kind, renderer, write = ViewSettings, VIEWS_RENDERER, _write_views
    out, settings = Path(out), kind(layout, **fields)
    _check(settings)
    manifest = {"renderer": renderer, "settings": asdict(settings), "complete": False}
    known = _begin(out, manifest, overwrite)
    if known:
        return {**known, "unchanged": True}
    try:
        write_lines(out / SYNTHETIC_NAME, [json.dumps(manifest, indent=2), "\n"])
        counts = write(out, settings, workers, progress)
        manifest |= {"counts": counts, "complete": True}
        write_lines(out / SYNTHETIC_NAME, [json.dumps(manifest, indent=2), "\n"])
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror}): free some space or choose another --out."
        ) from error
    return {**manifest, "unchanged": False}


def _check(settings: Settings | ViewSettings) -> None:
    """UserError for settings that no data set can have, though each value can be."""
    people = 99_999_999 if settings.layout == "fashion" else 9_999  # digits of the file names
    if settings.identities + settings.test_identities > people:
        raise UserError(
            f"--identities is {settings.identities}; expected a number of at most "
            f"{people - settings.test_identities}."
        )
    if getattr(settings, "hdf5", False):
        if settings.layout != "chairs":
            raise UserError("--hdf5 is for --layout chairs: say that, or leave it out.")
        open_hdf5(None)  # says how to get h5py before anything is rendered


def _begin(out: Path, manifest: dict, overwrite: bool) -> dict | None:
    """The manifest if ``out`` holds this complete data set; None if it may be written now."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; expected a folder to write to: choose another --out.")
    if out.is_dir():
        remove_leftovers(out)  # of a first file that a full disk or a kill cut off
    if not out.is_dir() or not any(out.iterdir()):
        return None
    try:
        found = json.loads((out / SYNTHETIC_NAME).read_text(encoding="utf-8"))
        was, complete = {**found["settings"], "renderer": found["renderer"]}, found["complete"]
        pictures, others = _files(out, was)
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{out} holds files but no readable {SYNTHETIC_NAME}, so it is not a synthetic data "
            "set and is left alone: choose an empty or new folder for --out."
        ) from None
    wanted = {**manifest["settings"], "renderer": manifest["renderer"]}
    if was != wanted and not overwrite:
        changed = [f"{k} {was.get(k)} instead of {v}" for k, v in wanted.items() if was.get(k) != v]
        raise UserError(
            f"{out} holds a synthetic data set with other settings ({', '.join(changed)}): "
            "choose another --out or add --overwrite."
        )
    if was == wanted and complete and all(path.is_file() for path in others):
        images = sum(counts["images"] for counts in found["counts"].values())
        if was.get("hdf5") or len(pictures) == images:
            return found
    for path in (*pictures, *others):
        path.unlink(missing_ok=True)
    for phase in PHASES:
        remove_leftovers(out / phase)
    return None


def _files(out: Path, settings: dict) -> tuple[list[Path], list[Path]]:
    """The pictures of a data set that are there; the other files that it has when complete."""
    layout = settings["layout"]
    kind = "jpg" if layout in SIZES else "png"
    pictures = [path for phase in PHASES for path in (out / phase).glob(f"*.{kind}")]
    others = [path for phase in PHASES for path in tables_of(out, layout, phase)]
    return pictures, [*others, out / HDF5] if settings.get("hdf5") else others


def tables_of(root: Path, layout: str, phase: str) -> list[Path]:
    """Pairs, keypoints and, for fashion, the list of the images; of chairs keys and names."""
    if layout in OBJECTS:
        kinds = ("id", "name") if layout == "chairs" else ()
        return [root / f"{kind}_chair_{phase}.txt" for kind in kinds]
    files = LAYOUTS[layout]
    names = [files.pairs[0], files.annotations[0], *([LIST_NAME] if layout == "fashion" else [])]
    return [root / name.format(phase=phase) for name in names]


def _each(
    work: Callable, settings: Settings | ViewSettings, workers: int, progress: bool, phase: str
) -> Iterator[dict]:
    """What ``work`` makes of every person or object of a split; each has own random numbers."""
    split, first = PHASES.index(phase), 1 + settings.identities * (phase == "test")
    count = (settings.identities, settings.test_identities)[split]
    tasks = [([settings.seed, split, i], first + i) for i in range(count)]
    done = map_in_order(partial(work, settings), tasks, workers)
    unit = "person" if settings.layout in SIZES else "object"
    return progress_bar(done, total=count, desc=phase, unit=unit, disable=not progress)


# --- people -------------------------------------------------------------------------------------


def _write_people(out: Path, settings: Settings, workers: int, progress: bool) -> dict[str, dict]:
    """Render both splits and write their tables; returns the counts of each."""
    counts = {}
    for phase, limit in zip(PHASES, (settings.pairs, settings.test_pairs), strict=True):
        (out / phase).mkdir(exist_ok=True)
        work = partial(_write_person, out / phase)
        people = list(_each(work, settings, workers, progress, phase))
        keypoints = {name: points for person in people for name, points in person.items()}
        pairs = [pair for person in people for pair in permutations(person, 2)]
        if limit is not None and limit < len(pairs):
            rng = np.random.default_rng([settings.seed, PHASES.index(phase)])
            pairs = [pairs[i] for i in np.sort(rng.choice(len(pairs), limit, replace=False))]
        pairs_table, keypoint_table, *lists = tables_of(out, settings.layout, phase)
        write_pairs(pairs_table, pairs)
        write_keypoints(keypoint_table, keypoints)
        for path in lists:
            write_lines(path, (f"{name}\n" for name in keypoints))
        counts[phase] = {"identities": len(people), "images": len(keypoints), "pairs": len(pairs)}
    return counts


def _write_person(folder: Path, settings: Settings, task: tuple[list[int], int]) -> dict:
    """Render all pictures of one person; returns name -> keypoints (18, 2).

    Names and backgrounds have a generator of their own, so that every layout and background shows
    the same poses.
    """
    seeds, number = task
    rng, scene_rng = np.random.default_rng(seeds), np.random.default_rng([*seeds, 1])
    identity = sample_identity(rng)
    # every view comes up before one is repeated
    rounds = [rng.permutation(VIEWS) for _ in range(-(-settings.poses // len(VIEWS)))]
    result: dict[str, np.ndarray] = {}
    for view in np.concatenate(rounds)[: settings.poses].tolist():
        pose = sample_pose(rng, view)
        name = _name(settings.layout, identity, number, view, result, scene_rng)
        size = SIZES[settings.layout]
        picture, result[name], _ = render(identity, pose, size, settings.background, scene_rng)
        with replacing(folder / name) as temporary:
            Image.fromarray(picture).save(temporary, format="JPEG", quality=settings.quality)
    return result


def _name(layout: str, identity: Identity, number: int, view: str, taken: dict, rng) -> str:
    """A file name like the published ones; ``number`` is the person's."""
    if layout == "market":
        frame, box = int(rng.integers(100)) + 1000 * len(taken), int(rng.integers(1, 9))
        return f"{number:04d}_c{rng.integers(1, 7)}s{rng.integers(1, 7)}_{frame:06d}_{box:02d}.jpg"
    gender = "WOMEN" if identity.woman else "MEN"
    end = f"_{1 + VIEWS.index(view)}{view}.jpg"
    item = 1 + sum(name.endswith(end) for name in taken)
    return f"fashion{gender}{identity.category}id{number:08d}{item:02d}{end}"


def contact_sheet(root: str | os.PathLike, path: str | os.PathLike) -> None:
    """Write a PNG of the first people: a row each, pictures left, the same with skeletons right."""
    root, phase = Path(root), PHASES[0]
    settings = json.loads((root / SYNTHETIC_NAME).read_text(encoding="utf-8"))["settings"]
    keypoints = read_keypoints(tables_of(root, settings["layout"], phase)[1])
    rows: list[list[np.ndarray]] = []
    for names in in_rows(list(keypoints), settings["poses"])[: SHEET[0]]:
        names = names[: SHEET[1]]
        pictures = [np.asarray(load_image(root / phase / name)) for name in names]
        drawn = [draw_skeleton(p, keypoints[n]) for p, n in zip(pictures, names, strict=True)]
        rows.append(pictures + drawn)
    save_image(path, grid(rows, gap=0))


# --- turned objects -----------------------------------------------------------------------------


def _write_views(
    out: Path, settings: ViewSettings, workers: int, progress: bool
) -> dict[str, dict]:
    """Render both splits and write their lists; returns the counts of each."""
    keys: dict[str, list[str]] = {phase: [] for phase in PHASES}

    def pictures(phase: str) -> Iterator[tuple[str, np.ndarray]]:
        for views in _each(_render_object, settings, workers, progress, phase):
            keys[phase] += views
            yield from views.items()

    if settings.hdf5:
        with replacing(out / HDF5) as temporary, open_hdf5(temporary, "w") as file:
            for name, image in (picture for phase in PHASES for picture in pictures(phase)):
                group = file.create_group(name)
                group.create_dataset("image", data=image, track_times=False)
                pose = np.array(name.split("_")[-2:], np.int64)
                group.create_dataset("pose", data=pose, track_times=False)
    else:
        for phase in PHASES:
            (out / phase).mkdir(exist_ok=True)
            for name, image in pictures(phase):
                with replacing(out / phase / f"{name}.png") as temporary:
                    Image.fromarray(image).save(temporary, format="PNG", compress_level=6)
    counts = {}
    for phase in PHASES:
        names = list(dict.fromkeys(key.rsplit("_", 2)[0] for key in keys[phase]))
        for path in tables_of(out, settings.layout, phase):
            lines = keys[phase] if path.name.startswith("id") else names
            write_lines(path, (f"{line}\n" for line in lines))
        counts[phase] = {"objects": len(names), "images": len(keys[phase])}
    return counts


def _render_object(settings: ViewSettings, task: tuple[list[int], int]) -> dict[str, np.ndarray]:
    """All views of one object, by name."""
    seeds, number = task
    scene = OBJECTS[settings.layout](np.random.default_rng(seeds))
    name = f"{number:03d}_01_01" if settings.layout == "faces" else f"chair{number:05d}"
    return {
        f"{name}_{side}": render_view(scene, azimuth, elevation, settings.size)
        for side, azimuth, elevation in _sides(settings.layout)
    }


def _sides(layout: str) -> list[tuple[str, float, float]]:
    """End of the name, azimuth and elevation in degrees of every view."""
    if layout == "faces":
        return [(f"{c}_{ILLUMINATION}", 15.0 * (i - 6), 0.0) for i, c in enumerate(CAMERAS)]
    return [(f"{h}_{v}", h * STEP, v) for v in ELEVATIONS for h in AZIMUTHS]
