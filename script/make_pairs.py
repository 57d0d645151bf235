r"""Make pairs lists for your own data set: every two images of one person.

    python script/make_pairs.py --keypoints annotation.csv --images photos/ \
        --output ./dataset/mine --identity prefix --test_share 0.1

``--keypoints`` is a table ``name:keypoints_y:keypoints_x`` (from script/extract_keypoints.py).
People are told apart by ``--identity``: ``prefix`` (text before the first "_"), ``folder``,
``deepfashion``, ``market``, or a regular expression with one group; names of published data sets
are recognised. With ``--test_share`` whole
people go to the test set, so that no person is in both. With ``--images`` the photographs are
copied to train/ and test/. The published rule of Market-1501 is
``--identity market --require torso --dataset_mode market``.
"""

from __future__ import annotations

import itertools
import random
import sys
from argparse import Namespace
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import numpy as np

from data.prepare.identities import group_by_identity, is_distractor, recognise_rule
from options.parser import OUTPUT, Parser, add_debug
from util.errors import UserError
from util.files import make_folder, write_file
from util.kinds import REQUIRED, choice, flag, natural, number, positive_int, text
from util.run.main import run_main
from util.skeleton import present
from util.tables.layouts import LAYOUTS, PHASES
from util.tables.patn import read_keypoints, write_keypoints, write_pairs

TORSO = (2, 5, 8, 11)  # both shoulders, both hips
REQUIREMENTS = {"none": (), "torso": TORSO}


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
    share = number(0.001, 0.999)
    add("--test_share", share, None, "share of the people, between 0 and 1, for testing")
    add("--one_direction", flag, False, "one pair of two images instead of both orders")
    add("--max_per_identity", positive_int, None, "pairs of one person, drawn at random")
    add("--max_pairs", positive_int, None, "training pairs in all, drawn at random")
    add("--max_test_pairs", positive_int, None, "test pairs in all, drawn at random")
    add("--require", choice(REQUIREMENTS), "none", "joints an image must show")
    add("--min_joints", natural, 0, "joints an image must show at least")
    add("--seed", natural, 0, "of the draws")
    add("--overwrite", flag, False, "replace lists that exist")
    add_debug(add)
    return parser.parse(arguments)


def usable(name: str, points: np.ndarray, options: Namespace) -> bool:
    """Whether an image may be in a pair: shows enough joints, and is no distractor of Market."""
    seen = present(points)
    if options.identity == "market" and is_distractor(name):
        return False
    return bool(
        seen[list(REQUIREMENTS[options.require])].all() and seen.sum() >= options.min_joints
    )


def split_people(
    people: list[str], share: float | None, phase: str, rng: random.Random
) -> dict[str, list[str]]:
    """Phase -> identities; at least one person on each side of a split."""
    if share is None:
        return {phase: people}
    if len(people) < 2:
        raise UserError(
            f"all images show one person ({people[0]!r}); expected two people or more for "
            "--test_share: check --identity."
        )
    count = min(max(1, round(len(people) * share)), len(people) - 1)
    test = set(rng.sample(people, count))
    return {
        "train": [person for person in people if person not in test],
        "test": [person for person in people if person in test],
    }


def pairs_of(
    groups: list[list[str]], options: Namespace, limit: int | None, rng: random.Random
) -> list[tuple[str, str]]:
    """Pairs within each group, thinned at random to the asked numbers, in a fixed order."""
    choose = itertools.combinations if options.one_direction else itertools.permutations
    pairs = []
    for names in groups:
        pairs += _sample(list(choose(names, 2)), options.max_per_identity, rng)
    return _sample(pairs, limit, rng)


def pairs_of_phase(
    phase: str,
    groups: dict[str, list[str]],
    people: list[str],
    options: Namespace,
    rng: random.Random,
) -> list[tuple[str, str]]:
    """Pairs of the people of one phase; UserError when nobody has two images."""
    limit = options.max_test_pairs if phase == "test" else options.max_pairs
    pairs = pairs_of([groups[person] for person in people], options, limit, rng)
    if not pairs:
        raise UserError(
            f"none of the {len(people):,} people of {phase} has two images, the first is "
            f"{people[0]!r} with {groups[people[0]]}: check --identity."
        )
    return pairs


def _sample(items: list, limit: int | None, rng: random.Random) -> list:
    if limit is None or len(items) <= limit:
        return items
    return [items[i] for i in sorted(rng.sample(range(len(items)), limit))]


def check_images(source: Path, names: list[str]) -> None:
    """UserError for the first image that is missing, before anything is written."""
    for name in names:
        if not (source / name).is_file():
            raise UserError(
                f"there is no image {source / name} although the keypoint table names it; expected "
                "every image below --images: add it or remove its row."
            )


def copy_images(source: Path, target: Path, names: list[str]) -> None:
    """Copy images byte for byte; those that are there already are replaced."""
    for name in names:
        make_folder((target / name).parent)
        write_file(target / name, (source / name).read_bytes())


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
    if options.identity is None:
        options.identity = recognise_rule(table)
        print(f"people are told apart by --identity {options.identity}")
    names = [name for name, points in table.items() if usable(name, points, options)]
    print(f"{len(names):,} of {len(table):,} images show the required joints")
    if not names:
        raise UserError(
            f"no image of {options.keypoints} can be used; expected images that show the joints of "
            "--require and --min_joints: relax them."
        )
    groups = group_by_identity(names, options.identity)
    parts = split_people(list(groups), options.test_share, options.phase, rng)
    members = {phase: [n for p in people for n in groups[p]] for phase, people in parts.items()}
    paths = {phase: table_paths(output, phase, options) for phase in parts}
    if options.images:
        check_images(Path(options.images), names)
    pairs = {
        phase: pairs_of_phase(phase, groups, people, options, rng)
        for phase, people in parts.items()
    }
    for phase, (pairs_path, keypoints_path) in paths.items():
        write_pairs(pairs_path, pairs[phase])
        write_keypoints(keypoints_path, {name: table[name] for name in members[phase]})
        print(f"{pairs_path}: {len(pairs[phase]):,} pairs of {len(members[phase]):,} images")
        if options.images:
            copy_images(Path(options.images), output / phase, members[phase])
    return 0


if __name__ == "__main__":
    run_main(main)
