"""Where a training run is: epoch, samples, and which periodic events are due."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass
class Progress:
    """Position of a run; counts are samples over all processes, as in the published logs."""

    epoch: int = 1  # current epoch, from 1
    samples: int = 0  # done in this epoch
    total: int = 0  # done in all
    previous: int = 0  # total before the last step

    def advance(self, samples: int) -> None:
        """Count one training step."""
        self.previous = self.total
        self.samples += samples
        self.total += samples

    def next_epoch(self) -> None:
        """Start the next epoch."""
        self.epoch, self.samples = self.epoch + 1, 0

    def due(self, frequency: int) -> bool:
        """True when the last step crossed a multiple of ``frequency`` samples."""
        return self.total // frequency > self.previous // frequency

    def state_dict(self) -> dict[str, int]:
        """Plain values, for the checkpoint."""
        return asdict(self)
