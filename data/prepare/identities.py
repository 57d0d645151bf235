"""Who is on a photograph, read from its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from pathlib import PurePosixPath

from util.errors import UserError
from util.names import (
    flatten_deepfashion_path,
    is_deepfashion_path,
    is_flat_deepfashion_name,
    unflatten_deepfashion_name,
)

_MARKET = re.compile(r"(-1|[0-9]{4})_c[0-9]")  # 0002_c1s1_000451_03.jpg


def _deepfashion(name: str) -> str:
    flat = name if is_flat_deepfashion_name(name) else flatten_deepfashion_path(name)
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
    except re.error as error:
        raise UserError(
            f"--identity {rule!r} is neither one of {', '.join(RULES)} nor a regular expression "
            f"({error})."
        ) from None
    if pattern.groups != 1:
        raise UserError(
            f"--identity {rule!r} has {pattern.groups} groups; expected one of {', '.join(RULES)}, "
            r"or a regular expression whose one group is the identity, such as '^(\w+)-\d+'."
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


def recognise_rule(names: Collection[str]) -> str:
    """The rule that the names of a published data set ask for, else ``prefix``.

    UserError when they are a mixture: under one rule for all, pairs would join two people.
    """
    known = {
        "deepfashion": sum(is_flat_deepfashion_name(n) or is_deepfashion_path(n) for n in names),
        "market": sum(_MARKET.match(PurePosixPath(n).name) is not None for n in names),
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
    return PurePosixPath(name).name.startswith(("-1", "0000"))


def group_by_identity(names: Iterable[str], rule: str) -> dict[str, list[str]]:
    """Identity -> its image names, both in order of appearance."""
    identity = identity_rule(rule)
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(identity(name), []).append(name)
    return groups
