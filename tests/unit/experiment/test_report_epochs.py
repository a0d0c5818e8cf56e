"""When trials report: a formula, not a clock."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scvitune.experiment._schedule import compute_report_epochs
from scvitune.schedulers import SchedulingProblem
from scvitune.schedulers._rungs import rungs_of

sizes = {
    "n_train": st.integers(3, 5_000_000),
    "n_genes": st.integers(2, 40_000),
}
budgets = st.integers(1, 2000).map(float) | st.floats(0.25, 500)


@settings(max_examples=300, deadline=None)
@given(**sizes, max_epochs=budgets, data=st.data())
def test_they_ascend_to_the_budget_and_hold_every_rung(n_train, n_genes, max_epochs, data):
    rungs = data.draw(st.just(asha_rungs(max_epochs)) | st.lists(st.floats(0.01, 600), max_size=5))
    epochs = compute_report_epochs(
        n_train=n_train, n_genes=n_genes, max_epochs=max_epochs, rungs=rungs
    )
    assert list(epochs) == sorted(set(epochs))
    assert epochs[0] > 0
    assert epochs[-1] == max_epochs
    assert {rung for rung in rungs if rung < max_epochs - 1e-6} <= set(epochs)
    assert all(isinstance(epoch, float) for epoch in epochs)


def asha_rungs(max_epochs):
    return rungs_of(SchedulingProblem("loss", "min", max_epochs, 0))


@given(**sizes, max_epochs=st.integers(20, 400))
def test_a_trial_reports_at_least_twenty_times(n_train, n_genes, max_epochs):
    epochs = compute_report_epochs(
        n_train=n_train, n_genes=n_genes, max_epochs=float(max_epochs), rungs=()
    )
    assert len(epochs) >= 20


def test_small_data_report_seldom_and_large_data_within_an_epoch():
    def compute(n_train, n_genes):
        return compute_report_epochs(
            n_train=n_train, n_genes=n_genes, max_epochs=400.0, rungs=(7.0,)
        )

    small = compute(500, 200)
    assert len(small) < 30
    assert 7.0 in small
    assert compute(10_000, 2000)[:3] == (1.0, 2.0, 3.0)
    large = compute(2_000_000, 4000)
    assert large[0] < 1.0
    assert 1.0 in large
    assert 2.0 in large


def test_the_machine_has_no_say(monkeypatch):
    arguments = {"n_train": 3000, "n_genes": 1500, "max_epochs": 90.0, "rungs": (6.0, 24.0)}
    expected = compute_report_epochs(**arguments)

    def forbidden(*args):
        raise AssertionError("the clock and the machine must not be asked")

    for module, name in [
        (time, "time"),
        (time, "perf_counter"),
        (time, "monotonic"),
        (os, "cpu_count"),
    ]:
        monkeypatch.setattr(module, name, forbidden)
    found = compute_report_epochs(**arguments)
    monkeypatch.undo()
    assert found == expected
    code = (
        "from scvitune.experiment._schedule import compute_report_epochs; "
        f"print(compute_report_epochs(**{arguments!r}))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "7"},
    ).stdout
    assert output.strip() == repr(expected)


@pytest.mark.parametrize("max_epochs", [1.0, 2.5, 4.0, 10.0, 64.0, 400.0])
def test_the_rungs_of_asha_are_met_exactly(max_epochs):
    rungs = asha_rungs(max_epochs)
    for n_train, n_genes in [(100, 100), (8000, 2000), (1_000_000, 5000)]:
        epochs = compute_report_epochs(
            n_train=n_train, n_genes=n_genes, max_epochs=max_epochs, rungs=rungs
        )
        assert set(rungs) <= set(epochs)


def test_dear_metrics_are_reported_at_rungs_and_the_end_alone():
    given = {"n_train": 500, "n_genes": 700, "max_epochs": 64.0, "dear": True}
    assert compute_report_epochs(**given, rungs=(4.0, 16.0, 64.0)) == (4.0, 16.0, 64.0)
    assert compute_report_epochs(**given, rungs=()) == (16.0, 32.0, 48.0, 64.0)
    assert len(compute_report_epochs(**given | {"dear": False}, rungs=())) > 10
