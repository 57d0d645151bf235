"""Kinds of values that options hold: how a word is read, which values are allowed, what to say.

A kind is declared with its option and is the only place that checks the value: words of a command
line, options saved beside a checkpoint and options given by a program all go through it.
"""

import math
import os
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

LARGEST_SIDE = 4096  # pixels
Add = Callable[..., None]  # declares an option: see options/parser.py
REQUIRED = object()  # as default: the option must be given


@dataclass(frozen=True)
class Kind:
    """Words or values of one kind; what does not fit is an ArgumentTypeError."""

    expected: str  # "a whole number, 1 or more"
    python: type = str  # int, float, str, list, or bool (a flag, which takes no word)
    allows: Callable[[Any], bool] = lambda value: True
    nargs: str | int | None = None  # "+": a list
    choices: tuple[str, ...] = ()
    normal: Callable[[Any], Any] = lambda value: value  # another way to write the same value
    read: Callable[[str], Any] | None = None  # a word as a value; default: ``python``

    def __call__(self, word: str) -> Any:
        """The value that one word of a command line stands for."""
        try:
            value = (self.read or self.python)(word)
        except ValueError:
            raise self.refusal(word) from None
        return self.one(value)

    def one(self, value: Any) -> Any:
        """One value, or one item of a list, checked."""
        numbers = (int, float) if self.python is float else (self.python,)
        if not isinstance(value, numbers) or (isinstance(value, bool) and self.python is not bool):
            raise self.refusal(value)
        try:
            value = self.normal(self.python(value))
            if self.allows(value):
                return value
        except (OverflowError, TypeError, ValueError):
            pass
        raise self.refusal(value)

    def whole(self, value: Any) -> Any:
        """A value that is no word of a command line, such as a saved one, checked."""
        if self.nargs is None:
            return self.one(value)
        counted = isinstance(value, (list, tuple)) and len(value)
        if not counted or self.nargs not in ("+", counted):
            raise self.refusal(value)
        return self.listed([self.one(item) for item in value])

    def listed(self, values: list) -> Any:
        """The list of checked items as the value of the option."""
        return values

    def refusal(self, value: Any) -> ArgumentTypeError:
        """What was found and what was expected."""
        try:
            shown = str(value) if isinstance(value, (str, int, float)) else repr(value)
        except ValueError:  # Python does not print whole numbers of more than 4,300 digits
            shown = "a number of thousands of digits"
        shown = shown if len(shown) <= 100 else shown[:100] + " ..."
        near = get_close_matches(shown, self.choices, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return ArgumentTypeError(f"found {shown or 'nothing'}, expected {self.expected}{hint}")


@dataclass(frozen=True)
class _Size(Kind):
    def listed(self, values: list) -> tuple[int, int]:
        if len(values) > 2:
            raise self.refusal(" ".join(map(str, values)))
        return tuple((values * 2)[:2])


def whole_number(low: int, high: int = 2**31 - 1) -> Kind:
    """Whole numbers from ``low`` to ``high``."""
    most = "or more" if high == 2**31 - 1 else f"to {high}"
    return Kind(f"a whole number, {low} {most}", int, lambda value: low <= value <= high)


def number(low: float = -math.inf, high: float = math.inf, above: bool = False) -> Kind:
    """Finite numbers from ``low`` to ``high``, with ``above`` without ``low`` itself."""
    words = f"more than {low:g}" if above else f"{low:g} or more"
    words = words if high == math.inf else f"{low:g} to {high:g}"
    words = "any" if low == -math.inf else words

    def allows(value: float) -> bool:
        return math.isfinite(value) and low <= value <= high and not (above and value == low)

    return Kind(f"a finite number, {words}", float, allows)


def choice(of: Iterable[str], normal: Callable[[str], str] = str) -> Kind:
    """One of some words, such as the keys of the dictionary that implements them."""
    words = tuple(of)
    return Kind("one of " + ", ".join(words), str, words.__contains__, None, words, normal)


def several(kind: Kind, count: int | str = "+") -> Kind:
    """A list of values of one kind, of any length above 0 or of ``count``."""
    return Kind(kind.expected, kind.python, kind.allows, count, kind.choices, kind.normal)


def _is_folder_name(name: str) -> bool:
    plain = name not in ("", ".", "..") and Path(name).name == name and name.isprintable()
    return plain and len(os.fsencode(name)) <= 200  # 255, less what temporary names add


def _is_server(name: str) -> bool:
    parts = urlsplit(name if "://" in name else f"http://{name}")
    return "\0" not in name and bool(parts.hostname) and parts.port != 0


flag = Kind("true or false", bool)
text = Kind("text", str, lambda value: "\0" not in value)
path = Kind("a path", Path, lambda value: "\0" not in str(value))
folder_name = Kind("a single name without slashes, at most 200 bytes", str, _is_folder_name)
server_name = Kind("a host name or URL, its port 1 to 65535", str, _is_server)
positive_int = whole_number(1)
natural = whole_number(0)
positive = number(0, above=True)
weight = number(0)
fraction = number(0, 1)
rate = number(0.01, 1000)  # pictures a second
size = _Size(
    f"one number (a square) or height and width, 1 to {LARGEST_SIDE}",
    int,
    lambda side: 1 <= side <= LARGEST_SIDE,
    "+",
)
