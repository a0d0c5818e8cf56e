"""Checkpoint files: whole or not at all, and never code."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from scvitune.errors import CheckpointError, StudyError
from scvitune.training import load_checkpoint, save_checkpoint

STATE = {
    "weights": {"a": torch.arange(6.0).view(2, 3), "n": torch.tensor([2**62])},
    "reports": [1.5, None, "text", True, {"deep": [1]}],
    "epoch": 0.1,
}


def test_what_is_saved_comes_back(tmp_path):
    path = tmp_path / "new folder" / "00001.pt"
    save_checkpoint(path, STATE)
    state = load_checkpoint(path)
    assert torch.equal(state["weights"]["a"], STATE["weights"]["a"])
    assert state["weights"]["n"].dtype == torch.int64
    assert state["reports"] == STATE["reports"]
    assert state["epoch"] == 0.1
    assert [p.name for p in path.parent.iterdir()] == ["00001.pt"]


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_a_failing_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, error):
    path = tmp_path / "00001.pt"
    save_checkpoint(path, STATE)

    def fail(target, content):
        with target.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fail)
        with pytest.raises(type(error)):
            save_checkpoint(path, {"epoch": 9.0})
    assert load_checkpoint(path)["epoch"] == 0.1
    assert [p.name for p in tmp_path.iterdir()] == ["00001.pt"]


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(StudyError, match="There is no checkpoint at .*00001.pt"):
        load_checkpoint(tmp_path / "00001.pt")


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.95])
def test_a_file_cut_short_is_said_to_be_damaged(tmp_path, keep):
    path = tmp_path / "00001.pt"
    save_checkpoint(path, STATE)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(CheckpointError, match=r"(?s)00001.pt cannot be read \(\w+: "):
        load_checkpoint(path)


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("evil"),))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": 2, "weights": Evil()}, tmp_path / "zip.pt")
    assert zipfile.is_zipfile(tmp_path / "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil()))
    for name in ("zip.pt", "plain.pt"):
        with pytest.raises(StudyError, match="cannot be read"):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("saved", [{"format": 1}, {"format": None}, {}])
def test_another_format_is_refused(tmp_path, saved):
    torch.save(saved, tmp_path / "00001.pt")
    with pytest.raises(CheckpointError, match="has format .* reads format 2"):
        load_checkpoint(tmp_path / "00001.pt")
