"""Run directory -> tables, figures, report, summary and best model; needs no Ray.

Tables and reports need no data either; the best model is imported when it is asked for, because
it brings torch and scvi-tools.
"""

from scvitune.results._cautions import asked_trials
from scvitune.results._confirmation import confirmation_table
from scvitune.results._learning_curve import LearningCurve, read_learning_curve
from scvitune.results._optuna_study import build_optuna_study
from scvitune.results._pareto import pareto_table
from scvitune.results._ray_tune import read_ray_tune
from scvitune.results._run_directory import Run, read_run
from scvitune.results._schedule import fit_schedule, origins_table, schedule_table
from scvitune.results._schedule_fit import ScheduleCandidate, ScheduleFit
from scvitune.results._study_tables import TABLES, build_table, write_csvs
from scvitune.results._summary import count_trials, describe_outcome, gain_lines, summarise
from scvitune.results._tables import (
    best_trial_id,
    comparison_table,
    config_table,
    history_table,
    ranked_trials,
    read_table,
    trial_status,
    trials_table,
    write_tables,
)
from scvitune.results.report import render_report, write_report

__all__ = [
    "TABLES",
    "LearningCurve",
    "Run",
    "ScheduleCandidate",
    "ScheduleFit",
    "asked_trials",
    "best_trial_id",
    "build_optuna_study",
    "build_table",
    "comparison_table",
    "config_table",
    "confirmation_table",
    "count_trials",
    "describe_outcome",
    "fit_schedule",
    "gain_lines",
    "history_table",
    "origins_table",
    "pareto_table",
    "ranked_trials",
    "read_learning_curve",
    "read_ray_tune",
    "read_run",
    "read_table",
    "render_report",
    "schedule_table",
    "summarise",
    "trial_status",
    "trials_table",
    "write_csvs",
    "write_report",
    "write_tables",
]
