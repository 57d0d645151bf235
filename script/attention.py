"""Where does a generated image come from?

    python -m script.attention --checkpoint checkpoints/RUN --source me.jpg --pose friend.jpg
    python -m script.attention --checkpoint checkpoints/RUN --dataroot dataset/synthetic --pair 3
    python -m script.attention --checkpoint checkpoints/RUN --dataroot dataset/synthetic --table 50

For points of the result, by default its joints: the attention maps of DPTN's texture transfer
blocks over the source, GFLA's flow fields as arrows, MAGPT's gates. Writes figure.png and maps.png
into --output, with --html also page.html, on which a click on the result shows its map. --table
measures how much attention falls on the same joint of the source, beside an untrained network, and
writes table.csv.
"""

import copy
import sys
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import numpy as np
import torch
from torch.utils.data import default_collate

from data import create_dataset
from data.base_dataset import BaseDataset
from models import create_model
from models.base_model import BaseModel
from options.parser import DATA, OUTPUT, Parser, add_device
from options.trained import load_model
from script.transfer import (
    add_checkpoint_options,
    add_person_options,
    find_checkpoint,
    person_finder,
    read_source,
    read_targets,
)
from util.errors import UserError
from util.files import check_writable, make_folder, write_file
from util.image import resize_linear, save_image
from util.kinds import (
    flag,
    folder_name,
    natural,
    number,
    positive_int,
    several,
    text,
    whole_number,
)  # fmt: skip
from util.run.device import choose_device
from util.run.main import run_main
from util.run.progress import progress_bar
from util.show import attention as show
from util.skeleton import JOINTS, in_frame, present, skeleton_picture
from util.tensors import image_to_tensor, to_uint8

ENDINGS = (".png", ".jpg", ".jpeg", ".csv", ".html")  # of files
SMALLEST = 256  # pixels; smaller pictures are enlarged to be looked at
NEAR = 0.1  # of the body height: how near attention must be to count as on the joint


class Case(NamedTuple):
    """One pair and what the network says of it; pictures and points have the size ``frame``."""

    title: str
    source: np.ndarray  # uint8 (H, W, 3)
    result: np.ndarray
    frame: tuple[int, int]
    own: np.ndarray | None  # keypoints (18, 2) of the source in ``frame``, None for objects
    target: np.ndarray | None  # of the target pose
    attention: np.ndarray | None  # (blocks, heads, h, w, h', w'); None for a model without
    flows: list[np.ndarray]  # flow fields (2, h, w), coarse to fine
    gates: list[np.ndarray]  # (C, h, w), of every scale

    def map_of(self, point: np.ndarray) -> np.ndarray:
        """The mean attention map (h', w') over the source of a point of the result."""
        return show.maps_at(self.attention, point, self.frame).mean(axis=(0, 1))


def build_parser() -> Parser:
    """The command line of this script."""
    parser = Parser(__doc__)
    add = parser.group("what is looked at")
    add("--source", text, None, "photo of the person to be moved")
    add("--pose", several(text, 1), None, "photo or keypoint file: the pose to take", metavar="P")
    add(DATA, text, None, "data set whose pairs are shown or measured", "dataroot")
    add("--phase", folder_name, "test", "its phase")
    add("--pair", natural, None, "pair N of its list, from 0")
    add("--table", positive_int, None, "measure the first N pairs")
    add = parser.group("what is written")
    numbers = several(number())
    add("--points", numbers, None, "points of the result in its pixels: y x y x ...")
    add("--grid", whole_number(1, 16), None, "N x N points instead of the joints")
    add("--html", flag, False, "also page.html: click a point, see its map")
    place = "folder; default: results/attention_<name of the run>"
    add(OUTPUT, text, None, place, "output")
    add_checkpoint_options(parser)
    add_device(parser.option)
    add_person_options(parser)
    return parser


def check_options(opt: Namespace) -> None:
    """Refuse what contradicts itself before anything heavy is loaded."""
    asked = [name for name in ("source", "pair", "table") if getattr(opt, name) is not None]
    if len(asked) != 1:
        raise UserError(
            "expected one of: --source with --pose, --dataroot with --pair, --dataroot with --table"
        )
    if opt.source is not None and opt.pose is None:
        raise UserError("--source needs --pose, a photo or keypoint file with the pose to take")
    if opt.source is None and opt.dataroot is None:
        raise UserError(f"--{asked[0]} needs --dataroot, a data set's folder")
    if opt.points is not None and opt.grid is not None:
        raise UserError("--points and --grid both choose points: leave one of them out")
    if opt.points is not None and len(opt.points) % 2:
        raise UserError(f"--points has {len(opt.points)} numbers; expected pairs: y x y x ...")


