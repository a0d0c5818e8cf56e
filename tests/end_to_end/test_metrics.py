"""Studies by several metrics, dear ones, and the user's own."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest
import scvi

import scvitune
from scvitune.errors import InputError
from scvitune.events import read_events

pytestmark = pytest.mark.usefixtures("local_ray")

SPACE = {
    "n_latent": {"type": "randint", "low": 3, "high": 12},
    "lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2},
    "n_hidden": 16,
}
MODULE = """
def spread(model, data, cells):
    latent = model.get_latent_representation(cells)
    if model.config["n_latent"] == 4:
        raise RuntimeError("not four")
    assert len(latent) == len(cells) == 12
    return float(latent.var())
"""
LISTED = {"n_latent": {"type": "choice", "values": [3, 4, 5]}, "n_hidden": 16}


@pytest.fixture(scope="module")
def cells():
    adata = scvitune.data.simulated(120, 40, mean_library=150.0, seed=3, n_labels=2)
    scvi.model.SCVI.setup_anndata(adata, labels_key="cell_type")
    return adata


def tune(cells, storage, name, **arguments):
    common = {"space": SPACE, "max_epochs": 4, "seed": 3}
    return scvitune.tune("SCVI", cells, storage=storage, name=name, **(common | arguments))


def test_the_users_own_and_a_dear_one(cells, tmp_path, monkeypatch):
    """One study: a dear metric decides, the user's own fails one trial, resume imports it."""
    (tmp_path / "my_scores.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    spread = {"name": "spread", "function": "my_scores:spread", "mode": "min"}
    common = {"searcher": "grid", "scheduler": "asha", "space": LISTED, "max_epochs": 16}
    study = tune(
        cells,
        tmp_path,
        "own",
        metric=["marginal_ll_validation", spread, "nmi_validation"],
        metric_options={"n_mc_samples": 5},
        num_samples=2,
        **common,
    )
    trials = study.trials
    asked = ["marginal_ll_validation", "spread", "nmi_validation"]
    wrong = trials["config/n_latent"] == 4
    assert set(trials.loc[wrong, "status"]) == {"failed"}
    assert "your metric 'spread' raised RuntimeError: not four" in set(trials["reason"])
    assert trials.loc[~wrong, asked].notna().all(axis=None)
    assert study.history[asked].notna().all(axis=None)
    reported = sorted(set(study.history["epoch"].round()))
    assert reported == study._run.settings["report_epochs"] == [1.0, 4.0, 16.0]
    best = trials.loc[study.best_trial_id]
    assert best["marginal_ll_validation"] == trials["marginal_ll_validation"].max()
    tested = ["marginal_ll", "spread", "nmi", "elbo", "imputation_mae_median"]
    assert (
        trials.loc[[study.best_trial_id, "00000"], [f"{n}_test" for n in tested]]
        .notna()
        .all(axis=None)
    )
    paired = study.table("comparison")["n_cells"].dropna()
    if study.best_trial_id != "00000":
        means = ("elbo", "reconstruction_loss", "kl_local", "marginal_ll")
        assert paired.to_dict() == {f"{name}_test": 12 for name in means}
    logged = [e["metrics"] for e in read_events(study.path / "events.jsonl") if "metrics" in e]
    assert all(set(asked) <= set(metrics) for metrics in logged if "elbo_train" in metrics)

    files = [path.read_bytes() for path in study.path.glob("tensorboard/00000/*")]
    for tag in (f"Best/{asked[0]}", *(f"/{name}" for name in asked[1:])):
        assert any(tag.encode() in content for content in files)

    more = scvitune.resume(study.path, num_samples=3)
    assert len(more.trials) == 4
    pd.testing.assert_frame_equal(more.trials.loc[trials.index, asked], trials[asked])
    assert scvitune.load(study.path).pareto_front.index.isin(trials.index[~wrong]).any()


def test_a_function_of_a_notebook_decides_by_itself(cells, tmp_path):
    study = tune(
        cells,
        tmp_path,
        "notebook",
        metric={"name": "width", "function": lambda model, data, cells: model.config["n_latent"]},
        mode="max",
        num_samples=2,
        searcher="random",
        scheduler="fifo",
    )
    assert (study.trials["width"] == study.trials["config/n_latent"]).all()
    assert study.best_config["n_latent"] == study.trials["config/n_latent"].max()
    assert study.table("comparison")["n_cells"].isna().all(), "nobody knows whether it is a mean"
    assert "interval" not in study.summary()
    with pytest.raises(InputError, match="Give it again"):
        scvitune.resume(study.path, num_samples=3)
    with pytest.raises(InputError, match="Give it again"):
        scvitune.learning_curve(study, sizes=(0.5, 1.0), seeds=1)
    width = {"name": "width", "function": lambda model, data, cells: model.config["n_latent"]}
    curve = scvitune.learning_curve(study, sizes=(0.5, 1.0), seeds=1, metric=width)
    assert curve.table["n_cells"].tolist() == [48, 96]
    assert (curve.table["width"] == study.best_config["n_latent"]).all()


def test_nsga2_goes_on_from_a_log_as_it_would_have(cells, tmp_path):
    asked = ["reconstruction_loss_validation", "kl_local_validation"]
    common = {"metric": asked, "searcher": "nsga2", "max_concurrent": 1, "num_samples": 14}
    whole = tune(cells, tmp_path, "whole", **common)
    assert whole.finished
    front = whole.pareto_front
    assert front.loc[whole.best_trial_id, asked[0]] == whole.trials[asked[0]].min()
    assert whole.trials[asked[1]].min() in set(front[asked[1]])

    # What a killed driver leaves: the log until the eighth trial's end, and older checkpoints.
    killed = tmp_path / "killed"
    shutil.copytree(whole.path, killed)
    lines = (killed / "events.jsonl").read_text().splitlines(keepends=True)
    ends = [i for i, line in enumerate(lines) if json.loads(line)["event"] == "end"]
    (killed / "events.jsonl").write_text("".join(lines[: ends[7] + 1]))
    for checkpoint in (killed / "ray" / "checkpoints").glob("*.pt"):
        if checkpoint.stem > "00007":
            checkpoint.unlink()
    resumed = scvitune.resume(killed)
    columns = [*asked, "config/n_latent", "config/lr"]
    pd.testing.assert_frame_equal(resumed.trials[columns], whole.trials[columns])


def test_what_cannot_be_measured_is_refused_at_once(cells, tmp_path):
    import anndata

    plain = anndata.AnnData(cells.X.copy())
    scvi.model.SCVI.setup_anndata(plain)
    with pytest.raises(InputError, match="nmi_validation.*at least two labels") as error:
        tune(plain, tmp_path, "none", metric=["elbo_validation", "nmi_validation"])
    assert "scib" not in str(error.value)
    with pytest.raises(InputError, match="scvitune\\[scib\\]|at least two batches"):
        tune(cells, tmp_path, "none", metric="scib_total")
    with pytest.raises(InputError, match="fifo"):
        tune(
            cells,
            tmp_path,
            "none",
            metric=["elbo_validation", "nmi_validation"],
            searcher="nsga2",
            scheduler="asha",
        )
    assert not (tmp_path / "none").exists()
