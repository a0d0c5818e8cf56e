from __future__ import annotations

import re

import pytest

from scvitune.results.methods import describe_methods
from scvitune.results.methods._citations import REFERENCES, SCHEDULERS, SEARCHERS
from scvitune.schedulers import SCHEDULERS as KNOWN_SCHEDULERS
from scvitune.searchers import SEARCHERS as KNOWN_SEARCHERS


def check_citations(methods) -> None:
    """Every citation has its reference and the other way round."""
    for key, reference in REFERENCES.items():
        assert (key in methods.text) == (reference in methods.references), key


def test_says_what_the_study_did(small_run) -> None:
    small_run.settings(
        rungs=[1.0, 2.0],
        versions={
            "scvi-tools": "1.4.2",
            "ray": "2.60.0",
            "scvitune": "0.1.0",
            "hyperopt": "0.3.0",
        },
        search={"searcher": "tpe", "scheduler": "asha", "max_epochs": 4, "seed": 7},
    )
    methods = describe_methods(small_run.read())
    text = methods.text
    for part in (
        "scVI (Lopez et al., 2018) as implemented in scvi-tools 1.4.2 (Gayoso et al., 2022)",
        "tuned with scvitune 0.1.0 on Ray Tune 2.60.0 (Liaw et al., 2018)",
        "100 cells and 20 genes; 80 cells were used for training, 10 for validation and 10 were",
        "To minimise the negative ELBO on the validation cells (elbo_validation), 3 "
        "configurations proposed at random (the tree-structured Parzen estimator had not begun; "
        "hyperopt 0.3.0; Bergstra et al., 2011; Bergstra et al., 2013) and the default "
        "configuration of scvi-tools were trained for at most 4 epochs (seed 7).",
        "(ASHA) (Li et al., 2020) stopped 1 of 4 trials early, at rungs of 1 and 2 epochs "
        "(reduction factor 4), each compared with those that had come to the rung before it.",
        "Trials were evaluated after 1, 2 and 4 epochs; each was judged by its best evaluation, ",
        "1 trial diverged or failed and did not count.",
        "The search trained 10 epochs in all",
        "with 2 trials at a time",
        "The configuration of the best trial was lr = 0.005, n_hidden = 128, n_latent = 12, "
        "gene_likelihood = "
        "nb and clip = 5. It was trained for 4 epochs and did best after epoch 2, whose weights "
        "were kept.",
        "On the held-out test cells, its negative ELBO was 8.8000 against 11.000 for the default, "
        "2.20 nats per cell (20 %) lower.",
    ):
        assert part in text, part
    check_citations(methods)
    assert "Hyperband" not in text
    assert "so far" not in text


def test_an_unfinished_study_says_so_far(new_run) -> None:
    builder = new_run()
    builder.driver("start")
    builder.trial("00000", values={1.0: 9.0}, origin="default")
    builder.trial("00001", {"lr": 0.2}, values={1.0: 8.0}, status=None)
    text = describe_methods(builder.read()).text
    assert text.startswith(
        "This study is not finished; its trials so far: 2 (1 finished, 1 interrupted), of 4 "
        "asked for. What follows counts those that were trained. Hyperparameters of scVI"
    )
    assert "The search trained 2 epochs in all so far" in text
    assert "The configuration of the best trial so far" in text


def test_a_default_that_won_is_said(new_run) -> None:
    builder = new_run()
    builder.driver("start")
    builder.trial("00000", values={1.0: 5.0}, origin="default")
    builder.trial("00001", {"lr": 0.2}, values={1.0: 6.0})
    builder.driver("end")
    assert "No configuration tried, each trained once, did better than the default." in (
        describe_methods(builder.read()).text
    )


