"""Real disks that fill up, or turn read-only, in the middle of a study."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from drivers import Program

import scvitune
from scvitune.events import read_events

pytestmark = pytest.mark.slow

CONFIG = """
schema: 1
model: SCVI
data: {path: pbmc68k}
space:
  lr: {type: loguniform, low: 1e-4, high: 1e-2}
  n_hidden: 32
search: {searcher: random, scheduler: fifo, num_samples: 7, max_epochs: 20, seed: 5}
resources: {cpu: 1}
storage: STORAGE
name: run
"""


def mount(*arguments):
    """Mount, or skip where that is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")


def unmount(path):
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
def small_disk(tmp_path):
    """40 MB of memory as a file system."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=40m", "tmpfs", folder)
    yield folder
    unmount(folder)


def start(storage, tmp_path, more="", **how):
    path = tmp_path / "study.yaml"
    path.write_text(CONFIG.replace("STORAGE", str(storage)) + more)
    return Program.command("tune", path, **how)


def run(*arguments, expect):
    process = Program.command(*arguments)
    output, _ = process.communicate(timeout=250)
    assert process.returncode == expect, output
    return output


def ended(storage):
    return [
        e["trial_id"] for e in read_events(storage / "run" / "events.jsonl") if e["event"] == "end"
    ]


def fill(path):
    """Take all space that is left."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 256, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


def check_is_told(output, storage, said, cure):
    assert f"{storage / 'run'} cannot be written any more: {said}" in output
    assert "are safe" in output
    assert f"{cure}, then `scvitune resume {storage / 'run'}`" in output
    assert output.count("cannot be written any more") == 1
    assert "Traceback" not in output


def check_is_whole(storage):
    study = scvitune.load(storage / "run")
    assert study.finished
    assert len(study.trials) == 8
    assert (study.trials["status"] == "finished").all()
    assert (study.trials["epochs"] == 20).all()
    assert set(Counter(ended(storage)).values()) == {1}, "a trial ended twice"
    assert study.best_model() is not None


def test_a_full_disk_ends_the_study_tidily_and_resume_goes_on(small_disk, tmp_path):
    process = start(small_disk, tmp_path, stops_at=("end", 2))
    ballast = small_disk / "ballast"
    with process.stopped():
        fill(ballast)
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 75, output
    check_is_told(output, small_disk, "No space left on device", "Free space")
    before = ended(small_disk)
    study = scvitune.load(small_disk / "run")
    assert not study.finished
    assert "failed" not in set(study.trials["status"])

    # Still full: the same again, and nothing is lost.
    output = run("resume", small_disk / "run", expect=75)
    check_is_told(output, small_disk, "No space left on device", "Free space")
    assert ended(small_disk)[: len(before)] == before

    ballast.unlink()
    run("resume", small_disk / "run", expect=0)
    check_is_whole(small_disk)

    # Nothing is left to run, but the results have to be written.
    for derived in ("trials.parquet", "history.parquet", "report.html"):
        (small_disk / "run" / derived).unlink()
    shutil.rmtree(small_disk / "run" / "best")
    fill(ballast)
    for command in ("report", "resume"):
        output = run(command, small_disk / "run", expect=75)
        check_is_told(output, small_disk, "No space left on device", "Free space")
    ballast.unlink()
    run("resume", small_disk / "run", expect=0)
    check_is_whole(small_disk)
    assert (small_disk / "run" / "report.html").exists()


def test_a_disk_that_fills_up_in_the_confirmation(small_disk, tmp_path):
    def confirmed():
        events = read_events(small_disk / "run" / "events.jsonl")
        return [
            (e["trial_id"], e["seed"], e["status"]) for e in events if e["event"] == "confirmation"
        ]

    more = "confirm: {top_k: 2, seeds: 4}\nfinal_fit: all_cells\n"
    process = start(small_disk, tmp_path, more, stops_at=("confirmation", 2))
    ballast = small_disk / "ballast"
    with process.stopped():
        fill(ballast)
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 75, output
    check_is_told(output, small_disk, "No space left on device", "Free space")
    before = confirmed()
    n_wanted = 4 * len(scvitune.load(small_disk / "run").confirmation)
    assert 2 <= len(before) < n_wanted
    ballast.unlink()
    run("resume", small_disk / "run", expect=0)
    after = confirmed()
    assert after[: len(before)] == before
    assert len(after) == len(set(after)) == n_wanted
    assert {status for _, _, status in after} == {"finished"}
    check_is_whole(small_disk)
    assert len(scvitune.load(small_disk / "run").best_model().train_indices) == 700


def test_a_study_does_not_begin_on_a_full_disk(small_disk, tmp_path):
    fill(small_disk / "ballast")
    process = start(small_disk, tmp_path)
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 1, output
    assert "Nothing was started" in output
    assert "Traceback" not in output
    (small_disk / "ballast").unlink()
    assert not (small_disk / "run").exists()


def test_a_disk_that_turns_read_only(tmp_path):
    """Linux makes a damaged ext4 read-only under those who write to it, as is told it to here.

    A remount by hand is refused while a file is open for writing.
    """
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("there is no mkfs.ext4 here")
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    mount("-o", "loop,errors=remount-ro", image, disk)
    try:
        device = Path(
            next(
                line.split()[0]
                for line in Path("/proc/mounts").read_text().splitlines()
                if line.split()[1] == str(disk)
            )
        )
        trigger = Path("/sys/fs/ext4") / device.name / "trigger_fs_error"
        if not trigger.exists():
            pytest.skip(f"there is no {trigger} here")
        process = start(disk, tmp_path, stops_at=("end", 2))
        with process.stopped():
            os.sync()
            trigger.write_text("1")
        output, _ = process.communicate(timeout=250)
        assert process.returncode == 75, output
        check_is_told(output, disk, "Read-only file system", "Make it writable again")
        before = ended(disk)
        assert len(before) >= 2
        unmount(disk)
        time.sleep(1)
        subprocess.run(["e2fsck", "-fy", str(image)], capture_output=True)
        mount("-o", "loop", image, disk)
        run("resume", disk / "run", expect=0)
        check_is_whole(disk)
    finally:
        unmount(disk)
