"""A look at the headers of image files: sizes and formats for the report, and what is wrong."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from tqdm import tqdm

_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


@dataclass
class ImageFacts:
    """Counts of sizes ("WxH") and formats, the size of every file, and unreadable files."""

    sizes: Counter = field(default_factory=Counter)
    formats: Counter = field(default_factory=Counter)
    size_of: dict[Path, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    @property
    def usual_size(self) -> str:
        """The most frequent size, "WxH"."""
        return self.sizes.most_common(1)[0][0]

    def odd_sizes(self) -> list[str]:
        """Files whose size differs from the most frequent one, as lines for an error."""
        if len(self.sizes) < 2:
            return []
        usual = self.usual_size
        return [f"{p.name} is {s}, most are {usual}" for p, s in self.size_of.items() if s != usual]

    def summary(self) -> dict[str, object]:
        """The facts that go into the report."""
        return {
            "count": len(self.size_of),
            "sizes": dict(self.sizes.most_common()),
            "formats": dict(self.formats.most_common()),
        }


def inspect_images(paths: Sequence[Path], what: str) -> ImageFacts:
    """Read the header of every image; unreadable ones are listed, not raised."""
    facts = ImageFacts()
    for path in tqdm(paths, desc=f"checking {what}", unit="image"):
        try:
            with Image.open(path) as image:
                width, height = image.size
                if image.getexif().get(_ORIENTATION, 1) in _TURNED:
                    width, height = height, width
                facts.formats[image.format] += 1
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = str(error).replace(str(path), path.name)
            facts.unreadable.append(f"{path.name} ({reason})")
            continue
        facts.size_of[path] = sys.intern(f"{width}x{height}")  # one text for thousands of files
        facts.sizes[facts.size_of[path]] += 1
    return facts
