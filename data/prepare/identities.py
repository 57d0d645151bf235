"""Who is on a photograph, read from its name, and which new pictures a person gets."""

import itertools
import random
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from util.errors import UserError
from util.names import (
    flatten_deepfashion_path,
    is_deepfashion_path,
    is_flat_deepfashion_name,
    unflatten_deepfashion_name,
)
from util.skeleton import facing, present

_MARKET = re.compile(r"(-1|[0-9]{4})_c[0-9]")  # 0002_c1s1_000451_03.jpg


def _deepfashion(name: str) -> str:
    flat = PurePosixPath(name).name
    flat = flat if is_flat_deepfashion_name(flat) else flatten_deepfashion_path(name)
    return unflatten_deepfashion_name(flat).rpartition("/")[0]


def _prefix(name: str) -> str:
    return PurePosixPath(name).stem.split("_")[0]


def _folder(name: str) -> str:
    folder = PurePosixPath(name).parent.as_posix()
    if folder == ".":
        raise UserError(
            f"the image {name!r} is in no folder; expected one folder a person: sort the images "
            "into folders, or choose another --identity."
        )
    return folder


RULES: dict[str, Callable[[str], str]] = {
    "prefix": _prefix,  # text before the first "_": anna_01.jpg -> anna
    "folder": _folder,  # anna/01.jpg -> anna
    "deepfashion": _deepfashion,  # WOMEN/Dresses/id_00000001
    "market": _prefix,  # 0002_c1s1_000451_03.jpg -> 0002
}


def identity_rule(rule: str) -> Callable[[str], str]:
    """A function name -> identity: one of `RULES`, or a regular expression with one group."""
    if rule in RULES:
        return RULES[rule]
    try:
        pattern = re.compile(rule)
        problem = f"has {pattern.groups} groups" if pattern.groups != 1 else None
    except re.error as error:
        problem = f"is no regular expression ({error})"
    if problem:
        raise UserError(
            f"--identity {rule!r} {problem}; expected one of {', '.join(RULES)}, or a regular "
            r"expression whose one group is the identity, such as '^(\w+)-\d+'."
        )

    def identity(name: str) -> str:
        match = pattern.search(name)
        if not match or match.group(1) is None:
            raise UserError(
                f"--identity {rule!r} does not match the image name {name!r}; expected a match for "
                "every image: correct the expression."
            )
        return match.group(1)

    return identity


def identity_of(name: str) -> str:
    """The person on one image, by the rule that its name asks for."""
    return RULES[recognise_rule([name])](name)


def recognise_rule(names: Collection[str]) -> str:
    """The rule that the names of a published data set ask for, else ``prefix``.

    UserError when they are a mixture: under one rule for all, pairs would join two people.
    """
    files = [PurePosixPath(name).name for name in names]
    known = {
        "deepfashion": sum(map(is_flat_deepfashion_name, files))
        + sum(map(is_deepfashion_path, names)),
        "market": sum(_MARKET.match(file) is not None for file in files),
    }
    rule, count = max(known.items(), key=lambda item: item[1])
    if 0 < count < len(names):
        raise UserError(
            f"{count:,} of {len(names):,} image names are those of {rule}, the others are not: say "
            f"with --identity how names tell people apart ({', '.join(RULES)}, or a regular "
            "expression with one group)."
        )
    return rule if count else "prefix"


def is_distractor(name: str) -> bool:
    """Market-1501: detections that show nobody (0000) or too little of somebody (-1)."""
    shown = _MARKET.match(PurePosixPath(name).name)
    return shown is not None and shown[1] in ("-1", "0000")


def group_by_identity(names: Iterable[str], rule: str) -> dict[str, list[str]]:
    """Identity -> its image names, both in order of appearance."""
    identity = identity_rule(rule)
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(identity(name), []).append(name)
    return groups


# --- new pictures of every person ---------------------------------------------------------------

MARK = "_gen"  # 0002_c1s1_000451_03.jpg -> 0002_c1s1_000451_03_gen00.jpg


def plan(
    keypoints: Mapping[str, np.ndarray],  # image name -> (18, 2)
    count: int,  # new pictures of every person
    seed: int,
    min_joints: int = 0,
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The pictures to make, name -> identity, source, pose and view, and people without any.

    A person's photographs take turns as sources; each pose is an image of other people who look the
    same way, every pose once before one comes again. What a person gets depends on the seed and the
    identity, not on ``count``: more pictures continue the same row. Without the trunk's four joints
    the view is unknown: such images are neither sources nor poses.
    """
    people = _people(list(keypoints))
    views = {
        name: facing(points)
        for name, points in keypoints.items()
        if present(points).sum() >= min_joints
    }
    by_view: dict[str, list[str]] = {}
    for name in (name for names in people.values() for name in names if views.get(name)):
        by_view.setdefault(views[name], []).append(name)
    pictures, left_out = {}, []
    for identity, names in people.items():
        own = set(names)
        others = {view: [n for n in by_view[view] if n not in own] for view in by_view}
        sources = [name for name in names if others.get(views.get(name))]
        if not sources:
            left_out.append(identity)
            continue
        rng = random.Random(f"{seed} {identity}")
        draws = _draw(sources, views, others, rng)
        for number, (source, pose) in enumerate(itertools.islice(draws, count)):
            name = f"{PurePosixPath(source).stem}{MARK}{number:02}.jpg"
            pictures[name] = {
                "identity": identity, "source": source, "pose": pose, "view": views[source]
            }  # fmt: skip
    return pictures, left_out


def _people(names: list[str]) -> dict[str, list[str]]:
    """Identity -> its images, of a list of Market-1501."""
    if recognise_rule(names) != "market":
        raise UserError(
            f"the image {names[0]} has no name of Market-1501; expected names such as "
            "0002_c1s1_000451_03.jpg, which begin with the person and the camera: rename the images"
        )
    people = group_by_identity((name for name in names if not is_distractor(name)), "market")
    if len(people) < 2:
        raise UserError(
            f"found {len(people)} people by the names of the images; expected at least two, since "
            "poses come from other people"
        )
    return people


def _draw(
    sources: Sequence[str],
    views: Mapping[str, str],
    others: Mapping[str, list[str]],  # view -> images of other people
    rng: random.Random,
) -> Iterator[tuple[str, str]]:
    """Source and pose of one picture after another, without end."""
    sources = rng.sample(sources, len(sources))
    waiting: dict[str, list[str]] = {}
    for source in itertools.cycle(sources):
        view = views[source]
        if not waiting.get(view):
            waiting[view] = rng.sample(others[view], len(others[view]))
        yield source, waiting[view].pop()
