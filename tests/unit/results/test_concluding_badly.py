"""What is written, and said, of a study that was given up or has lost its best weights."""

from __future__ import annotations

import pytest

from scvitune._config._files import describe_frozen
from scvitune._status import describe_status
from scvitune.errors import StudyError
from scvitune.results import summarise
from scvitune.results._cautions import find_cautions
from scvitune.results._concluding import conclude
from scvitune.results._weights import load_weights

REASON = "5 of 7 trials failed, 5 of them with: out of memory"


def test_a_study_that_was_given_up_has_its_report_and_says_how_to_go_on(new_run):
    builder = new_run("a run")
    builder.driver("start")
    for i in range(5):
        builder.trial(f"{i:05d}", status="failed", reason="out of memory")
    builder.trial("00005", status=None)
    builder.driver("gave_up", reason=REASON)
    root = builder.layout.root
    with pytest.raises(StudyError) as error:
        conclude(root, None)
    assert str(error.value).startswith(f"The study was stopped: {REASON}. See {root}/report.html.")
    assert f"`scvitune resume '{root}'` goes on" in str(error.value)
    assert builder.layout.report.exists()
    assert builder.layout.trials.exists()
    run = builder.read()
    assert (run.finished, run.at_work, run.gave_up) == (False, False, REASON)
    assert f"The study was stopped before its end: {REASON}." in find_cautions(run)
    assert next(iter(describe_status(root))) == f"a run: stopped: {REASON}"
    assert "out of memory" in summarise(run)
    builder.driver("resume")
    assert builder.read().gave_up is None


def test_damaged_weights_of_the_best_cost_the_model_alone(small_run):
    layout = small_run.layout
    layout.checkpoints.mkdir(parents=True)
    layout.checkpoint("00001").write_bytes(b"PK and no more")
    small_run.driver("interrupted")
    with pytest.raises(StudyError, match="00001.pt cannot be read .* cannot be written; all"):
        conclude(layout.root, None)
    assert layout.report.exists()
    assert layout.trials.exists()
    assert not layout.best.exists()


def test_damaged_weights_of_a_member_cost_the_report_nothing(small_run):
    """Whether the report may promise a UMAP is read from the checkpoints of a population."""
    layout = small_run.layout
    changed = {"before": {"lr": 0.005}, "config": {"lr": 0.006}}
    small_run.log.append("perturb", trial_id="00002", epoch=4.0, source="00001", **changed)
    better = {"epoch": 6.0, "time_s": 9.0, "metrics": {"elbo_validation": 5.0}}
    small_run.log.append("report", trial_id="00002", **better)
    layout.checkpoints.mkdir(parents=True)
    layout.snapshot("00001", 4.0).write_bytes(b"PK and no more")
    layout.checkpoint("00002").write_bytes(b"PK and no more")
    small_run.driver("interrupted")
    with pytest.raises(StudyError, match="cannot be written; all results stand in"):
        conclude(layout.root, None)
    assert layout.report.exists()


def test_a_command_of_a_run_in_a_folder_with_a_space_can_be_pasted(new_run):
    builder = new_run("a run")
    builder.trial("00000", values={1.0: 2.0}, origin="default", status=None)
    root = builder.layout.root
    with pytest.raises(StudyError) as error:
        load_weights(builder.read(), "00000")
    assert f"`scvitune resume '{root}'` trains it to the end" in str(error.value)
    assert f"`scvitune resume '{root}'` goes on" in describe_frozen(builder.layout.study, ["x"])
