"""What test.py wrote beside its images: which weights made them, and how many there must be."""

from __future__ import annotations

import json
from pathlib import Path

from util.errors import UserError

GENERATION_FILE = "generation.json"


def read_generation(results: str | Path) -> dict[str, object] | None:
    """The content of generation.json (model, checkpoint, sha256 …), or None without that file."""
    path = Path(results) / GENERATION_FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(
            f"{path} is not readable ({error}); delete it or run test.py again."
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold a JSON object; delete it or run test.py again.")
    return content


def count_problem(generation: dict[str, object] | None, found: int) -> str | None:
    """Why ``found`` images are not what test.py was to generate, or None."""
    expected = (generation or {}).get("pairs")
    if not isinstance(expected, int) or expected == found:
        return None
    why = "test.py was interrupted" if found < expected else "images of another run are among them"
    return f"{found} images, while {GENERATION_FILE} announces {expected}: {why}"


def describe_generation(generation: dict[str, object] | None) -> str:
    """One line for the screen: what made the images."""
    if not generation:
        return f"generator: unknown (no {GENERATION_FILE})"
    parts = [f"{key} {generation[key]}" for key in ("model", "name", "checkpoint", "which_epoch")
             if generation.get(key) is not None]  # fmt: skip
    digest = str(generation.get("sha256") or "")[:12]
    return "generator: " + ", ".join(parts + ([f"sha256 {digest}…"] if digest else []))
