"""Convert pairs and keypoints between the text formats of the published systems.

    python script/convert_annotations.py --from patn --to magpt \
        --input ./dataset/fashion --output ./dataset/DeepFashion

  patn   fasion-resize-pairs-<phase>.csv, fasion-resize-annotation-<phase>.csv (DPTN, DPTN-TA too)
  gfla   the same tables called fasion-pairs-<phase>.csv, fasion-annotation-<phase>.csv
  magpt  <phase>_img_pairs.csv, <phase>_img_keypoints.csv, <phase>_img_list.csv
  nted   <phase>_pairs.txt, <phase>.lst and pose/<path>.txt (NTED, PIDM, the LMDB data set)

What a format cannot hold is printed, with counts. PATN to any other format and back loses nothing
but the choice of which coordinate of a missing joint was -1, and fractions of pixels in MAGPT.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data.prepare.convert import TEXT_FORMATS
from util.errors import UserError
from util.run.main import run_main
from util.tables.frames import Conversion
from util.tables.layouts import PHASES
from util.tables.nted import ORDERS


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--from", dest="source_format", choices=tuple(TEXT_FORMATS), required=True)
    add("--to", dest="target_format", choices=tuple(TEXT_FORMATS), required=True)
    add("--input", required=True, help="folder of the files to read")
    add("--output", required=True, help="folder that receives the converted files")
    add("--phase", nargs="+", choices=PHASES, default=list(PHASES))
    add("--dataset_mode", choices=("fashion", "market"), default="fashion", help="frame and names")
    add(
        "--outside",
        choices=("keep", "missing"),
        default="keep",
        help="joints that the 176 pixels wide crop cuts off, coming from magpt or nted",
    )
    add(
        "--pairs_order",
        choices=ORDERS,
        default="target_first",
        help="of the lines of NTED's lists; its loader takes the target first",
    )
    add(
        "--overwrite", action="store_true", help="write into a folder that holds such files already"
    )
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(arguments)


def refuse_overwriting(output: Path, name: str, phase: str, conversion: Conversion) -> None:
    """UserError when tables of the target format are there already."""
    tables = (output / table.format(phase=phase) for table in TEXT_FORMATS[name].tables(conversion))
    for path in filter(Path.exists, tables):
        raise UserError(
            f"{path} exists already; expected a folder without {name} files of {phase}: "
            "choose another --output, or replace them with --overwrite."
        )


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    root, output = Path(options.input), Path(options.output)
    conversion = Conversion(options.dataset_mode, options.outside == "keep", options.pairs_order)
    source, target = TEXT_FORMATS[options.source_format], TEXT_FORMATS[options.target_format]
    if not root.is_dir():
        raise UserError(
            f"--input {root} is no folder; expected the folder of the files to convert."
        )
    for phase in options.phase:
        if not options.overwrite:
            refuse_overwriting(output, options.target_format, phase, conversion)
        data = source.read(root, phase, conversion)
        target.write(output, phase, data, conversion)
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
