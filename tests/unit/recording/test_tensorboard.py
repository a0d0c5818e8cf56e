from __future__ import annotations

import math
from pathlib import Path

import pytest
from tensorboard import context
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import (
    api_pb2,
    backend_context,
    get_experiment,
    list_session_groups,
    metadata,
)
from tensorboard.plugins.hparams.api_pb2 import Status

from scvitune.contracts import Choice, FloatRange, Hyperparameter, Proposal, SearchSpace
from scvitune.events import Report, TrialRecord
from scvitune.recording._tensorboard import TensorBoardRecorder

CONFIG = {
    "lr": 1e-3,
    "n_latent": 10,
    "gene_likelihood": "zinb",
    "dispersion": "gene",
    "use_layer_norm": False,
    "max_norm": None,
}


def n_open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def recorder(path: Path, mode: str = "min") -> TensorBoardRecorder:
    return TensorBoardRecorder(path, metric="elbo_validation", mode=mode)


def report(target: TensorBoardRecorder, trial_id: str, epoch: float, value: float) -> None:
    metrics = {"elbo_validation": value, "elbo_train": value - 1}
    target.report(trial_id, epoch=epoch, time_s=epoch / 2, metrics=metrics, n_params=7)


def read(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return accumulator


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


def hparams(folder: Path) -> dict[str, object]:
    content = read(folder).SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    info = metadata.parse_session_start_info_plugin_data(content)
    return {name: getattr(v, v.WhichOneof("kind")) for name, v in info.hparams.items()}


def session_status(folder: Path) -> int | None:
    try:
        found = read(folder).SummaryMetadata(metadata.SESSION_END_INFO_TAG)
    except KeyError:
        return None
    return metadata.parse_session_end_info_plugin_data(found.plugin_data.content).status


def test_scalars_come_back_with_epochs_as_steps(tmp_path: Path) -> None:
    target = recorder(tmp_path)
    target.proposal(Proposal("00000", CONFIG, "default"))
    target.start("00000")
    for epoch, value in ((1.0, 5.0), (2.0, 3.0), (5.0, 4.0)):
        report(target, "00000", epoch, value)
    target.end("00000", status="finished", reason="")
    folder = tmp_path / "00000"
    assert scalars(folder, "elbo_validation") == [(1, 5.0), (2, 3.0), (5, 4.0)]
    assert scalars(folder, "elbo_train") == [(1, 4.0), (2, 2.0), (5, 3.0)]
    assert scalars(folder, "epoch") == [(1, 1.0), (2, 2.0), (5, 5.0)]
    assert scalars(folder, "n_params") == [(1, 7.0)]
    assert scalars(folder, "Best/elbo_validation")[-1] == (2, 3.0)
    assert scalars(folder, "Best_report/elbo_train")[-1] == (2, 2.0)


def test_fractional_epochs_step_by_report(tmp_path: Path) -> None:
    target = recorder(tmp_path, mode="max")
    target.proposal(Proposal("00000", CONFIG, "default"))
    for epoch, value in ((0.25, 1.0), (0.5, 3.0), (1.0, 2.0)):
        report(target, "00000", epoch, value)
    target.close()
    assert scalars(tmp_path / "00000", "elbo_validation") == [(1, 1.0), (2, 3.0), (3, 2.0)]
    assert scalars(tmp_path / "00000", "Best/elbo_validation")[-1] == (2, 3.0)


def test_hparams_hold_constants_none_and_conditional_ones(tmp_path: Path) -> None:
    target = recorder(tmp_path)
    target.proposal(Proposal("00000", CONFIG, "default"))
    target.start("00000")
    target.close()
    assert hparams(tmp_path / "00000") == {
        "lr": 1e-3,
        "n_latent": 10.0,
        "gene_likelihood": "zinb",
        "dispersion": "gene",
        "use_layer_norm": False,
        "max_norm": "None",
    }


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("finished", Status.STATUS_SUCCESS),
        ("stopped", Status.STATUS_SUCCESS),
        ("diverged", Status.STATUS_FAILURE),
        ("failed", Status.STATUS_FAILURE),
    ],
)
def test_every_end_is_written(tmp_path: Path, status: str, expected: int) -> None:
    target = recorder(tmp_path)
    target.proposal(Proposal("00001", CONFIG, "tpe"))
    target.end("00001", status=status, reason="because")
    assert session_status(tmp_path / "00001") == expected
    assert hparams(tmp_path / "00001")["lr"] == 1e-3


