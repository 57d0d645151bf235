"""The curves of a training run: bounded in memory however long the run is, and drawn as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from dominate import svg, tags

from util.show.html import clean_text

MAX_POINTS = 600  # of a curve

WIDTH, HEIGHT = 340, 180
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 8, 24
SMOOTHING = 40  # the dark curve averages over 1/40 of the points to each side
LOG_RATIO = 30.0  # curves that span more than this factor get a logarithmic axis

HUGE = 1e30  # losses beyond it have diverged; the axis could not show them beside others


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


def charts(curves: Mapping[str, Curve], meanings: Mapping[str, str]) -> tags.div:
    """One chart a curve: losses differ by orders of magnitude and would hide each other in one.

    ``meanings`` explains names of curves; the others stand without a word.
    """
    cards = []
    for name, curve in curves.items():
        finite = [value for value in curve.values if math.isfinite(value)]
        last = f"{finite[-1]:.4g}" if finite else "no finite value"
        heading = tags.h3(clean_text(f"{name}: {last}"))
        card = tags.div(heading, chart(curve, name), cls="card")
        if name in meanings:
            card.add(tags.p(clean_text(meanings[name]), cls="meaning"))
        cards.append(card)
    return tags.div(cards, cls="charts")


def chart(curve: Curve, name: str) -> svg.svg:
    """The points of one curve (pale) and their local mean (dark) over training samples.

    Values that are not finite (or beyond ``HUGE``) interrupt the line. The axis is logarithmic
    where all values are positive and span a large factor.
    """
    points = list(zip(curve.samples, curve.values, strict=True))
    finite = [(x, y) for x, y in points if _drawable(y)]
    picture = svg.svg(
        viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=clean_text(f"curve of {name}")
    )
    if not finite:
        return picture
    values = [y for _, y in finite]
    logarithmic = min(values) > 1 / HUGE and max(values) / min(values) > LOG_RATIO
    scale = math.log10 if logarithmic else float
    low, high = _limits([scale(y) for y in values])
    if min(values) >= 0 and not logarithmic:
        low = max(low, 0.0)
    left, right = finite[0][0], max(finite[-1][0], finite[0][0] + 1)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - left) / (right - left)
        up = (scale(y) - low) / (high - low)
        return (
            LEFT + across * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM),
        )

    picture.add(_axes(low, high, left, right, logarithmic))
    picture.add(_line([place(*p) if _drawable(p[1]) else None for p in points], "raw"))
    picture.add(_line([place(x, y) for x, y in _smoothed(finite)], "smooth"))
    return picture


def _drawable(value: float) -> bool:
    return abs(value) < HUGE  # False for NaN too


def _limits(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or max(abs(high) * 0.05, 1e-6)
    return low - margin, high + margin


def _smoothed(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Mean over the neighbours on both sides, which does not lag; few points stay as they are."""
    out = []
    for i, (x, _) in enumerate(points):
        reach = min(len(points) // SMOOTHING, i, len(points) - 1 - i)
        near = [y for _, y in points[i - reach : i + reach + 1]]
        out.append((x, sum(near) / len(near)))
    return out


def _line(points: list[tuple[float, float] | None], style: str) -> svg.path:
    """A path through the points; ``None`` lifts the pen. A single point becomes a dot."""
    commands, pen_down = [], False
    for point in points:
        if point is not None:
            commands.append(f"{'L' if pen_down else 'M'}{point[0]:.1f} {point[1]:.1f}")
            if not pen_down:
                commands.append("h0")
        pen_down = point is not None
    return svg.path(d=" ".join(commands), cls=style)


def _axes(low: float, high: float, left: int, right: int, logarithmic: bool) -> list[svg.svg_tag]:
    marks: list[svg.svg_tag] = []
    for step in range(4):
        y = HEIGHT - BOTTOM - step / 3 * (HEIGHT - TOP - BOTTOM)
        value = low + step / 3 * (high - low)
        shown = f"{10**value if logarithmic else value:.3g}"
        marks.append(svg.line(x1=LEFT, x2=WIDTH - RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", cls="grid"))
        marks.append(_label(shown, LEFT - 5, y + 3.5, "end"))
    marks.append(_label(f"{left:,}", LEFT, HEIGHT - 8, "start"))
    unit = "samples, log scale" if logarithmic else "samples"
    marks.append(_label(f"{right:,} {unit}", WIDTH - RIGHT, HEIGHT - 8, "end"))
    return marks


def _label(text: str, x: float, y: float, anchor: str) -> svg.text:
    return svg.text(text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)
