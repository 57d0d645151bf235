"""Your own photo in another pose.

    python -m script.transfer --checkpoint checkpoints/RUN --source me.jpg --pose friend.jpg -o
    out.png

--pose takes photos, a folder of photos, OpenPose/COCO/... JSON files and keypoint CSV files. One
pose gives the photo with the new person pasted in; several give a strip. Beside the result,
<name>_skeletons.png shows what the network was given.
"""

import sys
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import numpy as np
from PIL import Image

from api import GENERATOR_FILE, PoseTransfer
from models.estimators import ESTIMATORS, MASKS, PersonFinder, create_masker
from options.parser import OUTPUT, Parser, add_device
from util.errors import UserError
from util.files import check_writable
from util.image import as_photo, grey_as, is_grey, list_photos, save_image
from util.keypoint_formats import JOINT_SCORE
from util.kinds import REQUIRED, choice, flag, folder_name, fraction, natural, several, text
from util.person.background import Masker, replace_person
from util.person.crop import (
    Box,
    cut,
    in_photo,
    paste,
    person_box,
    to_frame,
    whole_picture,
)
from util.person.motion import retarget
from util.run.device import choose_device
from util.run.main import run_main
from util.run.weights import find_weights
from util.show.grid import grid
from util.skeleton import (
    BACKDROP,
    MIN_JOINTS,
    PERSON_RULES,
    check_joint_count,
    draw_skeleton,
)
from util.tables.patn import read_keypoints
from util.tables.poses import POSE_FILES, NamedPose, read_poses

OUTPUT_FORMATS = (".png", ".jpg", ".jpeg")
PUBLISHED = "magpt"  # as --checkpoint
QUALITY = 95


@dataclass(frozen=True)
class Subject:
    """A person as the network sees it."""

    name: str
    picture: Image.Image | None  # the crop, None for a pose from a file
    keypoints: np.ndarray  # (18, 2) in the annotation frame
    box: Box | None = None  # of the crop in the photo

    def tile(self, size: tuple[int, int], skeleton: bool) -> np.ndarray:
        """uint8 (h, w, 3) picture of ``size``, the annotation frame."""
        picture = self.picture or Image.new("RGB", (1, 1), (BACKDROP,) * 3)
        pixels = np.asarray(picture.resize(size[::-1], Image.Resampling.BICUBIC))
        return draw_skeleton(pixels, self.keypoints) if skeleton else pixels


def build_parser() -> Parser:
    """The command line of this script."""
    parser = Parser(__doc__)
    add = parser.option
    add("--source", text, REQUIRED, "photo of the person to be moved")
    poses = "photos, folders of photos, JSON or CSV keypoint files: the poses to take"
    add("--pose", several(text), REQUIRED, poses, metavar="P")
    add(OUTPUT, text, REQUIRED, "picture to write, .png or .jpg")
    add_checkpoint_options(parser)
    add_device(add)
    limbs = "the poses with the limb lengths of the source person, so that no body is deformed"
    add("--retarget", flag, False, limbs)
    mask = parser.group("background")
    kinds = "what is pasted: the person by a mask of this kind; none: the rectangle with soft edges"
    mask("--mask", choice(MASKS), "grabcut", kinds)
    mask("--mask_weights", text, None, "weight file of maskrcnn; default: cache or download")
    add_person_options(parser)
    return parser


def add_checkpoint_options(parser: Parser) -> None:
    """Options that choose the generator."""
    add = parser.group("generator")
    places = f"a run's folder, a generator file, an .onnx file, or {PUBLISHED}: MAGPT's generator"
    add("--checkpoint", text, None, places)
    add("--name --id", folder_name, None, "instead: name of a run in --checkpoints_dir")
    add("--checkpoints_dir", text, "./checkpoints", "folder of all runs")
    add("--which_epoch", folder_name, "latest", "of a run: latest, best, or the number of an epoch")
    add("--model", text, None, "model of a published file, which has no saved options")
    add("--dataset_mode", text, None, "its data set layout: picture sizes")


