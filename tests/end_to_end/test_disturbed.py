"""One study, disturbed in many ways: each time its table is that of the undisturbed one.

Processes, signals and files are real. What was injected how often stands in docs/faults.md.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter

import drivers
import pandas as pd
import pytest

import scvitune
from scvitune.contracts import RunLayout
from scvitune.errors import StudyError
from scvitune.events import read_events

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # twenty drivers, one after the other
KILLED_DRIVERS, KILLED_TRIALS, FROZEN_TRIALS = 20, 4, 2


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    started = drivers.Drivers(tmp_path_factory.mktemp("output"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def undisturbed(driver, tmp_path_factory):
    """The same study, left alone."""
    storage = tmp_path_factory.mktemp("undisturbed")
    driver.run("tune", storage, "whole")
    return scvitune.load(storage / "whole")


def of_kind(run, kind):
    return [event for event in read_events(run / "events.jsonl") if event["event"] == kind]


def n_ended(run):
    return len(of_kind(run, "end"))


def check_is_whole(run, undisturbed, *, first_lines=b""):
    """Nothing is lost, nothing counts twice, and all numbers are those of the undisturbed."""
    study = scvitune.load(run)
    assert study.finished
    for kind in ("proposal", "end"):
        counts = Counter(event["trial_id"] for event in of_kind(run, kind))
        assert counts == dict.fromkeys(study.trials.index, 1), kind
    metrics: dict[tuple[str, float], dict[str, float]] = {}
    for event in of_kind(run, "report"):
        known = metrics.setdefault((event["trial_id"], event["epoch"]), event["metrics"])
        assert known == event["metrics"], "a report that was made again is another one"
    assert (run / "events.jsonl").read_bytes().startswith(first_lines)
    for table in ("trials", "history"):
        pd.testing.assert_frame_equal(
            getattr(study, table).drop(columns="time_s"),
            getattr(undisturbed, table).drop(columns="time_s"),
            check_exact=True,
        )
    assert study.best_config == undisturbed.best_config
    assert (run / "best" / "model.pt").exists()


class Killing:
    """Starts drivers of one study and kills them at random moments.

    One in three within the seconds in which it opens the run and starts Ray, one in three when it
    has written some more lines, and one in three when a trial more has ended: trials without rungs
    are saved once a minute, so drivers that live shorter would never end one. A driver that is not
    killed in time stops after two trials, so that some are left for those that follow.
    """

    def __init__(self, driver, storage, wait_for):
        self._driver, self._storage, self._wait_for = driver, storage, wait_for
        self.run = storage / "killed"
        self._chance, self._log = random.Random(20), self.run / "events.jsonl"
        self.lines, self.n_killed = b"", 0

    def kill_next(self):
        n_more = int(self.n_killed % 3 == 1)
        stops_at = ("end", 2)
        if self.n_killed == 0:
            process = self._driver.start("tune", self._storage, self.run.name, stops_at=stops_at)
            self._wait_for(self._log.exists)
        else:
            process = self._driver.start("resume", self.run, stops_at=stops_at)
        if self.n_killed % 3 == 2:
            time.sleep(self._chance.uniform(0, 4))
        else:
            size = len(self.lines) + self._chance.randint(1, 9000)
            wanted = n_ended(self.run) + n_more
            self._wait_for(
                lambda: (
                    (self._log.stat().st_size > size and n_ended(self.run) >= wanted)
                    or drivers.is_stopped(process.pid)
                    or process.exitcode is not None
                ),
                seconds=250,
            )
            time.sleep(self._chance.uniform(0, 0.2))
        assert process.exitcode is None, self._driver.output(process)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        self.n_killed += 1
        now = self._log.read_bytes()
        assert now.startswith(self.lines), "something that was written is there no more"
        self.lines = now
        loaded = scvitune.load(self.run)
        assert not loaded.finished
        assert len(loaded.trials) <= drivers.N_TRIALS


@pytest.fixture(scope="module")
def killing(driver, tmp_path_factory, wait_for):
    return Killing(driver, tmp_path_factory.mktemp("killing"), wait_for)


def test_a_driver_is_killed_ten_times(killing):
    while killing.n_killed < KILLED_DRIVERS // 2:
        killing.kill_next()


def test_it_is_killed_twenty_times_and_then_let_be(driver, undisturbed, killing):
    while killing.n_killed < KILLED_DRIVERS:
        killing.kill_next()
    run = killing.run
    assert n_ended(run) >= 3, "none of what could be lost"
    driver.run("resume", run)
    starts = [e for e in of_kind(run, "driver") if e["action"] in ("start", "resume")]
    assert len({e["pid"] for e in starts}) > KILLED_DRIVERS / 2, "most were killed too early"
    check_is_whole(run, undisturbed, first_lines=killing.lines)


def test_trial_processes_are_killed_and_frozen(driver, undisturbed, tmp_path, wait_for):
    run, chance, frozen = tmp_path / "lost", random.Random(21), []
    process = driver.start("tune", tmp_path, "lost", max_failures=10, max_silence_s=30)

    def freeze(*, after):
        wait_for(lambda: n_ended(run) >= after, seconds=250)
        time.sleep(chance.uniform(0, 0.5))
        return drivers.stop_a_trial(process.pid, chance.choice, but=frozen)

    for n_killed in range(KILLED_TRIALS):
        freeze(after=2 * n_killed).kill()
    for _ in range(FROZEN_TRIALS):
        frozen.append(freeze(after=2 * KILLED_TRIALS))
    output = driver.finish(process)
    assert all(map(drivers.has_ended, frozen))
    lost = [line for line in output.splitlines() if "lost its process" in line]
    silent = [line for line in lost if "no sign of life for" in line]
    assert len(silent) == FROZEN_TRIALS, output
    assert len(lost) - len(silent) == KILLED_TRIALS
    assert all("it goes on from its checkpoint" in line for line in lost)
    check_is_whole(run, undisturbed)


def test_files_are_damaged_between_a_kill_and_the_resume(driver, undisturbed, tmp_path, wait_for):
    run, chance = tmp_path / "damaged", random.Random(22)
    layout = RunLayout(run)
    process = driver.start("tune", tmp_path, "damaged")

    def trials_under_way():
        ended = {event["trial_id"] for event in of_kind(run, "end")}
        return {event["trial_id"] for event in of_kind(run, "start")} - ended

    def stopped_amid_trials():
        """Whether it stands still with some under way; both slots may be between two trials."""
        if n_ended(run) < 4:
            return False
        os.kill(process.pid, signal.SIGSTOP)
        wait_for(lambda: drivers.is_stopped(process.pid))
        if trials_under_way():
            return True
        os.kill(process.pid, signal.SIGCONT)
        return False

    wait_for(stopped_amid_trials)
    drivers.kill_with_trials(process)

    def cut(path):
        whole = path.read_bytes()
        path.write_bytes(whole[: chance.randrange(max(1, len(whole)))])

    under_way = trials_under_way()
    for trial_id in under_way:  # as a driver leaves them that was killed at a rung
        layout.checkpoint(trial_id).write_bytes(layout.checkpoint("00000").read_bytes())
        cut(layout.checkpoint(trial_id))
    snapshots = [path for path in (layout.ray / "tune").iterdir() if path.is_file()]
    assert {"tuner.pkl"} <= {path.name for path in snapshots}
    for path in snapshots:
        cut(path)
    for path in (layout.trials, layout.history):
        path.write_bytes(b"PAR1 and no more")
    lines = layout.events.read_bytes()
    last = lines.splitlines(keepends=True)[-1]
    layout.events.write_bytes(lines + last[: chance.randrange(1, len(last) - 1)])

    output = driver.run("resume", run)
    for trial_id in under_way:
        lines_of_trial = [s for s in output.splitlines() if s.startswith(f"Trial {trial_id}: ")]
        assert len(lines_of_trial) == 1, output
        assert lines_of_trial[0].endswith("The trial begins anew.")
    assert f"1 line of {layout.events} cannot be read" in output
    check_is_whole(run, undisturbed, first_lines=lines)

    # What cannot be had again is said, and all else stays.
    best = layout.checkpoint(scvitune.load(run).best_trial_id)
    cut(best)
    (layout.report).unlink()
    with pytest.raises(StudyError, match=f"{best} cannot be read .*cannot be written") as no:
        scvitune.resume(run)
    assert "scvitune.replay" in str(no.value)
    assert layout.report.exists()
    assert len(scvitune.load(run).trials) == drivers.N_TRIALS


CLOCK = """
import os, time
real, flag = time.time, {flag!r}
def set_back():
    return real() - (7200.0 if os.path.exists(flag) else 0.0)
