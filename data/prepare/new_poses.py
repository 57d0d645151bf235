"""Which new pictures a person of a re-identification data set gets: source, pose and name."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from data.prepare.identities import group_by_identity, is_distractor, recognise_rule
from util.errors import UserError
from util.skeleton import facing, present

MARK = "_gen"  # 0002_c1s1_000451_03.jpg -> 0002_c1s1_000451_03_gen00.jpg


@dataclass(frozen=True)
class NewPicture:
    """One picture to generate."""

    name: str
    identity: str
    source: str  # image of the person
    pose: str  # image of somebody else who has the pose
    view: str  # of both: front, back, left, right


def plan(
    keypoints: Mapping[str, np.ndarray],  # image name -> (18, 2)
    count: int,  # new pictures of every person
    seed: int,
    min_joints: int = 0,
) -> tuple[list[NewPicture], list[str]]:
    """The pictures to make, and the people of whom none can be made.

    A person's photographs take turns as sources; each pose is drawn from other people who look the
    same way, every pose once before one comes again. What a person gets depends on the seed and the
    identity, not on ``count``: more pictures continue the same row. Without the trunk's four joints
    the view is unknown: such images are neither sources nor poses.
    """
    people = _people(keypoints)
    views = {
        name: facing(points)
        for name, points in keypoints.items()
        if present(points).sum() >= min_joints
    }
    pictures: list[NewPicture] = []
    left_out = []
    for identity, names in people.items():
        others: dict[str, list[str]] = {}
        for other, theirs in people.items():
            for name in theirs if other != identity else ():
                others.setdefault(views.get(name) or "", []).append(name)
        sources = [name for name in names if views.get(name) and others.get(views[name])]
        if not sources:
            left_out.append(identity)
            continue
        pictures += _of_person(identity, sources, views, others, count, seed)
    return pictures, left_out


def _people(names: Iterable[str]) -> dict[str, list[str]]:
    """Identity -> its images, of a list of Market-1501."""
    names = list(names)
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


def _of_person(
    identity: str,
    sources: Sequence[str],
    views: Mapping[str, str],
    others: Mapping[str, list[str]],  # view -> images of other people
    count: int,
    seed: int,
) -> list[NewPicture]:
    rng = random.Random(f"{seed} {identity}")
    sources = rng.sample(sources, len(sources))
    waiting: dict[str, list[str]] = {}
    pictures = []
    for number in range(count):
        source = sources[number % len(sources)]
        view = views[source]
        if not waiting.get(view):
            waiting[view] = rng.sample(others[view], len(others[view]))
        name = f"{PurePosixPath(source).stem}{MARK}{number:02}.jpg"
        pictures.append(NewPicture(name, identity, source, waiting[view].pop(), view))
    return pictures
