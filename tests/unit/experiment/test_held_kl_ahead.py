"""Who lets trials end within their KL warm-up, and ranks them by the ELBO, is told so before."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
import scvi
from rich.console import Console

import scvitune
from scvitune._held_kl import find_held
from scvitune.config import StudyConfig, load_config
from scvitune.contracts import RunLayout
from scvitune.experiment import prepare_experiment
from scvitune.experiment._forecast import describe_held_kl, describe_preparation
from scvitune.experiment._planning import plan_study
from scvitune.experiment._running import _announce

QUICK = Path(__file__).parents[3] / "configs" / "scvi-quick.yaml"
LATENT = {"n_latent": {"type": "randint", "low": 5, "high": 21}}


@pytest.fixture(scope="module")
def preparation():
    cells = scvitune.data.simulated(120, 30, seed=0)
    scvi.model.SCVI.setup_anndata(cells)
    arguments = {"space": LATENT, "max_epochs": 100, "scheduler": "fifo"}
    return prepare_experiment(StudyConfig.from_arguments("SCVI", **arguments), adata=cells)


def warnings_of(preparation, **arguments):
    arguments = {"space": LATENT, "max_epochs": 15, "scheduler": "fifo"} | arguments
    return describe_held_kl(
        plan_study(StudyConfig.from_arguments("SCVI", **arguments), preparation.prepared)
    )


def test_check_and_the_start_say_it(preparation, tmp_path):
    (line,) = describe_held_kl(preparation.plan)
    assert line.startswith(
        "the trials cannot leave their KL warm-up: of 400 epochs, in trainings of 100. The KL "
        "term never gets more than 25 % of its weight in them, while the metric that ranks them "
        "counts it in full."
    )
    for words in (
        "such as a small n_latent",
        "reconstruction loss",
        "`n_epochs_kl_warmup: 33`",
        "more epochs than the warm-up",
    ):
        assert words in line
    assert f"WARNING:    {line}" in describe_preparation(preparation)
    said = StringIO()
    console = Console(file=said, width=200)
    layout = RunLayout(tmp_path / "run")
    _announce(preparation.plan, layout, preparation.prepared, None, console)
    assert f"WARNING: {line}" in said.getvalue()
    said.truncate(0)
    _announce(preparation.plan, layout, preparation.prepared, None, console, is_searched=True)
    assert "After the search of SCVI on" in said.getvalue()
    assert "Tuning" not in said.getvalue()
    assert "WARNING" not in said.getvalue(), "it is too late for that"


@pytest.mark.parametrize(
    "arguments",
    [
        {"space": {**LATENT, "n_epochs_kl_warmup": 5}},
        {"max_epochs": None},
        {"max_epochs": 380},
        {"metric": "reconstruction_loss_validation"},
        {"space": {}},
        {"space": {**LATENT, "min_kl_weight": 1.0}},
        {"space": {**LATENT, "n_epochs_kl_warmup": None, "n_steps_kl_warmup": 10}},
        {"space": None, "max_epochs": 40},
    ],
    ids=str,
)
def test_nothing_is_said_where_trials_leave_it_or_are_not_ranked_so(preparation, arguments):
    assert warnings_of(preparation, **arguments) == []


def test_steps_count_too(preparation):
    space = {**LATENT, "n_epochs_kl_warmup": None, "n_steps_kl_warmup": 400}
    (line,) = warnings_of(preparation, space=space)
    assert "of 533.3 epochs, in trainings of 15" in line  # 96 cells, less than a batch


def test_the_default_space_says_that_most_cannot_leave_it(preparation):
    (line,) = warnings_of(preparation, space=None, max_epochs=10)
    assert line.startswith("most trials cannot leave their KL warm-up: of 20 to 400 epochs")
    assert "favours a short warm-up for that alone" in line


def test_without_n_latent_in_the_space_it_is_not_spoken_of(preparation):
    (line,) = warnings_of(preparation, space={"n_hidden": {"type": "choice", "values": [64, 128]}})
    assert "n_latent" not in line


def test_the_quick_configuration_leaves_it(preparation):
    quick = load_config(QUICK)
    trials = [(dict(quick.space), float(quick.search.max_epochs))]
    assert find_held(trials, metric=quick.metric, max_epochs=10, default_warmup=400) is None
