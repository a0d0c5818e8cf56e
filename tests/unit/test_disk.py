"""Files that the system refuses to let grow, as a full disk does."""

from __future__ import annotations

import errno
import os
import resource
from contextlib import contextmanager

import pytest
import torch

from scvitune._disk import (
    begun_or_not_at_all,
    describe_disk_fault,
    disk_faults_explained,
    explain_disk_fault,
    find_disk_fault,
    write_whole,
)
from scvitune.contracts import RunLayout
from scvitune.errors import DiskFault, StudyError
from scvitune.events import EventLog, read_events


@contextmanager
def no_file_larger_than(n_bytes):
    """The system itself takes what fits and refuses the rest, as with a disk that fills up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_line_that_does_not_fit_leaves_nothing_in_the_log(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.append("start", trial_id="00000")
        whole = path.read_bytes()
        with no_file_larger_than(len(whole) + 20), pytest.raises(OSError, match="too large"):
            log.append("start", trial_id="00001")
        assert path.read_bytes() == whole
        log.append("start", trial_id="00002")
    assert [event["trial_id"] for event in read_events(path)] == ["00000", "00002"]


def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path):
    path = tmp_path / "table"
    write_whole(path, b"old")
    with no_file_larger_than(100), pytest.raises(OSError, match="too large"):
        write_whole(path, b"n" * 1000)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_fault_is_found_however_deep():
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert find_disk_fault(full) is full
    try:
        try:
            raise full
        except OSError as error:
            raise ValueError("the table") from error
    except ValueError as error:
        assert find_disk_fault(error) is full
    task = RuntimeError("a Ray task")
    task.cause = full
    assert find_disk_fault(task) is full
    for other in (None, ValueError("no"), FileNotFoundError(errno.ENOENT, "no such file")):
        assert find_disk_fault(other) is None


def test_what_a_library_adds_is_left_out():
    fault = OSError(
        errno.ENOSPC, "Error writing bytes. Detail: [errno 28] No space left on device"
    )
    assert describe_disk_fault(fault) == "No space left on device"


def test_what_torch_itself_cannot_write_is_one_too(tmp_path):
    with no_file_larger_than(1000), pytest.raises(RuntimeError) as caught:
        torch.save(torch.zeros(10_000), tmp_path / "model.pt")
    assert find_disk_fault(caught.value) is not None


@pytest.mark.parametrize("keep", [1000, 0.5, 0.99])
def test_a_damaged_file_that_torch_reads_is_none(tmp_path, keep):
    path = tmp_path / "model.pt"
    torch.save({"weights": torch.zeros(10_000)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises((RuntimeError, OSError)) as caught:
        torch.load(path, weights_only=True)
    assert find_disk_fault(caught.value) is None


@pytest.fixture
def layout(tmp_path):
    layout = RunLayout(tmp_path / "a run")
    layout.root.mkdir()
    with EventLog(layout.events) as log:
        for trial_id in ("00000", "00001", "00002"):
            log.append("proposal", trial_id=trial_id, config={}, origin="random")
        for trial_id in ("00000", "00001"):
            log.append(
                "report", trial_id=trial_id, epoch=1.0, time_s=1.0, n_params=1, metrics={"a": 1.0}
            )
        log.append("end", trial_id="00000", status="finished", reason="")
    return layout


def test_the_message_says_what_is_safe_and_what_to_do(layout):
    message = str(explain_disk_fault(layout, os.strerror(errno.ENOSPC)))
    assert "No space left on device" in message
    assert "1 trial had ended and are safe, and 1 more have reports" in message
    assert f"Free space, then `scvitune resume '{layout.root}'`" in message
    assert "Make it writable again" in str(explain_disk_fault(layout, "Read-only file system"))


def test_only_faults_of_the_disk_are_explained(layout):
    with pytest.raises(DiskFault, match="No space left"), disk_faults_explained(layout):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(KeyError), disk_faults_explained(layout):
        raise KeyError("a fault of ours")


def test_a_study_that_could_not_begin_leaves_its_name_free(tmp_path):
    layout = RunLayout(tmp_path / "name")
    with pytest.raises(StudyError, match="Nothing was started"), begun_or_not_at_all(layout):
        layout.root.mkdir()
        (layout.root / "splits.npz").touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not layout.root.exists()
