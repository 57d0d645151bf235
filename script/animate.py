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

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import cv2
import numpy as np
from PIL import Image

from models.estimators import PersonFinder
from options.parser import OUTPUT, Parser, add_batch, add_debug, add_device
from script.transfer import (
    Subject,
    add_checkpoint_options,
    add_estimator_options,
    add_joint_score,
    load,
    person_finder,
    poses_of_file,
    read_source,
    subject_of_pose,
)
from util.errors import UserError
from util.files import check_writable
from util.image import as_photo, grey_as, list_photos
from util.kinds import (
    REQUIRED,
    choice,
    flag,
    natural,
    number,
    rate,
    several,
    text,
    whole_number,
)
from util.person.crop import movement_to_frame
from util.person.motion import CUTOFF, between, hold_lost, retarget, smooth
from util.run.device import choose_device
from util.run.main import run_main
from util.run.progress import progress_bar
from util.show.grid import GIF_FPS, LIMITS, WRITERS, grid
from util.skeleton import JOINTS, MISSING, present
from util.tables.poses import POSE_FILES, NamedPose, read_poses

VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
FPS = 12.0
BATCH = 8


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
    add_batch(add, BATCH, "frames at once")
    crop = "person: cut the person out of the photo; none: use the whole photo"
    add("--crop", choice(("person", "none")), "person", crop)
    own = "JSON in pixels of the source photo, or its data set's CSV, instead of an estimator"
    add("--source_keypoints", text, None, own, metavar="FILE")
    add("--no_retarget", flag, False, "the limb lengths of the poses instead of the person's own")
    _add_film_options(parser)
    add_estimator_options(parser)
    add_joint_score(parser)
    add_debug(add)
    return parser


def _add_film_options(parser: Parser) -> None:
    add = parser.group("film")
    add("--fps", rate, None, f"pictures a second; default: as the poses tell, else {FPS:g}")
    steady = f"Hz, lower is steadier, 0: off; default: {CUTOFF:g} for estimated poses, else off"
    add("--smooth", number(0, 100), None, steady)
    add("--loop", natural, 0, "how often a GIF is played; 0: for ever")
    add("--pingpong", flag, False, "forwards, then backwards")
    add("--side_by_side", flag, False, "the source and every skeleton beside the result")


def read_movement(opt: Namespace, find: PersonFinder, frame: tuple[int, int]) -> tuple:
    """The poses (N, 18, 2) in ``frame``, pictures a second, and whether they were estimated."""
    if opt.between:
        ends = [_one_pose(Path(item), opt, find, frame) for item in opt.between]
        return between(*ends, opt.frames), opt.fps or FPS, False
    path = Path(opt.poses)
    if path.suffix.lower() in VIDEOS:
        poses, fps = poses_of_video(path, find)
    elif path.is_dir() and not any(p.suffix.lower() == ".json" for p in path.iterdir()):
        poses, fps = poses_of_photos(list_photos(path), find), None
    elif path.is_dir() or path.suffix.lower() in POSE_FILES:
        named = _poses_of_files(path, opt)
        fps = opt.fps or named[0].fps or FPS
        if named[0].in_annotation_frame:
            return np.stack([pose.in_frame(frame) for pose in named]), fps, False
        return movement_to_frame(np.stack([p.keypoints for p in named]), frame, fps), fps, False
    else:
        raise UserError(
            f"--poses {path}: {'no such file' if not path.exists() else 'unknown kind of file'}; "
            f"expected a folder, {', '.join((*POSE_FILES, *VIDEOS))}"
        )
    fps = opt.fps or fps or FPS
    if not present(poses).any():
        raise UserError(f"{path}: nobody was found in any of its {len(poses)} pictures")
    return movement_to_frame(poses, frame, fps), fps, True


def _one_pose(path: Path, opt: Namespace, find: PersonFinder, frame: tuple[int, int]) -> np.ndarray:
    """One end of ``--between``."""
    if path.suffix.lower() in POSE_FILES:
        return subject_of_pose(poses_of_file(path, opt)[0], frame).keypoints
    return movement_to_frame(find(as_photo(path), str(path))[None], frame, FPS)[0]


def _poses_of_files(path: Path, opt: Namespace) -> list[NamedPose]:
    """The poses of a file, or of the files of a folder by name; nobody is a pose too."""
    files = [path]
    if path.is_dir():
        files = sorted(
            p for p in path.iterdir() if p.suffix.lower() == ".json" and not p.name.startswith(".")
        )
    many, poses = len(files) > 1, []
    for file in files:
        try:
            found = read_poses(file, opt.person, 0, opt.joint_score, keep_empty=True)
            if many and len(found) > 1:
                raise UserError(
                    f"--poses {path}: {file.name} is a sequence of {len(found)} poses, one of "
                    f"{len(files)} pose files; expected files of one pose each, or one sequence: "
                    f"--poses {file}"
                )
            poses += found
        except UserError as error:
            if not many or "holds no person" not in str(error):
                raise
            nobody = np.full((len(JOINTS), 2), float(MISSING))
            poses.append(NamedPose(file.stem, nobody, False))
    seen = [pose for pose in poses if present(pose.keypoints).any()]
    if not seen:
        raise UserError(f"--poses {path}: nobody is in any of its {len(poses)} poses")
    if len({pose.in_annotation_frame for pose in seen}) > 1:
        raise UserError(f"--poses {path}: some poses are in pixels of a photo and some are not")
    return [p._replace(in_annotation_frame=seen[0].in_annotation_frame) for p in poses]


