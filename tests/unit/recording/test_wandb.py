"""Weights & Biases' own files, written offline and read back."""

from __future__ import annotations

import json
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scvitune.contracts import Generation, Perturbation, Proposal
from scvitune.errors import InputError
from scvitune.events import Report, TrialRecord
from scvitune.recording import WandbRecorder, _wandb, check_wandb

CONFIG = {"lr": 1e-3, "n_latent": 10, "gene_likelihood": "zinb", "gradient_clip_val": None}


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as Python has it where there is none
    with pytest.raises(InputError, match=r"pip install 'scvitune\[wandb\]'"):
        check_wandb("project")


@pytest.mark.parametrize("project", ["a/b/c", "/b", "a/"])
def test_a_project_has_one_form(project):
    with pytest.raises(InputError, match="PROJECT or ENTITY/PROJECT"):
        check_wandb(project)


@pytest.fixture
def offline(monkeypatch):
    wandb = pytest.importorskip("wandb", reason="no wandb here (pip install 'scvitune[wandb]')")
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.teardown()  # it remembers the settings of before


def read_messages(path: Path) -> Iterator[Any]:
    """Read what Weights & Biases wrote: its own messages in LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, message = path.read_bytes(), b""
    at = 7  # after the file's own header
    while at + 7 <= len(content):
        if (rest := 32768 - at % 32768) < 7:  # no header crosses a block
            at += rest
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        part = content[at + 7 : at + 7 + length]
        if len(part) < length:  # still being written
            return
        at += 7 + length
        message = part if kind in (1, 2) else message + part
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(message)
            yield record


def as_dict(items) -> dict[str, Any]:
    return {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}


def wait_until_written(path: Path) -> None:
    """Wait for the end of a run: its writer, a process of its own, may be a little behind."""
    for _ in range(1200):
        if any(record.WhichOneof("record_type") == "exit" for record in read_messages(path)):
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} has no end after two minutes")


def read_runs(folder: Path) -> dict[str, dict[str, Any]]:
    """The runs below a folder, by the trial's id; the latest of each."""
    runs = {}
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        wait_until_written(path)
        run: dict[str, Any] = {"history": [], "summary": {}, "config": {}}
        for record in read_messages(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                run |= {"id": record.run.run_id, "group": record.run.run_group}
                run |= {"project": record.run.project, "entity": record.run.entity}
                run["config"] |= as_dict(record.run.config.update)
            elif kind == "config":
                run["config"] |= as_dict(record.config.update)
            elif kind == "history":
                run["history"].append(as_dict(record.history.item))
            elif kind == "summary":
                run["summary"] |= as_dict(record.summary.update)
            elif kind == "exit":
                run["exit"] = record.exit.exit_code
        run["config"].pop("_wandb", None)
        runs[run["id"].rpartition("-")[2]] = run
    return runs


def a_recorder(folder: Path, **changes: Any) -> WandbRecorder:
    settings = {"study": "pbmc", "identity": "pbmc-0a", "metric": "loss", "mode": "min"}
    return WandbRecorder("team/project", directory=folder, **(settings | changes))


def report(target, trial_id, epoch, value):
    target.report(
        trial_id,
        epoch=epoch,
        time_s=epoch / 2,
        metrics={"loss": value, "other": -value},
        n_params=7,
    )


def test_each_trial_is_a_run_of_its_own_while_others_run(offline, tmp_path):
    target = a_recorder(tmp_path)
    for trial_id in ("00000", "00001", "00002"):
        target.proposal(Proposal(trial_id, CONFIG | {"n_latent": int(trial_id)}, "tpe"))
        target.start(trial_id)
    for epoch, values in ((0.5, (5.0, 9.0, 4.0)), (1.0, (3.0, 8.0, 6.0)), (2.0, (4.0, 7.0, 8.0))):
        for trial_id, value in zip(("00000", "00001", "00002"), values, strict=True):
            report(target, trial_id, epoch, value)
    target.end("00000", status="finished", reason="")
    target.end("00001", status="failed", reason="out of memory")
    target.close()
    runs = read_runs(tmp_path)
    assert set(runs) == {"00000", "00001", "00002"}
    for trial_id, run in runs.items():
        assert run["config"] == CONFIG | {"n_latent": int(trial_id)}
        assert (run["group"], run["project"], run["entity"]) == ("pbmc", "project", "team")
        assert [row["epoch"] for row in run["history"]] == [0.5, 1.0, 2.0]
    assert [row["loss"] for row in runs["00000"]["history"]] == [5.0, 3.0, 4.0]
    assert runs["00000"]["history"][0]["n_params"] == 7
    finished, failed, cut_off = (runs[t]["summary"] for t in ("00000", "00001", "00002"))
    assert (finished["status"], finished["best/loss"], finished["best/epoch"]) == (
        "finished",
        3.0,
        1.0,
    )
    assert finished["best/other"] == -3.0
    assert (failed["status"], failed["reason"]) == ("failed", "out of memory")
    assert (cut_off["status"], cut_off["best/loss"]) == ("interrupted", 4.0)
    assert [runs[t]["exit"] for t in ("00000", "00001", "00002")] == [0, 1, 255]


def test_a_resume_goes_on_in_the_same_run_and_keeps_the_best(offline, tmp_path):
    record = TrialRecord("00001", CONFIG, "tpe", status="running")
    record.reports = [Report(1.0, 1.0, {"loss": 2.0, "other": -2.0})]
    target = a_recorder(tmp_path, records={"00001": record})
    target.start("00001")
    report(target, "00001", 2.0, 3.0)
    target.end("00001", status="finished", reason="")
    target.close()
    run = read_runs(tmp_path)["00001"]
    assert run["id"] == "pbmc-0a-00001"
    assert run["config"] == CONFIG
    assert (run["summary"]["best/loss"], run["summary"]["best/epoch"]) == (2.0, 1.0)


def test_a_population_shows_what_a_trial_goes_on_with(offline, tmp_path):
    target = a_recorder(tmp_path, mode="max")
    for trial_id, value in (("00001", 1.0), ("00002", 5.0)):
        target.proposal(Proposal(trial_id, CONFIG, "random"))
        target.start(trial_id)
        report(target, trial_id, 1.0, value)
    after = CONFIG | {"lr": 0.08}
    perturbation = Perturbation("00001", 1.0, "00002", CONFIG, after)
    target.generation(Generation(1.0, ("00001", "00002"), (perturbation,)))
    report(target, "00001", 2.0, 4.0)
    for trial_id in ("00001", "00002"):
        target.end(trial_id, status="finished", reason="")
    target.close()
    run = read_runs(tmp_path)["00001"]
    assert run["config"] == after
    assert run["summary"]["weights_from"] == "00002"
    assert run["summary"]["best/loss"] == 5.0


@pytest.fixture
def logged_out(offline, tmp_path, monkeypatch):
    """Online, but with nobody logged in and no server there."""
    import wandb

    wandb.teardown()  # what it knows of the settings
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    for name in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    yield
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.teardown()


def test_nobody_logged_in_is_a_fault_before_the_start(logged_out, monkeypatch):
    monkeypatch.setattr(_wandb, "_LOGIN_PATIENCE_S", 300.0)  # wandb's own process starts meanwhile
    with pytest.raises(InputError, match="wandb login"):
        check_wandb("project")


def test_what_goes_wrong_later_is_raised_once_and_holds_nothing_up(logged_out, tmp_path):
    target = a_recorder(tmp_path)
    target.proposal(Proposal("00000", CONFIG, "default"))
    target.start("00000")
    deadline = time.monotonic() + 300
    slowest = 0.0
    with pytest.raises(Exception, match="(?i)api key|log in|login"):
        while time.monotonic() < deadline:
            before = time.monotonic()
            report(target, "00000", 1.0, 1.0)
            slowest = max(slowest, time.monotonic() - before)
            time.sleep(0.05)
    assert slowest < 30, "it takes as long as wandb, which asks for a minute and a half"
    target.close()
