"""Programs in forks, which the other tests start, end as they would by themselves."""

from __future__ import annotations

import signal
import time

import pytest
from drivers import Program

from scvitune.events import read_events

POOL = """
import builtins
from concurrent.futures import ThreadPoolExecutor

builtins.pool = ThreadPoolExecutor(2)  # held until the end, and never shut down
print(*builtins.pool.map(str, range(3)))
"""


def test_one_that_leaves_a_pool_of_threads_ends() -> None:
    program = Program.script(POOL)
    output, _ = program.communicate(timeout=60)
    assert output == "0 1 2\n"
    assert program.returncode == 0


LOGGED = """
import sys
from pathlib import Path
from scvitune.events import EventLog

with EventLog(Path(sys.argv[1])) as log:
    for number in range(100):
        log.append("start", trial_id=str(number))
        log.append_all([("end", {"trial_id": str(number)}), ("pause", {"trial_id": str(number)})])
"""


@pytest.mark.parametrize("sent", [None, signal.SIGTERM, signal.SIGKILL])
def test_one_stops_at_its_line_for_as_long_as_it_is_looked_at(tmp_path, sent) -> None:
    path = tmp_path / "events.jsonl"
    program = Program.script(LOGGED, path, stops_at=("end", 3))
    with program.stopped():
        written = path.read_bytes()
        assert [event["event"] for event in read_events(path)] == ["start", "end", "pause"] * 3
        time.sleep(0.5)
        assert path.read_bytes() == written
        if sent is not None:
            program.send_signal(sent)
    assert program.wait(60) == (0 if sent is None else -sent)
    assert len(read_events(path)) == (300 if sent is None else 9)


def test_one_that_never_comes_to_its_line_is_told(tmp_path) -> None:
    program = Program.script(LOGGED, tmp_path / "events.jsonl", stops_at=("report", 1))
    with pytest.raises(AssertionError, match="it has not stopped"), program.stopped():
        pass
    assert program.returncode == 0
