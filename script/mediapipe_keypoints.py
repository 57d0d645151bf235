"""Write the joints of photos or of a video as JSON with MediaPipe, which brings its networks.

    python -m venv mediapipe_env
    mediapipe_env/bin/pip install "mediapipe==0.10.21" pillow
    mediapipe_env/bin/python script/mediapipe_keypoints.py me.jpg friend.jpg -o poses/
    mediapipe_env/bin/python script/mediapipe_keypoints.py walk.mp4 -o walk.json

A separate environment, because this MediaPipe needs NumPy 1; it needs neither PyTorch nor the
internet once it is installed. The files hold MediaPipe's 33 landmarks with the size of the picture,
which --pose, --source_keypoints and --poses of the other commands read. MediaPipe sees one person a
picture.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import numpy as np

from options.parser import OUTPUT, Parser
from util.errors import UserError
from util.files import check_writable, make_folder, write_file
from util.image import VIDEOS, as_photo, list_photos, read_video
from util.kinds import REQUIRED, several, text
from util.names import refuse_alike
from util.run.main import run_main

PACKAGE = "mediapipe==0.10.21"


def build_parser() -> Parser:
    parser = Parser(__doc__)
    add = parser.option
    add("inputs", several(text), REQUIRED, "photos, folders of photos, or one video", metavar="P")
    add(OUTPUT, text, REQUIRED, "folder for a JSON file a photo; of a video, the JSON file")
    return parser


def load_solution(still: bool) -> Any:
    """MediaPipe's pose network for single pictures or for the pictures of a video."""
    try:
        solutions = importlib.import_module("mediapipe.python.solutions.pose")
    except ImportError as error:
        raise UserError(
            f"this needs the package mediapipe ({error}): in an environment of its own, pip "
            f'install "{PACKAGE}" pillow, which brings its networks; newer ones do not'
        ) from error
    return solutions.Pose(static_image_mode=still, model_complexity=1)


def landmarks_of(pose: Any, pixels: np.ndarray) -> dict[str, Any]:
    """The landmarks of an RGB picture (H, W, 3), none when nobody is there, and its size."""
    found = pose.process(pixels).pose_landmarks
    marks = [
        {key: round(getattr(mark, key), 5) for key in ("x", "y", "z", "visibility")}
        for mark in (found.landmark if found else ())
    ]
    return {"width": pixels.shape[1], "height": pixels.shape[0], "landmarks": marks}


def photos_to_files(photos: list[Path], folder: Path, pose: Any) -> None:
    """One JSON file a photo; who is not found is said."""
    make_folder(folder)
    for photo in photos:
        path = folder / f"{photo.stem}.json"
        content = landmarks_of(pose, np.asarray(as_photo(photo)))
        if content["landmarks"]:
            write_file(path, json.dumps(content).encode())
            print(f"wrote {path}")
        else:
            print(f"left out: {photo}: nobody was found")


def video_to_file(path: Path, output: Path) -> None:
    """A sequence of all pictures of a video."""
    pictures, _, fps = read_video(path)
    pose = load_solution(still=False)
    frames = [landmarks_of(pose, picture) for picture in pictures]
    if not any(frame["landmarks"] for frame in frames):
        raise UserError(f"{path}: nobody was found in its {len(frames)} pictures")
    content = {"frames": frames} | ({"fps": fps} if fps else {})
    write_file(output, json.dumps(content).encode())
    print(f"wrote {output}: {len(frames)} pictures")


def main(argv: list[str] | None = None) -> None:
    opt = build_parser().parse(argv)
    inputs, output = [Path(item) for item in opt.inputs], Path(opt.output)
    videos = [path for path in inputs if path.suffix.lower() in VIDEOS]
    if videos:
        if len(inputs) > 1 or output.suffix.lower() != ".json":
            raise UserError("a video is given alone, with --output FILE.json")
        check_writable(output)
        video_to_file(videos[0], output)
        return
    photos = [p for path in inputs for p in (list_photos(path) if path.is_dir() else [path])]
    for photo in photos:
        as_photo(photo)  # refused before anything is written
    refuse_alike(photos, lambda photo: photo.stem, "would both be written as {key}.json")
    check_writable(output / "x.json")
    photos_to_files(photos, output, load_solution(still=True))


if __name__ == "__main__":
    run_main(main)