@pytest.mark.parametrize("searcher", sorted(KNOWN_SEARCHERS))
def test_every_searcher_can_be_described(small_run, searcher) -> None:
    small_run.settings(search={"searcher": searcher, "scheduler": "fifo"})
    methods = describe_methods(small_run.read())
    way = SEARCHERS[searcher][0].removeprefix("proposed by ").removeprefix("a ")
    assert way in methods.text
    assert "stopped" not in methods.text
    check_citations(methods)


@pytest.mark.parametrize("scheduler", sorted(set(KNOWN_SCHEDULERS) - {"fifo"}))
def test_every_scheduler_can_be_described(small_run, scheduler) -> None:
    small_run.settings(search={"searcher": "random", "scheduler": scheduler})
    methods = describe_methods(small_run.read())
    words, keys = SCHEDULERS[scheduler]
    assert words[1:] in methods.text
    assert all(key in methods.text for key in keys)
    check_citations(methods)


def test_references_are_whole() -> None:
    for key, reference in REFERENCES.items():
        assert re.search(r"\(\d{4}\)", reference), reference
        assert re.search(r"\d{4}", key).group() in reference, reference
        assert reference.startswith(key.split()[0]), reference


def test_several_metrics_together_are_all_named(small_run) -> None:
    small_run.settings(
        further_metrics=["nmi_validation"], search={"searcher": "nsga2", "scheduler": "fifo"}
    )
    text = describe_methods(small_run.read()).text
    assert (
        "To minimise the negative ELBO on the validation cells (elbo_validation) and maximise the "
        "NMI of clusters and labels on the validation cells (nmi_validation) together, 3 "
    ) in text
    assert "The configuration with the best elbo_validation was lr = 0.005" in text
    small_run.settings(further_metrics=["nmi_validation"])
    assert "together" not in describe_methods(small_run.read()).text


@pytest.mark.parametrize(
    ("metric", "mode", "key"),
    [
        ("scib_total", "max", "Luecken et al., 2022"),
        ("marginal_ll_validation", "max", "Burda et al., 2016"),
        ("proportion_jsd", "min", "Li et al., 2022"),
        ("imputation_mae_mean_validation", "min", "Lopez et al., 2018"),
    ],
)
def test_a_metric_that_decides_is_cited(new_run, metric, mode, key) -> None:
    builder = new_run()
    builder.settings(metric=metric, mode=mode, model="LinearSCVI")
    for number, value in enumerate((1.0, 2.0)):
        trial_id = f"{number:05d}"
        origin = "tpe" if number else "default"
        builder.log.append(
            "proposal", trial_id=trial_id, config={"lr": value / 100}, origin=origin
        )
        builder.log.append(
            "report", trial_id=trial_id, epoch=1.0, time_s=1.0, metrics={metric: value}
        )
        builder.log.append("end", trial_id=trial_id, status="finished", reason="")
    builder.driver("end")
    methods = describe_methods(builder.read())
    assert f"({metric}; {key})" in methods.text
    check_citations(methods)


def test_the_score_that_spots_are_tested_by_is_cited_in_the_text(small_run) -> None:
    small_run.settings(
        model="DestVI", target="likelihood", deconvolution={}, metric="elbo_validation"
    )
    small_run.judge("00000", proportion_jsd_test=0.4)
    small_run.judge("00001", proportion_jsd_test=0.3)
    methods = describe_methods(small_run.read())
    assert "divergence of proportions (JSD) (Li et al., 2022) was 0.3 against 0.4" in methods.text
    check_citations(methods)


def test_a_lone_trial(new_run) -> None:
    builder = new_run()
    builder.trial("00001", {"lr": 0.2}, values={1.0: 6.0})
    builder.driver("end")
    assert "The configuration of the best trial was lr = 0.2. It was trained for 1 epoch. " in (
        describe_methods(builder.read()).text + " "
    )


def test_the_default_alone(new_run) -> None:
    builder = new_run()
    builder.trial("00000", values={1.0: 6.0}, origin="default")
    builder.driver("end")
    text = describe_methods(builder.read()).text
    assert "(elbo_validation), the default configuration of scvi-tools was trained" in text
    assert "No configuration tried" not in text


