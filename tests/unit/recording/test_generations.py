"""What recorders make of a population's comparison."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from scvitune.contracts import Generation, Perturbation, Proposal, RunLayout
from scvitune.events import EventLog, fold, read_events
from scvitune.recording import (
    CheckpointPruner,
    EventRecorder,
    ProgressRecorder,
    Recorders,
    TensorBoardRecorder,
)

BEFORE, AFTER = {"lr": 1.0, "n_hidden": 8}, {"lr": 0.08, "n_hidden": 16}
GENERATION = Generation(
    2.0, ("00001", "00002"), (Perturbation("00001", 2.0, "00002", BEFORE, AFTER),)
)


def play(target, *, end=True):
    target.proposal(Proposal("00001", BEFORE, "random"))
    target.proposal(Proposal("00002", {"lr": 0.1, "n_hidden": 16}, "random"))
    for trial_id, values in (("00001", (3.0, 9.0)), ("00002", (6.0, 5.0))):
        target.start(trial_id)
        for epoch, value in enumerate(values, 1):
            report(target, trial_id, epoch, value)
    target.generation(GENERATION)
    report(target, "00001", 3.0, 5.5)
    if end:
        for trial_id in ("00001", "00002"):
            target.end(trial_id, status="finished", reason="")
    target.close()


def report(target, trial_id, epoch, value):
    target.report(trial_id, epoch=float(epoch), time_s=1.0, metrics={"loss": value}, n_params=1)


def read(folder: Path) -> tuple[dict[str, object], EventAccumulator]:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    content = accumulator.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    info = metadata.parse_session_start_info_plugin_data(content)
    shown = {name: getattr(v, v.WhichOneof("kind")) for name, v in info.hparams.items()}
    return shown, accumulator


def test_the_log_has_a_line_a_perturbation_before_its_generation(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        play(Recorders([EventRecorder(log)]))
    kinds = [e["event"] for e in read_events(path)]
    assert kinds.index("perturb") + 1 == kinds.index("generation")
    record = fold(read_events(path))["00001"]
    assert record.config == AFTER
    assert record.perturbations == list(GENERATION.perturbations)


def test_hparams_show_what_a_trial_ended_with_and_where_it_came_from(tmp_path):
    play(TensorBoardRecorder(tmp_path, metric="loss", mode="min"))
    shown, accumulator = read(tmp_path / "00001")
    assert shown == {"lr": 0.08, "n_hidden": 16.0, "from": "00002 at epoch 2"}
    assert [(s.step, s.value) for s in accumulator.Scalars("loss")] == [
        (1, 3.0),
        (2, 9.0),
        (3, 5.5),
    ]
    assert accumulator.Scalars("Best/loss")[-1].value == 5.0
    assert accumulator.SummaryMetadata(metadata.SESSION_END_INFO_TAG) is not None
    assert len(list((tmp_path / "00001").iterdir())) == 1
    # Parallel coordinates leave out a trial that lacks a column, so all of a population have it.
    assert read(tmp_path / "00002")[0]["from"] == "its own start"


def test_hparams_of_a_study_cut_off_are_right_before_and_after_its_resume(tmp_path):
    with EventLog(tmp_path / "events.jsonl") as log:
        play(
            Recorders(
                [EventRecorder(log), TensorBoardRecorder(tmp_path, metric="loss", mode="min")]
            ),
            end=False,
        )
    assert read(tmp_path / "00001")[0]["from"] == "00002 at epoch 2"
    again = TensorBoardRecorder(tmp_path, metric="loss", mode="min")
    again.restore(fold(read_events(tmp_path / "events.jsonl")))
    again.start("00001")
    report(again, "00001", 4.0, 4.0)
    again.end("00001", status="finished", reason="")
    again.close()
    shown, accumulator = read(tmp_path / "00001")
    assert shown["lr"] == 0.08
    assert [s.value for s in accumulator.Scalars("loss")] == [3.0, 9.0, 5.5, 4.0]
    assert len(list((tmp_path / "00001").iterdir())) == 1


def test_checkpoints_are_kept_by_the_weights_that_a_trial_has(tmp_path):
    layout = RunLayout(tmp_path)
    layout.checkpoints.mkdir(parents=True)
    for trial_id in ("00001", "00002"):
        layout.checkpoint(trial_id).touch()
    play(CheckpointPruner(layout, metric="loss", mode="min", keep=1))
    # 00001 reported 3.0 of weights that it gave up; what it has now is worth 5.0 as in 00002,
    # which trained it itself and so is the best trial.
    assert [path.stem for path in layout.checkpoints.iterdir()] == ["00002"]
    play_worse = CheckpointPruner(layout, metric="loss", mode="min", keep=1)
    layout.checkpoint("00001").touch()
    play(play_worse, end=False)
    report(play_worse, "00002", 3.0, 4.0)
    for trial_id in ("00001", "00002"):
        play_worse.end(trial_id, status="finished", reason="")
    assert [path.stem for path in layout.checkpoints.iterdir()] == ["00002"]


def test_progress_forgets_the_best_of_weights_given_up():
    stream = io.StringIO()
    target = ProgressRecorder(
        metric="loss",
        mode="min",
        num_trials=2,
        max_epochs=3.0,
        slots=2,
        console=Console(file=stream, force_terminal=False, width=200),
    )
    play(target)
    assert "Best so far" in target.snapshot()
    assert target._tally._trials["00001"].best == 5.0
    assert target._tally._trials["00001"].config == AFTER