def add_estimator_options(parser: Parser) -> None:
    """Options that choose and tune the keypoint estimator."""
    add = parser.group("keypoints")
    estimators = f"{', '.join(ESTIMATORS)}, or module:Class of your own"
    add("--estimator", text, "torchvision", estimators)
    add("--weights", text, None, "weight file of the estimator; default: cache or download")
    add("--person", choice(sorted(PERSON_RULES)), "best", "whom to take of several")
    joints = "refuse people of whom fewer of the 18 joints are visible"
    add("--min_joints", natural, MIN_JOINTS, joints)


def add_person_options(parser: Parser) -> None:
    """Options of commands that take a person from a photo and poses from photos or files."""
    add, crops = parser.group("people"), choice(("person", "none"))
    crop = "person: cut the person out of each photo; none: use whole photos, as test.py does"
    add("--crop", crops, "person", crop)
    keypoints = "JSON in pixels of the source photo, or its data set's CSV, instead of an estimator"
    add("--source_keypoints", text, None, keypoints, metavar="FILE")
    score = "joints of JSON files with a lower score are missing"
    add("--joint_score", fraction, JOINT_SCORE, score)
    add_estimator_options(parser)


def person_finder(opt: Namespace, device) -> PersonFinder:
    """The estimator that the options choose; loaded when it is first needed."""
    return PersonFinder(opt.estimator, opt.weights, device, opt.person, opt.min_joints)


def subject_of_photo(
    path: str | Path,
    find: PersonFinder,
    frame: tuple[int, int],
    crop: str,
    keypoints: np.ndarray | None = None,  # (18, 2) in pixels of the photo, instead of ``find``
) -> Subject:
    """The person of a photo, cropped to the shape of the annotation frame."""
    photo = as_photo(path)
    points = find(photo, str(path)) if keypoints is None else keypoints
    whole = whole_picture(photo)
    box = person_box(points, frame, whole.size) if crop == "person" else whole
    return Subject(str(path), cut(photo, box), to_frame(points, box, frame), box)


def poses_of_file(path: str | Path, opt: Namespace) -> list[NamedPose]:
    """The poses of a JSON or CSV file, one a picture, chosen as the options say."""
    return read_poses(path, opt.person, opt.min_joints, opt.joint_score)


def read_source(opt: Namespace, find: PersonFinder, frame: tuple[int, int]) -> Subject:
    """The person to be moved."""
    own = None
    if opt.source_keypoints is not None:
        own = _own_keypoints(opt, as_photo(opt.source), frame)
    return subject_of_photo(opt.source, find, frame, opt.crop, own)


def _own_keypoints(opt: Namespace, photo: Image.Image, frame: tuple[int, int]) -> np.ndarray:
    """Keypoints (18, 2) of ``--source_keypoints``, in pixels of the source photo."""
    path, name = Path(opt.source_keypoints), Path(opt.source).name
    if path.suffix.lower() == ".csv":  # only the row of this photo, others may be poor
        table = read_keypoints(path)
        if name not in table:
            raise UserError(
                f"--source_keypoints {path}: no row of its {len(table)} is named {name}; expected "
                "the table in which this source photo has a row, or a JSON file of its person"
            )
        check_joint_count(table[name], f"{path}, {name}", opt.min_joints)
        return NamedPose(name, table[name], True, frame).in_frame(photo.size[::-1])
    poses = poses_of_file(path, opt)
    if len(poses) != 1 or poses[0].in_annotation_frame:
        place = "an annotation frame" if poses[0].in_annotation_frame else "pixels"
        raise UserError(
            f"--source_keypoints {path}: found {len(poses)} poses in {place}; expected a JSON "
            "file with one person in pixels of the source photo"
        )
    return poses[0].keypoints


def read_targets(opt: Namespace, find: PersonFinder, frame: tuple[int, int]) -> list[Subject]:
    """All poses to take, in the order given; folders are sorted."""
    targets: list[Subject] = []
    for item in map(Path, opt.pose):
        if item.suffix.lower() in POSE_FILES:
            poses = poses_of_file(item, opt)
            targets += [subject_of_pose(pose, frame) for pose in poses]
        else:
            photos = list_photos(item) if item.is_dir() else [item]
            targets += [subject_of_photo(photo, find, frame, opt.crop) for photo in photos]
    return targets


