r"""Make pairs lists for your own data set: every two images of one person.

    python script/make_pairs.py --keypoints annotation.csv --images photos/ \
        --output ./dataset/mine --identity prefix --test_share 0.1

``--keypoints`` is a table ``name:keypoints_y:keypoints_x`` (from script/extract_keypoints.py).
People are told apart by ``--identity``: ``prefix`` (text before the first "_"), ``folder``,
``deepfashion``, ``market``, or a regular expression with one group; names of published data sets
are recognised. With ``--test_share`` whole people go to the test set, so that no person is in both.
With ``--images`` the photographs are copied to train/ and test/. Of Market-1501, distractors and
images without both shoulders and hips are left out, as published.
"""

import itertools
import random
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import numpy as np

from data.prepare.identities import group_by_identity, is_distractor, recognise_rule
from options.parser import OUTPUT, Parser
from util.errors import UserError
from util.files import make_folder, write_file
from util.kinds import REQUIRED, choice, flag, natural, number, positive_int, text
from util.run.main import run_main
from util.skeleton import present
from util.tables.layouts import LAYOUTS, PHASES
from util.tables.patn import read_keypoints, write_keypoints, write_pairs

TORSO = (2, 5, 8, 11)  # both shoulders, both hips


def parse_arguments(arguments: list[str] | None = None) -> Namespace:
    parser = Parser(__doc__)
    add = parser.option
    add("--keypoints", text, REQUIRED, "table of all images")
    add(f"{OUTPUT} --dataroot", text, REQUIRED, "data root that receives the lists")
    add("--images", text, None, "folder of the images, copied to OUTPUT/train and OUTPUT/test")
    add("--dataset_mode", choice(("fashion", "market")), "fashion", "file names")
    rules = "prefix, folder, deepfashion, market or a regex; default: as the names are"
    add("--identity", text, None, rules)
    add("--phase", choice(PHASES), "train", "of everything, without --test_share")
    add("--test_share", number(0.001, 0.999), None, "share of the people for testing")
    add("--max_pairs", positive_int, None, "pairs of each list, drawn at random")
    add("--seed", natural, 0, "of the draws")
    add("--overwrite", flag, False, "replace lists that exist")
    return parser.parse(arguments)


def read_people(options: Namespace, table: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """Identity -> its images; of Market, as published, those that show the torso of a person."""
    names = list(table)
    if options.identity is None:
        options.identity = recognise_rule(names)
        print(f"people are told apart by --identity {options.identity}")
    if options.identity == "market":
        shown = (name for name in names if present(table[name])[list(TORSO)].all())
        names = [name for name in shown if not is_distractor(name)]
    if not names:
        raise UserError(
            f"no image of {options.keypoints} can be used; expected people, named as in "
            "Market-1501, of whom both shoulders and both hips are seen: check --identity."
        )
    return group_by_identity(names, options.identity)


def split(
    people: dict[str, list[str]], options: Namespace, rng: random.Random
) -> dict[str, dict[str, list[str]]]:
    """Phase -> its people; at least one person on each side of a split."""
    if options.test_share is None:
        return {options.phase: people}
    if len(people) < 2:
        raise UserError(
            f"the images show {len(people)} people ({', '.join(people)}); expected two or more for "
            "--test_share: check --identity."
        )
    count = min(max(1, round(len(people) * options.test_share)), len(people) - 1)
    test = set(rng.sample(list(people), count))
    parts: dict[str, dict[str, list[str]]] = {phase: {} for phase in PHASES}
    for person, names in people.items():
        parts["test" if person in test else "train"][person] = names
    return parts


def pairs_of(
    phase: str, groups: dict[str, list[str]], limit: int | None, rng: random.Random
) -> list[tuple[str, str]]:
    """Every two images of each person in both orders, or ``limit`` of these pairs."""
    pairs = [pair for names in groups.values() for pair in itertools.permutations(names, 2)]
    if not pairs:
        first = next(iter(groups.items()), None)
        raise UserError(
            f"none of the {len(groups):,} people of {phase} has two images, the first is {first}: "
            "check --identity."
        )
    if limit is None or len(pairs) <= limit:
        return pairs
    return [pairs[i] for i in sorted(rng.sample(range(len(pairs)), limit))]


def table_paths(output: Path, phase: str, options: Namespace) -> list[Path]:
    """Published names of the pairs and the keypoint table; UserError when one would be lost."""
    layout = LAYOUTS[options.dataset_mode]
    paths = [output / names[0].format(phase=phase) for names in (layout.pairs, layout.annotations)]
    for path in paths:
        if path.exists() and not options.overwrite:
            raise UserError(
                f"{path} exists already; expected an --output without lists of {phase}: choose "
                "another one, or replace it with --overwrite."
            )
    return paths


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    rng = random.Random(options.seed)
    table, output = read_keypoints(options.keypoints), Path(options.output)
    people = read_people(options, table)
    parts = split(people, options, rng)
    paths = {phase: table_paths(output, phase, options) for phase in parts}
    source = Path(options.images) if options.images else None
    for name in itertools.chain(*people.values()) if source else ():
        if not (source / name).is_file():
            raise UserError(
                f"there is no image {source / name} although the keypoint table names it; expected "
                "every image below --images: add it or remove its row."
            )
    pairs = {phase: pairs_of(phase, part, options.max_pairs, rng) for phase, part in parts.items()}
    for phase, (pairs_path, keypoints_path) in paths.items():
        names = [name for own in parts[phase].values() for name in own]
        write_pairs(pairs_path, pairs[phase])
        write_keypoints(keypoints_path, {name: table[name] for name in names})
        print(f"{pairs_path}: {len(pairs[phase]):,} pairs of {len(names):,} images")
        for name in names if source else ():
            make_folder((output / phase / name).parent)
            write_file(output / phase / name, (source / name).read_bytes())
    return 0


if __name__ == "__main__":
    run_main(main)
