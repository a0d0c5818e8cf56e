"""The numbers by which trials are compared, each declared once with its direction and cost."""

from scvitune.metrics._registry import METRICS, MetricInfo, metric_info, name_metrics

__all__ = ["METRICS", "MetricInfo", "metric_info", "name_metrics"]