def test_a_killed_trial_has_its_entry_and_best_value(tmp_path: Path) -> None:
    target = recorder(tmp_path)
    target.proposal(Proposal("00001", CONFIG, "tpe"))
    target.start("00001")
    report(target, "00001", 1.0, 4.0)
    report(target, "00001", 2.0, 6.0)
    target.close()
    assert session_status(tmp_path / "00001") is None
    assert scalars(tmp_path / "00001", "Best/elbo_validation") == [(1, 4.0)]


def test_a_resume_keeps_the_best_value_and_completes_the_entry(tmp_path: Path) -> None:
    first = recorder(tmp_path)
    first.proposal(Proposal("00001", CONFIG, "tpe"))
    first.start("00001")
    report(first, "00001", 1.0, 4.0)
    report(first, "00001", 2.0, 6.0)
    first.close()

    metrics = {"elbo_validation": 4.0, "elbo_train": 3.0}
    record = TrialRecord("00001", CONFIG, "tpe", status="running", n_params=7)
    record.reports = [Report(1.0, 1.0, metrics), Report(2.0, 2.0, {"elbo_validation": 6.0})]
    again = recorder(tmp_path)
    again.restore({"00001": record})
    again._suffix = "9" + again._suffix
    again.start("00001")
    report(again, "00001", 2.0, 6.0)
    report(again, "00001", 3.0, 5.0)
    again.end("00001", status="finished", reason="")
    folder = tmp_path / "00001"
    assert scalars(folder, "elbo_validation")[-1] == (3, 5.0)
    assert scalars(folder, "Best/elbo_validation")[-1] == (1, 4.0)
    assert session_status(folder) == Status.STATUS_SUCCESS


def test_a_repeated_report_keeps_its_step(tmp_path: Path) -> None:
    record = TrialRecord("00001", CONFIG, "tpe", status="running")
    record.reports = [Report(e, e, {"elbo_validation": 9 - e}) for e in (0.25, 0.5, 0.75)]
    target = recorder(tmp_path)
    target.restore({"00001": record})
    for epoch in (0.5, 0.75, 1.0):
        report(target, "00001", epoch, 8.5)
    target.close()
    folder = tmp_path / "00001"
    assert scalars(folder, "elbo_validation") == [(2, 8.5), (3, 8.5), (4, 8.5)]
    assert scalars(folder, "Best/elbo_validation") == [(3, 8.25)]


def test_restore_writes_nothing_for_trials_that_are_complete(tmp_path: Path) -> None:
    first = recorder(tmp_path)
    first.proposal(Proposal("00000", CONFIG, "default"))
    first.end("00000", status="finished", reason="")
    before = sorted(tmp_path.rglob("*"))
    again = recorder(tmp_path)
    again.restore({"00000": TrialRecord("00000", CONFIG, "default", status="finished")})
    again.close()
    assert sorted(tmp_path.rglob("*")) == before


def test_many_trials_leave_few_files_open(tmp_path: Path) -> None:
    target = recorder(tmp_path)
    before = n_open_files()
    for number in range(150):
        trial_id = f"{number:05d}"
        target.proposal(Proposal(trial_id, CONFIG, "random"))
        target.start(trial_id)
        report(target, trial_id, 1.0, float(number))
    assert n_open_files() - before <= 64
    for number in range(150):
        report(target, f"{number:05d}", 2.0, float(number) - 1)
        target.end(f"{number:05d}", status="finished", reason="")
    assert n_open_files() == before
    assert scalars(tmp_path / "00003", "elbo_validation") == [(1, 3.0), (2, 2.0)]


