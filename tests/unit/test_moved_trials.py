"""Trials, lone and fused, that go on on the CPU from checkpoints that a GPU wrote."""

from __future__ import annotations

import pytest
import torch
from test_trainable import REPORTS, build, prepared, run  # noqa: F401

from scvitune.fused_service import FusedTrialService
from scvitune.training import load_checkpoint, save_checkpoint


@pytest.fixture
def from_a_gpu(monkeypatch):
    """Return what makes a checkpoint one that was written on a GPU of CUDA's."""

    def change(path):
        state = load_checkpoint(path)
        loop = state["loop"]
        assert loop["noise_made_on"] == "cpu"
        # Of a generator of CUDA's: its seed and how many numbers it has drawn.
        loop |= {"noise": torch.arange(16, dtype=torch.uint8), "noise_made_on": "cuda"}
        with monkeypatch.context() as patch:
            patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
            save_checkpoint(path, {**state, "loop": loop})
        with pytest.raises(RuntimeError, match=r"CUDA|cuda"):
            torch.load(path, weights_only=True)

    return change


def go_on(step, heard):
    results = []
    while not results or not results[-1].get("done"):
        results.append(step())
        assert len(results) < 50
    assert [round(r["epoch"], 6) >= e for r, e in zip(results, REPORTS[1:], strict=True)]
    assert results[0]["epoch"] > heard["epoch"]
    assert results[-1]["outcome"] == "finished"
    return [result["metrics"] for result in results]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a GPU here")
def test_a_trial_goes_on_on_the_cpu_and_a_fused_one_with_the_same_numbers(run, from_a_gpu):  # noqa: F811
    layout, configure = run
    begun = build(configure("00001"))
    first = begun.step()  # epoch 1 is a rung: saved
    path = layout.checkpoint("00001")
    from_a_gpu(path)
    heard = {"heard": first["epoch"]}
    written = path.read_bytes()
    lone = go_on(build(configure("00001") | heard).step, first)
    path.write_bytes(written)
    service = FusedTrialService()
    service.call("00001", "setup", configure("00001") | heard)
    fused = go_on(lambda: service.call("00001", "step"), first)
    for ours, theirs in zip(fused, lone, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a GPU here")
def test_a_paused_trial_goes_on_on_the_cpu(run, from_a_gpu, tmp_path):  # noqa: F811
    """From the checkpoint that Ray keeps of it, and in a process that was another's."""
    _, configure = run
    begun = build(configure("00001"))
    first = begun.step()
    begun.save_checkpoint(str(tmp_path))
    from_a_gpu(tmp_path / "trial.pt")
    other = build(configure("00002"))
    other.load_checkpoint(str(tmp_path))
    go_on(other.step, first)
