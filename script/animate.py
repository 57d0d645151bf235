r"""A person in motion: one photo and a sequence of poses become a GIF, an MP4 or a contact sheet.

    python -m script.make_poses -o poses/
    python -m script.animate --checkpoint checkpoints/RUN --source me.jpg --poses poses/walk.json \
        -o walk.gif
    python -m script.animate --checkpoint checkpoints/RUN --source me.jpg --between a.jpg b.jpg \
        --frames 24 --pingpong -o between.mp4

--poses takes a video, a folder of photos or of JSON files (one a picture, sorted), a JSON sequence
or a keypoint CSV. The person keeps the own limb lengths (--no_retarget: those of the poses). Joints
that are lost are held for a moment and then hidden.
"""

import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import numpy as np
from PIL import Image

from models.estimators import PersonFinder
from options.parser import OUTPUT, Parser, add_batch, add_device
from script.transfer import (
    Subject,
    add_checkpoint_options,
    add_person_options,
    load,
    person_finder,
    poses_of_file,
    read_source,
    subject_of_pose,
)
from util.errors import UserError
from util.files import check_writable
from util.image import VIDEOS, as_photo, grey_as, list_photos, read_video
from util.kinds import REQUIRED, flag, natural, number, rate, several, text, whole_number
from util.person.crop import movement_to_frame
from util.person.motion import CUTOFF, between, hold_lost, retarget, smooth
from util.run.device import choose_device
from util.run.main import run_main
from util.run.progress import progress_bar
from util.show.grid import LIMITS, WRITERS, grid
from util.skeleton import JOINTS, MISSING, present, skeleton_picture
from util.tables.poses import POSE_FILES, NamedPose, read_poses

NOBODY = np.full((len(JOINTS), 2), float(MISSING))
FPS = 12.0


def build_parser() -> Parser:
    """The command line of this script."""
    parser = Parser(__doc__)
    add = parser.option
    add("--source", text, REQUIRED, "photo of the person")
    poses = "the movement: a video, folder, JSON sequence or keypoint CSV"
    add("--poses", text, None, poses, metavar="P")
    ends = "instead: two poses (photos or JSON files), and the way from one to the other"
    add("--between", several(text, 2), None, ends, metavar=("A", "B"))
    add("--frames", whole_number(2, 100_000), 24, "of --between")
    add(OUTPUT, text, REQUIRED, "file to write: .gif, .mp4, or .png, a contact sheet")
    add_checkpoint_options(parser)
    add_device(add)
    add_batch(add, 8, "frames at once")
    add("--no_retarget", flag, False, "the limb lengths of the poses instead of the person's own")
    add_person_options(parser)
    add = parser.group("film")
    add("--fps", rate, None, f"pictures a second; default: as the poses tell, else {FPS:g}")
    steady = f"Hz, lower is steadier, 0: off; default: {CUTOFF:g} for estimated poses, else off"
    add("--smooth", number(0, 100), None, steady)
    add("--loop", natural, 0, "how often a GIF is played; 0: for ever")
    add("--pingpong", flag, False, "forwards, then backwards")
    add("--side_by_side", flag, False, "the source and every skeleton beside the result")
    return parser


def read_movement(
    opt: Namespace, find: PersonFinder, frame: tuple[int, int]
) -> tuple[np.ndarray, float, bool]:
    """The poses (N, 18, 2) in ``frame``, pictures a second, and whether they were estimated."""
    if opt.between:
        ends = [_one_pose(Path(item), opt, find, frame) for item in opt.between]
        return between(*ends, opt.frames), opt.fps or FPS, False
    path = Path(opt.poses)
    files = [path]
    if path.is_dir():
        files = sorted(p for p in path.glob("[!.]*") if p.suffix.lower() == ".json")
    if files and files[0].suffix.lower() in POSE_FILES:
        named = _poses_of_files(path, files, opt)
        fps = opt.fps or named[0].fps or FPS
        if named[0].in_annotation_frame:
            return np.stack([pose.in_frame(frame) for pose in named]), fps, False
        return movement_to_frame(np.stack([p.keypoints for p in named]), frame, fps), fps, False
    if path.is_dir():
        photos = list_photos(path)
        count, fps = len(photos), None
        pictures = ((as_photo(photo), str(photo)) for photo in photos)
    elif path.suffix.lower() in VIDEOS:
        shown, count, fps = read_video(path)
        pictures = ((Image.fromarray(p), f"{path}, picture {i}") for i, p in enumerate(shown))
    else:
        raise UserError(
            f"--poses {path}: {'no such file' if not path.exists() else 'unknown kind of file'}; "
            f"expected a folder, {', '.join((*POSE_FILES, *VIDEOS))}"
        )
    fps = opt.fps or fps or FPS
    found = [find.person(*one) for one in progress_bar(pictures, "estimate", total=count)]
    if not any(found):
        raise UserError(f"{path}: nobody was found in any of its {len(found)} pictures")
    poses = np.stack([NOBODY if person is None else person.keypoints for person in found])
    return movement_to_frame(poses, frame, fps), fps, True


