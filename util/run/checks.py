"""Checks within a given time: each result is kept at once, a failure is a result too."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from util.files import write_atomically
from util.run.timing import at_most

Row = dict[str, object]  # of a check: "ok" (True, False or absent) and what was found


class Checks:
    """The clock of a list of checks in parts, and its results in a JSON file.

    Every part has its share of the time; what one leaves over goes to those after it.
    """

    def __init__(
        self,
        file: Path,
        seconds: float,  # for all parts
        shares: Mapping[str, float],  # of the time, by part, in their order
        about: Mapping[str, Any],  # what the results are about: device, versions
        say: Callable[[str], object],  # is given a line for every result
    ):
        self.file, self.shares, self.say = file, shares, say
        self.start = time.monotonic()
        self.last = self.end = self.start + seconds  # of all, and of the part under way
        self.results: dict[str, Any] = {**about, "rows": [], "not_reached": []}

    def begin(self, part: str) -> None:
        """From now on the time of ``part`` runs."""
        names = list(self.shares)
        to_come = names[names.index(part) :]
        share = self.shares[part] / sum(self.shares[name] for name in to_come)
        now = time.monotonic()
        self.end = now + share * (self.last - now)

    def left(self) -> float:
        """Seconds that are left to this part."""
        return self.end - time.monotonic()

    def run(self, part: str, name: str, work: Callable[[], Row]) -> None:
        """Do one check for no longer than is left, keep its result and say it."""
        if self.left() <= 0:
            self.results["not_reached"].append(f"{part}: {name}")
            self._keep()
            return
        begun = time.monotonic()
        try:
            with at_most(self.left()):
                row = work()
        except Exception as error:  # the other checks are still worth their time
            row = {"ok": False, "error": f"{type(error).__name__}: {error}"[:300]}
        row = {"part": part, "name": name, "s": round(time.monotonic() - begun, 2), **row}
        self.results["rows"].append(row)
        self._keep()
        self.say(line(row))

    def _keep(self) -> None:
        self.results["minutes"] = round((time.monotonic() - self.start) / 60, 2)
        write_atomically(self.file, json.dumps(self.results, indent=1).encode())

    def failed(self) -> bool:
        """Whether something was not right."""
        return any(row.get("ok") is False for row in self.results["rows"])


def line(row: Row) -> str:
    """A result as one line."""
    mark = {True: "OK ", False: "BAD", None: "   "}[row.get("ok")]
    rest = {k: v for k, v in row.items() if k not in ("part", "name", "ok")}
    return f"{mark} {row['part']}: {row['name']}: " + ", ".join(f"{k} {v}" for k, v in rest.items())


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table, under a line about the machine."""
    lines = [f"{results['device']}, PyTorch {results['torch']}, {results.get('minutes')} minutes"]
    lines += ["", "| part | check | right | found |", "|---|---|---|---|"]
    for row in results["rows"]:
        found = {k: v for k, v in row.items() if k not in ("part", "name", "ok", "s")}
        right = {True: "yes", False: "**no**", None: ""}[row.get("ok")]
        shown = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in found.items()).replace("|", "/")
        lines.append(f"| {row['part']} | {row['name']} | {right} | {shown} |")
    if results.get("not_reached"):
        lines += ["", f"Not reached in time: {'; '.join(results['not_reached'])}"]
    return "\n".join(lines)
