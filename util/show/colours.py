"""Pictures that are all (nearly) one colour: a network that has learned nothing, or has failed."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

FLAT = 5.0  # grey levels: largest standard deviation over the pixels of a picture of one colour
CAUSES = (
    "too little training, a learning rate that made it diverge, networks that are not those of the "
    "options (--model, --which_epoch, --init_gain, --ema), or images that are one colour themselves"
)


class OneColour:
    """Looks at pictures one by one; may be used from several threads."""

    def __init__(self) -> None:
        self.count = 0
        self._spread = 0.0
        self._lock = threading.Lock()

    def see(self, picture: np.ndarray) -> None:
        """Look at a uint8 picture (H, W, 3)."""
        spread = float(picture.reshape(-1, 3).std(axis=0).max())
        with self._lock:
            self.count += 1
            self._spread = max(self._spread, spread)

    def summary(self) -> tuple[int, float]:
        """What other processes need to know; see :meth:`merge`."""
        return self.count, self._spread

    def merge(self, summaries: Sequence[tuple[int, float]]) -> None:
        """Take the summaries of all processes, this one included, for what was seen."""
        self.count = sum(count for count, _ in summaries)
        self._spread = max(spread for _, spread in summaries)

    @property
    def found(self) -> bool:
        """True when there were pictures and every one was (nearly) one colour."""
        return self.count > 0 and self._spread < FLAT

    def sentence(self, what: str) -> str:
        """What to tell a person; ``what`` is a plural such as "generated images"."""
        number = f"all {self.count:,}" if self.count > 1 else "the"
        return f"{number} {what} are (nearly) one colour; usual causes: {CAUSES}"
