"""Whether the names in a configuration are known: what needs no data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from scvitune.config import NO_MODEL, StudyConfig
from scvitune.errors import Faults
from scvitune.experiment._follow_ups import check_follow_ups
from scvitune.experiment._metrics import check_metrics
from scvitune.experiment._pairs import choose_pair
from scvitune.experiment._space import faults_of_space, space_of
from scvitune.experiment._strategy import check_strategy_name
from scvitune.models import MODELS, check_model_name, get_adapter
from scvitune.recording import check_wandb
from scvitune.schedulers import check_scheduler_name
from scvitune.searchers import check_searcher_name
from scvitune.staging import HELD_OUT_METRIC


def check_names(
    config: StudyConfig,
    *,
    searcher: Any,
    scheduler: Any,
    faults: Faults,
    doubtful: Iterable[str] = (),
) -> None:
    """Check what needs no data: model, metric, searcher, scheduler, space, options.

    ``doubtful`` are places, such as ``search.searcher``, of which a fault is known already and
    nothing more is to be said.
    """

    def sure_of(*places: str) -> bool:
        return not any(is_within(place, doubtful) for place in places)

    if sure_of("model") or config.model != NO_MODEL:
        with faults.collecting():
            check_model_name(config.model)
    sure_of_metrics = sure_of("metric", "further_metrics", "own_metrics", "mode")
    check_metrics(config, faults, names_alone=not sure_of_metrics)
    searcher = config.search.searcher if searcher is None else searcher
    scheduler = config.search.scheduler if scheduler is None else scheduler
    n_faults = len(faults)
    for check, given in ((check_searcher_name, searcher), (check_scheduler_name, scheduler)):
        if given is not None:
            with faults.collecting():
                check(given)
    if len(faults) == n_faults and sure_of("search.searcher", "search.scheduler"):
        with faults.collecting():
            choose_pair(searcher, scheduler)
    if config.search.strategy is not None:
        with faults.collecting():
            check_strategy_name(config.search.strategy)
    of_spots = config.model in MODELS and get_adapter(config.model).first_stage_prefix is not None
    if sure_of("confirm", "search.test_size", "final_fit"):
        check_follow_ups(config, of_spots=of_spots, faults=faults)
    if config.wandb is not None:
        with faults.collecting():
            check_wandb(config.wandb)
    if sure_of("space") and (config.space is not None or config.model in MODELS):
        with faults.collecting():
            n_faults = len(faults)
            space = space_of(config, faults=faults)
            faults_of_space(config.model, space, faults, is_sound=len(faults) == n_faults)


def is_within(place: str, doubtful: Iterable[str]) -> bool:
    """Tell whether a place is doubtful: itself, what it lies in, or something in it."""
    return any(
        place == other or place.startswith(f"{other}.") or other.startswith(f"{place}.")
        for other in doubtful
    )


def with_model_defaults(config: StudyConfig) -> StudyConfig:
    """Return the configuration with the metric that the model is judged by, if none was chosen."""
    if config.model not in MODELS or "metric" in config.model_fields_set:
        return config
    metric = get_adapter(config.model).default_metric
    if config.target == "likelihood" and get_adapter(config.model).first_stage_prefix is not None:
        metric = HELD_OUT_METRIC
    return config.model_copy(update={"metric": metric})