def _one_pose(path: Path, opt: Namespace, find: PersonFinder, frame: tuple[int, int]) -> np.ndarray:
    """One end of ``--between``."""
    if path.suffix.lower() in POSE_FILES:
        return subject_of_pose(poses_of_file(path, opt)[0], frame).keypoints
    return movement_to_frame(find(as_photo(path), str(path))[None], frame, FPS)[0]


def _poses_of_files(path: Path, files: list[Path], opt: Namespace) -> list[NamedPose]:
    """The poses of a file, or of the files of a folder by name; nobody is a pose too."""
    found = [read_poses(f, opt.person, 0, opt.joint_score, keep_empty=True) for f in files]
    poses = list(chain(*found))
    seen = [pose for pose in poses if present(pose.keypoints).any()]
    if not seen:
        raise UserError(
            f"--poses {path} holds no person: nobody is in any of its {len(poses)} poses; expected "
            f"a body joint of a score above {opt.joint_score:g}"
        )
    long = next((i for i, sequence in enumerate(found) if len(sequence) > 1), None)
    if long is not None and len(files) > 1:
        raise UserError(
            f"--poses {path}: {files[long].name} is a sequence of {len(found[long])} poses, one of "
            f"{len(files)} pose files; expected files of one pose each, or one sequence: "
            f"--poses {files[long]}"
        )
    if len({pose.in_annotation_frame for pose in seen}) > 1:
        raise UserError(f"--poses {path}: some poses are in pixels of a photo and some are not")
    return [p._replace(in_annotation_frame=seen[0].in_annotation_frame) for p in poses]


def prepared(poses: np.ndarray, fps: float, estimated: bool, opt: Namespace) -> np.ndarray:
    """Lost joints held, trembling removed, and the way back added."""
    poses = hold_lost(poses, fps)
    cutoff = (CUTOFF if estimated else 0.0) if opt.smooth is None else opt.smooth
    if cutoff:
        poses = smooth(poses, fps, cutoff)
    if opt.pingpong:
        poses = np.concatenate([poses, poses[-2:0:-1]])
    return poses


def output_file(opt: Namespace) -> Path:
    """Where to write, checked."""
    output = Path(opt.output)
    kind = output.suffix.lower()
    if kind not in WRITERS:
        raise UserError(f"--output {output}: expected a name that ends in {', '.join(WRITERS)}")
    read = [opt.source, opt.source_keypoints, opt.poses, *(opt.between or ())]
    check_writable(output, filter(None, read))
    if opt.fps and opt.fps > LIMITS[kind][1]:
        raise UserError(
            f"--fps {opt.fps:g}: a {output.suffix} file shows at most {LIMITS[kind][1]} pictures a "
            f"second; use --fps {LIMITS[kind][1]}, or write an .mp4 file"
        )
    if bool(opt.poses) == bool(opt.between):
        raise UserError("expected either --poses P or --between A B")
    return output


def film(
    pictures: Iterable[Image.Image], poses: np.ndarray, source: Subject, side_by_side: bool
) -> Iterator[np.ndarray]:
    """The frames to write, with a progress bar."""
    bar = progress_bar(pictures, "frames", total=len(poses))
    for picture, pose in zip(bar, poses, strict=True):
        frame = np.asarray(grey_as(source.picture, picture))
        if side_by_side:
            size = frame.shape[:2]
            frame = grid([[source.tile(size, skeleton=False), skeleton_picture(pose, size), frame]])
        yield frame


def main(argv: list[str] | None = None) -> None:
    """Parse, animate, say where the film is."""
    opt = build_parser().parse(argv)
    output = output_file(opt)
    as_photo(opt.source)  # refused before anything heavy is loaded
    device = choose_device(opt.device)
    model = load(opt, device)
    find = person_finder(opt, device)
    frame = model.annotation_size
    source = read_source(opt, find, frame)
    poses, fps, estimated = read_movement(opt, find, frame)
    poses = prepared(poses, fps, estimated, opt)
    most, fastest = LIMITS[output.suffix.lower()]
    if len(poses) < 2:
        raise UserError("found one pose; expected at least two, or use script.transfer for one")
    if len(poses) > most:
        raise UserError(
            f"{len(poses)} poses are too many for a {output.suffix} file, which takes {most}; "
            "write an .mp4 file, or fewer poses"
        )
    if not opt.no_retarget:
        poses = retarget(poses, source.keypoints, frame)
    pictures = model.animate(
        source.picture, poses, source.keypoints, retarget=False, batch_size=opt.batch_size
    )
    frames = film(pictures, poses, source, opt.side_by_side)
    WRITERS[output.suffix.lower()](output, frames, min(fps, fastest), opt.loop)
    if model.remark:
        print(f"note: {model.remark}")
    if fps > fastest:
        print(
            f"note: the poses come {fps:g} a second, of which a {output.suffix} file shows "
            f"{fastest}: the film is slower; an .mp4 file keeps the time"
        )
    print(f"wrote {output}: {len(poses)} frames, {min(fps, fastest):g} a second")


if __name__ == "__main__":
    run_main(main)
