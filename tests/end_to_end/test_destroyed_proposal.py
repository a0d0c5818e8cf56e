"""A line in the middle of a log is destroyed: the resumed study comes to the same trials."""

from __future__ import annotations

import json

import pandas as pd
import scvi

import scvitune

LOST = "00002"


def test_the_lost_trial_is_proposed_and_trained_again(tmp_path, local_ray, capsys):
    cells = scvitune.data.simulated(120, 30, mean_library=150.0, seed=0)
    scvi.model.SCVI.setup_anndata(cells)
    whole = scvitune.tune(
        "SCVI",
        cells,
        space={"lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2}, "n_hidden": 16},
        searcher="random",
        scheduler="fifo",
        num_samples=3,
        max_epochs=4,
        resources={"cpu": 1},
        storage=tmp_path,
        name="mine",
    )
    trials, history = whole.trials, whole.history
    log = whole.path / "events.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    (at,) = (
        i
        for i, line in enumerate(map(json.loads, lines))
        if (line["event"], line.get("trial_id")) == ("proposal", LOST)
    )
    lines[at] = bytes(len(lines[at]) - 1) + b"\n"
    log.write_bytes(b"".join(lines))
    assert list(scvitune.load(whole.path).trials.index) == ["00000", "00001", "00003"]
    capsys.readouterr()

    again = scvitune.resume(whole.path)

    assert f"So trials {LOST} are not known any more" in capsys.readouterr().out
    assert log.read_bytes().startswith(b"".join(lines))
    dropped = ["time_s"]
    pd.testing.assert_frame_equal(
        again.trials.sort_index().drop(columns=dropped), trials.drop(columns=dropped)
    )
    order = ["trial_id", "epoch"]
    pd.testing.assert_frame_equal(
        again.history.sort_values(order).drop(columns=dropped).reset_index(drop=True),
        history.sort_values(order).drop(columns=dropped).reset_index(drop=True),
    )
