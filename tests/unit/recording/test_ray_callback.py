"""What Ray says of trials, as a study's events."""

from __future__ import annotations

import errno
import pickle
from types import SimpleNamespace

import pytest

from scvitune.contracts import Proposal
from scvitune.recording import Recorders, StudyCallback


class Listener:
    def __init__(self, heard=None, name=""):
        self.heard = [] if heard is None else heard
        self.name = name

    def __getattr__(self, call):
        if call.startswith("_"):
            raise AttributeError(call)

        def note(*args, **kwargs):
            self.heard.append((self.name + call, args, kwargs))

        return note


def a_trial(**changes):
    fields = {
        "trial_id": "ray-1",
        "config": {"trial_id": "00001"},
        "last_result": {},
        "pickled_error_file": None,
        "num_failures": 3,
        "get_error": lambda: None,
    }
    return SimpleNamespace(**(fields | changes))


@pytest.fixture
def told():
    listener, stopped = Listener(), {}
    return StudyCallback(listener, stopped), listener.heard, stopped


RESULT = {
    "epoch": 2.5,
    "time_s": 1.0,
    "n_params": 9,
    "metrics": {"elbo_validation": 3.0},
    "elbo_validation": 3.0,
    "training_iteration": 7,
}


def test_starts_and_reports_are_handed_on(told):
    callback, heard, _ = told
    callback.on_trial_start(0, [], a_trial())
    callback.on_trial_result(0, [], a_trial(), RESULT)
    kept = {name: RESULT[name] for name in ("epoch", "time_s", "metrics", "n_params")}
    assert heard == [("start", ("00001",), {}), ("report", ("00001",), kept)]


def test_the_empty_report_of_a_bad_end_is_none(told):
    callback, heard, _ = told
    callback.on_trial_result(0, [], a_trial(), RESULT | {"metrics": {}, "outcome": "failed"})
    assert heard == []


@pytest.mark.parametrize("outcome", ["finished", "diverged", "failed"])
def test_a_trials_own_end_wins_over_the_scheduler(told, outcome):
    callback, heard, stopped = told
    stopped["ray-1"] = "stopped by the scheduler at epoch 4"
    last = {"outcome": outcome, "reason": "its own"}
    callback.on_trial_complete(0, [], a_trial(last_result=last))
    assert heard == [("end", ("00001",), {"status": outcome, "reason": "its own"})]


def test_a_stop_by_the_scheduler_has_its_reason(told):
    callback, heard, stopped = told
    stopped["ray-1"] = "stopped by the scheduler at epoch 4"
    callback.on_trial_complete(0, [], a_trial(last_result=dict(RESULT)))
    expected = {"status": "stopped", "reason": "stopped by the scheduler at epoch 4"}
    assert heard == [("end", ("00001",), expected)]


@pytest.mark.parametrize("last", [None, {}, RESULT])
def test_a_trial_cut_off_with_the_study_has_no_end(told, last):
    callback, heard, stopped = told
    stopped["ray-2"] = "another"
    callback.on_trial_complete(0, [], a_trial(last_result=last))
    assert heard == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "its process was lost 3 times, last: its process was lost"),
        (
            {
                "pickled_error_file": "error.pkl",
                "get_error": lambda: RuntimeError("Traceback\n  deep\nActorDiedError: killed\n"),
            },
            "its process was lost 3 times, last: ActorDiedError: killed",
        ),
        (
            {"pickled_error_file": "error.pkl", "num_failures": 1},
            "its process was lost 1 times, last: ",
        ),
    ],
)
def test_a_lost_process_is_a_failure_with_its_last_line(told, changes, reason):
    callback, heard, _ = told
    callback.on_trial_error(0, [], a_trial(**changes))
    ((call, args, fields),) = heard
    assert (call, args) == ("end", ("00001",))
    assert fields["status"] == "failed"
    assert fields["reason"].startswith(reason)
    assert "\n" not in fields["reason"]


def test_ray_may_pickle_it_though_its_log_is_open(tmp_path):
    with (tmp_path / "events.jsonl").open("ab") as log:
        listener = Listener()
        listener.log = log
        assert isinstance(pickle.loads(pickle.dumps(StudyCallback(listener, {}))), StudyCallback)


def test_several_recorders_hear_everything_in_order():
    heard = []
    recorders = Recorders([Listener(heard, "log "), Listener(heard, "board ")])
    proposal = Proposal("00000", {}, "default")
    recorders.proposal(proposal)
    recorders.start("00000")
    recorders.report("00000", epoch=1.0, time_s=2.0, metrics={"a": 1.0}, n_params=3)
    recorders.end("00000", status="finished", reason="")
    recorders.close()
    report = {"epoch": 1.0, "time_s": 2.0, "metrics": {"a": 1.0}, "n_params": 3}
    calls = [
        ("proposal", (proposal,), {}),
        ("start", ("00000",), {}),
        ("report", ("00000",), report),
        ("end", ("00000",), {"status": "finished", "reason": ""}),
        ("close", (), {}),
    ]
    assert heard == [
        (name + call, args, fields) for call, args, fields in calls for name in ("log ", "board ")
    ]


def test_a_trial_that_was_told_to_wait_is_recorded_once_it_has_saved_itself():
    listener, paused = Listener(), set()
    callback = StudyCallback(listener, {}, paused=paused)
    callback.on_trial_save(0, [], a_trial())
    paused.add("ray-1")
    callback.on_trial_save(0, [], a_trial())
    assert listener.heard == [("pause", ("00001",), {})]


class Failing(Listener):
    """Hears until the disk is full."""

    NAME = "The board"

    def start(self, trial_id):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_recorder_that_fails_is_switched_off_and_told_of_once():
    heard, told_of = [], []
    board = Failing(heard, "board ")
    recorders = Recorders(
        [Listener(heard, "log "), board, Listener(heard, "display ")],
        on_failure=lambda name, error: told_of.append((name, error.strerror)),
    )
    recorders.start("00000")
    recorders.start("00001")
    recorders.close()
    assert told_of == [("The board", "No space left on device")]
    assert [call for call, *_ in heard] == [
        "log start",
        "board close",
        "display start",
        "log start",
        "display start",
        "log close",
        "display close",
    ]


def test_nobody_hears_of_what_the_log_does_not_know():
    heard, errors = [], []
    recorders = Recorders(
        [Failing(heard, "log "), Listener(heard, "display ")],
        on_log_failure=lambda error: not errors.append(error),
    )
    recorders.start("00000")
    recorders.end("00000", status="finished", reason="")
    recorders.close()
    assert len(errors) == 1
    assert [call for call, *_ in heard] == ["log close", "display close"]


def test_a_fault_of_the_log_that_nobody_takes_is_raised():
    with pytest.raises(OSError, match="No space left"):
        Recorders([Failing()]).start("00000")


def test_a_trial_whose_checkpoint_the_disk_refused_is_not_over(told):
    _, heard, stopped = told
    said = []
    callback = StudyCallback(
        Listener(heard),
        stopped,
        on_disk_fault=said.append,
        has_disk_fault=lambda: bool(said),
    )
    refused = RESULT | {"outcome": "finished", "reason": "", "disk_fault": "No space left"}
    callback.on_trial_result(0, [], a_trial(), refused)
    callback.on_trial_complete(0, [], a_trial(last_result=refused))
    callback.on_trial_error(0, [], a_trial())
    assert said == ["No space left"]
    assert [call for call, *_ in heard] == ["report"]