time.time = set_back
"""


def test_the_clock_is_set_back_two_hours(driver, undisturbed, tmp_path, wait_for):
    run, clock, flag = tmp_path / "back", tmp_path / "clock", tmp_path / "flag"
    clock.mkdir()
    (clock / "sitecustomize.py").write_text(CLOCK.format(flag=str(flag)))
    began = time.monotonic()
    process = driver.start("tune_by_another_clock", tmp_path, "back", clock, time_budget_s=600)
    wait_for(lambda: n_ended(run) >= 4)
    flag.touch()
    driver.finish(process)
    took = time.monotonic() - began
    times = [event["time"] for event in read_events(run / "events.jsonl")]
    assert min(b - a for a, b in zip(times, times[1:], strict=False)) < -7000
    check_is_whole(run, undisturbed)
    assert took / 4 < scvitune.load(run)._run.elapsed_s < took


def test_a_configuration_too_large_for_the_memory(driver, tmp_path):
    space = {
        "n_hidden": {"type": "choice", "values": [32, 40_000, 64]},
        "n_layers": 2,
        "lr": 1e-3,
    }
    given = {"space": space, "searcher": "grid", "num_samples": 3, "max_epochs": 4}
    driver.run("tune_under_memory_limit", tmp_path, "large", 4 << 30, **given)
    trials = scvitune.load(tmp_path / "large").trials
    too_large = trials["config/n_hidden"] == 40_000
    assert too_large.sum() == 1
    (lost,) = trials[too_large].itertuples()
    assert lost.status == "failed"
    assert lost.reason.startswith("could not be set up: out of memory: ")
    assert (trials["status"][~too_large] == "finished").all()