@pytest.mark.parametrize("wins", [True, False])
def test_a_confirmation_is_told_by_its_seeds(new_run, wins) -> None:
    builder = new_run()
    builder.settings(confirm={"top_k": 1, "seeds": 3})
    builder.driver("start")
    builder.trial("00000", values={4.0: 9.0}, origin="default")
    builder.trial("00001", {"lr": 0.2}, values={4.0: 8.0})
    builder.judge("00000", elbo_test=9.0)
    builder.judge("00001", elbo_test=9.5)
    shifts = {"00000": 2.0, "00001": 1.0 if wins else 3.0}
    for trial_id, shift in shifts.items():
        for seed in (1, 2, 3):
            value = 8.0 + shift + 0.1 * seed * shift
            metrics = {"elbo_validation": value, "elbo_test": value}
            builder.confirm(trial_id, seed, **metrics)
    builder.driver("end")
    methods = describe_methods(builder.read())
    assert "2 configurations were trained again with 3 fresh seeds each" in methods.text
    if wins:
        assert (
            "On the held-out test cells, over fresh seeds, its negative ELBO was 9.2000 ± 0.058 "
            "against 10.400 ± 0.12 (mean ± standard error) for the default, 1.20 nats per "
            "cell lower (95 % confidence interval 0.952 to 1.45); two-sided paired t-test: p = "
        ) in methods.text
        assert "9.5000" not in methods.text, "one training of the search"
    else:
        told = "No configuration of those confirmed had a better mean than the default."
        assert told in methods.text
    check_citations(methods)


def test_the_space_is_told_as_it_was_asked_for(small_run) -> None:
    """Not widened by the default, and with what all trials happened to draw alike."""
    small_run.settings(
        space={
            "lr": {"type": "loguniform", "low": 0.002, "high": 0.01},
            "n_hidden": {"type": "choice", "values": [32, 64]},
            "dropout_rate": {"type": "choice", "values": [0.1, 0.2]},
            "dispersion": {
                "type": "choice",
                "values": ["gene", "gene-batch"],
                "when": {"n_hidden": [32]},
            },
        }
    )
    text = describe_methods(small_run.read()).text
    for part in (
        "lr (0.002 to 0.01, logarithmic)",
        "n_hidden (32, 64)",
        "dropout_rate (0.1, 0.2)",
        "dispersion (gene, gene-batch; where n_hidden = 32)",
    ):
        assert part in text, part


def test_constants_are_told(small_run) -> None:
    small_run.settings(space={"lr": {"type": "uniform", "low": 0, "high": 1}, "n_hidden": 256})
    text = describe_methods(small_run.read()).text
    assert "Held constant was n_hidden = 256 (128 in the default configuration)." in text


def test_rungs_are_rounded(small_run) -> None:
    small_run.settings(rungs=[0.416667, 1.66667, 40.0])
    text = describe_methods(small_run.read()).text
    assert "at rungs of 0.42, 1.67 and 40 epochs (reduction factor 4), each" in text


def test_trials_that_saw_a_part_of_the_cells_at_first_are_told(small_run, new_run) -> None:
    small_run.settings(
        rungs=[0.416667, 1.66667, 4.0], cell_shares=[[0.416667, 0.125], [1.66667, 0.5]]
    )
    assert (
        "Trials were trained on a random part of the training cells at first (12 % until epoch "
        "0.42 and 50 % until epoch 1.67, each part within the next) and then on all of them; the "
        "default configuration was trained on all from the beginning."
    ) in describe_methods(small_run.read()).text
    alone = new_run("alone")
    alone.settings(rungs=[1.0, 4.0], cell_shares=[[1.0, 0.1]])
    alone.trial("00001", values={1.0: 8.0})
    assert (
        "training cells at first (10 % until epoch 1) and then on all of them. "
    ) in describe_methods(alone.read()).text
    small_run.settings(rungs=[1.0, 2.0], cell_shares=[])
    assert "part of the training cells" not in describe_methods(small_run.read()).text


