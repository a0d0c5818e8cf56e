"""The numbers by which trials are compared, each declared once with its direction and cost."""

from scvitune.metrics._clustering import compute_clustering_scores
from scvitune.metrics._imputation import (
    CorruptedCounts,
    compute_imputation_errors,
    compute_imputation_medians,
    corrupt_counts,
    summarise_imputation,
)
from scvitune.metrics._marginal import compute_marginal_ll
from scvitune.metrics._own import (
    OwnFunction,
    load_function,
    named_paths,
    resolve_functions,
    take_functions,
)
from scvitune.metrics._proportions import compute_proportion_metrics, proportion_means
from scvitune.metrics._registry import (
    METRICS,
    AskedMetric,
    MetricInfo,
    ask_metrics,
    is_dear,
    metric_info,
    name_metrics,
    searchable_metrics,
)
from scvitune.metrics._scib import compute_scib_scores, compute_unintegrated

__all__ = [
    "METRICS",
    "AskedMetric",
    "CorruptedCounts",
    "MetricInfo",
    "OwnFunction",
    "ask_metrics",
    "compute_clustering_scores",
    "compute_imputation_errors",
    "compute_imputation_medians",
    "compute_marginal_ll",
    "compute_proportion_metrics",
    "compute_scib_scores",
    "compute_unintegrated",
    "corrupt_counts",
    "is_dear",
    "load_function",
    "metric_info",
    "name_metrics",
    "proportion_means",
    "named_paths",
    "resolve_functions",
    "searchable_metrics",
    "summarise_imputation",
    "take_functions",
]
