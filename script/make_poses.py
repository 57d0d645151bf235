"""Write pose sequences to animate a person with: walking, waving, turning, sitting down.

    python -m script.make_poses -o poses/
    python -m script.make_poses --movements walk -o walk.json

One JSON file a movement, in OpenPose's layout with "frame", "fps" and "frames" added; every
movement is a loop. The body is one of the synthetic people, drawn by --seed.
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import numpy as np

from data.synthetic.identity import sample_identity
from data.synthetic.picture import MOVEMENTS, movement_keypoints
from options.parser import OUTPUT, Parser
from util.errors import UserError
from util.files import make_folder, write_file
from util.kinds import REQUIRED, choice, natural, rate, several, size, text, whole_number
from util.run.main import run_main
from util.tables.poses import pose_text


def main(argv: list[str] | None = None) -> None:
    """Parse, write, say where the files are."""
    parser = Parser(__doc__)
    add = parser.option
    add(OUTPUT, text, REQUIRED, "folder to write; for one movement also a .json file")
    movements = choice(MOVEMENTS)
    add("--movements", several(movements), list(MOVEMENTS), "which ones", metavar="M")
    add("--frames", whole_number(2, 10_000), 24, "poses of one round")
    add("--fps", rate, 12.0, "poses a second")
    add("--size", size, (256, 176), "height and width of the frame, pixels")
    add("--seed", natural, 0, "draws the body")
    opt = parser.parse(argv)
    output, frame = Path(opt.output), tuple(opt.size)
    is_file = output.suffix.lower() == ".json" and not output.is_dir()
    chosen = list(dict.fromkeys(opt.movements))
    if is_file and len(chosen) > 1:
        raise UserError(
            f"--output {output}: one file cannot hold {len(chosen)} movements "
            f"({', '.join(chosen)}); name a folder, or one of them with --movements"
        )
    body = sample_identity(np.random.default_rng(opt.seed)).body
    for movement in chosen:
        path = output if is_file else output / f"{movement}.json"
        poses = movement_keypoints(body, movement, opt.frames, frame)
        make_folder(path.parent)
        write_file(path, pose_text(poses, frame, opt.fps).encode())
        print(f"wrote {path}: {opt.frames} poses, {opt.fps:g} a second")


if __name__ == "__main__":
    run_main(main)
