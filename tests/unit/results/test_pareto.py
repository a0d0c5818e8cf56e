"""The front of several metrics, against brute force and Optuna's own."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from scvitune.results import pareto_table, read_run
from scvitune.results._pareto import is_dominated

NAMES = ["elbo_validation", "marginal_ll_validation", "kl_local_validation"]


@pytest.mark.parametrize("seed", range(5))
def test_it_is_optunas_front(seed):
    values = np.random.default_rng(seed).integers(0, 6, size=(40, 3)).astype(float)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["minimize"] * 3)
    for row in values:
        study.add_trial(optuna.trial.create_trial(values=list(row)))
    theirs = {trial.number for trial in study.best_trials}
    assert set(np.flatnonzero(~is_dominated(values))) == theirs


@pytest.mark.parametrize("seed", range(5))
def test_it_is_brute_force(seed):
    values = np.random.default_rng(seed).normal(size=(25, 2)).round(1)
    for i, point in enumerate(values):
        beaten = any(
            all(a <= b for a, b in zip(other, point, strict=True))
            and any(a < b for a, b in zip(other, point, strict=True))
            for other in values
        )
        assert is_dominated(values)[i] == beaten


def test_directions_and_failures_count(new_run):
    builder = new_run()
    builder.settings(further_metrics=NAMES[1:2])
    rows = {
        "00000": ("finished", 10.0, -12.0),
        "00001": ("finished", 9.0, -13.0),
        "00002": ("stopped", 11.0, -13.0),
        "00003": ("diverged", 1.0, -1.0),
        "00004": ("finished", 12.0, -8.0),
    }
    for trial_id, (status, elbo, marginal) in rows.items():
        builder.log.append("proposal", trial_id=trial_id, config={"lr": 1e-3}, origin="nsga2")
        builder.log.append(
            "report",
            trial_id=trial_id,
            epoch=1.0,
            time_s=1.0,
            n_params=3,
            metrics={NAMES[0]: elbo, NAMES[1]: marginal},
        )
        builder.log.append("end", trial_id=trial_id, status=status, reason="")
    front = pareto_table(read_run(builder.layout.root))
    assert list(front.index) == ["00001", "00000", "00004"]