def load(opt: Namespace, device: torch.device) -> BaseModel:
    """The generator that the options name."""
    path, options = find_checkpoint(opt)
    if path.suffix == ".onnx":
        raise UserError(f"{path} holds no weights of single layers; expected a .pth or its folder")
    return load_model(path, opt.which_epoch, device, options)


def open_dataset(model: BaseModel, dataroot: str, phase: str) -> BaseDataset:
    """The data set of a model's mode in another folder."""
    settings = copy.copy(model.opt)
    settings.dataroot, settings.phase = dataroot, phase
    settings.is_train, settings.max_dataset_size = False, None
    return create_dataset(settings)


def sample_of_photos(opt: Namespace, model: BaseModel) -> dict:
    """A sample as a data set gives it, of ``--source`` and ``--pose``."""
    if model.opt.view_counts:
        raise UserError(
            f"{model.opt.name} turns objects and takes no pose of a person: use --dataroot, --pair"
        )
    frame = tuple(model.opt.annotation_size)
    find = person_finder(opt, model.device)
    source, targets = read_source(opt, find, frame), read_targets(opt, find, frame)
    if len(targets) != 1:
        raise UserError(f"--pose {opt.pose[0]} holds {len(targets)} poses; expected one")
    return {
        "source_image": image_to_tensor(source.picture, model.opt.load_size),
        "source_keypoints": torch.from_numpy(source.keypoints),
        "target_keypoints": torch.from_numpy(targets[0].keypoints),
        "source_name": Path(opt.source).name,
        "target_name": Path(targets[0].name).name,
    }


