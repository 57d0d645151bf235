"""Evaluation: metrics are functions, protocols are data, no cache in a measured folder.

``score_pairs`` scores arrays (validation), ``evaluate.evaluate_folder`` scores folders.
"""

from util.metrics.pairs import CHEAP_METRICS, higher_is_better, score_pairs
from util.metrics.protocols import PROTOCOLS, Protocol, find_protocol
from util.metrics.registry import Column, MetricUnavailableError, list_metrics, register_metric

__all__ = [
    "CHEAP_METRICS",
    "PROTOCOLS",
    "Column",
    "MetricUnavailableError",
    "Protocol",
    "find_protocol",
    "higher_is_better",
    "list_metrics",
    "register_metric",
    "score_pairs",
]
