"""Run directories that older versions of this project have written, and newer ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import scvitune
from scvitune.config import load_config
from scvitune.contracts import RunLayout
from scvitune.errors import InputError, ScvituneWarning
from scvitune.events import EventLog
from scvitune.experiment import check_without_data
from scvitune.experiment._reopening import reopen
from scvitune.experiment._run_directory import read_past
from scvitune.results import read_run
from scvitune.results._concluding import conclude

OLDER = Path(__file__).parents[2] / "data" / "older"
"""``first`` is of the first day: killed in its third trial. ``second``, of the day after, came to
its end, with two metrics, a confirmation and a last fit. Both are of the cells in ``data``. The
others there, ``deconvolution`` and ``population``, are gone on with by the end-to-end tests."""

NEWER = {
    "form": ({"schema": 2}, r"in a form \(schema 2\) that this version does not know"),
    "key": ({"warm_start": True}, r"It holds warm_start, which this version does not know"),
    "value": ({"final_fit": "some_cells"}, r"final_fit must be 'all_cells' or null"),
    "search": ({"search": {"seed": 3, "restarts": 2}}, r"Unknown key 'search.restarts'"),
}


@pytest.fixture
def older(tmp_path):
    def copy(name):
        root = shutil.copytree(OLDER / name, tmp_path / name)
        settings = yaml.safe_load((root / "study.yaml").read_text())
        shutil.copytree(OLDER / "data", tmp_path / ".data" / settings["fingerprint"])
        return root

    return copy


def reports(root):
    lines = map(json.loads, (root / "events.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == "report"]


def test_the_killed_one_is_read_whole(older):
    root = older("first")
    study = scvitune.load(root)
    assert list(study.trials["status"]) == ["finished", "finished", "interrupted"]
    assert not study.finished
    assert len(study.history) == len(reports(root))
    values = {line["metrics"]["elbo_validation"] for line in reports(root)}
    assert set(study.history["elbo_validation"]) == values
    best = study.trials["elbo_validation"].idxmin()
    assert best == "00000"
    assert study.trials["elbo_validation"].min() == min(values)
    assert study.best_config == {"lr": 0.001, "n_hidden": 128, "n_latent": 10}
    assert "3 (2 finished, 1 interrupted), of 5 asked for" in study.summary()
    assert "00002" in study.write_report().read_text()


def test_its_best_model_is_made_of_a_checkpoint_of_the_first_format(older):
    root = older("first")
    kept = torch.load(RunLayout(root).checkpoint("00000"), weights_only=True)
    assert kept["format"] == 1
    model = scvitune.load(root).best_model()
    assert type(model).__name__ == "SCVI"
    for name, value in model.module.state_dict().items():
        assert torch.equal(value, kept["best"]["weights"][name]), name


def test_it_can_be_gone_on_with(older):
    root = older("first")
    opened = reopen(root)
    assert [p.trial_id for p in opened.plan.queue] == ["00000"]
    assert (opened.plan.num_trials, opened.plan.slots.threads) == (5, 1)
    past = read_past(opened.layout, "elbo_validation")
    assert [trial.status for trial in past] == ["finished", "finished", "running"]


def test_the_ended_one_is_read_whole(older):
    root = older("second")
    study = scvitune.load(root)
    assert study.finished
    assert len(study.trials) == 4
    assert len(study.history) == len(reports(root))
    assert {"elbo_validation", "reconstruction_loss_validation"} <= set(study.history)
    assert len(study.confirmation) > 0
    assert study.write_report().is_file()
    assert study.table("comparison")["n_cells"].isna().all(), "it said nothing of single cells"
    assert "over 6 test cells" not in study.summary()
    assert study.best_model().get_latent_representation().shape == (60, 2)
    assert reopen(root, num_samples=6).plan.num_trials == 6


@pytest.mark.parametrize("change", NEWER)
@pytest.mark.parametrize("name", ["first", "second"])
def test_what_a_newer_version_has_written_is_refused_by_name(older, name, change):
    root = older(name)
    study = root / "study.yaml"
    more, words = NEWER[change]
    settings = yaml.safe_load(study.read_text()) | more
    settings["versions"]["scvitune"] = "9.1"
    study.write_text(yaml.safe_dump(settings))
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=words) as caught:
        scvitune.resume(root)
    assert "scvitune 9.1" in str(caught.value)
    if change == "form":
        with pytest.raises(InputError, match=words):
            scvitune.load(root)
    else:  # what it has recorded can be looked at
        assert len(scvitune.load(root).trials) in (3, 4)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_a_configuration_of_the_first_day_means_what_it_meant():
    """No key was renamed since; one that is would be named here with its new name."""
    config = load_config(OLDER / "scvi.yaml")
    check_without_data(config)
    written = yaml.safe_load((OLDER / "scvi.yaml").read_text())
    now = config.to_yaml_dict()
    for key in ("model", "metric", "confirm", "final_fit", "target", "storage", "name"):
        assert now[key] == written[key]
    for section in ("data", "search"):
        assert now[section].items() >= written[section].items()
    assert now["space"]["lr"] == {"type": "loguniform", "low": 1e-4, "high": 1e-2}


def test_damaged_weights_of_the_default_do_not_cost_the_best_model(older):
    """Of the best, which has the configuration of the default here and a number of its own."""
    root = older("first")
    layout = RunLayout(root)
    config = read_run(root).records["00000"].config
    with EventLog(layout.events) as log:
        log.append("proposal", trial_id="00009", config=config, origin="random")
        best = {"epoch": 1.0, "time_s": 1.0, "metrics": {"elbo_validation": 0.5}}
        log.append("report", trial_id="00009", **best)
        log.append("end", trial_id="00009", status="finished")
        log.append("driver", action="end")
    shutil.copy(layout.checkpoint("00000"), layout.checkpoint("00009"))
    layout.checkpoint("00000").write_bytes(b"PK and no more")
    with pytest.warns(ScvituneWarning, match="So trial 00000 is not measured on the test cells"):
        conclude(root, None)
    assert layout.best.is_dir()
    table = scvitune.load(root).trials
    assert table.loc["00009", "elbo_test"] > 0
    assert table["elbo_test"].isna().sum() == len(table) - 1