def explain(model: BaseModel, sample: dict) -> Case:
    """Run the network on one sample and keep what is looked at, enlarged if it is small."""
    told = model.explain(model.prepare(default_collate([sample])))
    size = tuple(model.opt.annotation_size)
    larger = max(1, -(-SMALLEST // size[0]))
    frame = (size[0] * larger, size[1] * larger)
    given = (sample.get(f"{role}_keypoints") for role in ("source", "target"))
    points = (None if k is None else in_frame(k, size, frame) for k in given)
    pictures = sample["source_image"].permute(1, 2, 0).numpy(), to_uint8(told.fake_target[0])
    attention, flows, gates = (
        [one[0].cpu().numpy() for one in tensors]
        for tensors in (told.attention, told.flows, told.gates)
    )
    return Case(
        f"{sample['source_name']} to {sample['target_name']}",
        *(resize_linear(picture, frame) for picture in pictures), frame, *points,
        np.stack(attention) if attention else None, flows, gates,
    )  # fmt: skip


def chosen_points(opt: Namespace, case: Case, frame: tuple[int, int]) -> list[np.ndarray]:
    """Points (y, x) of the result in pixels of the case's pictures."""
    if opt.points is not None:
        points = np.array(opt.points).reshape(-1, 2)
        for y, x in points:
            if not (0 <= y < frame[0] and 0 <= x < frame[1]):
                raise UserError(
                    f"--points {y:g} {x:g} lies outside the result, which is {frame[0]} high and "
                    f"{frame[1]} wide"
                )
        return list(points * case.frame[0] / frame[0])
    if opt.grid is None and case.target is not None:
        inside = (case.target >= 0).all(axis=1) & (case.target < case.frame).all(axis=1)
        if not inside.any():
            raise UserError(
                "no joint of the target pose lies in the picture; choose --points or --grid"
            )
        return list(case.target[inside])
    steps = (np.arange(opt.grid or 4) + 0.5) / (opt.grid or 4)
    return [np.array([y, x]) * case.frame for y in steps for x in steps]


def output_folder(opt: Namespace) -> Path:
    """Where everything goes, checked."""
    given = Path(opt.checkpoint or opt.name or "")
    run = given.parent.name if given.is_file() else given.name
    output = Path(opt.output or f"results/attention_{run}")
    if output.suffix.lower() in ENDINGS and not output.is_dir():
        raise UserError(f"--output {output}: expected a folder, into which several files go")
    check_writable(output / "figure.png")
    return output


def write_pictures(opt: Namespace, case: Case, frame: tuple[int, int], folder: Path) -> list[Path]:
    """Figure, maps and, if asked for, the page; returns what was written."""
    points = chosen_points(opt, case, frame)
    attention, flows, pictures = case.attention, case.flows, (case.source, case.result)
    if attention is not None:
        origins = [show.peak(case.map_of(point), case.frame) for point in points]
        maps = show.map_sheet(*pictures, points, attention)
    elif flows:
        of_fields = [[show.flow_source(f, p, case.frame) for p in points] for f in flows]
        origins = of_fields[-1]
        names = [f"flow at {f.shape[1]} x {f.shape[2]}" for f in flows]
        maps = show.arrow_sheet(*pictures, points, of_fields, names)
    else:
        save_image(folder / "figure.png", show.gate_sheet(*pictures, case.gates))
        return [folder / "figure.png"]
    pose = None if case.target is None else skeleton_picture(case.target, case.frame)
    figure = show.correspondence_figure(pose, *pictures, points, origins)
    save_image(folder / "figure.png", figure)
    save_image(folder / "maps.png", maps)
    if opt.html:
        show.write_page(folder / "page.html", case.title, *pictures, attention, flows)
    return [folder / name for name in ("figure.png", "maps.png", *["page.html"] * opt.html)]


def joint_masses(case: Case) -> dict[int, tuple[float, float]]:
    """Joint -> share of the attention of its target position near the same source joint, and the
    share that even attention would have there. Joints missing on a side are left out."""
    if case.attention is None and not case.flows:
        raise UserError("--table needs attention over the source, which pose2pose does not have")
    rows = case.own[present(case.own), 0]
    radius = NEAR * (rows.max(initial=0) - rows.min(initial=np.inf))
    found = {}
    for joint in np.flatnonzero(present(case.own) & present(case.target)).tolist():
        own, target = case.own[joint], case.target[joint]
        near = show.disc(own, radius, case.frame)
        if not near.any():
            continue
        if case.attention is not None:
            share = float(show.fine_map(case.map_of(target), case.frame)[near].sum())
        else:
            origin = show.flow_source(case.flows[-1], target, case.frame)
            share = float(np.hypot(*(origin - own)) <= radius)
        found[joint] = share, float(near.mean())
    return found


def untrained(model: BaseModel) -> BaseModel:
    """The same model with fresh weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = create_model(model.opt)
    fresh.eval_mode()
    return fresh


def mass_table(model: BaseModel, dataset: BaseDataset, count: int) -> list[list]:
    """Rows: joint, pairs, mean share of the trained network, of an untrained one, and even."""
    trained, fresh = (
        [joint_masses(explain(network, dataset[i]))
         for i in progress_bar(range(min(count, len(dataset))), desc="measure", unit="pair")]
        for network in (model, untrained(model))
    )  # fmt: skip
    found = [
        (joint, share, other[joint][0], even)
        for own, other in zip(trained, fresh, strict=True)
        for joint, (share, even) in own.items()
    ]
    groups = {name: [f for f in found if JOINTS[f[0]] == name] for name in JOINTS}
    groups["all joints"] = found
    return [[n, len(g), *np.mean(g, axis=0)[1:].tolist()] for n, g in groups.items() if g]


def write_table(rows: list[list], path: Path) -> None:
    """Print the table and write it as CSV."""
    columns = ("joint", "pairs", "trained", "untrained", "even")
    print("share of attention within a tenth of the body height of the same joint of the source")
    print("".join(f"{c:>16}" for c in columns))
    lines = [",".join(columns)]
    for name, pairs, *shares in rows:
        print(f"{name:>16}{pairs:16,}" + "".join(f"{share:16.4f}" for share in shares))
        lines.append(f"{name},{pairs},{','.join(f'{share:.6f}' for share in shares)}")
    write_file(path, ("\n".join(lines) + "\n").encode())


def main(argv: list[str] | None = None) -> None:
    """Parse, look, say where the pictures are."""
    opt = build_parser().parse(argv)
    check_options(opt)
    folder = output_folder(opt)
    model = load(opt, choose_device(opt.device))
    dataset = open_dataset(model, opt.dataroot, opt.phase) if opt.source is None else None
    if opt.table is not None:
        if model.opt.view_counts:
            raise UserError("--table compares joints, which objects do not have: use --pair")
        write_table(mass_table(model, dataset, opt.table), make_folder(folder) / "table.csv")
        print(f"written: {folder / 'table.csv'}")
        return
    if opt.pair is None:
        sample = sample_of_photos(opt, model)
    elif opt.pair < len(dataset):
        sample = dataset[opt.pair]
    else:
        raise UserError(f"--pair {opt.pair}: {opt.dataroot} has the pairs 0 to {len(dataset) - 1}")
    case = explain(model, sample)
    if opt.html and case.gates:
        raise UserError("--html: MAGPT's gates belong to no point of the source; leave it out")
    frame = tuple(model.opt.annotation_size)
    written = write_pictures(opt, case, frame, make_folder(folder))
    print(f"{case.title}: written {', '.join(map(str, written))}")


if __name__ == "__main__":
    run_main(main)
