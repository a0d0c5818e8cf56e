"""Which functions a user has named for which run, across processes, and what cannot be trusted."""

from __future__ import annotations

import json
import stat

import pytest

from scvitune.errors import ScvituneWarning
from scvitune.experiment import _consent
from scvitune.experiment._consent import is_named, note_named


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Where it is noted, of a process that has named nothing."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(_consent, "_named_here", set())
    return tmp_path / "state" / "scvitune" / "named_functions.jsonl"


@pytest.fixture
def as_another_process(monkeypatch):
    return lambda: monkeypatch.setattr(_consent, "_named_here", set())


def test_it_is_remembered_for_one_place_and_one_function(file, tmp_path, as_another_process):
    run = tmp_path / "run"
    assert not is_named(run, "a.b:c")
    note_named(run, ["a.b:c", "d:e"])
    as_another_process()
    assert is_named(run, "a.b:c")
    assert is_named(run, "d:e")
    assert not is_named(run, "a.b:d")
    assert not is_named(tmp_path / "copy", "a.b:c")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    assert is_named(tmp_path / "link" / "run", "a.b:c")


def test_what_is_noted_is_noted_once(file, tmp_path, as_another_process):
    note_named(tmp_path, ["a:b"])
    as_another_process()
    note_named(tmp_path, ["a:b", "c:d"])
    note_named(tmp_path, [])
    assert len(file.read_text().splitlines()) == 2


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_can_write_counts_for_nothing(file, tmp_path, as_another_process, mode):
    note_named(tmp_path, ["a:b"])
    as_another_process()
    file.chmod(mode)
    assert not is_named(tmp_path, "a:b")
    file.chmod(0o600)
    file.parent.chmod(0o777)
    assert not is_named(tmp_path, "a:b")
    file.parent.chmod(0o700)
    assert is_named(tmp_path, "a:b")


def test_lines_that_cannot_be_read_take_no_others_with_them(file, tmp_path, as_another_process):
    note_named(tmp_path, ["a:b"])
    line = json.dumps({"run": str(tmp_path), "function": "c:d"})
    with file.open("ab") as log:
        log.write(b'{"run": "/x", "fun\n[1]\n{"run": 1}\n\xff\n' + line.encode() + b"\n")
    as_another_process()
    assert is_named(tmp_path, "a:b")
    assert is_named(tmp_path, "c:d")


def test_a_home_that_cannot_be_written_warns_and_this_process_knows(
    file, tmp_path, as_another_process
):
    file.parent.parent.write_text("in its way")
    with pytest.warns(ScvituneWarning, match=r"named_functions\.jsonl cannot be written"):
        note_named(tmp_path, ["a:b"])
    assert is_named(tmp_path, "a:b")
    as_another_process()
    assert not is_named(tmp_path, "a:b")


def test_without_a_state_home_it_is_that_of_the_user(file, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in ("", "relative"):  # XDG: what is relative is to be ignored
        monkeypatch.setenv("XDG_STATE_HOME", given)
        note_named(tmp_path, [f"a:b{given}"])
    kept = tmp_path / ".local" / "state" / "scvitune" / "named_functions.jsonl"
    assert len(kept.read_text().splitlines()) == 2
    assert [path.name for path in tmp_path.iterdir()] == [".local"]