def test_a_report_is_seen_though_none_follows(tmp_path: Path) -> None:
    """Reports of several trials at the same moment, then silence: nothing waits for the next."""
    target = recorder(tmp_path)
    for trial_id in ("00000", "00001"):
        target.proposal(Proposal(trial_id, CONFIG, "tpe"))
        target.start(trial_id)
        assert hparams(tmp_path / trial_id)["lr"] == 1e-3
        for epoch, value in ((1.0, 5.0), (2.0, 4.0)):
            report(target, trial_id, epoch, value)
    for trial_id in ("00000", "00001"):
        folder = tmp_path / trial_id
        assert scalars(folder, "elbo_validation") == [(1, 5.0), (2, 4.0)]
        assert scalars(folder, "Best/elbo_validation")[-1] == (2, 4.0)
    target.close()


def open_page(path: Path):
    """What the HParams page is made from: how to ask, and what it says of the experiment."""
    runs = EventMultiplexer()
    runs.AddRunsFromDirectory(str(path))
    runs.Reload()
    provider = MultiplexerDataProvider(runs, str(path))
    backend = backend_context.Context(TBContext(data_provider=provider))
    asked = context.RequestContext()
    request = api_pb2.GetExperimentRequest()
    experiment = get_experiment.Handler(asked, backend, "study", request).run()
    return asked, backend, experiment


def test_the_hparams_page_lists_and_sorts_all_trials(tmp_path: Path) -> None:
    space = SearchSpace((Hyperparameter("clip", Choice((None, 5.0))),), {})
    target = TensorBoardRecorder(tmp_path, metric="elbo_validation", mode="min", space=space)
    ends = {"00000": "finished", "00001": "stopped", "00002": "failed", "00003": None}
    for number, (trial_id, status) in enumerate(ends.items()):
        config = {"clip": None if number % 2 else 5.0, "n_layers": 1}
        if number == 3:
            config["late"] = "only here"
        target.proposal(Proposal(trial_id, config, "tpe"))
        target.start(trial_id)
        report(target, trial_id, 1.0, 10.0 - number)
        report(target, trial_id, 2.0, 20.0)
        if status:
            target.end(trial_id, status=status, reason="")
    target.close()

    asked, backend, experiment = open_page(tmp_path)
    assert {info.name for info in experiment.hparam_infos} == {"clip", "n_layers", "late"}
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=10,
        allowed_statuses=list(api_pb2.Status.values()),
        col_params=[api_pb2.ColParams(hparam="clip", order=api_pb2.ORDER_ASC)],
        include_metrics=True,
    )
    groups = list_session_groups.Handler(asked, backend, "study", request).run().session_groups
    best = {
        group.name: value.value
        for group in groups
        for value in group.metric_values
        if value.name.tag == "Best/elbo_validation"
    }
    assert best == {"00000": 10.0, "00001": 9.0, "00002": 8.0, "00003": 7.0}
    clips = {group.name: group.hparams["clip"].string_value for group in groups}
    assert clips == {"00000": "5.0", "00001": "None", "00002": "5.0", "00003": "None"}


def test_metrics_may_come_late_and_only_now_and_then(tmp_path: Path) -> None:
    """A dear metric is computed at some reports only, and never stands beside another's best."""
    target = recorder(tmp_path)
    target.proposal(Proposal("00000", CONFIG, "default"))
    values = {1.0: 9.0, 2.0: 5.0, 3.0: 4.0, 4.0: 6.0}
    for epoch, value in values.items():
        dear = {"ari": 0.5 + epoch / 10, "Zeta": 1.0} if epoch in (2.0, 4.0) else {}
        metrics = {"elbo_validation": value, "elbo_train": value - 1, **dear}
        target.report("00000", epoch=epoch, time_s=epoch, metrics=metrics, n_params=7)
    target.end("00000", status="finished", reason="")
    folder = tmp_path / "00000"
    assert scalars(folder, "ari") == [(2, pytest.approx(0.7)), (4, pytest.approx(0.9))]
    assert scalars(folder, "Best/elbo_validation")[-1] == (3, 4.0)
    assert scalars(folder, "Best_report/epoch")[-1] == (3, 3.0)
    (first, second) = scalars(folder, "Best_report/ari")
    assert first == (2, pytest.approx(0.7))
    assert second[0] == 3
    assert math.isnan(second[1])


