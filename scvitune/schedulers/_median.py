"""The median stopping rule (Golovin et al., KDD 2017), by Ray."""

from __future__ import annotations

import math

from ray.tune.schedulers import MedianStoppingRule

from scvitune.contracts import EPOCH
from scvitune.schedulers._base import BuiltScheduler, SchedulingProblem
from scvitune.schedulers._rungs import REDUCTION, first_rung


def build_median(problem: SchedulingProblem) -> BuiltScheduler:
    """Build the rule: stop what is worse than the median of the others' running means.

    It starts at the epoch of ASHA's first rung times its reduction factor, where ASHA would have
    kept a quarter of the trials: the rule looks at every report, so a slow starter has no second
    rung to hope for. At least three others must have come as far.
    """
    rule = MedianStoppingRule(
        time_attr=EPOCH,
        metric=problem.metric,
        mode=problem.mode,
        grace_period=min(REDUCTION * first_rung(problem), problem.max_epochs / 2),
        min_samples_required=3,
        # Never pause for want of others to compare with: a pause costs a model.
        min_time_slice=math.inf,
    )
    return BuiltScheduler(rule, ())
