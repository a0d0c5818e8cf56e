"""A log with destroyed lines: what it says of them, and what is left of their trials."""

from __future__ import annotations

from scvitune.contracts import RunLayout
from scvitune.events import EventLog
from scvitune.experiment._run_directory import open_log


def test_who_has_no_proposal_any_more_leaves_no_checkpoint(tmp_path):
    layout = RunLayout(tmp_path)
    layout.checkpoints.mkdir(parents=True)
    with EventLog(layout.events) as log:
        for trial_id in ("00000", "00001", "00002"):
            log.append("proposal", trial_id=trial_id, config={}, origin="random")
            log.append("start", trial_id=trial_id)
            layout.checkpoint(trial_id).touch()
    lines = layout.events.read_bytes().splitlines(keepends=True)
    lines[2] = b"\0" * (len(lines[2]) - 1) + b"\n"
    layout.events.write_bytes(b"".join(lines))
    said: list[str] = []
    open_log(layout, said.append).close()
    assert [path.stem for path in sorted(layout.checkpoints.iterdir())] == ["00000", "00002"]
    assert len(said) == 1
    assert "So trials 00001 are not known any more, and others take their places." in said[0]
