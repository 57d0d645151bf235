"""File names: result names, flattened DeepFashion names, file ids, which names are let in, and
plug-ins: ``models/foo_model.py`` with ``class FooModel`` is ``--model foo``."""

import importlib
import pkgutil
import re
from collections.abc import Callable, Collection, Hashable, Iterable
from difflib import get_close_matches
from pathlib import Path, PurePath, PurePosixPath
from types import ModuleType
from typing import TypeVar

from util.errors import UserError

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png")
SEPARATOR, SUFFIX = "_2_", "_vis"
PAGE_IMAGES = "page_images"  # folder of the pictures of a page, beside the results
POSE_PICTURE = "_pose"  # ends the stem of the picture of an image's skeleton there
MAX_COMPONENT_BYTES, MAX_NAME_BYTES = 255, 1024
Name = TypeVar("Name", str, Path)

# Letters, digits and harmless signs, one folder level: nearly every name of the published lists.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,200}")
_DRIVE = re.compile(r"[A-Za-z]:")
# Digits are ASCII and categories hold none, so that flattening loses nothing.
_FLAT = re.compile(
    r"fashion(WOMEN|MEN)([^0-9/]+)id([0-9]{8})([0-9]{2})_([0-9]+)([A-Za-z]+)(\.[A-Za-z]+)"
)
_PATH = re.compile(
    r"(WOMEN|MEN)/([^0-9/\\]+)/id_([0-9]{8})/([0-9]{2})_([0-9]+)_([A-Za-z]+)(\.[A-Za-z]+)"
)


def check_relative_name(name: str, where: str = "") -> str:
    """Return ``name`` unchanged when it stays inside the folder it is joined to.

    Names are relative, use ``/`` between folders and may hold spaces and any unicode letter. Raises
    UserError for everything that could leave the data root or that no file can be called; ``where``
    ("pairs.csv, row 7") opens the sentence.
    """
    problem = None if _PLAIN.fullmatch(name) else _name_problem(name)
    if problem:
        raise UserError(
            f"{where + ': ' if where else ''}the name {_shown(name)} {problem}; expected a file "
            "name relative to the image folder, such as 'person1_front.jpg': correct or remove it."
        )
    return name


def _name_problem(name: str) -> str | None:
    """What is wrong with a name, as the end of a sentence; None when nothing is."""
    parts = name.split("/")
    try:
        lengths = [len(part.encode("utf-8")) for part in (name, *parts)]
    except UnicodeEncodeError:
        return "is not valid unicode"
    too_long = lengths[0] > MAX_NAME_BYTES or max(lengths[1:]) > MAX_COMPONENT_BYTES
    checks = (
        (not name.strip(), "is empty"),
        (any(ord(c) < 32 or ord(c) == 127 for c in name), "holds a control character"),
        ("\\" in name, "holds a backslash"),
        (name.startswith("/") or bool(_DRIVE.match(name)), "is an absolute path"),
        (".." in parts, "climbs out of its folder with '..'"),
        ("." in parts or "" in parts, "holds an empty or '.' folder"),
        (name != name.strip(), "begins or ends with a space"),
        (too_long, f"is longer than {MAX_COMPONENT_BYTES} bytes"),
    )
    return next((problem for failed, problem in checks if failed), None)


def _shown(name: str) -> str:
    """A name for a message: quoted, control characters visible, never longer than a line."""
    return repr(name) if len(name) <= 100 else f"{name[:100]!r}…"


def is_image(path: str | PurePath, extensions: Collection[str] = IMAGE_EXTENSIONS) -> bool:
    """Whether a path below a folder is a picture's, by its extension.

    Nothing hidden is one: what viewers and notebooks keep in .thumbnails/ or .ipynb_checkpoints/,
    and what macOS stores in __MACOSX/ and as ._x.jpg beside x.jpg.
    """
    parts = str(path).replace("\\", "/").split("/")
    hidden = {p for p in parts if p.startswith(".") or p == "__MACOSX"} - {".", ".."}
    return not hidden and parts[-1].lower().endswith(tuple(extensions))


def stem(name: str) -> str:
    """Name without slashes and without its last extension: what result names are made of."""
    path = PurePosixPath(name)
    return path.stem if len(path.parts) < 2 else file_id(name)


def refuse_alike(names: Iterable[Name], key: Callable[[Name], Hashable], why: str) -> None:
    """UserError for two different names of one key, which takes the place of {key} in ``why``."""
    owners: dict[Hashable, Name] = {}
    for name in names:
        other = owners.setdefault(key(name), name)
        if other != name:
            why = why.replace("{key}", str(key(name)))
            raise UserError(f"{str(name)!r} and {str(other)!r} {why}; rename one of them")


def result_name(source_name: str, target_name: str, extension: str = "png") -> str:
    """Name of the image generated for a pair: ``<source stem>_2_<target stem>_vis.<extension>``.

    Names inside folders lose their slashes, so that a result never leaves its folder.
    Raises UserError when the result would be too long for a file name.
    """
    for name in (source_name, target_name):
        check_relative_name(name)
    name = f"{stem(source_name)}{SEPARATOR}{stem(target_name)}{SUFFIX}.{extension.lstrip('.')}"
    size = len(name.encode("utf-8"))
    if size > MAX_COMPONENT_BYTES:
        raise UserError(
            f"the result of {source_name!r} and {target_name!r} needs a file name of {size} bytes, "
            f"at most {MAX_COMPONENT_BYTES} are possible: use shorter image names."
        )
    return name


