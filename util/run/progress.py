"""How far a long piece of work has come: a bar on a terminal, elsewhere a line now and then."""

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

LINE_SECONDS = 30.0  # between two lines in a file; work that is done sooner leaves none


class _Lines:
    """A stream for tqdm on which every redraw becomes a line of its own."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> None:
        text = text.strip("\r\n ")
        if text:
            self._stream.write(text + "\n")

    def flush(self) -> None:
        self._stream.flush()


def progress_bar(items: Iterable | None = None, desc: str | None = None, **options: Any) -> tqdm:
    """``tqdm(items, desc, **options)`` on stderr, which never redraws in a file or a pipe."""
    stream = sys.stderr
    if stream is None or not stream.isatty():
        options |= {"mininterval": LINE_SECONDS, "maxinterval": LINE_SECONDS}
        options |= {"delay": LINE_SECONDS, "file": _Lines(stream) if stream else None}
        options |= {"disable": options.get("disable") or stream is None, "ncols": 0}
    return tqdm(items, desc, **options)
