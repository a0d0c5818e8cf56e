"""The numbers by which trials are compared, each declared once with its direction and cost."""

from scvitune.metrics._proportions import compute_proportion_metrics, proportion_means
from scvitune.metrics._registry import METRICS, MetricInfo, is_dear, metric_info, name_metrics

__all__ = [
    "METRICS",
    "MetricInfo",
    "compute_proportion_metrics",
    "is_dear",
    "metric_info",
    "name_metrics",
    "proportion_means",
]