def check_result_names(pairs: Iterable[tuple[str, str]], page: bool = True) -> None:
    """Refuse pairs (source name, target name) whose results would overwrite each other.

    Two images of one stem, two pairs of one result name and, with a result ``page``, the skeleton
    of ``x.jpg`` over the photo ``x_pose.jpg``.
    """
    owners: dict[str, str] = {}

    def claim(file: str, owner: str, hint: str = "") -> None:
        other = owners.setdefault(file, owner)
        if other != owner:
            raise UserError(
                f"{other} and {owner} would get the same name {file!r}; rename one of the images, "
                f"in the tables too{hint}"
            )

    for source, target in pairs:
        for name in (source, target):
            claim(stem(name), f"the image {name!r}")
        claim(result_name(source, target), f"the result of {source!r} to {target!r}")
    for name, owner in list(owners.items()) if page else []:
        if f"{name}{POSE_PICTURE}" in owners:
            hint = ", or leave the page out with --no_html"
            claim(f"{name}{POSE_PICTURE}", f"the skeleton of {owner}", hint)


def result_splits(file: str) -> list[tuple[str, str]]:
    """Every (source stem, target stem) that a result name can stand for, the published one first.

    The published rule takes the last ``_2_`` and the first ``_vis`` after it; own data may hold
    either inside a name. Where the name ends in ``_vis``, as test.py writes it, that is the mark.
    """
    name = PurePosixPath(file).stem
    ends = [len(name) - len(SUFFIX)] if name.endswith(SUFFIX) else _places(SUFFIX, name)
    return [
        (name[:start], name[start + len(SEPARATOR) : end])
        for start in reversed(_places(SEPARATOR, name))
        for end in ends
        if start and start + len(SEPARATOR) < end
    ]


def parse_result_name(file: str) -> tuple[str, str]:
    """Source and target stem of a result name, by the published rule of :func:`result_splits`."""
    splits = result_splits(file)
    if not splits:
        raise UserError(
            f"the file name {_shown(PurePosixPath(file).name)} is not a result name; expected "
            f"'<source>{SEPARATOR}<target>{SUFFIX}.png' as written by test.py: move it elsewhere."
        )
    return splits[0]


def _places(part: str, name: str) -> list[int]:
    """Where ``part`` begins in ``name``, overlapping places included."""
    return [match.start() for match in re.finditer(f"(?={part})", name)]


def flatten_deepfashion_path(path: str) -> str:
    """Flat name of a DeepFashion In-shop image, as in PATN's lists.

    ``[…/]WOMEN/Blouses_Shirts/id_00000693/02_3_back.jpg`` becomes
    ``fashionWOMENBlouses_Shirtsid0000069302_3back.jpg``. Raises UserError for any other shape.
    """
    match = _deepfashion(path)
    if not match:
        raise UserError(
            f"{_shown(path)} is not the path of a DeepFashion image; expected "
            "'WOMEN/<Category>/id_00000000/01_1_front.jpg' or the same under MEN."
        )
    gender, category, identity, number, view, word, extension = match.groups()
    return f"fashion{gender}{category}id{identity}{number}_{view}{word}{extension}"


def is_deepfashion_path(path: str) -> bool:
    """Whether a path ends as those of the DeepFashion release do."""
    return _deepfashion(path) is not None


def _deepfashion(path: str) -> re.Match | None:
    return _PATH.fullmatch("/".join(PurePosixPath(path).parts[-4:]))


def unflatten_deepfashion_name(name: str) -> str:
    """Path below ``img/`` of a flat DeepFashion name; the inverse of `flatten_deepfashion_path`."""
    match = _FLAT.fullmatch(name)
    if not match:
        raise UserError(
            f"{_shown(name)} is not a flattened DeepFashion name; expected "
            "'fashionWOMEN<Category>id0000000001_1front.jpg' or the same with MEN."
        )
    gender, category, identity, number, view, word, extension = match.groups()
    return f"{gender}/{category}/id_{identity}/{number}_{view}_{word}{extension}"


def is_flat_deepfashion_name(name: str) -> bool:
    """Whether a name has the shape of the published fashion lists."""
    return _FLAT.fullmatch(name) is not None


def file_id(path: str) -> str:
    """MAGPT's key of an image: the path without extension, ``/`` and ``\\`` deleted."""
    folder, _, name = path.rpartition("/")
    base = name.rpartition(".")[0] or name
    return (folder + base).replace("/", "").replace("\\", "")


def _key(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def plugin_names(package: ModuleType, suffix: str, shared: Collection[str]) -> list[str]:
    """Names of the files ``<name>_<suffix>.py`` of ``package`` but those of base classes."""
    modules = (m.name for m in pkgutil.iter_modules(package.__path__))
    names = (m.removesuffix(f"_{suffix}") for m in modules if m.endswith(f"_{suffix}"))
    return sorted(name for name in names if name not in shared)


def find_plugin(
    package: ModuleType, suffix: str, shared: Collection[str], option: str, name: str
) -> type:
    """The class of ``option name``, without regard to case; UserError with the nearest match."""
    known = {_key(n): n for n in plugin_names(package, suffix, shared)}
    if _key(name) not in known:
        near = get_close_matches(_key(name), known, n=1)
        hint = f"; did you mean {known[near[0]]}?" if near else ""
        raise UserError(f"{option} {name} is unknown; choices: {', '.join(known.values())}{hint}")
    place = f"{package.__name__}.{known[_key(name)]}_{suffix}"
    for attribute, value in vars(importlib.import_module(place)).items():
        if attribute.lower() == _key(name) + suffix and isinstance(value, type):
            return value
    wanted = "".join(word.capitalize() for word in known[_key(name)].split("_")) + suffix.title()
    raise UserError(f"{place.replace('.', '/')}.py has no class {wanted}; add it or rename it")
