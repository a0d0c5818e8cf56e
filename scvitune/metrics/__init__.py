"""The numbers by which trials are compared, each declared once with its direction and cost."""

from scvitune.metrics._own import OwnFunction, load_function, resolve_functions, take_functions
from scvitune.metrics._proportions import compute_proportion_metrics, proportion_means
from scvitune.metrics._registry import (
    METRICS,
    AskedMetric,
    MetricInfo,
    ask_metrics,
    metric_info,
    name_metrics,
)

__all__ = [
    "METRICS",
    "AskedMetric",
    "MetricInfo",
    "OwnFunction",
    "ask_metrics",
    "compute_proportion_metrics",
    "load_function",
    "metric_info",
    "name_metrics",
    "proportion_means",
    "resolve_functions",
    "take_functions",
]