def test_the_deciding_metric_is_the_first_column(tmp_path: Path) -> None:
    target = TensorBoardRecorder(
        tmp_path, metric="elbo_validation", mode="min", is_seldom=lambda name: name == "asw_batch"
    )
    for number in range(3):
        trial_id = f"{number:05d}"
        target.proposal(Proposal(trial_id, CONFIG, "tpe"))
        metrics = {"elbo_validation": 2.0, "elbo_train": 1.0, "ari": 0.5, "asw_batch": 0.3}
        target.report(trial_id, epoch=1.0, time_s=1.0, metrics=metrics, n_params=7)
    target.close()
    _, _, experiment = open_page(tmp_path)
    columns = [info.name.tag for info in experiment.metric_infos]
    assert columns[0] == "Best/elbo_validation"
    others = ("Best_report/ari", "Best_report/elbo_train", "Best_report/epoch")
    assert tuple(columns[1:5]) == (*others, "Best_report_seldom/asw_batch")


def test_a_conditional_choice_is_a_column_of_every_trial(tmp_path: Path) -> None:
    """Parallel coordinates leave out a trial that lacks a column."""
    zinb = {"gene_likelihood": ("zinb",)}
    space = SearchSpace(
        (
            Hyperparameter("gene_likelihood", Choice(("nb", "zinb"))),
            Hyperparameter("dispersion", Choice(("gene", "gene-batch")), when=zinb),
            Hyperparameter("share", FloatRange(0.0, 1.0), when=zinb),
        ),
        {},
    )
    target = TensorBoardRecorder(tmp_path, metric="elbo_validation", mode="min", space=space)
    configs = {
        "00000": {"gene_likelihood": "nb"},
        "00001": {"gene_likelihood": "zinb", "dispersion": "gene-batch", "share": 0.5},
    }
    for trial_id, config in configs.items():
        target.proposal(Proposal(trial_id, config, "tpe"))
        target.start(trial_id)
    target.close()
    assert hparams(tmp_path / "00000") == {"gene_likelihood": "nb", "dispersion": "inactive"}
    assert hparams(tmp_path / "00001") == configs["00001"]


def test_the_searched_come_before_constants_though_those_differ_from_the_default(
    tmp_path: Path,
) -> None:
    """The page ticks the first five columns."""
    names = ("dropout_rate", "lr", "n_hidden", "n_latent", "weight_decay")
    space = SearchSpace(
        tuple(Hyperparameter(name, FloatRange(0.0, 1.0)) for name in names),
        {"batch_size": 256, "n_layers": 1, "gradient_clip_val": None},
    )
    default = dict.fromkeys(names, 0.1) | {
        "batch_size": 128,
        "n_layers": 1,
        "gradient_clip_val": 5.0,
    }
    target = TensorBoardRecorder(
        tmp_path, metric="elbo_validation", mode="min", space=space, default=default
    )
    tried = dict.fromkeys(names, 0.2) | space.constants
    for trial_id, config in (("00000", default), ("00001", tried)):
        target.proposal(Proposal(trial_id, config, "tpe"))
        target.start(trial_id)
    target.close()
    _, _, experiment = open_page(tmp_path)
    columns = [info.name for info in experiment.hparam_infos]
    assert columns == [*names, "with", "n_layers"]
    assert hparams(tmp_path / "00000")["with"] == "batch_size=128, gradient_clip_val=5.0"
    assert hparams(tmp_path / "00001")["with"] == "batch_size=256, gradient_clip_val=None"
