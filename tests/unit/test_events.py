"""The log: torn lines, repeated reports, statuses."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest

from scvitune.events import EventLog, TrialRecord, find_damage, fold, read_events


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.jsonl"


def write(path, *events):
    with EventLog(path) as log:
        for event, fields in events:
            log.append(event, **fields)


def proposal(trial_id="00000", **config):
    return ("proposal", {"trial_id": trial_id, "config": config, "origin": "default"})


def report(epoch, loss, trial_id="00000", **fields):
    fields = {"time_s": epoch, "n_params": 7, "metrics": {"loss": loss}} | fields
    return ("report", {"trial_id": trial_id, "epoch": epoch, **fields})


def test_what_is_appended_is_read_back_in_order(path):
    before = time.time()
    config = {"lr": 1e-3, "n_latent": 10, "act": None, "norm": True, "name": "zäh\nlang"}
    write(path, proposal(**config), report(1.0, 0.1 + 0.2))
    first, second = read_events(path)
    assert first["config"] == config
    assert first["event"] == "proposal"
    assert before - 1 <= first["time"] <= time.time() + 1
    assert second["metrics"] == {"loss": 0.1 + 0.2}
    assert path.read_bytes().count(b"\n") == 2


def test_each_line_is_in_the_file_at_once(path):
    log = EventLog(path)
    for n in range(1, 4):
        log.append("start", trial_id=f"{n:05d}")
        assert len(read_events(path)) == n
    log.close()
    log.close()


def test_a_missing_log_is_empty(path):
    assert read_events(path) == []


@pytest.mark.parametrize("cut", [1, 2, 10, 40])
def test_a_torn_last_line_is_skipped_and_closed_by_the_next_writer(path, cut):
    write(path, proposal(lr=1.0), report(1.0, 5.0), report(2.0, 4.0))
    path.write_bytes(path.read_bytes()[:-cut])
    events = read_events(path)
    # Without its newline alone, a line is still whole.
    assert len(events) == (3 if cut == 1 else 2)
    write(path, report(3.0, 3.0))
    again = read_events(path)
    assert again[:-1] == events
    assert again[-1]["epoch"] == 3.0


@pytest.mark.parametrize(
    "torn", [b"\x00\x00\x00", b"{", b"7\n", b"[]\n", b"\xff\xfe\n", b"\n", b"{}\n"]
)
def test_rubbish_between_lines_is_skipped(path, torn):
    write(path, proposal(lr=1.0))
    with path.open("ab") as file:
        file.write(torn)
    write(path, report(1.0, 5.0))
    assert [event["event"] for event in read_events(path)] == ["proposal", "report"]


def test_damage_is_found_and_what_it_costs(path):
    write(path, proposal("00000"), proposal("00001"), report(1.0, 5.0), report(1.0, 4.0, "00001"))
    assert find_damage(path) == (0, [])
    assert find_damage(path.with_name("none")) == (0, [])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, lines[0][:20]]))
    assert find_damage(path) == (1, [])
    path.write_bytes(b"".join([lines[0], b"\0" * 80 + b"\n", *lines[2:], b"garbage\n"]))
    assert find_damage(path) == (2, ["00001"])
    assert list(fold(read_events(path))) == ["00000"]


def test_an_appended_line_is_json_of_finite_numbers(path):
    metrics = {"good": np.float32(1.5), "nan": math.nan, "inf": np.inf, "int": np.int64(3)}
    write(path, ("report", {"trial_id": "00000", "epoch": np.float64(1), "metrics": metrics}))
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["metrics"] == {"good": 1.5, "int": 3.0}
    assert "NaN" not in line


@pytest.mark.parametrize("config", [{"x": math.nan}, {"x": object()}])
def test_what_json_cannot_hold_is_refused_and_leaves_no_trace(path, config):
    with EventLog(path) as log:
        with pytest.raises((ValueError, TypeError)):
            log.append("proposal", trial_id="00000", config=config, origin="tpe")
        log.append("start", trial_id="00000")
    assert [event["event"] for event in read_events(path)] == ["start"]


def test_repeated_epochs_replace_the_earlier_report(path):
    write(
        path,
        proposal(lr=1.0),
        report(1.0, 5.0),
        report(2.0, 4.0),
        report(3.0, 3.0),
        # It went on from a checkpoint at epoch 1.
        report(2.0, 4.5, time_s=9.0),
        report(2.5, 4.2),
    )
    record = fold(read_events(path))["00000"]
    assert [(r.epoch, r.metrics["loss"]) for r in record.reports] == [
        (1.0, 5.0),
        (2.0, 4.5),
        (2.5, 4.2),
        (3.0, 3.0),
    ]
    assert record.reports[1].time_s == 9.0
    assert record.n_params == 7


END = ("end", {"trial_id": "00000", "status": "finished", "reason": "early"})
START = ("start", {"trial_id": "00000"})


@pytest.mark.parametrize(
    ("events", "status", "reason"),
    [
        ([], "pending", ""),
        ([START], "running", ""),
        ([report(1.0, 5.0)], "running", ""),
        ([START, report(1.0, 5.0), END], "finished", "early"),
        (
            [START, ("end", {"trial_id": "00000", "status": "failed", "reason": "x"})],
            "failed",
            "x",
        ),
        ([START, ("end", {"trial_id": "00000", "status": "stopped"})], "stopped", ""),
    ],
)
def test_status_follows_the_lines(path, events, status, reason):
    write(path, proposal(lr=1.0), *events)
    record = fold(read_events(path))["00000"]
    assert (record.status, record.reason) == (status, reason)


def test_trials_come_in_order_of_proposal_and_once(path):
    write(
        path,
        START,
        proposal("00002", lr=2.0),
        proposal("00000", lr=0.0),
        proposal("00002", lr=9.0),
        report(1.0, 1.0, trial_id="00009"),
        ("driver", {"action": "start"}),
        ("judgement", {"trial_id": "00002", "metrics": {"elbo_test": 3.0}}),
    )
    records = fold(read_events(path))
    assert list(records) == ["00002", "00000"]
    assert records["00002"].config == {"lr": 2.0}
    assert records["00002"].judgement == {"elbo_test": 3.0}
    assert records["00000"].status == "pending"


def test_what_single_cells_said_goes_with_the_judgement(path):
    paired = {"elbo_test": {"against": "00000", "n_cells": 9, "mean": -1.0, "standard_error": 0.2}}
    judged = {"trial_id": "00001", "metrics": {"elbo_test": 3.0}}
    write(path, proposal("00001", lr=2.0), ("judgement", {**judged, "paired": paired}))
    assert fold(read_events(path))["00001"].paired == paired
    write(path, ("judgement", judged))  # of other weights, by a version that says nothing of cells
    record = fold(read_events(path))["00001"]
    assert (record.paired, record.judgement) == ({}, {"elbo_test": 3.0})


@pytest.mark.parametrize(("mode", "epoch"), [("min", 2.0), ("max", 1.0)])
def test_of_equal_reports_the_earliest_is_the_best(path, mode, epoch):
    losses = [(1.0, 5.0), (2.0, 3.0), (3.0, 5.0), (4.0, 3.0)]
    write(path, proposal(lr=1.0), *(report(e, loss) for e, loss in losses), report(5.0, math.nan))
    record = fold(read_events(path))["00000"]
    assert record.best_report("loss", mode).epoch == epoch
    assert record.best_report("other", mode) is None
    assert TrialRecord("00001", {}, "tpe").best_report("loss", mode) is None


def test_a_perturbed_trial_has_the_lineage_of_its_source(path):
    a, b, c = {"lr": 1.0}, {"lr": 2.0}, {"lr": 3.0}
    write(
        path,
        ("proposal", {"trial_id": "1", "config": a, "origin": "random"}),
        ("proposal", {"trial_id": "2", "config": b, "origin": "random"}),
        report(1.0, 1.0, "1"),
        report(2.0, 9.0, "1"),
        report(1.0, 6.0, "2"),
        report(2.0, 5.0, "2"),
        ("perturb", {"trial_id": "1", "epoch": 2.0, "source": "2", "before": a, "config": c}),
        ("generation", {"epoch": 2.0, "members": ["1", "2"]}),
        report(2.0, 5.0, "1"),  # told again by a process that was started anew
        report(3.0, 4.0, "1"),
        report(3.0, 4.5, "2"),
    )
    records = fold(read_events(path))
    one, two = records["1"], records["2"]
    assert [r.metrics["loss"] for r in one.lineage] == [6.0, 5.0, 4.0]
    assert [r.epoch for r in one.reports] == [1.0, 2.0, 3.0]
    assert one.best_report("loss", "min").metrics["loss"] == 4.0
    assert (one.config, two.config) == (c, b)
    assert [(p.epoch, p.config, p.trial_id) for p in one.phases] == [(0.0, b, "2"), (2.0, c, "1")]
    assert one.perturbations[0].source == "2"
    assert (one.compared_at, two.compared_at) == (2.0, 2.0)
    assert two.perturbations == []
    assert two.lineage == two.reports


def test_several_lines_are_written_at_once(path):
    with EventLog(path) as log:
        log.append_all([("a", {"x": 1}), ("report", {"metrics": {"good": 1.0, "bad": math.nan}})])
    first, second = read_events(path)
    assert (first["event"], first["x"]) == ("a", 1)
    assert second["metrics"] == {"good": 1.0}


def test_a_paused_trial_waits_until_it_starts_again(path):
    start, pause = ("start", {"trial_id": "00000"}), ("pause", {"trial_id": "00000"})
    write(path, proposal(), start, report(1.0, 2.0), pause)
    assert fold(read_events(path))["00000"].status == "pending"
    write(path, start)
    assert fold(read_events(path))["00000"].status == "running"


def follow_up(kind, seed, value, trial_id="00000", **fields):
    fields = {"epoch": 2.0, "time_s": 1.0, "status": "finished", "reason": ""} | fields
    return (kind, {"trial_id": trial_id, "seed": seed, "metrics": {"loss": value}, **fields})


def test_trainings_after_the_search_are_folded_into_their_trial(path):
    write(
        path,
        proposal(),
        report(1.0, 5.0),
        follow_up("confirmation", 2, 4.0),
        follow_up("confirmation", 1, 3.0, status="diverged", reason="NaN"),
        follow_up("confirmation", 2, 4.5),
        follow_up("confirmation", 1, 3.0, trial_id="00009"),
        follow_up("learning_curve", 1, 9.0, n_cells=50),
        follow_up("learning_curve", 2, 8.0, n_cells=10),
        follow_up("final_fit", 1, 1.0, n_cells=60, something_new=True),
    )
    record = fold(read_events(path))["00000"]
    assert [(c.seed, c.metrics["loss"]) for c in record.confirmations] == [(1, 3.0), (2, 4.5)]
    assert [c.finished for c in record.confirmations] == [False, True]
    assert record.confirmations[0].reason == "NaN"
    assert [(c.n_cells, c.seed) for c in record.learning_curve] == [(10, 2), (50, 1)]
    assert record.final_fit.n_cells == 60
    assert record.final_fit.epoch == 2.0
    assert len(record.reports) == 1, "they are no reports of the trial"


def test_who_goes_on_otherwise_is_no_longer_confirmed(path):
    changed = {"trial_id": "00000", "epoch": 1.0, "source": "00001"}
    write(
        path,
        proposal(lr=1.0),
        proposal("00001", lr=2.0),
        report(1.0, 5.0, trial_id="00001"),
        follow_up("confirmation", 1, 4.0),
        follow_up("confirmation", 1, 4.0, trial_id="00001"),
        ("perturb", {**changed, "before": {"lr": 1.0}, "config": {"lr": 2.5}}),
    )
    records = fold(read_events(path))
    assert records["00000"].confirmations == []
    assert len(records["00001"].confirmations) == 1
