"""The curves of a training run, bounded in memory however long the run is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_POINTS = 600


@dataclass
class Curve:
    """Values over the number of training samples.

    When it is full, neighbouring points are merged into their mean: old parts get coarser while new
    points arrive at full resolution. The result depends only on what was appended.
    """

    samples: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def append(self, samples: int, value: float) -> None:
        """Add one point; ``samples`` counts the training images seen so far."""
        self.samples.append(int(samples))
        self.values.append(float(value))
        if len(self.values) > MAX_POINTS:
            self._merge_neighbours()

    def _merge_neighbours(self) -> None:
        odd = len(self.values) % 2  # an odd last point stays as it is
        end = len(self.values) - odd
        merged = [_mean(self.values[i : i + 2]) for i in range(0, end, 2)]
        self.values = merged + self.values[end:]
        self.samples = self.samples[1:end:2] + self.samples[end:]


def _mean(values: list[float]) -> float:
    """Mean of the finite values; NaN where there is none, so that a gap stays visible."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


class LossHistory:
    """Curves by group and name: ``Loss/…``, ``LR/…``, ``Metric/…``."""

    def __init__(self) -> None:
        self.curves: dict[str, Curve] = {}

    def append(self, group: str, values: Mapping[str, float], samples: int) -> None:
        """Add one value to each curve that ``values`` names; new names start new curves."""
        for name, value in values.items():
            self.curves.setdefault(f"{group}/{name}", Curve()).append(samples, value)

    def group(self, group: str) -> dict[str, Curve]:
        """The curves of one group by name, in the order in which they were first logged."""
        start = group + "/"
        return {key[len(start) :]: c for key, c in self.curves.items() if key.startswith(start)}

    def state_dict(self) -> dict[str, dict[str, list]]:
        """Plain lists, for a checkpoint: values are kept exactly."""
        return {
            key: {"samples": list(curve.samples), "values": list(curve.values)}
            for key, curve in self.curves.items()
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, list]]) -> None:
        """Replace all curves by those of :meth:`state_dict`."""
        self.curves = {
            key: Curve([int(x) for x in curve["samples"]], [float(y) for y in curve["values"]])
            for key, curve in state.items()
        }
