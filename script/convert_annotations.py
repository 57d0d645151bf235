r"""Convert pairs and keypoints between the text formats of the published systems.

    python script/convert_annotations.py --from patn --to magpt \
        --input ./dataset/fashion --output ./dataset/DeepFashion

  patn   fasion-resize-pairs-<phase>.csv, fasion-resize-annotation-<phase>.csv (DPTN, DPTN-TA too)
  gfla   the same tables called fasion-pairs-<phase>.csv, fasion-annotation-<phase>.csv
  magpt  <phase>_img_pairs.csv, <phase>_img_keypoints.csv, <phase>_img_list.csv
  nted   <phase>_pairs.txt, <phase>.lst and pose/<path>.txt (NTED, PIDM, the LMDB data set)

What a format cannot hold is printed, with counts. PATN to any other format and back loses nothing
but the choice of which coordinate of a missing joint was -1, and fractions of pixels in MAGPT.
"""

import sys
from argparse import Namespace
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

from data.prepare.convert import TEXT_FORMATS
from options.parser import OUTPUT, Parser
from util.errors import UserError
from util.files import existing_folder
from util.kinds import REQUIRED, choice, several, text
from util.run.main import run_main
from util.tables.layouts import PHASES


def parse_arguments(arguments: list[str] | None = None) -> Namespace:
    parser = Parser(__doc__)
    add = parser.option
    add("--from", choice(TEXT_FORMATS), REQUIRED, "format of the input", "source_format")
    add("--to", choice(TEXT_FORMATS), REQUIRED, "format of the output", "target_format")
    add("--input --dataroot", text, REQUIRED, "folder of the files to read")
    add(OUTPUT, text, REQUIRED, "folder that receives the converted files")
    add("--phase", several(choice(PHASES)), list(PHASES), "which lists")
    add("--dataset_mode", choice(("fashion", "market")), "fashion", "frame and names")
    return parser.parse(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    root = existing_folder(options.input, "--input", "expected the folder of the files to convert")
    output, mode = Path(options.output), options.dataset_mode
    source, target = TEXT_FORMATS[options.source_format], TEXT_FORMATS[options.target_format]
    for phase in options.phase:
        present = (output / table.format(phase=phase) for table in target.tables(mode))
        for path in filter(Path.exists, present):
            raise UserError(
                f"{path} exists already; expected a folder without {options.target_format} files "
                f"of {phase}: choose another --output."
            )
        data = source.read(root, phase, mode)
        target.write(output, phase, data, mode)
        print(
            f"{phase}: {len(data.pairs):,} pairs, {len(data.keypoints):,} keypoint rows, "
            f"{len(data.images):,} image names"
        )
        for note in data.notes[:20]:
            print(f"  note: {note}")
        if len(data.notes) > 20:
            print(f"  … {len(data.notes) - 20:,} more notes")
    return 0


if __name__ == "__main__":
    run_main(main)
