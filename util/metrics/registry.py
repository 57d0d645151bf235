"""What a metric is, and how ``--metrics`` finds it: a file in this folder registers a name.

A metric turns a protocol into columns. A column is one number of the report with its definition. It
is the mean of a function of two images, or a scorer of its own computes it: a function of a
:class:`util.metrics.measure.Task` that returns the scores of all its columns.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from util.errors import UserError
from util.metrics.protocols import Protocol

if TYPE_CHECKING:
    from util.metrics.measure import Score, Task


class MetricUnavailableError(UserError):
    """A metric cannot be computed here; the others still can. The text says what would help."""


@dataclass(frozen=True)
class Column:
    """One number of the report.

    ``settings``: without a ``scorer``, a picklable function ``(gt, pred) -> float`` of two uint8
    images (H, W, 3); otherwise what the scorer needs to know. ``padded`` and ``masked`` say what
    happens to images before; ``needs_real`` that the column compares with the real set.
    """

    name: str
    definition: str
    settings: Any
    higher_is_better: bool
    scorer: Callable[[Task], list[Score]] | None = None
    padded: bool = False
    masked: bool = False
    needs_real: bool = False


Builder = Callable[[Protocol], list[Column]]
_BUILDERS: dict[str, Builder] = {}


def register_metric(name: str) -> Callable[[Builder], Builder]:
    """Decorator: make ``builder(protocol) -> list[Column]`` available as ``--metrics name``."""

    def register(builder: Builder) -> Builder:
        if name in _BUILDERS and _BUILDERS[name] is not builder:
            raise ValueError(f"two metrics are called {name!r}")
        _BUILDERS[name] = builder
        return builder

    return register


def metric_builders() -> dict[str, Builder]:
    """Every registered metric by name; imports each file of this package once."""
    package = importlib.import_module("util.metrics")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"util.metrics.{module.name}")
    return dict(sorted(_BUILDERS.items()))


def list_metrics() -> list[str]:
    """Names that ``--metrics`` accepts."""
    return list(metric_builders())


def columns_for(protocol: Protocol, metrics: Sequence[str] | None = None) -> list[Column]:
    """Columns of the asked metrics (the protocol's defaults when None), in order, each once.

    Raises UserError for an unknown metric.
    """
    builders = metric_builders()
    columns: dict[str, Column] = {}
    for name in protocol.defaults if metrics is None else metrics:
        if name not in builders:
            raise UserError(_unknown(name, builders))
        for column in builders[name](protocol):
            columns.setdefault(column.name, column)
    return list(columns.values())


def _unknown(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known)}."
    return f"there is no metric {name!r}; {hint}"