def poses_of_photos(photos: Iterable[Path], find: PersonFinder) -> np.ndarray:
    """Poses (N, 18, 2) of photos of one person; where nobody is found all joints are missing."""
    return np.stack(
        [
            _pose_of_picture(as_photo(photo), str(photo), find)
            for photo in progress_bar(photos, desc="estimate", unit="photo")
        ]
    )


def _pose_of_picture(picture: Image.Image, where: str, find: PersonFinder) -> np.ndarray:
    person = find.person(picture, where)
    return np.full((len(JOINTS), 2), float(MISSING)) if person is None else person.keypoints


def poses_of_video(path: Path, find: PersonFinder) -> tuple[np.ndarray, float | None]:
    """Poses (N, 18, 2) of a video's pictures, in its pixels, and its pictures a second."""
    if not path.is_file():
        raise UserError(f"{path}: no such video")
    video = cv2.VideoCapture(str(path))
    try:
        fps = video.get(cv2.CAP_PROP_FPS)
        count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        poses = []
        bar = progress_bar(_pictures(video), "estimate", total=max(count, 0) or None)
        for number, picture in enumerate(bar):
            poses.append(_pose_of_picture(picture, f"{path}, picture {number}", find))
    finally:
        video.release()
    if not poses:
        raise UserError(
            f"{path} is no video that OpenCV can read, or an empty one; expected "
            f"{', '.join(VIDEOS)}: convert it"
        )
    return np.stack(poses), fps if 0.1 <= fps <= 1000 else None


def _pictures(video: cv2.VideoCapture) -> Iterator[Image.Image]:
    while True:
        ok, pixels = video.read()
        if not ok:
            return
        yield Image.fromarray(np.ascontiguousarray(pixels[..., ::-1]))


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
    if output.suffix.lower() not in WRITERS:
        raise UserError(f"--output {output}: expected a name that ends in {', '.join(WRITERS)}")
    check_writable(output)
    if opt.fps and opt.fps > fastest(output):
        raise UserError(
            f"--fps {opt.fps:g}: a {output.suffix} file shows at most {GIF_FPS} pictures a second; "
            f"use --fps {GIF_FPS}, or write an .mp4 file"
        )
    if bool(opt.poses) == bool(opt.between):
        raise UserError("expected either --poses P or --between A B")
    read = [opt.source, opt.source_keypoints, opt.poses, *(opt.between or ())]
    for given in (Path(word) for word in read if word):
        if given.exists() and output.exists() and output.samefile(given):
            raise UserError(f"--output {output} would replace {given}, which is read")
    return output


def fastest(output: Path) -> float:
    """Most pictures a second of a file of this kind."""
    return GIF_FPS if output.suffix.lower() == ".gif" else float("inf")


def check_count(poses: np.ndarray, output: Path) -> None:
    """Refuse sequences that are none, and those that the format cannot take."""
    most = LIMITS[output.suffix.lower()]
    if len(poses) < 2:
        raise UserError("found one pose; expected at least two, or use script.transfer for one")
    if len(poses) > most:
        raise UserError(
            f"{len(poses)} poses are too many for a {output.suffix} file, which takes {most}; "
            "write an .mp4 file, or fewer poses"
        )


def film(
    pictures: Iterable[Image.Image], poses: np.ndarray, source: Subject, opt: Namespace, total: int
) -> Iterator[np.ndarray]:
    """The frames to write, with a progress bar."""
    for picture, pose in zip(progress_bar(pictures, "frames", total=total), poses, strict=False):
        frame = np.asarray(grey_as(source.picture, picture))
        if opt.side_by_side:
            size = frame.shape[:2]
            drawn = Subject("", None, pose).tile(size, skeleton=True)
            frame = grid([[source.tile(size, skeleton=False), drawn, frame]])
        yield frame


def animate(opt: Namespace) -> tuple[Path, int, float, list[str]]:
    """Do what the options say; returns the file, its number of frames, their rate, and remarks."""
    output = output_file(opt)
    as_photo(opt.source)  # refused before anything heavy is loaded
    device = choose_device(opt.device)
    model = load(opt, device)
    find = person_finder(opt, device)
    frame = model.annotation_size
    source = read_source(opt, find, frame)
    poses, fps, estimated = read_movement(opt, find, frame)
    poses = prepared(poses, fps, estimated, opt)
    check_count(poses, output)
    remarks = [model.remark] if model.remark else []
    if fps > fastest(output):
        remarks.append(
            f"the poses come {fps:g} a second, of which a {output.suffix} file shows {GIF_FPS}: "
            "the film is slower; an .mp4 file keeps the time"
        )
        fps = fastest(output)
    if not opt.no_retarget:
        poses = retarget(poses, source.keypoints, frame)
    pictures = model.animate(
        source.picture, poses, source.keypoints, retarget=False, batch_size=opt.batch_size
    )
    frames = film(pictures, poses, source, opt, len(poses))
    WRITERS[output.suffix.lower()](output, frames, fps, opt.loop)
    return output, len(poses), fps, remarks


def main(argv: list[str] | None = None) -> None:
    """Parse, animate, say where the film is."""
    opt = build_parser().parse(sys.argv[1:] if argv is None else argv)
    output, count, fps, remarks = animate(opt)
    for remark in remarks:
        print(f"note: {remark}")
    print(f"wrote {output}: {count} frames, {fps:g} a second")


if __name__ == "__main__":
    run_main(main)
