"""The trainer of fused trials, called as trials' processes call it, without a cluster."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from test_trainable import PLAIN, REPORTS, build, finish, numbers, prepared, run  # noqa: F401

from scvitune.errors import StudyError
from scvitune.fused_service import FusedTrialService
from scvitune.training import load_checkpoint

CONFIGS = {
    "00001": PLAIN,
    "00002": PLAIN | {"lr": 1e-3, "dropout_rate": 0.3},
    "00003": PLAIN | {"max_kl_weight": 0.3},
    "00004": PLAIN | {"n_hidden": 12},
}


def train_all(service, configs):
    """Each trial from a thread of its own, as from its process on Ray."""

    def train(config):
        trial_id, results = config["trial_id"], []
        service.call(trial_id, "setup", config)
        while not results or not results[-1].get("done"):
            results.append(service.call(trial_id, "step"))
        service.call(trial_id, "cleanup")
        return results

    with ThreadPoolExecutor(len(configs)) as threads:
        return list(threads.map(train, configs))


def assert_reports_agree(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one["epoch"] == other["epoch"]
        assert one["metrics"] == pytest.approx(other["metrics"], rel=1e-5)
        assert one.get("outcome") == other.get("outcome")


def test_reports_are_those_of_lone_trials(run):  # noqa: F811
    _, configure = run
    lone = [finish(build(configure(f"1{i}", c))) for i, c in CONFIGS.items()]
    fused = train_all(FusedTrialService(), [configure(i, c) for i, c in CONFIGS.items()])
    for ours, theirs in zip(fused, lone, strict=True):
        assert_reports_agree(ours, theirs)


def test_a_trial_goes_on_from_its_checkpoint_in_the_next_trainer(run):  # noqa: F811
    layout, configure = run
    straight = finish(build(configure("10001")))
    dead = FusedTrialService()
    dead.call("00001", "setup", configure("00001"))
    first = dead.call("00001", "step")  # epoch 1 is a rung: saved
    service = FusedTrialService()
    with pytest.raises(StudyError, match="goes on from its checkpoint"):
        service.call("00001", "step")
    service.call("00001", "setup", configure("00001") | {"heard": first["epoch"]})
    results = [service.call("00001", "step") for _ in REPORTS[1:]]
    assert_reports_agree([first, *results], straight)


def test_what_was_trained_since_the_last_report_is_saved(run):  # noqa: F811
    layout, configure = run
    service = FusedTrialService()
    service.call("00001", "setup", configure("00001"))
    service.call("00001", "step")
    epoch = service.call("00001", "step")["epoch"]  # no rung: nothing was written
    service.call("00001", "cleanup")
    assert load_checkpoint(layout.checkpoint("00001"))["last_result"]["epoch"] == epoch


def test_a_diverged_trial_ends_and_its_neighbour_goes_on(run):  # noqa: F811
    _, configure = run
    bad = PLAIN | {"lr": 1e30}
    ends = train_all(FusedTrialService(), [configure("00001"), configure("00002", bad)])
    assert ends[1][-1]["outcome"] == "diverged"
    assert_reports_agree(ends[0], finish(build(configure("10001"))))


def test_out_of_memory_ends_one_trial_with_its_reason(run, monkeypatch):  # noqa: F811
    from scvitune import fused_service

    class Small(fused_service.StackedVAE):
        def parameter(self, of_first, rows):
            if len(self) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return super().parameter(of_first, rows)

    monkeypatch.setattr(fused_service, "StackedVAE", Small)
    _, configure = run
    service = FusedTrialService()
    service.call("00001", "setup", configure("00001"))
    service.call("00002", "setup", configure("00002", CONFIGS["00002"]))
    result = service.call("00001", "step")
    assert result["metrics"]
    last = service.call("00002", "step")
    assert last["outcome"] == "failed"
    assert last["reason"].startswith("out of memory: CUDA out of memory")
    while not result.get("done"):
        result = service.call("00001", "step")
    assert result["outcome"] == "finished"


def test_what_cannot_be_set_up_fails_alone(run):  # noqa: F811
    _, configure = run
    service = FusedTrialService()
    service.call("00001", "setup", configure("00001", PLAIN | {"n_hidden": -1}))
    assert service.call("00001", "step")["outcome"] == "failed"
    service.call("00001", "cleanup")
    service.call("00002", "setup", configure("00002"))
    assert service.call("00002", "step")["metrics"]