def test_the_registration_is_told(small_run) -> None:
    small_run.settings(
        n_batch=3,
        setup={
            "layer": "counts",
            "batch_key": "donor",
            "continuous_covariate_keys": ["age", "bmi"],
        },
    )
    assert (
        "The model was given batches (3) from the column 'donor' and continuous covariates from "
        "the column 'age' and the column 'bmi'."
    ) in describe_methods(small_run.read()).text
    small_run.settings(setup={"layer": "counts"})
    assert "The model was given" not in describe_methods(small_run.read()).text


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, ""),
        ({"space": {"dispersion": "gene"}}, ""),
        ({"space": {"dispersion": "gene-label"}}, "given"),
        ({"space": {"dispersion": {"type": "choice", "values": ["gene", "gene-label"]}}}, "given"),
        ({"model": "CondSCVI"}, "given"),
        ({"further_metrics": ["ari_validation", "kl_local_validation"]}, "(ari_validation)"),
        ({"metric": "scib_total", "mode": "max"}, "(scib_total)"),
        ({"metric": "nmi_validation", "mode": "max", "model": "CondSCVI"}, "given"),
    ],
)
def test_labels_that_the_model_does_not_look_at_are_not_said_to_be_given(
    small_run, settings, told
) -> None:
    small_run.settings(setup={"labels_key": "cell_type"}, **settings)
    text = describe_methods(small_run.read()).text
    given = "The model was given cell types from the column 'cell_type'."
    only = "Cell types from the column 'cell_type' were used for evaluation only"
    assert (given in text) == (told == "given")
    assert (only in text) == told.startswith("(")
    assert not told.startswith("(") or f"{only} {told}." in text
    assert ("'cell_type'" in text) == bool(told)


def test_a_point_beyond_the_space_may_have_looked_at_labels(small_run) -> None:
    small_run.settings(setup={"labels_key": "cell_type"})
    small_run.trial("00004", {"dispersion": "gene-label"}, values={1.0: 9.0}, origin="point")
    assert "given cell types from" in describe_methods(small_run.read()).text


def test_the_labels_of_spots_are_those_of_the_reference(small_run) -> None:
    small_run.settings(
        model="DestVI", deconvolution={}, setup={}, data={"labels_key": "type"}, target="truth"
    )
    assert "cell types from the column 'type'" in describe_methods(small_run.read()).text


def test_a_schedule_is_told_as_one(new_run) -> None:
    builder = new_run()
    builder.settings(
        search={"searcher": "random", "scheduler": "pbt", "max_epochs": 8},
        space={
            "lr": {"type": "loguniform", "low": 1e-3, "high": 1e-1},
            "n_hidden": {"type": "choice", "values": [64, 128]},
        },
    )
    before, after = {"lr": 0.009, "n_hidden": 64}, {"lr": 0.007, "n_hidden": 64}
    builder.trial("00001", before, values={4.0: 9.0}, status=None)
    builder.trial("00002", before, values={4.0: 8.0, 8.0: 7.5})
    builder.log.append(
        "perturb", trial_id="00001", epoch=4.0, source="00002", before=before, config=after
    )
    builder.log.append(
        "report",
        trial_id="00001",
        epoch=8.0,
        time_s=1.0,
        metrics={"elbo_validation": 6.0},
    )
    builder.log.append("end", trial_id="00001", status="finished", reason="")
    builder.driver("end")
    assert (
        "The configuration of the best trial, its hyperparameters changing on the way, was lr = "
        "0.009, 0.007 "
        "from epoch 4 on; n_hidden = 64. It was trained for 8 epochs and did best after the last, "
        "whose weights were kept."
    ) in describe_methods(builder.read()).text
