"""What code may be run from: only what nobody but the user can have written."""

from __future__ import annotations

import os

import pytest

from scvitune._ownership import find_foreign


@pytest.fixture
def places(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir(mode=0o755)
    file = folder / "ready.pkl"
    file.touch(mode=0o644)
    folder.chmod(0o755)
    file.chmod(0o644)
    return folder, file


def test_ones_own_places_are_safe(places):
    assert find_foreign(places) is None
    assert find_foreign([]) is None


@pytest.mark.parametrize("bit", [0o020, 0o002])
@pytest.mark.parametrize("which", [0, 1])
def test_what_others_may_write_is_not(places, bit, which):
    places[which].chmod(0o744 | bit)
    assert find_foreign(places) == places[which]


def test_what_others_own_is_not(places, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: places[0].stat().st_uid + 1)
    assert find_foreign(places) == places[0]


def test_a_link_is_as_safe_as_what_it_leads_to(places, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(places[1])
    assert find_foreign([link]) is None
    places[1].chmod(0o666)
    assert find_foreign([link]) == link


def test_what_is_not_there_is_not_called_safe(tmp_path):
    with pytest.raises(FileNotFoundError):
        find_foreign([tmp_path / "nothing"])
