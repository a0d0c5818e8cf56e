from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from scvitune.errors import InputError
from scvitune.results import build_table, read_run


def test_reads_settings_records_and_driver_lines(small_run) -> None:
    run = small_run.read()
    assert (run.metric, run.mode, run.name) == ("elbo_validation", "min", "pbmc")
    assert list(run.records) == ["00000", "00001", "00002", "00003"]
    assert [line["action"] for line in run.driver_lines] == ["start", "end"]
    assert run.end_order == ("00000", "00001", "00002", "00003")
    assert run.default is run.records["00000"]
    assert not run.driver_alive


def test_a_held_lock_means_a_living_driver(small_run) -> None:
    with small_run.layout.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert small_run.read().driver_alive
        assert not small_run.read().at_work  # it has written that it is done
        small_run.driver("resume")
        assert small_run.read().at_work
    assert not small_run.read().driver_alive
    assert not small_run.read().at_work


def test_elapsed_time_leaves_out_the_break(new_run) -> None:
    builder = new_run()
    lines = [
        {"event": "driver", "action": "start", "time": 100.0},
        {"event": "proposal", "trial_id": "00000", "config": {}, "origin": "default", "time": 101},
        {"event": "start", "trial_id": "00000", "time": 130.0},
        {"event": "driver", "action": "resume", "time": 5000.0},
        {"event": "end", "trial_id": "00000", "status": "finished", "time": 5012.0},
    ]
    builder.layout.events.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert builder.read().elapsed_s == pytest.approx(30 + 12)
    assert builder.read().search_s == pytest.approx(30 + 12)


@pytest.mark.parametrize("jump", [-86_400.0, -25.0])
def test_a_clock_that_is_set_back_takes_no_time_away(new_run, jump) -> None:
    builder = new_run()
    lines = [
        {"event": "driver", "action": "start", "time": 1000.0},
        {"event": "proposal", "trial_id": "00000", "config": {}, "origin": "default"},
        {"event": "start", "trial_id": "00000", "time": 1020.0},
        {"event": "end", "trial_id": "00000", "status": "finished", "time": 1022.0 + jump},
        {"event": "driver", "action": "searched", "trials": 1, "time": 1032.0 + jump},
    ]
    builder.layout.events.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = builder.read()
    # Only the two seconds between the lines before and after the change are lost.
    assert run.elapsed_s == pytest.approx(30)
    assert [moment.at_work_s for moment in run.moments] == pytest.approx([20, 20])
    assert [moment.time for moment in run.moments] == [1020.0, 1022.0 + jump]


def test_what_follows_the_search_is_no_time_of_it(new_run) -> None:
    builder = new_run()
    done = {"event": "confirmation", "trial_id": "00000", "seed": 1, "status": "finished"}
    done |= {"epoch": 1.0, "time_s": 1.0, "reason": "", "metrics": {}}
    lines = [
        {"event": "driver", "action": "start", "time": 100.0},
        {"event": "proposal", "trial_id": "00000", "config": {}, "origin": "default", "time": 101},
        {"event": "end", "trial_id": "00000", "status": "finished", "time": 130.0},
        {"event": "driver", "action": "searched", "trials": 1, "time": 131.0},
        done | {"time": 200.0},
        {"event": "driver", "action": "resume", "time": 5000.0},
        {"event": "driver", "action": "searched", "trials": 1, "time": 5002.0},
        done | {"seed": 2, "time": 5090.0},
        {"event": "driver", "action": "end", "time": 5100.0},
    ]
    builder.layout.events.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = builder.read()
    assert run.elapsed_s == pytest.approx(100 + 100)
    assert run.search_s == pytest.approx(31), "the start of who came for the rest is none of it"
    assert build_table(run, "run_times").loc["wall_s", "value"] == run.search_s


def test_a_missing_directory_names_the_nearest_run(small_run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run directory.*Did you mean 'pbmc'"):
        read_run(tmp_path / "pbcm")


def test_a_folder_of_runs_lists_them(small_run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no study.yaml.*pbmc"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metric: [", "cannot be read as YAML"),
        ("just text", "must hold a mapping"),
        ("metric: elbo_validation", "lacks mode"),
        ("metric: a\nmode: sideways", "must be 'min' or 'max', but is 'sideways'"),
        ("", "must hold a mapping"),
    ],
)
def test_a_broken_study_file_says_what_is_wrong(small_run, text: str, message: str) -> None:
    small_run.layout.study.write_text(text)
    with pytest.raises(InputError, match=message):
        small_run.read()


def test_a_run_without_events_is_empty(new_run) -> None:
    builder = new_run()
    builder.layout.events.unlink()
    run = builder.read()
    assert run.records == {}
    assert run.elapsed_s == 0.0