def subject_of_pose(pose: NamedPose, frame: tuple[int, int]) -> Subject:
    """A pose from a file: CSV rows are in the annotation frame, others are framed like photos."""
    points = pose.in_frame(frame)
    if not pose.in_annotation_frame:
        points = to_frame(points, person_box(points, frame), frame)
    return Subject(pose.name, None, points)


def find_checkpoint(opt: Namespace) -> tuple[Path, dict[str, str]]:
    """The generator that the options name, and the options that replace saved ones."""
    if not opt.checkpoint and not opt.name:
        raise UserError("there is no generator; give --checkpoint, or --name of a run")
    if opt.checkpoint == PUBLISHED:
        return find_weights(GENERATOR_FILE), {"model": "pose2pose", "dataset_mode": "magpt"}
    options = {key: getattr(opt, key) for key in ("model", "dataset_mode") if getattr(opt, key)}
    return Path(opt.checkpoint or Path(opt.checkpoints_dir, opt.name)), options


def load(opt: Namespace, device) -> PoseTransfer:
    """The generator that the options name."""
    path, options = find_checkpoint(opt)
    return PoseTransfer.from_checkpoint(path, opt.which_epoch, device, options)


def put_back(
    photo: Image.Image, source: Subject, target: Subject, result: Image.Image, masker: Masker | None
) -> Image.Image:
    """The photo with the result in the place of the person; without masker as a rectangle."""
    if masker is None:
        return paste(photo, result, source.box)
    frame = result.size[::-1]
    before = masker(photo, in_photo(source.keypoints, source.box, frame))
    after = masker(result, target.keypoints)
    return replace_person(photo, before, result, after, source.box)


def output_files(opt: Namespace) -> tuple[Path, Path]:
    """The picture and its skeletons, neither of which may replace or join what is read."""
    output = Path(opt.output)
    if output.suffix.lower() not in OUTPUT_FORMATS:
        raise UserError(
            f"--output {output}: expected a name that ends in {', '.join(OUTPUT_FORMATS)}"
        )
    skeletons = output.with_name(f"{output.stem}_skeletons.png")
    for written in (output, skeletons):
        check_writable(written, (opt.source, *opt.pose))
    for folder in filter(Path.is_dir, map(Path, opt.pose)):
        if folder.resolve() in output.resolve().parents:
            raise UserError(
                f"--output {output} lies inside the folder of poses {folder}, where the next call "
                "would take it for a pose; choose a place outside"
            )
    return output, skeletons


def main(argv: list[str] | None = None) -> None:
    """Parse, transfer, say where the pictures are."""
    opt = build_parser().parse(argv)
    output, skeletons = output_files(opt)
    photo = as_photo(opt.source)  # refused before anything heavy is loaded
    device = choose_device(opt.device)
    masker = create_masker(opt.mask, opt.mask_weights, device)
    model, find = load(opt, device), person_finder(opt, device)
    frame = model.annotation_size
    source, targets = read_source(opt, find, frame), read_targets(opt, find, frame)
    if opt.retarget:
        moved = [retarget(target.keypoints, source.keypoints, frame) for target in targets]
        targets = [Subject(t.name, None, pose) for t, pose in zip(targets, moved, strict=True)]
    results = model.transfer_many(
        [source.picture] * len(targets),
        [target.keypoints for target in targets],
        [source.keypoints] * len(targets),
        [(Path(opt.source).name, Path(target.name).name) for target in targets],
    )
    results = [grey_as(photo, result) for result in results]
    below = [source.tile(frame, skeleton=False), *map(np.asarray, results)]
    if len(results) == 1:
        picture = np.asarray(put_back(photo, source, targets[0], results[0], masker))
    else:
        picture = grid([below])
    save_image(output, picture, QUALITY)
    above = [subject.tile(frame, skeleton=True) for subject in (source, *targets)]
    save_image(skeletons, grid([above, below]))
    if model.remark:
        print(f"note: {model.remark}")
    if is_grey(photo):
        print("note: the photo has no colours, so the result has none")
    print(f"wrote {output}, and {skeletons} with the poses that went in")


if __name__ == "__main__":
    run_main(main)
